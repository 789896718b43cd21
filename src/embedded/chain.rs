//! The private chain: all blocks, the best chain, and the next template.
//!
//! Pure: bytes and time in, verdicts and templates out. Its rules are Bitcoin's on regtest, in the order in which
//! Bitcoin Core applies them, so that it refuses the same blocks as a real daemon, for the same reasons.

mod best;

use bitcoin::blockdata::block::Header;
use bitcoin::consensus::encode::serialize;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, CompactTarget, Target, Txid, Work};
use sharechain::coin::Pow;
use sharechain::merkle::Digest;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::coins::{Changes, Coins};
use super::connect::{self, ChainContext};
use super::difficulty::{Difficulty, LIMIT_BITS, Pace};
use super::mempool::{Mempool, TransactionError};
use super::reject::{Reject, Verdict};
use super::{decode, rules};
use crate::blocks::BlockPosition;
use crate::template::{BLOCK_WEIGHT_MAX, TemplateParts, target_of};

/// Maximum depth below the tip at which a branch may fork off: bodies and undo data further down are dropped, to bound
/// memory. Bitcoin Core's pruning has the same number (`MIN_BLOCKS_TO_KEEP`); here it is most of an hour. Headers (some
/// 200 bytes a block, 2 MB a day at ten seconds) and unspent outputs are kept forever.
pub const REORGANISATION_DEPTH_MAX: u32 = 288;
/// Blocks whose median time a new block's time must exceed.
const MEDIAN_TIME_BLOCKS: usize = 11;
/// Maximum time of a block ahead of the clock, in seconds.
const FUTURE_SECONDS_MAX: u64 = 2 * 60 * 60;
/// Subsidy before the first halving, in satoshis.
const SUBSIDY_FIRST: u64 = 50 * 100_000_000;
/// Minimum block version (BIP 34, 66, 65).
const VERSION_MIN: i32 = 4;
/// Block version in templates: no version bits set (BIP 9).
const VERSION_PROPOSED: u32 = 0x2000_0000;

/// Parameters of a private chain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Proof of work of a header.
    pub pow: Pow,
    /// Rule for the bits of blocks.
    pub difficulty: Difficulty,
    /// Blocks after which the subsidy halves.
    pub halving_interval: u32,
}

impl Rules {
    /// The rules of `bitcoind -chain=regtest`.
    pub const REGTEST: Self = Self { pow: Pow::Sha256d, difficulty: Difficulty::Regtest, halving_interval: 150 };
}

/// A point in time on both clocks that the chain needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970, for comparison with block times.
    pub unix: u64,
    /// Time on a monotonic clock with any origin, for measuring the pace of blocks.
    pub elapsed: Duration,
}

/// The last block of the best chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// Hash of the block.
    pub hash: BlockHash,
    /// Height of the block; 0 for the genesis block.
    pub height: u32,
}

/// A header, and the state of its block.
#[derive(Debug)]
struct Node {
    header: Header,
    height: u32,
    /// Work of the whole chain up to here.
    work: Work,
    /// Median time of this block and the ten before it.
    median_time: u32,
    /// Set when the block or an ancestor breaks a rule.
    failed: bool,
    /// Set when the body was received, even if it has been dropped.
    has_body: bool,
    body: Option<Arc<Block>>,
    /// Changes that restore the coins before this block, while it is in the best chain.
    undo: Option<Changes>,
    /// Set when the block and all ancestors are complete; counts up, so that the first seen of equals wins.
    sequence: Option<u64>,
    /// Arrival of the body, on the monotonic clock.
    arrived: Duration,
    /// Bits offered for its child while it was the tip.
    offers: Vec<CompactTarget>,
}

/// A private block chain.
#[derive(Debug)]
pub struct Chain {
    rules: Rules,
    nodes: HashMap<BlockHash, Node>,
    /// All nodes except old ones of the best chain, by height, for finding children and nodes to drop.
    by_height: BTreeMap<u32, Vec<BlockHash>>,
    /// Best chain, indexed by height.
    best: Vec<BlockHash>,
    /// Complete blocks not worse than the tip, the tip included.
    candidates: Vec<BlockHash>,
    coins: Coins,
    mempool: Mempool,
    pace: Pace,
    sequence_next: u64,
}

impl Chain {
    /// Creates a chain of only regtest's genesis block, starting `now`.
    pub fn new(rules: Rules, now: Moment) -> Self {
        let genesis = genesis_block(bitcoin::Network::Regtest);
        let hash = genesis.block_hash();
        let node = Node {
            header: genesis.header,
            height: 0,
            work: genesis.header.work(),
            median_time: genesis.header.time,
            failed: false,
            has_body: true,
            // Never connected or disconnected: its coinbase cannot be spent.
            body: None,
            undo: None,
            sequence: Some(0),
            arrived: now.elapsed,
            offers: Vec::new(),
        };
        Self {
            rules,
            nodes: HashMap::from([(hash, node)]),
            by_height: BTreeMap::from([(0, vec![hash])]),
            best: vec![hash],
            candidates: vec![hash],
            coins: Coins::default(),
            mempool: Mempool::default(),
            pace: Pace::new(rules.difficulty),
            sequence_next: 1,
        }
    }

    /// Returns the end of the best chain.
    pub fn tip(&self) -> Tip {
        let hash = self.tip_hash();
        Tip { hash, height: self.nodes[&hash].height }
    }

    /// True if a block is in the best chain.
    pub fn is_in_best_chain(&self, hash: &BlockHash) -> bool {
        self.nodes.get(hash).is_some_and(|node| self.is_best_at(node.height, hash))
    }

    /// Returns the position of a block.
    pub fn place_of(&self, hash: &BlockHash) -> BlockPosition {
        match self.nodes.get(hash) {
            None => BlockPosition::Unknown,
            Some(node) if self.is_best_at(node.height, hash) => {
                let above = self.tip().height.saturating_sub(node.height);
                BlockPosition::InChain { height: node.height, confirmations: above.saturating_add(1) }
            }
            Some(node) => BlockPosition::Beside { height: node.height },
        }
    }

    /// Judges a serialised block, and adds it to the chain if it is valid.
    pub fn submit(&mut self, bytes: &[u8], now: Moment) -> Verdict {
        let Some(mut block) = decode::block(bytes) else { return Verdict::Rejected(Reject::Undecodable) };
        if self.nodes.contains_key(&block.header.prev_blockhash) {
            rules::add_missing_reserved_value(&mut block);
        }
        let hash = block.block_hash();
        match self.accept(block, hash, now) {
            Err(reject) => Verdict::Rejected(reject),
            Ok(false) => Verdict::Duplicate,
            Ok(true) => match self.activate(hash) {
                None => Verdict::Inconclusive,
                Some(Err(reject)) => Verdict::Rejected(reject),
                Some(Ok(())) => Verdict::Accepted,
            },
        }
    }

    /// Queues a transaction for the next block.
    ///
    /// # Errors
    /// The reason why it cannot be in the next block, or that the queue is full.
    pub fn submit_transaction(&mut self, raw: &[u8]) -> Result<Txid, TransactionError> {
        let (nodes, best) = (&self.nodes, &self.best);
        let median_time_at = |height| median_time_at(nodes, best, height);
        let place = place_after(self.tip(), &median_time_at);
        self.mempool.submit(raw, &self.coins, &place)
    }

    /// Number of queued transactions.
    pub fn transactions_waiting(&self) -> usize {
        self.mempool.len()
    }

    /// Returns the template of the tip's child. Its bits count as offered from `now` on.
    pub fn template(&mut self, now: Moment) -> TemplateParts {
        let tip = self.tip();
        let transactions = self.mempool.for_template();
        let node = self.nodes.get_mut(&tip.hash).expect("the tip is a node");
        let bits = self.pace.bits(now.elapsed.saturating_sub(node.arrived));
        if !node.offers.contains(&bits) {
            node.offers.push(bits);
        }
        let time_min = node.median_time.saturating_add(1);
        let fees: u64 = transactions.iter().map(|one| one.fee).sum();
        TemplateParts {
            version: VERSION_PROPOSED,
            previous_block: tip.hash,
            height: tip.height + 1,
            bits,
            time: u32::try_from(now.unix).unwrap_or(u32::MAX).max(time_min),
            time_min,
            coinbase_value: self.subsidy(tip.height + 1) + fees,
            coinbase_flags: Vec::new(),
            transactions,
            weight_max: BLOCK_WEIGHT_MAX,
            rules: vec!["csv".into(), "!segwit".into(), "taproot".into()],
            default_witness_commitment: None,
            suffix: Vec::new(),
        }
    }

    /// Time until the next template has easier bits, if no block comes.
    pub fn until_easing(&self, now: Moment) -> Option<Duration> {
        let waited = now.elapsed.saturating_sub(self.nodes[&self.tip_hash()].arrived);
        self.pace.next_easing(waited).map(|at| at.saturating_sub(waited))
    }

    fn tip_hash(&self) -> BlockHash {
        *self.best.last().expect("the genesis block is never taken off")
    }

    fn is_best_at(&self, height: u32, hash: &BlockHash) -> bool {
        self.best.get(height as usize) == Some(hash)
    }

    fn subsidy(&self, height: u32) -> u64 {
        SUBSIDY_FIRST.checked_shr(height / self.rules.halving_interval).unwrap_or(0)
    }

    /// Runs the checks that need no coins, and stores the block. Returns true if it is new.
    fn accept(&mut self, block: Block, hash: BlockHash, now: Moment) -> Result<bool, Reject> {
        let header = block.header;
        let limit = Target::from_compact(CompactTarget::from_consensus(LIMIT_BITS));
        let target = target_of(header.bits).filter(|target| *target <= limit);
        let bytes = serialize(&header).try_into().expect("a header has 80 bytes");
        let proof = Target::from_le_bytes(self.rules.pow.function()(&bytes));
        if target.is_none_or(|target| proof > target) {
            return Err(Reject::HighHash);
        }
        let txids: Vec<Digest> = block.txdata.iter().map(|one| one.compute_txid().to_byte_array()).collect();
        rules::check_block(&block, &txids)?;
        match self.nodes.get(&hash) {
            Some(node) if node.failed => return Err(Reject::KnownInvalid),
            Some(node) if node.has_body => return Ok(false),
            Some(_) => {}
            None => self.accept_header(header, hash, now)?,
        }
        let parent = &self.nodes[&header.prev_blockhash];
        if let Err(reject) = rules::check_in_context(&block, parent.height + 1, parent.median_time) {
            if !reject.blames_body_alone() {
                self.mark_failed(hash);
            }
            return Err(reject);
        }
        let complete = parent.sequence.is_some();
        let node = self.nodes.get_mut(&hash).expect("inserted with its header");
        node.has_body = true;
        node.body = Some(Arc::new(block));
        node.arrived = now.elapsed;
        if complete {
            self.mark_complete(hash);
        }
        Ok(true)
    }

    fn accept_header(&mut self, header: Header, hash: BlockHash, now: Moment) -> Result<(), Reject> {
        let parent = self.nodes.get(&header.prev_blockhash).ok_or(Reject::PreviousUnknown)?;
        if parent.failed {
            return Err(Reject::PreviousInvalid);
        }
        if parent.height + REORGANISATION_DEPTH_MAX < self.tip().height {
            return Err(Reject::TooDeep);
        }
        let bits_right = match self.rules.difficulty {
            Difficulty::Regtest => header.bits.to_consensus() == LIMIT_BITS,
            Difficulty::Adaptive { .. } => parent.offers.contains(&header.bits),
        };
        if !bits_right {
            return Err(Reject::Bits);
        }
        if header.time <= parent.median_time {
            return Err(Reject::TimeTooOld);
        }
        if u64::from(header.time) > now.unix + FUTURE_SECONDS_MAX {
            return Err(Reject::TimeTooNew);
        }
        if header.version.to_consensus() < VERSION_MIN {
            return Err(Reject::Version(header.version.to_consensus()));
        }
        let height = parent.height + 1;
        let node = Node {
            header,
            height,
            work: parent.work + header.work(),
            median_time: self.median_time(&header),
            failed: false,
            has_body: false,
            body: None,
            undo: None,
            sequence: None,
            arrived: now.elapsed,
            offers: Vec::new(),
        };
        self.nodes.insert(hash, node);
        self.by_height.entry(height).or_default().push(hash);
        Ok(())
    }

    /// Median of `header`'s time and those of the ten blocks before it; fewer near the genesis block.
    fn median_time(&self, header: &Header) -> u32 {
        let mut times = vec![header.time];
        let mut previous = header.prev_blockhash;
        while let Some(node) = self.nodes.get(&previous).filter(|_| times.len() < MEDIAN_TIME_BLOCKS) {
            times.push(node.header.time);
            previous = node.header.prev_blockhash;
        }
        times.sort_unstable();
        times[times.len() / 2]
    }
}

fn median_time_at(nodes: &HashMap<BlockHash, Node>, best: &[BlockHash], height: u32) -> u32 {
    best.get(height as usize).map_or(0, |hash| nodes[hash].median_time)
}

/// Context of the child of `tip`.
fn place_after(tip: Tip, median_time_at: &dyn Fn(u32) -> u32) -> ChainContext<'_> {
    ChainContext { height: tip.height + 1, median_time_past: median_time_at(tip.height), median_time_at }
}

#[cfg(test)]
pub(super) mod tests;
