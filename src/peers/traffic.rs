//! Traffic of the connections to peers, for graphs and pages.

use p2p::swarm::PeerId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes over all connections since the start, and transactions remembered for peers.
#[derive(Debug, Default)]
pub struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
    remembered: Mutex<HashMap<PeerId, usize>>,
}

impl Traffic {
    /// Bytes received.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes of transactions remembered for a peer (protocol section 3.8).
    pub fn remembered(&self, peer: PeerId) -> usize {
        self.remembered.lock().get(&peer).copied().unwrap_or_default()
    }

    pub(super) fn add_received(&self, count: usize) {
        self.received.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn add_sent(&self, count: usize) {
        self.sent.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn set_remembered(&self, peer: PeerId, bytes: usize) {
        if bytes == 0 {
            self.remembered.lock().remove(&peer);
        } else {
            self.remembered.lock().insert(peer, bytes);
        }
    }
}
