//! Shares: what they hold, how they are written, and all that they prove without their ancestors.
//!
//! A share is a block header that was hard enough to find, with just enough around it to show that its coinbase pays
//! the miners of the last window. Nothing outside this folder and `sharechain` asks for a share's version.
//!
//! ```text
//!  bytes ──format──▶ Contents ──check──▶ Share ──▶ sharechain
//!                        ▲                 ▲ hash_link, payee
//!  work ──generation─────┴─── create ──────┘
//! ```

mod check;
mod coinbase_script;
mod create;
mod format;
mod generation;
mod hash_link;
mod inspect;
mod number;
mod payee;

pub use crate::rules::{ShareVersion, VersionError};
pub use check::CheckError;
pub use coinbase_script::{ScriptError, coinbase_script, height_of, push_bytes, push_number};
pub use create::{Draft, DraftError};
pub use format::{FormatError, pack, read_wrapped, ref_hash, ref_type, unpack, unpack_contents, write_wrapped};
pub use generation::{
    CONSTANT_ENDING, Coinbase, DONATION_PUBKEY_HASH, DONATION_SCRIPT, GenerationError, Payouts, WITNESS_RESERVED_VALUE,
    Weights, coinbase_of, donation_payee, witness_commitment_script,
};
pub use inspect::{InspectError, inspect};
pub use number::{Attempts, Bits, ShareHash, Target, display_hex};
pub use payee::{Payee, PayeeError, SCRIPT_BYTES_MAX, whole as whole_payee};

use bitcoin::hashes::{Hash, sha256d};
use serde::{Deserialize, Serialize};
use std::fmt;

use crate::merkle::{self, Digest};

/// Maximum size of a share in bytes: that of a message's payload (protocol section 3.1), since a longer one cannot be sent.
///
/// The only limit on what a proof of work commits to, in messages, memory and store alike: with a lower one somewhere, a
/// share that was mined that long would separate this node from the others.
pub const SHARE_BYTES_MAX: usize = 32_000_000;

/// What a network says about its shares (protocol section 1): all that this folder needs to know of it.
#[derive(Clone)]
pub struct ShareRules {
    /// Goes into every ref hash, so that no share fits two networks.
    pub identifier: [u8; 8],
    /// The easiest target that a share may have.
    pub max_target: Target,
    /// The first share version with segwit data; 0 for never.
    pub segwit_activation_version: u64,
    /// Version byte of P2PKH addresses.
    pub address_version: u8,
    /// Version byte of P2SH addresses.
    pub address_p2sh_version: u8,
    /// Human-readable part of segwit addresses, lower case.
    pub human_readable_part: String,
    /// The proof-of-work hash of a block header.
    pub pow: fn(&[u8; 80]) -> Digest,
    /// Shares above this height must not vote for version 16: a guard of a past hard fork, Bitcoin's main network only
    /// (section 5.1 step 5; 3,927,800 there).
    pub no_votes_for_16_above: Option<u32>,
}

impl fmt::Debug for ShareRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShareRules({}, {})", hex::encode(self.identifier), self.human_readable_part)
    }
}

/// The proof-of-work hash of Bitcoin and its kin.
pub fn pow_sha256d(header: &[u8; 80]) -> Digest {
    sha256d::Hash::hash(header).to_byte_array()
}

/// A block header but for its merkle root, which a share proves instead of carrying it (fields 1 to 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinHeader {
    /// Block version. A varint on the wire (trap 1), so the format refuses what a header cannot hold.
    pub version: u32,
    /// The block built on, a raw digest; none for a chain's first.
    pub previous_block: Option<Digest>,
    /// The block's time, seconds since 1970; unrelated to the share's.
    pub timestamp: u32,
    /// The block's target. Nobody checks it, yet it sets the payout window (trap 22).
    pub bits: Bits,
    /// What the miner searched for.
    pub nonce: u32,
}

impl MinHeader {
    /// The whole header, with the root that makes it whole.
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

/// What became of the shares that their miner lost before this one (field 12).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct StaleInfo(pub u8);

impl StaleInfo {
    /// Nothing to announce.
    pub const NONE: StaleInfo = StaleInfo(0);
    /// One was found, but the chain went another way.
    pub const ORPHAN: StaleInfo = StaleInfo(253);
    /// One was dead on arrival: made for work that was no longer the latest.
    pub const DOA: StaleInfo = StaleInfo(254);

    /// The reference's name of it; none where it announces nothing. All 256 values are valid (trap 31).
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

/// Whom a share pays, as it stands on the wire (field 9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payout {
    /// Before version 34: a hash160.
    PubkeyHash([u8; 20]),
    /// From version 34: an address, not checked yet.
    Address(Box<str>),
}

/// What a share's miner chose (fields 6 to 13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareData {
    /// The parent; none for the first of a chain.
    pub previous: Option<ShareHash>,
    /// The coinbase's script, 2 to 100 bytes in a valid share.
    pub coinbase: Box<[u8]>,
    /// A random number that keeps two nodes' work apart.
    pub nonce: u32,
    /// Whom it pays.
    pub payout: Payout,
    /// The coinbase's total output, satoshis. Nobody checks it from version 34 on.
    pub subsidy: u64,
    /// Part of the miner's weight that goes to the donation address, in 65535ths.
    pub donation: u16,
    /// What became of the miner's shares before.
    pub stale_info: StaleInfo,
    /// The version that it votes for.
    pub desired_version: u64,
}

/// What ties a share to a block with witnesses (fields 14, 15).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegwitData {
    /// Siblings that lead from the coinbase's txid to the block's merkle root.
    pub txid_merkle_branch: Box<[Digest]>,
    /// Root over the wtxids, the coinbase's being zero: what the witness commitment commits to.
    pub wtxid_merkle_root: Digest,
}

impl SegwitData {
    /// That of a block with these transactions after its coinbase (section 4.8): their hashes without and with witness.
    pub fn of_transactions(txids: &[Digest], wtxids: &[Digest]) -> SegwitData {
        // The coinbase's own wtxid counts as zero, so that it can commit to the root.
        let leaves: Vec<Digest> = std::iter::once([0; 32]).chain(wtxids.iter().copied()).collect();
        SegwitData {
            txid_merkle_branch: merkle::branch_of_first(txids).into(),
            wtxid_merkle_root: merkle::root(&leaves),
        }
    }
}

/// The transactions of a block, as shares before version 34 list them (fields 16, 17).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionRefs {
    /// Hashes that no recent ancestor listed.
    pub new_hashes: Box<[Digest]>,
    /// For each transaction: how many shares back its hash is listed (0: here, 1: in the parent), and where.
    pub refs: Box<[(u64, u64)]>,
}

/// What the ref hash commits to: everything that other nodes recompute (fields 6 to 23).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareInfo {
    /// What the miner chose.
    pub share_data: ShareData,
    /// None where segwit is not active for the share's version, and for the reference's sentinel.
    pub segwit_data: Option<SegwitData>,
    /// None from version 34 on.
    pub transactions: Option<TransactionRefs>,
    /// The hundredth ancestor.
    pub far_share_hash: Option<ShareHash>,
    /// The easiest target that this share could have had.
    pub max_bits: Bits,
    /// This share's target: what it weighs.
    pub bits: Bits,
    /// When the share says that it was made, seconds since 1970.
    pub timestamp: u32,
    /// Height above the chain's genesis, modulo 2^32; the genesis has 1.
    pub absheight: u32,
    /// Work from the genesis up to here, modulo 2^128.
    pub abswork: u128,
}

/// The midstate that proves a coinbase without carrying it (fields 26, 27).
///
/// On the wire an `extra_data` of no bytes stands between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashLink {
    /// SHA-256's chaining value, its eight words in big-endian order, after the whole 64-byte blocks of the prefix.
    pub state: [u8; 32],
    /// Length of the prefix in bytes: the stripped coinbase without its last 44.
    pub length: u64,
}

/// All that stands in a share's bytes, its version included, before anything is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The share's version (its type in the wrapper).
    pub version: ShareVersion,
    /// The header without its root.
    pub min_header: MinHeader,
    /// What the ref hash commits to.
    pub share_info: ShareInfo,
    /// Leads from this share's ref hash to the one in the coinbase; empty in practice.
    pub ref_merkle_branch: Box<[Digest]>,
    /// The eight bytes behind the ref hash, free for the miner.
    pub last_txout_nonce: u64,
    /// Proves the coinbase.
    pub hash_link: HashLink,
    /// Siblings from the coinbase to the root over full transaction hashes. Where there is segwit data, nothing commits to
    /// it and nothing depends on what it holds; reading cuts it to the length of the txid branch.
    pub merkle_branch: Box<[Digest]>,
}

/// A share that passed all checks that it can pass alone, with what follows from its bytes.
///
/// Immutable and shared (`Arc<Share>`). A version 35 share takes about 1 kB, and 32 bytes for each level of its
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

/// What the allocator keeps for the parts of one share, and the two counts of the `Arc` that holds it.
const ALLOCATIONS_BYTES: usize = 9 * 16;

// 17,300 shares are to take less than 80 MB: 4.6 kB each, of which branches of twelve levels take 1.2 kB.
const _: () = assert!(size_of::<Share>() <= 640);

impl Share {
    /// What stands in its bytes.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// What its ref hash commits to.
    pub fn info(&self) -> &ShareInfo {
        &self.contents.share_info
    }

    /// What its miner chose.
    pub fn data(&self) -> &ShareData {
        &self.contents.share_info.share_data
    }

    /// Its version.
    pub fn version(&self) -> ShareVersion {
        self.contents.version
    }

    /// Its own hash, which is that of its block.
    pub fn hash(&self) -> ShareHash {
        self.hash
    }

    /// The hash that its target was met by: the same on Bitcoin, scrypt's on Litecoin.
    pub fn pow_hash(&self) -> &Digest {
        &self.pow_hash
    }

    /// Its parent.
    pub fn previous(&self) -> Option<ShareHash> {
        self.data().previous
    }

    /// Whom it pays.
    pub fn payee(&self) -> &Payee {
        &self.payee
    }

    /// The 32 bytes in its coinbase that commit to its share info.
    pub fn ref_hash(&self) -> &Digest {
        &self.ref_hash
    }

    /// Hash of its coinbase without witness: a txid.
    pub fn gentx_hash(&self) -> &Digest {
        &self.gentx_hash
    }

    /// Its block's merkle root.
    pub fn merkle_root(&self) -> &Digest {
        &self.merkle_root
    }

    /// Its block's header.
    pub fn header(&self) -> [u8; 80] {
        self.contents.min_header.complete(&self.merkle_root)
    }

    /// Its own target.
    pub fn target(&self) -> Target {
        self.info().bits.target()
    }

    /// The easiest target that it could have had.
    pub fn max_target(&self) -> Target {
        self.info().max_bits.target()
    }

    /// Its block's target, as its header claims.
    pub fn block_target(&self) -> Target {
        self.contents.min_header.bits.target()
    }

    /// What it weighs: the attempts of its own target.
    pub fn attempts(&self) -> Attempts {
        self.attempts
    }

    /// The attempts of the easiest target that it could have had.
    pub fn min_attempts(&self) -> Attempts {
        self.max_target().attempts()
    }

    /// When it says that it was made, seconds since 1970.
    pub fn timestamp(&self) -> u32 {
        self.info().timestamp
    }

    /// Height above its chain's genesis, modulo 2^32.
    pub fn absheight(&self) -> u32 {
        self.info().absheight
    }

    /// Work from its chain's genesis up to here, modulo 2^128.
    pub fn abswork(&self) -> u128 {
        self.info().abswork
    }

    /// How many bytes [`Share::to_bytes`] gives.
    pub fn wire_bytes(&self) -> usize {
        self.wire_bytes
    }

    /// Bytes of memory that it takes, which are not those on the wire: a reference to a transaction takes two bytes or more
    /// there, and sixteen here.
    pub fn memory_bytes(&self) -> usize {
        let (contents, info, data) = (&self.contents, self.info(), self.data());
        let address = match &data.payout {
            Payout::Address(text) => text.len(),
            Payout::PubkeyHash(_) => 0,
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
            + hashes * size_of::<Digest>()
            + transactions.map_or(0, |transactions| size_of_val(&*transactions.refs))
    }

    /// Whether it solves its block, by the target that its header claims.
    pub fn is_block(&self) -> bool {
        self.block_target().is_met_by(&self.pow_hash)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
use tests::test_rules;
