//! Blocks that were found, and what becomes of them: plain data that finder, journal and daemon share.

use bitcoin::BlockHash;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Instant;

/// Who found a block, and what it pays: the same in the journal, in its record, and in announcements. Each puts it between
/// the fields that it has itself, so its order is that of the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What its coinbase pays in all, in satoshis.
    pub value: u64,
    /// Whom its coinbase pays, in words for people (an address).
    pub payee: String,
    /// The worker that found it, or the peer whose share it is.
    pub finder: String,
    /// Whether miners of this node found it. Files of before this was noted are about our own blocks, but for a few.
    #[serde(default = "yes")]
    pub is_ours: bool,
}

fn yes() -> bool {
    true
}

impl Finding {
    /// Longest text of others that is kept of it, in characters.
    pub const TEXT_MAX: usize = 300;

    /// The same with its texts cut to [`Self::TEXT_MAX`]: names and addresses are a stranger's.
    pub fn shortened(&self) -> Self {
        Self { payee: shortened(&self.payee), finder: shortened(&self.finder), ..*self }
    }
}

/// The beginning of `text`, [`Finding::TEXT_MAX`] characters at most.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(Finding::TEXT_MAX).collect()
}

/// A block that meets its target, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct FoundBlock {
    /// Its hash.
    pub hash: BlockHash,
    /// The block before it.
    pub previous_block: BlockHash,
    /// Its height.
    pub height: u32,
    /// The whole block as it goes over the wire, witnesses included.
    pub bytes: Bytes,
    /// Who found it, and what it pays.
    pub finding: Finding,
    /// When its submission was judged, which is when its miner was answered; `None` for peers' blocks and the journal's.
    pub judged_at: Option<Instant>,
}

/// A peer's share that says that it solves its block, which cannot be made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The block's hash, and the share's.
    pub hash: BlockHash,
    /// The block before it.
    pub previous_block: Option<BlockHash>,
    /// Its height. Without it the share builds on a block that is not known here, and may be no block at all.
    pub height: Option<u32>,
    /// Who sent the share, and what the block pays as the share says.
    pub finding: Finding,
    /// Why the block could not be made here.
    pub not_made: String,
}

impl fmt::Debug for FoundBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FoundBlock({} at height {}, {} bytes)", self.hash, self.height, self.bytes.len())
    }
}

/// What became of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockReport {
    /// Which block.
    pub block: FoundBlock,
    /// The route that this is about; `None` for the final word on the block.
    pub route: Option<&'static str>,
    /// What happened.
    pub outcome: Outcome,
}

/// How an attempt to get a block accepted ended.
///
/// Only [`Accepted`](Self::Accepted) and [`Rejected`](Self::Rejected) end a submission. A rejection is always the daemon's
/// own answer to `submitblock`: neither a lost connection nor a missing parent says anything about a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "reason", rename_all = "snake_case")]
pub enum Outcome {
    /// It is in the daemon's best chain.
    Accepted,
    /// The daemon has it, but another block of its height is in the best chain. Offered until that one is 100 deep.
    Stale,
    /// It breaks a rule, in the words of the daemon's answer to `submitblock`.
    Rejected(String),
    /// The daemon cannot judge it yet: it lacks the block before it, or its clock or its chain is behind. Tried again.
    Waiting(String),
    /// The route failed, so the daemon's opinion is not known. Tried again.
    Failed(String),
}

impl Outcome {
    /// Whether another attempt could not change it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Accepted | Self::Rejected(_))
    }

    /// The daemon's reason, where there is one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Accepted | Self::Stale => None,
            Self::Rejected(reason) | Self::Waiting(reason) | Self::Failed(reason) => Some(reason),
        }
    }

    /// A word for metrics and logs.
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
