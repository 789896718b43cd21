//! The old statistics, field by field (protocol section 13.2).

use serde::Serialize;
use serde_json::value::RawValue;
use sharechain::share::{Payee, ShareHash};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{coins, integer};
use crate::rates::Rates;
use crate::view::snapshot::Snapshot;

/// Minimum length of the chain for statistics, in shares.
pub(super) const HEIGHT_MIN: u32 = 10;

/// `/global_stats`.
#[derive(Serialize)]
pub(super) struct Global {
    pool_nonstale_hash_rate: f64,
    pool_hash_rate: f64,
    pool_stale_prop: f64,
    min_difficulty: f64,
    network_block_difficulty: f64,
    network_hashrate: f64,
}

/// Returns `None` while the chain is too short, or there is no template.
pub(super) fn global(snapshot: &Snapshot) -> Option<Global> {
    let (pool, block) = (snapshot.pool.as_ref()?, snapshot.block.as_ref()?);
    (snapshot.chain.height >= HEIGHT_MIN).then_some(Global {
        pool_nonstale_hash_rate: pool.hour.nonstale_hash_rate,
        pool_hash_rate: pool.hour.hash_rate,
        pool_stale_prop: pool.hour.stale_proportion,
        min_difficulty: pool.share_difficulty,
        network_block_difficulty: block.difficulty,
        network_hashrate: block.network_hash_rate,
    })
}

/// `/local_stats`.
#[derive(Serialize)]
pub(super) struct Local<'a> {
    my_hash_rates_in_last_hour: HashRates,
    my_share_counts_in_last_hour: ShareCounts,
    my_stale_proportions_in_last_hour: StaleProportions,
    miner_hash_rates: BTreeMap<Arc<str>, f64>,
    miner_dead_hash_rates: BTreeMap<Arc<str>, f64>,
    miner_last_difficulties: &'a BTreeMap<Payee, f64>,
    efficiency_if_miner_perfect: Option<f64>,
    efficiency: Option<f64>,
    peers: Peers,
    shares: Shares,
    uptime: f64,
    attempts_to_share: Box<RawValue>,
    attempts_to_block: Box<RawValue>,
    block_value: f64,
    warnings: &'a [String],
    donation_proportion: f64,
    version: &'static str,
    protocol_version: u32,
    fee: f64,
}

#[derive(Serialize)]
struct HashRates {
    note: &'static str,
    nonstale: f64,
    rewarded: f64,
    actual: f64,
}

#[derive(Serialize)]
struct ShareCounts {
    shares: u32,
    unstale_shares: u32,
    stale_shares: u32,
    orphan_stale_shares: u32,
    doa_stale_shares: u32,
}

#[derive(Serialize)]
struct StaleProportions {
    stale: Option<f64>,
    orphan_stale: Option<f64>,
    dead_stale: Option<f64>,
}

#[derive(Serialize)]
struct Peers {
    incoming: usize,
    outgoing: usize,
}

#[derive(Serialize)]
struct Shares {
    total: u32,
    orphan: u32,
    dead: u32,
}

/// Returns `None` while the chain is too short, or there is no template.
pub(super) fn local<'a>(snapshot: &'a Snapshot, rates: &Rates) -> Option<Local<'a>> {
    let (pool, block, local) = (snapshot.pool.as_ref()?, snapshot.block.as_ref()?, &snapshot.local);
    if snapshot.chain.height < HEIGHT_MIN {
        return None;
    }
    let hour = local.last_hour;
    let shares = hour.unstale + hour.orphan + hour.dead;
    let part = |count: u32| (shares > 0).then(|| f64::from(count) / f64::from(shares));
    let stale = part(hour.orphan + hour.dead);
    let nonstale = hour.nonstale_hash_rate;
    let late = rates.workers.iter().filter(|(_, done)| done.late_hash_rate > 0.0);
    let worked = rates.workers.iter().filter(|(_, done)| done.hash_rate > 0.0);
    Some(Local {
        my_hash_rates_in_last_hour: HashRates {
            note: "DEPRECATED",
            nonstale,
            rewarded: nonstale / (1.0 - pool.hour.stale_proportion),
            // Zero if all shares are stale.
            actual: stale.filter(|stale| *stale < 1.0).map_or(0.0, |stale| nonstale / (1.0 - stale)),
        },
        my_share_counts_in_last_hour: ShareCounts {
            shares,
            unstale_shares: hour.unstale,
            stale_shares: hour.orphan + hour.dead,
            orphan_stale_shares: hour.orphan,
            doa_stale_shares: hour.dead,
        },
        my_stale_proportions_in_last_hour: StaleProportions {
            stale,
            orphan_stale: part(hour.orphan),
            dead_stale: part(hour.dead),
        },
        miner_hash_rates: worked.map(|(name, done)| (name.clone(), done.hash_rate)).collect(),
        miner_dead_hash_rates: late.map(|(name, done)| (name.clone(), done.late_hash_rate)).collect(),
        miner_last_difficulties: &local.last_difficulties,
        efficiency_if_miner_perfect: local.efficiency_if_miners_perfect,
        efficiency: local.efficiency.map(|efficiency| efficiency.value),
        peers: Peers { incoming: snapshot.peers.incoming, outgoing: snapshot.peers.outgoing },
        shares: Shares { total: local.shares, orphan: local.orphan, dead: local.dead },
        uptime: snapshot.uptime(),
        attempts_to_share: integer(pool.attempts_to_share),
        attempts_to_block: integer(block.attempts),
        block_value: coins(block.value),
        warnings: &snapshot.warnings,
        donation_proportion: snapshot.donation_percent / 100.0,
        version: snapshot.version,
        protocol_version: snapshot.protocol_version,
        fee: snapshot.fee_percent,
    })
}

/// Element of `/recent_blocks`.
#[derive(Serialize)]
pub(super) struct RecentBlock {
    ts: u32,
    hash: ShareHash,
    number: Option<u32>,
    share: ShareHash,
}

pub(super) fn recent_blocks(snapshot: &Snapshot) -> Vec<RecentBlock> {
    let recent = snapshot.chain.blocks.iter();
    recent
        .map(|block| RecentBlock { ts: block.time, hash: block.hash, number: block.height, share: block.hash })
        .collect()
}

/// `/stale_rates`.
#[derive(Serialize)]
pub(super) struct StaleRates {
    good: f64,
    orphan: f64,
    doa: f64,
}

/// Returns `None` while there are no shares.
pub(super) fn stale_rates(snapshot: &Snapshot) -> Option<StaleRates> {
    let stretch = snapshot.pool.as_ref()?.stretch;
    Some(StaleRates { good: stretch.good, orphan: stretch.orphan, doa: stretch.dead })
}

/// `/web/tree`: the parent of each recent share.
pub(super) fn tree(snapshot: &Snapshot) -> BTreeMap<String, Option<ShareHash>> {
    snapshot.chain.recent.iter().map(|share| (share.hash.to_string(), share.parent)).collect()
}

/// `/web/verified`: the verified ones of the recent shares, newest first.
pub(super) fn verified(snapshot: &Snapshot) -> Vec<ShareHash> {
    snapshot.chain.recent.iter().filter(|share| share.is_verified).map(|share| share.hash).collect()
}
