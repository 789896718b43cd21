//! HTTP side of [`stratum::getwork`]: `getwork` and long polling, for miners older than Stratum.
//!
//! Paths, headers and fields are P2Pool's (protocol section 10.5), plus those that miners need (`X-Reject-Reason`, a
//! challenge for the user name). Calls are never answered with HTTP 500: cpuminer then retries forever and does not
//! fall back from `getblocktemplate` to `getwork`.

mod answer;
mod pollers;
pub mod request;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use serde_json::value::RawValue;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::getwork::{Ask, DATA_BYTES, GetworkServer, Prepared};
use stratum::mining::job::{PowFunction, Unhashed};
use stratum::mining::source::Source;
use stratum::mining::token_buckets::{Allowance, TokenBuckets};
use stratum::server::Gatekeeper;
use stratum::server::admission::Place;
use stratum::server::hashing::{Hashers, Kind, Submitter};
use stratum::server::metrics::{self, Meters};
use stratum::v1::session::Credentials;
use stratum::{Credit, Difficulty, Now, Solution, StratumError, Work};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::runtime::clock::since_1970;
use crate::view::http::Client;
use answer::{Fields, answered, challenge, failed, too_many};
use pollers::{Poller, Pollers};
use request::{Call, Device, Login};

/// Maximum size of a call, in bytes: a submission has 300.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// Maximum time of a long poll. A renewed job has the newest transactions, and proxies close connections that are
/// silent for longer.
const POLL_MAX: Duration = Duration::from_secs(60);

/// Requests of one network for work, long polls and everything else that is no submission: a thousand devices that poll
/// once a second, and ten thousand that come back at once.
pub const REQUESTS: Allowance = Allowance { burst: 10_000.0, per_second: 1000.0 };

/// Submissions of one network.
pub const SUBMISSIONS: Allowance = Allowance { burst: 10_000.0, per_second: 1000.0 };

/// P2Pool's error code while there is no work.
const CODE_NO_WORK: i32 = -12345;

/// Server for polling miners.
#[derive(Debug)]
pub struct Getwork<W: Work> {
    desk: GetworkServer<W>,
    /// Set when difficulty is that of SHA-256d hardware.
    is_sha256d: bool,
    work: watch::Receiver<Option<Arc<W>>>,
    solutions: mpsc::Sender<Solution<W::Ticket>>,
    meters: Arc<Meters>,
    pollers: Pollers,
    requests: TokenBuckets,
    submissions: TokenBuckets,
    /// Threads for costly proofs of work.
    hashers: Arc<Hashers>,
    /// Check of the users that may mine; `None` if all may.
    gatekeeper: Option<Arc<dyn Gatekeeper>>,
    stop: CancellationToken,
}

impl<W: Work> Getwork<W> {
    /// Hands out jobs of `work` through `desk`, sends solutions to `solutions`, waiting while it is full, and counts in
    /// `meters`. Long polls end when `stop` is cancelled. Networks are limited to [`REQUESTS`] and [`SUBMISSIONS`], with
    /// `exempts_loopback` except for this machine, from where proxies connect.
    pub fn new(
        desk: GetworkServer<W>,
        is_sha256d: bool,
        work: watch::Receiver<Option<Arc<W>>>,
        solutions: mpsc::Sender<Solution<W::Ticket>>,
        meters: Arc<Meters>,
        exempts_loopback: bool,
        stop: CancellationToken,
    ) -> Self {
        let limit = |allowance| TokenBuckets::new(allowance, exempts_loopback);
        let (requests, submissions) = (limit(REQUESTS), limit(SUBMISSIONS));
        let (pollers, hashers, gatekeeper) = (Pollers::default(), Arc::default(), None);
        Self { desk, is_sha256d, work, solutions, meters, pollers, requests, submissions, hashers, gatekeeper, stop }
    }

    /// Has costly proofs of work computed by `hashers`, which others use as well.
    #[must_use]
    pub fn hashing_with(self, hashers: Arc<Hashers>) -> Self {
        Self { hashers, ..self }
    }

    /// Hands out work only to users that `gatekeeper` allows.
    #[must_use]
    pub fn for_users_of(self, gatekeeper: Option<Arc<dyn Gatekeeper>>) -> Self {
        Self { gatekeeper, ..self }
    }

    /// Routes for polling miners, to be merged with others.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/", post(call::<W>))
            .route("/long-polling", any(long_poll::<W>))
            .route("/LP", any(long_poll::<W>))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(self)
    }
}

/// Address of the client; a request has one unless it comes from a test.
fn address(client: Option<Extension<Client>>) -> IpAddr {
    client.map_or_else(|| Ipv4Addr::UNSPECIFIED.into(), |Extension(client)| client.0)
}

async fn call<W: Work>(
    State(getwork): State<Arc<Getwork<W>>>,
    client: Option<Extension<Client>>,
    place: Option<Extension<Arc<Place>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (client, device) = (address(client), Device::of(&headers));
    let source = Source::of(client);
    let call = Call::parse(&body);
    let id = call.as_ref().ok().and_then(|call| call.id);
    let content = call.as_ref().ok().filter(|call| call.method == "getwork").map(Call::getwork);
    let limit = match content {
        Some(request::Getwork::Submit(_)) => &getwork.submissions,
        _ => &getwork.requests,
    };
    if !limit.take(source, Instant::now()) {
        return too_many(id, device);
    }
    match (call, content) {
        (Err(error), _) => failed(None, device, -32700, format!("not a JSON-RPC call: {error}")),
        (Ok(call), None) => failed(id, device, -32601, format!("method `{}` not found", call.method)),
        (Ok(_), Some(request::Getwork::Ask)) => {
            let Some(login) = Login::of(&headers) else { return challenge() };
            if !getwork.admits(&login, client).await {
                return challenge();
            }
            getwork.note(getwork.pollers.poller(client, &headers));
            getwork.hand_out(id, &login, device, source, &headers)
        }
        // The job determines the payee: a submission without a name is judged, too.
        (Ok(_), Some(request::Getwork::Submit(data))) => {
            let place = place.as_ref().map(|Extension(place)| &**place);
            getwork.submit(id, &data, device, source, place, &headers).await
        }
        (Ok(_), Some(request::Getwork::Malformed)) => {
            failed(id, device, 20, format!("data is not the hex of {DATA_BYTES} bytes"))
        }
    }
}

async fn long_poll<W: Work>(
    State(getwork): State<Arc<Getwork<W>>>,
    method: Method,
    client: Option<Extension<Client>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (client, device) = (address(client), Device::of(&headers));
    let source = Source::of(client);
    let id = Call::parse(&body).ok().and_then(|call| call.id);
    if !getwork.requests.take(source, Instant::now()) {
        return too_many(id, device);
    }
    let Some(login) = Login::of(&headers) else { return challenge() };
    if method != Method::GET && method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    if !getwork.admits(&login, client).await {
        return challenge();
    }
    getwork.news(getwork.pollers.poller(client, &headers)).await;
    getwork.hand_out(id, &login, device, source, &headers)
}

impl<W: Work> Getwork<W> {
    /// True if the user of `login` may mine.
    async fn admits(&self, login: &Login, source: IpAddr) -> bool {
        let Some(gatekeeper) = &self.gatekeeper else { return true };
        let credentials = Credentials { name: login.name.as_str().into(), password: login.password.as_str().into() };
        let checked = gatekeeper.check(credentials, source).await;
        if checked.is_err() {
            metrics::authorized("refused");
        }
        checked.is_ok()
    }

    fn hand_out(
        &self,
        id: Option<&RawValue>,
        login: &Login,
        device: Device,
        source: Source,
        headers: &HeaderMap,
    ) -> Response {
        let Some(work) = self.work.borrow().clone() else {
            return failed(id, device, CODE_NO_WORK, "there is no work: this node is not ready".to_owned());
        };
        let easiest = (self.is_sha256d && !device.is_cpu).then(|| Difficulty::new(1.0)).flatten();
        let ask = Ask { name: &login.name, password: &login.password, source, draw: fastrand::u32(..), easiest };
        match self.desk.hand_out(&work, ask, now()) {
            Ok(handed) => {
                let epochs = work.epochs();
                let identifier = (epochs.stale + epochs.late + epochs.urgent).to_string();
                answered(id, Fields::new(&handed, identifier, device), device, headers)
            }
            Err(refusal) => {
                metrics::authorized("refused");
                failed(id, device, 24, refusal.to_string())
            }
        }
    }

    async fn submit(
        self: &Arc<Self>,
        id: Option<&RawValue>,
        data: &[u8],
        device: Device,
        source: Source,
        place: Option<&Place>,
        headers: &HeaderMap,
    ) -> Response {
        let started = Instant::now();
        let newest = self.work.borrow().as_ref().map(|work| work.epochs());
        let (verdict, credit) = match self.desk.prepare(newest, data, source, now()) {
            Err(error) => {
                self.meters.judged(error.word(), None, started.elapsed());
                (Err(error), None)
            }
            Ok(prepared) => match prepared.costly_pow() {
                None => {
                    let pow_hash = prepared.pow_hash();
                    self.conclude(prepared, Ok(pow_hash), started).await
                }
                Some(pow) => {
                    let getwork = self.clone();
                    // In a task of its own: that of the request is dropped when the miner disconnects.
                    let judging =
                        tokio::spawn(async move { getwork.hash_and_conclude(prepared, pow, source, started).await });
                    // Fails only when the node has ended.
                    judging.await.unwrap_or((Err(StratumError::Busy), None))
                }
            },
        };
        if let (Some(_), Some(place)) = (&credit, place) {
            place.credit();
        }
        let mut response = answered(id, verdict.is_ok(), device, headers);
        if let Err(error) = verdict {
            debug!(%error, "getwork submission refused");
            let reason = HeaderValue::from_str(&error.to_string());
            response
                .headers_mut()
                .extend(reason.ok().map(|reason| (HeaderName::from_static("x-reject-reason"), reason)));
        }
        response
    }

    /// Has a costly proof of work computed, the miners of a network in turn, and judges the submission.
    async fn hash_and_conclude(
        &self,
        prepared: Prepared<W::Ticket>,
        pow: PowFunction,
        source: Source,
        received: Instant,
    ) -> (Result<(), StratumError>, Option<Credit>) {
        let kind = Kind::of_submission(prepared.is_earned());
        let submitter = Submitter { source, number: self.pollers.number_of(prepared.worker()) };
        let (reply, hash) = oneshot::channel();
        self.hashers.hash(kind, submitter, *prepared.header(), pow, move |pow_hash| {
            // The receiver waits below.
            let _ = reply.send(pow_hash);
        });
        let pow_hash = hash.await.unwrap_or(Err(Unhashed));
        self.conclude(prepared, pow_hash, received).await
    }

    /// Judges a submission that was hashed, and passes it on if it is a solution.
    async fn conclude(
        &self,
        prepared: Prepared<W::Ticket>,
        pow_hash: Result<[u8; 32], Unhashed>,
        received: Instant,
    ) -> (Result<(), StratumError>, Option<Credit>) {
        let judged = self.desk.conclude(prepared, pow_hash);
        if let Some(solution) = judged.solution {
            metrics::solution();
            self.pass_on(solution).await;
        }
        let word = judged.verdict.as_ref().map_or_else(StratumError::word, |()| "accepted");
        self.meters.judged(word, judged.credit.as_ref(), received.elapsed());
        (judged.verdict, judged.credit)
    }

    /// Passes on a solution before it is answered. Waits while the node is behind, in a separate task: the task of the
    /// request is dropped when the miner disconnects.
    async fn pass_on(&self, solution: Solution<W::Ticket>) {
        // Closed only after the node has ended.
        let Err(TrySendError::Full(solution)) = self.solutions.try_send(solution) else { return };
        let solutions = self.solutions.clone();
        let _ = tokio::spawn(async move { solutions.send(solution).await }).await;
    }

    /// Records that a miner has the newest work.
    fn note(&self, poller: Poller) {
        let Some(epochs) = self.work.borrow().as_ref().map(|work| work.epochs()) else { return };
        self.pollers.note(poller, epochs);
    }

    /// Waits for work that the miner has not received yet.
    async fn news(&self, poller: Poller) {
        let mut work = self.work.clone();
        let newest = work.borrow().as_ref().map(|work| work.epochs());
        let served = self.pollers.served(poller).or(newest);
        let is_news = |work: &Option<Arc<W>>| {
            work.as_ref().is_some_and(|work| served.is_none_or(|served| served.drops_for(work.epochs())))
        };
        tokio::select! {
            _ = tokio::time::timeout(POLL_MAX, work.wait_for(is_news)) => {}
            () = self.stop.cancelled() => {}
        }
        self.note(poller);
    }
}

fn now() -> Now {
    let unix = since_1970().as_secs();
    Now { instant: Instant::now(), unix: u32::try_from(unix).unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests;
