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

use sharechain::chain::Wanted;
use sharechain::share::{Attempts, Share, ShareHash, Target};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ruint::aliases::U320;
use serde::Serialize;

use super::addrs::AddressScope;
use super::message::ReplyResult;
use super::peer::PeerId;
use super::peer::{RequestFailed, RequestId};

/// Parents requested at a time. Peers return a thousand at most; the reference draws 0 to 499.
pub const PARENTS_MAX: u64 = 499;
/// Maximum number of stops in a request: shares that end an answer (protocol section 3.7).
pub const STOPS_MAX: usize = 100;
/// Maximum shares requested or not yet taken by the owner: about 5 to 15 MB, ten whole answers.
pub const SHARES_IN_FLIGHT_MAX: usize = 5010;
/// Received shares of a chain after which it is judged by their mean work.
pub const JUDGED_SHARES: u64 = 50;
/// A chain is not followed if its work per share is below the best's by this factor.
const WORK_FACTOR: u32 = 16;
/// Maximum number of missing parents requested at a time.
const SEARCHES_MAX: usize = 64;
/// Maximum number of peers asked for one share at a time.
const ASKED_MAX: usize = 3;
/// A request is repeated at a second peer after this time or three times the first one's mean, if that is longer.
const HEDGE_MIN: Duration = Duration::from_secs(2);
const HEDGE_MAX: Duration = Duration::from_secs(8);
/// Time after which an unanswered request is given to others: the connection gives up before that (protocol section
/// 3.4: 15 s), unless the answer has begun to arrive.
const REPLY_MAX: Duration = Duration::from_secs(20);
/// Initial pause when no peer has a share; doubled each time.
const NOBODY_PAUSE: Duration = Duration::from_secs(1);
const NOBODY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Minimum time before a received share is requested again: the owner may not have seen it yet.
const DELIVERED_FOR: Duration = Duration::from_secs(30);
/// Time for which a chain with too little work is not followed.
const GIVEN_UP_FOR: Duration = Duration::from_secs(3600);
/// Maximum number of given-up chains kept, and of chain ends kept.
const ENDS_MAX: usize = 1024;
/// Unverified shares allowed to a host beyond three chain lengths: short chains have many peers too.
const UNVERIFIED_EXTRA: u64 = 1000;
/// Maximum number of hosts whose unverified shares are counted.
const HOSTS_MAX: usize = 10_000;
/// Averaging time of the download rate.
const RATE_TIME: Duration = Duration::from_secs(10);

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

/// Progress of a download.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Progress {
    /// Shares of the chain that are present.
    pub have: u32,
    /// Estimated total: the length of the chain, up to the number kept.
    pub wanted_estimate: u32,
    /// Recent download rate, in shares per second.
    pub per_second: f64,
    /// Seconds left at that rate; `None` while the rate is 0.
    pub seconds_left: Option<f64>,
}

/// A chain that is being followed down.
#[derive(Debug, Clone, Copy, Default)]
struct Branch {
    /// Number of shares received.
    shares: u64,
    /// Work of these shares.
    attempts: Attempts,
    /// Height of the newest of them, as claimed.
    top: u32,
}

#[derive(Debug)]
struct Search {
    hash: ShareHash,
    /// Peer to ask first.
    preferred: Option<PeerId>,
    /// Peer that announced the chain.
    source: Option<SocketAddr>,
    parents: u64,
    asked: Vec<RequestId>,
    lacking: HashSet<PeerId>,
    pause: Duration,
    not_before: Option<Instant>,
    branch: Branch,
    /// Hardest known target among the chain's latest shares.
    target: Target,
    /// Set when it is requested before the owner reported it missing.
    is_ahead: bool,
}

#[derive(Debug)]
struct Question {
    peer: PeerId,
    hash: ShareHash,
    parents: u64,
    asked_at: Instant,
    /// Set for an announced share, which is requested only from the peer that announced it.
    is_announced: bool,
}

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

/// Map that drops its oldest entries.
#[derive(Debug)]
struct Ends<T> {
    values: HashMap<ShareHash, T>,
    order: VecDeque<ShareHash>,
}

impl<T> Default for Ends<T> {
    fn default() -> Self {
        Self { values: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Ends<T> {
    fn insert(&mut self, hash: ShareHash, value: T) {
        if self.values.insert(hash, value).is_none() {
            self.order.push_back(hash);
        }
        while self.order.len() > ENDS_MAX {
            let oldest = self.order.pop_front();
            oldest.map(|oldest| self.values.remove(&oldest));
        }
    }

    fn get(&self, hash: &ShareHash) -> Option<&T> {
        self.values.get(hash)
    }
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

    /// Requests the one share that `peer` announced as its best.
    pub fn ask_announced(&mut self, peer: PeerId, hash: ShareHash, now: Instant) {
        if self.peers.contains_key(&peer) && !self.delivered.contains_key(&hash) {
            self.put(peer, hash, 0, Vec::new(), true, now);
        }
    }

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

    /// Records that the owner took `shares` of those passed to it.
    pub fn taken(&mut self, shares: usize, now: Instant) {
        self.untaken = self.untaken.saturating_sub(shares);
        self.ask(now);
    }

    /// Records that `peer` sent `shares` unsolicited, unverified shares. Returns false if it sent too many, and its
    /// shares are to be dropped.
    pub fn note_unasked(&mut self, peer: PeerId, shares: usize) -> bool {
        let Some(address) = self.peers.get(&peer).map(|peer| peer.address) else { return false };
        if self.has_sent_too_many(address) {
            return false;
        }
        self.charge(address, shares);
        true
    }

    /// Records that a share from `peer` was verified.
    pub fn note_verified(&mut self, peer: PeerId) {
        let host = self.peers.get(&peer).map(|peer| host_of(peer.address));
        if let Some(unverified) = host.and_then(|host| self.unverified.get_mut(&host)) {
            *unverified = unverified.saturating_sub(1);
        }
    }

    /// Halves the unverified shares of each host. Call it each hour.
    pub fn forgive(&mut self) {
        self.unverified.values_mut().for_each(|unverified| *unverified /= 2);
        self.unverified.retain(|_, unverified| *unverified > 0);
    }

    fn charge(&mut self, address: SocketAddr, shares: usize) {
        if self.unverified.len() >= HOSTS_MAX {
            self.forgive();
        }
        if self.unverified.len() < HOSTS_MAX {
            *self.unverified.entry(host_of(address)).or_default() += shares as u64;
        }
    }

    /// Rule 4.
    fn has_sent_too_many(&self, address: SocketAddr) -> bool {
        let unverified_max = u64::from(self.chain_length) * 3 + UNVERIFIED_EXTRA;
        self.unverified.get(&host_of(address)).is_some_and(|unverified| *unverified > unverified_max)
    }

    /// Returns the next request to send.
    pub fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
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

    /// Progress of the longest download; `None` while nothing is missing.
    pub fn progress(&self, now: Instant) -> Option<Progress> {
        let branch = self.searches.iter().map(|search| search.branch).max_by_key(|branch| branch.shares)?;
        let height = self.best.map_or(0, |(height, _)| height);
        let have = u32::try_from(branch.shares).unwrap_or(u32::MAX).max(height);
        let recent = self.came.iter().filter(|(at, _)| now.saturating_duration_since(*at) < RATE_TIME);
        let (count, since) =
            recent.fold((0_usize, now), |(count, since), (at, shares)| (count + shares, since.min(*at)));
        let seconds = now.saturating_duration_since(since).as_secs_f64().max(1.0);
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 shares")]
        let per_second = count as f64 / seconds;
        let claimed = if branch.top == 0 { u32::MAX } else { branch.top };
        let wanted_estimate = claimed.min(self.depth_max()).max(have);
        let seconds_left = (per_second > 0.0).then(|| f64::from(wanted_estimate - have) / per_second);
        Some(Progress { have, wanted_estimate, per_second, seconds_left })
    }

    /// True if ancestors are requested before the owner reports them missing: as long as too little is known to verify
    /// a whole chain. Later, gaps are short, and only the owner knows where they meet the known chain.
    fn asks_ahead(&self) -> bool {
        self.best.is_none_or(|(height, _)| height < 2 * self.chain_length && !self.wanted.is_empty())
    }

    fn depth_max(&self) -> u32 {
        2 * self.chain_length + 10
    }

    /// Rule 2: true if shares of this work are worth following.
    fn is_worth(&self, attempts: Attempts, shares: u64) -> bool {
        match self.best {
            Some((height, best)) if height >= self.chain_length => {
                attempts.0.saturating_mul(U320::from(WORK_FACTOR)) >= best.0.saturating_mul(U320::from(shares))
            }
            _ => true,
        }
    }

    /// Rules 2 and 3 for the chain that continues with `next`.
    fn is_branch_worth(&mut self, next: &ShareHash, branch: &Branch, now: Instant) -> bool {
        if self.given_up.get(next).is_some_and(|at| now < *at + GIVEN_UP_FOR) {
            return false;
        }
        let is_cheap = branch.shares >= JUDGED_SHARES && !self.is_worth(branch.attempts, branch.shares);
        let is_worth = !is_cheap && branch.shares < u64::from(self.depth_max());
        if !is_worth {
            self.given_up.insert(*next, now);
        }
        is_worth
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

    /// The answer exceeds a message, which is not a fault of the peer: fewer shares are requested, and none from a peer
    /// that cannot send even one of them.
    fn note_too_long(&mut self, peer: PeerId, question: &Question) {
        let Some(search) = self.searches.iter_mut().find(|search| search.hash == question.hash) else { return };
        search.parents = search.parents.min(question.parents / 2);
        if question.parents == 0 {
            search.lacking.insert(peer);
        }
    }

    fn note_failed(&mut self, peer: PeerId, question: &Question) {
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

    /// Sends all requests that are possible now.
    fn ask(&mut self, now: Instant) {
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
    fn hedge_at(&self, search: &Search) -> Option<Instant> {
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

    fn close(&mut self, request: RequestId) -> Option<Question> {
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

impl Search {
    fn new(
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

/// Key for counting unverified shares: a host, or one node of several on this machine or site.
fn host_of(address: SocketAddr) -> SocketAddr {
    if AddressScope::is_near(address.ip()) { address } else { SocketAddr::new(address.ip(), 0) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_shares::{USUAL, answer, chain, extend};
    use proptest::prelude::*;
    use sharechain::share::Bits;

    const CHAIN_LENGTH: u32 = 1000;
    const SECOND: Duration = Duration::from_secs(1);
    const FAILED: RequestFailed = RequestFailed::Refused(ReplyResult::Reserved(2));
    const TOO_LONG: RequestFailed = RequestFailed::Refused(ReplyResult::TooLong);

    fn download() -> Download {
        Download::new(CHAIN_LENGTH, fastrand::Rng::with_seed(5))
    }

    fn address(number: u64) -> SocketAddr {
        format!("9.{number}.0.1:9333").parse().unwrap()
    }

    fn add(download: &mut Download, number: u64, now: Instant) -> PeerId {
        download.add_peer(PeerId(number), address(number), now);
        PeerId(number)
    }

    fn wanted(hash: ShareHash, source: Option<SocketAddr>, bits: Bits) -> Wanted {
        Wanted { hash, source, timestamp: 0, target: bits.target() }
    }

    fn asks(download: &mut Download) -> Vec<Ask> {
        std::iter::from_fn(|| download.poll_ask()).collect()
    }

    fn give(download: &mut Download, ask: &Ask, shares: &[Arc<Share>], now: Instant) -> Outcome {
        let shares = answer(shares, ask.hash, ask.parents, &ask.stops);
        download.handle_reply(ask.peer, ask.request, Ok(shares), now)
    }

    #[test]
    fn a_chain_comes_from_one_peer_answer_by_answer_without_a_pause() {
        let mut download = download();
        let shares = chain(1801, 0, USUAL);
        let mut now = Instant::now();
        let peer = add(&mut download, 1, now);
        download.ask_announced(peer, shares[1800].hash(), now);
        let mut came: Vec<Arc<Share>> = Vec::new();
        let mut parents = Vec::new();
        while let Some(ask) = download.poll_ask() {
            now += SECOND / 10;
            parents.push(ask.parents);
            let Outcome::Shares(shares) = give(&mut download, &ask, &shares, now) else { panic!("shares") };
            download.taken(shares.len(), now);
            came.extend(shares);
            let progress = download.progress(now);
            assert!(progress.is_none_or(|progress| progress.wanted_estimate == 1801), "{progress:?}");
        }
        assert_eq!(parents, [0, 499, 499, 499, 499], "the owner said nothing all the time");
        assert!(came.iter().eq(shares.iter().rev()), "each share came once, newest first");
        assert_eq!(download.progress(now), None);
    }

    #[test]
    fn the_peer_that_told_of_a_chain_is_asked_first_and_the_stops_go_with_the_question() {
        let mut download = download();
        let shares = chain(3, 0, USUAL);
        let now = Instant::now();
        for number in 1..6 {
            add(&mut download, number, now);
        }
        let stops: Vec<ShareHash> = (0..120u8).map(|number| ShareHash([number; 32])).collect();
        download.set_needs(&[wanted(shares[2].hash(), Some(address(4)), USUAL)], &stops, now);
        let asks = asks(&mut download);
        assert_eq!(asks.len(), 1);
        assert_eq!((asks[0].peer, asks[0].parents, asks[0].stops.len()), (PeerId(4), 499, STOPS_MAX));
        assert_eq!(asks[0].stops[..], stops[..STOPS_MAX]);
    }

    #[test]
    fn several_chains_are_asked_for_at_several_peers_the_hardest_first() {
        let mut download = download();
        let now = Instant::now();
        let hashes = [ShareHash([1; 32]), ShareHash([2; 32]), ShareHash([3; 32])];
        let needs = [
            wanted(hashes[0], None, Bits(0x2030_0000)),
            wanted(hashes[1], None, Bits(0x2010_0000)),
            wanted(hashes[2], None, Bits(0x2020_0000)),
        ];
        download.set_needs(&needs, &[], now);
        add(&mut download, 1, now);
        assert_eq!(asks(&mut download)[0].hash, hashes[1]);
        add(&mut download, 2, now);
        assert_eq!(asks(&mut download)[0].hash, hashes[2]);
    }

    #[test]
    fn a_slow_peer_gets_company_and_its_late_answer_does_no_harm() {
        let mut download = download();
        let shares = chain(10, 0, USUAL);
        let mut now = Instant::now();
        let slow = add(&mut download, 1, now);
        download.set_needs(&[wanted(shares[9].hash(), Some(address(1)), USUAL)], &[], now);
        let first = asks(&mut download).remove(0);
        assert_eq!(first.peer, slow);
        add(&mut download, 2, now);
        assert!(asks(&mut download).is_empty(), "patience");
        now = download.poll_timeout().unwrap();
        download.handle_timeout(now);
        let second = asks(&mut download).remove(0);
        assert_eq!((second.peer, second.hash), (PeerId(2), first.hash));
        assert!(matches!(give(&mut download, &second, &shares, now), Outcome::Shares(shares) if shares.len() == 10));
        assert_eq!(give(&mut download, &first, &shares, now), Outcome::Nothing);
        assert_eq!(give(&mut download, &first, &shares, now), Outcome::Nothing, "nor does a second one");
    }

    #[test]
    fn a_lost_peers_question_goes_to_another() {
        let mut download = download();
        let now = Instant::now();
        add(&mut download, 1, now);
        download.set_needs(&[wanted(ShareHash([1; 32]), None, USUAL)], &[], now);
        assert_eq!(asks(&mut download)[0].peer, PeerId(1));
        add(&mut download, 2, now);
        download.remove_peer(PeerId(1), now);
        assert_eq!(asks(&mut download)[0].peer, PeerId(2));
    }

    #[test]
    fn what_nobody_has_is_asked_for_again_after_ever_longer_pauses() {
        let mut download = download();
        let mut now = Instant::now();
        add(&mut download, 1, now);
        add(&mut download, 2, now);
        download.set_needs(&[wanted(ShareHash([1; 32]), None, USUAL)], &[], now);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            for _ in 0..2 {
                let ask = asks(&mut download).remove(0);
                assert_eq!(give(&mut download, &ask, &[], now), Outcome::Nothing);
            }
            assert!(asks(&mut download).is_empty());
            let due = download.poll_timeout().unwrap();
            pauses.push((due - now).as_secs());
            now = due;
            download.handle_timeout(now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        add(&mut download, 3, now);
        assert!(asks(&mut download).iter().any(|ask| ask.peer == PeerId(3)) || download.poll_timeout().is_some());
    }

    #[test]
    fn an_answer_to_another_question_is_an_offence() {
        let shares = chain(9, 0, USUAL);
        let others = chain(9, 1, USUAL);
        let reversed: Vec<_> = shares.iter().rev().cloned().collect();
        let gap: Vec<_> = reversed.iter().take(1).chain(reversed.iter().skip(2)).cloned().collect();
        for wrong in [others.clone(), shares.clone(), reversed[1..].to_vec(), gap] {
            let mut download = download();
            let now = Instant::now();
            let peer = add(&mut download, 1, now);
            download.set_needs(&[wanted(shares[8].hash(), None, USUAL)], &[], now);
            let ask = asks(&mut download).remove(0);
            assert!(matches!(download.handle_reply(peer, ask.request, Ok(wrong), now), Outcome::NotAsked(_)));
        }
        let mut download = download();
        let now = Instant::now();
        let peer = add(&mut download, 1, now);
        download.ask_announced(peer, shares[8].hash(), now);
        let ask = asks(&mut download).remove(0);
        assert!(
            matches!(download.handle_reply(peer, ask.request, Ok(reversed), now), Outcome::NotAsked(_)),
            "too many"
        );
    }

    #[test]
    fn a_failed_answer_makes_the_next_question_smaller() {
        let mut download = download();
        let now = Instant::now();
        let peer = add(&mut download, 1, now);
        add(&mut download, 2, now);
        download.set_needs(&[wanted(ShareHash([1; 32]), Some(address(1)), USUAL)], &[], now);
        let ask = asks(&mut download).remove(0);
        assert_eq!(download.handle_reply(peer, ask.request, Err(FAILED), now), Outcome::Failed);
        let again = asks(&mut download).remove(0);
        assert_eq!((again.peer, again.parents), (PeerId(2), 249));
    }

    #[test]
    fn an_answer_that_would_be_too_long_is_asked_for_in_smaller_parts_of_the_same_peer_without_a_pause() {
        let mut download = download();
        let now = Instant::now();
        let peer = add(&mut download, 1, now);
        let shares = chain(9, 0, USUAL);
        download.set_needs(&[wanted(shares[8].hash(), None, USUAL)], &[], now);
        let mut parents = Vec::new();
        let last = loop {
            let ask = asks(&mut download).remove(0);
            parents.push(ask.parents);
            if ask.parents == 0 {
                break ask;
            }
            assert_eq!(download.handle_reply(peer, ask.request, Err(TOO_LONG), now), Outcome::Nothing);
        };
        assert_eq!(parents, [499, 249, 124, 62, 31, 15, 7, 3, 1, 0]);
        assert!(matches!(give(&mut download, &last, &shares, now), Outcome::Shares(shares) if shares.len() == 1));
        // If not even one share can be sent, other peers are asked.
        let hash = ShareHash([1; 32]);
        download.set_needs(&[wanted(hash, None, USUAL)], &[], now);
        for _ in 0..9 {
            let ask = asks(&mut download).remove(0);
            download.handle_reply(peer, ask.request, Err(TOO_LONG), now);
        }
        let ask = asks(&mut download).remove(0);
        add(&mut download, 2, now);
        assert_eq!(download.handle_reply(peer, ask.request, Err(TOO_LONG), now), Outcome::Nothing);
        assert_eq!(asks(&mut download)[0].peer, PeerId(2));
    }

    #[test]
    fn an_answer_that_comes_late_because_it_is_long_still_counts() {
        let mut download = download();
        let mut now = Instant::now();
        let peer = add(&mut download, 1, now);
        let shares = chain(1, 0, USUAL);
        download.set_needs(&[wanted(shares[0].hash(), None, USUAL)], &[], now);
        let first = asks(&mut download).remove(0);
        now += REPLY_MAX;
        download.handle_timeout(now);
        assert!(matches!(give(&mut download, &first, &shares, now), Outcome::Shares(shares) if shares.len() == 1));
        assert_eq!(give(&mut download, &first, &shares, now), Outcome::Nothing, "once");
        // Not from a peer that was not asked, nor after its connection ended.
        download.set_needs(&[wanted(ShareHash([1; 32]), None, USUAL)], &[], now);
        let first = asks(&mut download).remove(0);
        now += REPLY_MAX;
        download.handle_timeout(now);
        assert_eq!(download.handle_reply(PeerId(7), first.request, Ok(shares), now), Outcome::Nothing);
        download.remove_peer(peer, now);
        assert!(download.late.is_empty());
    }

    #[test]
    fn the_owner_is_not_flooded() {
        let mut download = download();
        let now = Instant::now();
        let shares = chain(5 * 500, 0, USUAL);
        let chains: Vec<_> = (1..20).map(|nonce| extend(&shares, 1, nonce, USUAL)).collect();
        let needs: Vec<_> = chains.iter().map(|chain| wanted(chain[0].hash(), None, USUAL)).collect();
        download.set_needs(&needs, &[], now);
        for number in 0..20 {
            add(&mut download, number, now);
        }
        let asked = asks(&mut download);
        assert_eq!(asked.len(), SHARES_IN_FLIGHT_MAX / 500, "and the rest waits");
        for ask in &asked {
            let chain = chains.iter().find(|chain| chain[0].hash() == ask.hash).unwrap();
            let whole: Vec<_> = shares.iter().chain(chain).cloned().collect();
            assert!(matches!(give(&mut download, ask, &whole, now), Outcome::Shares(_)));
        }
        assert!(asks(&mut download).is_empty(), "nothing was taken");
        download.taken(1000, now);
        assert_eq!(asks(&mut download).len(), 2);
    }

    #[test]
    fn a_chain_of_easy_shares_is_left_alone_once_there_is_one_to_compare_with() {
        let now = Instant::now();
        let easy = Bits(0x207f_0000);
        let mut cold = download();
        add(&mut cold, 1, now);
        cold.set_needs(&[wanted(ShareHash([1; 32]), None, easy)], &[], now);
        assert_eq!(asks(&mut cold).len(), 1, "nothing to compare with");
        let mut warm = download();
        add(&mut warm, 1, now);
        warm.set_best(Some((2 * CHAIN_LENGTH, Bits(0x1f01_0000).target().attempts())));
        warm.set_needs(&[wanted(ShareHash([1; 32]), None, easy)], &[], now);
        assert!(asks(&mut warm).is_empty());
        // One hard share above many easy ones gets a first answer, and no second.
        let shares = chain(600, 0, easy);
        warm.set_needs(&[wanted(shares[599].hash(), None, Bits(0x1f01_0000))], &[], now);
        let ask = asks(&mut warm).remove(0);
        assert!(matches!(give(&mut warm, &ask, &shares, now), Outcome::Shares(_)));
        let next = shares[99].hash();
        warm.set_needs(&[wanted(next, None, Bits(0x1f01_0000))], &[], now + SECOND);
        assert!(asks(&mut warm).is_empty());
    }

    #[test]
    fn a_host_that_sends_what_never_proves_good_is_asked_no_more_whatever_its_port() {
        let mut download = download();
        let now = Instant::now();
        let peer = add(&mut download, 1, now);
        let mut accepted = 0;
        while download.note_unasked(peer, 5) {
            accepted += 5;
        }
        assert!((4000..=4010).contains(&accepted), "{accepted}");
        download.remove_peer(peer, now);
        let again = PeerId(2);
        download.add_peer(again, SocketAddr::new(address(1).ip(), 77), now);
        assert!(!download.note_unasked(again, 1));
        download.set_needs(&[wanted(ShareHash([1; 32]), None, USUAL)], &[], now);
        assert!(asks(&mut download).is_empty());
        for _ in 0..6 {
            download.note_verified(again);
        }
        assert!(download.note_unasked(again, 1));
        download.forgive();
        assert!(download.note_unasked(again, 1000));
    }

    #[test]
    fn a_share_that_the_owner_lost_is_asked_for_again() {
        let mut download = download();
        let shares = chain(3, 0, USUAL);
        let now = Instant::now();
        add(&mut download, 1, now);
        let needs = [wanted(shares[2].hash(), None, USUAL)];
        download.set_needs(&needs, &[], now);
        let ask = asks(&mut download).remove(0);
        give(&mut download, &ask, &shares, now);
        download.set_needs(&needs, &[], now);
        assert!(asks(&mut download).is_empty(), "it may not have seen it yet");
        let due = download.poll_timeout().unwrap();
        assert_eq!(due, now + DELIVERED_FOR);
        download.handle_timeout(due);
        assert_eq!(asks(&mut download).len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Peers answer in any order, late, wrongly, not at all, or disconnect; one is honest, so the chain arrives.
        #[test]
        fn the_chain_comes_if_one_peer_has_it(seed in any::<u64>(), length in 1u32..1200) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut download = Download::new(600, random.fork());
            let shares = chain(length, 0, USUAL);
            let mut now = Instant::now();
            let mut owned: HashSet<ShareHash> = HashSet::new();
            for number in 0..4 {
                add(&mut download, number, now);
            }
            let mut open: Vec<Ask> = Vec::new();
            let mut steps = 0;
            while owned.len() < shares.len() {
                steps += 1;
                prop_assert!(steps < 3000, "{} of {length} came", owned.len());
                let missing = shares.iter().rev().find(|share| !owned.contains(&share.hash())).unwrap();
                download.set_needs(&[wanted(missing.hash(), None, USUAL)], &[], now);
                open.extend(asks(&mut download));
                let promised: u64 = open.iter().map(|ask| ask.parents + 1).sum();
                prop_assert!(promised <= SHARES_IN_FLIGHT_MAX as u64);
                if open.is_empty() || random.f64() < 0.3 {
                    let due = download.poll_timeout().unwrap_or(now).max(now);
                    now = due.min(now + SECOND);
                    download.handle_timeout(now);
                    continue;
                }
                let ask = open.swap_remove(random.usize(..open.len()));
                prop_assert!(download.peers.contains_key(&ask.peer));
                match (ask.peer, random.u8(..5)) {
                    (PeerId(0), _) | (_, 0) => {
                        if let Outcome::Shares(came) = give(&mut download, &ask, &shares, now) {
                            download.taken(came.len(), now);
                            owned.extend(came.iter().map(|share| share.hash()));
                        }
                    }
                    (_, 1) => drop(give(&mut download, &ask, &[], now)),
                    (_, 2) => {}
                    (peer, what) => {
                        let wrong = if what == 3 { Err(FAILED) } else { Ok(vec![shares[0].clone(), shares[0].clone()]) };
                        download.handle_reply(peer, ask.request, wrong, now);
                        download.remove_peer(peer, now);
                        open.retain(|ask| ask.peer != peer);
                        download.add_peer(peer, address(peer.0), now);
                    }
                }
            }
        }
    }
}
