//! Which missing share to ask of whom: sans-IO, driven by [`Swarm`](super::swarm::Swarm).
//!
//! The owner of the share chain says which parents are missing. Only what is below a known hash can be asked for, so one
//! chain comes through one question after another, and three things make that fast: the answer's oldest share names the
//! next question, which is asked at once, before anything is checked; a peer that is slow gets company by a faster one;
//! and several chains are asked for at several peers at a time.
//!
//! # What a chain must have paid
//!
//! Every share proves the work of its own target before it comes here, but targets may be easy, so a stranger could make
//! a long chain for little. It is followed only as far as these rules say:
//!
//! 1. The owner wants no parent of a chain whose newest share is an hour older than the best one (protocol section 8.2).
//! 2. Once there is a whole chain to compare with, a chain whose work per share is below a sixteenth of the best
//!    share's is left alone: judged by the hardest of its latest five shares before it is followed at all, and by the mean
//!    of what came after [`JUDGED_SHARES`]. Chains are compared by work in time and all aim for the same pace, so it
//!    could not win.
//! 3. No chain is followed below the depth that the owner keeps, twice its length.
//! 4. No peer is asked for more while more than three chain lengths of what it sent were not verified. That falls with
//!    each share that is verified, and by half each hour.
//! 5. What was asked for and what the owner did not take yet is [`SHARES_IN_FLIGHT_MAX`] shares in all.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ruint::aliases::U320;
use serde::Serialize;

use super::peer::RequestId;
use super::swarm::PeerId;
use crate::share::{Attempts, Share, ShareHash};
use crate::sharechain::Wanted;

/// Parents asked for at a time. Peers give a thousand at most; the reference draws 0 to 499.
pub const PARENTS_MAX: u64 = 499;
/// Shares that end an answer, sent with a question (protocol section 3.7).
pub const STOPS_MAX: usize = 100;
/// Shares asked for or not taken by the owner yet: about 5 to 15 MB, ten whole answers.
pub const SHARES_IN_FLIGHT_MAX: usize = 5010;
/// Shares of a chain that came before it is judged by their mean work.
pub const JUDGED_SHARES: u64 = 50;
/// A chain is left alone if its work per share is below the best's by this factor.
const WORK_FACTOR: u32 = 16;
/// Missing parents sought at a time.
const SEARCHES_MAX: usize = 64;
/// Peers asked for one share at a time.
const ASKED_MAX: usize = 3;
/// A peer that takes longer than this, and than three times its mean, gets company.
const HEDGE_MIN: Duration = Duration::from_secs(2);
const HEDGE_MAX: Duration = Duration::from_secs(8);
/// A question without an answer is over: the connection gives up before that (protocol section 3.4: 15 s).
const REPLY_MAX: Duration = Duration::from_secs(20);
/// Pause when nobody has a share; doubled each time.
const NOBODY_PAUSE: Duration = Duration::from_secs(1);
const NOBODY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A share that came is not asked for again so soon: the owner may not have seen it yet.
const DELIVERED_FOR: Duration = Duration::from_secs(30);
/// How long a chain that did not pay is left alone.
const GIVEN_UP_FOR: Duration = Duration::from_secs(3600);
/// Chains that are remembered as not having paid, and chains whose end is remembered.
const ENDS_MAX: usize = 1024;
/// The rate is that of so much time.
const RATE_TIME: Duration = Duration::from_secs(10);

/// A question that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// To whom.
    pub peer: PeerId,
    /// Names it.
    pub request: RequestId,
    /// The share that is wanted.
    pub hash: ShareHash,
    /// How many of its ancestors too.
    pub parents: u64,
    /// Where the answer ends.
    pub stops: Vec<ShareHash>,
}

/// What an answer is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Shares for the owner, newest first; [`Download::taken`] when it has them.
    Shares(Vec<Arc<Share>>),
    /// Nothing came of it, and nobody is to blame.
    Nothing,
    /// The peer failed to answer, in a way that it need not.
    Failed,
    /// The answer is not one to the question.
    NotAsked(String),
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Progress {
    /// Shares that we have of the chain.
    pub have: u32,
    /// How many there probably are: as many as the chain has, and no more than are kept.
    pub wanted_estimate: u32,
    /// Shares a second, lately.
    pub per_second: f64,
    /// Seconds until all are here at that rate; none while nothing comes.
    pub seconds_left: Option<f64>,
}

/// A chain that is being followed down.
#[derive(Debug, Clone, Copy, Default)]
struct Branch {
    /// Shares that came.
    shares: u64,
    /// Their work.
    attempts: Attempts,
    /// Height of the newest of them, as it claims.
    top: u32,
}

#[derive(Debug)]
struct Search {
    hash: ShareHash,
    /// Whom to ask first.
    preferred: Option<PeerId>,
    /// Who told of the chain.
    source: Option<SocketAddr>,
    parents: u64,
    asked: Vec<RequestId>,
    lacking: HashSet<PeerId>,
    pause: Duration,
    not_before: Option<Instant>,
    branch: Branch,
    /// Asked for before the owner said that it is missing.
    is_ahead: bool,
}

#[derive(Debug)]
struct Question {
    peer: PeerId,
    hash: ShareHash,
    parents: u64,
    asked_at: Instant,
    /// Of the share that a peer announced, which it alone is asked for.
    is_announced: bool,
}

#[derive(Debug)]
struct Peer {
    address: SocketAddr,
    outstanding: usize,
    /// Mean seconds of its answers, the latest counting a third.
    mean_seconds: Option<f64>,
    /// The quickest answer.
    latency: Option<Duration>,
    /// Shares that it sent and that were not verified.
    unverified: u64,
}

/// Fetches missing shares.
#[derive(Debug)]
pub struct Download {
    chain_length: u32,
    random: fastrand::Rng,
    peers: BTreeMap<PeerId, Peer>,
    searches: Vec<Search>,
    questions: HashMap<RequestId, Question>,
    next_request: u64,
    stops: Vec<ShareHash>,
    /// Height of the best share and its work, once there is one.
    best: Option<(u32, Attempts)>,
    /// Shares handed over and not taken.
    untaken: usize,
    delivered: HashMap<ShareHash, Instant>,
    delivered_order: VecDeque<(Instant, ShareHash)>,
    /// The branch that ends above a missing share.
    ends: Ends<Branch>,
    given_up: Ends<Instant>,
    came: VecDeque<(Instant, usize)>,
    asks: VecDeque<Ask>,
}

/// A map that forgets the oldest.
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
    /// For a chain of this length. Draws come from `random`.
    pub fn new(chain_length: u32, random: fastrand::Rng) -> Self {
        Self {
            chain_length,
            random,
            peers: BTreeMap::new(),
            searches: Vec::new(),
            questions: HashMap::new(),
            next_request: 0,
            stops: Vec::new(),
            best: None,
            untaken: 0,
            delivered: HashMap::new(),
            delivered_order: VecDeque::new(),
            ends: Ends::default(),
            given_up: Ends::default(),
            came: VecDeque::new(),
            asks: VecDeque::new(),
        }
    }

    /// There is one more to ask.
    pub fn add_peer(&mut self, peer: PeerId, address: SocketAddr, now: Instant) {
        let state = Peer { address, outstanding: 0, mean_seconds: None, latency: None, unverified: 0 };
        self.peers.insert(peer, state);
        for search in &mut self.searches {
            // It may have what nobody else has.
            search.not_before = None;
        }
        self.ask(now);
    }

    /// It is gone, with all that it was asked.
    pub fn remove_peer(&mut self, peer: PeerId, now: Instant) {
        self.peers.remove(&peer);
        self.asks.retain(|ask| ask.peer != peer);
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

    /// What the owner of the chain misses, and where answers may end.
    pub fn set_needs(&mut self, wanted: &[Wanted], stops: &[ShareHash], now: Instant) {
        self.stops = stops.iter().copied().take(STOPS_MAX).collect();
        let wanted_hashes: HashSet<ShareHash> = wanted.iter().map(|wanted| wanted.hash).collect();
        let is_cold = self.is_cold();
        self.searches.retain(|search| wanted_hashes.contains(&search.hash) || (search.is_ahead && is_cold));
        for wanted in wanted {
            if let Some(search) = self.searches.iter_mut().find(|search| search.hash == wanted.hash) {
                search.is_ahead = false;
                search.source = search.source.or(wanted.source);
                continue;
            }
            let branch = self.ends.get(&wanted.hash).copied().unwrap_or_default();
            let is_worth =
                self.is_worth(wanted.target.attempts(), 1) && self.is_branch_worth(&wanted.hash, &branch, now);
            let is_on_its_way = self.delivered.get(&wanted.hash).is_some_and(|at| now < *at + DELIVERED_FOR);
            if self.searches.len() < SEARCHES_MAX && is_worth && !is_on_its_way {
                self.searches.push(Search::new(wanted.hash, None, wanted.source, branch, false));
            }
        }
        self.ask(now);
    }

    /// The best share's height, and its work; none while there is no best share.
    pub fn set_best(&mut self, best: Option<(u32, Attempts)>) {
        self.best = best;
    }

    /// Asks `peer` for the one share that it announced as its best.
    pub fn ask_announced(&mut self, peer: PeerId, hash: ShareHash, now: Instant) {
        if self.peers.contains_key(&peer) && !self.delivered.contains_key(&hash) {
            self.put(peer, hash, 0, Vec::new(), true, now);
        }
    }

    /// `peer` answered `request`, or failed to.
    pub fn handle_reply(
        &mut self,
        peer: PeerId,
        request: RequestId,
        shares: Result<Vec<Arc<Share>>, ()>,
        now: Instant,
    ) -> Outcome {
        if self.questions.get(&request).is_none_or(|question| question.peer != peer) {
            return Outcome::Nothing;
        }
        let Some(question) = self.close(request) else { return Outcome::Nothing };
        let outcome = match shares {
            Err(()) => {
                self.note_failed(peer, &question);
                Outcome::Failed
            }
            Ok(shares) => {
                self.note_time(peer, now.saturating_duration_since(question.asked_at));
                match contradiction(&question, &shares) {
                    Some(contradiction) => Outcome::NotAsked(contradiction),
                    None if shares.is_empty() => {
                        self.note_lacking(peer, question.hash, now);
                        Outcome::Nothing
                    }
                    None => self.note_shares(&question, shares, now),
                }
            }
        };
        self.ask(now);
        outcome
    }

    /// The owner took `shares` of those handed over.
    pub fn taken(&mut self, shares: usize, now: Instant) {
        self.untaken = self.untaken.saturating_sub(shares);
        self.ask(now);
    }

    /// `peer` sent `shares` that it was not asked for: they are worth no more than others until they are verified. False
    /// if it sent too many of those, and these are better not looked at.
    pub fn note_unasked(&mut self, peer: PeerId, shares: usize) -> bool {
        let unverified_max = self.unverified_max();
        let Some(peer) = self.peers.get_mut(&peer) else { return false };
        if peer.unverified > unverified_max {
            return false;
        }
        peer.unverified += shares as u64;
        true
    }

    /// A share that `peer` sent was verified.
    pub fn note_verified(&mut self, peer: PeerId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.unverified = peer.unverified.saturating_sub(1);
        }
    }

    /// Forgives each peer half of what was not verified. Call it each hour.
    pub fn forgive(&mut self) {
        for peer in self.peers.values_mut() {
            peer.unverified /= 2;
        }
    }

    /// A question to send.
    pub fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let hedges = self.searches.iter().filter_map(|search| self.hedge_at(search));
        let pauses = self.searches.iter().filter_map(|search| search.not_before);
        let lost = self.questions.values().map(|question| question.asked_at + REPLY_MAX);
        hedges.chain(pauses).chain(lost).min()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_lost = |question: &Question| now >= question.asked_at + REPLY_MAX;
        let lost: Vec<RequestId> =
            self.questions.iter().filter(|(_, question)| is_lost(question)).map(|(id, _)| *id).collect();
        for request in lost {
            if let Some(question) = self.close(request) {
                self.note_failed(question.peer, &question);
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
        self.ask(now);
    }

    /// How long `peer` takes to answer at best.
    pub fn latency(&self, peer: PeerId) -> Option<Duration> {
        self.peers.get(&peer)?.latency
    }

    /// How far the longest download is; none while nothing is sought.
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

    /// Whether there is no whole chain yet, so that everything is worth fetching, and nothing can be compared.
    fn is_cold(&self) -> bool {
        self.best.is_none_or(|(height, _)| height < self.chain_length)
    }

    fn depth_max(&self) -> u32 {
        2 * self.chain_length + 10
    }

    fn unverified_max(&self) -> u64 {
        u64::from(3 * self.chain_length)
    }

    /// Rule 2: whether shares of this work are worth following.
    fn is_worth(&self, attempts: Attempts, shares: u64) -> bool {
        match self.best {
            Some((height, best)) if height >= self.chain_length => {
                attempts.0.saturating_mul(U320::from(WORK_FACTOR)) >= best.0.saturating_mul(U320::from(shares))
            }
            _ => true,
        }
    }

    /// Rules 2 and 3 for the chain that goes on with `next`.
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
        let mut branch = match search {
            Some(at) => self.searches.remove(at).branch,
            None if question.is_announced => Branch::default(),
            // Another peer was faster, or nobody wants it any more.
            None => return Outcome::Nothing,
        };
        if branch.shares == 0 {
            branch.top = question_top(&shares);
        }
        for share in &shares {
            branch.shares += 1;
            branch.attempts = branch.attempts + share.attempts();
            self.delivered.insert(share.hash(), now);
            self.delivered_order.push_back((now, share.hash()));
        }
        self.untaken += shares.len();
        if let Some(peer) = self.peers.get_mut(&question.peer) {
            peer.unverified += shares.len() as u64;
        }
        self.came.push_back((now, shares.len()));
        while self.came.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= RATE_TIME) {
            self.came.pop_front();
        }
        if let Some(next) = oldest.previous() {
            self.ends.insert(next, branch);
            // A full answer goes on below; a short one ended where we, or the peer, know nothing more to ask.
            let is_full = shares.len() as u64 == question.parents + 1;
            let is_new = !self.delivered.contains_key(&next)
                && !self.stops.contains(&next)
                && self.searches.iter().all(|search| search.hash != next);
            if is_full && is_new && self.is_cold() && self.is_branch_worth(&next, &branch, now) {
                self.searches.push(Search::new(next, Some(question.peer), None, branch, true));
            }
        }
        Outcome::Shares(shares)
    }

    fn note_lacking(&mut self, peer: PeerId, hash: ShareHash, now: Instant) {
        let Some(at) = self.searches.iter().position(|search| search.hash == hash) else { return };
        let search = &mut self.searches[at];
        search.lacking.insert(peer);
        if self.peers.keys().all(|peer| search.lacking.contains(peer)) {
            if search.is_ahead {
                // The owner will say if it is missing indeed.
                self.searches.remove(at);
                return;
            }
            search.not_before = Some(now + search.pause);
            search.pause = (search.pause * 2).min(NOBODY_PAUSE_MAX);
        }
    }

    fn note_failed(&mut self, peer: PeerId, question: &Question) {
        if let Some(search) = self.searches.iter_mut().find(|search| search.hash == question.hash) {
            // The answer may have been too large for the peer, or too slow.
            search.parents = question.parents / 2;
            search.preferred = search.preferred.filter(|preferred| *preferred != peer);
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.mean_seconds = Some(REPLY_MAX.as_secs_f64());
        }
    }

    fn note_time(&mut self, peer: PeerId, took: Duration) {
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        let seconds = took.as_secs_f64();
        peer.mean_seconds = Some(peer.mean_seconds.map_or(seconds, |mean| mean + (seconds - mean) / 3.0));
        peer.latency = Some(peer.latency.map_or(took, |latency| latency.min(took)));
    }

    /// Asks for all that can be asked for now.
    fn ask(&mut self, now: Instant) {
        for at in 0..self.searches.len() {
            let search = &self.searches[at];
            let is_due = match self.hedge_at(search) {
                None => search.not_before.is_none_or(|not_before| not_before <= now),
                Some(hedge_at) => hedge_at <= now && search.asked.len() < ASKED_MAX,
            };
            if !is_due || !self.has_room(search.parents) {
                continue;
            }
            let Some(peer) = self.choose(at) else { continue };
            let search = &self.searches[at];
            let (hash, parents) = (search.hash, search.parents);
            let request = self.put(peer, hash, parents, self.stops.clone(), false, now);
            self.searches[at].asked.push(request);
        }
    }

    /// When a search that was asked for is to be asked for elsewhere too.
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

    /// Whom to ask: who sent the share above, then who told of the chain, then the fastest that has nothing to do.
    fn choose(&mut self, at: usize) -> Option<PeerId> {
        let search = &self.searches[at];
        let unverified_max = self.unverified_max();
        let asked: HashSet<PeerId> = search
            .asked
            .iter()
            .filter_map(|request| self.questions.get(request))
            .map(|question| question.peer)
            .collect();
        let mut best: Option<((bool, bool, f64), PeerId)> = None;
        for (id, peer) in &self.peers {
            let is_free = peer.outstanding == 0 && peer.unverified <= unverified_max;
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
            is_ahead,
        }
    }
}

fn question_top(shares: &[Arc<Share>]) -> u32 {
    shares.first().map_or(0, |share| share.absheight())
}

/// Why `shares` is no answer to `question`: it must begin with the share that was asked for, and each must be the parent
/// of the one before.
fn contradiction(question: &Question, shares: &[Arc<Share>]) -> Option<String> {
    if shares.len() as u64 > question.parents + 1 {
        return Some(format!("sent {} shares when asked for {}", shares.len(), question.parents + 1));
    }
    let mut due = Some(question.hash);
    for share in shares {
        if Some(share.hash()) != due {
            return Some(format!("sent share {}, which it was not asked for", share.hash()));
        }
        due = share.previous();
    }
    None
}
