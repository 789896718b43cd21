//! The owner's loop: input in order of urgency, and what is published after each choice. It never waits for the disk:
//! shares that do not fit into the store's queue are remembered by hash and queued later.

use metrics::{counter, gauge, histogram};
use sharechain::chain::{Early, EarlySources, Event, Sharechain, Tip, VerifyError};
use sharechain::coin::Network;
use sharechain::share::{ShareHash, StaleInfo};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::listed::known_transactions;
use super::{
    ChainEvent, EVENTS_KEPT_MAX, Handle, Needs, OpenedStore, OwnShare, OwnShares, ParentFeed, QUERIES_QUEUED_MAX,
    Query, RECEIVED_QUEUED_MAX, Received, SHARES_QUEUED_MAX, SOLVED_QUEUED_MAX, SolvedShare, StartError, StoreSlot,
};
use crate::chain::at_risk::AtRisk;
use crate::chain::store::{NewShare, Store, StoreWriter};
use crate::runtime::clock::unix_now;
use crate::runtime::disk::DiskHealth;

/// Maximum number of own shares taken between two choices, so that a burst costs one choice.
const BATCH_MAX: usize = 64;

/// Maximum interval between choices: time alone may change the outcome (protocol section 8.2).
const THINK_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum duration of checks in one go; then other input gets its turn.
const SLICE: Duration = Duration::from_millis(4);

/// Queries answered after each slice while slices follow one another.
const ANSWERS_BETWEEN: usize = 4;

/// Time to wait for the last shares when the node stops.
const LAST_SHARES: Duration = Duration::from_millis(200);

/// Minimum time for which a wrong clock stays reported in the log.
const EARLY_REPORTED_MIN: Duration = Duration::from_secs(60);

/// Maximum loss at a power failure.
const SYNC_INTERVAL: Duration = Duration::from_secs(10);

/// Number of shares loaded as verified that are checked again in one go, and the pause after it.
const RECHECK_SHARES: usize = 20;
const RECHECK_PAUSE: Duration = Duration::from_millis(20);

/// Time to wait for the store when the node stops: together with [`LAST_SHARES`] less than the node's grace period, so
/// that unwritten shares are still logged.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// Shares sent to peers with a new tip (protocol section 3.7).
const RELAYED_MAX: u32 = 5;

/// Maximum age of a solved share: an older one is downloaded history, its block in the parent chain or lost for good.
const SOLVED_AGE_MAX: f64 = 3600.0;

/// Maximum time a solved share waits for the height of its previous block, and maximum number that wait.
const SOLVED_WAIT_MAX: Duration = Duration::from_secs(60);
const SOLVED_WAITING_MAX: usize = 256;

/// A loaded chain that is not running yet.
#[derive(Debug)]
pub struct Owner {
    chain: Sharechain,
    /// `None` while another process owns the store.
    store: Option<StoreWriter>,
    /// Passes own shares to the store before they come here; empty without a store.
    slot: Arc<StoreSlot>,
    at_risk: Arc<AtRisk>,
    disk: DiskHealth,
    /// Shares in the store, or in its queue.
    saved: HashSet<ShareHash>,
    /// Shares to store when the store's queue has room, parents first: as a queue, and as a set.
    unsaved: VecDeque<ShareHash>,
    unsaved_set: HashSet<ShareHash>,
    tips: watch::Sender<Option<Arc<Tip>>>,
    events: broadcast::Sender<ChainEvent>,
    own: mpsc::Receiver<OwnShare>,
    received: mpsc::Receiver<Received>,
    queries: mpsc::Receiver<Query>,
    opened: mpsc::Receiver<OpenedStore>,
    needs: watch::Sender<Arc<Needs>>,
    early_sources: EarlySources,
    early: watch::Sender<Early>,
    /// Time of the last report that our clock is wrong, while it is.
    early_reported: Option<Instant>,
    minimum_protocol: watch::Sender<u32>,
    solved: mpsc::Sender<SolvedShare>,
    solved_taker: Option<mpsc::Receiver<SolvedShare>>,
    parent: ParentFeed,
    own_hashes: HashSet<ShareHash>,
    announced: Option<(Option<ShareHash>, StaleInfo)>,
    /// Shares sent to peers, or which they have had as long as we do.
    relayed: HashSet<ShareHash>,
    relayed_tip: Option<ShareHash>,
    /// Solved shares whose block heights are not known yet.
    solved_waiting: VecDeque<(ShareHash, Instant)>,
    /// Set when everything that can be verified is.
    is_whole: bool,
}

impl Owner {
    pub(super) fn new(
        network: &'static Network,
        mut chain: Sharechain,
        store: Option<Store>,
        parent: ParentFeed,
        disk: DiskHealth,
    ) -> Result<(Handle, Owner), StartError> {
        let (slot, at_risk) = (Arc::<StoreSlot>::default(), Arc::<AtRisk>::default());
        let start = |mut store: Store| {
            let missing = missing_in(&chain, &|hash| store.contains(hash));
            store.append_all(&missing)?;
            StoreWriter::start(store, SYNC_INTERVAL, disk.clone(), at_risk.clone()).map_err(StartError::Thread)
        };
        let store = store.map(start).transpose()?;
        let mut saved = HashSet::new();
        if let Some(writer) = &store {
            saved.extend(chain.all().iter());
            slot.fill(writer.queue());
        }
        let relayed: HashSet<ShareHash> = chain.all().iter().collect();
        let is_whole = chain.think_while(unix_now(), &mut slice());
        chain.settle_minimum_protocol();

        let (tips_sender, tips) = watch::channel(None);
        let (own_sender, own) = mpsc::channel(SHARES_QUEUED_MAX);
        let (received_sender, received) = mpsc::channel(RECEIVED_QUEUED_MAX);
        let (queries_sender, queries) = mpsc::channel(QUERIES_QUEUED_MAX);
        let (opened_sender, opened) = mpsc::channel(1);
        let (events, _) = broadcast::channel(EVENTS_KEPT_MAX);
        let (needs_sender, needs) = watch::channel(Arc::new(Needs::default()));
        let (early_sender, early) = watch::channel(Early::default());
        let (minimum_sender, minimum_protocol) = watch::channel(chain.minimum_protocol());
        let (solved, solved_taker) = mpsc::channel(SOLVED_QUEUED_MAX);
        let mut owner = Owner {
            relayed_tip: chain.choice().best,
            chain,
            store,
            slot: slot.clone(),
            at_risk: at_risk.clone(),
            disk,
            saved,
            unsaved: VecDeque::new(),
            unsaved_set: HashSet::new(),
            tips: tips_sender,
            events: events.clone(),
            own,
            received,
            queries,
            opened,
            needs: needs_sender,
            early_sources: EarlySources::default(),
            early: early_sender,
            early_reported: None,
            minimum_protocol: minimum_sender,
            solved,
            solved_taker: Some(solved_taker),
            parent,
            own_hashes: HashSet::new(),
            announced: None,
            relayed,
            solved_waiting: VecDeque::new(),
            is_whole,
        };
        owner.publish();
        let handle = Handle {
            tips,
            own: OwnShares { shares: own_sender, slot, at_risk: at_risk.clone() },
            at_risk,
            received: received_sender,
            queries: queries_sender,
            needs,
            early,
            minimum_protocol,
            events,
            opened: opened_sender,
            network,
        };
        Ok((handle, owner))
    }

    /// Returns the queue of solved shares to make blocks of; once, before the owner runs. Nothing is dropped: the owner
    /// waits while it is full.
    pub fn take_solved(&mut self) -> Option<mpsc::Receiver<SolvedShare>> {
        self.solved_taker.take()
    }

    /// Runs until `stop`, then closes the store.
    pub async fn run(mut self, stop: CancellationToken) {
        // Without a consumer of solved shares, do not wait for one.
        self.solved_taker = None;
        let mut thinking = tokio::time::interval(THINK_INTERVAL);
        thinking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rechecking = tokio::time::interval(RECHECK_PAUSE);
        rechecking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trusted_left = true;
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                // Own shares come before everything else.
                count = self.own.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        break;
                    }
                    for share in batch.drain(..) {
                        self.add_own(share);
                    }
                    self.think().await;
                }
                () = stop.cancelled() => break,
                changed = self.parent.known.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.take_heights();
                    self.think().await;
                }
                Some(opened) = self.opened.recv() => {
                    self.attach(opened);
                    self.think().await;
                }
                _ = thinking.tick() => {
                    self.think().await;
                    self.tidy();
                }
                Some(received) = self.received.recv() => {
                    if self.take(received) {
                        self.think().await;
                    }
                    self.answer_some();
                }
                // Let other tasks run, and then, unless something more urgent came, do the next slice.
                () = tokio::task::yield_now(), if !self.is_whole => {
                    self.think().await;
                    self.answer_some();
                }
                () = room(self.store.as_ref()), if !self.unsaved.is_empty() => self.store_unsaved(),
                Some(query) = self.queries.recv() => self.answer(query),
                Ok(()) = self.parent.templates.changed() => if self.take_transactions() {
                    self.think().await;
                },
                _ = rechecking.tick(), if trusted_left => {
                    trusted_left = tokio::task::block_in_place(|| self.chain.recheck(RECHECK_SHARES, unix_now()));
                    if !trusted_left {
                        debug!("all stored shares were checked again");
                        self.think().await;
                    }
                }
            }
        }
        // Shares found while the node stops are kept as well.
        while let Ok(Some(share)) = timeout(LAST_SHARES, self.own.recv()).await {
            self.add_own(share);
        }
        self.save_worthy();
        self.stop_store().await;
    }

    /// Lets the store write the rest, as far as time allows.
    async fn stop_store(&mut self) {
        let until = Instant::now() + LAST_WRITES;
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

    fn add_own(&mut self, own: OwnShare) {
        let OwnShare { share, is_queued } = own;
        let hash = share.hash();
        let is_late = share.previous() != self.chain.choice().best;
        let kind = if is_late { "late" } else { "in_time" };
        counter!("sharechain_own_shares_total", "kind" => kind).increment(1);
        self.own_hashes.insert(hash);
        if is_late {
            let _ = self.events.send(ChainEvent::Late(share.clone()));
        }
        let is_new = self.chain.add_own(share, is_late, unix_now());
        if is_queued && self.chain.all().contains(&hash) {
            self.saved.insert(hash);
        } else if is_new {
            self.save(&[hash]);
        } else {
            // The chain has enough late ones.
            self.at_risk.forget(hash);
            if let Some(store) = self.store.as_ref().filter(|_| is_queued) {
                store.forget(vec![hash]);
            }
        }
    }

    /// Adds peers' shares; returns true if any was new.
    fn take(&mut self, received: Received) -> bool {
        let Received { shares, source } = received;
        let now = unix_now();
        if self.early_sources.note(shares.iter().map(|share| &**share), source.ip(), now) {
            // The share itself may be known already, and then nothing is chosen.
            self.publish_early();
        }
        let new = tokio::task::block_in_place(|| self.chain.add_all(shares, Some(source), now));
        counter!("sharechain_received_shares_total").increment(new as u64);
        new > 0
    }

    fn answer_some(&mut self) {
        for _ in 0..ANSWERS_BETWEEN {
            match self.queries.try_recv() {
                Ok(query) => self.answer(query),
                Err(_) => return,
            }
        }
    }

    fn answer(&self, query: Query) {
        match query {
            Query::Ancestry { hashes, parents, stops, reply } => {
                let _ = reply.send(self.chain.ancestry(&hashes, parents, &stops));
            }
            Query::Knows { hash, reply } => {
                let _ = reply.send(self.chain.all().contains(&hash));
            }
            Query::Look(look) => {
                let started = Instant::now();
                tokio::task::block_in_place(|| look.at(&self.chain));
                histogram!("sharechain_look_seconds").record(started.elapsed());
            }
        }
    }

    /// Chooses, publishes the outcome, and then the tip if anything about it changed. Events that others wait for go
    /// first.
    async fn think(&mut self) {
        let started = Instant::now();
        let (chain, mut slice) = (&mut self.chain, slice());
        self.is_whole = tokio::task::block_in_place(|| chain.think_while(unix_now(), &mut slice));
        histogram!("sharechain_think_seconds").record(started.elapsed());
        self.publish();
        self.relay();
        let removed = self.chain.bound();
        self.publish_needs();
        self.publish_early();
        self.forget(removed);
        self.note_events().await;
        self.send_solved();
        for block in self.chain.wanted_heights() {
            // If the queue is full, the next choice asks again.
            let _ = self.parent.wanted.try_send(block);
        }
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 shares")]
        {
            gauge!("sharechain_shares").set(self.chain.all().len() as f64);
            gauge!("sharechain_verified_shares").set(self.chain.verified().len() as f64);
        }
    }

    /// Forgets shares that are no longer needed, and saves those that proved worth it.
    fn tidy(&mut self) {
        let forgotten = self.chain.prune(unix_now());
        self.forget(forgotten);
        self.save_worthy();
        if let Some(store) = &self.store {
            store.check();
        }
    }

    fn forget(&mut self, mut hashes: Vec<ShareHash>) {
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

    async fn note_events(&mut self) {
        let mut verified = Vec::new();
        let mut checked = 0;
        while let Some(event) = self.chain.poll_event() {
            checked += u64::from(matches!(event, Event::Verified(_) | Event::Refused { .. }));
            match event {
                Event::Verified(hash) => {
                    verified.push(hash);
                    self.accepted(hash);
                }
                Event::Refused { hash, source, error } => self.refused(hash, source, &error),
                Event::Early { hash, source, error } => {
                    counter!("sharechain_early_shares_total").increment(1);
                    debug!(share = %hash, ?source, %error, "share waits for its time");
                }
                Event::Block(hash) => self.solved(hash).await,
                Event::TipChanged(best) => debug!(best = ?best, "tip changed"),
                Event::MinimumProtocol(version) => {
                    info!(version, "peers must speak this protocol version from now on");
                    self.minimum_protocol.send_replace(version);
                }
                Event::ParentWanted(_) | Event::Reissue => {}
            }
        }
        counter!("sharechain_checked_shares_total").increment(checked);
        let (again, new): (Vec<_>, Vec<_>) = verified.into_iter().partition(|hash| self.saved.contains(hash));
        self.save(&new);
        if let Some(store) = self.store.as_ref().filter(|_| !again.is_empty()) {
            store.append_verified(again);
        }
        // Also when more urgent input never pauses.
        self.store_unsaved();
    }

    fn accepted(&self, hash: ShareHash) {
        let Some(share) = self.chain.share(hash) else { return };
        let is_own = self.own_hashes.contains(&hash);
        if is_own {
            info!(height = share.absheight(), share = %hash, payee = %share.payee(), "share found");
        }
        let _ = self.events.send(ChainEvent::Accepted { share: share.clone(), is_own });
    }

    fn refused(&mut self, hash: ShareHash, source: Option<std::net::SocketAddr>, error: &VerifyError) {
        counter!("sharechain_refused_shares_total").increment(1);
        if self.own_hashes.contains(&hash) {
            error!(share = %hash, %error, "a share of our own does not fit its ancestors");
        } else {
            warn!(share = %hash, ?source, %error, "share refused");
        }
        let reason: Arc<str> = error.to_string().into();
        let _ = self.events.send(ChainEvent::Refused { hash, source, reason });
        if !self.chain.all().contains(&hash) {
            self.forget(vec![hash]);
        }
    }

    /// Passes on a verified share that solves its block by its header; the consumer decides what it is worth.
    async fn solved(&mut self, hash: ShareHash) {
        let Some(known) = self.chain.known(hash).cloned() else { return };
        debug!(share = %hash, "a share of the chain is a block");
        if f64::from(known.share.timestamp()) < unix_now() - SOLVED_AGE_MAX {
            return;
        }
        if self.solved_waiting.len() == SOLVED_WAITING_MAX {
            self.solved_waiting.pop_front();
        }
        self.solved_waiting.push_back((hash, Instant::now()));
        match self.chain.solution_of(hash) {
            Some(Ok(solution)) => {
                let is_own = self.own_hashes.contains(&hash);
                let solved = SolvedShare {
                    share: known.share,
                    coinbase: solution.coinbase,
                    transactions: solution.transactions,
                    source: known.source,
                    is_own,
                };
                // A missing consumer is no mistake.
                let _ = self.solved.send(solved).await;
            }
            Some(Err(error)) => error!(share = %hash, %error, "the coinbase of a verified share cannot be made again"),
            None => {}
        }
    }

    /// Announces solved shares once it is known that their blocks may count.
    fn send_solved(&mut self) {
        let (chain, events) = (&self.chain, &self.events);
        self.solved_waiting.retain(|(hash, since)| {
            let Some(known) = chain.known(*hash) else { return false };
            let is_sent = chain.may_be_block(*hash);
            if is_sent {
                let _ = events.send(ChainEvent::Block { share: known.share.clone(), source: known.source });
            }
            !is_sent && since.elapsed() < SOLVED_WAIT_MAX
        });
    }

    fn publish(&mut self) {
        let stale_info = self.chain.own().next_stale_info();
        let state = (self.chain.choice().best, stale_info);
        if self.announced == Some(state) {
            return;
        }
        self.announced = Some(state);
        let tip = self.chain.tip();
        gauge!("sharechain_height").set(f64::from(tip.height()));
        gauge!("sharechain_pool_hash_rate").set(tip.rate().unwrap_or_default());
        if let Some(best) = tip.best() {
            gauge!("sharechain_tip_timestamp_seconds").set(f64::from(best.timestamp()));
        }
        self.tips.send_replace(Some(tip));
    }

    /// Announces a new tip, with the shares below it not announced yet, for peers.
    fn relay(&mut self) {
        let best = self.chain.choice().best;
        if self.relayed_tip == best {
            return;
        }
        self.relayed_tip = best;
        let Some(best) = best else { return };
        let hashes: Vec<ShareHash> =
            self.chain.all().chain(best, RELAYED_MAX).take_while(|hash| !self.relayed.contains(hash)).collect();
        self.relayed.extend(&hashes);
        let known: Vec<_> = hashes.iter().filter_map(|hash| self.chain.known(*hash)).collect();
        let _ = self.events.send(ChainEvent::TipChanged {
            newest_first: known.iter().map(|known| known.share.clone()).collect(),
            sources: known.iter().map(|known| known.source).collect(),
        });
    }

    fn publish_needs(&self) {
        let needs = Needs { wanted: self.chain.choice().wanted.clone(), stops: self.chain.stops() };
        self.needs.send_if_modified(|told| {
            let changed = **told != needs;
            if changed {
                *told = Arc::new(needs);
            }
            changed
        });
    }

    /// Publishes the lead of peers' shares over our clock, and logs when it starts and ceases to prove our clock wrong.
    fn publish_early(&mut self) {
        let early = self.early_sources.at(unix_now());
        self.early.send_replace(early);
        gauge!("sharechain_early_networks").set(f64::from(u32::try_from(early.networks).unwrap_or(u32::MAX)));
        match (self.early_reported, early.behind()) {
            (None, Some(seconds)) => {
                self.early_reported = Some(Instant::now());
                warn!(
                    seconds,
                    networks = early.networks,
                    "our clock is wrong: peers' shares are ahead of it and cannot be used; set it (timedatectl set-ntp true)"
                );
            }
            // Not sooner: a peer that sends such shares could fill the log.
            (Some(since), None) if early.networks == 0 && since.elapsed() >= EARLY_REPORTED_MIN => {
                self.early_reported = None;
                info!("peers' shares are not ahead of our clock any more");
            }
            _ => {}
        }
    }

    /// Takes the transactions of the recent templates if the next share lists its own; returns whether any are known now.
    fn take_transactions(&mut self) -> bool {
        let templates = self.parent.templates.borrow_and_update().clone();
        let lists = self.tips.borrow().as_ref().is_some_and(|tip| tip.version().lists_transactions());
        let known = if lists { known_transactions(&templates) } else { HashMap::new() };
        let facts = self.chain.facts_mut();
        facts.transactions = known;
        !facts.transactions.is_empty()
    }

    fn take_heights(&mut self) {
        let known = self.parent.known.borrow_and_update().clone();
        let facts = self.chain.facts_mut();
        facts.best_height = known.values().copied().max().unwrap_or_default().max(facts.best_height);
        facts.heights = (*known).clone();
    }

    /// Saves the best chain, and the one with the most work, which may be under download: strangers cannot fill the
    /// disk with anything else unverified.
    fn save_worthy(&mut self) {
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
    fn save(&mut self, hashes: &[ShareHash]) {
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
    fn store_unsaved(&mut self) {
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
    fn attach(&mut self, opened: OpenedStore) {
        if self.store.is_some() {
            error!("share store attached already");
            return;
        }
        let OpenedStore { store, shares, verified } = opened;
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

/// Predicate that turns false after a slice of time.
fn slice() -> impl FnMut() -> bool {
    let end = Instant::now() + SLICE;
    move || Instant::now() < end
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
fn missing_in(chain: &Sharechain, is_stored: &dyn Fn(ShareHash) -> bool) -> Vec<NewShare> {
    let missing = chain.all().iter().filter(|hash| !is_stored(*hash));
    let shares = missing.filter_map(|hash| chain.share(hash).cloned()).collect();
    sharechain::chain::parents_first(shares).iter().filter_map(|share| stored(chain, share.hash())).collect()
}

/// Waits for room in the store's queue.
async fn room(store: Option<&StoreWriter>) {
    match store {
        Some(store) => store.room().await,
        None => std::future::pending().await,
    }
}

/// Current time in whole seconds.
pub(super) fn now_seconds() -> u32 {
    whole_seconds(unix_now())
}

fn whole_seconds(now: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time since 1970, saturating")]
    let seconds = now as u32;
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::TemplateSender;
    use sharechain::share::Share;
    use sharechain::testkit::{Plan, grow, network};
    use std::path::Path;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Several times the capacity of the store's queue in a test, and fewer than are pruned.
    const SHARES: u32 = 225;

    /// An owner whose disk hangs until the sender is dropped.
    fn hanging(dir: &Path, network: &'static Network) -> (Handle, Owner, std::sync::mpsc::Sender<()>) {
        let mut store = Store::open(dir).unwrap().0;
        let release = store.hang();
        let (wanted, _) = mpsc::channel(1000);
        let (_, known) = watch::channel(Arc::new(HashMap::new()));
        let parent = ParentFeed { wanted, known, templates: TemplateSender::default().recent() };
        let chain = Sharechain::new(network);
        let (handle, owner) = Owner::new(network, chain, Some(store), parent, DiskHealth::new()).unwrap();
        (handle, owner, release)
    }

    /// A chain whose newest share is a minute old, oldest first.
    fn chain_of(network: &'static Network, count: u32) -> (Sharechain, Vec<Arc<Share>>) {
        let mut chain = Sharechain::new(network);
        let timestamp = now_seconds() - 60 - 10 * count;
        let hashes = grow(&mut chain, None, count, &Plan { timestamp, ..Plan::default() });
        let shares = hashes.iter().map(|hash| chain.share(*hash).unwrap().clone()).collect();
        (chain, shares)
    }

    async fn tip_is(handle: &mut Handle, best: ShareHash) {
        let is_best = |tip: &Option<Arc<Tip>>| tip.as_ref().and_then(|tip| tip.best_hash()) == Some(best);
        timeout(PATIENCE, handle.tips.wait_for(is_best)).await.expect("the chain goes on").unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_that_hangs_delays_neither_the_chain_nor_its_end() {
        let network = network(110, 35);
        let (mut theirs, shares) = chain_of(network, SHARES);
        let own = grow(&mut theirs, shares.last().map(|share| share.hash()), 2, &Plan::default());
        let own: Vec<Arc<Share>> = own.iter().map(|hash| theirs.share(*hash).unwrap().clone()).collect();
        let dir = tempfile::tempdir().unwrap();
        let (mut handle, mut owner, release) = hanging(dir.path(), network);
        let stop = CancellationToken::new();
        let _solved = owner.take_solved();
        let (_heights, known) = watch::channel(Arc::default());
        owner.parent.known = known;
        let running = tokio::spawn(owner.run(stop.clone()));
        for some in shares.chunks(10) {
            let received = Received { shares: some.to_vec(), source: ([10, 0, 0, 1], 9333).into() };
            handle.received.send(received).await.unwrap();
        }
        tip_is(&mut handle, shares.last().unwrap().hash()).await;
        for share in &own {
            handle.own.send(share.clone(), Instant::now()).await.unwrap();
            tip_is(&mut handle, share.hash()).await;
        }
        assert!(handle.at_risk.contains(own[0].hash()));
        assert!(Store::read_only(dir.path()).unwrap().shares.len() < 2);

        // The disk works again: all are stored.
        drop(release);
        let stored = async {
            while Store::read_only(dir.path()).unwrap().shares.len() < SHARES as usize + 2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, stored).await.expect("all are stored");
        assert!(!handle.at_risk.contains(own[0].hash()));
        stop.cancel();
        drop(handle);
        timeout(PATIENCE, running).await.expect("it ends").unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_end_does_not_wait_for_a_store_that_hangs() {
        let network = network(110, 35);
        let (_, shares) = chain_of(network, SHARES);
        let dir = tempfile::tempdir().unwrap();
        let (mut handle, mut owner, _release) = hanging(dir.path(), network);
        let stop = CancellationToken::new();
        let _solved = owner.take_solved();
        let (_heights, known) = watch::channel(Arc::default());
        owner.parent.known = known;
        let running = tokio::spawn(owner.run(stop.clone()));
        let received = Received { shares: shares.clone(), source: ([10, 0, 0, 1], 9333).into() };
        handle.received.send(received).await.unwrap();
        tip_is(&mut handle, shares.last().unwrap().hash()).await;
        stop.cancel();
        timeout(PATIENCE, running).await.expect("it ends").unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_waits_for_a_store_that_hangs_is_bounded_by_the_chain() {
        let network = network(110, 35);
        let (theirs, shares) = chain_of(network, SHARES);
        let dir = tempfile::tempdir().unwrap();
        let (_handle, mut owner, _release) = hanging(dir.path(), network);
        owner.chain = theirs;
        let hashes: Vec<ShareHash> = shares.iter().map(|share| share.hash()).collect();
        owner.save(&hashes.iter().rev().copied().collect::<Vec<_>>());
        owner.save(&hashes);
        let (queued, left) = (owner.saved.len(), owner.unsaved.len());
        assert!(queued > 0 && left > 0 && queued + left == hashes.len(), "{queued} {left}");
        assert!(hashes[..queued].iter().all(|hash| owner.saved.contains(hash)), "parents go first");
        assert!(owner.unsaved.iter().eq(&hashes[queued..]), "parents wait first");
        // Shares that the chain forgets no longer wait, and never reach the store.
        owner.forget(hashes[queued + 1..].to_vec());
        assert_eq!((owner.saved.len(), owner.unsaved.len(), owner.unsaved_set.len()), (queued, 1, 1));
        owner.forget(hashes.clone());
        assert_eq!((owner.saved.len(), owner.unsaved.len(), owner.unsaved_set.len()), (0, 0, 0));
    }
}
