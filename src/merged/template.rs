//! Answers to `getblocktemplate` of a merged chain's daemon, checked value by value, and the blocks that the node builds
//! from them around a coinbase of its own (protocol-v36 sections 8.4 and 8.5).

use bitcoin::VarInt;
use bitcoin::consensus::encode::serialize;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sharechain::merkle::{self, Digest};
use sharechain::share::{Bits, Target};
use std::fmt;
use std::sync::Arc;

use super::answer::{AnswerError, DIGITS, digits, hash, height, wrong};

/// Flag in a block's version: its proof of work is another chain's block.
const AUX_FLAG: u32 = 0x100;

/// Maximum of what a block pays: `MAX_MONEY` of Dogecoin Core, ten thousand million coins.
const VALUE_MAX: u64 = 1_000_000_000_000_000_000;

/// Maximum size of a block with its proof, in bytes (`MAX_BLOCK_BASE_SIZE` of Dogecoin Core).
const BLOCK_BYTES_MAX: usize = 1_000_000;

/// Maximum number of signature operations in a block.
const SIGOPS_MAX: u64 = 20_000;

/// Minimum size of a transaction, in bytes, which bounds their number.
const TRANSACTION_BYTES_MIN: usize = 60;

/// Bytes kept free for the proof of work: a parent coinbase of 4000 outputs to hashes of 20 bytes, two merkle branches
/// and a header.
const PROOF_BYTES_MAX: usize = 145_000;

/// Bit of a compact target that makes it negative.
const SIGN: u32 = 0x0080_0000;

/// Bytes of a header, and of the number of transactions.
const FRAME_BYTES: usize = HEADER_BYTES + 9;

const HEADER_BYTES: usize = 80;

/// Answer to `getblocktemplate`, before its values are checked.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TemplateAnswer {
    version: i64,
    #[serde(default)]
    rules: Vec<String>,
    previousblockhash: String,
    transactions: Vec<TransactionAnswer>,
    coinbasevalue: u64,
    target: String,
    mintime: Option<u64>,
    sigoplimit: Option<u64>,
    sizelimit: Option<u64>,
    curtime: u64,
    bits: String,
    height: u64,
    default_witness_commitment: Option<String>,
}

/// Transaction of such an answer.
#[derive(Debug, Clone, Deserialize)]
struct TransactionAnswer {
    data: String,
    txid: String,
    fee: u64,
    sigops: u64,
}

/// Transaction for the next block.
#[derive(Clone, PartialEq, Eq)]
struct Transaction {
    raw: Bytes,
    /// Its id, a raw digest.
    txid: Digest,
    /// Fee in base units.
    fee: u64,
    /// Signature operations.
    sigops: u64,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transaction({} bytes, fee {})", self.raw.len(), self.fee)
    }
}

/// Everything about a merged chain's next block but its coinbase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedTemplate {
    /// Version, with the number of the chain in its upper half.
    pub version: u32,
    /// Hash of the block to build on, a raw digest.
    pub previous_block: Digest,
    /// Height of the block.
    pub height: u32,
    /// Compact form of its target.
    pub bits: u32,
    /// Its target, for the parent chain's proof of work.
    pub target: Target,
    /// Its time, in seconds since 1970.
    pub time: u32,
    /// What its coinbase may pay, in base units: subsidy and fees.
    pub value: u64,
    transactions: Box<[Transaction]>,
    /// Maximum size of the block with its proof, in bytes.
    bytes_max: usize,
    /// Maximum number of signature operations of the block.
    sigops_max: u64,
}

impl TemplateAnswer {
    /// Checks all values. Takes milliseconds for a full block, so keep it off the event loop.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub(super) fn check(self) -> Result<MergedTemplate, AnswerError> {
        let version = u32::try_from(self.version).ok().filter(|version| *version <= i32::MAX.unsigned_abs());
        let version = version.ok_or_else(|| wrong("version", &self.version.into(), "a number from 0 to 2^31 - 1"))?;
        if let Some(rule) = self.rules.iter().find(|rule| rule.starts_with('!')) {
            return Err(wrong("list of rules", &Value::from(&**rule), "rules that ask nothing of miners"));
        }
        if let Some(commitment) = self.default_witness_commitment {
            return Err(wrong("default_witness_commitment", &commitment.into(), "none: its blocks have no witnesses"));
        }
        let previous_block = hash("previousblockhash", &self.previousblockhash.into())?;
        let height = height("height", &self.height.into(), 1)?;
        let (bits, target) = target(&self.bits, &self.target)?;
        let time = u32::try_from(self.curtime).ok().filter(|time| self.mintime.is_none_or(|min| min <= (*time).into()));
        let time = time.ok_or_else(|| wrong("curtime", &self.curtime.into(), "a time, not before its mintime"))?;
        let bytes_max = limit("sizelimit", self.sizelimit, BLOCK_BYTES_MAX as u64)?;
        let bytes_max = usize::try_from(bytes_max).unwrap_or(BLOCK_BYTES_MAX);
        let sigops_max = limit("sigoplimit", self.sigoplimit, SIGOPS_MAX)?;
        if self.transactions.len() > bytes_max / TRANSACTION_BYTES_MIN {
            let count = self.transactions.len();
            return Err(wrong("number of transactions", &count.into(), "as many as fit into a block"));
        }
        let transactions = self.transactions.into_iter().map(transaction).collect::<Result<Box<[_]>, _>>()?;
        let fees = transactions.iter().try_fold(0_u64, |sum, one| sum.checked_add(one.fee));
        let value = Some(self.coinbasevalue).filter(|value| (1..=VALUE_MAX).contains(value));
        let value = value.filter(|value| fees.is_some_and(|fees| fees <= *value));
        let value = value.ok_or_else(|| {
            wrong("coinbasevalue", &self.coinbasevalue.into(), "from 1 to 10^18, and no less than the fees")
        })?;
        Ok(MergedTemplate {
            version,
            previous_block,
            height,
            bits,
            target,
            time,
            value,
            transactions,
            bytes_max,
            sigops_max,
        })
    }
}

/// Reads a target in both of its forms. That of `target` is big-endian, unlike those of `createauxblock` (protocol-v36
/// trap 10); as it has to be that of `bits`, none is read the wrong way.
fn target(bits: &str, target: &str) -> Result<(u32, Target), AnswerError> {
    let number = u32::from_str_radix(bits, 16).ok().filter(|number| bits.len() == 8 && number & SIGN == 0);
    let number = number.ok_or_else(|| wrong("bits", &bits.into(), "8 hex digits of a compact target"))?;
    let bytes = digits(target).ok_or_else(|| wrong("target", &target.into(), DIGITS))?;
    if bytes == [0; 32] {
        return Err(AnswerError::ZeroTarget);
    }
    let whole = Target::from_be_bytes(&bytes);
    if whole != Bits(number).target() {
        return Err(wrong("target", &target.into(), "that of its bits, with the most significant byte first"));
    }
    Ok((number, whole))
}

/// Reads a limit of the daemon, which may be lower than the chain's.
fn limit(field: &'static str, given: Option<u64>, max: u64) -> Result<u64, AnswerError> {
    match given {
        Some(0) => Err(wrong(field, &0.into(), "a number above 0")),
        given => Ok(given.map_or(max, |given| given.min(max))),
    }
}

fn transaction(answer: TransactionAnswer) -> Result<Transaction, AnswerError> {
    let TransactionAnswer { data, txid: written, fee, sigops } = answer;
    let txid = hash("transactions' txid", &Value::from(&*written))?;
    let hashed = |raw: &Vec<u8>| <[u8; 32]>::from(Sha256::digest(Sha256::digest(raw)));
    // Without witnesses, the id is the hash of all bytes.
    let raw = hex::decode(&data).ok().filter(|raw| raw.len() >= TRANSACTION_BYTES_MIN && hashed(raw) == txid);
    let raw = raw.ok_or_else(|| {
        wrong("transactions' txid", &written.into(), "the hash of its data, a transaction without witnesses")
    })?;
    Ok(Transaction { raw: raw.into(), txid, fee, sigops })
}

impl MergedTemplate {
    /// Number of the chain, as in the versions of its blocks.
    pub fn chain_id(&self) -> u32 {
        self.version >> 16
    }

    /// Number of transactions, the first ones, that fit beside a coinbase of this size and with this many signature
    /// operations; `None` if the coinbase does not fit alone. The daemon leaves room for a small one only.
    pub(super) fn fitting(&self, coinbase_bytes: usize, coinbase_sigops: u64) -> Option<usize> {
        let mut bytes = self.bytes_max.checked_sub(FRAME_BYTES + PROOF_BYTES_MAX)?.checked_sub(coinbase_bytes)?;
        let mut sigops = self.sigops_max.checked_sub(coinbase_sigops)?;
        let mut fits = |one: &&Transaction| {
            let left = bytes.checked_sub(one.raw.len()).zip(sigops.checked_sub(one.sigops));
            (bytes, sigops) = left.unwrap_or((0, 0));
            left.is_some()
        };
        // Stops at the first that does not fit, since later ones may spend its outputs.
        Some(self.transactions.iter().take_while(&mut fits).count())
    }

    /// What the coinbase may pay with the first `kept` transactions alone, in base units.
    pub(super) fn value_with(&self, kept: usize) -> u64 {
        let fees: u64 = self.transactions.iter().skip(kept).map(|one| one.fee).sum();
        self.value - fees
    }

    /// Builds the block of `coinbase` and the first `kept` transactions (protocol-v36 section 8.4).
    pub(super) fn block(self: &Arc<Self>, coinbase: Vec<u8>, kept: usize) -> TemplateBlock {
        let kept = kept.min(self.transactions.len());
        let txids: Vec<Digest> = self.transactions[..kept].iter().map(|one| one.txid).collect();
        let branch = merkle::branch_of_first(&txids);
        let root = merkle::fold(sha256d(&coinbase), &branch);
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&(self.version | AUX_FLAG).to_le_bytes());
        header[4..36].copy_from_slice(&self.previous_block);
        header[36..68].copy_from_slice(&root);
        header[68..72].copy_from_slice(&self.time.to_le_bytes());
        header[72..76].copy_from_slice(&self.bits.to_le_bytes());
        // The nonce stays 0: the proof of work is the parent block's.
        TemplateBlock { template: self.clone(), kept, coinbase: coinbase.into(), branch: branch.into(), header }
    }
}

#[cfg(test)]
impl MergedTemplate {
    /// A template without transactions for a block of Dogecoin on the block with this hash.
    pub(crate) fn of_test(previous_block: Digest) -> Arc<Self> {
        Arc::new(Self {
            version: 0x0062_0004,
            previous_block,
            height: 7,
            bits: 0x1d00_ffff,
            target: Bits(0x1d00_ffff).target(),
            time: 1_700_000_000,
            value: 1_000_000,
            transactions: Box::default(),
            bytes_max: BLOCK_BYTES_MAX,
            sigops_max: SIGOPS_MAX,
        })
    }
}

/// A block of a merged chain that the node built itself, without its proof of work.
#[derive(Clone, PartialEq, Eq)]
pub struct TemplateBlock {
    template: Arc<MergedTemplate>,
    /// Number of the template's transactions that it has.
    kept: usize,
    coinbase: Bytes,
    branch: Box<[Digest]>,
    header: [u8; HEADER_BYTES],
}

impl fmt::Debug for TemplateBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TemplateBlock({} transactions at height {})", self.kept + 1, self.template.height)
    }
}

impl TemplateBlock {
    /// Its template.
    pub fn template(&self) -> &Arc<MergedTemplate> {
        &self.template
    }

    /// Its header.
    pub fn header(&self) -> &[u8; 80] {
        &self.header
    }

    /// Branch from the coinbase to the merkle root in the header.
    pub fn branch(&self) -> &[Digest] {
        &self.branch
    }

    /// Its hash, a raw digest.
    pub fn hash(&self) -> Digest {
        sha256d(&self.header)
    }

    /// The whole block with its proof of work, as `submitblock` takes it.
    pub fn bytes(&self, proof: &[u8]) -> Vec<u8> {
        let transactions = &self.template.transactions[..self.kept];
        let size: usize = transactions.iter().map(|one| one.raw.len()).sum();
        let mut bytes = Vec::with_capacity(FRAME_BYTES + proof.len() + self.coinbase.len() + size);
        bytes.extend_from_slice(&self.header);
        bytes.extend_from_slice(proof);
        bytes.extend_from_slice(&serialize(&VarInt::from(self.kept + 1)));
        bytes.extend_from_slice(&self.coinbase);
        transactions.iter().for_each(|one| bytes.extend_from_slice(&one.raw));
        bytes
    }
}

/// True if `bytes` are a whole block with this hash, and not a proof of work: they begin with its header.
pub(super) fn is_whole(bytes: &[u8], hash: &Digest) -> bool {
    bytes.first_chunk::<HEADER_BYTES>().is_some_and(|header| sha256d(header) == *hash)
}

fn sha256d(bytes: &[u8]) -> Digest {
    Sha256::digest(Sha256::digest(bytes)).into()
}

#[cfg(test)]
mod tests;
