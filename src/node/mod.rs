//! The wiring diagram: builds each part, joins them with channels, starts tasks; no decisions.
//!
//! | from → to | kind | when full or late |
//! | --- | --- | --- |
//! | `bitcoind` → `work`: templates | watch | latest wins |
//! | `work` → sessions: work sets | watch | latest wins |
//! | sessions → `solution` | bounded mpsc | the session waits, its own socket feels it; never drops |
//! | `chain` → `work`: tips | watch | latest wins |
//! | `bitcoind` ⇄ `chain`: heights of blocks, and which are wanted | watch, bounded mpsc | latest wins; asked again |
//! | sessions → `rates`: tallies of what workers do | shared counters | added up every second |
//! | `solution` → `blocks::submit`: blocks | bounded mpsc | waits; never drops |
//! | `solution` → `chain`: our own shares | bounded mpsc | waits; never drops |
//! | `chain` → `solution::peer_blocks` → `blocks::submit`: peers' blocks | bounded mpsc | waits; never drops |
//! | `solution::peer_blocks` → `chain`: transactions of templates | watch | latest wins |
//! | peers → `peers`: what they did | bounded mpsc | the connection waits, its peer feels it |
//! | `peers` → peers: what to send | bounded mpsc | never waits; the slow peer is dropped |
//! | `peers` → `chain`: peers' shares, questions | bounded mpsc | waits, and with it the peers who sent them |
//! | `chain` → `peers`: what is missing | watch | latest wins |
//! | `chain` → `peers`, whoever listens: what happens on the chain | broadcast | the slow miss some |
//! | `blocks::submit` → whoever listens: reports | broadcast | the slow miss some |
//! | `blocks::submit` → `blocks::found`: reports | broadcast | looks into the journal instead |
//! | `solution::peer_blocks` → `blocks::found`: blocks that cannot be made here | bounded mpsc | drops |
//! | `blocks::found` → whoever looks: found blocks; whoever listens: what happens to them | watch, broadcast | latest wins; the slow miss some |
//! | `bitcoind` → `peers`: the best header | watch | latest wins |
//! | `peers` → `bitcoind`: somebody knows of a new block | notification | several are one |
//! | `peers` → whoever looks: status | watch | latest wins |
//! | `rates` → `view::http`, `tools::demo`: rates | watch | latest wins |
//! | `chain`, `bitcoind`, `rates`, `peers`, `work::gate` → `view::snapshot` → `view::http`, `view::control`: figures | watch | latest wins |
//! | `blocks::found` → `blocks::announce`: what happens to found blocks | broadcast | the slow miss some |
//! | `blocks::found` → `view::http`, `view::control`: found blocks | watch | latest wins |
//! | whoever writes → `runtime::disk` → `view::snapshot`, `view::http`: trouble with the disk | watch | latest wins |
//! | `work::gate` → `work`, `view::http`, `view::snapshot`: whether there may be work | watch | latest wins |

pub mod saved_payout;
pub mod service;

use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;
use sharechain::coin::{Network, Pow};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::Tallies;
use stratum::getwork::GetworkServer;
use stratum::server::{PortPolicy, Server};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::bitcoind::{Handle, daemon};
use crate::blocks::found::FoundBlocks;
use crate::blocks::{announce, found};
use crate::front::getwork::Getwork;
use crate::front::{Front, Tls};
use crate::rates::Rates;
use crate::runtime::clock::unix_now;
use crate::runtime::data_dir::DataDir;
use crate::runtime::disk::{self, DiskHealth};
use crate::runtime::log::{self, Tail};
use crate::runtime::metrics;
use crate::runtime::sockets::Port;
use crate::runtime::tasks::Tasks;
use crate::view::control;
use crate::view::graphs::{self, Graphs};
use crate::view::http::{self, Http, Listeners, SmallDevices, Sources};
use crate::view::snapshot::{self, Snapshot};
use crate::work::gate::{self, GateKeeper, PoolReadiness};
use crate::work::{Payout, WorkSet};
use crate::{bitcoind, chain, front, peers, rates, solution, work};

/// Everything about a node.
#[derive(Debug)]
pub struct Config {
    /// How to log.
    pub log: log::Config,
    /// The network mined on.
    pub network: &'static Network,
    /// The network's own folder.
    pub data_dir: PathBuf,
    /// Who is paid by default, if given.
    pub address: Option<Payout>,
    /// Percentage of jobs that pay the operator.
    pub fee_percent: f64,
    /// An old node's data folder, whose shares are taken over.
    pub old_shares: Option<PathBuf>,
    /// Percentage of payouts that goes to the author of the original.
    pub donation_percent: f64,
    /// Texts for the coinbase script.
    pub coinbase_texts: Vec<String>,
    /// Where miners and readers connect.
    pub front: front::Config,
    /// How miners are served.
    pub stratum: stratum::server::Config,
    /// The daemon.
    pub daemon: daemon::Config,
    /// How it takes part in the pool's network.
    pub p2p: peers::Config,
    /// Notifications of found blocks.
    pub announce: announce::Config,
    /// Give out work without peers and before the pool's shares are here.
    pub start_pool: bool,
    /// The RPC password stood on the command line, where others can read it.
    pub password_is_visible: bool,
}

/// How long a stopping node waits for its parts: what was found is on disk by then, and miners fail over in seconds.
pub const GRACE: Duration = Duration::from_millis(1500);

/// What a node is made of, beside the daemon.
#[derive(Debug)]
pub struct Parts {
    /// Where what is found is kept.
    pub data_dir: DataDir,
    /// Trouble with the disk.
    pub disk: DiskHealth,
    /// Whether to mine on a network that others are expected on before there is one.
    pub start_pool: bool,
    /// The ports that miners connect to, and how each serves them.
    pub miners: Vec<(Port, PortPolicy)>,
    /// The port for pages and metrics; miners' ports have them where there is none.
    pub web: Option<Port>,
    /// A folder of pages that somebody else made, served at `/static/`.
    pub web_static: Option<PathBuf>,
    /// Speaks TLS on all ports.
    pub tls: Option<Tls>,
    /// Who may pass on the connections of others.
    pub proxies: Vec<IpNet>,
    /// What is mined, and for whom.
    pub work: work::Config,
    /// How miners are served.
    pub stratum: stratum::server::Config,
    /// The share chain's owner, loaded.
    pub sharechain: (chain::Handle, chain::Owner),
    /// How to take part in the pool's network, if at all.
    pub p2p: Option<peers::Config>,
    /// Notifications of found blocks.
    pub announce: announce::Config,
    /// The last lines of the log.
    pub log: Tail,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// The daemon.
    pub daemon: Handle,
    /// What there is to mine.
    pub work: watch::Receiver<Option<Arc<WorkSet>>>,
    /// What miners do.
    pub rates: watch::Receiver<Arc<Rates>>,
    /// Found blocks, and what becomes of them.
    pub found: watch::Receiver<Arc<FoundBlocks>>,
    /// What happens to found blocks.
    pub found_events: broadcast::Sender<found::Event>,
    /// What pages and the like show.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The share chain.
    pub sharechain: chain::Handle,
    /// The pool's network, if the node takes part in it.
    pub p2p: Option<peers::Handle>,
}

/// Names and explains every metric.
pub fn describe_metrics() {
    stratum::server::metrics::describe();
    daemon::families();
    solution::describe();
    found::describe();
    rates::describe();
    snapshot::describe();
    chain::describe();
    peers::describe();
    work::describe();
    http::describe();
    disk::describe();
}

/// Loads the share chain, with the daemon as the one who knows heights. Takes a second for a full store. While `data_dir`
/// is another process's, the store is only read; it is taken over together with the directory.
///
/// # Errors
/// Its store cannot be used.
pub async fn load_sharechain(
    network: &'static Network,
    data_dir: &DataDir,
    legacy: Option<PathBuf>,
    daemon: &bitcoind::Handle,
    disk: &DiskHealth,
    tasks: &Tasks,
) -> Result<(chain::Handle, chain::Owner), chain::StartError> {
    let heights = chain::Heights { wanted: daemon.heights.wanted.clone(), known: daemon.heights.known.clone() };
    let config = chain::Config { network, data_dir: data_dir.path().to_owned(), legacy, disk: disk.clone() };
    let is_ours = data_dir.is_ours();
    let load = if is_ours { chain::load } else { chain::load_read_only };
    let loading = tokio::task::spawn_blocking(move || load(&config, heights));
    let (handle, owner) = loading.await.expect("loading does not panic")?;
    if !is_ours {
        tasks.spawn("share store", attach_store(handle.clone(), data_dir.clone(), tasks.stop_signal()));
    }
    Ok((handle, owner))
}

/// Gives the chain its store when that is ours.
async fn attach_store(sharechain: chain::Handle, data_dir: DataDir, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = data_dir.ours() => {}
    }
    if let Err(error) = sharechain.attach_store(data_dir.path()).await {
        error!(%error, "the share store cannot be taken over: shares are kept in memory only, until a restart");
    }
}

/// Joins `parts` and `daemon`, and starts everything among `tasks`.
pub fn start(parts: Parts, daemon: bitcoind::Handle, tasks: &Tasks) -> Node {
    let network = parts.work.network;
    metrics::tell_network(network.name);
    let (work_sender, work) = watch::channel(None);
    let (rates_sender, rates) = watch::channel(Arc::new(Rates::default()));
    let (solutions, solutions_found) = mpsc::channel(solution::SOLUTIONS_QUEUED_MAX);
    let tallies = Arc::<Tallies>::default();

    tasks.spawn("metrics", metrics::upkeep(parts.metrics.clone(), tasks.stop_signal()));
    tasks.spawn("stats", rates::run(tallies.clone(), rates_sender, tasks.stop_signal()));
    // Ends when the last session has, so that nothing that was found is lost on the way out.
    let (sharechain, mut owner) = parts.sharechain;
    let disk = parts.disk;
    let kept = (parts.data_dir.clone(), disk.clone());
    let p2p = parts.p2p.map(|config| join_pool(config, kept, &sharechain, &daemon, tasks));
    let (sightings, sighted) = mpsc::channel(solution::peer_blocks::SIGHTINGS_QUEUED_MAX);
    let (found_sender, found) = watch::channel(Arc::default());
    let (found_events, _) = broadcast::channel(found::EVENTS_KEPT_MAX);
    let following = found::Inputs {
        data_dir: parts.data_dir.clone(),
        disk: disk.clone(),
        reports: daemon.reports.from_the_start(),
        sightings: sighted,
        templates: daemon.templates.clone(),
        explorer: daemon.explorer.clone(),
        resubmitter: daemon.resubmitter.clone(),
    };
    let following = found::run(following, found_sender, found_events.clone(), tasks.stop_signal());
    tasks.spawn("found blocks", following);
    if let Some(solved) = owner.take_solved() {
        let known = p2p.as_ref().map(|p2p| p2p.transactions.clone());
        let inputs = solution::peer_blocks::Inputs {
            templates: daemon.templates.clone(),
            tips: sharechain.tips.clone(),
            known: Arc::new(move |wtxid| known.as_ref()?.find(wtxid).map(|found| found.raw.clone())),
            transactions: sharechain.transactions.clone(),
            sightings,
        };
        let peer_blocks = solution::peer_blocks::run(solved, inputs, daemon.blocks.clone());
        tasks.spawn("peers' solutions", peer_blocks);
    }
    tasks.spawn("solutions", solution::run(solutions_found, daemon.blocks.clone(), sharechain.own.clone()));
    // Without the pool's network there never are peers.
    let peers = p2p.as_ref().map_or_else(|| watch::channel(Arc::default()).1, |p2p| p2p.status.clone());
    let mut keeper = GateKeeper::new(network.persist, parts.start_pool);
    let (gate_sender, gate) = watch::channel(keeper.decide(&PoolReadiness::default(), Instant::now()));
    tasks.spawn("gate", gate::keep(keeper, peers.clone(), sharechain.tips.clone(), gate_sender, tasks.stop_signal()));
    let inputs = work::Inputs {
        templates: daemon.templates.clone(),
        tips: sharechain.tips.clone(),
        gate: gate.clone(),
        rates: rates.clone(),
    };
    let shown = snapshot::Config {
        network,
        payout_address: parts.work.default_payout.address.clone(),
        fee_percent: parts.work.fee_percent,
        donation_percent: parts.work.donation_percent,
    };
    let (figures_sender, snapshot) = watch::channel(Arc::new(Snapshot::new(&shown, unix_now())));
    let told = snapshot::Inputs {
        chain: sharechain.clone(),
        templates: daemon.templates.clone(),
        health: daemon.health.clone(),
        rates: rates.clone(),
        peers,
        gate: gate.clone(),
        disk: disk.watch(),
    };
    tasks.spawn("figures", snapshot::run(shown, told, figures_sender, tasks.stop_signal()));
    let graphs = Graphs::default();
    let drawn = graphs::Inputs {
        snapshot: snapshot.clone(),
        rates: rates.clone(),
        chain: sharechain.clone(),
        traffic: p2p.as_ref().map(|p2p| p2p.traffic.clone()).unwrap_or_default(),
    };
    tasks.spawn(
        "graphs",
        graphs::run(graphs.clone(), drawn, (parts.data_dir.clone(), disk.clone()), tasks.stop_signal()),
    );
    tasks.spawn("work", work::publish(parts.work, inputs, work_sender, tasks.stop_signal()));
    tasks.spawn("sharechain", owner.run(tasks.stop_signal()));

    announce::start(parts.announce, network, &found_events, tasks);
    let session = parts.stratum.session;
    let server = Server::new(parts.stratum, work.clone(), solutions.clone(), tallies.clone(), tasks.stop_signal());
    let server = Arc::new(server);
    let small_devices = SmallDevices(Arc::new({
        let server = server.clone();
        move || server.small_devices()
    }));
    let sources = Sources {
        metrics: parts.metrics,
        meters: server.meters().clone(),
        health: daemon.health.clone(),
        disk: disk.watch(),
        gate,
        rates: rates.clone(),
        small_devices,
        network,
        snapshot: snapshot.clone(),
        found: found.clone(),
        graphs: graphs.clone(),
        shares: snapshot::share::Finder::new(sharechain.clone()),
        chain: sharechain.clone(),
        p2p: p2p.clone(),
        web_static: parts.web_static,
        listeners: Listeners::default(),
        stop: tasks.stop_signal(),
    };
    let (tls, proxies) = (parts.tls, parts.proxies);
    let has_pages = parts.web.is_none();
    let front = |stratum: Option<_>, router, terms: PortPolicy| {
        let session = Arc::new(terms.session(session));
        let http = Http::new(router, tasks.stop_signal());
        let has_pages = stratum.is_none() || has_pages;
        Arc::new(Front { stratum, http, has_pages, tls: tls.clone(), proxies: proxies.clone(), session })
    };
    let is_sha256d = network.parent.pow == Pow::Sha256d;
    let asked = control::routes::Sources {
        public: sources.clone(),
        resubmitter: daemon.resubmitter.clone(),
        reports: daemon.reports.clone(),
        log: parts.log,
    };
    let control = control::server::run(control::routes::router(asked), parts.data_dir, tasks.stop_signal());
    tasks.spawn("control", control);
    let pages = http::pages(sources);
    for (port, terms) in parts.miners {
        let desk = GetworkServer::new(terms.vardiff(session.vardiff), server.extranonces().clone(), tallies.clone());
        let desk = desk.expect("there are more extranonces than ports");
        let stop = tasks.stop_signal();
        let getwork = Getwork::new(desk, is_sha256d, work.clone(), solutions.clone(), server.meters().clone(), stop);
        let mut router = Arc::new(getwork).router();
        if parts.web.is_none() {
            router = router.merge(pages.clone());
        }
        tasks.spawn("listen", front::run(port, front(Some(server.clone()), router, terms), tasks.stop_signal()));
    }
    if let Some(port) = parts.web {
        let front = front(None, pages, PortPolicy::default());
        tasks.spawn("listen for pages", front::run(port, front, tasks.stop_signal()));
    }
    Node { daemon, work, rates, snapshot, found, found_events, sharechain, p2p }
}

/// Starts the pool's network, before the share chain goes on: it is to hear everything.
fn join_pool(
    config: peers::Config,
    (data_dir, disk): (DataDir, DiskHealth),
    sharechain: &chain::Handle,
    daemon: &bitcoind::Handle,
    tasks: &Tasks,
) -> peers::Handle {
    let inputs = peers::task::Inputs {
        data_dir,
        disk,
        chain: sharechain.clone(),
        templates: daemon.templates.clone(),
        heights: daemon.heights.known.clone(),
        best_header: daemon.best_header.clone(),
        news: daemon.news.clone(),
    };
    let (handle, network) = peers::task::new(config, inputs);
    tasks.spawn("p2p", network.run(tasks.stop_signal()));
    handle
}
