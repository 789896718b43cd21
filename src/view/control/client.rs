//! Client of the control socket: sends requests over HTTP, and prints the answers.

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request as HttpRequest, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::words::printable;
use super::{BanOrder, Request, old_node, socket_path, table, with_short_path};
use crate::view::http::api::{LIMIT_MAX, Problem};

/// Timeout for the node's answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Maximum size of an answer, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Maximum number of found blocks requested.
const BLOCKS_LISTED_MAX: usize = 500;

/// A request to a node, and the output format.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The node's data directory for its network.
    pub data_dir: PathBuf,
    pub request: Request,
    /// Set to print JSON instead of text.
    pub json: bool,
}

/// Reason why there is no answer.
#[derive(Debug, Error)]
pub enum ControlError {
    /// No process listens there.
    #[error("no p2pool runs on {0}: start one (`p2pool --help`), or give the --datadir and --net of the running node")]
    NotRunning(String),
    /// The node is another user's.
    #[error("the node on {0} listens only to the user that runs it: ask as that user")]
    NotAllowed(String),
    #[error("the connection to the node on {0} failed: {1}")]
    Connection(String, io::Error),
    /// The node did not answer in time.
    #[error("the node on {0} does not answer within {ANSWER_MAX:?}")]
    Silent(String),
    /// The node refused.
    #[error("{0}")]
    Refused(String),
    /// The answer does not parse.
    #[error(
        "the node on {0} has another version, and its answer another form ({1}): use the p2pool that the node runs"
    )]
    Unreadable(String, serde_json::Error),
}

/// Sends the request, and returns the text to print.
///
/// # Errors
/// No answer, or a refusal.
pub async fn run(config: &Config, now: f64) -> Result<String, ControlError> {
    let answer = ask(&config.data_dir, &config.request).await?;
    if config.json {
        return Ok(format!("{answer:#}\n"));
    }
    let unreadable = |error| ControlError::Unreadable(config.data_dir.display().to_string(), error);
    let text = table::render(&config.request, answer, now).map_err(unreadable)?;
    Ok(match config.request {
        // `/api/v1/blocks` has the pool's blocks only. An older node knows no others.
        Request::Blocks => match ask_for(&config.data_dir, &Request::Merged).await {
            Ok(merged) => text + &table::merged_section(&merged, now),
            Err(_) => text,
        },
        _ => text,
    })
}

/// Same as [`ask`], with the answer parsed.
///
/// # Errors
/// No answer, a refusal, or an answer that does not parse as `T`.
pub async fn ask_for<T: DeserializeOwned>(data_dir: &Path, request: &Request) -> Result<T, ControlError> {
    let answer = ask(data_dir, request).await?;
    serde_json::from_value(answer).map_err(|error| ControlError::Unreadable(data_dir.display().to_string(), error))
}

/// Sends one request to the node on `data_dir`, and returns its answer. During an upgrade in place that node may be an
/// older version without HTTP.
///
/// # Errors
/// No answer, or a refusal.
pub async fn ask(data_dir: &Path, request: &Request) -> Result<Value, ControlError> {
    let place = data_dir.display().to_string();
    let broken = |error| ControlError::Connection(place.clone(), error);
    let exchange = async {
        match exchange(connect(data_dir)?, http_request(request)).await {
            Ok((status, body)) => read(status, &body),
            Err(Broken::Body(error)) => Err(broken(error)),
            Err(Broken::NoHttp(error)) => match old_node::ask(connect(data_dir)?, request).await {
                Ok(answer) => answer.map_err(|reason| ControlError::Refused(printable(&reason))),
                // It speaks neither protocol, or has exited: the first error says which.
                Err(_) => Err(broken(io::Error::other(error))),
            },
        }
    };
    timeout(ANSWER_MAX, exchange).await.unwrap_or_else(|_| Err(ControlError::Silent(place.clone())))
}

/// Connects to the socket of the node on `data_dir`.
fn connect(data_dir: &Path) -> Result<UnixStream, ControlError> {
    let place = || data_dir.display().to_string();
    // Blocking, but a local socket connects at once or not at all.
    let connected = with_short_path(&socket_path(data_dir), |path| std::os::unix::net::UnixStream::connect(path));
    let stream = connected.and_then(|stream| {
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    });
    stream.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NotRunning(place()),
        io::ErrorKind::PermissionDenied => ControlError::NotAllowed(place()),
        _ => ControlError::Connection(place(), error),
    })
}

/// Encodes the request for HTTP.
fn http_request(request: &Request) -> HttpRequest<Body> {
    let (method, path, body) = match request {
        Request::Status => (Method::GET, "/control/v1/status".to_owned(), None),
        Request::Overview => (Method::GET, "/control/v1/overview".to_owned(), None),
        Request::Payouts => (Method::GET, format!("/api/v1/payouts?limit={LIMIT_MAX}"), None),
        Request::Blocks => (Method::GET, format!("/api/v1/blocks?limit={BLOCKS_LISTED_MAX}"), None),
        Request::Merged => (Method::GET, format!("/api/v1/merged?limit={BLOCKS_LISTED_MAX}"), None),
        Request::Resubmit { hash } => (Method::POST, format!("/control/v1/blocks/{hash}/resubmit"), None),
        Request::Peers => (Method::GET, "/control/v1/peers".to_owned(), None),
        Request::Bans => (Method::GET, "/control/v1/bans".to_owned(), None),
        Request::Ban { address, hours, reason } => {
            let order = BanOrder { address: *address, hours: *hours, reason: reason.clone() };
            (Method::POST, "/control/v1/bans".to_owned(), Some(order))
        }
        Request::Unban { address } => (Method::DELETE, format!("/control/v1/bans/{address}"), None),
        Request::UnbanAll => (Method::DELETE, "/control/v1/bans".to_owned(), None),
    };
    let body =
        body.map_or_else(Body::empty, |order| Body::from(serde_json::to_vec(&order).expect("an order is plain data")));
    HttpRequest::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .expect("paths of numbers and words")
}

/// Failure of an exchange.
#[derive(Debug)]
enum Broken {
    /// The answer was not HTTP.
    NoHttp(hyper::Error),
    /// The answer's body is too long, or did not arrive.
    Body(io::Error),
}

/// Sends one request, and receives its answer.
async fn exchange(stream: UnixStream, request: HttpRequest<Body>) -> Result<(StatusCode, Vec<u8>), Broken> {
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Broken::NoHttp)?;
    // The connection ends when `requests` is dropped.
    let answer = async move {
        let response = requests.send_request(request).await.map_err(Broken::NoHttp)?;
        let status = response.status();
        let body = to_bytes(Body::new(response.into_body()), ANSWER_BYTES_MAX).await;
        body.map(|body| (status, body.to_vec())).map_err(|error| Broken::Body(io::Error::other(error)))
    };
    tokio::join!(answer, connection).0
}

/// Parses the answer, or the reason of a refusal.
fn read(status: StatusCode, body: &[u8]) -> Result<Value, ControlError> {
    if status.is_success()
        && let Ok(answer) = serde_json::from_slice(body)
    {
        return Ok(answer);
    }
    let reason = match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => printable(&problem.detail),
        Err(_) => format!("the node answers {status}: it may have another version than this p2pool"),
    };
    Err(ControlError::Refused(reason))
}
