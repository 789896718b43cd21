//! Found blocks and their outcomes: plain data shared by finder, journal and daemon.

use bitcoin::BlockHash;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::time::Instant;
use stratum::Printable;

/// Finder and payout of a block, as in the journal, in its record, and in announcements. Each flattens it between its
/// own fields, so the order of fields is that of the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Total of the coinbase, in satoshis of its chain.
    pub value: u64,
    /// Payee of the coinbase for display (an address).
    pub payee: String,
    /// Worker that found it, or the peer whose share it is. Printable: earlier versions wrote names as they came.
    #[serde(deserialize_with = "printable")]
    pub finder: String,
    /// True if a miner of this node found it. Files older than this field are nearly all about our own blocks.
    #[serde(default = "yes")]
    pub is_ours: bool,
}

fn yes() -> bool {
    true
}

fn printable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text| Printable::new(&text).to_string())
}

impl Finding {
    /// Maximum length of its texts, in characters.
    pub const TEXT_MAX: usize = 300;

    /// Returns a copy with texts cut to [`Self::TEXT_MAX`]: names and addresses come from strangers.
    pub fn shortened(&self) -> Self {
        Self { payee: shortened(&self.payee), finder: shortened(&self.finder), ..*self }
    }
}

/// Returns the first [`Finding::TEXT_MAX`] characters of `text`.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(Finding::TEXT_MAX).collect()
}

/// A block that meets its target, ready to be submitted.
#[derive(Clone, PartialEq, Eq)]
pub struct FoundBlock {
    /// Hash in its own chain, also for a merged chain's block, whose proof of work is another block's header.
    pub hash: BlockHash,
    /// Hash of its parent.
    pub previous_block: BlockHash,
    pub height: u32,
    /// What its routes submit: the whole block in wire format, witnesses included; of a merged chain's block that its
    /// daemon made and has, the proof of work alone.
    pub bytes: Bytes,
    pub finding: Finding,
    /// Time at which its solution was judged and its miner answered; `None` for blocks of peers and the journal.
    pub judged_at: Option<Instant>,
}

/// A peer's share that claims to solve its block, which cannot be assembled here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Hash of both the block and the share.
    pub hash: BlockHash,
    /// Hash of the block's parent, if known.
    pub previous_block: Option<BlockHash>,
    /// `None` if the share builds on an unknown block: it may be no block at all.
    pub height: Option<u32>,
    /// The peer that sent the share, and the payout that the share claims.
    pub finding: Finding,
    /// Reason why the block could not be assembled here.
    pub not_made: String,
}

impl fmt::Debug for FoundBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FoundBlock({} at height {}, {} bytes)", self.hash, self.height, self.bytes.len())
    }
}

/// Outcome of submitting a block, by one route or overall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockReport {
    pub block: FoundBlock,
    /// The route; `None` for the verdict on the block.
    pub route: Option<&'static str>,
    pub outcome: Outcome,
}

/// Result of an attempt to get a block accepted.
///
/// Only [`Accepted`](Self::Accepted) and [`Rejected`](Self::Rejected) end a submission. A rejection is always the
/// daemon's own answer to `submitblock`: a lost connection or a missing parent says nothing about a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "reason", rename_all = "snake_case")]
pub enum Outcome {
    /// It is in the daemon's best chain.
    Accepted,
    /// The daemon has it, but a competitor of its height is in the best chain. Offered until that one is final.
    Stale,
    /// It breaks a consensus rule, or the daemon of a merged chain does not know it any more; the reason is the daemon's
    /// own answer to the submission.
    Rejected(String),
    /// The daemon cannot judge it yet: it lacks the parent, or its clock or chain is behind. Retried.
    Waiting(String),
    /// The route failed, so the daemon's verdict is unknown. Retried.
    Failed(String),
}

impl Outcome {
    /// True if another attempt cannot change it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Accepted | Self::Rejected(_))
    }

    /// Returns the reason, for outcomes that have one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Accepted | Self::Stale => None,
            Self::Rejected(reason) | Self::Waiting(reason) | Self::Failed(reason) => Some(reason),
        }
    }

    /// Label for metrics, logs and file names.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Stale => "stale",
            Self::Rejected(_) => "rejected",
            Self::Waiting(_) => "waiting",
            Self::Failed(_) => "failed",
        }
    }
}
