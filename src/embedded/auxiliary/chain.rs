//! The chain itself: blocks in memory, the best branch, and the blocks created for miners.
//!
//! Pure: proofs and time in, verdicts out. Blocks of other miners and reorganisations come on demand.

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, Script, ScriptBuf, Txid, Work};
use std::collections::VecDeque;
use std::time::Duration;
use thiserror::Error;

use super::addresses::Addresses;
use super::block::{Block, NewBlock, version};
use super::created::Created;
use super::ledger::{ANYONE, Ledger};
use super::proof::{DecodeError, ParentPow};
use super::rules::{self, Position, RuleError};
use super::submitted::Submitted;
use super::template::{BlockTemplate, Offered, Waiting};
use super::tree::Tree;
use crate::embedded::difficulty::{Difficulty, Pace};
use crate::embedded::{Moment, Tip};
use crate::template::target_of;

/// Number of submissions remembered, for tests.
const SUBMISSIONS_REMEMBERED: usize = 1000;

/// Rule for the bits of blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bits {
    /// The same for each block.
    Fixed(CompactTarget),
    /// Follows the hash rate, as that of the demo's parent chain does.
    Adaptive {
        /// Expected hash rate of all miners before the first block, in hashes per second.
        hash_rate: f64,
        /// Mean time between blocks.
        spacing: Duration,
    },
}

/// Parameters of a chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Number in the tree of merged chains, and in the versions of blocks.
    pub chain_id: u16,
    /// Proof-of-work function of the parent chain.
    pub parent_pow: ParentPow,
    /// Difficulty of blocks.
    pub bits: Bits,
    /// Satoshis that a coinbase pays.
    pub subsidy: u64,
    /// Confirmations from which a coinbase can be spent.
    pub maturity: u32,
    /// Time after which a created block is replaced by a new one, as for new transactions.
    pub renewal: Duration,
    /// Prefixes of addresses.
    pub addresses: Addresses,
}

/// The bits are no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0:#010x} are no bits of a target: use such as 0x207fffff")]
pub struct BitsError(u32);

/// Work for miners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuxWork {
    /// Block to be proven.
    pub hash: BlockHash,
    /// Block that it builds on.
    pub previous: BlockHash,
    /// Satoshis that its coinbase pays.
    pub coinbase_value: u64,
    /// Its target in compact form.
    pub bits: CompactTarget,
    /// Its height.
    pub height: u32,
}

/// What became of a block with a good proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is the tip.
    Tip,
    /// It was known already.
    Known,
    /// Its parent was the tip no more: stored beside the best chain.
    Beside,
}

/// Reason why a submission is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// No such block was created since the tip changed.
    #[error("block hash unknown")]
    Unknown,
    /// The bytes are no proof, or no block.
    #[error("the bytes cannot be parsed: {0}")]
    Decode(#[from] DecodeError),
    /// The proof, or the block, breaks a rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// The block, or one before it, was invalidated.
    #[error("the block was invalidated")]
    Invalid,
}

/// A submission and its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Block that it is for.
    pub hash: BlockHash,
    /// What became of it.
    pub verdict: Result<Fate, SubmitError>,
}

/// What a payout has received in the best chain, in satoshis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// Can be spent.
    pub mature: u64,
    /// Cannot be spent yet.
    pub immature: u64,
}

/// A merged chain.
#[derive(Debug)]
pub struct Chain {
    rules: Rules,
    pace: Option<Pace>,
    /// Bits of the next block, without a pace.
    bits: CompactTarget,
    tree: Tree,
    created: Created,
    offered: Offered,
    waiting: Waiting,
    blocks_made: u64,
    submissions: VecDeque<Submission>,
}

impl Chain {
    /// Creates a chain of a genesis block, which differs by `name`.
    ///
    /// # Errors
    /// The bits are no target.
    pub fn new(rules: Rules, name: &str, now: Moment) -> Result<Self, BitsError> {
        let (pace, bits) = match rules.bits {
            Bits::Fixed(bits) => (None, checked(bits)?),
            Bits::Adaptive { hash_rate, spacing } => {
                let pace = Pace::new(Difficulty::Adaptive { hash_rate, spacing });
                let bits = pace.bits(Duration::ZERO);
                (Some(pace), bits)
            }
        };
        let genesis = NewBlock {
            chain_id: rules.chain_id,
            previous: BlockHash::all_zeros(),
            height: 0,
            time: u32::try_from(now.unix).unwrap_or(u32::MAX),
            bits,
            extra_nonce: 0,
            value: 0,
            payout: ScriptBuf::from_bytes(name.as_bytes().to_vec()),
        };
        let tree = Tree::new(genesis.make(), now.elapsed);
        Ok(Self {
            rules,
            pace,
            bits,
            tree,
            created: Created::default(),
            offered: Offered::default(),
            waiting: Waiting::default(),
            blocks_made: 0,
            submissions: VecDeque::new(),
        })
    }

    /// Parameters of the chain.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Gives the blocks that are made from now on these bits, for good.
    ///
    /// # Errors
    /// They are no target.
    pub fn set_bits(&mut self, bits: CompactTarget) -> Result<(), BitsError> {
        self.bits = checked(bits)?;
        self.pace = None;
        Ok(())
    }

    /// End of the best chain.
    pub fn tip(&self) -> Tip {
        self.tree.tip()
    }

    /// Work of a chain up to a block; `None` for an unknown one.
    pub fn work(&self, hash: &BlockHash) -> Option<Work> {
        self.tree.get(hash).map(|node| node.work)
    }

    /// A block of any branch.
    pub fn block(&self, hash: &BlockHash) -> Option<&Block> {
        self.tree.get(hash).map(|node| &node.block)
    }

    /// Block at a height of the best chain.
    pub fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.tree.hash_at(height)
    }

    /// Median time of a block and those before it; 0 for an unknown one.
    pub fn median_time(&self, hash: &BlockHash) -> u32 {
        self.tree.median_time(hash)
    }

    /// Confirmations of a block as daemons count them: -1 beside the best chain.
    pub fn confirmations(&self, hash: &BlockHash) -> Option<i64> {
        let height = self.block(hash)?.height;
        let is_best = self.hash_at(height) == Some(*hash);
        Some(if is_best { i64::from(self.tip().height) - i64::from(height) + 1 } else { -1 })
    }

    /// What `payout` has received.
    pub fn balance(&self, payout: &Script) -> Balance {
        let mut balance = Balance::default();
        for hash in self.tree.best() {
            let block = &self.tree.at(hash).block;
            let outputs = block.transactions.iter().flat_map(|transaction| &transaction.output);
            let paid = outputs.filter(|output| *output.script_pubkey == *payout);
            let value: u64 = paid.map(|output| output.value.to_sat()).sum();
            let confirmations = self.tip().height - block.height + 1;
            if confirmations >= self.rules.maturity { balance.mature += value } else { balance.immature += value }
        }
        balance
    }

    /// Last submissions, the oldest first.
    pub fn submissions(&self) -> impl Iterator<Item = &Submission> {
        self.submissions.iter()
    }

    /// Returns a block for a miner to prove: the last one created for this payout, if it is new enough.
    pub fn create(&mut self, payout: &ScriptBuf, now: Moment) -> AuxWork {
        let tip = self.tip().hash;
        let newest = self.created.newest(payout, tip, now.elapsed, self.rules.renewal).cloned();
        let block = newest.unwrap_or_else(|| {
            let bits = self.next_bits(now);
            let block = self.make(tip, bits, payout.clone(), now);
            self.offered.add(tip, bits);
            self.created.add(payout.clone(), block.clone(), now.elapsed);
            block
        });
        AuxWork {
            hash: block.hash(),
            previous: block.header.prev_blockhash,
            coinbase_value: block.coinbase_value(),
            bits: block.header.bits,
            height: block.height,
        }
    }

    /// Judges the proof of a created block, and adds the block to the chain if the proof is good. Its miner has to look
    /// for the block in the best chain: one beside it has a good proof, too.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit(&mut self, hash: BlockHash, proof: &[u8], now: Moment) -> Result<Fate, SubmitError> {
        let verdict = self.judge_created(hash, proof, now);
        self.remember(hash, verdict)
    }

    /// Judges a whole block, as `submitblock` does, and adds it to the chain if it is good.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit_block(&mut self, bytes: &[u8], now: Moment) -> Result<Fate, SubmitError> {
        let block = Submitted::parse(bytes)?;
        let hash = block.header.block_hash();
        let verdict = self.judge(block, now);
        self.remember(hash, verdict)
    }

    fn remember(&mut self, hash: BlockHash, verdict: Result<Fate, SubmitError>) -> Result<Fate, SubmitError> {
        if self.submissions.len() == SUBMISSIONS_REMEMBERED {
            self.submissions.pop_front();
        }
        self.submissions.push_back(Submission { hash, verdict: verdict.clone() });
        verdict
    }

    fn judge_created(&mut self, hash: BlockHash, proof: &[u8], now: Moment) -> Result<Fate, SubmitError> {
        let block = self.created.get(&hash).ok_or(SubmitError::Unknown)?.clone();
        self.judge(Submitted::created(block, proof)?, now)
    }

    fn judge(&mut self, block: Submitted, now: Moment) -> Result<Fate, SubmitError> {
        let (header, hash) = (block.header, block.header.block_hash());
        rules::check_proof(&block, self.rules.chain_id, self.rules.parent_pow)?;
        if let Some(known) = self.tree.get(&hash) {
            return if known.invalid { Err(SubmitError::Invalid) } else { Ok(Fate::Known) };
        }
        rules::check_content(&block)?;
        let parent = self.tree.get(&header.prev_blockhash).ok_or(RuleError::Parent(header.prev_blockhash))?;
        if parent.invalid {
            return Err(SubmitError::Invalid);
        }
        if !self.offered.has(header.prev_blockhash, header.bits) {
            return Err(RuleError::Bits(header.bits).into());
        }
        let position = Position {
            height: parent.block.height + 1,
            median_time: self.median_time(&header.prev_blockhash),
            clock: now.unix,
            subsidy: self.rules.subsidy,
        };
        rules::check_place(&block, position, || self.ledger(header.prev_blockhash))?;
        let waited = now.elapsed.saturating_sub(parent.arrived);
        self.tree.add(block.at(position.height), now.elapsed);
        if self.tip().hash != hash {
            return Ok(Fate::Beside);
        }
        self.observe(waited);
        Ok(Fate::Tip)
    }

    fn ledger(&self, tip: BlockHash) -> Ledger {
        Ledger::at(&self.tree, tip, self.rules.maturity)
    }

    /// Everything of the next block but its coinbase.
    pub fn template(&mut self, now: Moment) -> BlockTemplate {
        let Tip { hash: previous, height } = self.tip();
        let bits = self.next_bits(now);
        self.offered.add(previous, bits);
        let is_bare = self.waiting.is_empty();
        let transactions = if is_bare { Vec::new() } else { self.waiting.next(&mut self.ledger(previous)) };
        let time_min = self.median_time(&previous).saturating_add(1);
        BlockTemplate {
            version: version(self.rules.chain_id),
            previous,
            height: height + 1,
            bits,
            time: time_min.max(u32::try_from(now.unix).unwrap_or(u32::MAX)),
            time_min,
            value: transactions.iter().fold(self.rules.subsidy, |value, (_, fee)| value.saturating_add(*fee)),
            transactions,
            changes: self.waiting.changes(),
        }
    }

    /// Adds a transaction to the next blocks that pays this fee: it spends the oldest mature coinbase of another miner,
    /// or what an earlier such transaction left. `None` if there is nothing to spend.
    pub fn spend(&mut self, fee: u64) -> Option<Txid> {
        let mut ledger = self.ledger(self.tip().hash);
        self.waiting.add(&mut ledger, fee)
    }

    /// Forgets the blocks created for miners, as a daemon does that restarts.
    pub fn forget_created(&mut self) {
        self.created.forget();
    }

    /// Adds a block of another miner to the best chain.
    pub fn mine(&mut self, now: Moment) -> BlockHash {
        let (waited, bits) = (self.waited(now), self.next_bits(now));
        let hash = self.mine_on(self.tip().hash, bits, now);
        self.observe(waited);
        hash
    }

    /// Replaces the last `depth` blocks by one more of other miners. The genesis block stays.
    pub fn reorganise(&mut self, depth: u32, now: Moment) {
        // As hard as those that they replace: the branch has more work with the last block.
        let (fork, replaced) = self.tree.best().split_at(self.fork(depth) as usize + 1);
        let mut at = *fork.last().expect("at least the genesis block");
        let mut bits: Vec<_> = replaced.iter().map(|hash| self.tree.at(hash).block.header.bits).collect();
        bits.push(bits.last().copied().unwrap_or_else(|| self.next_bits(now)));
        for bits in bits {
            at = self.mine_on(at, bits, now);
        }
    }

    /// Marks the last `depth` blocks and their descendants as invalid, as `invalidateblock` does. The genesis block
    /// stays.
    pub fn invalidate(&mut self, depth: u32) {
        self.tree.invalidate_from(self.fork(depth) + 1);
    }

    /// Height of the block below the last `depth` ones.
    fn fork(&self, depth: u32) -> u32 {
        self.tip().height.saturating_sub(depth)
    }

    fn mine_on(&mut self, previous: BlockHash, bits: CompactTarget, now: Moment) -> BlockHash {
        let block = self.make(previous, bits, ScriptBuf::from_bytes(ANYONE.to_vec()), now);
        let hash = block.hash();
        self.tree.add(block, now.elapsed);
        hash
    }

    /// Makes a block that pays `payout`. Blocks on different tips and at different times differ, and so do others.
    fn make(&mut self, previous: BlockHash, bits: CompactTarget, payout: ScriptBuf, now: Moment) -> Block {
        self.blocks_made += 1;
        let clock = u32::try_from(now.unix).unwrap_or(u32::MAX);
        NewBlock {
            chain_id: self.rules.chain_id,
            previous,
            height: self.tree.at(&previous).block.height + 1,
            time: clock.max(self.median_time(&previous).saturating_add(1)),
            bits,
            extra_nonce: self.blocks_made,
            value: self.rules.subsidy,
            payout,
        }
        .make()
    }

    /// Age of the tip.
    fn waited(&self, now: Moment) -> Duration {
        now.elapsed.saturating_sub(self.tree.at(&self.tip().hash).arrived)
    }

    /// Bits of the next block.
    fn next_bits(&self, now: Moment) -> CompactTarget {
        self.pace.as_ref().map_or(self.bits, |pace| pace.bits(self.waited(now)))
    }

    fn observe(&mut self, waited: Duration) {
        if let Some(pace) = &mut self.pace {
            pace.observe(waited);
        }
    }
}

/// Returns `bits` if they are a target.
fn checked(bits: CompactTarget) -> Result<CompactTarget, BitsError> {
    target_of(bits).map(|_| bits).ok_or(BitsError(bits.to_consensus()))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod whole_blocks;
