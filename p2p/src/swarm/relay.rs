//! Relay state of shares: those announced, the peers that sent them, and those to be announced again.

use sharechain::share::{Share, ShareHash};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::PeerId;

/// Delay before a block's solution is announced again, once nearby heights are known (protocol section 3.7).
const REPEAT_AFTER: Duration = Duration::from_secs(5);
/// Maximum number of block solutions waiting for that: they are rare.
const REPEATS_MAX: usize = 100;
/// Maximum senders kept per share: those that have it before we announce it.
const SENDERS_MAX: usize = 16;
/// Shares kept beyond those of a download.
const REMEMBERED_EXTRA: usize = 1000;

#[derive(Debug, Default)]
struct Origin {
    senders: Vec<PeerId>,
    /// First sender, if we had requested the share without an announcement of that peer.
    answerer: Option<PeerId>,
    is_verified: bool,
}

#[derive(Debug)]
pub(super) struct Relay {
    remembered_max: usize,
    shared: HashSet<ShareHash>,
    shared_order: VecDeque<ShareHash>,
    origins: HashMap<ShareHash, Origin>,
    origins_order: VecDeque<ShareHash>,
    repeats: VecDeque<(Instant, Arc<Share>)>,
}

impl Relay {
    pub(super) fn new(chain_length: u32) -> Self {
        // All shares kept of a chain, and those that untrusted peers may send beside it.
        let remembered_max = 3 * usize::try_from(chain_length).unwrap_or_default() + REMEMBERED_EXTRA;
        Self {
            remembered_max,
            shared: HashSet::new(),
            shared_order: VecDeque::new(),
            origins: HashMap::new(),
            origins_order: VecDeque::new(),
            repeats: VecDeque::new(),
        }
    }

    /// Returns those of `newest_first` before the first that was announced already, and marks them as announced.
    pub(super) fn unshared(&mut self, newest_first: &[Arc<Share>]) -> Vec<Arc<Share>> {
        let unshared: Vec<Arc<Share>> =
            newest_first.iter().take_while(|share| !self.shared.contains(&share.hash())).cloned().collect();
        unshared.iter().for_each(|share| self.mark_shared(share.hash()));
        unshared
    }

    pub(super) fn mark_shared(&mut self, hash: ShareHash) {
        if self.shared.insert(hash) {
            self.shared_order.push_back(hash);
        }
        if self.shared_order.len() > self.remembered_max {
            let oldest = self.shared_order.pop_front();
            oldest.map(|oldest| self.shared.remove(&oldest));
        }
    }

    /// Records the sender of these, and returns how many were unverified.
    pub(super) fn note_received(&mut self, peer: PeerId, shares: &[Arc<Share>]) -> usize {
        let mut unverified = 0;
        for share in shares {
            let origin = self.origins.entry(share.hash()).or_insert_with(|| {
                self.origins_order.push_back(share.hash());
                Origin::default()
            });
            if !origin.senders.contains(&peer) && origin.senders.len() < SENDERS_MAX {
                origin.senders.push(peer);
                unverified += usize::from(!origin.is_verified);
            }
        }
        while self.origins_order.len() > self.remembered_max {
            let oldest = self.origins_order.pop_front();
            oldest.map(|oldest| self.origins.remove(&oldest));
        }
        unverified
    }

    /// Records that `peer` sent these because we requested them.
    pub(super) fn note_answered(&mut self, peer: PeerId, shares: &[Arc<Share>]) {
        for share in shares {
            if let Some(origin) = self.origins.get_mut(&share.hash()).filter(|origin| origin.senders == [peer]) {
                origin.answerer = Some(peer);
            }
        }
    }

    /// Peer that sent the share because we requested it, and was the first to send it.
    pub(super) fn answerer_of(&self, hash: ShareHash) -> Option<PeerId> {
        self.origins.get(&hash).and_then(|origin| origin.answerer)
    }

    /// True if `peer` sent the share.
    pub(super) fn came_from(&self, hash: ShareHash, peer: PeerId) -> bool {
        self.origins.get(&hash).is_some_and(|origin| origin.senders.contains(&peer))
    }

    /// Records that the share was verified, and returns its senders the first time.
    pub(super) fn note_verified(&mut self, hash: ShareHash) -> Vec<PeerId> {
        match self.origins.get_mut(&hash) {
            Some(origin) if !origin.is_verified => {
                origin.is_verified = true;
                origin.senders.clone()
            }
            _ => Vec::new(),
        }
    }

    /// Schedules a second announcement of the share.
    pub(super) fn repeat(&mut self, share: Arc<Share>, now: Instant) {
        if self.repeats.len() < REPEATS_MAX {
            self.repeats.push_back((now + REPEAT_AFTER, share));
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.repeats.front().map(|(at, _)| *at)
    }

    /// Returns a share whose second announcement is due.
    pub(super) fn poll_repeat(&mut self, now: Instant) -> Option<Arc<Share>> {
        let is_due = self.repeats.front().is_some_and(|(at, _)| *at <= now);
        if is_due { self.repeats.pop_front().map(|(_, share)| share) } else { None }
    }
}
