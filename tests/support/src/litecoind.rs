//! A real `litecoind` for a test, with a wallet on each side of its extension block (MWEB).
//!
//! The wallets are two so that the kind of a transaction is certain: `main` never has a coin of any value inside the
//! extension block, since its peg-ins leave no change, and `mweb` never has one outside.
//!
//! Without a peer, `getblocktemplate` answers `Litecoin Core is not connected!` also on regtest. A node's own connection
//! is such a peer; a test that cuts it needs a second daemon ([`Litecoind::connect`]).

use bitcoin::BlockHash;
use serde_json::{Value, json};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::daemon::{Daemon, Program, mine_blocks};
use crate::node::wait_until;

/// How the tests find and start it. A fallback fee, because a new chain has no fees to estimate one from; few keys in
/// advance, because a thousand for each wallet take two seconds.
const PROGRAM: Program = Program {
    name: "litecoind",
    variable: "LITECOIND",
    built: None,
    advice: "Install Debian's package litecoind.",
    network: "litecoin_regtest",
    address_prefix: "rltc",
    testnet_folder: "testnet4",
    args: &["-upnp=0", "-fallbackfee=0.001", "-keypool=5"],
};

/// Height of regtest's first block with an extension block: its deployment is voted on for 144 blocks, and locked in for
/// 144 more, after a first 144 without votes.
const MWEB_HEIGHT: u64 = 432;

/// Time until a daemon has the chain of another one.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Wallet of ordinary coins.
const MAIN: &str = "main";

/// Wallet of coins inside the extension block.
const MWEB: &str = "mweb";

/// Litecoin's [`Daemon`].
#[derive(Debug)]
pub struct Litecoind(Daemon);

impl Litecoind {
    /// Starts a daemon on a fresh regtest chain, with empty wallets.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a daemon with further arguments, as [`Bitcoind::start_with`](crate::Bitcoind::start_with) does.
    pub fn start_with(args: &[&str]) -> Self {
        let daemon = Daemon::start_program(&PROGRAM, args);
        for wallet in [MAIN, MWEB] {
            // With keys, not blank, not encrypted, not of descriptors, which have no MWEB; loaded at each start.
            daemon.call("createwallet", json!([wallet, false, false, "", false, false, true]));
        }
        Self(daemon)
    }

    /// Starts a daemon on a fresh regtest chain of 432 blocks. The last one is the first with an extension block, into
    /// which it brings a coin of [`Self::peg_in`].
    pub fn start_with_mweb() -> Self {
        let daemon = Self::start();
        daemon.activate_mweb();
        daemon
    }

    /// Connects it to another daemon, and waits until both have the same chain.
    pub fn connect(&self, other: &Self) {
        self.call("addnode", json!([format!("127.0.0.1:{}", other.p2p_port()), "onetry"]));
        wait_until("the daemons have the same chain", CONNECT_LIMIT, || {
            self.call("getconnectioncount", json!([])) != 0 && self.best_block_hash() == other.best_block_hash()
        });
    }

    /// Ends a connection that [`Self::connect`] made.
    pub fn disconnect(&self, other: &Self) {
        self.call("disconnectnode", json!([format!("127.0.0.1:{}", other.p2p_port())]));
        wait_until("the daemons are apart", CONNECT_LIMIT, || self.call("getconnectioncount", json!([])) == 0);
    }

    /// Mines up to the first block with an extension block, which must contain a peg-in.
    pub fn activate_mweb(&self) {
        let left = (MWEB_HEIGHT - 1).checked_sub(self.height()).expect("the chain is not that long yet");
        self.mine(usize::try_from(left).expect("a small number"));
        self.peg_in();
        let first = self.mine(1);
        assert!(self.has_mweb(&first[0]), "the extension block is not active at height {}", self.height());
    }

    /// Mines blocks that pay the wallet, and returns their hashes.
    pub fn mine(&self, count: usize) -> Vec<BlockHash> {
        let info = self.call_wallet(MAIN, "getaddressinfo", json!([self.new_address()]));
        let script = info["scriptPubKey"].as_str().expect("an address of the wallet has a script");
        mine_blocks(self, count, &bitcoin::ScriptBuf::from_hex(script).expect("scripts are given in hex"))
    }

    /// New segwit address of the wallet.
    pub fn new_address(&self) -> String {
        text(&self.call_wallet(MAIN, "getnewaddress", json!(["", "bech32"])))
    }

    /// New address inside the extension block.
    pub fn new_mweb_address(&self) -> String {
        text(&self.call_wallet(MWEB, "getnewaddress", json!(["", "mweb"])))
    }

    /// Sends an ordinary transaction that pays `coins` to an address, and returns its id.
    pub fn send(&self, address: &str, coins: f64) -> String {
        text(&self.call_wallet(MAIN, "sendtoaddress", json!([address, coins])))
    }

    /// Sends a transaction that brings one whole mature coin into the extension block, and returns its id.
    pub fn peg_in(&self) -> String {
        let coins = self.call_wallet(MAIN, "listunspent", json!([1]));
        // The change of earlier ones is listed too, as coins inside without an output number and of no value.
        let outside = coins.as_array().and_then(|coins| coins.iter().find(|coin| coin["vout"].is_u64()));
        let amount = &outside.expect("the wallet has a mature coin")["amount"];
        // The fee comes out of the amount: change would become a coin inside, and this wallet is to have none.
        let params = json!([self.new_mweb_address(), amount, "", "", true]);
        text(&self.call_wallet(MAIN, "sendtoaddress", params))
    }

    /// Sends a transaction that pays `coins` from inside the extension block to an ordinary address, and returns its id.
    pub fn peg_out(&self, address: &str, coins: f64) -> String {
        text(&self.call_wallet(MWEB, "sendtoaddress", json!([address, coins])))
    }

    /// Sends a transaction that stays inside the extension block, and returns its id.
    pub fn send_in_mweb(&self, coins: f64) -> String {
        self.peg_out(&self.new_mweb_address(), coins)
    }

    /// True if the block has an extension block.
    pub fn has_mweb(&self, hash: &BlockHash) -> bool {
        self.call("getblock", json!([hash, 2]))["mweb"].is_object()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a text")).to_owned()
}

impl Deref for Litecoind {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.0
    }
}

impl DerefMut for Litecoind {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coins::Spender;

    #[test]
    fn every_kind_of_transaction_is_mined_with_the_extension_block_also_after_a_restart() {
        let mut daemon = Litecoind::start();
        let mut spender = Spender::new(&daemon);
        daemon.activate_mweb();
        daemon.stop();
        daemon.restart();
        let sent = spender.send_many(&daemon, 10);
        daemon.send_in_mweb(1.0);
        daemon.peg_in();
        let payee = daemon.new_address();
        daemon.send(&payee, 1.0);
        assert_eq!(daemon.mempool().len(), sent.len() + 3);
        let first = daemon.mine(1)[0];
        daemon.peg_out(&payee, 0.5);
        let second = daemon.mine(1)[0];
        assert_eq!(daemon.mempool(), []);
        // Each with a coinbase and the transaction that stands for the extension block, as its last.
        for (block, transactions, kernels) in [(first, sent.len() + 4, 2), (second, 2, 1)] {
            let block = daemon.call("getblock", json!([block, 2]));
            assert_eq!(block["tx"].as_array().map(Vec::len), Some(transactions));
            assert_eq!(block["mweb"]["num_kernels"], kernels);
        }
        let paid = daemon.call("getblock", json!([second, 2]))["tx"][1]["vout"][1].take();
        assert_eq!((&paid["value"], &paid["scriptPubKey"]["addresses"][0]), (&json!(0.5), &json!(payee)));
    }
}
