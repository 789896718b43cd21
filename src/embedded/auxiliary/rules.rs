//! Rules that a submitted block has to keep, as Dogecoin Core has them, each with its word in answers to `submitblock`.

use bitcoin::{BlockHash, CompactTarget, Target, Transaction, Txid, merkle_tree, script};
use std::collections::HashSet;
use thiserror::Error;

use super::ledger::{self, Ledger, SpendError};
use super::proof::{Claim, HEADER_BYTES, ParentPow, ProofError};
use super::submitted::Submitted;

/// Maximum size of a block with its proof, in bytes.
pub(super) const BLOCK_BYTES_MAX: usize = 1_000_000;

/// Maximum number of signature operations in a block.
pub(super) const SIGOPS_MAX: usize = 20_000;

/// Seconds that a block's time may be ahead of the daemon's clock.
const AHEAD_MAX_S: u64 = 2 * 60 * 60;

/// Bytes that the script of a coinbase may have.
const COINBASE_SCRIPT_BYTES: std::ops::RangeInclusive<usize> = 2..=100;

/// Rule that a block breaks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleError {
    /// The version is of another chain.
    #[error("the block's version {0:#010x} does not have the number of the chain")]
    ChainId(u32),
    /// The block has no proof, and its own hash is above the target.
    #[error("the block has no auxiliary proof of work, and its own hash is above the target")]
    HighHash,
    /// The auxiliary proof is no proof of this block.
    #[error("the proof is invalid: {0}")]
    Proof(#[from] ProofError),
    /// The transactions are others than the header's.
    #[error("the transactions do not lead to the merkle root of the header")]
    MerkleRoot,
    /// A transaction stands in the block twice.
    #[error("transaction {0} is in the block twice")]
    Twice(Txid),
    /// The block is too large.
    #[error("the block has {0} bytes, more than {BLOCK_BYTES_MAX}")]
    Size(usize),
    /// The first transaction is no coinbase.
    #[error("the first transaction is no coinbase")]
    CoinbaseMissing,
    /// Another transaction is a coinbase.
    #[error("transaction {0} is a second coinbase")]
    SecondCoinbase(Txid),
    /// The coinbase's script is too short or too long.
    #[error("the script of the coinbase has {0} bytes, and may have 2 to 100")]
    CoinbaseScript(usize),
    /// Too many signature operations.
    #[error("the block has {0} signature operations, more than {SIGOPS_MAX}")]
    Sigops(usize),
    /// The parent is unknown or invalid.
    #[error("the parent block {0} is unknown or invalid")]
    Parent(BlockHash),
    /// The bits are none that the daemon gave for this parent.
    #[error("the bits {:#010x} are none of this block's", .0.to_consensus())]
    Bits(CompactTarget),
    /// The time is not after the median of the last blocks.
    #[error("the time {time} is not above {median}, the median of the last blocks")]
    TimeTooOld {
        /// Time of the block, in seconds since 1970.
        time: u32,
        /// Median time before it.
        median: u32,
    },
    /// The time is too far ahead.
    #[error("the time {0} is too far ahead of the daemon's clock")]
    TimeTooNew(u32),
    /// The coinbase's script does not begin with the height (BIP 34).
    #[error("the script of the coinbase does not begin with the height {0}")]
    Height(u32),
    /// A transaction cannot spend its inputs.
    #[error(transparent)]
    Spend(#[from] SpendError),
    /// The coinbase pays more than subsidy and fees.
    #[error("the coinbase pays {paid}, more than {allowed}")]
    CoinbaseValue {
        /// Satoshis of its outputs.
        paid: u64,
        /// Subsidy and fees.
        allowed: u64,
    },
}

impl RuleError {
    /// Dogecoin Core's word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::ChainId(_) | Self::HighHash | Self::Proof(_) => "high-hash",
            Self::MerkleRoot => "bad-txnmrklroot",
            Self::Twice(_) => "bad-txns-duplicate",
            Self::Size(_) => "bad-blk-length",
            Self::CoinbaseMissing => "bad-cb-missing",
            Self::SecondCoinbase(_) => "bad-cb-multiple",
            Self::CoinbaseScript(_) => "bad-cb-length",
            Self::Sigops(_) => "bad-blk-sigops",
            Self::Parent(_) => "bad-prevblk",
            Self::Bits(_) => "bad-diffbits",
            Self::TimeTooOld { .. } => "time-too-old",
            Self::TimeTooNew(_) => "time-too-new",
            Self::Height(_) => "bad-cb-height",
            Self::Spend(error) => error.word(),
            Self::CoinbaseValue { .. } => "bad-cb-amount",
        }
    }
}

/// Checks the proof of work of a block of the chain with this number.
pub(super) fn check_proof(block: &Submitted, chain_id: u16, pow: ParentPow) -> Result<(), RuleError> {
    let header = &block.header;
    let version = header.version.to_consensus().cast_unsigned();
    if version >> 16 != u32::from(chain_id) {
        return Err(RuleError::ChainId(version));
    }
    let target = Target::from_compact(header.bits);
    let Some((proof, _)) = &block.proof else {
        let bytes: [u8; HEADER_BYTES] =
            bitcoin::consensus::serialize(header).try_into().expect("a header has a fixed size");
        return if Target::from_le_bytes(pow.hash(&bytes)) <= target { Ok(()) } else { Err(RuleError::HighHash) };
    };
    let claim = Claim { block: header.block_hash(), chain_id: chain_id.into(), target, pow };
    Ok(proof.check(&claim)?)
}

/// Checks what the block says without its place in the chain.
pub(super) fn check_content(block: &Submitted) -> Result<(), RuleError> {
    let txids: Vec<Txid> = block.transactions.iter().map(Transaction::compute_txid).collect();
    let root = merkle_tree::calculate_root(txids.iter().map(|txid| txid.to_raw_hash()));
    if root != Some(block.header.merkle_root.to_raw_hash()) {
        return Err(RuleError::MerkleRoot);
    }
    let mut seen = HashSet::new();
    if let Some(twice) = txids.iter().find(|txid| !seen.insert(**txid)) {
        return Err(RuleError::Twice(*twice));
    }
    if block.size > BLOCK_BYTES_MAX {
        return Err(RuleError::Size(block.size));
    }
    let mut transactions = block.transactions.iter().zip(&txids);
    let coinbase = transactions.next().filter(|(first, _)| first.is_coinbase()).ok_or(RuleError::CoinbaseMissing)?.0;
    if let Some((_, second)) = transactions.find(|(other, _)| other.is_coinbase()) {
        return Err(RuleError::SecondCoinbase(*second));
    }
    let script = coinbase.input[0].script_sig.len();
    if !COINBASE_SCRIPT_BYTES.contains(&script) {
        return Err(RuleError::CoinbaseScript(script));
    }
    let sigops = block.transactions.iter().map(ledger::sigops).sum();
    if sigops > SIGOPS_MAX { Err(RuleError::Sigops(sigops)) } else { Ok(()) }
}

/// Place of a block in the chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    pub(super) height: u32,
    /// Median time of the blocks before it.
    pub(super) median_time: u32,
    /// The daemon's clock, in seconds since 1970.
    pub(super) clock: u64,
    /// Satoshis beside fees.
    pub(super) subsidy: u64,
}

/// Checks what the block says of its place in the chain. `ledger` is asked for if there is more than a coinbase.
pub(super) fn check_place(
    block: &Submitted,
    position: Position,
    ledger: impl FnOnce() -> Ledger,
) -> Result<(), RuleError> {
    let Position { height, median_time: median, clock, subsidy } = position;
    let time = block.header.time;
    if time <= median {
        return Err(RuleError::TimeTooOld { time, median });
    }
    if u64::from(time) > clock + AHEAD_MAX_S {
        return Err(RuleError::TimeTooNew(time));
    }
    let (coinbase, others) = block.transactions.split_first().ok_or(RuleError::CoinbaseMissing)?;
    let pushed = script::Builder::new().push_int(height.into()).into_script();
    if !coinbase.input[0].script_sig.as_bytes().starts_with(pushed.as_bytes()) {
        return Err(RuleError::Height(height));
    }
    let mut allowed = subsidy;
    if !others.is_empty() {
        let mut ledger = ledger();
        for transaction in others {
            allowed = allowed.saturating_add(ledger.spend(transaction, transaction.compute_txid())?);
        }
    }
    let paid = ledger::sum(&coinbase.output);
    if paid > allowed { Err(RuleError::CoinbaseValue { paid, allowed }) } else { Ok(()) }
}
