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
mod clock;
pub mod credentials;
pub mod daemon;
pub mod embedded;
pub mod headers;
mod health;
pub mod heights;
pub mod peer;
pub mod probe;
pub mod responses;
pub mod rpc;
pub mod rpc_route;
pub mod submit;
pub mod templates;
pub mod wire;

pub use clock::CLOCK_OFF_MAX;

use bitcoin::BlockHash;
use headers::RawHeader;
use heights::Heights;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use submit::Resubmitter;
use tokio::sync::{Notify, broadcast, mpsc, watch};

use crate::block::{BlockReport, FoundBlock, Outcome};
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

/// Reports on found blocks. The first ones, of blocks that an earlier run left, come before any part of the node can
/// listen: they are kept for one subscriber. Clones share it.
#[derive(Debug, Clone)]
pub struct Reports {
    sender: broadcast::Sender<BlockReport>,
    first: Arc<Mutex<Option<broadcast::Receiver<BlockReport>>>>,
}

impl Reports {
    pub(crate) fn new() -> Self {
        let (sender, first) = broadcast::channel(REPORTS_KEPT_MAX);
        Self { sender, first: Arc::new(Mutex::new(Some(first))) }
    }

    /// Every report from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<BlockReport> {
        self.sender.subscribe()
    }

    /// Every report since the start, for the first caller; later ones get those from now on.
    pub fn from_the_start(&self) -> broadcast::Receiver<BlockReport> {
        self.first.lock().take().unwrap_or_else(|| self.subscribe())
    }

    fn send(&self, report: BlockReport) {
        // Fails without subscribers, which loses nothing.
        let _ = self.sender.send(report);
    }
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

/// Where a block stands, as the daemon sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the best chain.
    InChain {
        /// Its height.
        height: u32,
        /// Blocks from it to the tip, itself included.
        confirmations: u32,
    },
    /// Known, and not in the best chain.
    Beside {
        /// Its height.
        height: u32,
    },
    /// Not known.
    Unknown,
}

/// Somebody who knows the chain.
pub trait Explorer: std::fmt::Debug + Send + Sync {
    /// Where a block stands, or why that is not known just now.
    fn place<'a>(&'a self, hash: &'a BlockHash) -> futures::future::BoxFuture<'a, Result<Place, String>>;
}

/// One way for a block to reach the daemon.
pub trait Route: Send + Sync + 'static {
    /// What metrics, logs and reports call it: `rpc`, `p2p`, `embedded`.
    fn name(&self) -> &'static str;

    /// Makes one attempt, and says what is known of the block afterwards. Must end by itself: an attempt that hangs is
    /// an [`Outcome::Failed`] after a timeout of the route's own.
    fn attempt<'a>(&'a self, block: &'a FoundBlock) -> futures::future::BoxFuture<'a, Outcome>;
}
