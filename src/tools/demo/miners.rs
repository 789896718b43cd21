//! Miners of the demo: their user names, what they are paid, and their tasks.

use bitcoin::hashes::Hash;
use bitcoin::{PubkeyHash, ScriptBuf, WPubkeyHash};
use sharechain::coin::{Network, address};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::tools::mine::{self, Miner, MinerEvent};
use crate::work::Payout;

/// Miners of the demo, each with its own address, so that the payout table has rows, and with another form of user name
/// where there is a choice.
pub(super) const MINERS: [(&str, UserName); 3] =
    [("alice", UserName::Both), ("bob", UserName::Parent), ("carol", UserName::Merged)];

/// Addresses in a miner's user name, on a coin whose merged chain pays miners. The other one has the same hash.
#[derive(Debug, Clone, Copy)]
pub(super) enum UserName {
    Both,
    Parent,
    Merged,
}

/// A miner of the demo.
#[derive(Debug)]
pub(super) struct Account {
    name: &'static str,
    /// User name at the pool.
    user: String,
    payout: Payout,
}

impl Account {
    pub(super) fn new(name: &'static str, user_name: UserName, coin: &Network) -> Self {
        let own = payout(name, coin);
        let Some(chain) = coin.paid_merged_chain() else {
            return Self { name, user: format!("{}.{name}", own.address), payout: own };
        };
        let script = ScriptBuf::new_p2pkh(&PubkeyHash::hash(format!("{name} on {}", chain.name).as_bytes()));
        let merged = chain.address_of(&script).expect("P2PKH has an address on every chain");
        let (addresses, payout) = match user_name {
            UserName::Both => (format!("{},{merged}", own.address), own.with_merged(&script, chain)),
            UserName::Parent => (own.address.to_string(), own),
            UserName::Merged => {
                (merged, Payout::to_merged(&script, chain, coin).expect("P2PKH has an address on every chain"))
            }
        };
        Self { name, user: format!("{addresses}.{name}"), payout }
    }

    /// Addresses that are paid, on all chains, each with the name.
    pub(super) fn names(&self) -> impl Iterator<Item = (String, &'static str)> {
        let merged = self.payout.merged.as_ref().map(|entry| entry.address.to_string());
        [Some(self.payout.address.to_string()), merged].into_iter().flatten().map(|address| (address, self.name))
    }
}

/// An address of `network` without an owner, made from a name.
pub(super) fn payout(name: &str, network: &Network) -> Payout {
    let script = ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(name.as_bytes()));
    let text = address::of_script(&script, &network.parent).expect("a network's human-readable part is checked");
    Payout::to_address(&text, network).expect("a P2WPKH address of the demo's chain")
}

/// Starts all miners of the demo.
pub(super) fn start_miners(
    pool: SocketAddr,
    accounts: &[Account],
    coin: &Network,
    pace: f64,
    events: &mpsc::Sender<MinerEvent>,
) -> Vec<JoinHandle<()>> {
    accounts.iter().map(|account| start_miner(pool, account, coin, pace, events.clone())).collect()
}

/// Starts a miner of the demo, which reconnects when its connection ends, as miners do.
fn start_miner(
    pool: SocketAddr,
    account: &Account,
    coin: &Network,
    pace: f64,
    events: mpsc::Sender<MinerEvent>,
) -> JoinHandle<()> {
    const PAUSE: Duration = Duration::from_secs(1);
    let worker = account.user.clone();
    let miner = Miner {
        pool: pool.to_string(),
        name: worker.clone(),
        password: "x".to_owned(),
        pow: coin.parent.pow,
        pace,
        hashes: Arc::default(),
    };
    tokio::spawn(async move {
        loop {
            if let Err(error) = mine::run(&miner, events.clone()).await {
                tracing::warn!(%error, worker, "a miner of the demo lost its pool");
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::username;
    use sharechain::coin::{BITCOIN_REGTEST, LITECOIN};

    #[test]
    fn the_pool_pays_each_miner_the_addresses_that_its_user_name_stands_for() {
        for coin in [&LITECOIN, &BITCOIN_REGTEST] {
            for (name, user_name) in MINERS {
                let account = Account::new(name, user_name, coin);
                let worker = username::parse(&account.user, coin, &payout("node", coin)).unwrap();
                assert_eq!(worker.payout, account.payout, "{}", account.user);
                assert!(worker.name.to_string().ends_with(&format!(".{name}")), "{}", worker.name);
                assert_eq!(account.names().count(), if coin.paid_merged_chain().is_some() { 2 } else { 1 });
            }
        }
    }
}
