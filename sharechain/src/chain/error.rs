//! Errors of shares that do not fit their ancestors.

use thiserror::Error;

use crate::merged::MergedCoinbaseError;
use crate::merkle::Digest;
use crate::share::{GenerationError, MessageError, ShareHash, ShareVersion, display_hex};

/// Part of the message of [`VerifyError::Future`]. Earlier versions banned peers for it and stored the message.
pub const FUTURE_REASON: &str = "is more than 600 s after our clock";

/// Reasons why a share does not fit its ancestors.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// Timestamp too far ahead of our clock.
    #[error("timestamp {timestamp} {}, {now}", FUTURE_REASON)]
    Future {
        /// Timestamp of the share, seconds since 1970.
        timestamp: u32,
        /// Time of our clock, rounded down.
        now: String,
    },
    /// Too little of the share's chain is known to check it.
    #[error("parent {0} is not known far enough back")]
    MissingAncestors(ShareHash),
    /// Version switch before a whole chain's length could vote on it.
    #[error("version {before} is followed by {version} without enough history")]
    SwitchWithoutHistory {
        /// Version of the parent.
        before: ShareVersion,
        /// Version of the share.
        version: ShareVersion,
    },
    /// Version switch without 60 % of the votes.
    #[error("version {before} is followed by {version} without 60 % of the votes")]
    SwitchWithoutVotes {
        /// Version of the parent.
        before: ShareVersion,
        /// Version of the share.
        version: ShareVersion,
    },
    /// Version that never follows the parent's.
    #[error("version {before} cannot be followed by {version}")]
    VersionJump {
        /// Version of the parent.
        before: ShareVersion,
        /// Version of the share.
        version: ShareVersion,
    },
    /// Transaction reference that leads to no transaction.
    #[error("transaction_hash_refs leads to transaction {index} of the share {back} back, which does not list it")]
    TransactionRef {
        /// Distance in shares; 0 is the share itself.
        back: u64,
        /// Index in that share's list.
        index: u64,
    },
    /// Field that differs from the value derived from the ancestors.
    #[error("{field} is {given} and should be {wanted}")]
    Field {
        /// Name of the field in the protocol.
        field: &'static str,
        /// Required value.
        wanted: String,
        /// Value in the share.
        given: String,
    },
    /// No coinbase can be built that pays the window.
    #[error("coinbase: {0}")]
    Generation(#[from] GenerationError),
    /// Coinbase that does not pay the window.
    #[error("gentx_hash is {} and should be {}", display_hex(given), display_hex(wanted))]
    Coinbase {
        /// Hash of the required coinbase.
        wanted: Digest,
        /// Hash of the share's coinbase.
        given: Digest,
    },
    /// Messages that no share may carry.
    #[error("message_data: {0}")]
    Message(#[from] MessageError),
    /// Proof of a merged block that does not pay the window.
    #[error("merged_coinbase_info: {0}")]
    MergedCoinbase(#[from] MergedCoinbaseError),
    /// Merkle branch that does not match the listed transactions.
    #[error("merkle_link does not lead from the coinbase over the transactions of transaction_hash_refs")]
    MerkleLink,
}
