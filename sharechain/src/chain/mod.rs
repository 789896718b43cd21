//! P2Pool's tracker: shares and `now` in, events out. No sockets, no disk, no clock.
//!
//! ```text
//!  add ──▶ all ──think: verify──▶ verified ──select──▶ best ──▶ Tip
//!                  │ refused, parent wanted               │ tip changed
//!                  └──────────────── poll_event ◀─────────┘
//! ```
//!
//! Two forests hold the same shares: all that came, and those that were verified against their ancestors. What is known of
//! the parent chain is plain data, handed in ([`ParentFacts`]).

mod bounds;
mod early;
mod error;
mod forest;
mod loose;
mod next;
pub mod pool;
mod prune;
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

pub use early::{EARLY_NETWORKS_MIN, Early, EarlySources};
pub use error::{FUTURE_REASON, VerifyError};
pub use forest::{Forest, RemoveError, Work};
pub use next::NextShare;
pub use replay::{Outputs, ReplayError, replay};
pub use retarget::{Pace, Requirements};
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
use crate::coin::Network;
use crate::map::{Map, Set};
use crate::merkle::Digest;
use crate::share::{Share, ShareHash, ShareRules, ShareVersion};

/// A late share of our own still enters the chain if its parent has fewer children than this (protocol section 9.6).
const LATE_SIBLINGS_MAX: usize = 4;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A share fits its ancestors: it may be told to peers and written down as verified.
    Verified(ShareHash),
    /// A verified share solves its block, by the target that its header claims.
    Block(ShareHash),
    /// A share does not fit its ancestors: whoever sent it is to be banned.
    Refused {
        /// The share.
        hash: ShareHash,
        /// Who sent it.
        source: Option<SocketAddr>,
        /// Why.
        error: VerifyError,
    },
    /// A share is too far ahead of our clock to be judged. It waits, and nobody is to blame: the wrong clock may be ours.
    Early {
        /// The share.
        hash: ShareHash,
        /// Who sent it.
        source: Option<SocketAddr>,
        /// By how much, in words.
        error: VerifyError,
    },
    /// A chain lacks a share below.
    ParentWanted(Wanted),
    /// There is another share to build on.
    TipChanged(Option<ShareHash>),
    /// Work is to be made anew on the same share, to overtake a punished head.
    Reissue,
    /// Peers must speak this protocol version from now on.
    MinimumProtocol(u32),
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
    window: Window,
    choice: Choice,
    own: OwnShares,
    minimum_protocol: u32,
    wanted_heights: HashSet<Digest>,
    /// Shares that are too far ahead of our clock.
    early: Set<ShareHash>,
    /// Loaded as verified and not yet checked in this process.
    trusted: VecDeque<ShareHash>,
    events: VecDeque<Event>,
}

impl Sharechain {
    /// An empty chain.
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
            window: Window::default(),
            choice: Choice::default(),
            own: OwnShares::default(),
            minimum_protocol: network.minimum_protocol_version,
            wanted_heights: HashSet::new(),
            early: Set::default(),
            trusted: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// What its shares are read and checked by.
    pub fn rules(&self) -> &ShareRules {
        &self.rules
    }

    /// Adds a share that `source` sent; false if it was here already. Think afterwards.
    pub fn add(&mut self, share: Arc<Share>, source: Option<SocketAddr>, now: f64) -> bool {
        self.insert(KnownShare { share, first_seen: now, source, naughty: 0 })
    }

    /// Adds shares that `source` sent at once, in whatever order they came, and says how many were not here yet. Parents
    /// go first, so that a batch that joins a long chain from below costs that chain's length once. Think afterwards, and
    /// then [`bound`](Self::bound) what strangers may fill.
    pub fn add_all(&mut self, shares: Vec<Arc<Share>>, source: Option<SocketAddr>, now: f64) -> usize {
        parents_first(shares).into_iter().filter(|share| self.add(Arc::clone(share), source, now)).count()
    }

    /// Adds a share of our own. A late one (`is_dead`) only counts as made where its parent has enough children; false
    /// then, and for one that was here already.
    pub fn add_own(&mut self, share: Arc<Share>, is_dead: bool, now: f64) -> bool {
        if self.all.contains(&share.hash()) {
            return false;
        }
        self.own.made(&share, is_dead);
        if is_dead && self.all.children(share.previous()).len() >= LATE_SIBLINGS_MAX {
            // It is counted; nothing more will ever be heard of it.
            self.own.pruned(share.hash());
            return false;
        }
        self.add(share, None, now)
    }

    /// Adds a share from the store, before any other. It counts as seen before all that come later; one that was verified
    /// before counts as verified until [`recheck`](Self::recheck) gets to it.
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

    /// Checks up to `count` shares that were loaded as verified; true while some are left. One that fails is removed with
    /// all that builds on it. Think afterwards.
    pub fn recheck(&mut self, count: usize, now: f64) -> bool {
        for _ in 0..count {
            let Some(hash) = self.trusted.pop_front() else { break };
            let (height, last) = self.all.height_and_last(hash);
            if !self.all.contains(&hash) || (last.is_some() && height <= self.network.chain_length) {
                // Pruned meanwhile, or too little is left below to judge it by.
                continue;
            }
            // Its time was judged when it came, and our clock may have been set back since.
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

    /// What happened and was not yet told.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The parent chain's facts, to be kept up to date.
    pub fn facts_mut(&mut self) -> &mut ParentFacts {
        &mut self.facts
    }

    /// Blocks that verified shares build on and whose height was missing when it was looked for; each is told once each
    /// time.
    pub fn wanted_heights(&mut self) -> Vec<Digest> {
        let heights = &self.facts.heights;
        self.wanted_heights.drain().filter(|block| !heights.contains_key(block)).collect()
    }

    /// What peers must speak at least.
    pub fn minimum_protocol(&self) -> u32 {
        self.minimum_protocol
    }

    /// The last choice.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// All shares.
    pub fn all(&self) -> &Forest {
        &self.all
    }

    /// Those that fit their ancestors.
    pub fn verified(&self) -> &Forest {
        &self.verified
    }

    /// A share and how it came.
    pub fn known(&self, hash: ShareHash) -> Option<&KnownShare> {
        self.known.get(&hash)
    }

    /// A share.
    pub fn share(&self, hash: ShareHash) -> Option<&Arc<Share>> {
        self.known.get(&hash).map(|known| &known.share)
    }

    /// What became of our own shares.
    pub fn own(&self) -> &OwnShares {
        &self.own
    }

    /// The network that it is of.
    pub fn network(&self) -> &'static Network {
        self.network
    }

    /// Numbers about the chain.
    pub fn statistics(&self) -> Statistics<'_> {
        Statistics { view: self.view() }
    }

    /// The best share as of the last choice, for whoever makes work.
    pub fn tip(&mut self) -> Arc<Tip> {
        self.tip_at(self.choice.best)
    }

    /// The same for any share to build on; for none, as on a fresh network, if it is not here.
    pub fn tip_at(&mut self, share: Option<ShareHash>) -> Arc<Tip> {
        let best = share.and_then(|share| self.share(share).cloned());
        let (stale_info, own) = (self.own.next_stale_info(), self.own.counts());
        let mut window = std::mem::take(&mut self.window);
        let punish = self.choice.punish_aggressively != 0;
        let tip = Tip::new(&self.view(), &mut window, best, stale_info, own, punish);
        self.window = window;
        Arc::new(tip)
    }

    fn view(&self) -> View<'_> {
        View {
            network: self.network,
            rules: &self.rules,
            all: &self.all,
            known: &self.known,
            facts: &self.facts,
            coinbase_sizes: &self.coinbase_sizes,
        }
    }

    fn insert(&mut self, known: KnownShare) -> bool {
        let (hash, previous) = (known.share.hash(), known.share.previous());
        let work = Work { own: known.share.attempts(), min: known.share.min_attempts() };
        if !self.all.insert(hash, previous, work) {
            return false;
        }
        // Below a share that belongs to the pool all do.
        if self.all.children(Some(hash)).iter().any(|child| self.loose.get(child).is_none()) {
            self.note_joined(previous);
        } else {
            let network = known.source.map(|source| SourceNetwork::of(source.ip()));
            self.loose.insert(hash, known.share.memory_bytes(), network);
        }
        self.known.insert(hash, known);
        true
    }

    /// A share above these belongs to the pool, so none of them is loose.
    fn note_joined(&mut self, from: Option<ShareHash>) {
        let mut at = from;
        while let Some(share) = at.filter(|share| self.loose.remove(share)) {
            at = self.all.previous(share);
        }
    }

    /// Verifies a share unless it is; true if its chain is long enough to tell and it fits.
    fn attempt(&mut self, hash: ShareHash, now: f64) -> Result<(), VerifyError> {
        if self.verified.contains(&hash) {
            return Ok(());
        }
        self.check(hash, now)?;
        self.mark_verified(hash);
        Ok(())
    }

    /// Checks a share against its ancestors, and remembers what the check found out about it.
    fn check(&mut self, hash: ShareHash, now: f64) -> Result<(), VerifyError> {
        let missing = VerifyError::MissingAncestors(hash);
        let share = self.share(hash).cloned().ok_or_else(|| missing.clone())?;
        let (height, last) = self.all.height_and_last(hash);
        if height <= self.network.chain_length && last.is_some() {
            return Err(missing);
        }
        let mut window = std::mem::take(&mut self.window);
        let checked = verify::check(&self.view(), &mut window, &share, now, self.minimum_protocol);
        self.window = window;
        let Verified { naughty, coinbase, minimum_protocol, merkle_branch } = checked?;
        if let Some(known) = self.known.get_mut(&hash) {
            known.naughty = naughty;
            if let Some(branch) = merkle_branch {
                // The reference refuses what came instead, so it must not be passed on.
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
        // KnownShare before another chain comes to be compared with, as in the reference.
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
        self.loose.remove(&hash);
        self.early.remove(&hash);
        self.own.pruned(hash);
        true
    }

    /// Tells what changed since `before`, and keeps count of our own shares in the best chain.
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

/// The same shares, each after its parent if that is among them, else in the order in which they were.
pub fn parents_first(shares: Vec<Arc<Share>>) -> Vec<Arc<Share>> {
    let mut waiting: HashMap<ShareHash, Arc<Share>> =
        shares.iter().map(|share| (share.hash(), share.clone())).collect();
    let mut sorted = Vec::with_capacity(waiting.len());
    for share in shares {
        // From the share down to what is placed already or not here, then up again.
        let below = std::iter::successors(waiting.remove(&share.hash()), |above| waiting.remove(&above.previous()?));
        let run: Vec<Arc<Share>> = below.collect();
        sorted.extend(run.into_iter().rev());
    }
    sorted
}
