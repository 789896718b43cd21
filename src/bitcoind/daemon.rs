//! Connects a [`Handle`] to a real `bitcoind`: finds credentials and starts the tasks that talk to it.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use serde_json::{Value, json};
use sharechain::coin::Network;
use sharechain::coin::address::script_of;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{Notify, watch};

use super::credentials::{self, CredentialsError, Login};
use super::health::Monitor;
use super::rpc::{Rpc, RpcError, code};
use super::rpc_route::RpcRoute;
use super::standing::StandingConnection;
use super::templates::{Follower, POLL_INTERVAL};
use super::{Handle, Health, headers, heights, peer};
use crate::blocks::journal::Journal;
use crate::blocks::submit;
use crate::runtime::tasks::Tasks;
use crate::template::TemplateSender;

/// Label of the payout address in the daemon's wallet, P2Pool's.
const WALLET_LABEL: &str = "p2pool";

/// `getaddressesbylabel`'s error for an unused label (`RPC_WALLET_INVALID_LABEL_NAME`).
const NO_SUCH_LABEL: i32 = -11;

/// Settings of the connection to the daemon.
#[derive(Debug, Clone)]
pub struct Config {
    /// Host name or IP address, for RPC and P2P.
    pub address: String,
    /// RPC port; else the one in `bitcoin.conf`, else the network's.
    pub rpc_port: Option<u16>,
    /// P2P port; else the one in `bitcoin.conf`, else the network's.
    pub p2p_port: Option<u16>,
    /// User and password from the operator; else `bitcoin.conf`'s, else the cookie's.
    pub credentials: Option<Login>,
    /// Path of `bitcoin.conf`, if not the usual one.
    pub config_path: Option<PathBuf>,
    /// Set to accept a daemon older than the oldest known to work.
    pub allow_obsolete: bool,
    /// Time without a template after which the daemon counts as gone. It is polled three times as often, or every
    /// [`POLL_INTERVAL`] if that is more often.
    pub gone_after: Duration,
}

impl Config {
    /// Settings for a daemon on this machine with default paths, gone after a minute.
    pub fn local() -> Self {
        Self {
            address: "127.0.0.1".to_owned(),
            rpc_port: None,
            p2p_port: None,
            credentials: None,
            config_path: None,
            allow_obsolete: false,
            gone_after: Duration::from_secs(60),
        }
    }
}

/// The daemon's ports and RPC client.
pub(super) struct DaemonEndpoint {
    pub(super) rpc: Rpc,
    pub(super) p2p_port: u16,
}

pub(super) fn reach(config: &Config, network: &Network) -> Result<DaemonEndpoint, CredentialsError> {
    let home = std::env::home_dir();
    let given = config.credentials.as_ref();
    let found = credentials::find(given, config.config_path.as_deref(), home.as_deref(), &network.parent)?;
    let rpc_port = config.rpc_port.or(found.rpc_port).unwrap_or(network.parent.rpc_port);
    let p2p_port = config.p2p_port.or(found.p2p_port).unwrap_or(network.parent.p2p_port);
    Ok(DaemonEndpoint { rpc: Rpc::new(&config.address, rpc_port, found.credentials), p2p_port })
}

/// Starts all tasks that talk to the daemon, and returns at once: the daemon may start later.
///
/// # Errors
/// No credentials, an error that waiting does not resolve.
pub async fn start(
    config: Config,
    network: &'static Network,
    journal: Journal,
    tasks: &Tasks,
) -> Result<Handle, CredentialsError> {
    let DaemonEndpoint { rpc, p2p_port } = reach(&config, network)?;
    let template_sender = TemplateSender::default();
    let (templates, recent_templates) = (template_sender.newest(), template_sender.recent());
    let next_block = template_sender.next_block();
    let (health_sender, health) = watch::channel(Health::default());
    let monitor = Monitor::new(health_sender, template_sender, config.gone_after);
    let news = Arc::new(Notify::new());

    let (p2p_route, peer) = peer::new(&config.address, p2p_port, network, monitor.clone(), news.clone());
    let standing = StandingConnection::new(rpc.clone());
    let rpc_route = Arc::new(RpcRoute::new(rpc.clone(), standing.clone()));
    // RPC first: where the two disagree, its answers are more precise.
    let inputs = submit::Inputs { journal, routes: vec![rpc_route, p2p_route], next_block: next_block.clone() };
    let submit::Handle { blocks, resubmitter, reports } = submit::start(tasks, inputs);
    tasks.spawn("bitcoind p2p", peer.run());
    tasks.spawn("bitcoind standing connection", standing.keep(tasks.stop_signal()));
    tasks.spawn("bitcoind health", monitor.clone().run(tasks.stop_signal()));
    // Often enough that a quiet daemon never counts as gone, even if a poll or two are lost.
    let poll_interval = POLL_INTERVAL.min(config.gone_after / 3);
    let (heights, teller) = heights::new(Some(rpc.clone()), templates.clone());
    tasks.spawn("bitcoind heights", teller.run(tasks.stop_signal()));
    let (headers, best_header) = watch::channel(None);
    tasks.spawn("bitcoind headers", headers::run(rpc.clone(), templates.clone(), headers, tasks.stop_signal()));
    let explorer = Arc::new(rpc.clone());
    let allow_obsolete = config.allow_obsolete;
    let follower = Follower { rpc, network, allow_obsolete, monitor, poll_interval, news: news.clone() };
    tasks.spawn("bitcoind templates", follower.run(tasks.stop_signal()));
    Ok(Handle {
        templates,
        next_block,
        recent_templates,
        health,
        blocks,
        resubmitter,
        heights,
        reports,
        best_header,
        explorer,
        news,
    })
}

/// Reason why the daemon's wallet returned no usable address.
#[derive(Debug, Error)]
pub enum WalletError {
    /// The credentials are missing.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The call failed, or did not return an address.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The wallet returned an address that this network cannot pay.
    #[error("bitcoind's wallet returned the address {0}, which this network cannot pay")]
    Address(String),
}

/// Returns an address of the daemon's wallet: that of an earlier start, else a new one. `None` without a wallet.
///
/// # Errors
/// The call failed, or did not return an address of this network.
pub async fn wallet_address(config: &Config, network: &'static Network) -> Result<Option<String>, WalletError> {
    let rpc = reach(config, network)?.rpc;
    let labelled = rpc.call::<BTreeMap<String, Value>>("getaddressesbylabel", vec![json!(WALLET_LABEL)]).await;
    match labelled {
        Ok(addresses) => {
            if let Some(address) = addresses.into_keys().find(|address| is_payable(address, network)) {
                return Ok(Some(address));
            }
        }
        Err(error) if matches!(error.code(), Some(code::NO_METHOD | code::NO_WALLET)) => return Ok(None),
        Err(error) if error.code() == Some(NO_SUCH_LABEL) => {}
        Err(error) => return Err(error.into()),
    }
    let address: String = rpc.call("getnewaddress", vec![json!(WALLET_LABEL), json!("bech32")]).await?;
    if is_payable(&address, network) { Ok(Some(address)) } else { Err(WalletError::Address(address)) }
}

/// True if `address` is of this network and of a kind that shares can pay: base58 or segwit version 0.
fn is_payable(address: &str, network: &Network) -> bool {
    script_of(address, &network.parent).is_ok()
}

/// Registers all metrics of the daemon's side.
pub fn families() {
    describe_histogram!(
        "bitcoind_rpc_seconds",
        Unit::Seconds,
        "Time of RPC calls to bitcoind, by method; long polls, which wait for news, have a label of their own"
    );
    describe_counter!(
        "bitcoind_rpc_failures_total",
        "RPC calls to bitcoind that failed, by method and kind of failure"
    );
    describe_gauge!(
        "bitcoind_rpc_standing_connection",
        "1 while the RPC connection that is kept open for found blocks is open, else 0"
    );
    describe_gauge!("bitcoind_template_height", "Height of the block that bitcoind's template is for");
    describe_gauge!("bitcoind_template_transactions", "Transactions in bitcoind's template");
    describe_counter!("bitcoind_templates_total", "Templates received, by what brought them: poll, long_poll, block");
    describe_gauge!("bitcoind_p2p_connected", "1 while the P2P connection to bitcoind is up, else 0");
    describe_histogram!(
        "bitcoind_template_seconds",
        Unit::Seconds,
        "Time from the trigger of a template (a block, the poll or a long poll's answer) until it is ready"
    );
    describe_gauge!("bitcoind_template_timestamp_seconds", "Time of the newest template, in seconds since 1970");
    describe_gauge!("bitcoind_up", "1 while bitcoind delivers templates, 0 before the first and when it is gone");
    describe_gauge!(
        "bitcoind_clock_ahead_seconds",
        "Seconds that this machine's clock is ahead of bitcoind's at least; negative: behind"
    );
    gauge!("bitcoind_clock_ahead_seconds").set(0.0);
    gauge!("bitcoind_up").set(0.0);
    gauge!("bitcoind_p2p_connected").set(0.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use sharechain::coin::{BITCOIN, BITCOIN_REGTEST};

    #[test]
    fn only_addresses_that_shares_can_pay_are_taken_from_the_wallet() {
        assert!(is_payable("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", &BITCOIN));
        assert!(is_payable("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", &BITCOIN));
        assert!(!is_payable("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", &BITCOIN_REGTEST));
        let taproot = "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0";
        assert!(!is_payable(taproot, &BITCOIN));
        assert!(!is_payable("nonsense", &BITCOIN));
    }
}
