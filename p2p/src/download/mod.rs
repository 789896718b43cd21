//! Scheduler of share requests to peers: sans-IO, driven by [`Swarm`](super::swarm::Swarm).
//!
//! The owner of the share chain reports missing parents. Only ancestors of a known hash can be requested, so one chain
//! arrives through consecutive requests, and three things make that fast: the answer's oldest share names the next
//! request, which is sent at once, before any check; a slow peer's request is repeated at a faster one; and several
//! chains are requested from several peers at a time.
//!
//! # Work required of a chain
//!
//! Every share proves the work of its own target before it gets here, but targets may be easy, so an attacker could
//! make a long chain cheaply. These rules limit how far it is followed:
//!
//! 1. The owner wants no parent of a chain whose newest share is an hour older than the best (protocol section 8.2).
//! 2. Once there is a whole chain to compare with, a chain whose work per share is below a sixteenth of the best
//!    share's is not followed: judged by the hardest of its latest five shares before it is, and by the mean
//!    of all shares after [`JUDGED_SHARES`]. Chains are compared by work in time and all aim for the same pace, so it
//!    could not win.
//! 3. No chain is followed below the depth that the owner keeps, twice its length.
//! 4. A host gets no more requests, and its unsolicited shares are dropped, while more than three chain lengths (and a
//!    thousand) of its shares were not verified. The count falls with each verified share, and by half each hour;
//!    a new port does not reset it.
//! 5. Among several chains those with the hardest shares come first.
//! 6. At most [`SHARES_IN_FLIGHT_MAX`] shares in total are requested or not yet taken by the owner.

mod answers;
mod limits;
mod progress;
mod requests;
mod search;

use sharechain::chain::Wanted;
use sharechain::share::{Attempts, ShareHash};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::peer::{PeerId, RequestId};

pub use self::answers::Outcome;
pub use self::limits::JUDGED_SHARES;
pub use self::progress::Progress;
use self::requests::Question;
pub use self::requests::{Ask, SHARES_IN_FLIGHT_MAX};
use self::search::{Branch, Ends, Search};

/// Parents requested at a time. Peers return a thousand at most; the reference draws 0 to 499.
pub const PARENTS_MAX: u64 = 499;
/// Maximum number of stops in a request: shares that end an answer (protocol section 3.7).
pub const STOPS_MAX: usize = 100;
/// Maximum number of missing parents requested at a time.
const SEARCHES_MAX: usize = 64;
/// Time after which an unanswered request is given to others: the connection gives up before that (protocol section
/// 3.4: 15 s), unless the answer has begun to arrive.
const REPLY_MAX: Duration = Duration::from_secs(20);
/// Minimum time before a received share is requested again: the owner may not have seen it yet.
const DELIVERED_FOR: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Peer {
    address: SocketAddr,
    outstanding: usize,
    /// Exponential mean of the answer times in seconds, the latest weighted a third.
    mean_seconds: Option<f64>,
}

/// Download of missing shares.
#[derive(Debug)]
pub struct Download {
    chain_length: u32,
    random: fastrand::Rng,
    peers: BTreeMap<PeerId, Peer>,
    searches: Vec<Search>,
    questions: BTreeMap<RequestId, Question>,
    /// Requests that were given to other peers. Their answers may still be arriving: one share may take minutes on a
    /// slow line. If none is, the connection ends.
    late: BTreeMap<RequestId, Question>,
    next_request: u64,
    stops: Vec<ShareHash>,
    wanted: Vec<Wanted>,
    /// Unverified shares by host.
    unverified: HashMap<SocketAddr, u64>,
    /// Height and work of the best share, if there is one.
    best: Option<(u32, Attempts)>,
    /// Shares passed to the owner and not taken yet.
    untaken: usize,
    delivered: HashMap<ShareHash, Instant>,
    delivered_order: VecDeque<(Instant, ShareHash)>,
    /// The branch that ends above a missing share.
    ends: Ends<Branch>,
    given_up: Ends<Instant>,
    came: VecDeque<(Instant, usize)>,
    asks: VecDeque<Ask>,
    /// Time of the last round of requests.
    asked_at: Option<Instant>,
}

impl Download {
    /// Creates a download for a chain of this length. Random draws come from `random`.
    pub fn new(chain_length: u32, random: fastrand::Rng) -> Self {
        Self {
            chain_length,
            random,
            peers: BTreeMap::new(),
            searches: Vec::new(),
            questions: BTreeMap::new(),
            late: BTreeMap::new(),
            next_request: 0,
            stops: Vec::new(),
            wanted: Vec::new(),
            unverified: HashMap::new(),
            best: None,
            untaken: 0,
            delivered: HashMap::new(),
            delivered_order: VecDeque::new(),
            ends: Ends::default(),
            given_up: Ends::default(),
            came: VecDeque::new(),
            asks: VecDeque::new(),
            asked_at: None,
        }
    }

    /// Adds a peer.
    pub fn add_peer(&mut self, peer: PeerId, address: SocketAddr, now: Instant) {
        let state = Peer { address, outstanding: 0, mean_seconds: None };
        self.peers.insert(peer, state);
        for search in &mut self.searches {
            // It may have shares that no other peer has.
            search.not_before = None;
        }
        self.ask(now);
    }

    /// Removes a peer and its requests.
    pub fn remove_peer(&mut self, peer: PeerId, now: Instant) {
        self.peers.remove(&peer);
        self.asks.retain(|ask| ask.peer != peer);
        self.late.retain(|_, question| question.peer != peer);
        let gone: Vec<RequestId> =
            self.questions.iter().filter(|(_, question)| question.peer == peer).map(|(id, _)| *id).collect();
        for request in gone {
            self.close(request);
        }
        for search in &mut self.searches {
            search.lacking.remove(&peer);
            search.preferred = search.preferred.filter(|preferred| *preferred != peer);
        }
        self.ask(now);
    }

    /// Sets the parents missing in the owner's chain, and the stops for answers.
    pub fn set_needs(&mut self, wanted: &[Wanted], stops: &[ShareHash], now: Instant) {
        self.stops = stops.iter().copied().take(STOPS_MAX).collect();
        self.wanted = wanted.to_vec();
        // Rule 5: the hardest to produce is the least likely to be forged.
        self.wanted.sort_by_key(|wanted| wanted.target);
        self.wanted.truncate(SEARCHES_MAX);
        let hashes: HashSet<ShareHash> = self.wanted.iter().map(|wanted| wanted.hash).collect();
        let asks_ahead = self.asks_ahead();
        self.searches.retain(|search| hashes.contains(&search.hash) || (search.is_ahead && asks_ahead));
        self.seek_wanted(now);
        self.ask(now);
    }

    /// Starts searches for missing parents that are worth it.
    fn seek_wanted(&mut self, now: Instant) {
        for wanted in std::mem::take(&mut self.wanted) {
            if let Some(search) = self.searches.iter_mut().find(|search| search.hash == wanted.hash) {
                search.is_ahead = false;
                search.source = search.source.or(wanted.source);
            } else if self.delivered_until(&wanted.hash).is_none_or(|until| until <= now) {
                let branch = self.ends.get(&wanted.hash).copied().unwrap_or_default();
                if self.is_worth(wanted.target.attempts(), 1) && self.is_branch_worth(&wanted.hash, &branch, now) {
                    self.searches.push(Search::new(wanted.hash, None, wanted.source, branch, wanted.target, false));
                }
            }
            self.wanted.push(wanted);
        }
    }

    /// Time until which a received share is not requested again.
    fn delivered_until(&self, hash: &ShareHash) -> Option<Instant> {
        self.delivered.get(hash).map(|at| *at + DELIVERED_FOR)
    }

    /// Sets height and work of the best share; `None` while there is none.
    pub fn set_best(&mut self, best: Option<(u32, Attempts)>) {
        self.best = best;
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        // Searches already due at the last round found no peer to ask.
        let hedges =
            self.searches.iter().filter_map(|search| self.hedge_at(search)).filter(|at| Some(*at) > self.asked_at);
        let pauses = self.searches.iter().filter_map(|search| search.not_before);
        let lost = self.questions.values().map(|question| question.asked_at + REPLY_MAX);
        let again = self.wanted.iter().filter_map(|wanted| self.delivered_until(&wanted.hash));
        hedges.chain(pauses).chain(lost).chain(again).min()
    }

    /// Handles the passing of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_lost = |question: &Question| now >= question.asked_at + REPLY_MAX;
        let lost: Vec<RequestId> =
            self.questions.iter().filter(|(_, question)| is_lost(question)).map(|(id, _)| *id).collect();
        for request in lost {
            if let Some(question) = self.close(request) {
                self.note_failed(question.peer, &question);
                self.late.insert(request, question);
            }
        }
        for search in &mut self.searches {
            if search.not_before.is_some_and(|not_before| not_before <= now) {
                search.not_before = None;
                search.lacking.clear();
            }
        }
        while self.delivered_order.front().is_some_and(|(at, _)| now >= *at + DELIVERED_FOR) {
            let Some((at, hash)) = self.delivered_order.pop_front() else { break };
            if self.delivered.get(&hash) == Some(&at) {
                self.delivered.remove(&hash);
            }
        }
        self.seek_wanted(now);
        self.ask(now);
    }

    /// True if ancestors are requested before the owner reports them missing: as long as too little is known to verify
    /// a whole chain. Later, gaps are short, and only the owner knows where they meet the known chain.
    fn asks_ahead(&self) -> bool {
        self.best.is_none_or(|(height, _)| height < 2 * self.chain_length && !self.wanted.is_empty())
    }

    fn depth_max(&self) -> u32 {
        2 * self.chain_length + 10
    }
}

#[cfg(test)]
mod tests;
