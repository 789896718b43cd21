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

/// Labels of [`VerifyError::label`], in alphabetical order.
pub const REFUSAL_LABELS: [&str; 14] = [
    "ancestors",
    "bits",
    "coinbase",
    "far_share_hash",
    "height",
    "merged_coinbase",
    "merkle_link",
    "message",
    "other",
    "payout_hash",
    "timestamp",
    "transactions",
    "version",
    "work",
];

impl VerifyError {
    /// Reason in one word out of [`REFUSAL_LABELS`], for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Future { .. } => "timestamp",
            Self::MissingAncestors(_) => "ancestors",
            Self::SwitchWithoutHistory { .. } | Self::SwitchWithoutVotes { .. } | Self::VersionJump { .. } => "version",
            Self::TransactionRef { .. } => "transactions",
            Self::Field { field, .. } => label_of_field(field),
            Self::Generation(_) | Self::Coinbase { .. } => "coinbase",
            Self::Message(_) => "message",
            Self::MergedCoinbase(_) => "merged_coinbase",
            Self::MerkleLink => "merkle_link",
        }
    }
}

fn label_of_field(field: &str) -> &'static str {
    match field {
        "new_transaction_hashes" | "transaction_hash_refs" => "transactions",
        "far_share_hash" => "far_share_hash",
        "max_bits" | "bits" => "bits",
        "timestamp" => "timestamp",
        "absheight" => "height",
        "abswork" => "work",
        "merged_payout_hash" => "payout_hash",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_one_of_the_labels() {
        let field = |field| VerifyError::Field { field, wanted: String::new(), given: String::new() };
        let (before, version) = (ShareVersion::V35, ShareVersion::V34);
        let labelled = [
            (VerifyError::Future { timestamp: 1, now: "0".into() }, "timestamp"),
            (VerifyError::MissingAncestors(ShareHash([1; 32])), "ancestors"),
            (VerifyError::SwitchWithoutHistory { before, version }, "version"),
            (VerifyError::SwitchWithoutVotes { before, version }, "version"),
            (VerifyError::VersionJump { before, version }, "version"),
            (VerifyError::TransactionRef { back: 1, index: 2 }, "transactions"),
            (VerifyError::Coinbase { wanted: [1; 32], given: [2; 32] }, "coinbase"),
            (VerifyError::MerkleLink, "merkle_link"),
            (field("new_transaction_hashes"), "transactions"),
            (field("far_share_hash"), "far_share_hash"),
            (field("max_bits"), "bits"),
            (field("bits"), "bits"),
            (field("timestamp"), "timestamp"),
            (field("absheight"), "height"),
            (field("abswork"), "work"),
            (field("merged_payout_hash"), "payout_hash"),
            (field("colour"), "other"),
        ];
        for (error, label) in labelled {
            assert_eq!(error.label(), label, "{error}");
            assert!(REFUSAL_LABELS.contains(&label), "{label}");
        }
        assert!(REFUSAL_LABELS.is_sorted());
    }
}
