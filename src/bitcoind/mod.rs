//! The parent chain's daemon: templates out, blocks in, health. Behind one [`Handle`], whether the daemon is a real
//! `bitcoind` ([`daemon`]) or the private chain inside this process ([`embedded`](crate::embedded)).
//!
//! ```text
//! daemon   ── rpc ── templates ──▶ watch<Option<Arc<Template>>>
//!          └─ peer (wire) ─ "new block" ─┘
//! FoundBlock ──▶ submit ──▶ every Route at once (RPC, P2P, or the embedded chain) ──▶ BlockReport
//! ```

pub mod check;
mod clock;
pub mod credentials;
pub mod daemon;
pub mod headers;
mod health;
pub mod heights;
pub mod peer;
pub mod probe;
pub mod responses;
pub mod rpc;
pub mod rpc_route;
pub mod templates;
pub mod wire;

pub use clock::CLOCK_OFF_MAX;

use headers::RawHeader;
use heights::Heights;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};

use crate::blocks::submit::Resubmitter;
use crate::blocks::{Explorer, FoundBlock, Reports};
use crate::template::Template;

/// Blocks that may wait to be taken up by `submit`. One in ten minutes is usual and each is taken up at once; regtest
/// finds them faster than it can be told, and then the finder waits.
pub const BLOCKS_QUEUED_MAX: usize = 64;

/// What the rest of the node holds of the daemon.
#[derive(Debug, Clone)]
pub struct Handle {
    /// The newest template; `None` before the first, and while the daemon is gone, so that nobody mines for nothing.
    pub templates: watch::Receiver<Option<Arc<Template>>>,
    /// What is known of the daemon's condition.
    pub health: watch::Receiver<Health>,
    /// Where found blocks go. The sender waits when it is full; nothing is dropped. Submission ends when the last sender
    /// is dropped, so a stopping node drops its handle first.
    pub blocks: mpsc::Sender<FoundBlock>,
    /// Submits a kept block again.
    pub resubmitter: Resubmitter,
    /// How high the blocks stand that shares refer to.
    pub heights: Heights,
    /// Reports on each block, route by route, and verdicts.
    pub reports: Reports,
    /// The header of the block that templates build on; `None` while it is not known.
    pub best_header: watch::Receiver<Option<RawHeader>>,
    /// Knows where a block stands.
    pub explorer: Arc<dyn Explorer>,
    /// Has the daemon asked for a template at once: somebody heard of a block. Several at once are one.
    pub news: Arc<Notify>,
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
    /// What it warned of when it was last connected to.
    pub warnings: Vec<String>,
    /// The last failure, in words, while it lasts.
    pub trouble: Option<String>,
    /// How long it took over the last template that was asked for.
    pub template_took: Option<Duration>,
    /// Seconds that our clock is ahead of the daemon's (negative: behind), if that is more than [`CLOCK_OFF_MAX`] and lasts.
    pub clock_ahead: Option<i64>,
    /// Whether the P2P connection is up. Always true for the embedded chain.
    pub p2p_connected: bool,
}
