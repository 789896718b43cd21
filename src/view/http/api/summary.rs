//! The first screen: is it working, what do I earn, what is wrong.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Sources;
use crate::view::snapshot::{self, Snapshot};

/// Everything that the first screen shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
    /// When this was true.
    pub time: f64,
    /// This node.
    pub node: Node,
    /// What is wrong, in words for people; empty when nothing is.
    pub warnings: Vec<String>,
    /// The pool.
    pub pool: Pool,
    /// This node's miners.
    pub local: Local,
    /// The block that is mined on; null without a template from the daemon.
    pub block: Option<NextBlock>,
    /// Blocks that the pool found.
    pub blocks: FoundBlocks,
    /// Other nodes.
    pub peers: Connections,
}

/// This node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// This software's version.
    pub version: String,
    /// The network's name.
    pub network: String,
    /// The coin's ticker symbol.
    pub symbol: String,
    /// Seconds since the start.
    pub uptime_seconds: f64,
    /// Whether miners get work.
    pub serving: bool,
    /// What miners wait for; null while nothing is waited for.
    pub waiting: Option<String>,
    /// The daemon.
    pub daemon: Daemon,
    /// Who is paid when a worker's name is no address.
    pub payout_address: String,
    /// The part of work that pays the operator.
    pub fee: f64,
    /// The part of payouts that goes to the author of the original P2Pool.
    pub donation: f64,
}

/// The daemon, bitcoind or its like.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Daemon {
    /// What it calls itself; empty until known.
    pub version: String,
    /// The last failure, while it lasts.
    pub trouble: Option<String>,
    /// Whether the peer-to-peer connection with it is up.
    pub p2p_connected: bool,
    /// Seconds since it answered last; null if it never did.
    pub seconds_since_success: Option<f64>,
}

/// The pool, as its shares tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Hashes per second over the last hour, lost shares included; null while there are fewer than two shares.
    pub hash_rate: Option<f64>,
    /// The same without lost shares.
    pub hash_rate_without_stales: Option<f64>,
    /// The part of shares that was lost, as far as miners announce it.
    pub stale_proportion: Option<f64>,
    /// Addresses that the next block pays.
    pub miners: usize,
    /// Shares from the best one down.
    pub shares: u32,
    /// Heads of the chain: more than one while it is forked.
    pub heads: usize,
    /// The least difficulty of the next share.
    pub share_difficulty: Option<f64>,
    /// Seconds from share to share that the pool aims at.
    pub share_period: u32,
    /// When the best share was made.
    pub last_share: Option<f64>,
    /// Seconds until the pool finds a block, on average.
    pub seconds_to_block: Option<f64>,
    /// Blocks found against blocks expected of the chain's work; null while none was to be expected.
    pub luck: Option<f64>,
    /// Hash rate by the share version that it votes for, the newest first.
    pub desired_versions: Vec<DesiredVersion>,
}

/// Votes for a share version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DesiredVersion {
    /// The version.
    pub version: u64,
    /// Hashes per second that vote for it.
    pub hash_rate: f64,
}

/// This node's miners.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Local {
    /// Hashes per second over the last ten minutes, late ones included.
    pub hash_rate: f64,
    /// Of these, what came for work that was gone.
    pub late_hash_rate: f64,
    /// Workers with a submission in the last ten minutes.
    pub workers: usize,
    /// Hashes that they did since the start, late ones included.
    pub hashes: f64,
    /// Of these, what was done for the operator's fee.
    pub fee_hashes: f64,
    /// Shares that they found since the start.
    pub shares: OwnShares,
    /// What this node gets of its hashes' worth against the pool's average: 1 is as good as the others. Null before its first
    /// share.
    pub efficiency: Option<Estimate>,
    /// Seconds until this node's next share, on average.
    pub seconds_to_share: Option<f64>,
    /// Satoshis that the addresses mining here would get if a block were found now.
    pub expected_payout: u64,
}

/// Shares of this node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OwnShares {
    /// All of them.
    pub total: u32,
    /// In time, but the chain went another way.
    pub orphan: u32,
    /// Found for work that was gone.
    pub dead: u32,
}

/// A measured number, and where it may really be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Estimate {
    /// As measured.
    pub value: f64,
    /// The lower end of the interval that it is in with 95 %.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The block that is mined on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NextBlock {
    /// Its height.
    pub height: u32,
    /// The block before it.
    pub previous: String,
    /// Its difficulty.
    pub difficulty: f64,
    /// Satoshis that its coinbase pays in all.
    pub value: u64,
    /// Its transactions, without the coinbase.
    pub transactions: usize,
    /// Hashes per second of the whole network.
    pub network_hash_rate: f64,
}

/// Blocks that the pool found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FoundBlocks {
    /// Among the shares that this node remembers.
    pub found: usize,
    /// When the newest was found.
    pub last: Option<f64>,
}

/// Other nodes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connections {
    /// Connections that others opened.
    pub incoming: usize,
    /// Connections that this node opened.
    pub outgoing: usize,
    /// Addresses that are kept away.
    pub banned: usize,
    /// Addresses of nodes that are known.
    pub known: usize,
}

/// Is it working, what do I earn, what is wrong.
#[utoipa::path(get, path = "/api/v1/summary", tag = "node", responses((status = 200, description = "All at once", body = Summary)))]
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
    /// As of `snapshot`.
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
                share_difficulty: pool.map(|pool| pool.share_difficulty),
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
            peers: Connections {
                incoming: snapshot.peers.incoming,
                outgoing: snapshot.peers.outgoing,
                banned: snapshot.peers.banned.len(),
                known: snapshot.peers.addresses,
            },
        }
    }
}

fn votes(pool: &snapshot::Pool) -> Vec<DesiredVersion> {
    let newest_first = pool.desired_versions.iter().rev();
    newest_first.map(|(version, hash_rate)| DesiredVersion { version: *version, hash_rate: *hash_rate }).collect()
}
