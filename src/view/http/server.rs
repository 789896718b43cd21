//! Connections of HTTP, and what holds for every request on them.

use axum::Router;
use axum::extract::MatchedPath;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::{counter, describe_counter, describe_histogram, histogram};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::mining::source::Source;
use stratum::server::admission::{Kind, Place};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::body;
use super::connection::{ANSWER_BYTES_MAX, Connection, Hangup, PacedStream};
use super::origin::{self, Hosts};
use super::refusals::{self, Refused};
use super::slots::Slots;

/// Maximum time until the head of the first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time from an answer to the head of the next request, which includes sending an answer that is in memory.
const NEXT_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum size of a request's head, in bytes.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Time during which a stopping node still accepts requests: a polling miner may submit a block.
const LAST_REQUESTS: Duration = Duration::from_millis(100);

/// Registers and describes the metrics of this module.
pub fn describe() {
    describe_counter!("http_requests_total", "Requests, by path and by class of their answer's status");
    describe_histogram!(
        "http_request_seconds",
        metrics::Unit::Seconds,
        "From a request to the beginning of its answer, by path"
    );
    refusals::describe();
}

/// Address of the client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client(pub IpAddr);

impl Client {
    /// Network whose limits the client shares.
    pub(super) fn network(self) -> Source {
        Source::of(self.0)
    }
}

/// HTTP server for connections of any kind.
#[derive(Debug, Clone)]
pub struct Http {
    router: Router,
    /// Slots for large answers of all connections.
    answers: Slots,
    stop: CancellationToken,
}

impl Http {
    /// Serves `router`, and shuts down gracefully when `stop` is cancelled. Browsers may change something at addresses
    /// and at this machine's own names.
    pub fn new(router: Router, stop: CancellationToken) -> Self {
        Self::at(Hosts::default(), router, stop)
    }

    /// Same as [`Self::new`], with the names at which browsers may change something.
    pub fn at(hosts: Hosts, router: Router, stop: CancellationToken) -> Self {
        let router = router
            .layer(middleware::from_fn(body::read_whole))
            .layer(middleware::from_fn_with_state(hosts, origin::check))
            .layer(middleware::from_fn(count));
        Self { router, answers: Slots::new(ANSWER_BYTES_MAX), stop }
    }

    /// Serves one connection from `client` until it ends, or until the client is too slow: in sending a request, in
    /// sending the next one, or in taking an answer.
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
            () = place.evicted() => {
                Refused::Evicted.count();
                debug!(client = %place.address(), "http connection closed for another");
            }
            () = self.serve_in(stream, place.address(), Some(place.clone())) => {}
        }
    }

    async fn serve_in<S>(&self, stream: S, client: IpAddr, place: Option<Arc<Place>>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Arc::new(Connection::new(Client(client), self.answers.clone()));
        let ended = tokio::select! {
            biased;
            served = self.serve_requests(PacedStream::new(stream, connection.clone()), connection.clone(), place) => {
                served.map_err(|error| error.to_string())
            }
            () = connection.silent_for(FIRST_REQUEST_TIMEOUT) => {
                Refused::Slow.count();
                Err("no request in time".to_owned())
            }
            () = connection.end.cancelled() => {
                Refused::Evicted.count();
                Err("its slot was given to another client".to_owned())
            }
        };
        if let Err(error) = ended {
            debug!(%client, %error, "http connection ended");
        }
    }

    async fn serve_requests<S>(
        &self,
        stream: PacedStream<S>,
        connection: Arc<Connection>,
        place: Option<Arc<Place>>,
    ) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let routes = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            connection.on_request();
            request.extensions_mut().insert(connection.client);
            if let Some(place) = &place {
                request.extensions_mut().insert(place.clone());
            }
            request.extensions_mut().insert(Hangup(connection.end.clone()));
            let (answering, connection) = (routes.call(request), connection.clone());
            async move { answering.await.inspect(|answer| connection.on_answer(answer.body())) }
        });
        let mut connection = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(NEXT_REQUEST_TIMEOUT)
                .max_buf_size(HEADER_BYTES_MAX)
                // Old miners look for `X-Long-Polling` and nothing else.
                .title_case_headers(true)
                .serve_connection(TokioIo::new(stream), service)
        );
        let last_requests = async {
            self.stop.cancelled().await;
            tokio::time::sleep(LAST_REQUESTS).await;
        };
        tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = last_requests => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
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
    let mut response = next.run(request).await;
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        // Reading the next request of this client to refuse it costs about as much as answering it would.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
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

#[cfg(test)]
mod attacks;

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_client_that_asks_too_much_has_to_connect_again() {
        let router = Router::new()
            .route("/", get(async || "page"))
            .route("/refused", get(async || (StatusCode::TOO_MANY_REQUESTS, "later")));
        let http = Http::new(router, CancellationToken::new());
        let (mut client, server) = tokio::io::duplex(4096);
        tokio::spawn(async move { http.serve(server, Ipv4Addr::LOCALHOST.into()).await });
        for path in ["/", "/refused", "/"] {
            client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        }
        let mut answers = String::new();
        client.read_to_string(&mut answers).await.unwrap();
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 2, "{answers}");
        let (page, refusal) = answers.split_once("HTTP/1.1 429").unwrap();
        assert!(!page.to_lowercase().contains("connection: close"), "{page}");
        assert!(refusal.to_lowercase().contains("connection: close"), "{refusal}");
        assert!(refusal.ends_with("later"), "{refusal}");
    }

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
