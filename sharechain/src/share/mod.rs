//! Shares: contents, serialisation, and all checks that need no ancestors.
//!
//! A share is a block header that was hard enough to find, with just enough data to prove that its coinbase pays the
//! miners of the last window. Nothing outside this folder and `sharechain` depends on a share's version.
//!
//! ```text
//!  bytes ──format──▶ Contents ──check──▶ Share ──▶ sharechain
//!                        ▲                 ▲ hash_link, payee
//!  work ──generation─────┴─── create ──────┘
//! ```

mod check;
mod coinbase_script;
mod create;
mod donation;
mod format;
mod generation;
mod hash_link;
mod inspect;
mod message;
mod number;
mod payee;
mod payout_hash;
mod transition;

pub use crate::rules::{ShareVersion, VersionError};
pub use check::{CheckError, UnprovenShare};
pub use coinbase_script::{ScriptError, coinbase_script, height_of, push_bytes, push_number};
pub use create::{Draft, DraftError};
pub use donation::{
    DONATION_PUBKEY_HASH, DONATION_SCRIPT, MARKER_SCRIPT, constant_ending, donation_payee, donation_script,
};
pub use format::{FormatError, pack, read_wrapped, ref_hash, ref_type, unpack, unpack_contents, write_wrapped};
pub use generation::{
    Coinbase, GenerationError, Payouts, WITNESS_RESERVED_VALUE, Weights, coinbase_of, witness_commitment_script,
};
pub use inspect::{InspectError, inspect};
pub use message::{AuthorityMessage, Envelope, MessageError, Signer, UnverifiedMessage, read as read_messages};
pub use number::{Attempts, Bits, ShareHash, Target, display_hex};
pub use payee::{Payee, PayeeError, SCRIPT_BYTES_MAX, whole as whole_payee};
pub use payout_hash::payout_hash;
pub use transition::{Transition, Urgency};

use bitcoin::hashes::{Hash, sha256d};
use serde::{Deserialize, Serialize};
use std::fmt;

use crate::merkle::{self, Digest};

/// Maximum size of a share in bytes: that of a message's payload (protocol section 3.1).
///
/// The only limit on bytes that a proof of work commits to, in messages, memory and store alike: with a lower limit
/// somewhere, a longer share that was mined would separate this node from the others.
pub const SHARE_BYTES_MAX: usize = 32_000_000;

/// Rules of a network for its shares (protocol section 1): all that this folder needs of the network.
#[derive(Clone)]
pub struct ShareRules {
    /// Part of every ref hash, so that a share is valid on one network only.
    pub identifier: [u8; 8],
    /// Easiest target of a share.
    pub max_target: Target,
    /// First share version with segwit data; 0 for never.
    pub segwit_activation_version: u64,
    /// Newest share version of the network.
    pub newest_version: u64,
    /// Version byte of P2PKH addresses.
    pub address_version: u8,
    /// Version byte of P2SH addresses.
    pub address_p2sh_version: u8,
    /// Human-readable part of segwit addresses, lower case.
    pub human_readable_part: String,
    /// Proof-of-work hash of a block header.
    pub pow: fn(&[u8; 80]) -> Digest,
    /// Shares above this height must not vote for version 16: a guard of a past hard fork, on Bitcoin's main network
    /// only (section 5.1 step 5; 3,927,800 there).
    pub no_votes_for_16_above: Option<u32>,
}

impl fmt::Debug for ShareRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShareRules({}, {})", hex::encode(self.identifier), self.human_readable_part)
    }
}

/// Proof-of-work hash of Bitcoin and related coins.
pub fn pow_sha256d(header: &[u8; 80]) -> Digest {
    sha256d::Hash::hash(header).to_byte_array()
}

/// Block header without its merkle root, which a share proves instead of carrying it (fields 1 to 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinHeader {
    /// Block version. A varint on the wire (trap 1), so the format refuses values that a header cannot hold.
    pub version: u32,
    /// Parent block, a raw digest; none for a chain's first block.
    pub previous_block: Option<Digest>,
    /// Time of the block, seconds since 1970; unrelated to the share's.
    pub timestamp: u32,
    /// Target of the block. No check covers it, yet it sets the payout window (trap 22).
    pub bits: Bits,
    /// Nonce found by the miner.
    pub nonce: u32,
}

impl MinHeader {
    /// Returns the complete header with this merkle root.
    pub fn complete(&self, merkle_root: &Digest) -> [u8; 80] {
        let mut header = [0; 80];
        header[..4].copy_from_slice(&self.version.to_le_bytes());
        header[4..36].copy_from_slice(self.previous_block.as_ref().unwrap_or(&[0; 32]));
        header[36..68].copy_from_slice(merkle_root);
        header[68..72].copy_from_slice(&self.timestamp.to_le_bytes());
        header[72..76].copy_from_slice(&self.bits.0.to_le_bytes());
        header[76..].copy_from_slice(&self.nonce.to_le_bytes());
        header
    }
}

/// Fate of the share that the miner lost before this one (field 12).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct StaleInfo(pub u8);

impl StaleInfo {
    /// No lost share to announce.
    pub const NONE: StaleInfo = StaleInfo(0);
    /// A share was found, but the chain took another branch.
    pub const ORPHAN: StaleInfo = StaleInfo(253);
    /// A share was dead on arrival: its work was no longer the latest.
    pub const DOA: StaleInfo = StaleInfo(254);

    /// Name in the reference; `None` if nothing is announced. All 256 values are valid (trap 31).
    pub fn name(self) -> Option<String> {
        match self {
            StaleInfo::NONE => None,
            StaleInfo::ORPHAN => Some("orphan".into()),
            StaleInfo::DOA => Some("doa".into()),
            StaleInfo(other) => Some(format!("unk{other}")),
        }
    }
}

impl fmt::Debug for StaleInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().as_deref().unwrap_or("none"))
    }
}

/// Payee as encoded on the wire (field 9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payout {
    /// Below version 34: a hash160.
    PubkeyHash([u8; 20]),
    /// Versions 34 and 35: an address, unchecked.
    Address(Box<str>),
    /// From version 36: a hash160 or witness program, and the kind of its script.
    Hash {
        /// In natural order.
        hash: [u8; 20],
        /// 1 for P2WPKH, 2 for P2SH, any other for P2PKH.
        kind: u8,
    },
}

/// Fields that the miner chooses (fields 6 to 13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareData {
    /// Parent share; none for the first of a chain.
    pub previous: Option<ShareHash>,
    /// Coinbase script, 2 to 100 bytes in a valid share.
    pub coinbase: Box<[u8]>,
    /// Random number that keeps two nodes' work distinct.
    pub nonce: u32,
    /// Payee of the share.
    pub payout: Payout,
    /// Total output of the coinbase in satoshis. No check covers it from version 34 on. A varint from version 36 on.
    pub subsidy: u64,
    /// Part of the miner's weight that goes to the donation address, in 65535ths.
    pub donation: u16,
    /// Announcement of the miner's lost share.
    pub stale_info: StaleInfo,
    /// Version that this share votes for.
    pub desired_version: u64,
}

/// Data that ties a share to a block with witnesses (fields 14, 15).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegwitData {
    /// Branch from the coinbase's txid to the block's merkle root.
    pub txid_merkle_branch: Box<[Digest]>,
    /// Root over the wtxids, the coinbase's being zero; input of the witness commitment.
    pub wtxid_merkle_root: Digest,
}

impl SegwitData {
    /// Computes the segwit data of a block (section 4.8) from its transactions' txids and wtxids, coinbase excluded.
    pub fn of_transactions(txids: &[Digest], wtxids: &[Digest]) -> SegwitData {
        // The coinbase's own wtxid counts as zero, so that it can commit to the root.
        let leaves: Vec<Digest> = std::iter::once([0; 32]).chain(wtxids.iter().copied()).collect();
        SegwitData {
            txid_merkle_branch: merkle::branch_of_first(txids).into(),
            wtxid_merkle_root: merkle::root(&leaves),
        }
    }
}

/// Transactions of a block, as listed by shares before version 34 (fields 16, 17).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionRefs {
    /// Transaction hashes that no recent ancestor listed.
    pub new_hashes: Box<[Digest]>,
    /// For each transaction: distance in shares to the list with its hash (0: here, 1: the parent), and index there.
    pub refs: Box<[(u64, u64)]>,
}

/// Output script of a merged chain for a share's miner (protocol-v36 section 3.1, field 16).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedAddress {
    /// Chain number in the proofs of merged mining.
    pub chain_id: u32,
    /// Output script, unchecked.
    pub script: Box<[u8]>,
}

/// Coinbase and header of a merged chain's block that the share's work is also for (protocol-v36 section 3.1, field 23).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedCoinbase {
    /// Chain number in the proofs of merged mining.
    pub chain_id: u32,
    /// Total output of the coinbase in the chain's base units.
    pub value: u64,
    /// Height of the block.
    pub height: u64,
    /// Header of the block.
    pub header: [u8; 80],
    /// Branch from the coinbase to the header's merkle root.
    pub branch: Box<[Digest]>,
    /// Input script of the coinbase; empty for the usual one.
    pub script: Box<[u8]>,
}

/// Fields that version 36 added (protocol-v36 section 3.1: 16, 23, 24 and 31). An empty list and none are the same bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Additions {
    /// Where the miner is paid on merged chains.
    pub merged_addresses: Box<[MergedAddress]>,
    /// Blocks of merged chains that the share's work is also for.
    pub merged_coinbase_info: Box<[MergedCoinbase]>,
    /// Commitment to the undecayed weights of the shares that vote for version 36.
    pub merged_payout_hash: Option<Digest>,
    /// Messages of the version's authors. Last in a share's bytes, but part of what the ref hash commits to.
    pub message_data: Box<[u8]>,
}

impl Additions {
    /// Memory use in bytes.
    pub fn memory_bytes(&self) -> usize {
        // An allocator rounds up by less than this.
        const OVERHEAD: usize = 16;
        let addresses = self.merged_addresses.iter().map(|entry| size_of_val(entry) + OVERHEAD + entry.script.len());
        let coinbases = self
            .merged_coinbase_info
            .iter()
            .map(|entry| size_of_val(entry) + 2 * OVERHEAD + size_of_val(&*entry.branch) + entry.script.len());
        size_of_val(self) + 4 * OVERHEAD + addresses.sum::<usize>() + coinbases.sum::<usize>() + self.message_data.len()
    }
}

/// Data that the ref hash commits to: everything that other nodes recompute (fields 6 to 23).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareInfo {
    /// Fields that the miner chooses.
    pub share_data: ShareData,
    /// `None` where segwit is not active for the share's version, and for the reference's sentinel.
    pub segwit_data: Option<SegwitData>,
    /// `None` from version 34 on.
    pub transactions: Option<TransactionRefs>,
    /// The hundredth ancestor.
    pub far_share_hash: Option<ShareHash>,
    /// Easiest target allowed for this share.
    pub max_bits: Bits,
    /// Target of this share, which defines its weight.
    pub bits: Bits,
    /// Time of the share as claimed, seconds since 1970.
    pub timestamp: u32,
    /// Height above the chain's genesis, modulo 2^32; the genesis has 1.
    pub absheight: u32,
    /// Work from the genesis to this share inclusive, modulo 2^128. Below 2^64 in shares of version 36 (protocol-v36 trap 3).
    pub abswork: u128,
    /// `None` before version 36.
    pub additions: Option<Box<Additions>>,
}

/// Midstate that proves a coinbase without carrying it (fields 26, 27).
///
/// On the wire `extra_data` stands between the two; before version 36 it is empty and takes no bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashLink {
    /// SHA-256's state after the whole 64-byte blocks of the prefix: eight words in big-endian order.
    pub state: [u8; 32],
    /// What follows the whole blocks, without the version's constant ending (protocol-v36 section 3.4).
    pub extra_data: Box<[u8]>,
    /// Length of the prefix in bytes: the stripped coinbase without its last 44.
    pub length: u64,
}

/// All fields in a share's bytes, including its version, before any check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Share version (its type in the wrapper).
    pub version: ShareVersion,
    /// Header without its merkle root.
    pub min_header: MinHeader,
    /// Data that the ref hash commits to.
    pub share_info: ShareInfo,
    /// Branch from this share's ref hash to the one in the coinbase; empty in practice.
    pub ref_merkle_branch: Box<[Digest]>,
    /// The eight bytes after the ref hash, free for the miner.
    pub last_txout_nonce: u64,
    /// Proves the coinbase.
    pub hash_link: HashLink,
    /// Branch from the coinbase to the root over full transaction hashes. If there is segwit data, nothing commits to
    /// this branch and nothing depends on it; reading cuts it to the length of the txid branch.
    pub merkle_branch: Box<[Digest]>,
}

/// Share that passed all checks without ancestors, with the values derived from its bytes.
///
/// Immutable and shared (`Arc<Share>`). A version 35 share takes about 1 kB, plus 32 bytes for each level of its
/// branches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    contents: Contents,
    payee: Payee,
    ref_hash: Digest,
    gentx_hash: Digest,
    merkle_root: Digest,
    hash: ShareHash,
    pow_hash: Digest,
    attempts: Attempts,
    wire_bytes: usize,
}

/// Allocator overhead of one share's parts, and the two counters of its `Arc`.
const ALLOCATIONS_BYTES: usize = 9 * 16;

// 17,300 shares should take less than 80 MB: 4.6 kB each, of which branches of twelve levels take 1.2 kB.
const _: () = assert!(size_of::<Share>() <= 672);

impl Share {
    /// Fields in the share's bytes.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Data that the ref hash commits to.
    pub fn info(&self) -> &ShareInfo {
        &self.contents.share_info
    }

    /// Fields that the miner chose.
    pub fn data(&self) -> &ShareData {
        &self.contents.share_info.share_data
    }

    /// Share version.
    pub fn version(&self) -> ShareVersion {
        self.contents.version
    }

    /// Hash of the share, which is also its block's hash.
    pub fn hash(&self) -> ShareHash {
        self.hash
    }

    /// Proof-of-work hash, compared with the target: the share's hash on Bitcoin, scrypt on Litecoin.
    pub fn pow_hash(&self) -> &Digest {
        &self.pow_hash
    }

    /// Hash of the parent share.
    pub fn previous(&self) -> Option<ShareHash> {
        self.data().previous
    }

    /// Payee of the share.
    pub fn payee(&self) -> &Payee {
        &self.payee
    }

    /// The 32 bytes in the coinbase that commit to the share info.
    pub fn ref_hash(&self) -> &Digest {
        &self.ref_hash
    }

    /// Hash of the coinbase without witness: its txid.
    pub fn gentx_hash(&self) -> &Digest {
        &self.gentx_hash
    }

    /// Merkle root of the block.
    pub fn merkle_root(&self) -> &Digest {
        &self.merkle_root
    }

    /// Block header.
    pub fn header(&self) -> [u8; 80] {
        self.contents.min_header.complete(&self.merkle_root)
    }

    /// Target of the share.
    pub fn target(&self) -> Target {
        self.info().bits.target()
    }

    /// Easiest target allowed for this share.
    pub fn max_target(&self) -> Target {
        self.info().max_bits.target()
    }

    /// Target of the block, as claimed in the header.
    pub fn block_target(&self) -> Target {
        self.contents.min_header.bits.target()
    }

    /// Work of the share: the attempts of its target.
    pub fn attempts(&self) -> Attempts {
        self.attempts
    }

    /// Attempts of the easiest target allowed for this share.
    pub fn min_attempts(&self) -> Attempts {
        self.max_target().attempts()
    }

    /// Time of the share as claimed, seconds since 1970.
    pub fn timestamp(&self) -> u32 {
        self.info().timestamp
    }

    /// Height above the chain's genesis, modulo 2^32.
    pub fn absheight(&self) -> u32 {
        self.info().absheight
    }

    /// Work from the chain's genesis to this share inclusive, modulo 2^128.
    pub fn abswork(&self) -> u128 {
        self.info().abswork
    }

    /// Length of [`Share::to_bytes`].
    pub fn wire_bytes(&self) -> usize {
        self.wire_bytes
    }

    /// Memory use in bytes. Differs from the size on the wire: a transaction reference takes two bytes or more there,
    /// and sixteen here.
    pub fn memory_bytes(&self) -> usize {
        let (contents, info, data) = (&self.contents, self.info(), self.data());
        let address = match &data.payout {
            Payout::Address(text) => text.len(),
            Payout::PubkeyHash(_) | Payout::Hash { .. } => 0,
        };
        let transactions = info.transactions.as_ref();
        let hashes = info.segwit_data.as_ref().map_or(0, |segwit| segwit.txid_merkle_branch.len())
            + transactions.map_or(0, |transactions| transactions.new_hashes.len())
            + contents.ref_merkle_branch.len()
            + contents.merkle_branch.len();
        size_of::<Share>()
            + ALLOCATIONS_BYTES
            + data.coinbase.len()
            + address
            + self.payee.memory_bytes()
            + contents.hash_link.extra_data.len()
            + info.additions.as_ref().map_or(0, |additions| additions.memory_bytes())
            + hashes * size_of::<Digest>()
            + transactions.map_or(0, |transactions| size_of_val(&*transactions.refs))
    }

    /// True if the share solves its block, by the target claimed in its header.
    pub fn is_block(&self) -> bool {
        self.block_target().is_met_by(&self.pow_hash)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
use tests::test_rules;
