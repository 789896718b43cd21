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
mod http;
pub mod peer;
pub mod probe;
pub mod responses;
pub mod rpc;
mod rpc_route;
mod standing;
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
use crate::template::{NextBlock, RecentTemplates, Template};

/// Handle to the daemon.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Newest template; `None` before the first, and while the daemon is gone, so that no hash rate is wasted.
    pub templates: watch::Receiver<Option<Arc<Template>>>,
    /// Position of the block that the newest template is for; `None` without a template.
    pub next_block: watch::Receiver<Option<NextBlock>>,
    /// The templates of the last minutes, and their transactions.
    pub recent_templates: watch::Receiver<Arc<RecentTemplates>>,
    /// Condition of the daemon.
    pub health: watch::Receiver<Health>,
    /// Queue of found blocks. The sender waits when it is full; nothing is dropped. Submission ends when the last
    /// sender is dropped, so a stopping node drops its handle first.
    pub blocks: mpsc::Sender<FoundBlock>,
    /// Resubmits a kept block.
    pub resubmitter: Resubmitter,
    /// Heights of the blocks that shares refer to.
    pub heights: Heights,
    /// Reports on each block: attempts by route, and verdicts.
    pub reports: Reports,
    /// Header of the block that templates build on; `None` while unknown.
    pub best_header: watch::Receiver<Option<RawHeader>>,
    /// Looks up the position of a block.
    pub explorer: Arc<dyn Explorer>,
    /// Triggers a request for a template at once, after news of a block. Notifications are merged.
    pub news: Arc<Notify>,
}

/// Snapshot of the daemon's condition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Time of the last template.
    pub last_success: Option<Instant>,
    /// Set when there was no template for so long that miners are disconnected.
    pub gone: bool,
    /// User agent of the daemon, such as `/Satoshi:31.0.0/`; empty until known.
    pub version: String,
    /// Warnings of the daemon, as of the last time it was connected to.
    pub warnings: Vec<String>,
    /// Current failure, if any.
    pub trouble: Option<String>,
    /// Time that the last requested template took.
    pub template_took: Option<Duration>,
    /// Seconds by which our clock is ahead of the daemon's (negative: behind), if above [`CLOCK_OFF_MAX`] for long.
    pub clock_ahead: Option<i64>,
    /// Set while the P2P connection is up. Always true for the embedded chain.
    pub p2p_connected: bool,
}
