//! Weights on a merged chain (protocol-v36 section 8.2): undecayed, by key, in a window that slides along the chain.
//!
//! From one share to the next one share enters and one leaves; a window far from the last is summed from scratch. Keys
//! that come from the table of first-seen addresses hold for one generation of it: in a new one they are looked up
//! again, and the others stay.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::view::View;
use crate::map::Map;
use crate::merged::{MergedKey, MergedWeights, key_of};
use crate::share::{Attempts, Share, ShareHash, ShareVersion};

/// Maximum distance of two windows for moving one to the other: forks are shallower.
const REACH: usize = 48;

/// Weights of a window on a merged chain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedWindowWeights {
    /// Weights by key.
    pub weights: MergedWeights,
    /// Shares in the window whose key another node may see otherwise (protocol-v36 trap 8).
    pub looked_up: u32,
}

/// A share that votes for version 36, in the window.
#[derive(Debug, PartialEq)]
struct Counted {
    key: MergedKey,
    attempts: Attempts,
    donation: u16,
    is_looked_up: bool,
}

#[derive(Debug, PartialEq)]
struct Place {
    hash: ShareHash,
    /// `None` for a share that does not vote for version 36: it takes a place without weight.
    counted: Option<Counted>,
}

/// Window on one merged chain.
#[derive(Debug, Default)]
pub(super) struct MergedWindow {
    chain_id: u32,
    generation: u64,
    /// The newest first.
    places: VecDeque<Place>,
    /// Sums, and the number of shares of each key.
    sums: MergedWeights,
    shares: Map<MergedKey, u32>,
    looked_up: u32,
    /// Start and length of a window, and its weights.
    latest: Option<(Option<ShareHash>, usize, Arc<MergedWindowWeights>)>,
}

impl MergedWindow {
    pub(super) fn new(chain_id: u32) -> Self {
        Self { chain_id, ..Self::default() }
    }

    /// Weights of the shares from `start` down, as many as a payout window has.
    pub(super) fn weights(&mut self, view: &View<'_>, start: Option<ShareHash>) -> Arc<MergedWindowWeights> {
        self.look_up_again(view);
        let length = start.map_or(0, |start| view.all.height(start)).min(view.network.real_chain_length);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if let Some((.., weights)) = self.latest.as_ref().filter(|(at, count, _)| (*at, *count) == (start, length)) {
            return Arc::clone(weights);
        }
        match start {
            Some(start) => self.move_to(view, start, length),
            None => self.clear(),
        }
        let mut weights = self.sums.clone();
        weights.by_key.retain(|_, weight| !weight.is_zero());
        let weights = Arc::new(MergedWindowWeights { weights, looked_up: self.looked_up });
        self.latest = Some((start, length, Arc::clone(&weights)));
        weights
    }

    fn clear(&mut self) {
        *self = Self { generation: self.generation, ..Self::new(self.chain_id) };
    }

    /// Counts each share by the key that the table of first-seen addresses now gives it.
    fn look_up_again(&mut self, view: &View<'_>) {
        let generation = view.first_seen.generation();
        if std::mem::replace(&mut self.generation, generation) == generation || self.looked_up == 0 {
            return;
        }
        for at in 0..self.places.len() {
            if !self.places[at].counted.as_ref().is_some_and(|counted| counted.is_looked_up) {
                continue;
            }
            // A share that is gone is in no window any more.
            let Some(share) = view.share(self.places[at].hash) else { return self.clear() };
            let place = self.place(view, share);
            if place != self.places[at] {
                self.latest = None;
                self.count_in(&place);
                let before = std::mem::replace(&mut self.places[at], place);
                self.count_out(Some(before));
            }
        }
    }

    /// Makes `start` the newest of `length` shares.
    fn move_to(&mut self, view: &View<'_>, start: ShareHash, length: usize) {
        let mut entering: Vec<&Arc<Share>> = Vec::new();
        let mut joint = None;
        for share in view.chain(start, u32::try_from(REACH).unwrap_or(u32::MAX)) {
            joint = self.places.iter().take(REACH).position(|place| place.hash == share.hash());
            if joint.is_some() {
                break;
            }
            entering.push(share);
        }
        match joint {
            Some(back) => {
                for _ in 0..back {
                    let place = self.places.pop_front();
                    self.count_out(place);
                }
                for share in entering.into_iter().rev() {
                    let place = self.place(view, share);
                    self.count_in(&place);
                    self.places.push_front(place);
                }
            }
            None => self.clear(),
        }
        while self.places.len() > length {
            let place = self.places.pop_back();
            self.count_out(place);
        }
        // After a step back the window lacks shares at its old end.
        let missing = length - self.places.len();
        let below = match self.places.back() {
            Some(oldest) => view.share(oldest.hash).and_then(|share| share.previous()),
            None => Some(start),
        };
        if let Some(below) = below.filter(|_| missing > 0) {
            for share in view.chain(below, u32::try_from(missing).unwrap_or(u32::MAX)) {
                let place = self.place(view, share);
                self.count_in(&place);
                self.places.push_back(place);
            }
        }
    }

    fn place(&self, view: &View<'_>, share: &Share) -> Place {
        let data = share.data();
        let votes = data.desired_version >= ShareVersion::V36.number();
        let counted = votes.then(|| {
            let script = share.payee().script(share.version()).unwrap_or_default();
            let (key, is_looked_up) = match &share.info().additions {
                None => (MergedKey::Parent(script.into()), false),
                Some(additions) => {
                    let entries = additions.merged_addresses.iter().map(|entry| (entry.chain_id, &*entry.script));
                    let found = key_of(self.chain_id, script, entries, view.first_seen);
                    (found.key, found.is_looked_up)
                }
            };
            Counted { key, attempts: share.attempts(), donation: data.donation, is_looked_up }
        });
        Place { hash: share.hash(), counted }
    }

    fn count_in(&mut self, place: &Place) {
        let Some(counted) = &place.counted else { return };
        self.sums.count(counted.key.clone(), counted.attempts, counted.donation);
        *self.shares.entry(counted.key.clone()).or_default() += 1;
        self.looked_up += u32::from(counted.is_looked_up);
    }

    fn count_out(&mut self, place: Option<Place>) {
        let Some(counted) = place.and_then(|place| place.counted) else { return };
        self.sums.count_out(&counted.key, counted.attempts, counted.donation);
        self.looked_up -= u32::from(counted.is_looked_up);
        if let Some(shares) = self.shares.get_mut(&counted.key) {
            *shares -= 1;
            if *shares == 0 {
                self.shares.remove(&counted.key);
                self.sums.by_key.remove(&counted.key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
