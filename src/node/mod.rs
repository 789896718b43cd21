//! The wiring diagram: builds each part, connects them with channels, starts tasks; no decisions.
//!
//! | from → to | kind | when full or late |
//! | --- | --- | --- |
//! | `bitcoind` → `work`: templates | watch | latest wins |
//! | `work` → sessions: work sets | watch | latest wins |
//! | sessions, links → hashing threads: costly proofs of work | bounded queues by priority, served in turn | who holds most is refused; a link waits |
//! | sessions → `solution` | bounded mpsc | the session waits, its own socket feels it; never drops |
//! | `chain` → `work`: tips | watch | latest wins |
//! | `bitcoind` ⇄ `chain`: known and requested heights of blocks | watch, bounded mpsc | latest wins; requested again |
//! | sessions → `rates`: tallies per worker | shared counters | added up every second |
//! | `solution` → `blocks::submit`: blocks | bounded mpsc | waits; never drops |
//! | `merged` → `work`: next blocks of merged chains, or templates of them | watch | latest wins, at most every few seconds |
//! | `work` → poll tasks of `merged`: the next share can say how merged blocks pay the miners | watch | latest wins |
//! | `merged` → `view::snapshot`, `view::http`, `view::control`: condition of merged chains, and their found blocks | watch | latest wins |
//! | `solution` → `merged`: blocks of merged chains | bounded mpsc for each chain | each block once; refused when full |
//! | `solution` → `chain`: own shares | bounded mpsc | waits; never drops |
//! | `chain` → `solution::peer_blocks` → `blocks::submit`: peers' blocks | bounded mpsc | waits; never drops |
//! | `solution::peer_blocks` → `chain`: transactions of templates | watch | latest wins |
//! | links → `peers`: events | bounded mpsc | the connection waits, its peer feels it |
//! | `peers` → links: orders | bounded mpsc | never waits; the slow peer is dropped |
//! | `peers` → `chain`: peers' shares, queries | bounded mpsc | waits, and with it the peers that sent them |
//! | `chain` → `peers`: missing shares | watch | latest wins |
//! | `chain` → `peers`, other subscribers: events on the chain | broadcast | slow ones miss some |
//! | `blocks::submit` → subscribers: reports | broadcast | slow ones miss some |
//! | `blocks::submit` → `blocks::found`: reports | broadcast | reads the journal instead |
//! | `solution::peer_blocks` → `blocks::found`: blocks that cannot be made here | bounded mpsc | drops |
//! | `blocks::found` → subscribers: found blocks; their events | watch, broadcast | latest wins; slow ones miss some |
//! | `bitcoind` → `peers`: the best header | watch | latest wins |
//! | `peers` → `bitcoind`: a peer announced a new block | notification | several are one |
//! | `peers` → readers: status | watch | latest wins |
//! | `rates` → `view::http`, `tools::demo`: rates | watch | latest wins |
//! | `chain`, `bitcoind`, `rates`, `peers`, `work` → `view::snapshot` → `view::http`, `view::control`: figures | watch | latest wins |
//! | `blocks::found` → `blocks::announce`: events of found blocks | broadcast | slow ones miss some |
//! | `blocks::found` → `view::http`, `view::control`: found blocks | watch | latest wins |
//! | poll tasks of `merged` → its assembler: readings of all chains | watch | latest wins |
//! | routes of `merged` → its poll tasks: a daemon may have a new block for miners | notification | several are one, once a second |
//! | `blocks::found` of merged chains → `merged`: found blocks of all | watch | latest wins |
//! | writers → `runtime::disk` → `view::snapshot`, `view::http`: trouble with the disk | watch | latest wins |
//! | `work::gate` → `work` → `view::http`, `view::snapshot`: open or closed, and why no work can be made | watch | latest wins |

mod displays;
mod loading;
mod ports;
pub mod saved_payout;
pub mod service;
mod serving;

pub use loading::load_sharechain;
pub use ports::Ports;
pub use serving::serving;

use metrics_exporter_prometheus::PrometheusHandle;
use p2p::Status;
use sharechain::coin::{Network, Pow};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::server::Server;
use stratum::server::hashing::Hashers;
use stratum::{Solution, Tallies};
use tokio::sync::{broadcast, mpsc, watch};

use crate::bitcoind::{Handle, daemon};
use crate::blocks::found::FoundBlocks;
use crate::blocks::{Chain, Sighting, announce, found};
use crate::chain::SolvedShare;
use crate::merged::{MergedBlocks, MergedOffers};
use crate::rates::Rates;
use crate::runtime::access::Access;
use crate::runtime::data_dir::DataDir;
use crate::runtime::disk::{self, DiskHealth};
use crate::runtime::log::{self, Tail};
use crate::runtime::metrics;
use crate::runtime::tasks::Tasks;
use crate::view::http::{self, Hosts, Listeners, Sources};
use crate::view::snapshot::{self, Snapshot};
use crate::work::gate::{self, Gate, GateKeeper, PoolReadiness};
use crate::work::{Payout, Ticket, WorkSet};
use crate::{bitcoind, blocks, chain, front, merged, peers, rates, solution, work};
use displays::small_devices;
use ports::Mining;

/// Configuration of a node.
#[derive(Debug)]
pub struct Config {
    /// Logging.
    pub log: log::Config,
    /// The network mined on.
    pub network: &'static Network,
    /// The network's own folder.
    pub data_dir: PathBuf,
    /// Users that may read what the node writes.
    pub access: Access,
    /// Default payout, if given.
    pub address: Option<Payout>,
    /// Percentage of jobs that pay the operator.
    pub fee_percent: f64,
    /// An old node's data folder, whose shares are imported.
    pub old_shares: Option<PathBuf>,
    /// Percentage of payouts that goes to the author of the original P2Pool.
    pub donation_percent: f64,
    /// Texts for the coinbase script.
    pub coinbase_texts: Vec<String>,
    /// Ports for miners and for pages.
    pub front: front::Config,
    /// Names of this node at which browsers may change something, beside addresses and the machine's own names.
    pub web_hosts: Vec<String>,
    /// Limits and options of the miners' connections.
    pub stratum: stratum::server::Config,
    /// Connection to bitcoind.
    pub daemon: daemon::Config,
    /// Merged mining.
    pub merged: merged::Config,
    /// The node's part in the pool's network.
    pub p2p: peers::Config,
    /// Notifications of found blocks.
    pub announce: announce::Config,
    /// Start work without peers and before the pool's shares are here.
    pub start_pool: bool,
    /// Options with a secret that were given on the command line, where others can read it.
    pub visible_secrets: Vec<&'static str>,
}

impl Config {
    /// A node of `network` that nothing else is said of.
    pub fn on(network: &'static Network, data_dir: PathBuf) -> Self {
        Self {
            log: log::Config { logfile: Some(data_dir.join("log")), ..log::Config::default() },
            network,
            data_dir,
            access: Access::Owner,
            address: None,
            fee_percent: 0.0,
            old_shares: None,
            donation_percent: 0.0,
            coinbase_texts: Vec::new(),
            front: front::Config::on(network),
            web_hosts: Vec::new(),
            stratum: serving(network),
            daemon: daemon::Config::local(),
            merged: merged::Config::default(),
            p2p: peers::Config::on(network),
            announce: announce::Config::default(),
            start_pool: false,
            visible_secrets: Vec::new(),
        }
    }
}

/// Time that a stopping node waits for its parts: found blocks are on disk by then, and miners fail over in seconds.
pub const GRACE: Duration = Duration::from_millis(1500);

/// Parts of a node, beside the daemon.
#[derive(Debug)]
pub struct Parts {
    /// Folder of everything that is kept.
    pub data_dir: DataDir,
    /// Reports of disk trouble.
    pub disk: DiskHealth,
    /// Start work before any peer on a network that has others.
    pub start_pool: bool,
    /// Ports for miners and for pages.
    pub ports: Ports,
    /// Folder of the operator's own pages, served at `/static/`.
    pub web_static: Option<PathBuf>,
    /// Names of this node at which browsers may change something.
    pub web_hosts: Vec<String>,
    /// Configuration of work.
    pub work: work::Config,
    /// Limits and options of the miners' connections.
    pub stratum: stratum::server::Config,
    /// Merged mining.
    pub merged: merged::Handle,
    /// Loaded share chain and its owner.
    pub sharechain: (chain::Handle, chain::Owner),
    /// Configuration of the pool's network; `None` to stay out of it.
    pub p2p: Option<peers::Config>,
    /// Notifications of found blocks.
    pub announce: announce::Config,
    /// Last lines of the log.
    pub log: Tail,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Handle to bitcoind.
    pub daemon: Handle,
    /// Current work.
    pub work: watch::Receiver<Option<Arc<WorkSet>>>,
    /// Miners' rates.
    pub rates: watch::Receiver<Arc<Rates>>,
    /// Found blocks and their status.
    pub found: watch::Receiver<Arc<FoundBlocks>>,
    /// Events of found blocks.
    pub found_events: broadcast::Sender<found::Event>,
    /// Data for pages and other displays.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Handle to the share chain.
    pub sharechain: chain::Handle,
    /// Handle to the pool's network, if the node takes part in it.
    pub p2p: Option<peers::Handle>,
    /// Handle to merged mining.
    pub merged: merged::Handle,
}

/// Describes all metrics.
pub fn describe_metrics() {
    stratum::server::metrics::describe();
    daemon::families();
    solution::describe();
    blocks::describe();
    rates::describe();
    snapshot::describe();
    chain::describe();
    peers::describe();
    work::describe();
    merged::describe();
    http::describe();
    disk::describe();
}

/// Connects `parts` and `daemon`, and starts all `tasks`.
pub fn start(parts: Parts, daemon: bitcoind::Handle, tasks: &Tasks) -> Node {
    let network = parts.work.network;
    metrics::set_network(network.name);
    let (work_sender, work) = watch::channel(None);
    let (rates_sender, rates) = watch::channel(Arc::new(Rates::default()));
    let (solutions, solutions_found) = mpsc::channel(solution::SOLUTIONS_QUEUED_MAX);
    let tallies = Arc::<Tallies>::default();
    tasks.spawn("metrics", metrics::upkeep(parts.metrics.clone(), tasks.stop_signal()));
    tasks.spawn("stats", rates::run(tallies.clone(), rates_sender, tasks.stop_signal()));

    let (sharechain, mut owner) = parts.sharechain;
    let hashers = Arc::<Hashers>::default();
    let wiring = Wiring {
        network,
        data_dir: parts.data_dir,
        disk: parts.disk,
        daemon,
        sharechain,
        hashers: hashers.clone(),
        tasks,
    };
    let p2p = parts.p2p.map(|config| wiring.join_pool(config));
    let (sightings, sighted) = mpsc::channel(solution::peer_blocks::SIGHTINGS_QUEUED_MAX);
    let found_events = parts.merged.events.clone();
    let found = wiring.follow_blocks(sighted, found_events.clone());
    if let Some(solved) = owner.take_solved() {
        wiring.rebuild_peer_blocks(solved, p2p.as_ref(), sightings);
    }
    let merged = parts.merged;
    wiring.finish_solutions(solutions_found, merged.blocks.clone());
    // Outside the pool's network there are never peers.
    let peers = p2p.as_ref().map_or_else(|| watch::channel(Arc::default()).1, |p2p| p2p.status.clone());
    let kept = wiring.keep_gate(peers.clone(), parts.start_pool);
    let (gate_sender, gate) = watch::channel(kept.borrow().clone());
    let local = Local { rates, peers, gate };
    let snapshot = wiring.take_snapshots(&parts.work, &local, merged.status.clone());
    let traffic = p2p.as_ref().map(|p2p| p2p.traffic.clone()).unwrap_or_default();
    let graphs = wiring.draw_graphs(snapshot.clone(), local.rates.clone(), traffic);
    let pays_miners = merged.pays_miners.clone();
    let outputs = work::Outputs { work: work_sender, gate: gate_sender, pays_miners };
    wiring.publish_work(parts.work, kept, merged.work.clone(), &local, outputs);
    tasks.spawn("sharechain", owner.run(tasks.stop_signal()));

    announce::start(parts.announce, network, &found_events, tasks);
    let session = parts.stratum.session;
    let server = Server::new(parts.stratum, work.clone(), solutions.clone(), tallies.clone(), tasks.stop_signal());
    let server = Arc::new(server.trusting(parts.ports.trusted.clone()).hashing_with(hashers));
    let sources = Sources {
        metrics: parts.metrics,
        meters: server.meters().clone(),
        health: wiring.daemon.health.clone(),
        disk: wiring.disk.watch(),
        gate: local.gate,
        rates: local.rates.clone(),
        small_devices: small_devices(server.clone()),
        network,
        snapshot: snapshot.clone(),
        found: found.clone(),
        merged_found: merged.found.clone(),
        graphs,
        shares: snapshot::share::Finder::new(wiring.sharechain.clone()),
        chain: wiring.sharechain.clone(),
        p2p: p2p.clone(),
        web_static: parts.web_static,
        listeners: Listeners::default(),
        readers: parts.ports.readers(parts.stratum.limits.exempts_loopback),
        stop: tasks.stop_signal(),
    };
    wiring.serve_control(sources.clone(), &merged, parts.log);
    let is_sha256d = network.parent.pow == Pow::Sha256d;
    let mining = Mining { server, session, work: work.clone(), solutions, tallies, is_sha256d };
    parts.ports.listen(&mining, http::pages(sources), &Hosts::new(parts.web_hosts), tasks);
    let Wiring { daemon, sharechain, .. } = wiring;
    Node { daemon, work, rates: local.rates, snapshot, found, found_events, sharechain, p2p, merged }
}

/// What most parts are connected to. Each step starts one part.
struct Wiring<'a> {
    network: &'static Network,
    data_dir: DataDir,
    disk: DiskHealth,
    daemon: bitcoind::Handle,
    sharechain: chain::Handle,
    hashers: Arc<Hashers>,
    tasks: &'a Tasks,
}

/// Condition of this node, which decides on work and is shown on pages.
struct Local {
    rates: watch::Receiver<Arc<Rates>>,
    peers: watch::Receiver<Arc<Status>>,
    /// Closed as well while no work can be made.
    gate: watch::Receiver<Gate>,
}

impl Wiring<'_> {
    /// Joins the pool's network before the share chain runs, so as to receive all its events.
    fn join_pool(&self, config: peers::Config) -> peers::Handle {
        let inputs = peers::task::Inputs {
            data_dir: self.data_dir.clone(),
            disk: self.disk.clone(),
            chain: self.sharechain.clone(),
            templates: self.daemon.templates.clone(),
            heights: self.daemon.heights.known.clone(),
            best_header: self.daemon.best_header.clone(),
            news: self.daemon.news.clone(),
            hashers: self.hashers.clone(),
        };
        let (handle, network) = peers::task::new(config, inputs);
        self.tasks.spawn("p2p", network.run(self.tasks.stop_signal()));
        handle
    }

    /// Follows found blocks, also those `sighted` in peers' shares; returns their records.
    fn follow_blocks(
        &self,
        sighted: mpsc::Receiver<Sighting>,
        events: broadcast::Sender<found::Event>,
    ) -> watch::Receiver<Arc<FoundBlocks>> {
        let inputs = found::Inputs {
            chain: Arc::new(Chain::default()),
            data_dir: self.data_dir.clone(),
            disk: self.disk.clone(),
            reports: self.daemon.reports.from_the_start(),
            sightings: sighted,
            next_block: self.daemon.next_block.clone(),
            explorer: self.daemon.explorer.clone(),
            resubmitter: self.daemon.resubmitter.clone(),
            events,
        };
        found::start(self.tasks, inputs)
    }

    /// Rebuilds blocks of `solved` shares from templates and from transactions that peers sent.
    fn rebuild_peer_blocks(
        &self,
        solved: mpsc::Receiver<SolvedShare>,
        p2p: Option<&peers::Handle>,
        sightings: mpsc::Sender<Sighting>,
    ) {
        let known = p2p.map(|p2p| p2p.transactions.clone());
        let inputs = solution::peer_blocks::Inputs {
            templates: self.daemon.recent_templates.clone(),
            known: Arc::new(move |wtxid| known.as_ref()?.find(wtxid).map(|found| found.raw.clone())),
            sightings,
        };
        let peer_blocks = solution::peer_blocks::run(solved, inputs, self.daemon.blocks.clone());
        self.tasks.spawn("peers' solutions", peer_blocks);
    }

    /// Finishes `solutions`. The task ends after the last session, so that no found block or share is lost on the way
    /// out.
    fn finish_solutions(&self, solutions: mpsc::Receiver<Solution<Ticket>>, merged: MergedBlocks) {
        let outputs =
            solution::Outputs { blocks: self.daemon.blocks.clone(), merged, shares: self.sharechain.own.clone() };
        let finishing = solution::run(solutions, outputs);
        self.tasks.spawn("solutions", finishing);
    }

    /// Opens and closes the gate of work.
    fn keep_gate(&self, peers: watch::Receiver<Arc<Status>>, start_pool: bool) -> watch::Receiver<Gate> {
        let mut keeper = GateKeeper::new(self.network.persist, start_pool);
        let (gate_sender, gate) = watch::channel(keeper.decide(&PoolReadiness::default(), Instant::now()));
        let keeping = gate::keep(keeper, peers, self.sharechain.tips.clone(), gate_sender, self.tasks.stop_signal());
        self.tasks.spawn("gate", keeping);
        gate
    }

    /// Makes work of templates and tips while the gate is open.
    fn publish_work(
        &self,
        config: work::Config,
        gate: watch::Receiver<Gate>,
        merged: watch::Receiver<Arc<MergedOffers>>,
        local: &Local,
        outputs: work::Outputs,
    ) {
        let inputs = work::Inputs {
            templates: self.daemon.templates.clone(),
            tips: self.sharechain.tips.clone(),
            merged,
            gate,
            rates: local.rates.clone(),
        };
        self.tasks.spawn("work", work::publish(config, inputs, outputs, self.tasks.stop_signal()));
    }
}
