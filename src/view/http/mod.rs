//! HTTP on the worker port: pages, `/api/v1`, P2Pool's JSON, `/metrics`, `/health`.

pub mod api;
mod legacy;
mod pages;

use axum::Router;
use axum::extract::{MatchedPath, Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::{counter, describe_counter, describe_histogram, histogram};
use metrics_exporter_prometheus::PrometheusHandle;
use sharechain::coin::Network;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::server::admission::{Kind, Place};
use stratum::server::metrics::Meters;
use stratum::v1::session::JobTooBig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower_http::services::ServeDir;
use tower_http::set_header::SetResponseHeader;
use tracing::debug;

pub use api::Listeners;

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

/// Timeout for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of a request's head, in bytes.
const HEADER_BYTES_MAX: usize = 16 * 1024;

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
    /// Ends event streams at a stop.
    pub stop: CancellationToken,
}

/// Lists devices that most likely cannot hold the jobs they get.
#[derive(Clone)]
pub struct SmallDevices(pub Arc<dyn Fn() -> Vec<JobTooBig> + Send + Sync>);

impl fmt::Debug for SmallDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SmallDevices")
    }
}

/// Registers and describes the metrics of this module.
pub fn describe() {
    describe_counter!("http_requests_total", "Requests, by path and by class of their answer's status");
    describe_histogram!(
        "http_request_seconds",
        metrics::Unit::Seconds,
        "From a request to the beginning of its answer, by path"
    );
}

/// Time during which a stopping node still accepts requests: a polling miner may submit a block.
const LAST_REQUESTS: Duration = Duration::from_millis(100);

/// Address of the client of a request.
#[derive(Debug, Clone, Copy)]
pub struct Client(pub IpAddr);

/// HTTP server for connections of any kind.
#[derive(Debug, Clone)]
pub struct Http {
    router: Router,
    stop: CancellationToken,
}

impl Http {
    /// Serves `router`, and shuts down gracefully when `stop` is cancelled.
    pub fn new(router: Router, stop: CancellationToken) -> Self {
        Self { router: router.layer(middleware::from_fn(count)), stop }
    }

    /// Serves one connection from `client` until it ends.
    pub async fn serve<S>(&self, stream: S, client: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.serve_in(stream, client, None).await;
    }

    /// Serves one connection of a public port until it ends, or another connection needs its `place`. Requests carry
    /// the place, for a miner that polls may earn it.
    pub async fn serve_admitted<S>(&self, stream: S, place: Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        place.becomes(Kind::Http);
        let place = Arc::new(place);
        tokio::select! {
            biased;
            () = place.evicted() => debug!(client = %place.address(), "http connection closed for another"),
            () = self.serve_in(stream, place.address(), Some(place.clone())) => {}
        }
    }

    async fn serve_in<S>(&self, stream: S, client: IpAddr, place: Option<Arc<Place>>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let routes = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Client(client));
            if let Some(place) = &place {
                request.extensions_mut().insert(place.clone());
            }
            routes.call(request)
        });
        let mut connection = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(HEADER_BYTES_MAX)
                // Old miners look for `X-Long-Polling` and nothing else.
                .title_case_headers(true)
                .serve_connection(TokioIo::new(stream), service)
        );
        let last_requests = async {
            self.stop.cancelled().await;
            tokio::time::sleep(LAST_REQUESTS).await;
        };
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = last_requests => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%error, "http connection ended");
        }
    }
}

/// Returns the metrics label of a route, by its first segment: each label adds two dozen series.
fn part_of(route: Option<&str>) -> &'static str {
    let Some(route) = route else { return "other" };
    match route.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "" => "/",
        "LP" => "/LP",
        "address" => "/address",
        "api" => "/api",
        "control" => "/control",
        "health" => "/health",
        "long-polling" => "/long-polling",
        "assets" | "blocks" | "favicon.ico" | "graphs" | "miners" | "payouts" | "peers" | "share" | "sharechain" => {
            "pages"
        }
        "metrics" => "/metrics",
        "static" => "/static",
        "web" => "/web",
        _ => "json",
    }
}

/// Counts a request by its route, not by its path, which a stranger chooses.
async fn count(request: axum::extract::Request, next: Next) -> Response {
    let part = part_of(request.extensions().get::<MatchedPath>().map(MatchedPath::as_str));
    let started = Instant::now();
    let response = next.run(request).await;
    let class = match response.status().as_u16() / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    };
    histogram!("http_request_seconds", "path" => part).record(started.elapsed());
    counter!("http_requests_total", "path" => part, "status" => class).increment(1);
    response
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
    Router::new()
        .route("/", front_page)
        .merge(elsewhere)
        .merge(legacy::router())
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/address/{address}", get(pages::address))
        .merge(api::routes())
        .merge(pages::routes())
        .with_state(sources)
}

/// Returns one miner's page as text: hash rates of its workers over the last ten minutes, and warnings.
async fn address_text(State(sources): State<Sources>, Path(address): Path<String>) -> Response {
    let is_theirs = |name: &str| api::is_worker_of(name, &address);
    let rates = sources.rates.borrow().clone();
    let workers: Vec<String> = rates
        .workers
        .iter()
        .filter(|(name, done)| is_theirs(name) && done.hash_rate > 0.0)
        .map(|(name, done)| format!("{}  {:.0} H/s\n", name.escape_debug(), done.hash_rate))
        .collect();
    let warnings: Vec<String> = (sources.small_devices.0)()
        .into_iter()
        .filter(|too_big| is_theirs(&too_big.worker))
        .map(|too_big| format!("warning: {}: {too_big}\n", too_big.worker.escape_debug()))
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
    let serving = health.last_success.is_some() && !health.gone && gate == Gate::Open;
    let status = if serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({
        "serving": serving,
        "daemon": health.version,
        "trouble": health.trouble,
        "waiting": gate.reason(),
        // Miners are served all the same: blocks and shares are sent anyway.
        "disk": sources.disk.borrow().sentences(),
        "clock": sources.snapshot.borrow().clock,
        "p2p_connected": health.p2p_connected,
    });
    (status, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_is_asked_just_before_a_stop_is_still_answered() {
        let stop = CancellationToken::new();
        let http = Http::new(Router::new().route("/", get(async || "judged")), stop.clone());
        let (mut client, server) = tokio::io::duplex(4096);
        let serving = tokio::spawn(async move { http.serve(server, Ipv4Addr::LOCALHOST.into()).await });
        stop.cancel();
        // The connection sees the stop before the request arrives.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("judged"), "{answer}");
        serving.await.unwrap();
    }
}
