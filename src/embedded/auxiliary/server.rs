//! The daemon's port: HTTP with a password, as far as faults allow.

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::stream::{self, StreamExt};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::Shared;
use super::faults::{Fault, Plan};
use super::rpc::{Answer, Call, RpcError};
use crate::runtime::accept::Acceptor;

/// Maximum size of a request, in bytes.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// Maximum time until the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes that a huge answer is made of at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Interval of tries to open the port.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Length of the kernel's queue of new connections.
const BACKLOG: u32 = 128;

/// State of the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PortState {
    /// False while connections are refused.
    pub(super) is_open: bool,
    /// Counts up when all connections are to end.
    pub(super) round: u64,
}

/// The connection ends without an answer.
#[derive(Debug, Error)]
#[error("closed on demand")]
struct Closed;

/// A port that stays ours while it is closed: bound, but not listening, so that connections are refused.
#[derive(Debug)]
pub(super) struct Reserved {
    address: SocketAddr,
    _socket: TcpSocket,
}

impl Reserved {
    /// Reserves the port of `listener`, which [`sockets::bind`](crate::runtime::sockets::bind) has opened.
    pub(super) fn with(listener: &TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        Ok(Self { address, _socket: bound(address)? })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn listen(&self) -> io::Result<TcpListener> {
        bound(self.address)?.listen(BACKLOG)
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Serves until `stop`. Reports in `opened` whether the port is open.
pub(super) async fn run(
    shared: Arc<Shared>,
    first: TcpListener,
    mut state: watch::Receiver<PortState>,
    opened: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let mut first = Some(first);
    loop {
        let is_open = state.borrow_and_update().is_open;
        let listening = match first.take() {
            Some(listener) => Ok(Some(listener)),
            None => is_open.then(|| shared.port.listen()).transpose(),
        };
        let listener = match listening {
            Ok(listener) => listener,
            Err(error) => {
                error!(%error, address = %shared.port.address(), "cannot open the port of a merged chain; retrying");
                tokio::time::sleep(RETRY_INTERVAL).await;
                continue;
            }
        };
        opened.send_replace(listener.is_some());
        let round = stop.child_token();
        let serving = async {
            let Some(listener) = listener else { return pending().await };
            let welcome = |stream, _| {
                tokio::spawn(serve(shared.clone(), stream, round.clone()));
            };
            Acceptor::new(listener, "merged chain").run(round.clone(), welcome).await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = serving => return,
            changed = state.changed() => {
                round.cancel();
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream, round: CancellationToken) {
    let service = service_fn(move |request| respond(shared.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        () = round.cancelled() => {}
        ended = connection => if let Err(error) = ended {
            debug!(%error, "connection of a merged chain ended");
        }
    }
}

async fn respond(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
    if request.method() != Method::POST {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "JSONRPC server handles only POST requests"));
    }
    let login = format!("{}:{}", shared.config.user, shared.config.password.expose());
    let expected = format!("Basic {}", BASE64_STANDARD.encode(login));
    if request.headers().get(header::AUTHORIZATION).is_none_or(|given| given.as_bytes() != expected.as_bytes()) {
        let mut refusal = text(StatusCode::UNAUTHORIZED, "");
        refusal.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"jsonrpc\""));
        return Ok(refusal);
    }
    let Ok(body) = to_bytes(Body::new(request.into_body()), REQUEST_BYTES_MAX).await else {
        return Ok(text(StatusCode::PAYLOAD_TOO_LARGE, ""));
    };
    match Call::parse(&body) {
        Ok(call) => answer(&shared, &call).await,
        Err(error) => Ok(rpc_response(&Err(error), &Value::Null)),
    }
}

async fn answer(shared: &Shared, call: &Call) -> Result<Response<Body>, Closed> {
    shared.count(call);
    let Some(Plan { fault, makes_call }) = shared.faults.plan(call.group()) else {
        return Ok(rpc_response(&shared.call(call), &call.id));
    };
    debug!(method = call.known_method(), makes_call, "fault on demand");
    if let Fault::Slow(time) = fault {
        tokio::time::sleep(time).await;
    }
    let mut answer = if makes_call { shared.call(call) } else { Ok(Value::Null) };
    match fault {
        Fault::Hang => pending().await,
        Fault::Disconnect => return Err(Closed),
        Fault::Status(status) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Ok(text(status, "Work queue depth exceeded"));
        }
        Fault::Body(body) => return Ok(json_response(StatusCode::OK, Body::from(body))),
        Fault::HalfAnswer => return Ok(half(&body_of(&answer, &call.id))),
        Fault::Huge(bytes) => return Ok(huge(bytes)),
        Fault::Slow(_) => {}
        Fault::Error { code, message } => answer = Err(RpcError::new(code, message)),
        Fault::Result(value) => answer = Ok(value),
        Fault::Field(name, value) => edit(&mut answer, |fields| drop(fields.insert(name.to_owned(), value))),
        Fault::Without(name) => edit(&mut answer, |fields| drop(fields.remove(name))),
    }
    Ok(rpc_response(&answer, &call.id))
}

fn edit(answer: &mut Answer, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    if let Ok(Value::Object(fields)) = answer {
        change(fields);
    }
}

fn body_of(answer: &Answer, id: &Value) -> Bytes {
    let body = match answer {
        Ok(result) => json!({ "result": result, "error": null, "id": id }),
        Err(error) => {
            json!({ "result": null, "error": { "code": error.code, "message": error.message }, "id": id })
        }
    };
    Bytes::from(format!("{body}\n"))
}

fn rpc_response(answer: &Answer, id: &Value) -> Response<Body> {
    let status = answer.as_ref().map_or_else(|error| StatusCode::from_u16(error.status()), |_| Ok(StatusCode::OK));
    json_response(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Body::from(body_of(answer, id)))
}

fn json_response(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text(status: StatusCode, line: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(line));
    *response.status_mut() = status;
    response
}

/// An answer of which the second half never comes.
fn half(body: &Bytes) -> Response<Body> {
    let first = Ok::<_, Infallible>(body.slice(..body.len() / 2));
    let body_sent = Body::from_stream(stream::iter([first]).chain(stream::pending()));
    sized(body_sent, body.len() as u64)
}

/// An answer with a text of this many bytes, made while it is sent.
fn huge(bytes: u64) -> Response<Body> {
    let chunk = Bytes::from(vec![b'a'; CHUNK_BYTES]);
    let count = bytes.div_ceil(CHUNK_BYTES as u64);
    let (head, tail) = ("{\"result\":\"", "\",\"error\":null,\"id\":0}");
    let middle = (0..count).map(move |_| chunk.clone());
    let parts = std::iter::once(Bytes::from(head)).chain(middle).chain([Bytes::from(tail)]);
    let length = (head.len() + tail.len()) as u64 + count * CHUNK_BYTES as u64;
    sized(Body::from_stream(stream::iter(parts.map(Ok::<_, Infallible>))), length)
}

fn sized(body: Body, bytes: u64) -> Response<Body> {
    let mut response = json_response(StatusCode::OK, body);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    response
}
