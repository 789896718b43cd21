//! `MergedPayout`: where each payee is paid on the network's merged chain, and how much if a block of it were found now
//! (protocol-v36 sections 8.1 to 8.3).

use bitcoin::Script;
use serde::Serialize;
use sharechain::chain::pool::{MergedPayee, PoolView};
use sharechain::coin::MergedChain;
use sharechain::merged::{MergedOutputs, MergedWeights};
use sharechain::share::MARKER_SCRIPT;
use sharechain::share::Payee;
use std::collections::BTreeMap;

use crate::merged::{ChainStatus, Mode, State};

/// Payout on the merged chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MergedPayout {
    /// Payee on the parent chain; `None` for a script that no payee of the next block names now.
    pub payee: Option<Payee>,
    /// Output script on the merged chain, in hex.
    pub script: String,
    /// Address of the script, if it has one.
    pub address: Option<String>,
    /// Amount in the merged chain's base units; `None` unless its blocks pay the miners. Of several payees with one
    /// script, the first has it.
    pub amount: Option<u64>,
    /// Origin of the script.
    pub source: MergedSource,
}

/// Origin of a payee's script on the merged chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MergedSource {
    /// Shares name it.
    Named,
    /// The payee's own, converted.
    Converted,
    /// The donation's.
    Donation,
}

/// Returns the value of the next block of `chain` if it pays the miners.
fn value_for_miners(chain: &MergedChain, conditions: &[ChainStatus]) -> Option<u64> {
    let is_mined = |status: &&ChainStatus| matches!(status.state, State::Mining | State::Waiting);
    let pays_miners = |status: &&ChainStatus| status.mode == Some(Mode::Payouts);
    let of_chain = conditions.iter().filter(|status| status.chain_id == Some(chain.chain_id));
    of_chain.filter(is_mined).find(pays_miners)?.value
}

/// Returns the payouts on `chain`: one for each payee of `view` that it can pay, and then the rest of what a block pays
/// by `weights`.
pub(super) fn merged_payouts(
    chain: &MergedChain,
    view: &PoolView,
    weights: Option<&MergedWeights>,
    conditions: &[ChainStatus],
) -> Vec<MergedPayout> {
    let outputs = weights
        .zip(value_for_miners(chain, conditions))
        .and_then(|(weights, value)| MergedOutputs::new(weights, value));
    listed(chain, view, outputs.as_ref())
}

fn listed(chain: &MergedChain, view: &PoolView, outputs: Option<&MergedOutputs>) -> Vec<MergedPayout> {
    let donation = hex::encode(MARKER_SCRIPT);
    let mut amounts: BTreeMap<String, u64> = BTreeMap::new();
    if let Some(outputs) = outputs {
        amounts.extend(outputs.miners().map(|(script, amount)| (hex::encode(script.as_bytes()), amount)));
        *amounts.entry(donation.clone()).or_default() += outputs.donation();
    }
    let source = |script: &str, is_named| match is_named {
        _ if script == donation => MergedSource::Donation,
        true => MergedSource::Named,
        false => MergedSource::Converted,
    };
    let mut payout = |MergedPayee { payee, script, address, is_named }: &MergedPayee| MergedPayout {
        payee: Some(payee.clone()),
        script: script.clone(),
        address: address.clone(),
        amount: outputs.map(|_| amounts.remove(script).unwrap_or_default()),
        source: source(script, *is_named),
    };
    let mut payouts: Vec<MergedPayout> = view.merged_payees.iter().map(&mut payout).collect();
    let address = |script: &str| chain.address_of(Script::from_bytes(&hex::decode(script).ok()?));
    payouts.extend(amounts.into_iter().map(|(script, amount)| MergedPayout {
        payee: None,
        address: address(&script),
        amount: Some(amount),
        source: source(&script, true),
        script,
    }));
    payouts
}

#[cfg(test)]
mod tests {
    use super::*;
    use sharechain::coin::DOGECOIN;
    use sharechain::merged::MergedKey;
    use sharechain::share::Attempts;
    use sharechain::testkit;

    /// A script of a pubkey hash, in hex.
    fn script(number: u8) -> String {
        format!("76a914{}88ac", hex::encode([number; 20]))
    }

    fn payee(number: u8, is_named: bool) -> MergedPayee {
        let payee = Payee::from_versioned_hash(&[number; 20], 48);
        MergedPayee { payee, script: script(number), address: None, is_named }
    }

    #[test]
    fn without_payouts_of_the_chain_addresses_stand_alone() {
        let view = PoolView { merged_payees: vec![payee(1, true), payee(2, false)], ..PoolView::default() };
        let found = merged_payouts(&DOGECOIN, &view, Some(&MergedWeights::default()), &[]);
        let brief: Vec<_> = found.iter().map(|one| (&one.script[..], one.amount, one.source)).collect();
        let [one, two] = [script(1), script(2)];
        assert_eq!(brief, [(&one[..], None, MergedSource::Named), (&two[..], None, MergedSource::Converted)]);
    }

    #[test]
    fn each_amount_is_listed_once_and_nothing_of_the_block_is_missing() {
        let mut weights = MergedWeights::default();
        let work = |number| -> Attempts { testkit::attempts(number) };
        let key = |number| MergedKey::Merged(hex::decode(script(number)).unwrap()[..].into());
        weights.count(key(1), work(100), 0);
        weights.count(key(3), work(300), 0);
        let view =
            PoolView { merged_payees: vec![payee(1, true), payee(1, false), payee(2, false)], ..PoolView::default() };
        let outputs = MergedOutputs::new(&weights, 1_000_001).unwrap();
        let found = listed(&DOGECOIN, &view, Some(&outputs));
        let amounts: Vec<_> = found.iter().map(|one| one.amount.unwrap()).collect();
        assert_eq!(amounts[..3], [250_000, 0, 0]);
        assert_eq!(amounts.iter().sum::<u64>(), 1_000_001);
        let others: Vec<_> = found[3..].iter().map(|one| (one.payee.is_none(), one.source)).collect();
        assert_eq!(others.len(), 2);
        assert!(others.contains(&(true, MergedSource::Donation)) && others.contains(&(true, MergedSource::Named)));
        assert!(found[3..].iter().all(|one| one.address.is_some()), "{found:?}");
    }
}
