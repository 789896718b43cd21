//! One-time look at a merged chain's daemon, for `p2pool doctor`: asks what a node asks, and starts nothing.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sharechain::merged::MergedBlock;
use std::sync::Arc;
use std::time::Duration;

use super::daemon::Daemon;
use super::offers::{MINERS, Offer};
use super::trouble::Trouble;
use super::{ChainConfig, Mode, Pays};
use crate::bitcoind::rpc::{CallLimits, Rpc};

/// Limits of a call beside those of a node.
const CALL: CallLimits = CallLimits { timeout: Duration::from_secs(10), answer_bytes_max: 64 * 1024 };

/// Headers without their blocks from which a daemon downloads its chain, if it does not say so itself.
const MISSING_MAX: u32 = 10;

/// Daemon of a merged chain as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct DaemonReport {
    /// Name of the chain.
    pub chain: Arc<str>,
    /// Address and port of the daemon's RPC.
    pub daemon: String,
    /// How work is asked for.
    pub mode: Mode,
    /// Payee of the chain's blocks, for display.
    pub payee: Arc<str>,
    /// What the daemon answered, or why it did not.
    pub findings: Result<Findings, Trouble>,
}

/// Answers of a daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct Findings {
    /// User agent, printable; empty if the daemon does not say it.
    pub version: Arc<str>,
    /// Numbers of blocks and headers, while the chain is being downloaded.
    pub download: Option<(u32, u32)>,
    /// Set if the daemon says that the configured address is none of its chain.
    pub is_address_foreign: bool,
    /// The chain's next block; one in its place, without its hash, if the node would make it.
    pub block: Result<MergedBlock, Trouble>,
    /// Whether the node could make blocks that pay the miners; `None` if the operator does not want that.
    pub templates: Option<Result<(), Trouble>>,
}

/// Part of an answer to `getblockchaininfo`.
#[derive(Deserialize)]
struct Download {
    blocks: u32,
    headers: u32,
    /// Missing in daemons made from old versions of Bitcoin Core.
    #[serde(rename = "initialblockdownload")]
    is_initial: Option<bool>,
}

impl Download {
    fn is_unfinished(&self) -> bool {
        self.is_initial.unwrap_or(self.headers > self.blocks.saturating_add(MISSING_MAX))
    }
}

/// Part of an answer to `validateaddress`.
#[derive(Deserialize)]
struct AddressInfo {
    #[serde(rename = "isvalid")]
    is_valid: bool,
}

/// Examines the daemon of a chain.
pub async fn probe(config: &ChainConfig) -> DaemonReport {
    let daemon = Daemon::new(config);
    let mut report = DaemonReport {
        chain: config.name.clone(),
        daemon: daemon.target().to_owned(),
        mode: if config.pays == Pays::Miners { Mode::Payouts } else { daemon.mode() },
        payee: if config.pays == Pays::Miners { MINERS.into() } else { daemon.payee().clone() },
        findings: Err(Trouble::NoPayoutsYet),
    };
    report.findings = match daemon.version().await {
        Ok(version) => {
            let findings = look(config, &daemon, version).await;
            if findings.block.as_ref().is_ok_and(|block| *block.payee == *MINERS) {
                (report.mode, report.payee) = (Mode::Payouts, MINERS.into());
            }
            Ok(findings)
        }
        Err(trouble) => Err(trouble),
    };
    report
}

async fn look(config: &ChainConfig, daemon: &Daemon, version: Arc<str>) -> Findings {
    let ChainConfig { name, host, port, path, credentials, address, .. } = config;
    let rpc = Rpc::of_merged(name.clone(), host, *port, path, credentials.clone());
    let download: Option<Download> = ask(&rpc, "getblockchaininfo", Vec::new()).await;
    let is_address_foreign = match address {
        Some(address) => {
            ask(&rpc, "validateaddress", vec![json!(address)]).await.is_some_and(|info: AddressInfo| !info.is_valid)
        }
        None => false,
    };
    let (block, templates) = next_block(config, daemon).await;
    Findings {
        version,
        download: download.filter(Download::is_unfinished).map(|download| (download.blocks, download.headers)),
        is_address_foreign,
        block,
        templates,
    }
}

/// The next block that a node would mine, and whether it could make one that pays the miners.
async fn next_block(
    config: &ChainConfig,
    daemon: &Daemon,
) -> (Result<MergedBlock, Trouble>, Option<Result<(), Trouble>>) {
    if config.pays == Pays::One {
        return (daemon.next_block(None, None).await, None);
    }
    let offer = daemon.template().await.map(|template| Offer::Template { chain: config.name.clone(), template });
    let own = offer.map(|offer| offer.stand_in());
    let templates = own.as_ref().map(|_| ()).map_err(Clone::clone);
    if config.pays == Pays::Miners {
        return (own, Some(templates));
    }
    let block = match (daemon.next_block(None, None).await, own) {
        // It makes no blocks, and need not.
        (Err(Trouble::NoGet | Trouble::NoCreate { .. } | Trouble::Wallet { .. }), Ok(own)) => Ok(own),
        (made, _) => made,
    };
    (block, Some(templates))
}

/// Asks for what the daemon need not have; what is wrong with it shows when it is asked for work.
async fn ask<T: DeserializeOwned + Send + 'static>(rpc: &Rpc, method: &'static str, params: Vec<Value>) -> Option<T> {
    rpc.call_within_limits(CALL, method, params).await.ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scripted;
    use super::*;

    fn block() -> Value {
        json!({
            "hash": "11".repeat(32), "chainid": 98, "previousblockhash": "22".repeat(32), "height": 5,
            "coinbasevalue": 1_000_000_000_000_u64, "target": "ff".repeat(31) + "00",
        })
    }

    async fn found(daemon: &Scripted, config: &ChainConfig) -> Findings {
        let report = probe(config).await;
        assert_eq!((&*report.chain, report.mode), ("doge", Mode::Address));
        assert!(daemon.called().iter().all(|(method, _)| !method.starts_with("submit")));
        report.findings.unwrap()
    }

    #[tokio::test]
    async fn a_daemon_is_reported_with_its_next_block_and_what_it_lacks_is_not_missed() {
        let (daemon, config) = Scripted::start(Some("D8")).await;
        daemon.answers("createauxblock", block());
        let bare = found(&daemon, &config).await;
        assert_eq!((&*bare.version, bare.download, bare.is_address_foreign), ("", None, false));
        assert_eq!(bare.block.unwrap().height, 5);
        daemon.answers("getnetworkinfo", json!({"subversion": "/Shibetoshi:1.14.9/"}));
        daemon.answers("validateaddress", json!({"isvalid": true}));
        daemon.answers("getblockchaininfo", json!({"blocks": 5, "headers": 7}));
        let whole = found(&daemon, &config).await;
        assert_eq!((&*whole.version, whole.download, whole.is_address_foreign), ("/Shibetoshi:1.14.9/", None, false));
    }

    #[tokio::test]
    async fn blocks_that_would_pay_the_miners_are_reported_where_they_are_wanted() {
        let template = json!({
            "version": 0x0062_0004, "previousblockhash": "22".repeat(32), "transactions": [], "coinbasevalue": 5,
            "target": "00".repeat(4) + "ffff" + &"00".repeat(26), "curtime": 1_700_000_000, "bits": "1d00ffff", "height": 5,
        });
        let reported = async |pays, has_template, has_block| {
            let (daemon, config) = Scripted::start(Some("D8")).await;
            if has_template {
                daemon.answers("getblocktemplate", template.clone());
            }
            if has_block {
                daemon.answers("createauxblock", block());
            }
            let report = probe(&ChainConfig { pays, ..config }).await;
            let findings = report.findings.unwrap();
            (report.mode, report.payee.to_string(), findings.block.is_ok(), findings.templates.map(|one| one.is_ok()))
        };
        let [miners, d8] = ["the miners", "D8"].map(str::to_owned);
        let expected = (Mode::Address, d8.clone(), true, Some(true));
        assert_eq!(reported(Pays::MinersIfPossible, true, true).await, expected);
        let without = (Mode::Address, d8.clone(), true, Some(false));
        assert_eq!(reported(Pays::MinersIfPossible, false, true).await, without);
        let alone = (Mode::Payouts, miners.clone(), true, Some(true));
        assert_eq!(reported(Pays::MinersIfPossible, true, false).await, alone, "it need not make blocks");
        assert_eq!(reported(Pays::Miners, true, true).await, alone);
        assert_eq!(reported(Pays::Miners, false, true).await, (Mode::Payouts, miners, false, Some(false)));
        assert_eq!(reported(Pays::One, true, true).await, (Mode::Address, d8, true, None));
    }

    #[tokio::test]
    async fn a_foreign_address_and_an_unfinished_download_are_reported() {
        let (daemon, config) = Scripted::start(Some("bc1q")).await;
        daemon.answers("validateaddress", json!({"isvalid": false}));
        daemon.fails("createauxblock", -10, "downloading");
        for info in
            [json!({"blocks": 5, "headers": 5, "initialblockdownload": true}), json!({"blocks": 5, "headers": 16})]
        {
            daemon.answers("getblockchaininfo", info.clone());
            let found = found(&daemon, &config).await;
            assert!(found.is_address_foreign);
            assert_eq!(found.download.map(|(blocks, _)| blocks), Some(5), "{info}");
            assert!(matches!(found.block, Err(Trouble::Syncing(_))), "{:?}", found.block);
        }
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_reported_with_its_place() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (_, config) = Scripted::start(None).await;
        let report = probe(&ChainConfig { port, ..config }).await;
        assert_eq!((report.mode, report.daemon), (Mode::Wallet, format!("127.0.0.1:{port}")));
        assert!(report.findings.is_err());
    }
}
