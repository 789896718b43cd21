//! P2Pool's tracker: shares and `now` in, events out. No sockets, disk or clock.
//!
//! ```text
//!  add ──▶ all ──think: verify──▶ verified ──select──▶ best ──▶ Tip
//!                  │ refused, parent wanted               │ tip changed
//!                  └──────────────── poll_event ◀─────────┘
//! ```
//!
//! Two forests hold the same shares: all received, and those verified against their ancestors. Facts about the parent
//! chain are plain data, passed in ([`ParentFacts`]).

mod bounds;
mod early;
mod error;
mod forest;
mod loose;
mod merged_window;
mod minting;
mod next;
pub mod pool;
mod prune;
mod ratchet;
mod refused;
mod replay;
mod retarget;
mod score;
mod select;
mod serve;
mod stats;
mod tip;
mod verify;
mod view;
mod votes;
mod weights;
mod windows;

pub use early::{EARLY_NETWORKS_MIN, Early, EarlySources};
pub use error::{FUTURE_REASON, REFUSAL_LABELS, VerifyError};
pub use forest::{Forest, RemoveError, Tally, Work};
pub use merged_window::MergedWindowWeights;
pub use next::{NextAdditions, NextShare};
pub use ratchet::{Ratchet, RatchetDecision, RatchetInput, RatchetState};
pub use refused::{RefusedLately, RefusedSources, SPLIT_NETWORKS_MIN};
pub use replay::{Outputs, ReplayError, replay};
pub use retarget::{Pace, ParentFields, Requirements};
pub use score::{AdjustedWork, TailScore, ratio, true_division};
pub use select::{Choice, ScoredHead, Wanted};
pub use serve::Solution;
pub use stats::{Measure, OwnCounts, OwnShares, PayeeStales, StaleCounts, Statistics, payouts, stales_by_payee};
pub use tip::Tip;
pub use verify::is_early;
pub use view::{CoinbaseSize, KnownShare, KnownTransaction, ParentFacts, share_rules};
pub use votes::Votes;
pub use weights::{Counting, Entry, Fading, Query, Snapshot, Window, limit};

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use self::loose::{Loose, SourceNetwork};
use self::verify::Verified;
use self::view::View;
use self::windows::Windows;
use crate::coin::Network;
use crate::map::{Map, Set};
use crate::merged::FirstSeen;
use crate::merkle::Digest;
use crate::share::{Share, ShareHash, ShareRules, ShareVersion};

/// A late share of our own still enters the chain if its parent has fewer children than this (protocol section 9.6).
const LATE_SIBLINGS_MAX: usize = 4;

/// Event of the share chain.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A share fits its ancestors: it may be announced to peers and stored as verified.
    Verified(ShareHash),
    /// A verified share solves its block, by the target claimed in its header.
    Block(ShareHash),
    /// A share does not fit its ancestors: its sender is to be banned, unless the network has laxer nodes
    /// ([`Network::has_laxer_nodes`]).
    Refused {
        /// Hash of the share.
        hash: ShareHash,
        /// Peer that sent the share.
        source: Option<SocketAddr>,
        /// Reason for the refusal.
        error: VerifyError,
    },
    /// A share is too far ahead of our clock to be checked. It waits, and no peer is banned: our clock may be wrong.
    Early {
        /// Hash of the share.
        hash: ShareHash,
        /// Peer that sent the share.
        source: Option<SocketAddr>,
        /// Error with both times.
        error: VerifyError,
    },
    /// The parent below a chain is missing.
    ParentWanted(Wanted),
    /// The share to build on changed.
    TipChanged(Option<ShareHash>),
    /// New work must be made on the same share, to overtake a punished head.
    Reissue,
    /// Minimum protocol version of peers from now on.
    MinimumProtocol(u32),
    /// The ratchet is to be saved.
    Ratchet {
        /// As it is now.
        ratchet: Ratchet,
        /// State before, if it changed.
        changed_from: Option<RatchetState>,
    },
}

/// The share chain.
#[derive(Debug)]
pub struct Sharechain {
    network: &'static Network,
    rules: ShareRules,
    all: Forest,
    verified: Forest,
    known: Map<ShareHash, KnownShare>,
    loose: Loose,
    facts: ParentFacts,
    coinbase_sizes: HashMap<ShareVersion, CoinbaseSize>,
    windows: Windows,
    /// Merged addresses that shares of version 36 teach.
    first_seen: FirstSeen,
    choice: Choice,
    own: OwnShares,
    minimum_protocol: u32,
    /// Decides between two versions, on networks that have both.
    ratchet: Option<Ratchet>,
    ratchet_turned_at: Option<minting::BestAt>,
    wanted_heights: HashSet<Digest>,
    /// Shares too far ahead of our clock.
    early: Set<ShareHash>,
    /// Loaded as verified, not rechecked in this process yet.
    trusted: VecDeque<ShareHash>,
    events: VecDeque<Event>,
}

impl Sharechain {
    /// Creates an empty chain.
    pub fn new(network: &'static Network) -> Self {
        Self {
            network,
            rules: share_rules(network),
            all: Forest::default(),
            verified: Forest::default(),
            known: Map::default(),
            loose: Loose::default(),
            facts: ParentFacts::default(),
            coinbase_sizes: HashMap::new(),
            windows: Windows::default(),
            first_seen: FirstSeen::default(),
            choice: Choice::default(),
            own: OwnShares::default(),
            minimum_protocol: network.minimum_protocol_version,
            ratchet: votes::ratchet_of(network),
            ratchet_turned_at: None,
            wanted_heights: HashSet::new(),
            early: Set::default(),
            trusted: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Rules for parsing and checking shares of this network.
    pub fn rules(&self) -> &ShareRules {
        &self.rules
    }

    /// Adds a share sent by `source`; false if it was already present. Call [`think`](Self::think) afterwards.
    pub fn add(&mut self, share: Arc<Share>, source: Option<SocketAddr>, now: f64) -> bool {
        self.insert(KnownShare { share, first_seen: now, source, naughty: 0 })
    }

    /// Adds a batch of shares sent by `source`, in any order, and returns the number of new ones. Parents go first, so
    /// that a batch that joins a long chain from below costs that chain's length once. Call [`think`](Self::think)
    /// afterwards, then [`bound`](Self::bound) to limit memory.
    pub fn add_all(&mut self, shares: Vec<Arc<Share>>, source: Option<SocketAddr>, now: f64) -> usize {
        parents_first(shares).into_iter().filter(|share| self.add(Arc::clone(share), source, now)).count()
    }

    /// Adds a share of our own. A late one (`is_dead`) is only counted as made if its parent has enough children;
    /// returns false in that case, and for a share that was already present.
    pub fn add_own(&mut self, share: Arc<Share>, is_dead: bool, now: f64) -> bool {
        if self.all.contains(&share.hash()) {
            return false;
        }
        self.own.made(&share, is_dead);
        if is_dead && self.all.children(share.previous()).len() >= LATE_SIBLINGS_MAX {
            // It is only counted: the chain never reports on it.
            self.own.pruned(share.hash());
            return false;
        }
        self.add(share, None, now)
    }

    /// Adds a share from the store, before any other. It counts as seen before all later ones; one that was verified
    /// before counts as verified until [`recheck`](Self::recheck) reaches it.
    pub fn load(&mut self, share: Arc<Share>, was_verified: bool) -> bool {
        let hash = share.hash();
        if !self.insert(KnownShare { share, first_seen: 0.0, source: None, naughty: 0 }) {
            return false;
        }
        if was_verified {
            self.enter_verified(hash);
            self.trusted.push_back(hash);
        }
        true
    }

    /// Checks up to `count` shares that were loaded as verified; true while some are left. A share that fails is
    /// removed with all its descendants. Call [`think`](Self::think) afterwards.
    pub fn recheck(&mut self, count: usize, now: f64) -> bool {
        for _ in 0..count {
            let Some(hash) = self.trusted.pop_front() else { break };
            let (height, last) = self.all.height_and_last(hash);
            if !self.all.contains(&hash) || (last.is_some() && height <= self.network.chain_length) {
                // Pruned meanwhile, or too little is left below to check it.
                continue;
            }
            // Its time was checked on arrival, and our clock may have been set back since.
            let made = self.share(hash).map_or(now, |share| f64::from(share.timestamp()));
            if let Err(error) = self.check(hash, now.max(made)) {
                let mut doomed = vec![hash];
                let mut next = 0;
                while let Some(share) = doomed.get(next).copied() {
                    doomed.extend_from_slice(self.all.children(Some(share)));
                    next += 1;
                }
                for share in doomed.into_iter().rev() {
                    self.forget(share);
                }
                self.events.push_back(Event::Refused { hash, source: None, error });
            }
        }
        !self.trusted.is_empty()
    }

    /// Returns the next event, if any.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Facts about the parent chain; the caller keeps them up to date.
    pub fn facts_mut(&mut self) -> &mut ParentFacts {
        &mut self.facts
    }

    /// Returns the blocks that verified shares build on and whose height was missing since the last call; each once.
    pub fn wanted_heights(&mut self) -> Vec<Digest> {
        let heights = &self.facts.heights;
        self.wanted_heights.drain().filter(|block| !heights.contains_key(block)).collect()
    }

    /// Minimum protocol version of peers.
    pub fn minimum_protocol(&self) -> u32 {
        self.minimum_protocol
    }

    /// Result of the last choice.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// All shares.
    pub fn all(&self) -> &Forest {
        &self.all
    }

    /// Shares that fit their ancestors.
    pub fn verified(&self) -> &Forest {
        &self.verified
    }

    /// Returns a share with its arrival data.
    pub fn known(&self, hash: ShareHash) -> Option<&KnownShare> {
        self.known.get(&hash)
    }

    /// Returns a share by its hash.
    pub fn share(&self, hash: ShareHash) -> Option<&Arc<Share>> {
        self.known.get(&hash).map(|known| &known.share)
    }

    /// State of our own shares.
    pub fn own(&self) -> &OwnShares {
        &self.own
    }

    /// Network of this chain.
    pub fn network(&self) -> &'static Network {
        self.network
    }

    /// Statistics of the chain.
    pub fn statistics(&self) -> Statistics<'_> {
        Statistics { view: self.view() }
    }

    /// Snapshot of the best share as of the last choice, for creating work.
    pub fn tip(&mut self) -> Arc<Tip> {
        self.tip_at(self.choice.best)
    }

    /// Like [`tip`](Self::tip), for any share to build on; for an unknown share as on a fresh network.
    pub fn tip_at(&mut self, share: Option<ShareHash>) -> Arc<Tip> {
        let best = share.and_then(|share| self.share(share).cloned());
        let (stale_info, own) = (self.own.next_stale_info(), self.own.counts());
        let mut windows = std::mem::take(&mut self.windows);
        let punish = self.choice.punish_aggressively != 0;
        let tip = Tip::new(&self.view(), &mut windows, best, stale_info, own, punish);
        self.windows = windows;
        Arc::new(tip)
    }

    /// Computes what does not depend on the next share, so that no job waits for it once the share is here. Call it when
    /// the last [`tip`](Self::tip) is published.
    pub fn prepare(&mut self) {
        let Some(best) = self.choice.best.and_then(|best| self.share(best).cloned()) else { return };
        let mut windows = std::mem::take(&mut self.windows);
        windows.prepare(&self.view(), &best);
        self.windows = windows;
    }

    fn view(&self) -> View<'_> {
        View {
            network: self.network,
            rules: &self.rules,
            all: &self.all,
            known: &self.known,
            facts: &self.facts,
            coinbase_sizes: &self.coinbase_sizes,
            first_seen: &self.first_seen,
            ratchet: self.ratchet.as_ref(),
        }
    }

    fn insert(&mut self, known: KnownShare) -> bool {
        let (hash, previous) = (known.share.hash(), known.share.previous());
        let tally = minting::tally_of(&known);
        let work = Work { own: known.share.attempts(), min: known.share.min_attempts(), tally };
        if !self.all.insert(hash, previous, work) {
            return false;
        }
        if let Some(additions) = &known.share.info().additions {
            let script = known.share.payee().script(known.share.version()).unwrap_or_default();
            let entries = additions.merged_addresses.iter().map(|entry| (entry.chain_id, &*entry.script));
            self.first_seen.add(hash, script, entries);
        }
        // Below a share that belongs to the pool, all shares do.
        if self.all.children(Some(hash)).iter().any(|child| self.loose.get(child).is_none()) {
            self.note_joined(previous);
        } else {
            let network = known.source.map(|source| SourceNetwork::of(source.ip()));
            self.loose.insert(hash, known.share.memory_bytes(), network);
        }
        self.known.insert(hash, known);
        true
    }

    /// Marks shares as not loose: a share above them belongs to the pool.
    fn note_joined(&mut self, from: Option<ShareHash>) {
        let mut at = from;
        while let Some(share) = at.filter(|share| self.loose.remove(share)) {
            at = self.all.previous(share);
        }
    }

    /// Verifies a share if it is not verified yet; fails if its chain is too short or it does not fit.
    fn attempt(&mut self, hash: ShareHash, now: f64) -> Result<(), VerifyError> {
        if self.verified.contains(&hash) {
            return Ok(());
        }
        self.check(hash, now)?;
        self.mark_verified(hash);
        Ok(())
    }

    /// Checks a share against its ancestors, and stores the results of the check.
    fn check(&mut self, hash: ShareHash, now: f64) -> Result<(), VerifyError> {
        let missing = VerifyError::MissingAncestors(hash);
        let share = self.share(hash).cloned().ok_or_else(|| missing.clone())?;
        let (height, last) = self.all.height_and_last(hash);
        if height <= self.network.chain_length && last.is_some() {
            return Err(missing);
        }
        let mut windows = std::mem::take(&mut self.windows);
        let checked = verify::check(&self.view(), &mut windows, &share, now, self.minimum_protocol);
        self.windows = windows;
        let Verified { naughty, coinbase, minimum_protocol, merkle_branch } = checked?;
        if let Some(known) = self.known.get_mut(&hash) {
            known.naughty = naughty;
            if let Some(branch) = merkle_branch {
                // The reference refuses the received branch, so it must not be relayed.
                known.share = Arc::new(share.with_merkle_branch(branch));
            }
        }
        self.coinbase_sizes.insert(share.version(), coinbase);
        if let Some(version) = minimum_protocol {
            self.minimum_protocol = version;
            self.events.push_back(Event::MinimumProtocol(version));
        }
        Ok(())
    }

    fn mark_verified(&mut self, hash: ShareHash) {
        self.enter_verified(hash);
        self.events.push_back(Event::Verified(hash));
        if self.share(hash).is_some_and(|share| share.is_block()) {
            self.events.push_back(Event::Block(hash));
        }
    }

    fn enter_verified(&mut self, hash: ShareHash) {
        self.verified.insert(hash, self.all.previous(hash), self.all.work_of(hash));
        self.note_joined(Some(hash));
        // Known before another chain is compared with this one, as in the reference.
        let block = self.share(hash).and_then(|share| share.contents().min_header.previous_block);
        self.wanted_heights.extend(block.filter(|block| !self.facts.heights.contains_key(block)));
    }

    /// Removes a share from both forests, if it is at an end of its chain.
    fn forget(&mut self, hash: ShareHash) -> bool {
        if self.verified.contains(&hash) && self.verified.remove(hash).is_err() {
            return false;
        }
        if self.all.remove(hash).is_err() {
            return false;
        }
        self.known.remove(&hash);
        self.first_seen.remove(&hash);
        self.loose.remove(&hash);
        self.early.remove(&hash);
        self.own.pruned(hash);
        true
    }

    /// Reports the changes since `before`, and updates the counts of our own shares in the best chain.
    fn note_choice(&mut self, before: &Choice) {
        let (old, new) = (before.best, self.choice.best);
        if old == new {
            if before.punish_aggressively == 0 && self.choice.punish_aggressively != 0 {
                self.events.push_back(Event::Reissue);
            }
            return;
        }
        self.events.push_back(Event::TipChanged(new));
        let path = |from: Option<ShareHash>, to: ShareHash| -> Vec<ShareHash> {
            from.map(|from| self.all.chain(from, u32::MAX).take_while(|share| *share != to).collect())
                .unwrap_or_default()
        };
        match old.zip(new).and_then(|(old, new)| self.all.fork(old, new)) {
            Some(fork) => {
                let (left, entered) = (path(old, fork), path(new, fork));
                left.into_iter().for_each(|share| self.own.moved(share, false));
                entered.into_iter().for_each(|share| self.own.moved(share, true));
            }
            None => {
                for share in self.own.hashes() {
                    let in_chain = new.is_some_and(|new| self.all.is_ancestor(share, new) == Some(true));
                    self.own.moved(share, in_chain);
                }
            }
        }
    }
}

/// Sorts the shares: each after its parent if that is among them, otherwise in their original order.
pub fn parents_first(shares: Vec<Arc<Share>>) -> Vec<Arc<Share>> {
    let mut waiting: HashMap<ShareHash, Arc<Share>> =
        shares.iter().map(|share| (share.hash(), share.clone())).collect();
    let mut sorted = Vec::with_capacity(waiting.len());
    for share in shares {
        // From the share down to the first that is placed already or absent, then up again.
        let below = std::iter::successors(waiting.remove(&share.hash()), |above| waiting.remove(&above.previous()?));
        let run: Vec<Arc<Share>> = below.collect();
        sorted.extend(run.into_iter().rev());
    }
    sorted
}
