//! Limits on what is submitted to a merged chain. Miners may solve one of its blocks many times before its daemon has
//! other work, and a daemon that is faulty may ask for no work at all, or take none.

use bitcoin::BlockHash;
use std::collections::VecDeque;

/// Maximum number of blocks of a merged chain in flight: more than it finds while its daemon makes work and takes none.
pub(super) const LIVE_MAX: usize = 256;

/// Number of proofs that are passed on and submitted for one block while its daemon rejects them: one may be at fault, and
/// the next right.
pub(crate) const PROOFS_MAX: u32 = 3;

/// Number of blocks that are remembered; late jobs may solve old ones.
const REMEMBERED_MAX: usize = 64;

/// Proofs that may still be submitted, of the latest blocks.
#[derive(Debug, Default)]
pub(super) struct Proofs(VecDeque<(BlockHash, u32)>);

impl Proofs {
    /// True if another proof of the block is to be submitted; counts it.
    pub(super) fn admit(&mut self, hash: BlockHash) -> bool {
        if let Some((_, left)) = self.0.iter_mut().find(|(known, _)| *known == hash) {
            let is_admitted = *left > 0;
            *left = left.saturating_sub(1);
            return is_admitted;
        }
        if self.0.len() == REMEMBERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((hash, PROOFS_MAX - 1));
        true
    }

    /// Records that the chain has the block: it needs no other proof.
    pub(super) fn accepted(&mut self, hash: &BlockHash) {
        self.0.iter_mut().filter(|(known, _)| known == hash).for_each(|(_, left)| *left = 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash;

    fn hash(seed: u8) -> BlockHash {
        BlockHash::from_byte_array([seed; 32])
    }

    #[test]
    fn a_rejected_block_gets_a_few_more_proofs_and_an_accepted_one_none() {
        let mut proofs = Proofs::default();
        let admitted = (0..10).filter(|_| proofs.admit(hash(1))).count();
        assert_eq!(admitted, PROOFS_MAX as usize);
        assert!(proofs.admit(hash(2)), "another block");
        proofs.accepted(&hash(2));
        assert!(!proofs.admit(hash(2)));
    }

    #[test]
    fn the_latest_blocks_are_remembered_and_no_more() {
        let mut proofs = Proofs::default();
        for seed in 0..=u8::try_from(REMEMBERED_MAX).unwrap() {
            proofs.admit(hash(seed));
            proofs.accepted(&hash(seed));
        }
        assert_eq!(proofs.0.len(), REMEMBERED_MAX);
        assert!(proofs.admit(hash(0)) && !proofs.admit(hash(2)));
    }
}
