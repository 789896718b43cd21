//! JSON-RPC calls to the daemon, off the event loop: login, timeouts, and errors by cause.

use bitcoin::BlockHash;
use bitcoincore_rpc::jsonrpc::{self, minreq_http};
use bitcoincore_rpc::{Client, RpcApi};
use futures::future::BoxFuture;
use metrics::{counter, histogram};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::oneshot;

use super::credentials::{Credentials, Login};
use super::responses::{BlockHeaderInfo, printable};
use crate::blocks::{BlockPosition, Explorer};

/// Timeout of an ordinary call, as in P2Pool (protocol section 9.1.1).
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Error codes of the daemon that are handled.
pub mod code {
    /// The block, address or transaction is unknown.
    pub const NOT_FOUND: i32 = -5;
    /// The daemon has no peers.
    pub const NOT_CONNECTED: i32 = -9;
    /// The daemon is still downloading the chain.
    pub const INITIAL_DOWNLOAD: i32 = -10;
    /// No wallet is loaded.
    pub const NO_WALLET: i32 = -18;
    /// The daemon is starting.
    pub const WARMING_UP: i32 = -28;
    /// The method is unknown.
    pub const NO_METHOD: i32 = -32601;
}

/// Reason why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RpcError {
    /// No credentials at the moment.
    #[error("{0}")]
    Credentials(String),
    /// No connection.
    #[error("cannot reach bitcoind's RPC at {target}: {reason}")]
    Unreachable {
        /// Address and port.
        target: String,
        /// Error text of the system.
        reason: String,
    },
    /// Connected, but no answer in time.
    #[error("bitcoind at {target} did not answer {method} within {} s", after.as_secs())]
    Timeout {
        /// Address and port.
        target: String,
        /// Method of the call.
        method: &'static str,
        /// Time waited.
        after: Duration,
    },
    /// HTTP 401.
    #[error("bitcoind at {target} refuses the user name or password ({origin})")]
    Unauthorized {
        /// Address and port.
        target: String,
        /// Source of the password.
        origin: String,
    },
    /// The HTTP answer is not an answer of JSON-RPC.
    #[error("bitcoind answered {method} with HTTP status {status}: {body}")]
    Http {
        /// Method of the call.
        method: &'static str,
        /// HTTP status code.
        status: i32,
        /// Start of the body.
        body: String,
    },
    /// The daemon returned an error.
    #[error("bitcoind answered {method} with error {code}: {message}")]
    Daemon {
        /// Method of the call.
        method: &'static str,
        /// Bitcoin Core's error code.
        code: i32,
        /// Bitcoin Core's error text.
        message: String,
    },
    /// The answer does not have the form of the method's.
    #[error("bitcoind's answer to {method} is malformed: {reason}")]
    Malformed {
        /// Method of the call.
        method: &'static str,
        /// Cause.
        reason: String,
    },
}

impl RpcError {
    /// Label for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Credentials(_) => "credentials",
            Self::Unreachable { .. } => "unreachable",
            Self::Timeout { .. } => "timeout",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Http { .. } => "http",
            Self::Daemon { .. } => "daemon",
            Self::Malformed { .. } => "malformed",
        }
    }

    /// Error code of the daemon, if it returned one.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Daemon { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl Explorer for Rpc {
    fn place<'a>(&'a self, hash: &'a BlockHash) -> BoxFuture<'a, Result<BlockPosition, String>> {
        Box::pin(async move {
            match self.header(hash).await {
                Ok(header) => Ok(match u32::try_from(header.confirmations) {
                    Ok(confirmations) if confirmations > 0 => {
                        BlockPosition::InChain { height: header.height, confirmations }
                    }
                    _ => BlockPosition::Beside { height: header.height },
                }),
                Err(error) if error.code() == Some(code::NOT_FOUND) => Ok(BlockPosition::Unknown),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

/// Client of one daemon. Clones share it.
#[derive(Debug, Clone)]
pub struct Rpc(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    target: String,
    credentials: Credentials,
}

impl Rpc {
    /// Returns height and confirmations of a block.
    ///
    /// # Errors
    /// Includes a block that the daemon does not know.
    pub async fn header(&self, hash: &BlockHash) -> Result<BlockHeaderInfo, RpcError> {
        self.call("getblockheader", vec![json!(hash)]).await
    }

    /// Returns the serialised header of a block, in hex.
    ///
    /// # Errors
    /// Includes a block that the daemon does not know.
    pub async fn raw_header(&self, hash: &BlockHash) -> Result<String, RpcError> {
        self.call("getblockheader", vec![json!(hash), json!(false)]).await
    }

    /// Creates a client of the daemon at `address` (a name or an IP address) and `port`. Connects at each call.
    pub fn new(address: &str, port: u16, credentials: Credentials) -> Self {
        let host = if address.contains(':') && !address.starts_with('[') {
            format!("[{address}]")
        } else {
            address.to_owned()
        };
        Self(Arc::new(Inner { target: format!("{host}:{port}"), credentials }))
    }

    /// Address and port, for messages.
    pub fn target(&self) -> &str {
        &self.0.target
    }

    /// User and password at this moment. Reads files.
    pub(super) fn login(&self) -> Result<Login, RpcError> {
        self.0.login()
    }

    /// Calls `method` and parses the result as a `T`.
    ///
    /// # Errors
    /// Any failure between request and result; see [`RpcError`].
    pub async fn call<T>(&self, method: &'static str, params: Vec<Value>) -> Result<T, RpcError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.call_within(CALL_TIMEOUT, method, method, params).await
    }

    /// Same as [`Self::call`] with another timeout, in whole seconds. Metrics use `label`, since a call that waits on
    /// purpose must not distort those of its method.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_within<T>(
        &self,
        timeout: Duration,
        method: &'static str,
        label: &'static str,
        params: Vec<Value>,
    ) -> Result<T, RpcError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let inner = self.0.clone();
        let (answer, answered) = oneshot::channel();
        let started = Instant::now();
        // A separate thread, not the runtime's: a long poll must not keep the process from exiting.
        let spawned = std::thread::Builder::new().name(format!("rpc {method}")).spawn(move || {
            // Fails if the caller has stopped waiting.
            let _ = answer.send(inner.call(timeout, method, &params));
        });
        let result = match spawned {
            Ok(_) => answered.await.unwrap_or_else(|_| {
                Err(RpcError::Malformed { method, reason: "the calling thread panicked".to_owned() })
            }),
            Err(error) => Err(RpcError::Unreachable {
                target: self.0.target.clone(),
                reason: format!("no thread to call from: {error}"),
            }),
        };
        histogram!("bitcoind_rpc_seconds", "method" => label).record(started.elapsed().as_secs_f64());
        if let Err(error) = &result {
            counter!("bitcoind_rpc_failures_total", "method" => label, "kind" => error.kind()).increment(1);
        }
        result
    }
}

impl Inner {
    fn call<T: DeserializeOwned>(
        &self,
        timeout: Duration,
        method: &'static str,
        params: &[Value],
    ) -> Result<T, RpcError> {
        let login = self.login()?;
        let first = self.call_as(&login, timeout, method, params);
        if matches!(first, Err(RpcError::Unauthorized { .. })) {
            // A daemon restarted between our reading of the cookie and the call has a new one.
            let fresh = self.login()?;
            if fresh != login {
                return self.call_as(&fresh, timeout, method, params);
            }
        }
        first
    }

    fn login(&self) -> Result<Login, RpcError> {
        self.credentials.login().map_err(|error| RpcError::Credentials(error.to_string()))
    }

    fn call_as<T: DeserializeOwned>(
        &self,
        login: &Login,
        timeout: Duration,
        method: &'static str,
        params: &[Value],
    ) -> Result<T, RpcError> {
        let transport = minreq_http::Builder::new()
            .timeout(timeout)
            .basic_auth(login.user.clone(), Some(login.password.expose().to_owned()))
            .url(&format!("http://{}/", self.target))
            .map_err(|error| RpcError::Unreachable { target: self.target.clone(), reason: error.to_string() })?
            .build();
        let client = Client::from_jsonrpc(jsonrpc::Client::with_transport(transport));
        client.call(method, params).map_err(|error| self.explain(error, timeout, method))
    }

    /// Classifies the client's errors by their meaning for an operator.
    fn explain(&self, error: bitcoincore_rpc::Error, after: Duration, method: &'static str) -> RpcError {
        use bitcoincore_rpc::Error;
        let target = self.target.clone();
        match error {
            Error::JsonRpc(jsonrpc::Error::Rpc(error)) => {
                RpcError::Daemon { method, code: error.code, message: printable(&error.message) }
            }
            Error::JsonRpc(jsonrpc::Error::Transport(error)) => {
                if let Some(minreq_http::Error::Http(http)) = error.downcast_ref::<minreq_http::Error>() {
                    if http.status_code == 401 {
                        return RpcError::Unauthorized { target, origin: self.credentials.origin() };
                    }
                    // minreq's error for a connection closed without a status line; a real 503 has a body.
                    if http.status_code == 503 && http.body.is_empty() {
                        let reason = "it closed the connection without an answer".to_owned();
                        return RpcError::Unreachable { target, reason };
                    }
                    let body = printable(&http.body.chars().take(200).collect::<String>());
                    return RpcError::Http { method, status: http.status_code, body };
                }
                let mut cause: &(dyn std::error::Error + 'static) = error.as_ref();
                while let Some(deeper) = cause.source() {
                    cause = deeper;
                }
                match cause.downcast_ref::<io::Error>() {
                    Some(io) if io.kind() == io::ErrorKind::TimedOut => RpcError::Timeout { target, method, after },
                    Some(io) => RpcError::Unreachable { target, reason: io.to_string() },
                    None => RpcError::Malformed { method, reason: error.to_string() },
                }
            }
            other => RpcError::Malformed { method, reason: other.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::secret::Secret;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn rpc(port: u16) -> Rpc {
        let login = Login { user: "u".into(), password: Secret::new("p") };
        Rpc::new("127.0.0.1", port, Credentials::Fixed { login, origin: "a test".into() })
    }

    /// Starts a daemon that answers every request with `reply`.
    fn fake(reply: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
        });
        port
    }

    #[tokio::test]
    async fn a_closed_port_is_told_as_unreachable() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = rpc(port).call::<Value>("getblockcount", Vec::new()).await.unwrap_err();
        assert!(matches!(error, RpcError::Unreachable { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_wrong_password_is_told_in_one_line() {
        let port = fake("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
        let error = rpc(port).call::<Value>("getblockcount", Vec::new()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("bitcoind at 127.0.0.1:{port} refuses the user name or password (a test)")
        );
    }

    #[tokio::test]
    async fn a_full_work_queue_is_told_by_its_status() {
        let port = fake("HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nWork queu");
        let error = rpc(port).call::<Value>("getblockcount", Vec::new()).await.unwrap_err();
        assert!(matches!(error, RpcError::Http { status: 503, .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_connection_that_closes_without_an_answer_is_told_as_such() {
        let error = rpc(fake("")).call::<Value>("getblockcount", Vec::new()).await.unwrap_err();
        assert!(error.to_string().ends_with("closed the connection without an answer"), "{error:?}");
    }

    #[tokio::test]
    async fn an_answer_that_is_no_json_is_malformed() {
        let port = fake("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let error = rpc(port).call::<Value>("getblockcount", Vec::new()).await.unwrap_err();
        assert!(matches!(error, RpcError::Malformed { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_daemon_that_does_not_answer_is_a_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let timeout = Duration::from_secs(1);
        let error =
            rpc(port).call_within::<Value>(timeout, "getblockcount", "getblockcount", Vec::new()).await.unwrap_err();
        assert!(matches!(error, RpcError::Timeout { .. }), "{error:?}");
    }
}
