//! Data of the first page: state, earnings, warnings.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{MergedSummary, ShareVersions, Sources};
use crate::view::snapshot::{self, Snapshot};

/// Summary of node, pool and miners.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
    /// Time of the snapshot.
    pub time: f64,
    /// State of this node.
    pub node: Node,
    /// Warnings as sentences; empty if all is well.
    pub warnings: Vec<String>,
    /// State of the pool.
    pub pool: Pool,
    /// Share versions, and messages about them.
    #[serde(default)]
    #[schema(required = true)]
    pub versions: ShareVersions,
    /// This node's miners.
    pub local: Local,
    /// Block that is being mined; null without a template from the daemon.
    pub block: Option<NextBlock>,
    /// The pool's found blocks.
    pub blocks: FoundBlocks,
    /// Merged chains in brief.
    #[serde(default)]
    #[schema(required = true)]
    pub merged: MergedSummary,
    /// P2P connections.
    pub peers: Connections,
}

/// State of this node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Version of this software.
    pub version: String,
    /// Name of the network.
    pub network: String,
    /// Ticker symbol of the coin.
    pub symbol: String,
    /// Difficulties in the unit of the coin's miners are so many times those in the unit of blocks (bdiff): 65,536 on
    /// scrypt networks, else 1.
    #[serde(default = "one")]
    #[schema(required = true)]
    pub difficulty_scale: u32,
    /// Seconds since the start.
    pub uptime_seconds: f64,
    /// True if miners get work.
    pub serving: bool,
    /// Reason why miners have to wait; null if there is none.
    pub waiting: Option<String>,
    /// State of the daemon.
    pub daemon: Daemon,
    /// Payout address of workers whose name is not an address.
    pub payout_address: String,
    /// Fraction of the work that pays the operator.
    pub fee: f64,
    /// Fraction of payouts that goes to the author of the original P2Pool.
    pub donation: f64,
}

/// State of the daemon, such as bitcoind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Daemon {
    /// Name and version that it reports; empty until known.
    pub version: String,
    /// Current failure, if any.
    pub trouble: Option<String>,
    /// True if the peer-to-peer connection to it is up.
    pub p2p_connected: bool,
    /// Seconds since its latest answer; null before the first.
    pub seconds_since_success: Option<f64>,
}

/// State of the pool, derived from its shares.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Hash rate over the last hour, stale shares included; null while there are fewer than two shares.
    pub hash_rate: Option<f64>,
    /// Hash rate without stale shares.
    pub hash_rate_without_stales: Option<f64>,
    /// Fraction of stale shares, as announced by miners.
    pub stale_proportion: Option<f64>,
    /// Number of addresses that the next block pays.
    pub miners: usize,
    /// Number of shares in the best chain.
    pub shares: u32,
    /// Number of heads of the chain: more than one while it is forked.
    pub heads: usize,
    /// Minimum difficulty of the next share, in the unit of the coin's miners.
    pub share_difficulty: Option<f64>,
    /// Target time between shares, in seconds.
    pub share_period: u32,
    /// Timestamp of the best share.
    pub last_share: Option<f64>,
    /// Average time until the pool finds a block, in seconds.
    pub seconds_to_block: Option<f64>,
    /// Ratio of blocks found to blocks expected from the chain's work; null while none is expected.
    pub luck: Option<f64>,
    /// Hash rate by desired share version, newest version first.
    pub desired_versions: Vec<DesiredVersion>,
}

/// Votes for a share version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DesiredVersion {
    /// Share version.
    pub version: u64,
    /// Hash rate that votes for it.
    pub hash_rate: f64,
}

/// This node's miners.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Local {
    /// Hash rate over the last ten minutes, late work included.
    pub hash_rate: f64,
    /// Part of the hash rate that was for outdated work.
    pub late_hash_rate: f64,
    /// Workers with a submission in the last ten minutes.
    pub workers: usize,
    /// Hashes since the start, late work included.
    pub hashes: f64,
    /// Part of the hashes that was for the operator's fee.
    pub fee_hashes: f64,
    /// Shares found since the start.
    pub shares: OwnShares,
    /// Reward per hash relative to the pool's average: 1 is average. Null before this node's first share.
    pub efficiency: Option<Estimate>,
    /// Average time until this node's next share, in seconds.
    pub seconds_to_share: Option<f64>,
    /// Satoshis that the addresses mining here would get if a block were found now.
    pub expected_payout: u64,
}

/// Shares of this node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OwnShares {
    /// Number of all shares, stale ones included.
    pub total: u32,
    /// Number of orphans: in time, but not in the best chain.
    pub orphan: u32,
    /// Number of shares for outdated work.
    pub dead: u32,
}

/// A measured value and its confidence interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Estimate {
    /// Measured value.
    pub value: f64,
    /// Lower bound of the 95 % confidence interval.
    pub low: f64,
    /// Upper bound of the 95 % confidence interval.
    pub high: f64,
}

/// Block that is being mined.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NextBlock {
    /// Height of the block.
    pub height: u32,
    /// Hash of the previous block.
    pub previous: String,
    /// Difficulty of the block (bdiff), as the daemon and block explorers count it.
    pub difficulty: f64,
    /// Total of the coinbase, in satoshis.
    pub value: u64,
    /// Number of transactions, without the coinbase.
    pub transactions: usize,
    /// Hash rate of the whole network.
    pub network_hash_rate: f64,
}

/// The pool's found blocks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FoundBlocks {
    /// Number of blocks among the shares that this node keeps.
    pub found: usize,
    /// Time of the newest.
    pub last: Option<f64>,
}

/// P2P connections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connections {
    /// Number of incoming connections.
    pub incoming: usize,
    /// Number of outgoing connections.
    pub outgoing: usize,
    /// Number of banned addresses.
    pub banned: usize,
    /// Number of known node addresses.
    pub known: usize,
}

/// Summary of node, pool and miners.
#[utoipa::path(get, path = "/api/v1/summary", tag = "node", responses((status = 200, description = "The summary", body = Summary)))]
pub(super) async fn summary(state: State<Sources>) -> Json<Summary> {
    let snapshot = super::snapshot(&state);
    Json(Summary::of(&snapshot, &state))
}

/// This node and its daemon.
#[utoipa::path(get, path = "/api/v1/node", tag = "node", responses((status = 200, description = "This node", body = Node)))]
pub(super) async fn node(state: State<Sources>) -> Json<Node> {
    let snapshot = super::snapshot(&state);
    Json(Node::of(&snapshot))
}

impl Node {
    fn of(snapshot: &Snapshot) -> Self {
        let daemon = &snapshot.daemon;
        Self {
            version: snapshot.version.to_owned(),
            network: snapshot.network.to_owned(),
            symbol: snapshot.symbol.to_owned(),
            difficulty_scale: snapshot.scale.factor(),
            uptime_seconds: snapshot.uptime(),
            serving: daemon.seconds_since_success.is_some() && !daemon.gone && snapshot.waiting.is_none(),
            waiting: snapshot.waiting.as_deref().map(str::to_owned),
            daemon: Daemon {
                version: daemon.version.clone(),
                trouble: daemon.trouble.clone(),
                p2p_connected: daemon.p2p_connected,
                seconds_since_success: daemon.seconds_since_success,
            },
            payout_address: snapshot.payout_address.to_string(),
            fee: snapshot.fee_percent / 100.0,
            donation: snapshot.donation_percent / 100.0,
        }
    }
}

impl Summary {
    /// Returns the summary as of `snapshot`.
    pub(in crate::view) fn of(snapshot: &Snapshot, sources: &Sources) -> Self {
        let local = &snapshot.local;
        let pool = snapshot.pool.as_ref();
        let small_devices = (sources.small_devices.0)();
        let mut warnings = snapshot.warnings.clone();
        if let Some(device) = small_devices.first() {
            let others = small_devices.len() - 1;
            let more =
                if others > 0 { format!(", and {others} more workers with such devices") } else { String::new() };
            warnings.push(format!("{}: {device}{more}", device.worker));
        }
        let payouts = snapshot.rates.payees.keys().filter_map(|payee| snapshot.payouts.get(&**payee));
        Self {
            time: snapshot.time,
            node: Node::of(snapshot),
            warnings,
            pool: Pool {
                hash_rate: pool.map(|pool| pool.hour.hash_rate),
                hash_rate_without_stales: pool.map(|pool| pool.hour.nonstale_hash_rate),
                stale_proportion: pool.map(|pool| pool.hour.stale_proportion),
                miners: snapshot.payouts.len(),
                shares: snapshot.chain.height,
                heads: snapshot.chain.heads.len(),
                share_difficulty: pool.map(|pool| snapshot.scale.show(pool.share_difficulty)),
                share_period: sources.network.share_period,
                last_share: snapshot
                    .chain
                    .recent
                    .iter()
                    .find(|share| share.in_best_chain)
                    .map(|share| f64::from(share.time)),
                seconds_to_block: pool.and_then(|pool| pool.seconds_to_block),
                luck: pool.and_then(|pool| pool.luck.ratio),
                desired_versions: pool.map_or_else(Vec::new, votes),
            },
            versions: ShareVersions::of(snapshot),
            local: Local {
                hash_rate: local.hash_rate,
                late_hash_rate: local.late_hash_rate,
                workers: snapshot.rates.active_workers,
                hashes: snapshot.rates.hashes,
                fee_hashes: snapshot.rates.fee_hashes,
                shares: OwnShares { total: local.shares, orphan: local.orphan, dead: local.dead },
                efficiency: local.efficiency.map(|snapshot::Estimate { value, low, high }| Estimate {
                    value,
                    low,
                    high,
                }),
                seconds_to_share: local.seconds_to_share,
                expected_payout: payouts.sum(),
            },
            block: snapshot.block.as_ref().map(|block| NextBlock {
                height: block.height,
                previous: block.previous.clone(),
                difficulty: block.difficulty,
                value: block.value,
                transactions: block.transactions,
                network_hash_rate: block.network_hash_rate,
            }),
            blocks: FoundBlocks {
                found: snapshot.chain.blocks.len(),
                last: snapshot.chain.blocks.first().map(|block| f64::from(block.time)),
            },
            merged: MergedSummary::of(snapshot, &sources.merged_found.borrow()),
            peers: Connections {
                incoming: snapshot.peers.incoming,
                outgoing: snapshot.peers.outgoing,
                banned: snapshot.peers.banned.len(),
                known: snapshot.peers.addresses,
            },
        }
    }
}

/// Scale of a node that does not name it.
fn one() -> u32 {
    1
}

fn votes(pool: &snapshot::Pool) -> Vec<DesiredVersion> {
    let newest_first = pool.desired_versions.iter().rev();
    newest_first.map(|(version, hash_rate)| DesiredVersion { version: *version, hash_rate: *hash_rate }).collect()
}
