//! The pool's found blocks, each followed from its finding until its coinbase can be spent, or until it is lost.
//!
//! ```text
//! bitcoind::submit ──BlockReport──▶┐
//! solution::peer_blocks Sighting───▶├─ follow ──▶ watch<Arc<FoundBlocks>>, events
//! bitcoind: where a block stands ─▶┘    └──▶ found_blocks.json in the data directory
//! ```
//!
//! A share that solves its block has the block's hash, so that a block's share is found by the same name.

mod book;
mod file;
mod follow;

pub use follow::{Inputs, describe, run};

use bitcoin::BlockHash;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::blocks::{Finding, Outcome};

/// Confirmations at which a coinbase can be spent: nobody is paid before.
pub const CONFIRMATIONS_MATURE: u32 = 100;

/// Blocks that are remembered: those whose fate is decided go first.
pub const BLOCKS_MAX: usize = 1000;

/// Events kept for a listener that lags behind.
pub const EVENTS_KEPT_MAX: usize = 256;

/// Every found block that is remembered, as a snapshot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FoundBlocks {
    /// Latest first.
    pub blocks: Vec<Arc<Record>>,
}

/// One found block, and all that is known of its fate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its hash, which is its share's, too.
    pub hash: BlockHash,
    /// The block before it, if known.
    pub previous_block: Option<BlockHash>,
    /// Its height, if known.
    pub height: Option<u32>,
    /// Who found it, and what it pays.
    #[serde(flatten)]
    pub finding: Finding,
    /// When this node heard of it, in seconds since 1970.
    pub found_at: f64,
    /// What each way to the daemon has brought so far.
    pub routes: Vec<RouteReport>,
    /// The final word on its submission.
    pub verdict: Option<Verdict>,
    /// Why it was not submitted by this node, if so.
    pub not_submitted: Option<String>,
    /// Where it stands now.
    pub standing: Standing,
    /// When it came to stand there, in seconds since 1970.
    pub standing_since: f64,
    /// Blocks from it to the tip, itself included; 0 outside of the best chain.
    pub confirmations: u32,
    /// Whether its standing will not change any more, so that it is not followed.
    pub is_settled: bool,
}

/// What one route has brought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteReport {
    /// Which one: `rpc`, `p2p`, `embedded`.
    pub route: String,
    /// Attempts so far.
    pub attempts: u32,
    /// When the latest ended, in seconds since 1970.
    pub at: f64,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The final word on a block's submission.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// When it came, in seconds since 1970.
    pub at: f64,
    /// The word.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Where a found block stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// On its way; the daemon has said nothing yet.
    Submitted,
    /// In the best chain.
    Confirming,
    /// In the best chain so deep that its coinbase can be spent.
    Mature,
    /// Another block of its height was there first.
    Stale,
    /// It was in the best chain, and is not any more.
    Orphaned,
    /// It breaks a rule.
    Rejected,
}

impl Standing {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Submitted, Self::Confirming, Self::Mature, Self::Stale, Self::Orphaned, Self::Rejected];

    /// A word for pages, metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Confirming => "confirming",
            Self::Mature => "mature",
            Self::Stale => "stale",
            Self::Orphaned => "orphaned",
            Self::Rejected => "rejected",
        }
    }

    /// Whether it is in the best chain.
    pub fn is_in_chain(self) -> bool {
        matches!(self, Self::Confirming | Self::Mature)
    }
}

/// Something that happened to a found block.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// The block, as it is after that.
    pub record: Arc<Record>,
}

/// What can happen to a found block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// This node heard of it.
    Found,
    /// It is in the best chain: for the first time, or again.
    Accepted,
    /// Its coinbase can be spent.
    Mature,
    /// Another block of its height was there first.
    Stale,
    /// It was in the best chain, and is not any more.
    Orphaned,
    /// It breaks a rule.
    Rejected,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Found, Self::Accepted, Self::Mature, Self::Stale, Self::Orphaned, Self::Rejected];

    /// A word for hooks, metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Accepted => "accepted",
            Self::Mature => "mature",
            Self::Stale => "stale",
            Self::Orphaned => "orphaned",
            Self::Rejected => "rejected",
        }
    }
}
