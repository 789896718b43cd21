//! Requests: which share is requested from which peer, when, and with how many of its parents.

use sharechain::share::ShareHash;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::Download;
use super::search::{NOBODY_PAUSE_MAX, Search};
use crate::peer::{PeerId, RequestId};

/// Maximum shares requested or not yet taken by the owner: about 5 to 15 MB, ten whole answers.
pub const SHARES_IN_FLIGHT_MAX: usize = 5010;
/// Maximum number of peers asked for one share at a time.
const ASKED_MAX: usize = 3;
/// A request is repeated at a second peer after this time or three times the first one's mean, if that is longer.
const HEDGE_MIN: Duration = Duration::from_secs(2);
const HEDGE_MAX: Duration = Duration::from_secs(8);

/// Request to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Peer to ask.
    pub peer: PeerId,
    /// Identifier of the request.
    pub request: RequestId,
    /// Hash of the wanted share.
    pub hash: ShareHash,
    /// Number of its ancestors to include.
    pub parents: u64,
    /// Shares that end the answer.
    pub stops: Vec<ShareHash>,
}

#[derive(Debug)]
pub(super) struct Question {
    pub(super) peer: PeerId,
    pub(super) hash: ShareHash,
    pub(super) parents: u64,
    pub(super) asked_at: Instant,
    /// Set for an announced share, which is requested only from the peer that announced it.
    pub(super) is_announced: bool,
}

impl Download {
    /// Requests the one share that `peer` announced as its best.
    pub fn ask_announced(&mut self, peer: PeerId, hash: ShareHash, now: Instant) {
        if self.peers.contains_key(&peer) && !self.delivered.contains_key(&hash) {
            self.put(peer, hash, 0, Vec::new(), true, now);
        }
    }

    /// Returns the next request to send.
    pub fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    /// Pauses searches for shares that no peer has. Those not reported by the owner end; it will report real gaps.
    fn pause(&mut self, now: Instant) {
        let peers = &self.peers;
        let is_nowhere = |search: &Search| {
            search.asked.is_empty()
                && search.not_before.is_none()
                && !peers.is_empty()
                && peers.keys().all(|peer| search.lacking.contains(peer))
        };
        self.searches.retain(|search| !(search.is_ahead && is_nowhere(search)));
        for search in self.searches.iter_mut().filter(|search| is_nowhere(search)) {
            search.not_before = Some(now + search.pause);
            search.pause = (search.pause * 2).min(NOBODY_PAUSE_MAX);
        }
    }

    /// Sends all requests that are possible now.
    pub(super) fn ask(&mut self, now: Instant) {
        self.asked_at = Some(now);
        self.pause(now);
        self.searches.sort_by_key(|search| search.target);
        for at in 0..self.searches.len() {
            let search = &self.searches[at];
            let left = u64::from(self.depth_max()).saturating_sub(search.branch.shares + 1);
            let parents = search.parents.min(left);
            let is_due = match self.hedge_at(search) {
                None => search.not_before.is_none_or(|not_before| not_before <= now),
                Some(hedge_at) => hedge_at <= now && search.asked.len() < ASKED_MAX,
            };
            if !is_due || !self.has_room(parents) {
                continue;
            }
            let Some(peer) = self.choose(at) else { continue };
            let hash = self.searches[at].hash;
            let request = self.put(peer, hash, parents, self.stops.clone(), false, now);
            self.searches[at].asked.push(request);
        }
    }

    /// Time when a pending search is to be requested from another peer too.
    pub(super) fn hedge_at(&self, search: &Search) -> Option<Instant> {
        let question = self.questions.get(search.asked.last()?)?;
        let mean = self.peers.get(&question.peer).and_then(|peer| peer.mean_seconds).unwrap_or_default();
        let patience = Duration::from_secs_f64((3.0 * mean).clamp(HEDGE_MIN.as_secs_f64(), HEDGE_MAX.as_secs_f64()));
        Some(question.asked_at + patience)
    }

    fn has_room(&self, parents: u64) -> bool {
        let asked: u64 = self.questions.values().map(|question| question.parents + 1).sum();
        self.untaken as u64 + asked + parents < SHARES_IN_FLIGHT_MAX as u64
    }

    /// Chooses the peer: first the sender of the share above, then the chain's announcer, then the fastest idle peer.
    fn choose(&mut self, at: usize) -> Option<PeerId> {
        let search = &self.searches[at];
        let asked: HashSet<PeerId> = search
            .asked
            .iter()
            .filter_map(|request| self.questions.get(request))
            .map(|question| question.peer)
            .collect();
        let mut best: Option<((bool, bool, f64), PeerId)> = None;
        for (id, peer) in &self.peers {
            let is_free = peer.outstanding == 0 && !self.has_sent_too_many(peer.address);
            if !is_free || asked.contains(id) || search.lacking.contains(id) {
                continue;
            }
            let seconds = peer.mean_seconds.unwrap_or(1.0) * (0.9 + 0.2 * self.random.f64());
            let rank = (search.preferred != Some(*id), search.source != Some(peer.address), seconds);
            if best.is_none_or(|(than, _)| rank.partial_cmp(&than).is_some_and(std::cmp::Ordering::is_lt)) {
                best = Some((rank, *id));
            }
        }
        best.map(|(_, peer)| peer)
    }

    fn put(
        &mut self,
        peer: PeerId,
        hash: ShareHash,
        parents: u64,
        stops: Vec<ShareHash>,
        is_announced: bool,
        now: Instant,
    ) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.questions.insert(request, Question { peer, hash, parents, asked_at: now, is_announced });
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.outstanding += 1;
        }
        self.asks.push_back(Ask { peer, request, hash, parents, stops });
        request
    }

    pub(super) fn close(&mut self, request: RequestId) -> Option<Question> {
        let question = self.questions.remove(&request)?;
        if let Some(peer) = self.peers.get_mut(&question.peer) {
            peer.outstanding = peer.outstanding.saturating_sub(1);
        }
        for search in &mut self.searches {
            search.asked.retain(|asked| *asked != request);
        }
        Some(question)
    }
}
