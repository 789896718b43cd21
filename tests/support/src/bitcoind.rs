//! A real `bitcoind` for a test.

use bitcoin::BlockHash;
use bitcoincore_rpc::RpcApi;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

use crate::daemon::{Daemon, Program};

/// How the tests find and start it. `tests/bitcoind.sh` builds Bitcoin Core's source from the Cargo package that the
/// folder is named after, and names the same version.
const PROGRAM: Program = Program {
    name: "bitcoind",
    variable: "BITCOIND",
    built: Some("libbitcoinkernel-sys-0.4.1"),
    advice: "Run tests/bitcoind.sh, which builds it once.",
    network: "bitcoin_regtest",
    address_prefix: "bcrt",
    testnet_folder: "testnet3",
    args: &["-fixedseeds=0", "-natpmp=0"],
};

/// Bitcoin's [`Daemon`], which has no wallet.
#[derive(Debug)]
pub struct Bitcoind(Daemon);

impl Bitcoind {
    /// Starts a daemon on a fresh regtest chain.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a daemon with further arguments. `-chain=signet` and the like replace regtest; `-connect=…` replaces the
    /// rule that it seeks no peers.
    pub fn start_with(args: &[&str]) -> Self {
        Self(Daemon::start_program(&PROGRAM, args))
    }

    /// Path of the program; `bitcoin-cli` is beside the one that the tests build.
    pub fn program() -> PathBuf {
        PROGRAM.find()
    }

    /// A block with all its transactions.
    pub fn block(&self, hash: &BlockHash) -> bitcoin::Block {
        self.client().get_block(hash).expect("a block of the best chain is stored")
    }
}

impl Deref for Bitcoind {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.0
    }
}

impl DerefMut for Bitcoind {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::payout_address;
    use crate::daemon::mine_blocks;
    use bitcoincore_rpc::{Auth, Client};

    #[test]
    fn a_daemon_survives_pause_stop_and_kill_with_its_chain() {
        let mut daemon = Bitcoind::start();
        let script = payout_address(1).script_pubkey();
        let mined = mine_blocks(&daemon, 3, &script);
        assert_eq!(daemon.best_block_hash(), mined[2]);
        assert_eq!(daemon.block(&mined[2]).txdata[0].output[0].script_pubkey, script);
        daemon.pause();
        daemon.resume();
        daemon.stop();
        daemon.restart();
        assert_eq!(daemon.best_block_hash(), mined[2]);
        let (user, password) = daemon.credentials();
        let client = Client::new(&daemon.rpc_address(), Auth::UserPass(user, password)).expect("well formed");
        assert_eq!(client.get_block_count().expect("the credentials hold"), 3);
        daemon.pause();
        let folder = daemon.data_dir().to_owned();
        drop(daemon);
        assert!(!folder.exists(), "{} was left behind", folder.display());
    }
}
