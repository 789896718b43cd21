//! Shares: received, requested and announced ones, and the results of the share chain's owner.

use sharechain::chain::Wanted;
use sharechain::share::{Share, ShareHash};
use std::sync::Arc;

use super::{Action, Now, PeerId, Swarm};
use crate::download::Outcome;
use crate::peer::{Announcement, Close, Offence, Order, RequestFailed, RequestId};

/// Maximum share requests of one peer that wait for the owner. The reference has two at a time.
const ANSWERS_PENDING_MAX: usize = 8;

impl Swarm {
    /// Handles a new best share: `newest_first` are it and up to four before it, `height` is that of its chain as far
    /// as known.
    pub fn handle_tip(&mut self, newest_first: &[Arc<Share>], height: u32) {
        let best = newest_first.first();
        self.best_share = best.map(|best| best.hash());
        self.download.set_best(best.map(|best| (height, best.attempts())));
        if best.is_some() {
            let unshared = self.relay.unshared(newest_first);
            self.spread(&unshared);
        }
    }

    /// Marks shares as present at the start, so they are not announced (protocol section 3.7).
    pub fn mark_shared(&mut self, hashes: impl IntoIterator<Item = ShareHash>) {
        hashes.into_iter().for_each(|hash| self.relay.mark_shared(hash));
    }

    /// Handles the missing parents reported by the share chain's owner.
    pub fn handle_needs(&mut self, wanted: &[Wanted], stops: &[ShareHash], now: Now) {
        self.download.set_needs(wanted, stops, now.instant);
    }

    /// Handles the number of shares that the owner took of [`Action::Shares`].
    pub fn handle_taken(&mut self, shares: usize, now: Now) {
        self.download.taken(shares, now.instant);
    }

    /// Handles the owner's reply whether it has an announced share.
    pub fn handle_known(&mut self, peer: PeerId, hash: ShareHash, is_known: bool, now: Now) {
        if !self.connections.contains_key(&peer) {
            return;
        }
        if !is_known {
            self.download.ask_announced(peer, hash, now.instant);
            // Before the template, as in the reference.
            self.order_requests();
        }
        self.order_template(peer);
    }

    /// Handles the owner's answer to an [`Action::Ancestry`].
    pub fn handle_answer(&mut self, peer: PeerId, id: [u8; 32], shares: Vec<Arc<Share>>) {
        let Some(connection) = self.connections.get_mut(&peer) else { return };
        connection.answers_pending = connection.answers_pending.saturating_sub(1);
        connection.shares_sent += shares.len() as u64;
        self.actions.push_back(Action::Order(peer, Order::Answer { id, shares }));
    }

    /// Handles a verified share that solves its block: announced at once, and again once heights are known better.
    pub fn handle_block(&mut self, share: &Arc<Share>, now: Now) {
        self.spread_block(share);
        self.relay.repeat(share.clone(), now.instant);
    }

    pub(super) fn note_shares(&mut self, peer: PeerId, shares: Vec<Arc<Share>>) {
        let Some(connection) = self.connections.get_mut(&peer) else { return };
        connection.shares_received += shares.len() as u64;
        let unverified = self.relay.note_received(peer, &shares);
        if !shares.is_empty() && self.download.note_unasked(peer, unverified) {
            self.actions.push_back(Action::Shares { peer: connection.address, shares });
        }
    }

    pub(super) fn note_reply(
        &mut self,
        peer: PeerId,
        request: RequestId,
        shares: Result<Vec<Arc<Share>>, RequestFailed>,
        now: Now,
    ) {
        let Some(connection) = self.connections.get_mut(&peer) else { return };
        let address = connection.address;
        connection.shares_received += shares.as_ref().map_or(0, Vec::len) as u64;
        let failed = shares.as_ref().err().map(ToString::to_string);
        let is_announced = self.download.is_announced(request);
        match self.download.handle_reply(peer, request, shares, now.instant) {
            Outcome::Shares(shares) => {
                self.relay.note_received(peer, &shares);
                if !is_announced {
                    self.relay.note_answered(peer, &shares);
                }
                self.actions.push_back(Action::Shares { peer: address, shares });
            }
            Outcome::Nothing => {}
            Outcome::Failed => {
                let offence = Offence::RequestFailed(failed.unwrap_or_default());
                self.disconnect(peer, Close::Offence(offence), now);
            }
            Outcome::NotAsked(what) => self.disconnect(peer, Close::Offence(Offence::NotAsked(what)), now),
        }
    }

    pub(super) fn note_asked(
        &mut self,
        peer: PeerId,
        id: [u8; 32],
        hashes: Vec<ShareHash>,
        parents: u64,
        stops: Vec<ShareHash>,
        now: Now,
    ) {
        let Some(connection) = self.connections.get_mut(&peer) else { return };
        if connection.answers_pending >= ANSWERS_PENDING_MAX {
            let reason = format!("share request while {ANSWERS_PENDING_MAX} answers are pending");
            self.disconnect(peer, Close::Quiet(reason), now);
            return;
        }
        connection.answers_pending += 1;
        self.actions.push_back(Action::Ancestry { peer, id, hashes, parents, stops });
    }

    /// Announces `shares` to each peer, without those that it sent. A peer gets a message even if nothing is left, as
    /// in the reference: the sender of a share that becomes the best gets 29 bytes back.
    fn spread(&mut self, shares: &[Arc<Share>]) {
        let all: Announcement = shares.to_vec().into();
        for (peer, connection) in self.connections.iter_mut().filter(|(_, connection)| connection.is_up()) {
            let is_news = |share: &&Arc<Share>| !self.relay.came_from(share.hash(), *peer);
            let news: Announcement = if all.iter().all(|share| is_news(&share)) {
                all.clone()
            } else {
                all.iter().filter(is_news).cloned().collect()
            };
            connection.shares_sent += news.len() as u64;
            self.actions.push_back(Action::Order(*peer, Order::Shares(news)));
        }
    }

    fn spread_block(&mut self, share: &Arc<Share>) {
        if self.parent.as_ref().is_some_and(|parent| parent.is_recent(share)) {
            let unshared = self.relay.unshared(std::slice::from_ref(share));
            if !unshared.is_empty() {
                self.spread(&unshared);
            }
        }
    }

    pub(super) fn repeat_blocks(&mut self, now: Now) {
        while let Some(share) = self.relay.poll_repeat(now.instant) {
            self.spread_block(&share);
        }
    }
}
