//! Check of a share's `merged_coinbase_info` (protocol-v36 section 6.4): the merged block in the share's proof of work
//! must pay the window's miners.
//!
//! The list is as long as the share's bytes allow, and every entry counts. Yet the check costs one coinbase, one
//! merkle branch and one header hash a share, then a comparison for each further entry: there is one root in the
//! coinbase script, so all entries have one header, and in it one merkle root. Two coinbases of more than 64 bytes that
//! lead to it by branches of their own would be a collision of SHA-256, so a second entry that the reference accepts is
//! equal to the first.

use std::borrow::{Borrow, Cow};

use bitcoin::hashes::{Hash, sha256d};
use thiserror::Error;

use super::coinbase::{MergedOutputs, canonical_script};
use super::payee::MergedWeights;
use super::{COMMITMENT_HEAD, DOGECOIN};
use crate::merkle::{self, Digest};
use crate::share::{MergedCoinbase, display_hex};

/// Bytes that must follow the head of a commitment: root, tree size, and four bytes that are free.
const AFTER_HEAD_BYTES: usize = 32 + 4 + 4;

/// Maximum bytes hashed for the choice among coinbases whose outputs are undefined. Such a tie takes a window without
/// any donation that divides without a rest; a coinbase of 300 miners has 10 kB.
const UNDEFINED_BYTES_MAX: usize = 8_000_000;

impl MergedCoinbase {
    /// Script of the coinbase's input.
    fn input_script(&self) -> Cow<'_, [u8]> {
        if self.script.is_empty() { canonical_script(self.height).into() } else { Cow::Borrowed(&*self.script) }
    }

    /// True if both entries prove the same coinbase of the same block.
    fn proves_the_same(&self, other: &MergedCoinbase) -> bool {
        self.header == other.header
            && self.branch == other.branch
            && self.value == other.value
            && self.input_script() == other.input_script()
    }
}

/// Reasons why a share's `merged_coinbase_info` is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MergedCoinbaseError {
    /// Coinbase script without a commitment to merged blocks.
    #[error("merged_coinbase_info without `fabe6d6d` in the coinbase script of {0} bytes")]
    NoCommitment(usize),
    /// Coinbase script that ends inside the commitment.
    #[error("commitment to merged blocks has {0} bytes after `fabe6d6d`, less than {AFTER_HEAD_BYTES}")]
    ShortCommitment(usize),
    /// Commitment to more than one merged block, of which no share can prove one.
    #[error("commitment to merged blocks has tree size {0}, only 1 can be checked")]
    TreeSize(u32),
    /// Header of another block than the committed one.
    #[error("merged block's hash is {} and should be {}", display_hex(given), display_hex(committed))]
    BlockHash {
        /// Hash of the header in the share.
        given: Digest,
        /// Root in the coinbase script.
        committed: Digest,
    },
    /// Header of a block whose coinbase does not pay the window.
    #[error(
        "merged block's merkle root is {} and should be {} for a coinbase of {value} at height {height}",
        display_hex(given),
        display_hex(wanted)
    )]
    MerkleRoot {
        /// Merkle root in the header.
        given: Digest,
        /// Merkle root with the canonical coinbase.
        wanted: Digest,
        /// Value in the share, in the merged chain's base units.
        value: u64,
        /// Height in the share.
        height: u64,
    },
    /// Further entry for a chain that differs from the first: both cannot be right.
    #[error("entry {0} of merged_coinbase_info differs from the first of its chain")]
    SecondBlock(usize),
    /// The weights are not those of any window: a bug of the caller.
    #[error("merged weights exceed their total")]
    Weights,
}

impl MergedCoinbaseError {
    /// Short name of the reason, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCommitment(_) => "no_commitment",
            Self::ShortCommitment(_) => "short_commitment",
            Self::TreeSize(_) => "tree_size",
            Self::BlockHash { .. } => "block_hash",
            Self::MerkleRoot { .. } => "merkle_root",
            Self::SecondBlock(_) => "second_block",
            Self::Weights => "weights",
        }
    }
}

/// Commitment to merged blocks in a coinbase script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Commitment {
    root: Digest,
    size: u32,
}

impl Commitment {
    /// Reads the first commitment in `script`; the head decides, whatever follows it.
    fn find(script: &[u8]) -> Result<Commitment, MergedCoinbaseError> {
        let at = script.windows(COMMITMENT_HEAD.len()).position(|bytes| bytes == COMMITMENT_HEAD);
        let at = at.ok_or(MergedCoinbaseError::NoCommitment(script.len()))?;
        let after = &script[at + COMMITMENT_HEAD.len()..];
        let short = MergedCoinbaseError::ShortCommitment(after.len());
        let (bytes, _) = after.split_first_chunk::<AFTER_HEAD_BYTES>().ok_or(short)?;
        let mut root = [0; 32];
        root.copy_from_slice(&bytes[..32]);
        // Written big-endian, unlike all other hashes.
        root.reverse();
        let mut size = [0; 4];
        size.copy_from_slice(&bytes[32..36]);
        Ok(Commitment { root, size: u32::from_le_bytes(size) })
    }
}

/// Checks a share's `merged_coinbase_info`, given its coinbase script. `weights_of` returns the merged weights of a
/// chain for the window that starts at the share's parent; it is called once at most.
///
/// Entries of other chains than Dogecoin are skipped, and so are all entries if the weights are empty. The caller skips
/// the check for a share without parent, and if the parent's height is below `REAL_CHAIN_LENGTH`: its window would not
/// be whole.
///
/// If the outputs are undefined ([`MergedOutputs::is_undefined`]), each choice that the reference could make is
/// accepted.
///
/// # Errors
/// [`MergedCoinbaseError`]. The verdict is the reference's; with several faults, the reason may be another.
pub fn verify<W: Borrow<MergedWeights>>(
    script: &[u8],
    infos: &[MergedCoinbase],
    weights_of: impl FnOnce(u32) -> W,
) -> Result<(), MergedCoinbaseError> {
    if infos.is_empty() {
        return Ok(());
    }
    let commitment = Commitment::find(script)?;
    let mut checked = infos.iter().enumerate().filter(|(_, info)| info.chain_id == DOGECOIN);
    let Some((_, first)) = checked.next() else { return Ok(()) };
    let weights = weights_of(DOGECOIN);
    let weights: &MergedWeights = weights.borrow();
    if weights.is_empty() {
        return Ok(());
    }
    if commitment.size != 1 {
        return Err(MergedCoinbaseError::TreeSize(commitment.size));
    }
    let hash = sha256d::Hash::hash(&first.header).to_byte_array();
    if hash != commitment.root {
        return Err(MergedCoinbaseError::BlockHash { given: hash, committed: commitment.root });
    }
    check_coinbase(first, weights)?;
    match checked.find(|(_, other)| !first.proves_the_same(other)) {
        Some((index, _)) => Err(MergedCoinbaseError::SecondBlock(index)),
        None => Ok(()),
    }
}

/// Checks that the canonical coinbase leads to the header's merkle root.
fn check_coinbase(info: &MergedCoinbase, weights: &MergedWeights) -> Result<(), MergedCoinbaseError> {
    let outputs = MergedOutputs::new(weights, info.value).ok_or(MergedCoinbaseError::Weights)?;
    let script = info.input_script();
    let mut given = [0; 32];
    given.copy_from_slice(&info.header[36..68]);
    let mut wanted = None;
    let mut hashed = 0;
    for coinbase in outputs.candidates(&script) {
        let root = merkle::fold(sha256d::Hash::hash(&coinbase).to_byte_array(), &info.branch);
        if root == given {
            return Ok(());
        }
        wanted.get_or_insert(root);
        hashed += coinbase.len() + 64 * info.branch.len();
        if hashed > UNDEFINED_BYTES_MAX {
            break;
        }
    }
    let wanted = wanted.unwrap_or_default();
    Err(MergedCoinbaseError::MerkleRoot { given, wanted, value: info.value, height: info.height })
}

#[cfg(test)]
mod tests;
