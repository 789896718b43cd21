//! `Versions`: what the newest shares are and vote for, and who is paid where on the merged chain (protocol-v36
//! sections 2.2 and 8.1).

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;

use bitcoin::Script;
use ruint::aliases::U320;
use serde::{Deserialize, Serialize};

use crate::chain::Ratchet;
use crate::coin::MergedChain;
use crate::merged::converted;
use crate::share::{Payee, Share, ShareVersion, whole_payee};

/// Share versions of the newest shares of the best chain, and their votes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Shares that are counted: the newest, as many as the chain length at most.
    pub shares: u32,
    /// Number of them by version.
    pub by_version: BTreeMap<u64, u32>,
    /// Those of them that vote for a version, by that version.
    pub by_vote: BTreeMap<u64, VoteCount>,
    /// Work in the oldest tenth of a full chain length by version voted for: the votes that let a share of the next
    /// version follow (protocol section 5.4). Empty while the chain is shorter.
    pub deciding: BTreeMap<u64, U320>,
    /// Shares from the newest down that vote for version 36 or a newer one, up to the first that does not.
    pub unbroken: u32,
    /// Shares that name their miner's script on a merged chain.
    pub with_merged_address: u32,
    /// Shares that commit to the weights on the merged chain.
    pub with_payout_hash: u32,
    /// Shares that carry messages of the authorities.
    pub with_messages: u32,
    /// The ratchet, on networks that have one.
    pub ratchet: Option<Ratchet>,
}

/// Votes for a share version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteCount {
    /// Number of shares.
    pub shares: u32,
    /// Place of the oldest of them: 1 is the newest share of the chain.
    pub oldest: u32,
}

/// Script of a payee on the merged chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedPayee {
    /// Payee on the parent chain.
    #[serde(with = "whole_payee")]
    pub payee: Payee,
    /// Output script on the merged chain, in hex.
    pub script: String,
    /// Address of the script, if it has one.
    pub address: Option<String>,
    /// True if a share names the script, false if it is the payee's own, converted.
    pub is_named: bool,
}

impl Versions {
    /// Counts `shares`, the newest first, on a network of this chain length.
    pub(super) fn count<'a>(
        shares: impl Iterator<Item = &'a Arc<Share>>,
        chain_length: u32,
        ratchet: Option<Ratchet>,
    ) -> Versions {
        let length = usize::try_from(chain_length).unwrap_or(usize::MAX);
        let tenth = usize::try_from(chain_length * 9 / 10).unwrap_or(usize::MAX);
        let decides = tenth..tenth + usize::try_from(chain_length / 10).unwrap_or(usize::MAX);
        let mut counted = Versions { ratchet, ..Versions::default() };
        let mut is_unbroken = true;
        for (place, share) in shares.take(length).enumerate() {
            let vote = share.data().desired_version;
            counted.shares += 1;
            *counted.by_version.entry(share.version().number()).or_default() += 1;
            let votes = counted.by_vote.entry(vote).or_default();
            votes.shares += 1;
            votes.oldest = counted.shares;
            is_unbroken &= vote >= ShareVersion::V36.number();
            counted.unbroken += u32::from(is_unbroken);
            if decides.contains(&place) {
                *counted.deciding.entry(vote).or_default() += share.attempts().0;
            }
            if let Some(additions) = &share.info().additions {
                counted.with_merged_address += u32::from(!additions.merged_addresses.is_empty());
                counted.with_payout_hash += u32::from(additions.merged_payout_hash.is_some());
                counted.with_messages += u32::from(!additions.message_data.is_empty());
            }
        }
        if counted.shares < chain_length {
            counted.deciding.clear();
        }
        counted
    }

    /// Number of shares of `version` or a newer one.
    pub fn shares_from(&self, version: u64) -> u32 {
        self.by_version.range(version..).map(|(_, shares)| shares).sum()
    }

    /// Number of shares that vote for `version` or a newer one.
    pub fn votes_from(&self, version: u64) -> u32 {
        self.by_vote.range(version..).map(|(_, votes)| votes.shares).sum()
    }

    /// Place of the oldest share that votes for `version` or a newer one; 0 if there is none.
    pub fn oldest_vote_from(&self, version: u64) -> u32 {
        self.by_vote.range(version..).map(|(_, votes)| votes.oldest).max().unwrap_or_default()
    }
}

/// Returns the scripts of `payees` on `chain`: the one that the newest share of each names, of `shares`, the newest
/// first, or else the payee's own, converted (protocol-v36 section 8.2, without its table of earlier shares). Payees
/// that the chain cannot pay are left out.
pub(super) fn merged_payees<'a>(
    chain: &MergedChain,
    shares: impl Iterator<Item = &'a Arc<Share>>,
    payees: impl Iterator<Item = &'a Payee>,
) -> Vec<MergedPayee> {
    let mut named: BTreeMap<&Payee, &[u8]> = BTreeMap::new();
    for share in shares {
        let entries = share.info().additions.iter().flat_map(|additions| &additions.merged_addresses);
        let entry = entries.into_iter().find(|entry| entry.chain_id == chain.chain_id);
        if let (Some(entry), btree_map::Entry::Vacant(place)) = (entry, named.entry(share.payee())) {
            place.insert(&entry.script);
        }
    }
    let of = |payee: &Payee| {
        let is_named = named.contains_key(payee);
        let script: Box<[u8]> = match named.get(payee) {
            Some(script) => (*script).into(),
            None => converted(payee.script(ShareVersion::V36).ok()?)?.as_bytes().into(),
        };
        let address = chain.address_of(Script::from_bytes(&script));
        Some(MergedPayee { payee: payee.clone(), script: hex::encode(&script), address, is_named })
    };
    payees.filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Sharechain;
    use crate::coin::DOGECOIN;
    use crate::share::{Additions, MergedAddress};
    use crate::testkit::{self, Plan, grow};

    /// Newest first.
    fn chain_of(plans: &[(u32, Plan)]) -> Vec<Arc<Share>> {
        let mut chain = Sharechain::new(testkit::network_of_versions(20, 35..=36, 100));
        let mut tip = None;
        for (count, plan) in plans {
            tip = grow(&mut chain, tip, *count, plan).last().copied();
        }
        let hashes: Vec<_> = chain.all().chain(tip.unwrap(), u32::MAX).collect();
        hashes.iter().map(|hash| chain.share(*hash).unwrap().clone()).collect()
    }

    #[test]
    fn shares_are_counted_by_version_and_vote_and_the_oldest_tenth_by_work() {
        let plan = |vote| Plan { vote: Some(vote), ..Plan::default() };
        let shares = chain_of(&[(2, plan(36)), (5, plan(35)), (16, plan(36))]);
        let versions = Versions::count(shares.iter(), 20, None);
        assert_eq!((versions.shares, versions.shares_from(35)), (20, 20));
        assert_eq!((versions.votes_from(36), versions.votes_from(35)), (16, 20));
        assert_eq!((versions.oldest_vote_from(36), versions.oldest_vote_from(35)), (16, 20));
        assert_eq!((versions.oldest_vote_from(37), versions.unbroken), (0, 16));
        let work = shares[18].attempts().0 + shares[19].attempts().0;
        assert_eq!(versions.deciding, BTreeMap::from([(35, work)]));
        let short = Versions::count(shares[4..].iter(), 20, None);
        assert!(short.shares == 19 && short.deciding.is_empty(), "{short:?}");
        assert_eq!(Versions::count([].iter(), 20, None), Versions::default());
    }

    #[test]
    fn a_payee_has_the_script_that_its_newest_share_names_or_its_own() {
        let mut chain = Sharechain::new(testkit::network_of_versions(20, 36..=36, 100));
        let mut share = |payee: u32, scripts: &[(u32, &[u8])]| {
            let entry =
                |(chain_id, script): &(u32, &[u8])| MergedAddress { chain_id: *chain_id, script: (*script).into() };
            let additions = Additions { merged_addresses: scripts.iter().map(entry).collect(), ..Additions::default() };
            testkit::share_with(&mut chain, None, &Plan { payee, ..Plan::default() }, additions)
        };
        let mut shares = vec![share(1, &[]), share(2, &[])];
        let [one, two] = [0, 1].map(|number| shares[number].payee().clone());
        let found = |shares: &[Arc<Share>]| merged_payees(&DOGECOIN, shares.iter(), [&one, &two].into_iter());
        let own = found(&shares);
        assert_eq!(own.len(), 2);
        for (payee, of) in [&one, &two].into_iter().zip(&own) {
            let script = converted(payee.script(ShareVersion::V36).unwrap()).unwrap();
            assert_eq!((&of.payee, of.is_named, &of.script), (payee, false, &hex::encode(script.as_bytes())));
            assert!(of.address.as_ref().is_some_and(|address| address.starts_with('D')), "{of:?}");
        }
        shares.push(share(1, &[(7, b"\x53"), (98, b"\x52"), (98, b"\x54")]));
        shares.push(share(1, &[(98, b"\x51")]));
        let named = found(&shares);
        assert_eq!((named[0].is_named, &named[0].script[..], &named[0].address), (true, "52", &None));
        assert_eq!(named[1], own[1]);
    }
}
