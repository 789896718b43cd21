//! Answers: what a peer returned for a request, and what follows from it for the peer and the search.

use sharechain::share::{Share, ShareHash};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::progress::RATE_TIME;
use super::requests::Question;
use super::search::{Branch, Search};
use super::{Download, REPLY_MAX};
use crate::message::ReplyResult;
use crate::peer::{PeerId, RequestFailed, RequestId};

/// Result of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Shares for the owner, newest first; call [`Download::taken`] once they are taken.
    Shares(Vec<Arc<Share>>),
    /// No result, without fault of the peer.
    Nothing,
    /// The peer failed to answer through its own fault.
    Failed,
    /// The answer does not match the request.
    NotAsked(String),
}

impl Download {
    /// Handles the answer of `peer` to `request`, or its failure.
    pub fn handle_reply(
        &mut self,
        peer: PeerId,
        request: RequestId,
        shares: Result<Vec<Arc<Share>>, RequestFailed>,
        now: Instant,
    ) -> Outcome {
        let question = self.questions.get(&request).or_else(|| self.late.get(&request));
        if question.is_none_or(|question| question.peer != peer) {
            return Outcome::Nothing;
        }
        let Some(question) = self.close(request).or_else(|| self.late.remove(&request)) else {
            return Outcome::Nothing;
        };
        let outcome = match shares {
            Err(RequestFailed::Refused(ReplyResult::TooLong)) => {
                self.note_too_long(peer, &question);
                Outcome::Nothing
            }
            Err(RequestFailed::Refused(_)) => {
                self.note_failed(peer, &question);
                Outcome::Failed
            }
            Ok(shares) => {
                self.note_time(peer, now.saturating_duration_since(question.asked_at));
                match contradiction(&question, &shares) {
                    Some(contradiction) => Outcome::NotAsked(contradiction),
                    None if shares.is_empty() => {
                        self.note_lacking(peer, question.hash);
                        Outcome::Nothing
                    }
                    None => self.note_shares(&question, shares, now),
                }
            }
        };
        self.ask(now);
        outcome
    }

    /// True if `request` is for the share that its peer announced as its best.
    pub fn is_announced(&self, request: RequestId) -> bool {
        let question = self.questions.get(&request).or_else(|| self.late.get(&request));
        question.is_some_and(|question| question.is_announced)
    }

    /// Records that the owner took `shares` of those passed to it.
    pub fn taken(&mut self, shares: usize, now: Instant) {
        self.untaken = self.untaken.saturating_sub(shares);
        self.ask(now);
    }

    fn note_shares(&mut self, question: &Question, shares: Vec<Arc<Share>>, now: Instant) -> Outcome {
        let Some(oldest) = shares.last().cloned() else { return Outcome::Nothing };
        let search = self.searches.iter().position(|search| search.hash == question.hash);
        let (mut branch, target) = match search {
            Some(at) => {
                let search = self.searches.remove(at);
                (search.branch, search.target)
            }
            None if question.is_announced && !self.delivered.contains_key(&question.hash) => {
                (Branch::default(), oldest.target())
            }
            // Another peer was faster, or the share is not wanted any more.
            None => return Outcome::Nothing,
        };
        if branch.shares == 0 {
            branch.top = shares.first().map_or(0, |share| share.absheight());
        }
        for share in &shares {
            branch.shares += 1;
            branch.attempts = branch.attempts + share.attempts();
            self.delivered.insert(share.hash(), now);
            self.delivered_order.push_back((now, share.hash()));
        }
        self.untaken += shares.len();
        if let Some(address) = self.peers.get(&question.peer).map(|peer| peer.address) {
            self.charge(address, shares.len());
        }
        self.came.push_back((now, shares.len()));
        while self.came.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= RATE_TIME) {
            self.came.pop_front();
        }
        if let Some(next) = oldest.previous() {
            self.ends.insert(next, branch);
            // A full answer continues below; a short one ended at a stop or at the end of the peer's chain.
            let is_full = shares.len() as u64 == question.parents + 1;
            let is_new = !self.delivered.contains_key(&next)
                && !self.stops.contains(&next)
                && self.searches.iter().all(|search| search.hash != next);
            if is_full && is_new && self.asks_ahead() && self.is_branch_worth(&next, &branch, now) {
                self.searches.push(Search::new(next, Some(question.peer), None, branch, target, true));
            }
        }
        Outcome::Shares(shares)
    }

    fn note_lacking(&mut self, peer: PeerId, hash: ShareHash) {
        if let Some(search) = self.searches.iter_mut().find(|search| search.hash == hash) {
            search.lacking.insert(peer);
        }
    }

    /// The answer exceeds a message, which is not a fault of the peer: fewer shares are requested, and none from a peer
    /// that cannot send even one of them.
    fn note_too_long(&mut self, peer: PeerId, question: &Question) {
        let Some(search) = self.searches.iter_mut().find(|search| search.hash == question.hash) else { return };
        search.parents = search.parents.min(question.parents / 2);
        if question.parents == 0 {
            search.lacking.insert(peer);
        }
    }

    pub(super) fn note_failed(&mut self, peer: PeerId, question: &Question) {
        if let Some(search) = self.searches.iter_mut().find(|search| search.hash == question.hash) {
            // The answer may have been too large for the peer, or too slow.
            search.parents = question.parents / 2;
            search.lacking.insert(peer);
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.mean_seconds = Some(REPLY_MAX.as_secs_f64());
        }
    }

    fn note_time(&mut self, peer: PeerId, took: Duration) {
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        let seconds = took.as_secs_f64();
        peer.mean_seconds = Some(peer.mean_seconds.map_or(seconds, |mean| mean + (seconds - mean) / 3.0));
    }
}

/// Reason why `shares` is not an answer to `question`: it must begin with the requested share, and each must be the
/// parent of the one before.
fn contradiction(question: &Question, shares: &[Arc<Share>]) -> Option<String> {
    if shares.len() as u64 > question.parents + 1 {
        return Some(format!("sent {} shares, {} were requested", shares.len(), question.parents + 1));
    }
    let mut due = Some(question.hash);
    for share in shares {
        if Some(share.hash()) != due {
            return Some(format!("sent share {}, which was not requested", share.hash()));
        }
        due = share.previous();
    }
    None
}
