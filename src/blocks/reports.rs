//! Reports on the submission of blocks, for every part of the node that follows it.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::broadcast;

use super::block::BlockReport;

/// Reports kept for a subscriber that lags behind.
pub const REPORTS_KEPT_MAX: usize = 256;

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

    pub(super) fn send(&self, report: BlockReport) {
        // Fails without subscribers, which loses nothing.
        let _ = self.sender.send(report);
    }
}
