//! The node on one page: what `p2pool top` shows, and `status` in brief. Bounded, however much there is.

use serde::{Deserialize, Serialize};
use sharechain::chain::pool::RecentShare;
use std::sync::Arc;

use crate::blocks::found::{FoundBlocks, Record};
use crate::rates::Rates;
use crate::view::snapshot::difficulty::bdiff;
use crate::view::snapshot::{Estimate, Snapshot};

/// Rows of each list: more than fit on a screen.
const MINERS_MAX: usize = 200;
const SHARES_MAX: usize = 60;
const PEERS_MAX: usize = 100;
const BLOCKS_MAX: usize = 60;
pub(super) const LOG_MAX: usize = 100;

/// Payees that are listed; a window has fewer.
const PAYEES_MAX: usize = 5000;

/// Longest text of others, in characters.
const TEXT_MAX: usize = 200;

/// The node on one page. What an older node leaves out is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overview {
    /// When it was made, seconds since 1970.
    pub time: f64,
    /// When the node started, seconds since 1970.
    pub started: f64,
    /// The node's version.
    pub version: String,
    /// The network's name.
    pub network: String,
    /// The coin's ticker symbol.
    pub symbol: String,
    /// What bitcoind calls itself.
    pub daemon: String,
    /// What is wrong with bitcoind.
    pub trouble: Option<String>,
    /// What miners wait for; none while they are served.
    pub waiting: Option<String>,
    /// What is wrong, in words.
    pub warnings: Vec<String>,
    /// Percentage of work that pays the operator.
    pub fee_percent: f64,
    /// The pool; none while it has too few shares.
    pub pool: Option<Pool>,
    /// The block that is mined on; none without a template.
    pub block: Option<Block>,
    /// This node's miners and shares.
    pub local: Local,
    /// Workers, the fastest first.
    pub miners: Vec<Miner>,
    /// Workers in all.
    pub miners_total: usize,
    /// Shares, the newest first.
    pub shares: Vec<Share>,
    /// Peers.
    pub peers: Vec<Peer>,
    /// Peers that are banned.
    pub banned: usize,
    /// BlockEntry blocks, the newest first.
    pub blocks: Vec<BlockEntry>,
    /// The log's last lines, the oldest first.
    pub log: Vec<String>,
}

/// The pool as its shares tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pool {
    /// Hashes per second, lost ones included.
    pub hash_rate: f64,
    /// The part that was lost.
    pub stale_proportion: f64,
    /// The bdiff of the easiest share.
    pub share_difficulty: f64,
    /// Seconds until the next block, on average.
    pub seconds_to_block: Option<f64>,
    /// Shares in the chain.
    pub height: u32,
    /// Blocks found, and to be expected, in the chain's shares.
    pub blocks_found: u32,
    /// Blocks to be expected in the chain's shares.
    pub blocks_expected: f64,
}

/// The block that is mined on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Block {
    /// Its height.
    pub height: u32,
    /// Its bdiff.
    pub difficulty: f64,
    /// What it pays, in satoshis.
    pub value: u64,
    /// Its transactions without the coinbase.
    pub transactions: usize,
    /// Hashes per second of the whole network.
    pub network_hash_rate: f64,
}

/// A measured part, and where it may really be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// As measured.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// This node's miners and shares.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Local {
    /// Hashes per second, late ones included.
    pub hash_rate: f64,
    /// Of these, late ones.
    pub late_hash_rate: f64,
    /// Workers that submitted lately.
    pub workers: usize,
    /// Accepted submissions since the start.
    pub accepted: u64,
    /// Shares since the start, lost ones included.
    pub shares: u32,
    /// Of these, orphans.
    pub orphan: u32,
    /// Of these, dead on arrival.
    pub dead: u32,
    /// What we get against the pool's average.
    pub efficiency: Option<Interval>,
    /// Seconds until our next share, on average.
    pub seconds_to_share: Option<f64>,
    /// Satoshis that the node's own address would get of a block now.
    pub payout: u64,
}

/// A worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Miner {
    /// Its name.
    pub worker: String,
    /// Hashes per second, late ones included.
    pub hash_rate: f64,
    /// Of these, late ones.
    pub late_hash_rate: f64,
    /// What its last submission had to meet.
    pub difficulty: f64,
    /// Accepted submissions.
    pub accepted: u64,
    /// Late ones.
    pub late: u64,
    /// Refused ones.
    pub refused: u64,
    /// When it submitted last, seconds since 1970.
    pub last_seen: f64,
}

/// A share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Share {
    /// Its hash.
    pub hash: String,
    /// Its height above the chain's first.
    pub height: u32,
    /// When it says that it was made, seconds since 1970.
    pub time: u32,
    /// Whom it pays.
    pub payee: String,
    /// The bdiff of its target.
    pub difficulty: f64,
    /// Whether it is in the best chain.
    pub in_best_chain: bool,
    /// Whether our miners found it.
    pub is_own: bool,
    /// Whether it is a block.
    pub is_block: bool,
}

/// A peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Where it is.
    pub address: String,
    /// Whether it came to us.
    pub is_incoming: bool,
    /// What it calls itself.
    pub sub_version: String,
    /// Since when, seconds since 1970.
    pub since: f64,
    /// Seconds there and back.
    pub latency: Option<f64>,
    /// Shares that it sent.
    pub shares_received: u64,
}

/// A found block.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockEntry {
    /// Its hash.
    pub hash: String,
    /// Its height.
    pub height: Option<u32>,
    /// When we heard of it, seconds since 1970.
    pub found_at: f64,
    /// What it pays, in satoshis.
    pub value: u64,
    /// Whom.
    pub payee: String,
    /// Who found it.
    pub finder: String,
    /// Whether our miners did.
    pub is_ours: bool,
    /// Where it stands: submitted, confirming, mature, stale, orphaned, rejected.
    pub standing: String,
    /// Blocks from it to the tip.
    pub confirmations: u32,
    /// What each route brought: `rpc accepted`.
    pub routes: Vec<String>,
}

/// What the next block pays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Payouts {
    /// The coin's ticker symbol.
    pub symbol: String,
    /// The next block's height, if there is a template.
    pub height: Option<u32>,
    /// What it pays in all, in satoshis, of which the finder gets a two-hundredth.
    pub value: u64,
    /// The greatest first.
    pub payouts: Vec<Payout>,
}

/// What one payee gets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Payout {
    /// Who.
    pub address: String,
    /// Satoshis.
    pub amount: u64,
    /// Part of all, 0 to 1.
    pub part: f64,
    /// Whether this node's miners are paid there.
    pub is_local: bool,
}

impl Overview {
    /// The page as of now.
    pub fn new(snapshot: &Snapshot, rates: &Rates, found: &FoundBlocks, log: Vec<String>, now: f64) -> Self {
        let mut miners: Vec<Miner> = rates.workers.iter().map(|(worker, done)| miner(worker, done)).collect();
        miners.sort_by(|one, other| {
            other.hash_rate.total_cmp(&one.hash_rate).then(other.last_seen.total_cmp(&one.last_seen))
        });
        miners.truncate(MINERS_MAX);
        let local = &snapshot.local;
        Self {
            time: now,
            started: snapshot.started,
            version: snapshot.version.to_owned(),
            network: snapshot.network.to_owned(),
            symbol: snapshot.symbol.to_owned(),
            daemon: short(&snapshot.daemon.version),
            trouble: snapshot.daemon.trouble.as_deref().map(short),
            waiting: snapshot.waiting.as_deref().map(short),
            warnings: snapshot.warnings.iter().map(|warning| short(warning)).collect(),
            fee_percent: snapshot.fee_percent,
            pool: snapshot.pool.as_ref().map(|pool| Pool {
                hash_rate: pool.hour.hash_rate,
                stale_proportion: pool.hour.stale_proportion,
                share_difficulty: pool.share_difficulty,
                seconds_to_block: pool.seconds_to_block,
                height: snapshot.chain.height,
                blocks_found: pool.luck.found,
                blocks_expected: pool.luck.expected,
            }),
            block: snapshot.block.as_ref().map(|block| Block {
                height: block.height,
                difficulty: block.difficulty,
                value: block.value,
                transactions: block.transactions,
                network_hash_rate: block.network_hash_rate,
            }),
            local: Local {
                hash_rate: rates.hash_rate,
                late_hash_rate: rates.late_hash_rate,
                workers: rates.active_workers,
                accepted: rates.accepted,
                shares: local.shares,
                orphan: local.orphan,
                dead: local.dead,
                efficiency: local.efficiency.map(interval),
                seconds_to_share: local.seconds_to_share,
                payout: local.payout,
            },
            miners,
            miners_total: rates.workers.len(),
            shares: snapshot.chain.recent.iter().take(SHARES_MAX).map(share).collect(),
            peers: snapshot.peers.peers.iter().take(PEERS_MAX).map(peer).collect(),
            banned: snapshot.peers.banned.len(),
            blocks: blocks(found, BLOCKS_MAX),
            log,
        }
    }
}

impl Payouts {
    /// What a block pays that is found now.
    pub fn new(snapshot: &Snapshot, rates: &Rates) -> Self {
        let sum: u64 = snapshot.payouts.values().sum();
        let mut payouts: Vec<Payout> = (snapshot.payouts.iter())
            .map(|(payee, amount)| Payout {
                address: payee.to_string(),
                amount: *amount,
                part: part(*amount, sum),
                is_local: rates.payees.contains_key(payee.as_str()) || *payee.as_str() == *snapshot.payout_address,
            })
            .collect();
        payouts.sort_by(|one, other| other.amount.cmp(&one.amount).then_with(|| one.address.cmp(&other.address)));
        payouts.truncate(PAYEES_MAX);
        Self {
            symbol: snapshot.symbol.to_owned(),
            height: snapshot.block.as_ref().map(|block| block.height),
            value: snapshot.block.as_ref().map_or(0, |block| block.value),
            payouts,
        }
    }
}

/// BlockEntry blocks, the newest first.
pub(super) fn blocks(found: &FoundBlocks, count: usize) -> Vec<BlockEntry> {
    found.blocks.iter().take(count).map(block).collect()
}

#[expect(clippy::cast_precision_loss, reason = "21 million coins fit a double")]
fn part(amount: u64, sum: u64) -> f64 {
    if sum == 0 { 0.0 } else { amount as f64 / sum as f64 }
}

fn interval(estimate: Estimate) -> Interval {
    Interval { value: estimate.value, low: estimate.low, high: estimate.high }
}

fn miner(worker: &Arc<str>, done: &crate::rates::WorkerRates) -> Miner {
    Miner {
        worker: short(worker),
        hash_rate: done.hash_rate,
        late_hash_rate: done.late_hash_rate,
        difficulty: done.difficulty,
        accepted: done.accepted,
        late: done.late,
        refused: done.refused.values().sum(),
        last_seen: done.last_seen,
    }
}

fn share(share: &RecentShare) -> Share {
    Share {
        hash: share.hash.to_string(),
        height: share.height,
        time: share.time,
        payee: share.payee.to_string(),
        difficulty: bdiff(share.target),
        in_best_chain: share.in_best_chain,
        is_own: share.is_own,
        is_block: share.is_block,
    }
}

fn peer(peer: &p2p::PeerStatus) -> Peer {
    Peer {
        address: peer.address.to_string(),
        is_incoming: peer.is_incoming,
        sub_version: short(&peer.sub_version),
        since: peer.since,
        latency: peer.latency,
        shares_received: peer.shares_received,
    }
}

fn block(record: &Arc<Record>) -> BlockEntry {
    BlockEntry {
        hash: record.hash.to_string(),
        height: record.height,
        found_at: record.found_at,
        value: record.value,
        payee: short(&record.payee),
        finder: short(&record.finder),
        is_ours: record.is_ours,
        standing: record.standing.word().to_owned(),
        confirmations: record.confirmations,
        routes: record.routes.iter().map(|route| format!("{} {}", route.route, route.outcome.word())).collect(),
    }
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}
