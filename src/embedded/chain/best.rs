//! Choice of the best chain, and the way to it: connecting, disconnecting, and dropping blocks.

use bitcoin::{BlockHash, Transaction, Txid, Work};
use std::cmp::Reverse;

use super::{Chain, REORGANISATION_DEPTH_MAX, connect, median_time_at, place_after};
use crate::embedded::reject::Reject;

impl Chain {
    fn children(&self, hash: &BlockHash) -> Vec<BlockHash> {
        let above = self.by_height.get(&(self.nodes[hash].height + 1)).map_or(&[][..], Vec::as_slice);
        above.iter().filter(|child| self.nodes[*child].header.prev_blockhash == *hash).copied().collect()
    }

    /// Marks a block and its descendants as never part of the best chain.
    pub(super) fn mark_failed(&mut self, hash: BlockHash) {
        let mut doomed = vec![hash];
        while let Some(hash) = doomed.pop() {
            doomed.extend(self.children(&hash));
            let node = self.nodes.get_mut(&hash).expect("children are nodes");
            node.failed = true;
            node.body = None;
            self.candidates.retain(|candidate| *candidate != hash);
        }
    }

    /// Marks a block as complete, and its descendants that waited for it.
    pub(super) fn mark_complete(&mut self, hash: BlockHash) {
        let tip_rank = self.rank(&self.tip_hash());
        let mut complete = vec![hash];
        while let Some(hash) = complete.pop() {
            let node = self.nodes.get_mut(&hash).expect("children are nodes");
            node.sequence = Some(self.sequence_next);
            self.sequence_next += 1;
            if self.rank(&hash) >= tip_rank {
                self.candidates.push(hash);
            }
            complete.extend(self.children(&hash).into_iter().filter(|child| self.nodes[child].has_body));
        }
    }

    /// Order of chains: most work, and of equals the first that was complete.
    fn rank(&self, hash: &BlockHash) -> (Work, Reverse<u64>) {
        let node = &self.nodes[hash];
        (node.work, Reverse(node.sequence.unwrap_or(u64::MAX)))
    }

    /// Makes the best candidate the tip. Returns the result of connecting `submitted`, if that was tried.
    pub(super) fn activate(&mut self, submitted: BlockHash) -> Option<Result<(), Reject>> {
        let mut outcome = None;
        let mut returned = Vec::new();
        let before = self.tip_hash();
        // Each round ends with the best candidate as the tip, or with one candidate fewer.
        while let Some(target) = self.candidates.iter().copied().max_by_key(|candidate| self.rank(candidate)) {
            if target == self.tip_hash() {
                break;
            }
            let mut branch = Vec::new();
            let mut fork = target;
            while !self.is_in_best_chain(&fork) {
                branch.push(fork);
                fork = self.nodes[&fork].header.prev_blockhash;
            }
            while self.tip_hash() != fork {
                returned.extend(self.disconnect_tip());
            }
            for hash in branch.into_iter().rev() {
                let connected = self.connect(hash);
                let failed = connected.is_err();
                if hash == submitted {
                    outcome = Some(connected);
                }
                if failed {
                    self.mark_failed(hash);
                    break;
                }
            }
        }
        if self.tip_hash() != before {
            self.settle(submitted, returned);
        }
        outcome
    }

    /// Updates pace, mempool and candidates after a change of the tip, and drops what is too deep.
    fn settle(&mut self, submitted: BlockHash, returned: Vec<Transaction>) {
        let tip = self.tip();
        let rank = self.rank(&tip.hash);
        let candidates = std::mem::take(&mut self.candidates);
        self.candidates = candidates.into_iter().filter(|candidate| self.rank(candidate) >= rank).collect();
        if tip.hash == submitted {
            let node = &self.nodes[&tip.hash];
            let parent = &self.nodes[&node.header.prev_blockhash];
            self.pace.observe(node.arrived.saturating_sub(parent.arrived));
        }
        let (nodes, best) = (&self.nodes, &self.best);
        let median_time_at = |height| median_time_at(nodes, best, height);
        self.mempool.renew(returned, &self.coins, &place_after(tip, &median_time_at));
        self.forget_deep(tip.height);
    }

    fn connect(&mut self, hash: BlockHash) -> Result<(), Reject> {
        let node = &self.nodes[&hash];
        let block = node.body.clone().expect("candidates and their ancestors above the fork have bodies");
        let txids: Vec<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
        let median_time_at = |height| median_time_at(&self.nodes, &self.best, height);
        let place = place_after(self.tip(), &median_time_at);
        let changes = connect::connect(&block, &txids, &self.coins, &place, self.subsidy(place.height))?;
        let undo = self.coins.apply(changes);
        self.nodes.get_mut(&hash).expect("looked up above").undo = Some(undo);
        self.best.push(hash);
        Ok(())
    }

    /// Removes the tip from the best chain and returns its transactions, without the coinbase.
    fn disconnect_tip(&mut self) -> Vec<Transaction> {
        let hash = self.best.pop().expect("a fork is never below the genesis block");
        let node = self.nodes.get_mut(&hash).expect("the best chain's blocks are nodes");
        let undo = node.undo.take().expect("branches fork off above the depth at which undo data is dropped");
        self.coins.apply(undo);
        let body = node.body.as_ref().expect("kept as long as the undo data");
        body.txdata[1..].to_vec()
    }

    /// Drops data too deep for a reorganisation: bodies and undo data of the best chain, and whole branches.
    fn forget_deep(&mut self, tip_height: u32) {
        let Some(limit) = tip_height.checked_sub(REORGANISATION_DEPTH_MAX) else { return };
        while let Some(entry) = self.by_height.first_entry().filter(|entry| *entry.key() < limit) {
            let (height, hashes) = entry.remove_entry();
            for hash in hashes {
                if self.is_best_at(height, &hash) {
                    let node = self.nodes.get_mut(&hash).expect("the best chain's blocks are nodes");
                    (node.body, node.undo, node.offers) = (None, None, Vec::new());
                } else {
                    self.forget_branch(hash);
                }
            }
        }
    }

    fn forget_branch(&mut self, hash: BlockHash) {
        let mut forgotten = vec![hash];
        while let Some(hash) = forgotten.pop() {
            // A block can be reached twice when its whole height is dropped.
            if !self.nodes.contains_key(&hash) {
                continue;
            }
            forgotten.extend(self.children(&hash));
            if let Some(node) = self.nodes.remove(&hash)
                && let Some(level) = self.by_height.get_mut(&node.height)
            {
                level.retain(|other| *other != hash);
            }
            self.candidates.retain(|candidate| *candidate != hash);
        }
    }
}
