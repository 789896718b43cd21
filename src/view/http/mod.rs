//! HTTP on the worker port: pages, `/api/v1`, P2Pool's JSON, `/metrics`, `/health`.

pub mod api;
mod auth;
mod body;
mod budgets;
mod connection;
mod legacy;
mod origin;
mod pages;
mod refusals;
mod server;
mod slots;
#[cfg(any(test, feature = "testkit"))]
pub mod testing;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use sharechain::coin::Network;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use stratum::printable::escaped;
use stratum::server::metrics::Meters;
use stratum::v1::session::JobTooBig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower_http::services::ServeDir;
use tower_http::set_header::SetResponseHeader;

pub use api::Listeners;
pub use auth::{Check, Checker, Login};
pub use budgets::Budgets;
pub use origin::Hosts;
pub use server::{Client, Http, describe};

use crate::bitcoind::Health;
use crate::blocks::found::FoundBlocks;
use crate::chain;
use crate::peers;
use crate::rates::Rates;
use crate::runtime::disk::Troubles;
use crate::view::graphs::Graphs;
use crate::view::snapshot::Snapshot;
use crate::view::snapshot::share::Finder;
use crate::work::Gate;

/// Snapshots and handles that answers are made from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// Submission metrics, published before the metrics are rendered.
    pub meters: Arc<Meters>,
    /// Health of the daemon.
    pub health: watch::Receiver<Health>,
    /// Failed writes to disk.
    pub disk: watch::Receiver<Arc<Troubles>>,
    /// Gate that holds work back until the node is ready.
    pub gate: watch::Receiver<Gate>,
    /// Rates of the miners.
    pub rates: watch::Receiver<Arc<Rates>>,
    /// Lists devices that are too small for their jobs.
    pub small_devices: SmallDevices,
    pub network: &'static Network,
    /// Snapshot for pages and JSON.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The pool's found blocks.
    pub found: watch::Receiver<Arc<FoundBlocks>>,
    /// Found blocks of merged chains.
    pub merged_found: watch::Receiver<Arc<FoundBlocks>>,
    /// Graphs over time.
    pub graphs: Graphs,
    /// Looks up single shares.
    pub shares: Finder,
    /// Handle to the share chain, for its events.
    pub chain: chain::Handle,
    /// Handle to the P2P task; `None` if this node takes no part in the pool's network.
    pub p2p: Option<peers::Handle>,
    /// Folder of custom pages.
    pub web_static: Option<PathBuf>,
    /// Slots for subscribers of events.
    pub listeners: Listeners,
    /// Limits of readers, and their passwords.
    pub readers: Readers,
    /// Ends event streams at a stop.
    pub stop: CancellationToken,
}

/// Limits of the readers of the public paths, and their passwords; none by default, as on the control socket.
#[derive(Debug, Clone, Default)]
pub struct Readers {
    /// Budgets for what their requests cost.
    pub budgets: Option<Budgets>,
    /// Names and passwords; without, everyone may read.
    pub login: Option<Login>,
}

impl Readers {
    /// Puts the limits and the login before `router`.
    pub(crate) fn guard<S: Clone + Send + Sync + 'static>(&self, mut router: Router<S>) -> Router<S> {
        if let Some(login) = &self.login {
            router = router.layer(middleware::from_fn_with_state(login.clone(), auth::ask));
        }
        if let Some(budgets) = &self.budgets {
            router = router.layer(middleware::from_fn_with_state(budgets.clone(), budgets::limit));
        }
        router
    }
}

/// Lists devices that most likely cannot hold the jobs they get.
#[derive(Clone)]
pub struct SmallDevices(pub Arc<dyn Fn() -> Vec<JobTooBig> + Send + Sync>);

impl fmt::Debug for SmallDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SmallDevices")
    }
}

/// Serves the files of `dir` only. Browsers revalidate each file: the folder may change at any time.
fn static_dir(dir: &std::path::Path) -> SetResponseHeader<ServeDir, HeaderValue> {
    let ask_again = HeaderValue::from_static("no-cache");
    SetResponseHeader::if_not_present(ServeDir::new(dir), header::CACHE_CONTROL, ask_again)
}

/// Returns the router of all public paths.
pub fn pages(sources: Sources) -> Router {
    let (front_page, elsewhere) = match &sources.web_static {
        // `ServeDir` serves nothing above the folder.
        Some(dir) => {
            (get(async || Redirect::temporary("/static/")), Router::new().nest_service("/static", static_dir(dir)))
        }
        None => {
            let home = || get(async || Redirect::temporary("/"));
            (
                get(pages::shell),
                Router::new().route("/static", home()).route("/static/", home()).route("/static/{*path}", home()),
            )
        }
    };
    let router = Router::new()
        .route("/", front_page)
        .merge(elsewhere)
        .merge(legacy::router())
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/address/{address}", get(pages::address))
        .merge(api::routes())
        .merge(pages::routes());
    sources.readers.guard(router).with_state(sources)
}

/// Returns one miner's page as text: hash rates of its workers over the last ten minutes, and warnings.
async fn address_text(State(sources): State<Sources>, Path(address): Path<String>) -> Response {
    let is_theirs = |name: &str| api::is_worker_of(name, &address);
    let rates = sources.rates.borrow().clone();
    let workers: Vec<String> = rates
        .workers
        .iter()
        .filter(|(name, done)| is_theirs(name) && done.hash_rate > 0.0)
        .map(|(name, done)| format!("{}  {:.0} H/s\n", escaped(name), done.hash_rate))
        .collect();
    let warnings: Vec<String> = (sources.small_devices.0)()
        .into_iter()
        .filter(|too_big| is_theirs(&too_big.worker))
        .map(|too_big| format!("warning: {}: {too_big}\n", escaped(&too_big.worker)))
        .collect();
    if workers.is_empty() && warnings.is_empty() {
        let text = "no worker of this address was active in the last ten minutes\n";
        return (StatusCode::NOT_FOUND, text).into_response();
    }
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (kind, [warnings.concat(), workers.concat()].concat()).into_response()
}

async fn metrics(State(sources): State<Sources>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    sources.meters.publish();
    (kind, crate::runtime::metrics::render(&sources.metrics)).into_response()
}

async fn health(State(sources): State<Sources>) -> Response {
    let health = sources.health.borrow().clone();
    let gate = sources.gate.borrow().clone();
    let snapshot = sources.snapshot.borrow().clone();
    let merged: Vec<_> = snapshot
        .merged
        .iter()
        .map(|chain| serde_json::json!({ "chain": chain.name, "state": chain.state, "trouble": chain.trouble }))
        .collect();
    let serving = health.last_success.is_some() && !health.gone && gate == Gate::Open;
    let status = if serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({
        "serving": serving,
        "daemon": health.version,
        "trouble": health.trouble,
        "waiting": gate.reason(),
        // Miners are served all the same: blocks and shares are sent anyway.
        "disk": sources.disk.borrow().sentences(),
        "clock": snapshot.clock,
        // Their daemons do not decide whether this node is healthy.
        "merged": merged,
        "p2p_connected": health.p2p_connected,
    });
    (status, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rates::WorkerRates;
    use crate::view::http::testing::{ask, sources};

    #[tokio::test]
    async fn the_text_of_an_address_shows_names_as_they_are_stored_and_commands_no_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let name = r"payee.host\rig\u{27}";
        let workers =
            [name, "payee.\u{1b}[2J"].map(|name| (name.into(), WorkerRates { hash_rate: 5.0, ..Default::default() }));
        let rates = Rates { workers: workers.into(), ..Rates::default() };
        let too_big = JobTooBig {
            worker: name.into(),
            device: "NerdMiner",
            user_agent: "NerdMinerV2".to_owned(),
            coinbase_bytes: 900,
            coinbase_bytes_max: 250,
        };
        let sources = Sources {
            rates: watch::channel(Arc::new(rates)).1,
            small_devices: SmallDevices(Arc::new(move || vec![too_big.clone()])),
            ..sources(folder.path())
        };
        let http = Http::new(pages(sources), CancellationToken::new());
        let answer = ask(&http, [192, 0, 2, 1], "GET /address/payee", "Accept: text/plain\r\n").await;
        assert!(answer.contains("\r\n\r\nwarning: payee.host\\rig\\u{27}: P2Pool's coinbase"), "{answer}");
        assert!(answer.contains("\npayee.host\\rig\\u{27}  5 H/s\n"), "{answer}");
        assert!(answer.contains("\npayee.\\u{1b}[2J  5 H/s\n"), "{answer}");
    }
}
