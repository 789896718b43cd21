//! All blocks of a merged chain, and the best of their branches.

use bitcoin::{BlockHash, Work};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use super::block::Block;
use crate::embedded::Tip;

/// Blocks whose median time a new block's time must exceed.
const MEDIAN_TIME_BLOCKS: usize = 11;

/// Depth below which proofs are dropped, to bound memory. What remains (some 400 bytes a block) is kept for ever.
const PROOFS_KEPT: u32 = 1000;

/// A block, and its state.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) block: Block,
    /// Work of the whole chain up to here.
    pub(super) work: Work,
    /// Counts up, so that the first seen of equals wins.
    sequence: u64,
    /// Time on the monotonic clock.
    pub(super) arrived: Duration,
    /// Set when it, or a block before it, was invalidated.
    pub(super) invalid: bool,
}

/// Blocks by hash, from a genesis block on.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: HashMap<BlockHash, Node>,
    /// Best chain, indexed by height.
    best: Vec<BlockHash>,
}

impl Tree {
    pub(super) fn new(genesis: Block, now: Duration) -> Self {
        let mut tree = Self { nodes: HashMap::new(), best: Vec::new() };
        tree.add(genesis, now);
        tree
    }

    pub(super) fn tip(&self) -> Tip {
        let hash = *self.best.last().expect("the genesis block is never taken off");
        Tip { hash, height: self.at(&hash).block.height }
    }

    pub(super) fn get(&self, hash: &BlockHash) -> Option<&Node> {
        self.nodes.get(hash)
    }

    /// A block known to be in the tree.
    pub(super) fn at(&self, hash: &BlockHash) -> &Node {
        &self.nodes[hash]
    }

    pub(super) fn best(&self) -> &[BlockHash] {
        &self.best
    }

    pub(super) fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.best.get(height as usize).copied()
    }

    /// Median time of a block and those before it; 0 for an unknown one.
    pub(super) fn median_time(&self, hash: &BlockHash) -> u32 {
        let mut times = Vec::with_capacity(MEDIAN_TIME_BLOCKS);
        let mut next = *hash;
        while let Some(node) = self.nodes.get(&next).filter(|_| times.len() < MEDIAN_TIME_BLOCKS) {
            times.push(node.block.header.time);
            next = node.block.header.prev_blockhash;
        }
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(0)
    }

    /// Blocks from the first to the one with this hash.
    pub(super) fn branch(&self, hash: BlockHash) -> Vec<&Block> {
        let mut blocks = Vec::new();
        let mut next = hash;
        while let Some(node) = self.nodes.get(&next) {
            blocks.push(&node.block);
            next = node.block.header.prev_blockhash;
        }
        blocks.reverse();
        blocks
    }

    /// Adds a block whose parent is known, and chooses the best chain.
    pub(super) fn add(&mut self, block: Block, now: Duration) {
        let hash = block.hash();
        let parent = self.nodes.get(&block.header.prev_blockhash);
        let work = parent.map_or(block.header.work(), |parent| parent.work + block.header.work());
        let invalid = parent.is_some_and(|parent| parent.invalid);
        let sequence = self.nodes.len() as u64;
        self.nodes.insert(hash, Node { block, work, sequence, arrived: now, invalid });
        self.choose_among([hash]);
    }

    /// Marks the block at a height of the best chain and its descendants as invalid.
    pub(super) fn invalidate_from(&mut self, height: u32) {
        let mut doomed = Vec::from_iter(self.hash_at(height));
        while let Some(hash) = doomed.pop() {
            let children = self.nodes.iter().filter(|(_, node)| node.block.header.prev_blockhash == hash);
            doomed.extend(children.map(|(child, _)| *child));
            self.nodes.get_mut(&hash).expect("children are nodes").invalid = true;
        }
        self.best.clear();
        let all: Vec<BlockHash> = self.nodes.keys().copied().collect();
        self.choose_among(all);
    }

    /// Makes the best of `candidates` and the tip the tip: the one with most work, and of equals the first.
    fn choose_among(&mut self, candidates: impl IntoIterator<Item = BlockHash>) {
        let candidates = candidates.into_iter().chain(self.best.last().copied());
        let valid = candidates.filter(|hash| !self.nodes[hash].invalid);
        let rank = |hash: &BlockHash| (self.nodes[hash].work, Reverse(self.nodes[hash].sequence));
        let Some(best) = valid.max_by_key(rank) else { return };
        let mut branch = Vec::new();
        let mut at = best;
        while let Some(node) = self.nodes.get(&at)
            && self.hash_at(node.block.height) != Some(at)
        {
            branch.push(at);
            at = node.block.header.prev_blockhash;
        }
        if let Some(first) = branch.last() {
            self.best.truncate(self.nodes[first].block.height as usize);
            self.best.extend(branch.into_iter().rev());
            self.drop_old_proof();
        }
    }

    fn drop_old_proof(&mut self) {
        let old = self.tip().height.checked_sub(PROOFS_KEPT).and_then(|height| self.hash_at(height));
        if let Some(node) = old.and_then(|hash| self.nodes.get_mut(&hash)) {
            node.block.proof = None;
        }
    }
}
