//! Merged-mined chains: their daemons' next blocks in, found blocks with their proofs of work out, one task per chain.
//!
//! ```text
//! daemon ── createauxblock ──▶ Chain ──▶ watch<Arc<MergedWork>> ──▶ work
//!        ◀── submitauxblock ── blocks (one pipeline per chain) ◀── FoundBlock ── solution
//! ```
//!
//! Nothing here is waited for by the parent chain: a daemon that is gone, slow or wrong costs its own chain only.

mod status;

pub use status::{ChainStatus, Mode, State};

use bitcoin::BlockHash;
use parking_lot::Mutex;
use sharechain::merged::MergedWork;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use crate::bitcoind::credentials::Credentials;
use crate::blocks::FoundBlock;
use crate::blocks::found::FoundBlocks;

/// Default of [`Config::pause`].
pub const PAUSE: Duration = Duration::from_secs(3);

/// Maximum number of chains: more would make every job's commitment costly to keep up to date.
pub const CHAINS_MAX: usize = 16;

/// Capacity of a chain's queue of found blocks. Each is taken up at once, however its daemon does.
pub const QUEUED_MAX: usize = 64;

/// Found blocks remembered for each chain, so that each is passed on once: jobs of the last minutes hold few others.
const KNOWN_MAX: usize = 1024;

/// Settings of merged mining.
#[derive(Debug, Clone)]
pub struct Config {
    /// Chains, in the order given.
    pub chains: Vec<ChainConfig>,
    /// Minimum time between two changes of miners' jobs that only merged chains caused.
    pub pause: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { chains: Vec::new(), pause: PAUSE }
    }
}

/// Settings of one merged chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainConfig {
    /// Name of the chain: of `a` to `z`, digits and `-`, unique; its folder's name, too.
    pub name: Arc<str>,
    /// Host of its daemon.
    pub host: String,
    /// RPC port of its daemon.
    pub port: u16,
    /// Path of the daemon's RPC, `/` if none was given (a wallet's is `/wallet/NAME`).
    pub path: String,
    /// User and password: given, or in a file that is read at each use.
    pub credentials: Credentials,
    /// Payee of its blocks, an address of the chain; `None` leaves it to the daemon's wallet.
    pub address: Option<String>,
}

/// Handle to merged mining. Clones share it.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Next blocks of all chains whose work can be used.
    pub work: watch::Receiver<Arc<MergedWork>>,
    /// Where found blocks go.
    pub blocks: MergedBlocks,
    /// Condition of each chain, in the order of the configuration.
    pub status: watch::Receiver<Arc<Vec<ChainStatus>>>,
    /// Found blocks of all merged chains, latest first.
    pub found: watch::Receiver<Arc<FoundBlocks>>,
}

impl Default for Handle {
    /// A handle without chains.
    fn default() -> Self {
        Self {
            work: watch::channel(Arc::default()).1,
            blocks: MergedBlocks::default(),
            status: watch::channel(Arc::default()).1,
            found: watch::channel(Arc::default()).1,
        }
    }
}

/// What became of a block that was passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    New,
    /// It was found before: its daemon has not made another yet, and every solution until then is of the same block.
    Known,
}

/// Reason why a block cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotSent {
    /// No chain has this name.
    #[error("no such chain is configured")]
    NoChain,
    /// Its queue is full.
    #[error("{QUEUED_MAX} of its blocks wait already")]
    Full,
    /// Its task has ended.
    #[error("the node is stopping")]
    Stopping,
}

/// Queues of found blocks, one for each chain. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MergedBlocks(Arc<[Queue]>);

#[derive(Debug)]
struct Queue {
    chain: Arc<str>,
    blocks: mpsc::Sender<FoundBlock>,
    /// The last blocks found, latest last.
    known: Mutex<VecDeque<BlockHash>>,
}

impl MergedBlocks {
    /// Queues of these chains, by name.
    pub fn new(queues: Vec<(Arc<str>, mpsc::Sender<FoundBlock>)>) -> Self {
        let queue = |(chain, blocks)| Queue { chain, blocks, known: Mutex::default() };
        Self(queues.into_iter().map(queue).collect())
    }

    /// Passes `block` of `chain` on, without waiting for anything.
    ///
    /// # Errors
    /// [`NotSent`].
    pub fn send(&self, chain: &str, block: FoundBlock) -> Result<Sent, NotSent> {
        let queue = self.0.iter().find(|queue| &*queue.chain == chain).ok_or(NotSent::NoChain)?;
        let mut known = queue.known.lock();
        if known.contains(&block.hash) {
            return Ok(Sent::Known);
        }
        let hash = block.hash;
        queue.blocks.try_send(block).map_err(|error| match error {
            TrySendError::Full(_) => NotSent::Full,
            TrySendError::Closed(_) => NotSent::Stopping,
        })?;
        if known.len() >= KNOWN_MAX {
            known.pop_front();
        }
        known.push_back(hash);
        Ok(Sent::New)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Finding;
    use bitcoin::hashes::Hash;

    fn block(number: u8) -> FoundBlock {
        FoundBlock {
            hash: BlockHash::from_byte_array([number; 32]),
            previous_block: BlockHash::all_zeros(),
            height: 1,
            bytes: vec![number].into(),
            finding: Finding { value: 1, payee: "operator".into(), finder: "miner".into(), is_ours: true },
            judged_at: None,
        }
    }

    #[tokio::test]
    async fn each_block_goes_to_its_chain_once() {
        let (one, mut of_one) = mpsc::channel(QUEUED_MAX);
        let (other, mut of_other) = mpsc::channel(1);
        let queues = MergedBlocks::new(vec![("one".into(), one), ("other".into(), other)]);
        assert_eq!(queues.send("one", block(1)), Ok(Sent::New));
        assert_eq!(queues.clone().send("one", block(1)), Ok(Sent::Known), "clones share what is known");
        assert_eq!(queues.send("other", block(1)), Ok(Sent::New), "each chain has blocks of its own");
        assert_eq!(queues.send("third", block(1)), Err(NotSent::NoChain));
        assert_eq!(of_one.recv().await, Some(block(1)));

        assert_eq!(queues.send("other", block(2)), Err(NotSent::Full));
        assert_eq!(of_other.recv().await, Some(block(1)));
        assert_eq!(queues.send("other", block(2)), Ok(Sent::New), "what was refused can be sent later");
        drop(of_other);
        assert_eq!(queues.send("other", block(3)), Err(NotSent::Stopping));
    }

    #[test]
    fn old_blocks_are_forgotten() {
        let (sender, mut receiver) = mpsc::channel(1);
        let queues = MergedBlocks::new(vec![("one".into(), sender)]);
        for number in 0..=KNOWN_MAX {
            let hash = BlockHash::from_byte_array(
                [[0; 28].as_slice(), &number.to_le_bytes()[..4]].concat().try_into().unwrap(),
            );
            assert_eq!(queues.send("one", FoundBlock { hash, ..block(1) }), Ok(Sent::New));
            receiver.try_recv().unwrap();
        }
        assert_eq!(queues.0[0].known.lock().len(), KNOWN_MAX);
    }
}
