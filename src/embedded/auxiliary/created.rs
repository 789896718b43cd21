//! Blocks created for miners and not yet submitted, as Dogecoin Core keeps them: one for each payout, until the tip
//! changes.

use bitcoin::{BlockHash, ScriptBuf};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::block::Block;

/// Maximum number of blocks kept; the oldest are forgotten. Dogecoin Core has no bound.
const BLOCKS_MAX: usize = 1000;

/// Blocks on one tip.
#[derive(Debug, Default)]
pub(super) struct Created {
    /// The tip that they build on.
    tip: Option<BlockHash>,
    /// Newest block of each payout.
    newest: HashMap<ScriptBuf, BlockHash>,
    blocks: HashMap<BlockHash, Block>,
    /// In the order of their creation.
    order: VecDeque<BlockHash>,
    /// Time of the last creation, for any payout.
    last: Duration,
}

impl Created {
    /// Newest block that pays `payout` on `tip`, unless it is due for renewal. A new tip makes all blocks unknown; it
    /// is noticed here, not when the tip changes, as by Dogecoin Core.
    pub(super) fn newest(
        &mut self,
        payout: &ScriptBuf,
        tip: BlockHash,
        now: Duration,
        renewal: Duration,
    ) -> Option<&Block> {
        if self.tip != Some(tip) {
            self.forget();
            self.tip = Some(tip);
        }
        if now.saturating_sub(self.last) >= renewal {
            return None;
        }
        self.blocks.get(self.newest.get(payout)?)
    }

    /// Adds a block that pays `payout`. Earlier ones stay known.
    pub(super) fn add(&mut self, payout: ScriptBuf, block: Block, now: Duration) {
        let hash = block.hash();
        if self.order.len() == BLOCKS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.blocks.remove(&oldest);
            self.newest.retain(|_, newest| *newest != oldest);
        }
        self.order.push_back(hash);
        self.blocks.insert(hash, block);
        self.newest.insert(payout, hash);
        self.last = now;
    }

    pub(super) fn get(&self, hash: &BlockHash) -> Option<&Block> {
        self.blocks.get(hash)
    }

    /// Forgets everything, as a daemon does that restarts.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}
