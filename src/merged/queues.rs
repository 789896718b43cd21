//! Queues of found blocks, one for each chain.

use bitcoin::BlockHash;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::blocks::FoundBlock;
use crate::blocks::submit::PROOFS_MAX;

/// Capacity of a chain's queue of found blocks. Each is taken up at once, however its daemon does.
pub const QUEUED_MAX: usize = 64;

/// Found blocks remembered for each chain: jobs of the last minutes hold few others.
const KNOWN_MAX: usize = 1024;

/// What became of a block that was passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    New,
    /// So is another proof of a block that was found before, for the case that its daemon rejects the first.
    Again,
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
    /// The last blocks found, latest last, each with the number of proofs that may follow.
    known: Mutex<VecDeque<(BlockHash, u32)>>,
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
        let hash = block.hash;
        let before = known.iter_mut().find(|(known, _)| *known == hash);
        if before.as_ref().is_some_and(|(_, left)| *left == 0) {
            return Ok(Sent::Known);
        }
        queue.blocks.try_send(block).map_err(|error| match error {
            TrySendError::Full(_) => NotSent::Full,
            TrySendError::Closed(_) => NotSent::Stopping,
        })?;
        if let Some((_, left)) = before {
            *left -= 1;
            return Ok(Sent::Again);
        }
        if known.len() >= KNOWN_MAX {
            known.pop_front();
        }
        known.push_back((hash, PROOFS_MAX - 1));
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
    async fn each_block_goes_to_its_chain_with_a_few_proofs() {
        let (one, mut of_one) = mpsc::channel(QUEUED_MAX);
        let (other, mut of_other) = mpsc::channel(1);
        let queues = MergedBlocks::new(vec![("one".into(), one), ("other".into(), other)]);
        assert_eq!(queues.send("one", block(1)), Ok(Sent::New));
        assert_eq!(queues.clone().send("one", block(1)), Ok(Sent::Again), "clones share what is known");
        assert_eq!(queues.send("one", block(1)), Ok(Sent::Again));
        assert_eq!(queues.send("one", block(1)), Ok(Sent::Known));
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
