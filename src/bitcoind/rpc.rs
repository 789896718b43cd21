//! JSON-RPC calls to the daemon, off the event loop: login, timeouts, and errors by cause.

use bitcoin::BlockHash;
use bitcoincore_rpc::jsonrpc;
use bitcoincore_rpc::jsonrpc::minreq_http::{self, HttpError};
use bitcoincore_rpc::{Client, RpcApi};
use futures::future::BoxFuture;
use metrics::{counter, histogram};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use super::credentials::{Credentials, Login};
use super::http::{self, PostError};
use super::responses::{BlockHeaderInfo, printable};
use crate::blocks::{BlockPosition, Explorer};

/// Name of the parent chain's daemon in messages.
pub const BITCOIND: &str = "bitcoind";

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
    /// A parameter has no meaning: of `submitauxblock`, a block that the daemon did not create, or has forgotten.
    pub const INVALID_PARAMETER: i32 = -8;
    /// What was submitted cannot be decoded (`RPC_DESERIALIZATION_ERROR`).
    pub const UNREADABLE: i32 = -22;
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
    #[error("cannot reach {daemon}'s RPC at {target}: {reason}")]
    Unreachable {
        /// Name of the daemon.
        daemon: Arc<str>,
        /// Address and port.
        target: String,
        /// Error text of the system.
        reason: String,
    },
    /// Connected, but no answer in time.
    #[error("{daemon} at {target} did not answer {method} within {} s", after.as_secs())]
    Timeout {
        /// Name of the daemon.
        daemon: Arc<str>,
        /// Address and port.
        target: String,
        /// Method of the call.
        method: &'static str,
        /// Time waited.
        after: Duration,
    },
    /// HTTP 401.
    #[error("{daemon} at {target} refuses the user name or password ({origin})")]
    Unauthorized {
        /// Name of the daemon.
        daemon: Arc<str>,
        /// Address and port.
        target: String,
        /// Source of the password.
        origin: String,
    },
    /// The HTTP answer is not an answer of JSON-RPC.
    #[error("{daemon} answered {method} with HTTP status {status}: {body}")]
    Http {
        /// Name of the daemon.
        daemon: Arc<str>,
        /// Method of the call.
        method: &'static str,
        /// HTTP status code.
        status: i32,
        /// Start of the body.
        body: String,
    },
    /// The daemon returned an error.
    #[error("{daemon} answered {method} with error {code}: {message}")]
    Daemon {
        /// Name of the daemon.
        daemon: Arc<str>,
        /// Method of the call.
        method: &'static str,
        /// Bitcoin Core's error code.
        code: i32,
        /// Bitcoin Core's error text.
        message: String,
    },
    /// The answer does not have the form of the method's.
    #[error("{daemon}'s answer to {method} is malformed: {reason}")]
    Malformed {
        /// Name of the daemon.
        daemon: Arc<str>,
        /// Method of the call.
        method: &'static str,
        /// Cause.
        reason: String,
    },
}

impl RpcError {
    /// Error of an answer that does not have the form of the method's. The reason may quote it.
    pub(super) fn malformed(daemon: impl Into<Arc<str>>, method: &'static str, reason: &dyn fmt::Display) -> Self {
        Self::Malformed { daemon: daemon.into(), method, reason: printable(&reason.to_string()) }
    }

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
    /// Name in messages.
    daemon: Arc<str>,
    /// Name of the merged chain in metrics; `None` for the parent chain's daemon, which has metrics of its own.
    chain: Option<Arc<str>>,
    target: String,
    /// Path of the URL.
    path: String,
    credentials: Credentials,
}

/// Limits of a call to a daemon that may be anyone's.
#[derive(Debug, Clone, Copy)]
pub struct CallLimits {
    /// Maximum time until the whole answer is here.
    pub timeout: Duration,
    /// Maximum size of the answer; no more of it is read.
    pub answer_bytes_max: usize,
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
        let target = target_of(address, port);
        Self(Arc::new(Inner { daemon: BITCOIND.into(), chain: None, target, path: "/".to_owned(), credentials }))
    }

    /// Creates a client of a merged chain's daemon, whose RPC has the path `path`.
    pub fn of_merged(chain: Arc<str>, address: &str, port: u16, path: &str, credentials: Credentials) -> Self {
        let target = target_of(address, port);
        Self(Arc::new(Inner { daemon: chain.clone(), chain: Some(chain), target, path: path.to_owned(), credentials }))
    }

    /// Name of the daemon in messages.
    pub(super) fn daemon(&self) -> &Arc<str> {
        &self.0.daemon
    }

    /// Error of an answer that does not have the form of the method's.
    pub(super) fn malformed(&self, method: &'static str, reason: &dyn fmt::Display) -> RpcError {
        RpcError::malformed(self.0.daemon.clone(), method, reason)
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
            Ok(_) => answered.await.unwrap_or_else(|_| Err(self.malformed(method, &"the calling thread panicked"))),
            Err(error) => Err(self.0.unreachable(format!("no thread to call from: {error}"))),
        };
        self.0.record(label, started.elapsed(), result.as_ref().err());
        result
    }

    /// Same as [`Self::call`] for a daemon that may lie or hang: no more of the answer is read than `limits` allow.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_within_limits<T>(
        &self,
        limits: CallLimits,
        method: &'static str,
        params: Vec<Value>,
    ) -> Result<T, RpcError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let started = Instant::now();
        let result = match timeout(limits.timeout, self.post(limits, method, params)).await {
            Ok(result) => result,
            Err(_) => {
                let Inner { daemon, target, .. } = &*self.0;
                let (daemon, target) = (daemon.clone(), target.clone());
                Err(RpcError::Timeout { daemon, target, method, after: limits.timeout })
            }
        };
        self.0.record(method, started.elapsed(), result.as_ref().err());
        result
    }

    async fn post<T>(&self, limits: CallLimits, method: &'static str, params: Vec<Value>) -> Result<T, RpcError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let ended = |error: JoinError| self.malformed(method, &error);
        let inner = self.0.clone();
        // Credentials may be in a file.
        let login = spawn_blocking(move || inner.login()).await.map_err(ended)??;
        let call = json!({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}).to_string();
        let Inner { target, path, .. } = &*self.0;
        let (status, body) = match http::post(target, path, &login, call.into(), limits.answer_bytes_max).await {
            Ok(answer) => answer,
            Err(PostError::Broken(reason)) => return Err(self.0.unreachable(printable(&reason))),
            Err(error @ PostError::TooLong(_)) => return Err(self.malformed(method, &error)),
        };
        let inner = self.0.clone();
        // Megabytes of JSON take a while.
        spawn_blocking(move || inner.read(method, status.as_u16().into(), &body)).await.map_err(ended)?
    }
}

/// Address and port as in a URL.
fn target_of(address: &str, port: u16) -> String {
    let is_bare_ipv6 = address.contains(':') && !address.starts_with('[');
    if is_bare_ipv6 { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

impl Inner {
    fn unreachable(&self, reason: String) -> RpcError {
        RpcError::Unreachable { daemon: self.daemon.clone(), target: self.target.clone(), reason }
    }

    fn record(&self, label: &'static str, took: Duration, error: Option<&RpcError>) {
        match &self.chain {
            None => {
                histogram!("bitcoind_rpc_seconds", "method" => label).record(took);
                if let Some(error) = error {
                    counter!("bitcoind_rpc_failures_total", "method" => label, "kind" => error.kind()).increment(1);
                }
            }
            Some(chain) => {
                histogram!("merged_rpc_seconds", "chain" => chain.clone(), "method" => label).record(took);
                if let Some(error) = error {
                    let (chain, kind) = (chain.clone(), error.kind());
                    counter!("merged_rpc_failures_total", "chain" => chain, "method" => label, "kind" => kind)
                        .increment(1);
                }
            }
        }
    }

    /// Reads the body of an HTTP answer.
    fn read<T: DeserializeOwned>(&self, method: &'static str, status: i32, body: &[u8]) -> Result<T, RpcError> {
        let response = match serde_json::from_slice::<jsonrpc::Response>(body) {
            Ok(response) if status != 401 => response,
            Err(error) if status == 200 => return Err(RpcError::malformed(self.daemon.clone(), method, &error)),
            _ => {
                let body = String::from_utf8_lossy(body).into_owned();
                return Err(self.http_error(method, &HttpError { status_code: status, body }));
            }
        };
        let result = response.result().map_err(bitcoincore_rpc::Error::JsonRpc);
        result.map_err(|error| self.explain(error, Duration::ZERO, method))
    }

    /// Error of an HTTP answer that holds no answer of JSON-RPC.
    fn http_error(&self, method: &'static str, http: &HttpError) -> RpcError {
        let (daemon, target) = (self.daemon.clone(), self.target.clone());
        if http.status_code == 401 {
            return RpcError::Unauthorized { daemon, target, origin: self.credentials.origin() };
        }
        // minreq's error for a connection closed without a status line; a real 503 has a body.
        if http.status_code == 503 && http.body.is_empty() {
            return self.unreachable("it closed the connection without an answer".to_owned());
        }
        let body = printable(&http.body.chars().take(200).collect::<String>());
        RpcError::Http { daemon, method, status: http.status_code, body }
    }

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
            .url(&format!("http://{}{}", self.target, self.path))
            .map_err(|error| self.unreachable(error.to_string()))?
            .build();
        let client = Client::from_jsonrpc(jsonrpc::Client::with_transport(transport));
        client.call(method, params).map_err(|error| self.explain(error, timeout, method))
    }

    /// Classifies the client's errors by their meaning for an operator.
    fn explain(&self, error: bitcoincore_rpc::Error, after: Duration, method: &'static str) -> RpcError {
        use bitcoincore_rpc::Error;
        let malformed = |reason: &dyn fmt::Display| RpcError::malformed(self.daemon.clone(), method, reason);
        match error {
            Error::JsonRpc(jsonrpc::Error::Rpc(error)) => {
                let (daemon, message) = (self.daemon.clone(), printable(&error.message));
                RpcError::Daemon { daemon, method, code: error.code, message }
            }
            Error::JsonRpc(jsonrpc::Error::Transport(error)) => {
                if let Some(minreq_http::Error::Http(http)) = error.downcast_ref::<minreq_http::Error>() {
                    return self.http_error(method, http);
                }
                let mut cause: &(dyn std::error::Error + 'static) = error.as_ref();
                while let Some(deeper) = cause.source() {
                    cause = deeper;
                }
                match cause.downcast_ref::<io::Error>() {
                    Some(io) if io.kind() == io::ErrorKind::TimedOut => {
                        let (daemon, target) = (self.daemon.clone(), self.target.clone());
                        RpcError::Timeout { daemon, target, method, after }
                    }
                    Some(io) => self.unreachable(io.to_string()),
                    None => malformed(&error),
                }
            }
            other => malformed(&other),
        }
    }
}

#[cfg(test)]
mod tests;
