//! Why a share does not fit its ancestors.

use thiserror::Error;

use crate::merkle::Digest;
use crate::share::{GenerationError, ShareHash, ShareVersion, display_hex};

/// Part of the reason that is given for such a share. Earlier versions banned peers for them and kept the reason.
pub const FUTURE_REASON: &str = "is more than 600 s after our clock";

/// Why a share does not fit its ancestors.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// It claims to be made later than our clock can explain.
    #[error("timestamp {timestamp} {}, {now}", FUTURE_REASON)]
    Future {
        /// Seconds since 1970.
        timestamp: u32,
        /// Our clock's, rounded down.
        now: String,
    },
    /// Too little of its chain is here to tell what it should be.
    #[error("parent {0} is not known far enough back")]
    MissingAncestors(ShareHash),
    /// The next version came before a whole chain's length could vote on it.
    #[error("version {before} is followed by {version} without enough history")]
    SwitchWithoutHistory {
        /// The parent's.
        before: ShareVersion,
        /// Its own.
        version: ShareVersion,
    },
    /// The next version came without its 60 % of the votes.
    #[error("version {before} is followed by {version} without 60 % of the votes")]
    SwitchWithoutVotes {
        /// The parent's.
        before: ShareVersion,
        /// Its own.
        version: ShareVersion,
    },
    /// A version that never follows its parent's.
    #[error("version {before} cannot be followed by {version}")]
    VersionJump {
        /// The parent's.
        before: ShareVersion,
        /// Its own.
        version: ShareVersion,
    },
    /// A reference that leads to no transaction.
    #[error("transaction_hash_refs leads to transaction {index} of the share {back} back, which does not list it")]
    TransactionRef {
        /// Shares back; 0 is the share itself.
        back: u64,
        /// Place in that share's list.
        index: u64,
    },
    /// A field is not what follows from the ancestors.
    #[error("{field} is {given} and should be {wanted}")]
    Field {
        /// The field's name in the protocol.
        field: &'static str,
        /// What it should be.
        wanted: String,
        /// What the share has.
        given: String,
    },
    /// No coinbase could be made that pays its window.
    #[error("coinbase: {0}")]
    Generation(#[from] GenerationError),
    /// Its coinbase is not the one that pays its window.
    #[error("gentx_hash is {} and should be {}", display_hex(given), display_hex(wanted))]
    Coinbase {
        /// Hash of the coinbase that pays as it should.
        wanted: Digest,
        /// Hash of its own.
        given: Digest,
    },
    /// Its merkle branch is not that of the transactions that it lists.
    #[error("merkle_link does not lead from the coinbase over the transactions of transaction_hash_refs")]
    MerkleLink,
}
