//! What the share chain, miners, the daemon and peers say together: one immutable snapshot that everything reads which
//! shows the node to people.
//!
//! ```text
//!  sharechain ── look (bounded, on its owner's side) ─▶┐
//!  templates, health, rates, peers, gate ─────────────▶┼── sum ──▶ watch<Arc<Snapshot>> ──▶ http, graphs, control
//!                                                      ┘
//! ```
//!
//! Made on a new tip and every few seconds, at most once a second; never for a request. A single share is asked for when
//! somebody wants it ([`share`]).

pub mod difficulty;
mod meters;
pub mod share;
mod sum;

use metrics::histogram;
use serde::Serialize;
use sharechain::chain::pool::{self, PoolView};
use sharechain::coin::Network;
use sharechain::share::{Attempts, Payee};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::bitcoind::Health;
use crate::chain;
use crate::rates::Rates;
use crate::runtime::clock::unix_now;
use crate::runtime::disk::Troubles;
use crate::template::Template;
use crate::work::Gate;

/// How often figures are made when nothing happens.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// The least time from one making to the next.
const REST: Duration = Duration::from_secs(1);

/// What the operator decided, as far as figures tell of it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The network.
    pub network: &'static Network,
    /// Who is paid when a worker's name is no address.
    pub payout_address: Arc<str>,
    /// Percentage of work that pays the operator.
    pub fee_percent: f64,
    /// Percentage of payouts that goes to the author of the reference.
    pub donation_percent: f64,
}

/// What figures are made from.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The share chain.
    pub chain: chain::Handle,
    /// From the daemon.
    pub templates: watch::Receiver<Option<Arc<Template>>>,
    /// The daemon's condition.
    pub health: watch::Receiver<Health>,
    /// What miners do.
    pub rates: watch::Receiver<Arc<Rates>>,
    /// The pool's network.
    pub peers: watch::Receiver<Arc<p2p::Status>>,
    /// Whether there may be work.
    pub gate: watch::Receiver<Gate>,
    /// The parts that cannot write to the disk.
    pub disk: watch::Receiver<Arc<Troubles>>,
}

/// The snapshot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// When it was made, seconds since 1970.
    pub time: f64,
    /// When the node started, seconds since 1970.
    pub started: f64,
    /// This software's version.
    pub version: &'static str,
    /// The network's name, as `--net` has it.
    pub network: &'static str,
    /// The coin's ticker symbol.
    pub symbol: &'static str,
    /// Who is paid when a worker's name is no address.
    pub payout_address: Arc<str>,
    /// Percentage of work that pays the operator.
    pub fee_percent: f64,
    /// Percentage of payouts that goes to the author of the reference.
    pub donation_percent: f64,
    /// What is wrong, in words for people; empty when nothing is.
    pub warnings: Vec<String>,
    /// The warning that our clock is wrong, which stands among the others as well; none while nothing speaks against it.
    pub clock: Option<String>,
    /// What miners wait for; none while they are served.
    pub waiting: Option<Arc<str>>,
    /// The daemon.
    pub daemon: Daemon,
    /// The next block; none while there is no template.
    pub block: Option<NextBlock>,
    /// The pool; none while its chain has fewer than two shares.
    pub pool: Option<Pool>,
    /// This node's miners.
    pub local: Local,
    /// What miners did, worker by worker. Once a second on its own `watch`; here as of `time`.
    pub rates: Arc<Rates>,
    /// Satoshis that each payee would get if a block were found now, the donation address among them, without the finder's
    /// own half percent. Empty without a template.
    pub payouts: BTreeMap<Payee, u64>,
    /// Each payee's part of the work of the last [`STRETCH`](pool::STRETCH) shares, 0 to 1.
    pub users: BTreeMap<Payee, f64>,
    /// What each payee of the whole chain lost of its shares, 0 to 1, as far as it said.
    pub user_stales: BTreeMap<Payee, f64>,
    /// The share chain.
    pub chain: Arc<PoolView>,
    /// The pool's network.
    pub peers: Arc<p2p::Status>,
}

/// The daemon's condition.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Daemon {
    /// What it calls itself; empty until known.
    pub version: String,
    /// The last failure, while it lasts.
    pub trouble: Option<String>,
    /// Nothing came for so long that miners were sent away.
    pub gone: bool,
    /// Whether the P2P connection to it is up.
    pub p2p_connected: bool,
    /// Seconds that it took over the last template that was asked for.
    pub template_seconds: Option<f64>,
    /// Seconds since a call last succeeded; none if none has.
    pub seconds_since_success: Option<f64>,
}

/// The block that is mined on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NextBlock {
    /// Its height.
    pub height: u32,
    /// The block that it builds on, as daemons print it.
    pub previous: String,
    /// Its bdiff.
    pub difficulty: f64,
    /// Hashes that it takes on average.
    #[serde(serialize_with = "as_double")]
    pub attempts: Attempts,
    /// What its coinbase pays in all, in satoshis.
    pub value: u64,
    /// Transactions without the coinbase.
    pub transactions: usize,
    /// Hashes per second of the whole network, by its difficulty and block period.
    pub network_hash_rate: f64,
}

/// The pool as its shares tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pool {
    /// Over the last hour's shares, as far as there are.
    pub hour: Stretch,
    /// Over the last [`STRETCH`](pool::STRETCH) shares, as far as there are.
    pub stretch: Stretch,
    /// The bdiff of the easiest share that may follow.
    pub share_difficulty: f64,
    /// Hashes that such a share takes on average.
    #[serde(serialize_with = "as_double")]
    pub attempts_to_share: Attempts,
    /// Seconds until the pool's next block, on average; none while there is no template or no rate.
    pub seconds_to_block: Option<f64>,
    /// Share versions that the last hour's shares vote for, in hashes per second, stales left out.
    pub desired_versions: BTreeMap<u64, f64>,
    /// How lucky the pool was.
    pub luck: Luck,
}

/// A stretch of the best chain, from its end down.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stretch {
    /// Shares in it.
    pub shares: u32,
    /// Hashes per second that made it into the chain.
    pub nonstale_hash_rate: f64,
    /// Hashes per second, lost shares included as far as miners said.
    pub hash_rate: f64,
    /// The part that was lost, 0 to 1, as far as miners said.
    pub stale_proportion: f64,
    /// Hashes per second of all its shares, the newest left out.
    pub good: f64,
    /// Of these, by miners who announced an orphan.
    pub orphan: f64,
    /// Of these, by miners who announced a share that was dead on arrival.
    pub dead: f64,
}

/// Blocks found among the chain's shares, and how many were to be expected of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Luck {
    /// Shares of the chain that solved their blocks.
    pub found: u32,
    /// What the chain's work was worth in blocks.
    pub expected: f64,
    /// One through the other: above 1 is lucky. None while `expected` is less than a hundredth of a block.
    pub ratio: Option<f64>,
}

/// This node's miners, and its own shares since it started.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Local {
    /// Hashes per second over the last ten minutes, late ones included.
    pub hash_rate: f64,
    /// Of these, what came for work that had been dropped.
    pub late_hash_rate: f64,
    /// Shares made, orphans and dead ones included.
    pub shares: u32,
    /// Not in the chain although they came in time.
    pub orphan: u32,
    /// Not in the chain because they came late.
    pub dead: u32,
    /// The part of our shares that was lost, with the interval that it is in by 95 %.
    pub stale: Option<Estimate>,
    /// What we get of what our hashes are worth against the average of the pool: 1 is as good as the others.
    pub efficiency: Option<Estimate>,
    /// The same if our miners never sent anything late.
    pub efficiency_if_miners_perfect: Option<f64>,
    /// Our shares among the last hour's of the chain.
    pub last_hour: LastHour,
    /// The bdiff of the last share that we found for each payee and that the chain has.
    pub last_difficulties: BTreeMap<Payee, f64>,
    /// Seconds until our next share, on average; none while there is no rate.
    pub seconds_to_share: Option<f64>,
    /// Satoshis that the node's payout address would get if a block were found now.
    pub payout: u64,
}

/// A measured part, and where it may really be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// As measured.
    pub value: f64,
    /// The interval's lower end (Wilson score, 95 %).
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// Our shares among the last hour's of the chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LastHour {
    /// In the chain.
    pub unstale: u32,
    /// Announced there as orphans.
    pub orphan: u32,
    /// Announced there as dead on arrival.
    pub dead: u32,
    /// Hashes per second of those in the chain.
    pub nonstale_hash_rate: f64,
}

impl Snapshot {
    /// Of a node that has just started.
    pub fn new(config: &Config, started: f64) -> Self {
        Self {
            time: started,
            started,
            version: env!("CARGO_PKG_VERSION"),
            network: config.network.name,
            symbol: config.network.parent.symbol,
            payout_address: config.payout_address.clone(),
            fee_percent: config.fee_percent,
            donation_percent: config.donation_percent,
            warnings: Vec::new(),
            clock: None,
            waiting: None,
            daemon: Daemon::default(),
            block: None,
            pool: None,
            local: Local::default(),
            rates: Arc::default(),
            payouts: BTreeMap::new(),
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

/// Names and explains the metrics of this part.
pub fn describe() {
    meters::describe();
}

/// Publishes figures until `stop`.
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
            // What the next block pays, and for which target.
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
            early: *inputs.chain.early.borrow(),
        };
        let summed = tokio::task::spawn_blocking(move || sum::sum(looked, others)).await;
        let (made, kept) = summed.expect("summing does not panic");
        histogram!("figures_seconds").record(begin.elapsed());
        meters::tell(&made);
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
