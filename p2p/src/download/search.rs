//! Wanted shares: a search for each missing one, and the chain that ends above it.

use sharechain::share::{Attempts, ShareHash, Target};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::PARENTS_MAX;
use crate::peer::{PeerId, RequestId};

/// Initial pause when no peer has a share; doubled each time.
const NOBODY_PAUSE: Duration = Duration::from_secs(1);
pub(super) const NOBODY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Maximum number of given-up chains kept, and of chain ends kept.
const ENDS_MAX: usize = 1024;

/// A chain that is being followed down.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Branch {
    /// Number of shares received.
    pub(super) shares: u64,
    /// Work of these shares.
    pub(super) attempts: Attempts,
    /// Height of the newest of them, as claimed.
    pub(super) top: u32,
}

#[derive(Debug)]
pub(super) struct Search {
    pub(super) hash: ShareHash,
    /// Peer to ask first.
    pub(super) preferred: Option<PeerId>,
    /// Peer that announced the chain.
    pub(super) source: Option<SocketAddr>,
    pub(super) parents: u64,
    pub(super) asked: Vec<RequestId>,
    pub(super) lacking: HashSet<PeerId>,
    pub(super) pause: Duration,
    pub(super) not_before: Option<Instant>,
    pub(super) branch: Branch,
    /// Hardest known target among the chain's latest shares.
    pub(super) target: Target,
    /// Set when it is requested before the owner reported it missing.
    pub(super) is_ahead: bool,
}

impl Search {
    pub(super) fn new(
        hash: ShareHash,
        preferred: Option<PeerId>,
        source: Option<SocketAddr>,
        branch: Branch,
        target: Target,
        is_ahead: bool,
    ) -> Self {
        Self {
            hash,
            preferred,
            source,
            parents: PARENTS_MAX,
            asked: Vec::new(),
            lacking: HashSet::new(),
            pause: NOBODY_PAUSE,
            not_before: None,
            branch,
            target,
            is_ahead,
        }
    }
}

/// Map that drops its oldest entries.
#[derive(Debug)]
pub(super) struct Ends<T> {
    values: HashMap<ShareHash, T>,
    order: VecDeque<ShareHash>,
}

impl<T> Default for Ends<T> {
    fn default() -> Self {
        Self { values: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Ends<T> {
    pub(super) fn insert(&mut self, hash: ShareHash, value: T) {
        if self.values.insert(hash, value).is_none() {
            self.order.push_back(hash);
        }
        while self.order.len() > ENDS_MAX {
            let oldest = self.order.pop_front();
            oldest.map(|oldest| self.values.remove(&oldest));
        }
    }

    pub(super) fn get(&self, hash: &ShareHash) -> Option<&T> {
        self.values.get(hash)
    }
}
