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
use stratum::getwork::{Ask, DATA_BYTES, GetworkServer};
use stratum::mining::source::Source;
use stratum::mining::token_buckets::{Allowance, TokenBuckets};
use stratum::server::Gatekeeper;
use stratum::server::admission::Place;
use stratum::server::metrics::{self, Meters};
use stratum::v1::session::Credentials;
use stratum::{Difficulty, Now, Solution, Work};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
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
        let (pollers, gatekeeper) = (Pollers::default(), None);
        Self { desk, is_sha256d, work, solutions, meters, pollers, requests, submissions, gatekeeper, stop }
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
        &self,
        id: Option<&RawValue>,
        data: &[u8],
        device: Device,
        source: Source,
        place: Option<&Place>,
        headers: &HeaderMap,
    ) -> Response {
        let started = Instant::now();
        let newest = self.work.borrow().as_ref().map(|work| work.epochs());
        let judged = self.desk.judge(newest, data, source, now());
        if let Some(solution) = judged.solution {
            metrics::solution();
            self.pass_on(solution).await;
        }
        if let (Some(_), Some(place)) = (&judged.credit, place) {
            place.credit();
        }
        let verdict = judged.verdict.as_ref().map_or_else(stratum::StratumError::word, |()| "accepted");
        self.meters.judged(verdict, judged.credit.as_ref(), started.elapsed());
        let mut response = answered(id, judged.verdict.is_ok(), device, headers);
        if let Err(error) = judged.verdict {
            debug!(%error, "getwork submission refused");
            let reason = HeaderValue::from_str(&error.to_string());
            response
                .headers_mut()
                .extend(reason.ok().map(|reason| (HeaderName::from_static("x-reject-reason"), reason)));
        }
        response
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
mod tests {
    use super::*;
    use axum::http::header;
    use futures::FutureExt;
    use stratum::mining::extranonce::Extranonces;
    use stratum::mining::midstate::Midstate;
    use stratum::mining::vardiff;
    use stratum::server::admission::{Admission, Limits};
    use stratum::{Epochs, JobId, JobParts, Offer, Refusal, Tallies, Worker};

    const DEVICE: Device = Device { is_tiny: false, is_cpu: true };

    /// Work whose every hash is a solution.
    #[derive(Debug)]
    struct Easiest;

    impl Work for Easiest {
        type Payout = String;
        type Ticket = ();

        fn authorize(&self, name: &str, _password: &str) -> Result<Worker<String>, Refusal> {
            Ok(Worker { name: name.into(), payout: name.to_owned(), difficulty: None, notice: None })
        }

        fn offer(&self, _payout: &String, _generation: u32, _draw: u32) -> Result<Offer<()>, Refusal> {
            let parts = JobParts {
                id: JobId(1),
                coinbase_head: &[],
                coinbase_midstate: Midstate::new(&[]),
                coinbase_tail: &[0; 4],
                branch: &[],
                version: 0x2000_0000,
                previous_block: [9; 32],
                bits: 0x207f_ffff,
                time: now().unix,
                time_min: now().unix - 600,
                solution_target: stratum::Target::from_le_bytes([0xff; 32]),
                pow: stratum::mining::job::sha256d,
            };
            Ok(Offer::new(&parts, ()))
        }

        fn epochs(&self) -> Epochs {
            Epochs::default()
        }
    }

    #[tokio::test]
    async fn a_solution_is_not_lost_with_a_miner_that_hangs_up_while_the_node_is_behind() {
        let desk = GetworkServer::new(vardiff_of_test(), Extranonces::starting_at(1), Arc::<Tallies>::default(), true)
            .unwrap();
        let source = Source::of(Ipv4Addr::LOCALHOST.into());
        let ask = Ask { name: "alice", password: "", source, draw: 0, easiest: None };
        let solved: Vec<_> = (0..2).map(|_| desk.hand_out(&Easiest, ask, now()).unwrap().data).collect();
        let (solutions, mut found) = mpsc::channel(1);
        // The source of work has closed, too.
        let (_work_sender, work) = watch::channel(None);
        let stop = CancellationToken::new();
        let getwork = Getwork::new(desk, true, work, solutions, Arc::default(), true, stop);
        let (device, headers) = (DEVICE, HeaderMap::new());
        let submit = |data: &[u8]| {
            let (getwork, data, headers) = (&getwork, data.to_vec(), &headers);
            async move { getwork.submit(None, &data, device, source, None, headers).await }
        };
        assert!(submit(&solved[0]).now_or_never().is_some(), "there is room for one");
        assert!(submit(&solved[1]).now_or_never().is_none(), "the next one waits, and its miner hangs up");
        for _ in 0..2 {
            let next = tokio::time::timeout(Duration::from_secs(10), found.recv());
            assert!(next.await.unwrap().is_some());
        }
    }

    #[tokio::test]
    async fn a_credited_submission_earns_its_connections_place() {
        let admission =
            Admission::new(Limits { connections_max: 1, ..Limits::default() }, Vec::new(), CancellationToken::new());
        let place = admission.enter([192, 0, 2, 1].into()).unwrap();
        let getwork = stopping(true);
        let source = Source::of([192, 0, 2, 1].into());
        let ask = Ask { name: "alice", password: "", source, draw: 0, easiest: None };
        getwork.submit(None, &[0; DATA_BYTES], DEVICE, source, Some(&place), &HeaderMap::new()).await;
        assert!(admission.enter([192, 0, 2, 2].into()).is_ok() && place.is_evicted(), "nothing was credited");
        drop(place);
        let place = admission.enter([192, 0, 2, 1].into()).unwrap();
        let data = getwork.desk.hand_out(&Easiest, ask, now()).unwrap().data;
        getwork.submit(None, &data, DEVICE, source, Some(&place), &HeaderMap::new()).await;
        assert!(admission.enter([192, 0, 2, 2].into()).is_err());
    }

    fn client(address: [u8; 4]) -> Option<Extension<Client>> {
        Some(Extension(Client(address.into())))
    }

    /// Server of a node that is about to stop: long polls are answered at once.
    fn stopping(exempts_loopback: bool) -> Arc<Getwork<Easiest>> {
        let extranonces = Extranonces::starting_at(1);
        let desk = GetworkServer::new(vardiff_of_test(), extranonces, Arc::default(), exempts_loopback).unwrap();
        let (solutions, _) = mpsc::channel(1);
        let (_, work) = watch::channel(Some(Arc::new(Easiest)));
        let stop = CancellationToken::new();
        stop.cancel();
        Arc::new(Getwork::new(desk, true, work, solutions, Arc::default(), exempts_loopback, stop))
    }

    async fn ask(getwork: &Arc<Getwork<Easiest>>, address: [u8; 4], body: &'static str) -> StatusCode {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Basic YWxpY2U6eA=="))]);
        call(State(getwork.clone()), client(address), None, headers, Bytes::from_static(body.as_bytes())).await.status()
    }

    async fn poll(getwork: &Arc<Getwork<Easiest>>, address: [u8; 4]) -> StatusCode {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Basic YWxpY2U6eA=="))]);
        long_poll(State(getwork.clone()), Method::GET, client(address), headers, Bytes::new()).await.status()
    }

    const ASK: &str = r#"{"method":"getwork","params":[],"id":0}"#;
    const SUBMIT: &str = r#"{"method":"getwork","params":["00"],"id":0}"#;

    #[tokio::test]
    async fn a_network_above_its_limit_is_told_so_and_others_are_served() {
        let getwork = stopping(true);
        // Whatever it asks: for work, for nothing known, or as long polls.
        for round in 0..10_000 {
            let status = match round % 4 {
                0 => ask(&getwork, [192, 0, 2, 1], ASK).await,
                1 => ask(&getwork, [192, 0, 2, 2], "{").await,
                2 => ask(&getwork, [192, 0, 2, 3], r#"{"method":"getblocktemplate"}"#).await,
                _ => poll(&getwork, [192, 0, 2, 4]).await,
            };
            assert_eq!(status, StatusCode::OK);
        }
        let mut refused = 0;
        while ask(&getwork, [192, 0, 2, 5], ASK).await == StatusCode::OK {
            refused += 1;
            assert!(refused < 1_000_000, "the limit is reached");
        }
        // Submissions have a limit of their own, so that a block is not lost to a poll too many.
        assert_eq!(ask(&getwork, [192, 0, 2, 5], SUBMIT).await, StatusCode::OK);
        assert_eq!(
            [ask(&getwork, [198, 51, 100, 1], ASK).await, poll(&getwork, [198, 51, 100, 1]).await],
            [StatusCode::OK; 2]
        );
    }

    #[tokio::test]
    async fn submissions_of_a_network_are_limited_and_the_answer_says_so_to_man_and_machine() {
        let getwork = stopping(true);
        let mut allowed = 0;
        while ask(&getwork, [192, 0, 2, 1], SUBMIT).await == StatusCode::OK {
            allowed += 1;
            assert!(allowed < 1_000_000, "the limit is reached");
        }
        assert!(allowed >= 10_000);
        let response = loop {
            let body = Bytes::from_static(SUBMIT.as_bytes());
            let response = call(State(getwork.clone()), client([192, 0, 2, 1]), None, HeaderMap::new(), body).await;
            if response.status() != StatusCode::OK {
                break response;
            }
        };
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&0.into(), &(-32005).into()));
        assert!(answer["error"]["message"].as_str().unwrap().contains("poll less often"));
    }

    #[tokio::test]
    async fn this_machine_is_limited_only_if_wanted() {
        let status_after_many = async |exempts_loopback| {
            let getwork = stopping(exempts_loopback);
            for _ in 0..50_000 {
                let status = ask(&getwork, [127, 0, 0, 1], "{").await;
                if status != StatusCode::OK {
                    return status;
                }
            }
            StatusCode::OK
        };
        assert_eq!(status_after_many(true).await, StatusCode::OK);
        assert_eq!(status_after_many(false).await, StatusCode::TOO_MANY_REQUESTS);
    }

    fn vardiff_of_test() -> stratum::mining::vardiff::Config {
        let difficulty = |value| Difficulty::new(value).unwrap();
        vardiff::Config {
            interval: Duration::from_secs(3),
            start: difficulty(1.0),
            min: difficulty(1e-9),
            max: difficulty(1e9),
        }
    }
}
