//! The parent chain's daemon: templates out, blocks in, health. Behind one [`Handle`], whether the daemon is a real
//! `bitcoind` ([`daemon`]) or the private chain inside this process ([`embedded`]).
//!
//! ```text
//! daemon   ── rpc ── templates ──▶ watch<Option<Arc<Template>>>
//!          └─ peer (wire) ─ "new block" ─┘
//! FoundBlock ──▶ submit ──▶ every Route at once (RPC, P2P, or the embedded chain) ──▶ BlockReport
//! ```

mod backoff;
pub mod check;
pub mod credentials;
pub mod daemon;
pub mod embedded;
mod health;
pub mod peer;
pub mod responses;
pub mod rpc;
pub mod rpc_route;
pub mod submit;
pub mod templates;
pub mod wire;

use bitcoin::BlockHash;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{broadcast, mpsc, watch};

use crate::template::Template;

/// Blocks that may wait to be taken up by `submit`. One in ten minutes is usual and each is taken up at once; regtest
/// finds them faster than it can be told, and then the finder waits.
pub const BLOCKS_QUEUED_MAX: usize = 64;

/// Reports kept for a subscriber that lags behind.
pub const REPORTS_KEPT_MAX: usize = 256;

/// What the rest of the node holds of the daemon.
#[derive(Debug, Clone)]
pub struct Handle {
    /// The newest template; `None` before the first, and while the daemon is gone, so that nobody mines for nothing.
    pub templates: watch::Receiver<Option<Arc<Template>>>,
    /// What is known of the daemon's condition.
    pub health: watch::Receiver<Health>,
    /// Where found blocks go. The sender waits when it is full; nothing is dropped.
    pub blocks: mpsc::Sender<FoundBlock>,
    /// What became of each block, route by route and in the end.
    pub reports: broadcast::Sender<BlockReport>,
}

/// The daemon's condition, as a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// When a call last succeeded.
    pub last_success: Option<Instant>,
    /// No call has succeeded for so long that miners are sent away.
    pub gone: bool,
    /// What the daemon calls itself, such as `/Satoshi:31.0.0/`; empty until known.
    pub version: String,
    /// The last failure, in words, while it lasts.
    pub trouble: Option<String>,
    /// Whether the P2P connection is up. Always true for the embedded chain.
    pub p2p_connected: bool,
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
    /// What its coinbase pays in all, in satoshis.
    pub value: u64,
    /// Whom its coinbase pays, in words for people (an address).
    pub payee: String,
    /// The worker that found it.
    pub finder: String,
}

impl std::fmt::Debug for FoundBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the daemon's best chain.
    Accepted,
    /// It is valid, but another block of its height was there first.
    Stale,
    /// The daemon says that it breaks a rule, in its own words.
    Rejected(String),
    /// The route failed, so the daemon's opinion is not known. Tried again.
    Failed(String),
}

impl Outcome {
    /// Whether another attempt could not change it.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }

    /// A word for metrics and logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Stale => "stale",
            Self::Rejected(_) => "rejected",
            Self::Failed(_) => "failed",
        }
    }
}

/// One way for a block to reach the daemon.
pub trait Route: Send + Sync + 'static {
    /// What metrics, logs and reports call it: `rpc`, `p2p`, `embedded`.
    fn name(&self) -> &'static str;

    /// Makes one attempt, and says what is known of the block afterwards. Must end by itself: an attempt that hangs is
    /// an [`Outcome::Failed`] after a timeout of the route's own.
    fn attempt<'a>(&'a self, block: &'a FoundBlock) -> futures::future::BoxFuture<'a, Outcome>;
}
