//! One-time look at a daemon, for `p2pool doctor`: starts nothing and changes nothing.

use serde::Deserialize;
use serde_json::Value;
use sharechain::coin::Network;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::check::{Diagnosis, diagnose};
use super::credentials::CredentialsError;
use super::daemon::{self, reach};
use super::responses::{BlockTemplate, ChainInfo, NetworkInfo};
use super::rpc::{BITCOIND, Rpc, RpcError, code};
use super::templates::request;
use super::wire::{Event, Wire};
use crate::runtime::clock::unix_now;
use crate::template::Template;

/// Timeout of a call.
const CALL_MAX: Duration = Duration::from_secs(15);

/// Timeout of the handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Size of the read buffer, in bytes.
const READ_BYTES: usize = 16 * 1024;

/// A daemon to be examined.
#[derive(Debug)]
pub struct Probe {
    rpc: Rpc,
    p2p_target: String,
    network: &'static Network,
    allow_obsolete: bool,
}

/// State of a daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct DaemonReport {
    /// User agent.
    pub user_agent: String,
    /// Problem of the daemon; `None` if there is none.
    pub diagnosis: Option<Diagnosis>,
    /// State of its chain.
    pub chain: ChainInfo,
    /// Time in the header of its best block, in seconds since 1970; `None` for daemons that do not report it.
    pub tip_time: Option<u64>,
    /// Number of its peers.
    pub connections: u64,
    /// Offset of its peers' clocks from its own, in seconds.
    pub peers_offset: i64,
    /// Its warnings.
    pub warnings: Vec<String>,
    /// Seconds by which our clock is ahead of the daemon's, and the precision of that.
    pub clock: Option<(f64, f64)>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MoreNetworkInfo {
    connections: u64,
    timeoffset: i64,
    /// A string, or a list of strings in newer daemons.
    warnings: Value,
}

#[derive(Debug, Deserialize)]
struct NetTotals {
    timemillis: f64,
}

impl Probe {
    /// Finds the daemon's credentials and ports.
    ///
    /// # Errors
    /// No credentials.
    pub fn new(config: &daemon::Config, network: &'static Network) -> Result<Self, CredentialsError> {
        let reach = reach(config, network)?;
        let address = &config.address;
        let host =
            if address.contains(':') && !address.starts_with('[') { format!("[{address}]") } else { address.clone() };
        Ok(Self {
            rpc: reach.rpc,
            p2p_target: format!("{host}:{}", reach.p2p_port),
            network,
            allow_obsolete: config.allow_obsolete,
        })
    }

    /// Address and port of the RPC server.
    pub fn rpc_target(&self) -> &str {
        self.rpc.target()
    }

    /// Address and port of the P2P server.
    pub fn p2p_target(&self) -> &str {
        &self.p2p_target
    }

    /// Queries the daemon's state.
    ///
    /// # Errors
    /// The daemon is unreachable, or its answers are malformed.
    pub async fn look(&self) -> Result<DaemonReport, Diagnosis> {
        let chain: Value = self.rpc.call_within(CALL_MAX, "getblockchaininfo", "getblockchaininfo", Vec::new()).await?;
        let node: Value = self.rpc.call_within(CALL_MAX, "getnetworkinfo", "getnetworkinfo", Vec::new()).await?;
        let tip_time = chain.get("time").and_then(Value::as_u64);
        let more: MoreNetworkInfo = serde_json::from_value(node.clone()).unwrap_or_default();
        let chain: ChainInfo = read("getblockchaininfo", chain)?;
        let node: NetworkInfo = read("getnetworkinfo", node)?;
        let before = unix_now();
        let totals = self.rpc.call_within::<NetTotals>(CALL_MAX, "getnettotals", "getnettotals", Vec::new()).await;
        let after = unix_now();
        let clock =
            totals.ok().map(|totals| ((before + after) / 2.0 - totals.timemillis / 1000.0, (after - before) / 2.0));
        Ok(DaemonReport {
            diagnosis: diagnose(&chain, &node, self.network, self.allow_obsolete),
            user_agent: node.user_agent,
            chain,
            tip_time,
            connections: more.connections,
            peers_offset: more.timeoffset,
            warnings: texts(&more.warnings),
            clock,
        })
    }

    /// Fetches a template and checks it.
    ///
    /// # Errors
    /// Text for the operator.
    pub async fn template(&self) -> Result<Template, String> {
        let params = request(self.network, None);
        let answer =
            self.rpc.call_within::<BlockTemplate>(CALL_MAX, "getblocktemplate", "getblocktemplate", params).await;
        let answer = answer.map_err(|error| Diagnosis::from(error).to_string())?;
        let (known, weight_max) = (self.network.known_rules, self.network.parent.block_max_weight.into());
        let template = tokio::task::spawn_blocking(move || answer.into_template(known, weight_max)).await;
        template.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// True if the wallet could give an address, `None` without a wallet. Requests no address.
    ///
    /// # Errors
    /// Text for the operator.
    pub async fn has_wallet(&self) -> Result<bool, String> {
        match self.rpc.call_within::<Value>(CALL_MAX, "getwalletinfo", "getwalletinfo", Vec::new()).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.code(), Some(code::NO_METHOD | code::NO_WALLET)) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Performs the P2P handshake; returns the daemon's user agent.
    ///
    /// # Errors
    /// Text for the operator.
    pub async fn shake_hands(&self) -> Result<String, String> {
        match timeout(HANDSHAKE_MAX, self.handshake()).await {
            Ok(done) => done,
            Err(_) => Err(format!("no handshake within {} s", HANDSHAKE_MAX.as_secs())),
        }
    }

    async fn handshake(&self) -> Result<String, String> {
        let mut stream = TcpStream::connect(&self.p2p_target).await.map_err(|error| error.to_string())?;
        let remote = stream.peer_addr().map_err(|error| error.to_string())?;
        #[expect(clippy::cast_possible_truncation, reason = "seconds")]
        let time = unix_now() as i64;
        let mut wire = Wire::new(self.network.parent.magic, remote, time, fastrand::u64(..), Instant::now());
        let mut buffer = vec![0; READ_BYTES];
        loop {
            while let Some(bytes) = wire.poll_output() {
                stream.write_all(&bytes).await.map_err(|error| error.to_string())?;
            }
            while let Some(event) = wire.poll_event() {
                if let Event::Ready(user_agent) = event {
                    return Ok(user_agent);
                }
            }
            match stream.read(&mut buffer).await {
                Ok(0) => return Err("it closed the connection: is that the port of another chain?".to_owned()),
                Ok(count) => {
                    wire.handle_bytes(&buffer[..count], Instant::now()).map_err(|error| error.to_string())?;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(method: &'static str, value: Value) -> Result<T, Diagnosis> {
    serde_json::from_value(value).map_err(|error| Diagnosis::from(RpcError::malformed(BITCOIND, method, &error)))
}

fn texts(warnings: &Value) -> Vec<String> {
    let all: Vec<&str> = match warnings {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    all.into_iter().filter(|text| !text.is_empty()).map(|text| text.chars().take(300).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn warnings_are_read_as_old_and_new_daemons_write_them() {
        assert_eq!(texts(&json!("")), Vec::<String>::new());
        assert_eq!(texts(&json!("one")), ["one"]);
        assert_eq!(texts(&json!(["one", "", "two"])), ["one", "two"]);
        assert_eq!(texts(&json!(null)), Vec::<String>::new());
    }
}
