//! Shares on their way to the store: which are worth it, and those that wait for room in its queue.

use sharechain::chain::Sharechain;
use sharechain::share::ShareHash;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tracing::{error, info};

use super::{Owner, whole_seconds};
use crate::chain::OpenedStore;
use crate::chain::store::{NewShare, StoreWriter};
use crate::runtime::clock::unix_now;

/// Maximum loss at a power failure.
pub(super) const SYNC_INTERVAL: Duration = Duration::from_secs(10);

/// Time to wait for the store when the node stops: together with [`LAST_SHARES`](super::LAST_SHARES) less than the node's
/// grace period, so that unwritten shares are still logged.
const LAST_WRITES: Duration = Duration::from_secs(1);

impl Owner {
    /// Lets the store write the rest, as far as time allows.
    pub(super) async fn stop_store(&mut self) {
        let until = Instant::now() + LAST_WRITES;
        self.ratchet_file.finish(Instant::now() + LAST_WRITES / 4).await;
        while let Some(store) = self.store.as_ref().filter(|_| !self.unsaved.is_empty()) {
            if tokio::time::timeout_at(until.into(), store.room()).await.is_err() {
                break;
            }
            self.store_unsaved();
        }
        self.slot.empty();
        let Some(store) = self.store.take() else { return };
        let left = self.unsaved.len() + store.stop(until).await;
        if left > 0 {
            error!(
                shares = left,
                "share store: not written before the end; a restart has to get them from peers, and those that no \
                 peer has are lost"
            );
        }
    }

    pub(super) fn forget(&mut self, mut hashes: Vec<ShareHash>) {
        let mut is_unsaved = false;
        hashes.retain(|hash| {
            self.own_hashes.remove(hash);
            self.relayed.remove(hash);
            self.at_risk.forget(*hash);
            is_unsaved |= self.unsaved_set.remove(hash);
            self.saved.remove(hash)
        });
        if is_unsaved {
            self.unsaved.retain(|hash| self.unsaved_set.contains(hash));
        }
        if let Some(store) = self.store.as_ref().filter(|_| !hashes.is_empty()) {
            store.forget(hashes);
        }
    }

    /// Saves the best chain, and the one with the most work, which may be under download: strangers cannot fill the
    /// disk with anything else unverified.
    pub(super) fn save_worthy(&mut self) {
        let all = self.chain.all();
        if self.store.is_none() || self.saved.len() >= all.len() {
            return;
        }
        let most_work = all.heads().iter().copied().max_by_key(|head| all.work(*head).own);
        let mut missing = Vec::new();
        let mut seen = HashSet::new();
        for head in [self.chain.choice().best, most_work].into_iter().flatten() {
            // Oldest first: the next start reads that order fastest.
            let chain = all.chain(head, u32::MAX).filter(|hash| !self.saved.contains(hash) && seen.insert(*hash));
            let mut chain: Vec<ShareHash> = chain.collect();
            chain.reverse();
            missing.append(&mut chain);
        }
        self.save(&missing);
    }

    /// Stores shares, if there is a store: now or, while its queue is full, later.
    pub(super) fn save(&mut self, hashes: &[ShareHash]) {
        if self.store.is_none() {
            return;
        }
        let new = hashes.iter().filter(|hash| !self.saved.contains(*hash) && !self.unsaved_set.contains(*hash));
        // They are verified from a chain's end down, but read fastest from its start up.
        for share in sharechain::chain::parents_first(new.filter_map(|hash| self.chain.share(*hash).cloned()).collect())
        {
            let hash = share.hash();
            self.unsaved_set.insert(hash);
            self.unsaved.push_back(hash);
        }
        self.store_unsaved();
    }

    /// Queues unsaved shares, as far as there is room.
    pub(super) fn store_unsaved(&mut self) {
        let Some(store) = &self.store else { return };
        while !self.unsaved.is_empty() && store.has_room() {
            let Some(hash) = self.unsaved.pop_front() else { return };
            self.unsaved_set.remove(&hash);
            // Shares that the chain has dropped need no storing.
            if let Some(share) = stored(&self.chain, hash) {
                store.append_share(share);
                self.saved.insert(hash);
            }
        }
    }

    /// Attaches a store: reads its contents, then adds what it lacks.
    pub(super) async fn attach(&mut self, opened: OpenedStore) {
        if self.store.is_some() {
            error!("share store attached already");
            return;
        }
        let OpenedStore { store, shares, verified, ratchet } = opened;
        self.ratchet_file.take_over();
        match (ratchet, self.chain.ratchet().copied()) {
            // As after a restart: what the other process decided lasts.
            (Some(saved), _) => self.chain.set_ratchet(saved),
            (None, Some(ours)) => self.ratchet_file.save(ours).await,
            (None, None) => {}
        }
        let started = StoreWriter::start(store, SYNC_INTERVAL, self.disk.clone(), self.at_risk.clone());
        let writer = match started {
            Ok(writer) => writer,
            Err(error) => {
                error!(%error, "cannot start the share store's thread: shares are kept in memory only");
                return;
            }
        };
        self.saved = shares.iter().map(|share| share.hash()).collect();
        // The other process sent its shares to peers already.
        self.relayed.extend(&self.saved);
        self.chain.add_all(shares, None, unix_now());
        let missing: Vec<ShareHash> =
            missing_in(&self.chain, &|hash| self.saved.contains(&hash)).into_iter().map(|share| share.hash).collect();
        let now_verified: Vec<ShareHash> = self
            .saved
            .iter()
            .copied()
            .filter(|hash| !verified.contains(hash) && self.chain.verified().contains(hash))
            .collect();
        info!(written = missing.len(), "share store attached");
        writer.append_verified(now_verified);
        self.slot.fill(writer.queue());
        self.store = Some(writer);
        self.save(&missing);
    }
}

/// Converts a share for the store.
fn stored(chain: &Sharechain, hash: ShareHash) -> Option<NewShare> {
    let known = chain.known(hash)?;
    // The first-seen time of a share from another store is unknown; the share was made no later than that.
    let seen = if known.first_seen > 0.0 { whole_seconds(known.first_seen) } else { known.share.timestamp() };
    let bytes = known.share.to_bytes().into();
    Some(NewShare { hash, bytes, time_seen: seen, verified: chain.verified().contains(&hash) })
}

/// Shares of `chain` that a store lacks, parents first.
pub(super) fn missing_in(chain: &Sharechain, is_stored: &dyn Fn(ShareHash) -> bool) -> Vec<NewShare> {
    let missing = chain.all().iter().filter(|hash| !is_stored(*hash));
    let shares = missing.filter_map(|hash| chain.share(hash).cloned()).collect();
    sharechain::chain::parents_first(shares).iter().filter_map(|share| stored(chain, share.hash())).collect()
}

/// Waits for room in the store's queue.
pub(super) async fn room(store: Option<&StoreWriter>) {
    match store {
        Some(store) => store.room().await,
        None => std::future::pending().await,
    }
}
