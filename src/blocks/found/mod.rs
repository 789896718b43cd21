//! A chain's found blocks, each followed from its discovery until its coinbase can be spent, or until it is lost.
//!
//! ```text
//! blocks::submit ────BlockReport──▶┐
//! solution::peer_blocks Sighting───▶├─ follow ──▶ watch<Arc<FoundBlocks>>, events
//! bitcoind: position of a block ──▶┘    └──▶ found_blocks.json in the data directory
//! ```
//!
//! A share that solves its block has the same hash as the block; blocks of merged chains have hashes of their own.

mod book;
mod file;
mod follow;

pub use follow::{Inputs, start};

use bitcoin::BlockHash;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::blocks::{Finding, Outcome};

/// Maximum number of records: settled ones are dropped first.
pub const BLOCKS_MAX: usize = 1000;

/// Events buffered for a lagging subscriber.
pub const EVENTS_KEPT_MAX: usize = 256;

/// Snapshot of all records of found blocks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FoundBlocks {
    /// Latest first.
    pub blocks: Vec<Arc<Record>>,
}

/// One found block and its history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Hash of the block and of its share.
    pub hash: BlockHash,
    /// Name of its chain, if it is a merged one; `None` for the parent chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Arc<str>>,
    /// Hash of its parent, if known.
    pub previous_block: Option<BlockHash>,
    pub height: Option<u32>,
    #[serde(flatten)]
    pub finding: Finding,
    /// Time at which this node learnt of it, in seconds since 1970.
    pub found_at: f64,
    /// Latest outcome of each route.
    pub routes: Vec<RouteReport>,
    pub verdict: Option<Verdict>,
    /// Reason why this node did not submit it, if so.
    pub not_submitted: Option<String>,
    pub standing: Standing,
    /// Time of the latest change of standing, in seconds since 1970.
    pub standing_since: f64,
    /// Blocks from it to the tip, itself included; 0 outside the best chain.
    pub confirmations: u32,
    /// Set when its standing is final, so that it is no longer followed.
    pub is_settled: bool,
}

/// Attempts of one route, and the outcome of the latest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteReport {
    /// Name of the route, such as `rpc` or `p2p`.
    pub route: String,
    /// Number of attempts.
    pub attempts: u32,
    /// End of the latest attempt, in seconds since 1970.
    pub at: f64,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Verdict on a block's submission.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Time of the verdict, in seconds since 1970.
    pub at: f64,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// State of a found block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Submitted; the daemon has not answered yet.
    Submitted,
    /// In the best chain.
    Confirming,
    /// Deep enough in the best chain that its coinbase can be spent.
    Mature,
    /// A competitor of its height was first.
    Stale,
    /// It was in the best chain, and no longer is.
    Orphaned,
    /// It breaks a consensus rule, or the daemon of a merged chain does not know it any more.
    Rejected,
}

impl Standing {
    pub const ALL: [Self; 6] =
        [Self::Submitted, Self::Confirming, Self::Mature, Self::Stale, Self::Orphaned, Self::Rejected];

    /// Label for pages, metrics and logs.
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

    /// True if the block is in the best chain.
    pub fn is_in_chain(self) -> bool {
        matches!(self, Self::Confirming | Self::Mature)
    }
}

/// Event of a found block.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub kind: EventKind,
    /// The block after the event.
    pub record: Arc<Record>,
}

/// Kind of an [`Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// This node learnt of it.
    Found,
    /// It entered the best chain, for the first time or again.
    Accepted,
    /// Its coinbase can be spent.
    Mature,
    /// A competitor of its height was first.
    Stale,
    /// It left the best chain.
    Orphaned,
    /// It breaks a consensus rule, or the daemon of a merged chain does not know it any more.
    Rejected,
}

impl EventKind {
    pub const ALL: [Self; 6] = [Self::Found, Self::Accepted, Self::Mature, Self::Stale, Self::Orphaned, Self::Rejected];

    /// Label for hooks, metrics and logs.
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
