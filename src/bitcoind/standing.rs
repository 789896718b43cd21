//! A connection to the daemon's RPC that is always open, for found blocks: one goes out even where this process can open
//! no further file, and the daemon accepts no further connection.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Request, header};
use bitcoincore_rpc::jsonrpc;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use metrics::{gauge, histogram};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::http::authorization;
use super::responses::printable;
use super::rpc::{CALL_TIMEOUT, Rpc, RpcError};

/// Interval of calls that keep the connection open: Bitcoin Core closes it after 30 s (`-rpcservertimeout`).
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Timeout of connecting, and of such a call.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum size of an answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Reason why a call got no answer over this connection.
type Broken = Box<dyn std::error::Error + Send + Sync>;

/// The connection, while it is open.
#[derive(Debug)]
pub(super) struct StandingConnection {
    rpc: Rpc,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    sender: SendRequest<Body>,
    host: HeaderValue,
    authorization: HeaderValue,
}

impl StandingConnection {
    /// Creates a connection to the daemon of `rpc`; [`Self::keep`] opens it.
    pub(super) fn new(rpc: Rpc) -> Arc<Self> {
        Arc::new(Self { rpc, open: Mutex::new(None) })
    }

    /// Keeps the connection open until `stop`.
    pub(super) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(PING_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let checks = async {
            loop {
                ticks.tick().await;
                self.check().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = checks => {}
        }
    }

    /// Calls the daemon, and connects again if that fails.
    async fn check(&self) {
        let mut slot = self.open.lock().await;
        if let Some(mut open) = slot.take()
            && matches!(timeout(PING_TIMEOUT, open.ping()).await, Ok(Ok(())))
        {
            *slot = Some(open);
            return;
        }
        gauge!("bitcoind_rpc_standing_connection").set(0.0);
        match timeout(PING_TIMEOUT, connect(&self.rpc)).await {
            Ok(Ok(open)) => {
                gauge!("bitcoind_rpc_standing_connection").set(1.0);
                *slot = Some(open);
            }
            // The templates' calls report a daemon that cannot be reached.
            Ok(Err(error)) => debug!(%error, "no standing connection to bitcoind's RPC"),
            Err(_) => debug!("no standing connection to bitcoind's RPC: timeout"),
        }
    }

    /// Calls `method` over the connection; `None` if it is not open, or no answer came over it.
    pub(super) async fn call(&self, method: &'static str, params: &Value) -> Option<Result<Value, RpcError>> {
        let started = Instant::now();
        let mut slot = self.open.lock().await;
        let mut open = slot.take()?;
        let answer = match timeout(CALL_TIMEOUT, open.call(method, params)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                debug!(%error, method, "the standing connection to bitcoind's RPC broke");
                return None;
            }
            Err(_) => return None,
        };
        *slot = Some(open);
        histogram!("bitcoind_rpc_seconds", "method" => method).record(started.elapsed().as_secs_f64());
        Some(match answer.error {
            Some(error) => Err(RpcError::Daemon {
                daemon: self.rpc.daemon().clone(),
                method,
                code: error.code,
                message: printable(&error.message),
            }),
            None => Ok(answer.result.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()),
        })
    }
}

/// Connects and logs in.
async fn connect(rpc: &Rpc) -> Result<Open, Broken> {
    let reader = rpc.clone();
    // A cookie is a file.
    let login = tokio::task::spawn_blocking(move || reader.login()).await??;
    let stream = TcpStream::connect(rpc.target()).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "the standing connection to bitcoind's RPC ended");
        }
    });
    let authorization = authorization(&login)?;
    let mut open = Open { sender, host: HeaderValue::from_str(rpc.target())?, authorization };
    open.ping().await?;
    Ok(open)
}

impl Open {
    /// # Errors
    /// The connection is of no use.
    async fn ping(&mut self) -> Result<(), Broken> {
        // Its result is of no interest: a daemon that starts answers with an error.
        self.call("getblockcount", &json!([])).await.map(|_| ())
    }

    async fn call(&mut self, method: &str, params: &Value) -> Result<jsonrpc::Response, Broken> {
        let call = json!({"jsonrpc": "2.0", "id": 0, "method": method, "params": params});
        let request = Request::post("/")
            .header(header::HOST, &self.host)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(serde_json::to_vec(&call)?))?;
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let body = to_bytes(Body::new(answer.into_body()), ANSWER_BYTES_MAX).await?;
        Ok(serde_json::from_slice(&body)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitcoind::credentials::{Credentials, Login};
    use crate::runtime::secret::Secret;
    use axum::Router;
    use axum::extract::ConnectInfo;
    use axum::routing::post;
    use parking_lot::Mutex as Lock;
    use std::net::SocketAddr;
    use tokio::net::TcpListener;

    /// A daemon that answers each call with its method, and records who called what.
    async fn daemon() -> (StandingConnection, Arc<Lock<Vec<(SocketAddr, String)>>>) {
        let calls = Arc::<Lock<Vec<_>>>::default();
        let record = calls.clone();
        let answer = async move |ConnectInfo(from): ConnectInfo<SocketAddr>, body: String| {
            let call: Value = serde_json::from_str(&body).unwrap();
            record.lock().push((from, call["method"].as_str().unwrap().to_owned()));
            if call["method"] == "refuse" {
                return json!({"result": null, "error": {"code": -22, "message": "no"}, "id": 0}).to_string();
            }
            json!({"result": call["method"], "error": null, "id": 0}).to_string()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().route("/", post(answer)).into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let login = Login { user: "u".into(), password: Secret::new("p") };
        let rpc = Rpc::new("127.0.0.1", port, Credentials::Fixed { login, origin: "a test".into() });
        (StandingConnection { rpc, open: Mutex::new(None) }, calls)
    }

    #[tokio::test]
    async fn all_calls_go_over_the_one_connection() {
        let (standing, calls) = daemon().await;
        assert!(standing.call("submitblock", &json!([])).await.is_none(), "it is not open yet");
        standing.check().await;
        standing.check().await;
        let answer = standing.call("submitblock", &json!(["00"])).await.unwrap();
        assert_eq!(answer.unwrap(), "submitblock");
        let refused = standing.call("refuse", &json!([])).await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Some(-22));
        let calls = calls.lock();
        let methods: Vec<&str> = calls.iter().map(|(_, method)| method.as_str()).collect();
        assert_eq!(methods, ["getblockcount", "getblockcount", "submitblock", "refuse"]);
        assert!(calls.iter().all(|(from, _)| *from == calls[0].0));
    }

    #[tokio::test]
    async fn a_connection_that_the_daemon_closed_is_opened_again() {
        let (standing, calls) = daemon().await;
        standing.check().await;
        let (gone, _) = tokio::io::duplex(64);
        let (sender, connection) = http1::handshake::<_, Body>(TokioIo::new(gone)).await.unwrap();
        drop(connection);
        standing.open.lock().await.as_mut().unwrap().sender = sender;
        assert!(standing.call("submitblock", &json!([])).await.is_none(), "it is broken");
        standing.check().await;
        assert!(standing.call("submitblock", &json!([])).await.unwrap().is_ok());
        let calls = calls.lock();
        assert_ne!(calls[0].0, calls.last().unwrap().0);
    }
}
