//! Channel of reports on block submissions.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::broadcast;

use super::block::BlockReport;

/// Reports buffered for a lagging subscriber.
pub const REPORTS_KEPT_MAX: usize = 256;

/// Reports on found blocks. The first ones, on blocks of an earlier run, are sent before any task can subscribe, so
/// they are kept for one subscriber. Clones share the channel.
#[derive(Debug, Clone)]
pub struct Reports {
    sender: broadcast::Sender<BlockReport>,
    first: Arc<Mutex<Option<broadcast::Receiver<BlockReport>>>>,
}

impl Default for Reports {
    fn default() -> Self {
        Self::new()
    }
}

impl Reports {
    pub fn new() -> Self {
        let (sender, first) = broadcast::channel(REPORTS_KEPT_MAX);
        Self { sender, first: Arc::new(Mutex::new(Some(first))) }
    }

    /// Subscribes to every report from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<BlockReport> {
        self.sender.subscribe()
    }

    /// Subscribes the first caller to every report since the start, and later callers to those from now on.
    pub fn from_the_start(&self) -> broadcast::Receiver<BlockReport> {
        self.first.lock().take().unwrap_or_else(|| self.subscribe())
    }

    pub(super) fn send(&self, report: BlockReport) {
        // Fails only without subscribers.
        let _ = self.sender.send(report);
    }
}
