//! Merged chains of the demo: one like Dogecoin, one like Namecoin, each with a daemon inside this process.

use anyhow::Result;
use bitcoin::{Amount, BlockHash, Script};
use futures::future::select_all;
use sharechain::coin::{Network, Pow};
use sharechain::share::MARKER_SCRIPT;
use std::future::pending;
use std::time::Duration;

use crate::bitcoind::credentials::{Credentials, Login};
use crate::embedded::auxiliary::proof::ParentPow;
use crate::embedded::auxiliary::{Addresses, Bits, Config, Daemon, Rules};
use crate::merged;
use crate::runtime::tasks::Tasks;

/// Target times between blocks, different so that the chains' difficulties are, too.
const DOGECOIN_SPACING: Duration = Duration::from_secs(8);
const NAMECOIN_SPACING: Duration = Duration::from_secs(12);

/// Age at which a block to be mined is replaced by a new one, which has easier bits if it took long.
const RENEWAL: Duration = Duration::from_secs(20);

/// Owner of the address that is paid where the chain takes one, as long as its blocks do not pay the miners.
const OPERATOR: &str = "node";

/// Maximum time for the last answers.
const GRACE: Duration = Duration::from_secs(2);

/// A block of a merged chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MergedBlock {
    /// Name of the chain.
    pub(super) chain: String,
    pub(super) height: u32,
    pub(super) hash: BlockHash,
    /// Base units that the coinbase pays.
    pub(super) value: u64,
    /// Addresses that it pays, with base units; without the donation.
    pub(super) payouts: Vec<(String, u64)>,
    /// True if these are the miners of the pool.
    pub(super) pays_miners: bool,
}

/// Merged chains, or none.
#[derive(Debug, Default)]
pub(super) struct MergedChains {
    /// Each with the height of the last block that was narrated.
    chains: Vec<(Daemon, u32)>,
    /// Apart from the node's: the daemons outlive it, as it submits what it finds until it has stopped.
    tasks: Tasks,
}

impl MergedChains {
    /// Starts both for the coin `coin`, with difficulties for miners of `hash_rate`.
    pub(super) fn start(coin: &Network, hash_rate: f64) -> Result<Self> {
        let tasks = Tasks::new();
        let parent_pow = match coin.parent.pow {
            Pow::Sha256d => ParentPow::Sha256d,
            Pow::Scrypt => ParentPow::Scrypt,
        };
        let start = |config: Config, spacing| -> Result<_> {
            let bits = Bits::Adaptive { hash_rate, spacing };
            let rules = Rules { parent_pow, bits, renewal: RENEWAL, ..config.rules };
            Ok((Daemon::start(Config { rules, ..config }, &tasks)?, 0))
        };
        // An early program: work is asked for in another way, and the daemon's wallet is paid.
        let namecoin = Config { creates: false, ..Config::namecoin() };
        let mut dogecoin = Config::dogecoin();
        if let Some(chain) = coin.paid_merged_chain() {
            // Miners name addresses of this one, main or test network.
            let (pubkey_hash, script_hash) = (chain.address_version, chain.address_p2sh_version);
            dogecoin.rules.addresses = Addresses { pubkey_hash, script_hash, human_readable_part: None };
        }
        let chains = vec![start(dogecoin, DOGECOIN_SPACING)?, start(namecoin, NAMECOIN_SPACING)?];
        Ok(Self { chains, tasks })
    }

    /// Names of the chains.
    pub(super) fn names(&self) -> Vec<&str> {
        self.chains.iter().map(|(daemon, _)| daemon.config().name.as_str()).collect()
    }

    /// Settings of a node that mines them.
    pub(super) fn config(&self) -> merged::Config {
        let chain = |daemon: &Daemon| {
            let (config, address) = (daemon.config(), daemon.address());
            merged::ChainConfig {
                name: config.name.to_ascii_lowercase().into(),
                host: address.ip().to_string(),
                port: address.port(),
                path: "/".to_owned(),
                credentials: Credentials::Fixed {
                    login: Login { user: config.user.clone(), password: config.password.clone() },
                    origin: "the demo".to_owned(),
                },
                address: config.creates.then(|| config.address_of(OPERATOR)),
                pays: merged::Pays::default(),
            }
        };
        let chains = self.chains.iter().map(|(daemon, _)| chain(daemon)).collect();
        merged::Config { chains, ..merged::Config::default() }
    }

    /// Waits until a chain has blocks that were not narrated; for ever without chains. Cancel safe.
    pub(super) async fn changed(&self) {
        let changes = self.chains.iter().map(|(daemon, narrated)| {
            let mut tips = daemon.tips();
            Box::pin(async move { tips.wait_for(|tip| tip.height > *narrated).await.is_ok() })
        });
        let changes: Vec<_> = changes.collect();
        if changes.is_empty() || !select_all(changes).await.0 {
            pending().await
        }
    }

    /// Blocks that were not narrated yet, and counts them as narrated.
    pub(super) fn news(&mut self) -> Vec<MergedBlock> {
        self.chains.iter_mut().flat_map(|(daemon, narrated)| news_of(daemon, narrated)).collect()
    }

    /// Stops the daemons, after the node.
    pub(super) async fn stop(self) {
        self.tasks.drain(GRACE).await;
    }
}

fn news_of(daemon: &Daemon, narrated: &mut u32) -> Vec<MergedBlock> {
    let config = daemon.config();
    daemon.chain(|chain, _| {
        let tip = chain.tip().height;
        let blocks = (*narrated + 1..=tip).filter_map(|height| chain.block(&chain.hash_at(height)?));
        let news = blocks.map(|block| {
            let outputs = block.transactions.first().map_or(&[][..], |coinbase| &coinbase.output);
            let is_donation = |script: &Script| script.as_bytes() == MARKER_SCRIPT;
            let paid =
                outputs.iter().filter(|output| output.value > Amount::ZERO && !is_donation(&output.script_pubkey));
            let name = |script| config.rules.addresses.text(script).unwrap_or_else(|| "an unknown script".to_owned());
            MergedBlock {
                chain: config.name.clone(),
                height: block.height,
                hash: block.hash(),
                value: block.coinbase_value(),
                payouts: paid.map(|output| (name(&output.script_pubkey), output.value.to_sat())).collect(),
                // The daemon's own blocks have one output; after the miners come a text and the donation.
                pays_miners: outputs.len() > 1,
            }
        });
        let news = news.collect();
        *narrated = tip;
        news
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use sharechain::coin::{BITCOIN_REGTEST, LITECOIN, LITECOIN_TESTNET};

    #[tokio::test]
    async fn each_block_is_narrated_once_with_what_it_pays() {
        let mut merged = MergedChains::start(&BITCOIN_REGTEST, 1e6).unwrap();
        assert_eq!(merged.names(), ["Dogecoin", "Namecoin"]);
        assert_eq!(merged.changed().now_or_never(), None);
        let mined = merged.chains[0].0.chain(|chain, now| [chain.mine(now), chain.mine(now)]);
        merged.changed().await;
        let news = merged.news();
        assert_eq!(news.iter().map(|block| block.hash).collect::<Vec<_>>(), mined);
        assert_eq!((news[1].height, news[1].value, news[1].pays_miners), (2, 10_000 * 100_000_000, false));
        assert_eq!(merged.news(), []);
        assert_eq!(merged.changed().now_or_never(), None);
        merged.stop().await;
    }

    #[tokio::test]
    async fn one_chain_is_asked_with_an_address_and_the_other_without() {
        let merged = MergedChains::start(&LITECOIN, 1e3).unwrap();
        let config = merged.config();
        let names: Vec<&str> = config.chains.iter().map(|chain| &*chain.name).collect();
        assert_eq!(names, ["dogecoin", "namecoin"]);
        assert!(config.chains[0].address.as_deref().is_some_and(|address| address.starts_with('D')));
        assert_eq!(config.chains[1].address, None);
        let of_testnet = MergedChains::start(&LITECOIN_TESTNET, 1e3).unwrap().config();
        assert!(of_testnet.chains[0].address.as_deref().is_some_and(|address| address.starts_with('n')));
        assert!(MergedChains::default().config().chains.is_empty());
        assert_eq!(MergedChains::default().changed().now_or_never(), None);
    }
}
