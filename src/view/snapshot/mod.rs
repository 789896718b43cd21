//! State of the share chain, miners, the daemon and peers: one immutable snapshot for every display of the node.
//!
//! ```text
//!  sharechain ── look (bounded, on its owner's side) ─▶┐
//!  templates, health, rates, peers, gate, merged ─────▶┼── sum ──▶ watch<Arc<Snapshot>> ──▶ http, graphs, control
//!                                                      ┘
//! ```
//!
//! Made on a new tip and every few seconds, at most once a second; never for a request. Single shares are looked up on
//! demand ([`share`]).

pub mod difficulty;
mod merged_payouts;
mod meters;
pub mod share;
mod succession;
mod sum;

pub use merged_payouts::{MergedPayout, MergedSource};
pub use succession::{ACCEPTANCE_PERCENT, ACTIVATION_PERCENT, Succession};

use metrics::histogram;
use serde::Serialize;
use sharechain::chain::pool::{self, PoolView};
use sharechain::chain::{MergedWindowWeights, RefusedLately};
use sharechain::coin::Network;
use sharechain::share::{Attempts, Payee};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::Scale;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::bitcoind::Health;
use crate::chain;
use crate::merged::ChainStatus;
use crate::rates::Rates;
use crate::runtime::clock::unix_now;
use crate::runtime::disk::Troubles;
use crate::template::Template;
use crate::work::Gate;

/// Interval of snapshots without events.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// Minimum time between two snapshots.
const REST: Duration = Duration::from_secs(1);

/// Operator's settings that the snapshot shows.
#[derive(Debug, Clone)]
pub struct Config {
    pub network: &'static Network,
    /// Address paid when a worker's name is no address.
    pub payout_address: Arc<str>,
    /// Percentage of work that pays the operator.
    pub fee_percent: f64,
    /// Percentage of payouts that goes to the author of the reference.
    pub donation_percent: f64,
}

/// Inputs of the snapshot.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub chain: chain::Handle,
    /// Templates of the daemon.
    pub templates: watch::Receiver<Option<Arc<Template>>>,
    /// State of the daemon.
    pub health: watch::Receiver<Health>,
    /// Miners' rates.
    pub rates: watch::Receiver<Arc<Rates>>,
    /// Status of the P2P task.
    pub peers: watch::Receiver<Arc<p2p::Status>>,
    /// State of the gate.
    pub gate: watch::Receiver<Gate>,
    /// The parts that cannot write to the disk.
    pub disk: watch::Receiver<Arc<Troubles>>,
    /// Condition of each merged chain.
    pub merged: watch::Receiver<Arc<Vec<ChainStatus>>>,
}

/// Snapshot of the node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// Time at which it was made, seconds since 1970.
    pub time: f64,
    /// Time at which the node started, seconds since 1970.
    pub started: f64,
    /// Version of this software.
    pub version: &'static str,
    /// Name of the network, as in `--net`.
    pub network: &'static str,
    /// Protocol version that the network's nodes announce.
    pub protocol_version: u32,
    /// Ticker symbol of the coin.
    pub symbol: &'static str,
    /// Scale on which the coin's miners know difficulties. All in the snapshot are bdiff: displays convert those of
    /// shares and submissions with it, not those of blocks, which are compared with the daemon's; P2Pool's original JSON
    /// converts none (protocol section 13.2).
    #[serde(skip)]
    pub scale: Scale,
    /// Address paid when a worker's name is no address.
    pub payout_address: Arc<str>,
    /// Percentage of work that pays the operator.
    pub fee_percent: f64,
    /// Percentage of payouts that goes to the author of the reference.
    pub donation_percent: f64,
    /// Warnings, in words for people; empty if all is well.
    pub warnings: Vec<String>,
    /// Warning that our clock is wrong, also part of the others; `None` without evidence.
    pub clock: Option<String>,
    /// Peers' shares that were refused within the last hour.
    pub refused: RefusedLately,
    /// Reason why miners wait; `None` while they are served.
    pub waiting: Option<Arc<str>>,
    /// State of the daemon.
    pub daemon: Daemon,
    /// Condition of each merged chain, in the order of the configuration. None makes the node itself unhealthy.
    pub merged: Arc<Vec<ChainStatus>>,
    /// Next block; `None` while there is no template.
    pub block: Option<NextBlock>,
    /// Pool; `None` while its chain has fewer than two shares.
    pub pool: Option<Pool>,
    /// This node's miners.
    pub local: Local,
    /// Miners' rates by worker, as of `time`. Updated every second on its own `watch`.
    pub rates: Arc<Rates>,
    /// Satoshis for each payee if a block were found now, including the donation address, without the finder's own half
    /// percent in share versions that have one. Empty without a template.
    pub payouts: BTreeMap<Payee, u64>,
    /// Payouts on the chain whose blocks can pay the miners: one for each of `payouts` that it can pay, then the rest.
    /// Empty on networks without such a chain.
    pub merged_payouts: Vec<MergedPayout>,
    /// Weights on that chain for a block on the best share; `None` before the version that has them.
    #[serde(skip)]
    pub merged_weights: Option<Arc<MergedWindowWeights>>,
    /// The way from one share version to the next.
    pub succession: Succession,
    /// Part of each payee in the work of the last [`STRETCH`](pool::STRETCH) shares, 0 to 1.
    pub users: BTreeMap<Payee, f64>,
    /// Lost part of each payee's shares in the whole chain, 0 to 1, as far as announced.
    pub user_stales: BTreeMap<Payee, f64>,
    /// View of the share chain.
    pub chain: Arc<PoolView>,
    /// Status of the P2P task.
    pub peers: Arc<p2p::Status>,
}

/// State of the daemon.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Daemon {
    /// Its version string; empty until known.
    pub version: String,
    /// Last failure, while it lasts.
    pub trouble: Option<String>,
    /// Set if it has been silent for so long that miners were disconnected.
    pub gone: bool,
    /// Set while the P2P connection to it is up.
    pub p2p_connected: bool,
    /// Duration in seconds of the last template request.
    pub template_seconds: Option<f64>,
    /// Seconds since the last successful call; `None` before the first.
    pub seconds_since_success: Option<f64>,
}

/// Block being mined.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NextBlock {
    pub height: u32,
    /// Hash of the previous block, as daemons print it.
    pub previous: String,
    /// Bdiff of the block.
    pub difficulty: f64,
    /// Average number of hashes to solve it.
    #[serde(serialize_with = "as_double")]
    pub attempts: Attempts,
    /// Total of its coinbase, in satoshis.
    pub value: u64,
    /// Number of transactions without the coinbase.
    pub transactions: usize,
    /// Hash rate of the whole network per second, by difficulty and block period.
    pub network_hash_rate: f64,
}

/// State of the pool, by its shares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pool {
    /// Over the last hour's shares, or as many as there are.
    pub hour: Stretch,
    /// Over the last [`STRETCH`](pool::STRETCH) shares, or as many as there are.
    pub stretch: Stretch,
    /// Bdiff of the easiest share that may follow.
    pub share_difficulty: f64,
    /// Average number of hashes for such a share.
    #[serde(serialize_with = "as_double")]
    pub attempts_to_share: Attempts,
    /// Average seconds until the pool's next block; `None` while there is no template or no rate.
    pub seconds_to_block: Option<f64>,
    /// Share versions voted for in the last hour, in hashes per second, without stales.
    pub desired_versions: BTreeMap<u64, f64>,
    /// Luck of the pool.
    pub luck: Luck,
}

/// Part of the best chain, from its tip down.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stretch {
    /// Number of shares.
    pub shares: u32,
    /// Hashes per second of the shares in the chain.
    pub nonstale_hash_rate: f64,
    /// Hashes per second, including lost shares as far as miners announced them.
    pub hash_rate: f64,
    /// Lost part, 0 to 1, as far as miners announced it.
    pub stale_proportion: f64,
    /// Hashes per second of all its shares except the newest.
    pub good: f64,
    /// Of these, by miners that announced an orphan.
    pub orphan: f64,
    /// Of these, by miners that announced a share dead on arrival.
    pub dead: f64,
}

/// Number of blocks among the chain's shares, found and expected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Luck {
    /// Shares of the chain that solved their blocks.
    pub found: u32,
    /// Number of blocks expected from the chain's work.
    pub expected: f64,
    /// `found / expected`: above 1 is lucky. `None` while `expected` is less than a hundredth of a block.
    pub ratio: Option<f64>,
}

/// State of this node's miners, and its own shares since it started.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Local {
    /// Hashes per second over the last ten minutes, including late ones.
    pub hash_rate: f64,
    /// Of these, hashes per second for dropped work.
    pub late_hash_rate: f64,
    /// Own shares, including orphans and dead ones.
    pub shares: u32,
    /// Own shares that came in time but are not in the chain.
    pub orphan: u32,
    /// Own shares that came late and are not in the chain.
    pub dead: u32,
    /// Lost part of our shares, with its 95 % interval.
    pub stale: Option<Estimate>,
    /// Our part of the rewards relative to our part of the pool's hash rate: 1 is as good as the others.
    pub efficiency: Option<Estimate>,
    /// The same if our miners never submitted anything late.
    pub efficiency_if_miners_perfect: Option<f64>,
    /// Our shares among the last hour's of the chain.
    pub last_hour: LastHour,
    /// Bdiff of our last share in the chain, by payee.
    pub last_difficulties: BTreeMap<Payee, f64>,
    /// Average seconds until our next share; `None` while there is no rate.
    pub seconds_to_share: Option<f64>,
    /// Satoshis for the node's payout address if a block were found now.
    pub payout: u64,
}

/// Measured part with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Measured value.
    pub value: f64,
    /// Lower end of the interval (Wilson score, 95 %).
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// Our shares among the last hour's of the chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LastHour {
    /// Shares in the chain.
    pub unstale: u32,
    /// Shares announced there as orphans.
    pub orphan: u32,
    /// Shares announced there as dead on arrival.
    pub dead: u32,
    /// Hash rate of those in the chain, per second.
    pub nonstale_hash_rate: f64,
}

impl Snapshot {
    /// Snapshot of a node that has just started.
    pub fn new(config: &Config, started: f64) -> Self {
        Self {
            time: started,
            started,
            version: env!("CARGO_PKG_VERSION"),
            network: config.network.name,
            protocol_version: config.network.protocol_version,
            symbol: config.network.parent.symbol,
            scale: Scale::new(config.network.parent.dumb_scrypt_diff),
            payout_address: config.payout_address.clone(),
            fee_percent: config.fee_percent,
            donation_percent: config.donation_percent,
            warnings: Vec::new(),
            clock: None,
            refused: RefusedLately::default(),
            waiting: None,
            daemon: Daemon::default(),
            merged: Arc::default(),
            block: None,
            pool: None,
            local: Local::default(),
            rates: Arc::default(),
            payouts: BTreeMap::new(),
            merged_payouts: Vec::new(),
            merged_weights: None,
            succession: Succession::default(),
            users: BTreeMap::new(),
            user_stales: BTreeMap::new(),
            chain: Arc::default(),
            peers: Arc::default(),
        }
    }

    /// Seconds since the node started.
    pub fn uptime(&self) -> f64 {
        (unix_now() - self.started).max(0.0)
    }
}

/// Describes the metrics of this part.
pub fn describe() {
    meters::describe();
}

/// Publishes snapshots until `stop`.
pub async fn run(config: Config, inputs: Inputs, snapshot: watch::Sender<Arc<Snapshot>>, stop: CancellationToken) {
    let started = snapshot.borrow().started;
    let mut tips = inputs.chain.tips.clone();
    let mut templates = inputs.templates.clone();
    let mut gate = inputs.gate.clone();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut carried = pool::Carried::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            changed = tips.changed() => if changed.is_err() { return },
            // Affects the next block's payouts and target.
            changed = templates.changed() => if changed.is_err() { return },
            changed = gate.changed() => if changed.is_err() { return },
        }
        let template = templates.borrow_and_update().clone();
        let block = template
            .as_ref()
            .map(|template| pool::NextBlock { target: template.block_target(), value: template.coinbase_value });
        let before = std::mem::take(&mut carried);
        let looked = tokio::select! {
            () = stop.cancelled() => return,
            looked = inputs.chain.look(move |chain| pool::look(chain, before, block)) => looked,
        };
        let Some(looked) = looked else { return };
        let begin = Instant::now();
        let tip = tips.borrow().clone();
        let others = sum::Others {
            config: config.clone(),
            started,
            now: unix_now(),
            template,
            health: inputs.health.borrow().clone(),
            rates: inputs.rates.borrow().clone(),
            peers: inputs.peers.borrow().clone(),
            gate: inputs.gate.borrow().clone(),
            disk: inputs.disk.borrow().clone(),
            merged: inputs.merged.borrow().clone(),
            next_version: tip.as_ref().map(|tip| tip.version()),
            merged_weights: tip.as_ref().and_then(|tip| tip.merged_weights().cloned()),
            early: *inputs.chain.early.borrow(),
            refused: inputs.chain.refused.borrow().clone(),
        };
        let summed = tokio::task::spawn_blocking(move || sum::sum(looked, others)).await;
        let (made, kept) = summed.expect("summing does not panic");
        histogram!("figures_seconds").record(begin.elapsed());
        meters::record(&made);
        carried = kept;
        snapshot.send_replace(Arc::new(made));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(REST) => {}
        }
    }
}

fn as_double<S: serde::Serializer>(attempts: &Attempts, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(difficulty::hashes(*attempts))
}
