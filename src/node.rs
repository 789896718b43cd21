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
//! | `sharechain` → `solution::of_peers` → `bitcoind::submit`: peers' blocks | bounded mpsc | waits; never drops |
//! | `solution::of_peers` → `sharechain`: transactions of templates | watch | latest wins |
//! | peers → `p2p`: what they did | bounded mpsc | the connection waits, its peer feels it |
//! | `p2p` → peers: what to send | bounded mpsc | never waits; the slow peer is dropped |
//! | `p2p` → `sharechain`: peers' shares, questions | bounded mpsc | waits, and with it the peers who sent them |
//! | `sharechain` → `p2p`: what is missing | watch | latest wins |
//! | `sharechain` → `p2p`, whoever listens: what happens on the chain | broadcast | the slow miss some |
//! | `bitcoind::submit` → whoever listens: reports | broadcast | the slow miss some |
//! | `bitcoind` → `p2p`: the best header | watch | latest wins |
//! | `p2p` → `bitcoind`: somebody knows of a new block | notification | several are one |
//! | `p2p` → whoever looks: status | watch | latest wins |
//! | `stats` → `http`, `demo`: rates | watch | latest wins |

use metrics_exporter_prometheus::PrometheusHandle;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use stratum::server::Server;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::bitcoind::{Handle, daemon};
use crate::http::{Http, Sources};
use crate::listen::Front;
use crate::stats::Rates;
use crate::tasks::Tasks;
use crate::work::WorkSet;
use crate::{bitcoind, listen, metrics, p2p, sharechain, solution, stats, work};

/// How long a stopping node waits for its parts: what was found is on disk by then, and miners fail over in seconds.
pub const GRACE: Duration = Duration::from_millis(1500);

/// What a node is made of, beside the daemon.
#[derive(Debug)]
pub struct Parts {
    /// The port that miners connect to, open already.
    pub listener: TcpListener,
    /// What is mined, and for whom.
    pub work: work::Config,
    /// How miners are served.
    pub stratum: stratum::server::Config,
    /// The share chain's owner, loaded.
    pub sharechain: (sharechain::task::Handle, sharechain::task::Owner),
    /// How to take part in the pool's network, if at all.
    pub p2p: Option<p2p::Config>,
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
    /// The pool's network, if the node takes part in it.
    pub p2p: Option<p2p::Handle>,
}

/// Names and explains every metric.
pub fn describe_metrics() {
    stratum::server::metrics::describe();
    daemon::families();
    solution::describe();
    stats::describe();
    sharechain::task::describe();
    p2p::describe();
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
    let worker_address = parts.listener.local_addr()?;
    let (work_sender, work) = watch::channel(None);
    let (rates_sender, rates) = watch::channel(Arc::new(Rates::default()));
    let (solutions, solutions_found) = mpsc::channel(solution::SOLUTIONS_QUEUED_MAX);
    let (credits, credits_given) = mpsc::channel(stats::CREDITS_QUEUED_MAX);

    tasks.spawn("metrics", metrics::upkeep(parts.metrics.clone(), tasks.stop_signal()));
    tasks.spawn("stats", stats::run(credits_given, rates_sender, tasks.stop_signal()));
    // Ends when the last session has, so that nothing that was found is lost on the way out.
    let (sharechain, mut owner) = parts.sharechain;
    let p2p = parts.p2p.map(|config| join_pool(config, &sharechain, &daemon, tasks));
    if let Some(solved) = owner.take_solved() {
        let of_peers = p2p.as_ref().map(|p2p| p2p.transactions.clone());
        let inputs = solution::of_peers::Inputs {
            templates: daemon.templates.clone(),
            tips: sharechain.tips.clone(),
            // No peers, no transactions of theirs.
            known: Arc::new(move |hash| Some(of_peers.as_ref()?.find(hash)?.raw.clone())),
            transactions: sharechain.transactions.clone(),
        };
        let of_peers = solution::of_peers::run(solved, inputs, daemon.blocks.clone());
        tasks.spawn("peers' solutions", of_peers);
    }
    tasks.spawn("solutions", solution::run(solutions_found, daemon.blocks.clone(), sharechain.own.clone()));
    let inputs =
        work::Inputs { templates: daemon.templates.clone(), tips: sharechain.tips.clone(), rates: rates.clone() };
    tasks.spawn("work", work::publish(parts.work, inputs, work_sender, tasks.stop_signal()));
    tasks.spawn("sharechain", owner.run(tasks.stop_signal()));

    let sources =
        Sources { metrics: parts.metrics, health: daemon.health.clone(), rates: rates.clone(), network: network.name };
    let front = Front {
        stratum: Server::new(parts.stratum, work.clone(), solutions, credits, tasks.stop_signal()),
        http: Http::new(sources, tasks.stop_signal()),
    };
    tasks.spawn("listen", listen::run(parts.listener, Arc::new(front), tasks.stop_signal()));
    Ok(Node { daemon, worker_address, work, rates, sharechain, p2p })
}

/// Starts the pool's network, before the share chain goes on: it is to hear everything.
fn join_pool(
    config: p2p::Config,
    sharechain: &sharechain::task::Handle,
    daemon: &bitcoind::Handle,
    tasks: &Tasks,
) -> p2p::Handle {
    let inputs = p2p::task::Inputs {
        chain: sharechain.clone(),
        templates: daemon.templates.clone(),
        heights: daemon.heights.known.clone(),
        best_header: daemon.best_header.clone(),
        news: daemon.news.clone(),
    };
    let (handle, network) = p2p::task::new(config, inputs);
    tasks.spawn("p2p", network.run(tasks.stop_signal()));
    handle
}
