//! HTTP side of [`stratum::getwork`]: `getwork` and long polling, for miners older than Stratum.
//!
//! Paths, headers and fields are P2Pool's (protocol section 10.5), plus those that miners need (`X-Reject-Reason`, a
//! challenge for the user name). Calls are never answered with HTTP 500: cpuminer then retries forever and does not
//! fall back from `getblocktemplate` to `getwork`.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::getwork::{Ask, DATA_BYTES, GetworkServer, Handed};
use stratum::server::metrics::{self, Meters};
use stratum::{Difficulty, Epochs, Now, Solution, Work};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::runtime::clock::since_1970;
use crate::view::http::Client;

/// Maximum size of a call, in bytes: a submission has 300.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// Maximum time of a long poll. A renewed job has the newest transactions, and proxies close connections that are
/// silent for longer.
const POLL_MAX: Duration = Duration::from_secs(60);

/// Maximum number of long-polling miners remembered; beyond, the next ones may miss news and wait for more.
const POLLERS_MAX: usize = 16 * 1024;

/// Time for which a miner may roll the time of one answer, as in P2Pool.
const ROLL_NTIME: &str = "expire=100";

/// Second half of a double SHA-256's input, the same for all; miners expect it and ignore it.
const HASH1: &str = "0000000000000000000000000000000000000000000000000000000000000000\
                     0000008000000000000000000000000000000000000000000000000000010000";

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
    /// Epochs last sent to each long-polling miner.
    served: DashMap<Poller, Epochs>,
    stop: CancellationToken,
}

/// Identity of a long-polling miner: address and credentials.
type Poller = (IpAddr, Option<HeaderValue>);

impl<W: Work> Getwork<W> {
    /// Hands out jobs of `work` through `desk`, sends solutions to `solutions`, waiting while it is full, and counts in
    /// `meters`. Long polls end when `stop` is cancelled.
    pub fn new(
        desk: GetworkServer<W>,
        is_sha256d: bool,
        work: watch::Receiver<Option<Arc<W>>>,
        solutions: mpsc::Sender<Solution<W::Ticket>>,
        meters: Arc<Meters>,
        stop: CancellationToken,
    ) -> Self {
        Self { desk, is_sha256d, work, solutions, meters, served: DashMap::new(), stop }
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

/// JSON-RPC call.
#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    method: String,
    #[serde(default)]
    params: Value,
}

/// JSON-RPC answer; the id is echoed unchanged.
#[derive(Serialize)]
struct Answer<'a, R> {
    result: R,
    error: Option<Failure>,
    id: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Failure {
    code: i32,
    message: String,
}

/// Job, with its fields in the order that ASICMINER's Block Erupter Blade parses.
#[derive(Serialize)]
struct Fields {
    target: String,
    data: String,
    midstate: String,
    hash1: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    identifier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    submitold: Option<bool>,
}

/// Properties of a device, by user agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Device {
    /// ASICMINER's Blades and Cubes: they need short answers over HTTP/1.0.
    is_tiny: bool,
    /// Checks every hash itself, so any difficulty is possible.
    is_cpu: bool,
}

impl Device {
    fn of(headers: &HeaderMap) -> Self {
        let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        Self {
            is_tiny: agent.starts_with("Jephis PIC Miner") || agent.starts_with("BE Cube BTC Miner"),
            is_cpu: agent.starts_with("cpuminer"),
        }
    }
}

/// User name and password.
struct Login {
    name: String,
    password: String,
}

impl Login {
    /// Credentials of HTTP basic authentication, if any.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, encoded) = text.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (name, password) = decoded.split_once(':').unwrap_or((&decoded, ""));
        Some(Self { name: name.to_owned(), password: password.to_owned() })
    }
}

async fn call<W: Work>(
    State(getwork): State<Arc<Getwork<W>>>,
    client: Option<Extension<Client>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let device = Device::of(&headers);
    let call: Call<'_> = match serde_json::from_slice(&body) {
        Ok(call) => call,
        Err(error) => return failed(None, device, -32700, format!("not a JSON-RPC call: {error}")),
    };
    let id = call.id;
    if call.method != "getwork" {
        return failed(id, device, -32601, format!("method `{}` not found", call.method));
    }
    match call.params.get(0) {
        None => {
            let Some(login) = Login::of(&headers) else { return challenge() };
            if let Some(Extension(client)) = client {
                getwork.note(poller(client, &headers));
            }
            getwork.hand_out(id, &login, device, &headers)
        }
        // The job determines the payee: a submission without a name is judged, too.
        Some(data) => getwork.submit(id, data, device, &headers).await,
    }
}

async fn long_poll<W: Work>(
    State(getwork): State<Arc<Getwork<W>>>,
    method: Method,
    client: Option<Extension<Client>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(login) = Login::of(&headers) else { return challenge() };
    if method != Method::GET && method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    getwork.news(client.map(|Extension(client)| poller(client, &headers))).await;
    let id = serde_json::from_slice::<Call<'_>>(&body).ok().and_then(|call| call.id);
    getwork.hand_out(id, &login, Device::of(&headers), &headers)
}

fn poller(client: Client, headers: &HeaderMap) -> Poller {
    (client.0, headers.get(header::AUTHORIZATION).cloned())
}

impl<W: Work> Getwork<W> {
    fn hand_out(&self, id: Option<&RawValue>, login: &Login, device: Device, headers: &HeaderMap) -> Response {
        let Some(work) = self.work.borrow().clone() else {
            return failed(id, device, CODE_NO_WORK, "there is no work: this node is not ready".to_owned());
        };
        let easiest = (self.is_sha256d && !device.is_cpu).then(|| Difficulty::new(1.0)).flatten();
        let ask = Ask { name: &login.name, password: &login.password, draw: fastrand::u32(..), easiest };
        match self.desk.hand_out(&work, ask, now()) {
            Ok(handed) => {
                let epochs = work.epochs();
                let identifier = (epochs.stale + epochs.late + epochs.urgent).to_string();
                answered(id, fields(&handed, identifier, device), device, headers)
            }
            Err(refusal) => {
                metrics::authorized("refused");
                failed(id, device, 24, refusal.to_string())
            }
        }
    }

    async fn submit(&self, id: Option<&RawValue>, data: &Value, device: Device, headers: &HeaderMap) -> Response {
        let started = Instant::now();
        let Some(data) =
            data.as_str().filter(|data| data.len() <= 2 * DATA_BYTES).and_then(|data| hex::decode(data).ok())
        else {
            return failed(id, device, 20, format!("data is not the hex of {DATA_BYTES} bytes"));
        };
        let newest = self.work.borrow().as_ref().map(|work| work.epochs());
        let judged = self.desk.judge(newest, &data, now());
        if let Some(solution) = judged.solution {
            metrics::solution();
            self.pass_on(solution).await;
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
        if self.served.len() < POLLERS_MAX || self.served.contains_key(&poller) {
            self.served.insert(poller, epochs);
        } else {
            // Entries of miners that stopped polling would fill the map forever.
            self.served.clear();
        }
    }

    /// Waits for work that the miner has not received yet.
    async fn news(&self, poller: Option<Poller>) {
        let mut work = self.work.clone();
        let newest = work.borrow().as_ref().map(|work| work.epochs());
        let served = poller.as_ref().and_then(|poller| self.served.get(poller).map(|served| *served)).or(newest);
        let is_news = |work: &Option<Arc<W>>| {
            work.as_ref().is_some_and(|work| served.is_none_or(|served| served.drops_for(work.epochs())))
        };
        tokio::select! {
            _ = tokio::time::timeout(POLL_MAX, work.wait_for(is_news)) => {}
            () = self.stop.cancelled() => {}
        }
        if let Some(poller) = poller {
            self.note(poller);
        }
    }
}

fn fields(handed: &Handed, identifier: String, device: Device) -> Fields {
    Fields {
        target: hex::encode(handed.target),
        data: hex::encode(handed.data),
        midstate: hex::encode(handed.midstate),
        hash1: HASH1,
        identifier: (!device.is_tiny).then_some(identifier),
        submitold: (!device.is_tiny).then_some(true),
    }
}

fn answered<R: Serialize>(id: Option<&RawValue>, result: R, device: Device, headers: &HeaderMap) -> Response {
    let mut response = json(&Answer { result, error: None, id }, device);
    let given = response.headers_mut();
    given.insert("x-long-polling", HeaderValue::from_static("/long-polling"));
    given.insert("x-roll-ntime", HeaderValue::from_static(ROLL_NTIME));
    given.insert("x-is-p2pool", HeaderValue::from_static("true"));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if let Some(url) = host.and_then(|host| HeaderValue::from_str(&format!("stratum+tcp://{host}")).ok()) {
        given.insert("x-stratum", url);
    }
    response
}

fn failed(id: Option<&RawValue>, device: Device, code: i32, message: String) -> Response {
    json(&Answer { result: (), error: Some(Failure { code, message }), id }, device)
}

fn json<R: Serialize>(answer: &Answer<'_, R>, device: Device) -> Response {
    let body = serde_json::to_vec(answer).expect("plain data becomes JSON");
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    if device.is_tiny {
        *response.version_mut() = Version::HTTP_10;
    }
    response
}

/// bfgminer sends its user name only after a challenge.
fn challenge() -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"P2Pool: your address is the user name\"")];
    (StatusCode::UNAUTHORIZED, challenge, "the user name says who is paid: ADDRESS[.worker]\n").into_response()
}

fn now() -> Now {
    let unix = since_1970().as_secs();
    Now { instant: Instant::now(), unix: u32::try_from(unix).unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use stratum::mining::extranonce::Extranonces;
    use stratum::mining::midstate::Midstate;
    use stratum::mining::vardiff;
    use stratum::{JobId, JobParts, Offer, Refusal, Tallies, Worker};

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
        let desk =
            GetworkServer::new(vardiff_of_test(), Extranonces::starting_at(1), Arc::<Tallies>::default()).unwrap();
        let ask = Ask { name: "alice", password: "", draw: 0, easiest: None };
        let solved: Vec<_> = (0..2).map(|_| desk.hand_out(&Easiest, ask, now()).unwrap().data).collect();
        let (solutions, mut found) = mpsc::channel(1);
        // The source of work has closed, too.
        let (_work_sender, work) = watch::channel(None);
        let stop = CancellationToken::new();
        let getwork = Getwork::new(desk, true, work, solutions, Arc::default(), stop);
        let (device, headers) = (Device { is_tiny: false, is_cpu: true }, HeaderMap::new());
        let submit = |data: &[u8]| {
            let (getwork, data, headers) = (&getwork, Value::from(hex::encode(data)), &headers);
            async move { getwork.submit(None, &data, device, headers).await }
        };
        assert!(submit(&solved[0]).now_or_never().is_some(), "there is room for one");
        assert!(submit(&solved[1]).now_or_never().is_none(), "the next one waits, and its miner hangs up");
        for _ in 0..2 {
            let next = tokio::time::timeout(Duration::from_secs(10), found.recv());
            assert!(next.await.unwrap().is_some());
        }
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
