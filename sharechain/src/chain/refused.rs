//! Peers' shares that were refused within the last hour: how many, for which reasons, and from how many networks. One
//! network may be hostile or have a damaged node; if several agree, the pool may be about to split.

use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use super::error::VerifyError;
use super::loose::SourceNetwork;
use crate::share::ShareHash;

/// Number of networks that makes a split of the share chain likely.
pub const SPLIT_NETWORKS_MIN: usize = 3;
/// Seconds for which a refused share counts.
const AGE_MAX: f64 = 3600.0;
/// Maximum number of shares kept; beyond it the oldest are dropped. Litecoin's pool finds 240 an hour.
const SHARES_MAX: usize = 2_048;
/// Maximum number of networks kept.
const NETWORKS_MAX: usize = 256;

/// Shares of peers that were refused within the last hour.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RefusedLately {
    /// Number of different shares; at most 2,048 are counted.
    pub shares: usize,
    /// Number of networks that sent them.
    pub networks: usize,
    /// Shares by reason, as in [`VerifyError::label`].
    pub reasons: BTreeMap<&'static str, usize>,
}

#[derive(Debug, Clone, Copy)]
struct RefusedShare {
    hash: ShareHash,
    label: &'static str,
    /// Time of the first refusal, seconds since 1970.
    at: f64,
}

/// Refused shares of peers, and their sources.
#[derive(Debug, Default)]
pub struct RefusedSources {
    /// Oldest first.
    shares: VecDeque<RefusedShare>,
    hashes: HashSet<ShareHash>,
    /// Time of each network's latest refused share.
    networks: HashMap<SourceNetwork, f64>,
}

impl RefusedSources {
    /// Records at `now` (seconds since 1970) that a share from `source` was refused. A share that several peers send is
    /// one share.
    pub fn note(&mut self, hash: ShareHash, source: IpAddr, error: &VerifyError, now: f64) {
        if self.hashes.insert(hash) {
            self.shares.push_back(RefusedShare { hash, label: error.label(), at: now });
        }
        if self.shares.len() > SHARES_MAX {
            self.drop_oldest();
        }
        let network = SourceNetwork::of(source);
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&network) {
            let oldest = self.networks.iter().min_by(|(_, one), (_, other)| one.total_cmp(other));
            if let Some(oldest) = oldest.map(|(network, _)| *network) {
                self.networks.remove(&oldest);
            }
        }
        self.networks.insert(network, now);
    }

    /// Returns what was refused within the hour before `now`.
    pub fn at(&mut self, now: f64) -> RefusedLately {
        // Those after `now` mean that the clock was set back: they are dropped.
        let is_recent = |at: f64| (0.0..AGE_MAX).contains(&(now - at));
        while self.shares.front().is_some_and(|share| !is_recent(share.at)) {
            self.drop_oldest();
        }
        self.networks.retain(|_, at| is_recent(*at));
        let mut reasons = BTreeMap::new();
        for share in &self.shares {
            *reasons.entry(share.label).or_default() += 1;
        }
        RefusedLately { shares: self.shares.len(), networks: self.networks.len(), reasons }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.shares.pop_front() {
            self.hashes.remove(&oldest.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: f64 = 1.7e9;

    fn hash(number: u32) -> ShareHash {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_le_bytes());
        ShareHash(hash)
    }

    fn note(sources: &mut RefusedSources, number: u32, address: &str, error: &VerifyError, now: f64) {
        sources.note(hash(number), address.parse().unwrap(), error, now);
    }

    fn payout_hash() -> VerifyError {
        VerifyError::Field { field: "merged_payout_hash", wanted: "1".into(), given: "2".into() }
    }

    #[test]
    fn a_share_counts_once_and_its_senders_by_network() {
        let mut sources = RefusedSources::default();
        assert_eq!(sources.at(NOW), RefusedLately::default());
        for address in ["10.0.0.1", "10.0.0.200", "::ffff:10.0.0.3", "10.0.1.1", "2001:db8:1:2::1", "2001:db8:1:3::1"] {
            note(&mut sources, 1, address, &payout_hash(), NOW);
        }
        note(&mut sources, 2, "10.0.0.1", &VerifyError::MerkleLink, NOW + 1.0);
        let lately = sources.at(NOW + 2.0);
        assert_eq!((lately.shares, lately.networks), (2, SPLIT_NETWORKS_MIN));
        assert_eq!(lately.reasons, BTreeMap::from([("merkle_link", 1), ("payout_hash", 1)]));
    }

    #[test]
    fn an_hour_and_a_clock_set_back_end_it() {
        let at = |now: f64| {
            let mut sources = RefusedSources::default();
            note(&mut sources, 1, "10.0.0.1", &payout_hash(), NOW);
            note(&mut sources, 2, "10.0.1.1", &payout_hash(), NOW + 100.0);
            let lately = sources.at(now);
            (lately.shares, lately.networks)
        };
        assert_eq!([NOW + 100.0, NOW + 3600.0, NOW + 3700.0, NOW - 1.0].map(at), [(2, 2), (1, 1), (0, 0), (0, 0)]);
    }

    #[test]
    fn memory_is_bounded_and_the_latest_stay() {
        let mut sources = RefusedSources::default();
        for number in 0..10_000_u32 {
            let address = IpAddr::V4((0x0a00_0000 + (number << 8)).into());
            sources.note(hash(number), address, &payout_hash(), NOW + f64::from(number) / 100.0);
        }
        let lately = sources.at(NOW + 100.0);
        assert_eq!((lately.shares, lately.networks), (SHARES_MAX, NETWORKS_MAX));
        assert_eq!((sources.hashes.len(), lately.reasons["payout_hash"]), (SHARES_MAX, SHARES_MAX));
        assert!(sources.hashes.contains(&hash(9_999)) && !sources.hashes.contains(&hash(0)));
    }
}
