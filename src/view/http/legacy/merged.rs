//! Merged chains as dashboards of version 36 read them: found blocks, and payouts on the chain whose blocks can pay the
//! miners (protocol-v36 section 9.3).

use serde::Serialize;
use sharechain::coin::Network;
use std::collections::BTreeMap;
use std::sync::Arc;
use stratum::Printable;

use super::coins;
use crate::blocks::found::{FoundBlocks, Record, Standing};
use crate::merged::ChainStatus;
use crate::view::snapshot::{MergedPayout, MergedSource, Snapshot};

/// Maximum number of blocks in an answer.
const BLOCKS_MAX: usize = 500;

/// Number of blocks in the statistics.
const BLOCKS_RECENT: usize = 10;

/// One found block of a merged chain.
#[derive(Debug, Serialize)]
pub(super) struct FoundBlock {
    ts: f64,
    hash: String,
    network: Arc<str>,
    symbol: String,
    miner: String,
    chainid: Option<u32>,
    height: Option<u32>,
    coinbasevalue: u64,
    /// True in its chain, false if it is lost, null while that is unknown.
    verified: Option<bool>,
    status: &'static str,
    confirmations: u32,
}

/// The same, as a merged block of a parent's.
#[derive(Debug, Serialize)]
pub(super) struct Discovered {
    ts: f64,
    miner: String,
    aux_hash: String,
    aux_block_height: Option<u32>,
    aux_confirmations: u32,
    aux_symbol: String,
    aux_reward: f64,
}

/// `/merged_stats`.
#[derive(Debug, Serialize)]
pub(super) struct MergedStats {
    total_blocks: u32,
    verified_blocks: u32,
    pending_blocks: u32,
    orphaned_blocks: u32,
    networks: BTreeMap<Arc<str>, Counts>,
    recent: Vec<FoundBlock>,
    block_value: f64,
    symbol: String,
}

#[derive(Debug, Default, Serialize)]
struct Counts {
    total: u32,
    verified: u32,
    pending: u32,
    orphaned: u32,
    symbol: String,
}

impl Counts {
    fn add(&mut self, verified: Option<bool>) {
        self.total += 1;
        match verified {
            Some(true) => self.verified += 1,
            None => self.pending += 1,
            Some(false) => self.orphaned += 1,
        }
    }
}

/// Ticker symbol of a merged chain; its name in upper case where it is not known.
fn symbol_of(network: &Network, chain_id: Option<u32>, name: &str) -> String {
    let paid = network.merged_chain.filter(|paid| Some(paid.chain_id) == chain_id);
    paid.map_or_else(|| name.to_uppercase(), |paid| paid.symbol.to_owned())
}

fn verified(standing: Standing) -> Option<bool> {
    match standing {
        Standing::Submitted => None,
        Standing::Confirming | Standing::Mature => Some(true),
        Standing::Stale | Standing::Orphaned | Standing::Rejected => Some(false),
    }
}

impl FoundBlock {
    fn of(record: &Record, chains: &[ChainStatus], network: &Network) -> Self {
        let name: Arc<str> = record.chain.clone().unwrap_or_default();
        let chain_id = chains.iter().find(|status| status.name == name).and_then(|status| status.chain_id);
        Self {
            ts: record.found_at,
            hash: record.hash.to_string(),
            symbol: symbol_of(network, chain_id, &name),
            network: name,
            miner: Printable::new(&record.finding.finder).to_string(),
            chainid: chain_id,
            height: record.height,
            coinbasevalue: record.finding.value,
            verified: verified(record.standing),
            status: record.standing.word(),
            confirmations: record.confirmations,
        }
    }
}

/// Returns the found blocks, the newest first, including lost ones if `with_lost`.
pub(super) fn blocks(snapshot: &Snapshot, found: &FoundBlocks, network: &Network, with_lost: bool) -> Vec<FoundBlock> {
    let shown = found.blocks.iter().map(|record| FoundBlock::of(record, &snapshot.merged, network));
    shown.filter(|block| with_lost || block.verified != Some(false)).take(BLOCKS_MAX).collect()
}

/// Returns the found blocks in the words for merged blocks that were discovered in parent blocks.
pub(super) fn discovered(snapshot: &Snapshot, found: &FoundBlocks, network: &Network) -> Vec<Discovered> {
    let of = |block: FoundBlock| Discovered {
        ts: block.ts,
        miner: block.miner,
        aux_hash: block.hash,
        aux_block_height: block.height,
        aux_confirmations: block.confirmations,
        aux_symbol: block.symbol,
        aux_reward: coins(block.coinbasevalue),
    };
    blocks(snapshot, found, network, true).into_iter().map(of).collect()
}

pub(super) fn stats(snapshot: &Snapshot, found: &FoundBlocks, network: &Network) -> MergedStats {
    let mut all = blocks(snapshot, found, network, true);
    let (mut sum, mut networks) = (Counts::default(), BTreeMap::<Arc<str>, Counts>::new());
    for block in &all {
        sum.add(block.verified);
        let of_network = networks.entry(block.network.clone()).or_default();
        of_network.add(block.verified);
        of_network.symbol.clone_from(&block.symbol);
    }
    all.truncate(BLOCKS_RECENT);
    let worth = snapshot.merged.iter().find_map(|status| Some((status, status.value?)));
    let first = worth.map(|(status, _)| status).or(snapshot.merged.first());
    MergedStats {
        total_blocks: sum.total,
        verified_blocks: sum.verified,
        pending_blocks: sum.pending,
        orphaned_blocks: sum.orphaned,
        networks,
        recent: all,
        block_value: worth.map_or(0.0, |(_, value)| coins(value)),
        symbol: first.map_or_else(String::new, |status| symbol_of(network, status.chain_id, &status.name)),
    }
}

/// Payouts of one address of the parent chain, in coins.
#[derive(Debug, Default, Serialize)]
pub(super) struct Payouts {
    amount: f64,
    merged: Vec<Merged>,
}

/// Payout on the merged chain.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Merged {
    network: &'static str,
    symbol: &'static str,
    address: String,
    /// In coins; null while blocks of the chain do not pay the miners.
    amount: Option<f64>,
    source: &'static str,
}

/// Returns payouts on the merged chain for `address` of the parent chain.
pub(super) fn of_address(snapshot: &Snapshot, address: &str, network: &Network) -> Vec<Merged> {
    let of = |paid: &&MergedPayout| paid.payee.as_ref().is_some_and(|payee| payee.as_str() == address);
    snapshot.merged_payouts.iter().filter(of).filter_map(|paid| merged(paid, network)).collect()
}

fn merged(paid: &MergedPayout, network: &Network) -> Option<Merged> {
    let chain = network.paid_merged_chain()?;
    Some(Merged {
        network: chain.name,
        symbol: chain.symbol,
        address: paid.address.clone().unwrap_or_else(|| paid.script.clone()),
        amount: paid.amount.map(coins),
        source: match paid.source {
            MergedSource::Named => "explicit",
            MergedSource::Converted => "auto-convert",
            MergedSource::Donation => "donation",
        },
    })
}

/// `/current_merged_payouts`, by address of the parent chain. Payouts of no such address stand under their own.
pub(super) fn current_payouts(snapshot: &Snapshot, network: &Network) -> BTreeMap<String, Payouts> {
    let parents = snapshot.payouts.iter();
    let mut payouts: BTreeMap<String, Payouts> = parents
        .map(|(payee, amount)| (payee.to_string(), Payouts { amount: coins(*amount), merged: Vec::new() }))
        .collect();
    for paid in &snapshot.merged_payouts {
        let Some(shown) = merged(paid, network) else { continue };
        let key = paid.payee.as_ref().map_or_else(|| shown.address.clone(), ToString::to_string);
        payouts.entry(key).or_default().merged.push(shown);
    }
    payouts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::http::testing::{merged_block, merged_chain};
    use crate::view::snapshot::Config;
    use sharechain::coin::{DOGECOIN, LITECOIN};
    use sharechain::share::Payee;

    fn network() -> Network {
        Network { newest_version: 36, merged_chain: Some(&DOGECOIN), ..LITECOIN }
    }

    fn snapshot() -> Snapshot {
        let config = Config { network: &LITECOIN, payout_address: "".into(), fee_percent: 0.0, donation_percent: 0.0 };
        Snapshot { merged: Arc::new(vec![merged_chain("doge")]), ..Snapshot::new(&config, 0.0) }
    }

    #[test]
    fn found_blocks_are_counted_by_what_became_of_them() {
        let standings = [Standing::Submitted, Standing::Orphaned, Standing::Mature, Standing::Confirming];
        let records = (1..).zip(standings).map(|(number, standing)| Arc::new(merged_block("doge", number, standing)));
        let found = FoundBlocks { blocks: records.collect() };
        let (snapshot, network) = (snapshot(), network());
        let stats = stats(&snapshot, &found, &network);
        assert_eq!((stats.total_blocks, stats.verified_blocks), (4, 2));
        assert_eq!((stats.pending_blocks, stats.orphaned_blocks, &stats.symbol[..]), (1, 1, "DOGE"));
        assert_eq!((stats.networks["doge"].total, stats.recent.len()), (4, 4));
        assert!((stats.block_value - 10_000.0).abs() < 1e-9);
        let times =
            |with_lost| blocks(&snapshot, &found, &network, with_lost).iter().map(|block| block.ts).collect::<Vec<_>>();
        assert_eq!((times(false), times(true)), (vec![1.0, 3.0, 4.0], vec![1.0, 2.0, 3.0, 4.0]));
        assert_eq!(discovered(&snapshot, &found, &network)[0].aux_symbol, "DOGE");
        let bitcoin = blocks(&snapshot, &found, &sharechain::coin::BITCOIN, true);
        assert_eq!(bitcoin[0].symbol, "DOGE", "its name");
    }

    #[test]
    fn payouts_of_both_chains_stand_together_and_the_rest_under_its_own_address() {
        let payee = Payee::from_versioned_hash(&[1; 20], 48);
        let paid = |payee: Option<&Payee>, address: &str, amount, source| MergedPayout {
            payee: payee.cloned(),
            script: "51".into(),
            address: Some(address.into()),
            amount,
            source,
        };
        let mut snapshot = snapshot();
        snapshot.payouts = BTreeMap::from([(payee.clone(), 150_000_000)]);
        snapshot.merged_payouts = vec![
            paid(Some(&payee), "Done", Some(20_000_000_000), MergedSource::Named),
            paid(None, "Dtwo", None, MergedSource::Donation),
        ];
        let shown = serde_json::to_value(current_payouts(&snapshot, &network())).unwrap();
        let one = serde_json::json!({
            "amount": 1.5,
            "merged": [{
                "network": "dogecoin", "symbol": "DOGE", "address": "Done", "amount": 200.0, "source": "explicit",
            }],
        });
        assert_eq!(shown[payee.as_str()], one);
        assert_eq!(shown["Dtwo"]["merged"][0]["amount"], serde_json::Value::Null);
        assert_eq!(of_address(&snapshot, payee.as_str(), &network()).len(), 1);
        let elsewhere = of_address(&snapshot, payee.as_str(), &sharechain::coin::BITCOIN);
        assert!(elsewhere.is_empty(), "no chain there pays miners: {elsewhere:?}");
    }
}
