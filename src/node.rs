//! The wiring diagram: builds each part, joins them with channels, starts tasks; no decisions.
//!
//! | from → to | kind | when full or late |
//! | --- | --- | --- |
//! | `bitcoind` → `work`: templates | watch | latest wins |
//! | `work` → sessions: work sets | watch | latest wins |
//! | sessions → `solution` | bounded mpsc | the session waits, its own socket feels it; never drops |
//! | `sharechain` → `work`: tips | watch | latest wins |
//! | `bitcoind` ⇄ `sharechain`: heights of blocks, and which are wanted | watch, bounded mpsc | latest wins; asked again |
//! | sessions → `stats`: credits | bounded mpsc | drops, and counts the drops |
//! | `solution` → `bitcoind::submit`: blocks | bounded mpsc | waits; never drops |
//! | `solution` → `sharechain`: our own shares | bounded mpsc | waits; never drops |
//! | `sharechain` → whoever listens: what happens on the chain | broadcast | the slow miss some |
//! | `bitcoind::submit` → whoever listens: reports | broadcast | the slow miss some |
//! | `stats` → `http`, `demo`: rates | watch | latest wins |

use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use stratum::getwork::Desk;
use stratum::server::{Port, Server};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::bitcoind::{Handle, daemon};
use crate::getwork::Getwork;
use crate::http::{self, Http, Sources};
use crate::listen::{Front, Tls};
use crate::network::Pow;
use crate::stats::Rates;
use crate::tasks::Tasks;
use crate::work::WorkSet;
use crate::{bitcoind, listen, metrics, sharechain, solution, stats, work};

/// How long a stopping node waits for its parts: what was found is on disk by then, and miners fail over in seconds.
pub const GRACE: Duration = Duration::from_millis(1500);

/// What a node is made of, beside the daemon.
#[derive(Debug)]
pub struct Parts {
    /// The ports that miners connect to, open already, the main one first.
    pub miners: Vec<(TcpListener, Port)>,
    /// The port for pages and metrics; miners' ports have them where there is none.
    pub web: Option<TcpListener>,
    /// Speaks TLS on all ports.
    pub tls: Option<Tls>,
    /// Who may pass on the connections of others.
    pub proxies: Vec<IpNet>,
    /// What is mined, and for whom.
    pub work: work::Config,
    /// How miners are served.
    pub stratum: stratum::server::Config,
    /// The share chain's owner, loaded.
    pub sharechain: (sharechain::task::Handle, sharechain::task::Owner),
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// The daemon.
    pub daemon: Handle,
    /// Where miners connect.
    pub worker_address: SocketAddr,
    /// What there is to mine.
    pub work: watch::Receiver<Option<Arc<WorkSet>>>,
    /// What miners do.
    pub rates: watch::Receiver<Arc<Rates>>,
    /// The share chain.
    pub sharechain: sharechain::task::Handle,
}

/// Names and explains every metric.
pub fn describe_metrics() {
    stratum::server::metrics::describe();
    daemon::families();
    solution::describe();
    stats::describe();
    sharechain::task::describe();
}

/// Loads the share chain, with the daemon as the one who knows heights. Takes a second for a full store.
///
/// # Errors
/// Its store cannot be used.
pub async fn load_sharechain(
    config: sharechain::task::Config,
    daemon: &bitcoind::Handle,
) -> Result<(sharechain::task::Handle, sharechain::task::Owner), sharechain::task::StartError> {
    let heights =
        sharechain::task::Heights { wanted: daemon.heights.wanted.clone(), known: daemon.heights.known.clone() };
    let loading = tokio::task::spawn_blocking(move || sharechain::task::load(&config, heights));
    loading.await.expect("loading does not panic")
}

/// Joins `parts` and `daemon`, and starts everything among `tasks`.
///
/// # Errors
/// The listener has no address.
pub fn start(parts: Parts, daemon: bitcoind::Handle, tasks: &Tasks) -> std::io::Result<Node> {
    let network = parts.work.network;
    let worker_address = parts.miners.first().ok_or(io::ErrorKind::InvalidInput)?.0.local_addr()?;
    let (work_sender, work) = watch::channel(None);
    let (rates_sender, rates) = watch::channel(Arc::new(Rates::default()));
    let (solutions, solutions_found) = mpsc::channel(solution::SOLUTIONS_QUEUED_MAX);
    let (credits, credits_given) = mpsc::channel(stats::CREDITS_QUEUED_MAX);

    tasks.spawn("metrics", metrics::upkeep(parts.metrics.clone(), tasks.stop_signal()));
    tasks.spawn("stats", stats::run(credits_given, rates_sender, tasks.stop_signal()));
    // Ends when the last session has, so that nothing that was found is lost on the way out.
    let (sharechain, owner) = parts.sharechain;
    tasks.spawn("solutions", solution::run(solutions_found, daemon.blocks.clone(), sharechain.own.clone()));
    let inputs =
        work::Inputs { templates: daemon.templates.clone(), tips: sharechain.tips.clone(), rates: rates.clone() };
    tasks.spawn("work", work::publish(parts.work, inputs, work_sender, tasks.stop_signal()));
    tasks.spawn("sharechain", owner.run(tasks.stop_signal()));

    let sources =
        Sources { metrics: parts.metrics, health: daemon.health.clone(), rates: rates.clone(), network: network.name };
    let vardiff = parts.stratum.session.vardiff;
    let server =
        Arc::new(Server::new(parts.stratum, work.clone(), solutions.clone(), credits.clone(), tasks.stop_signal()));
    let (tls, proxies) = (parts.tls, parts.proxies);
    let front = |stratum, router, port| {
        let http = Http::new(router, tasks.stop_signal());
        Arc::new(Front { stratum, http, tls: tls.clone(), proxies: proxies.clone(), port })
    };
    let is_sha256d = network.parent.pow == Pow::Sha256d;
    let pages = http::pages(sources);
    for (listener, port) in parts.miners {
        let desk = Desk::new(port.vardiff(vardiff), server.extranonces().clone());
        let desk = desk.ok_or_else(|| io::Error::other("no extranonce is free"))?;
        let stop = tasks.stop_signal();
        let getwork = Getwork::new(desk, is_sha256d, work.clone(), solutions.clone(), credits.clone(), stop);
        let mut router = Arc::new(getwork).router();
        if parts.web.is_none() {
            router = router.merge(pages.clone());
        }
        tasks.spawn("listen", listen::run(listener, front(Some(server.clone()), router, port), tasks.stop_signal()));
    }
    if let Some(listener) = parts.web {
        let front = front(None, pages, Port::default());
        tasks.spawn("listen for pages", listen::run(listener, front, tasks.stop_signal()));
    }
    Ok(Node { daemon, worker_address, work, rates, sharechain })
}
