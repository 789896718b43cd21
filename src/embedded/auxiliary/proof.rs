//! Auxiliary proofs of work: parsed, and judged by the rules that Namecoin Core and Dogecoin Core publish.
//!
//! Shares no code with the proofs that the node builds: it is what they are tested against.

use bitcoin::consensus::Decodable;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Target, Transaction, VarInt};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Mark before the root of the tree of merged chains in a coinbase script.
const MARK: [u8; 4] = [0xfa, 0xbe, 0x6d, 0x6d];

/// Maximum depth of the tree of merged chains.
pub const CHAIN_BRANCH_MAX: usize = 30;

/// Without a mark, the root begins within the first bytes of the coinbase script.
const ROOT_OFFSET_MAX: usize = 20;

/// Bytes of a hash.
const HASH_BYTES: usize = 32;

/// Bytes of a parent block's header.
pub(super) const HEADER_BYTES: usize = 80;

/// Raw digest, in the byte order of the hash function's output.
type Digest = [u8; HASH_BYTES];

/// Proof-of-work function of the parent chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentPow {
    /// SHA-256 twice, as Bitcoin.
    Sha256d,
    /// scrypt with N = 1024, r = 1, p = 1, as Litecoin.
    Scrypt,
}

impl ParentPow {
    /// Hash of a header that is compared with the target.
    pub(super) fn hash(self, header: &[u8; HEADER_BYTES]) -> Digest {
        match self {
            Self::Sha256d => sha256d(header),
            Self::Scrypt => {
                // 2^10 = 1024.
                let params = scrypt::Params::new(10, 1, 1).expect("constant parameters, within scrypt's limits");
                let mut hash = [0; HASH_BYTES];
                scrypt::scrypt(header, header, &params, &mut hash).expect("scrypt can give 32 bytes");
                hash
            }
        }
    }
}

/// Reason why bytes are no proof.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A transaction has no inputs, or is serialised with its witnesses.
    #[error("a transaction has no inputs, or is serialised with its witnesses")]
    NoInputs,
    /// A part is malformed, or the bytes end before it does.
    #[error("the {0} is malformed or cut off")]
    Part(&'static str),
    /// Daemons ignore bytes after the end; a proof of ours has none.
    #[error("{0} bytes after the end")]
    TrailingBytes(usize),
}

/// Reason why a proof does not prove a block.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The transaction is not the first of its block.
    #[error("the transaction has index {0} in its block: it is no coinbase")]
    NotCoinbase(u32),
    /// The parent block is one of the merged chain itself.
    #[error("the parent block has the chain number {0} of the merged chain")]
    OwnParent(u32),
    /// The tree of merged chains is too deep.
    #[error("the branch of merged chains has {0} hashes, more than {CHAIN_BRANCH_MAX}")]
    ChainBranchLength(usize),
    /// The coinbase is not in the parent block.
    #[error("the coinbase does not lead to the merkle root of the parent block")]
    MerkleRoot,
    /// The coinbase does not commit to the block.
    #[error("the coinbase script does not contain the root of the tree of merged chains")]
    RootMissing,
    /// More than one mark.
    #[error("the coinbase script has two marks of merged mining")]
    TwoMarks,
    /// The mark is elsewhere.
    #[error("the mark of merged mining is not right before the root")]
    MarkElsewhere,
    /// Without a mark, the root comes too late.
    #[error("without a mark, the root begins at byte {0}, after byte {ROOT_OFFSET_MAX}")]
    RootTooLate(usize),
    /// The script ends after the root.
    #[error("size and nonce of the tree of merged chains are missing")]
    SizeMissing,
    /// The size is not that of a tree with such a branch.
    #[error("the tree of merged chains has size {size}, and a branch of {branch} hashes")]
    Size {
        /// Size in the coinbase script.
        size: u32,
        /// Length of the branch.
        branch: usize,
    },
    /// The block is not in its chain's slot.
    #[error("the block is in slot {found} of the tree, its chain's is {expected}")]
    Slot {
        /// Slot of the branch.
        found: u32,
        /// Slot by chain number, nonce and size.
        expected: u32,
    },
    /// The parent block's hash is above the target.
    #[error("the proof of work of the parent block is above the target")]
    HighHash,
}

/// What a proof has to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Block of the merged chain.
    pub block: BlockHash,
    /// Number of the merged chain.
    pub chain_id: u32,
    /// Target of the block.
    pub target: Target,
    /// Proof-of-work function of the parent chain.
    pub pow: ParentPow,
}

/// Path from a leaf to the root of a merkle tree.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Branch {
    siblings: Vec<Digest>,
    index: u32,
}

impl Branch {
    fn root(&self, leaf: Digest) -> Digest {
        let mut index = self.index;
        let mut hash = leaf;
        for sibling in &self.siblings {
            let pair = if index & 1 == 1 { [*sibling, hash] } else { [hash, *sibling] };
            hash = sha256d(pair.as_flattened());
            index >>= 1;
        }
        hash
    }
}

/// Proof that a header of the parent chain was mined for a block of a merged chain (protocol section 2: `aux_pow`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuxProof {
    script: Vec<u8>,
    coinbase_hash: Digest,
    coinbase_branch: Branch,
    chain_branch: Branch,
    parent: [u8; HEADER_BYTES],
}

impl AuxProof {
    /// Parses a proof, to the last byte.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        let proof = Self::read(&mut rest)?;
        match rest.len() {
            0 => Ok(proof),
            more => Err(DecodeError::TrailingBytes(more)),
        }
    }

    /// Takes a proof from the start of `rest`.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub(super) fn read(rest: &mut &[u8]) -> Result<Self, DecodeError> {
        let bytes = *rest;
        let coinbase = transaction(rest, "coinbase transaction")?;
        let coinbase_hash = sha256d(&bytes[..bytes.len() - rest.len()]);
        let script = coinbase.input.into_iter().next().ok_or(DecodeError::NoInputs)?.script_sig.into_bytes();
        // The hash of the parent block, which all daemons ignore.
        array::<HASH_BYTES>(rest, "hash of the parent block")?;
        let coinbase_branch = branch(rest, "branch of the coinbase")?;
        let chain_branch = branch(rest, "branch of merged chains")?;
        let parent = array(rest, "header of the parent block")?;
        Ok(Self { script, coinbase_hash, coinbase_branch, chain_branch, parent })
    }

    /// Checks that it proves `claim`. The order of the checks is that of the daemons.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, claim: &Claim) -> Result<(), ProofError> {
        if self.coinbase_branch.index != 0 {
            return Err(ProofError::NotCoinbase(self.coinbase_branch.index));
        }
        if self.parent_chain_id() == i64::from(claim.chain_id) {
            return Err(ProofError::OwnParent(claim.chain_id));
        }
        if self.chain_branch.siblings.len() > CHAIN_BRANCH_MAX {
            return Err(ProofError::ChainBranchLength(self.chain_branch.siblings.len()));
        }
        if self.coinbase_branch.root(self.coinbase_hash) != self.parent[36..68] {
            return Err(ProofError::MerkleRoot);
        }
        self.check_commitment(claim)?;
        if Target::from_le_bytes(claim.pow.hash(&self.parent)) > claim.target {
            return Err(ProofError::HighHash);
        }
        Ok(())
    }

    /// Chain number in the parent's version, by which a merged chain knows its own blocks. On Bitcoin and Litecoin it
    /// consists of version bits.
    fn parent_chain_id(&self) -> i64 {
        let version = i32::from_le_bytes(self.parent[..4].try_into().expect("four bytes"));
        i64::from(version >> 16)
    }

    /// Checks that the coinbase commits to the block, once, and in the slot of its chain.
    fn check_commitment(&self, claim: &Claim) -> Result<(), ProofError> {
        let mut root = self.chain_branch.root(claim.block.to_byte_array());
        root.reverse();
        let at = find(&self.script, &root).ok_or(ProofError::RootMissing)?;
        match find(&self.script, &MARK) {
            Some(mark) if find(&self.script[mark + 1..], &MARK).is_some() => return Err(ProofError::TwoMarks),
            Some(mark) if mark + MARK.len() != at => return Err(ProofError::MarkElsewhere),
            None if at > ROOT_OFFSET_MAX => return Err(ProofError::RootTooLate(at)),
            _ => {}
        }
        let mut rest = &self.script[at + HASH_BYTES..];
        let mut number = || array(&mut rest, "").map(u32::from_le_bytes).map_err(|_| ProofError::SizeMissing);
        let (size, nonce) = (number()?, number()?);
        let branch = self.chain_branch.siblings.len();
        if size != 1 << branch {
            return Err(ProofError::Size { size, branch });
        }
        let (found, expected) = (self.chain_branch.index, slot(nonce, claim.chain_id, size));
        if found == expected { Ok(()) } else { Err(ProofError::Slot { found, expected }) }
    }
}

/// Slot of a chain in a tree: two steps of a linear congruential generator, with the chain's number added between them.
fn slot(nonce: u32, chain_id: u32, size: u32) -> u32 {
    let step = |number: u32| number.wrapping_mul(1_103_515_245).wrapping_add(12_345);
    step(step(nonce).wrapping_add(chain_id)) % size
}

fn sha256d(bytes: &[u8]) -> Digest {
    Sha256::digest(Sha256::digest(bytes)).into()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Takes a transaction without witnesses from the start of `rest`.
pub(super) fn transaction(rest: &mut &[u8], part: &'static str) -> Result<Transaction, DecodeError> {
    // A list of no inputs would be taken for the mark of a transaction with witnesses.
    if rest.get(4) == Some(&0) {
        return Err(DecodeError::NoInputs);
    }
    Transaction::consensus_decode(rest).map_err(|_| DecodeError::Part(part))
}

/// Takes the first `N` bytes of `rest`.
pub(super) fn array<const N: usize>(rest: &mut &[u8], part: &'static str) -> Result<[u8; N], DecodeError> {
    let (taken, after) = rest.split_first_chunk().ok_or(DecodeError::Part(part))?;
    *rest = after;
    Ok(*taken)
}

fn branch(rest: &mut &[u8], part: &'static str) -> Result<Branch, DecodeError> {
    let count = VarInt::consensus_decode(rest).map_err(|_| DecodeError::Part(part))?.0;
    // Before memory is taken for them.
    if count > (rest.len() / HASH_BYTES) as u64 {
        return Err(DecodeError::Part(part));
    }
    let siblings = (0..count).map(|_| array(rest, part)).collect::<Result<_, _>>()?;
    let index = u32::from_le_bytes(array(rest, part)?);
    Ok(Branch { siblings, index })
}

#[cfg(test)]
pub(super) mod tests;
