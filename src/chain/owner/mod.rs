//! The owner's loop: input in order of urgency, and what is published after each choice. It never waits for the disk:
//! shares that do not fit into the store's queue are remembered by hash and queued later.

mod outcome;
mod saving;
#[cfg(test)]
mod tests;

use metrics::{counter, gauge, histogram};
use sharechain::chain::{Early, EarlySources, RatchetState, RefusedLately, RefusedSources, Sharechain, Tip};
use sharechain::share::{ShareHash, ShareVersion, StaleInfo};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::listed::known_transactions;
use super::{
    ChainEvent, Config, EVENTS_KEPT_MAX, Handle, Needs, OpenedStore, OwnShare, OwnShares, ParentFeed,
    QUERIES_QUEUED_MAX, Query, RECEIVED_QUEUED_MAX, Received, SHARES_QUEUED_MAX, SOLVED_QUEUED_MAX, SolvedShare,
    StartError, StoreSlot,
};
use crate::chain::at_risk::AtRisk;
use crate::chain::ratchet_file::RatchetFile;
use crate::chain::store::{Store, StoreWriter};
use crate::runtime::clock::unix_now;
use crate::runtime::disk::DiskHealth;
use saving::{SYNC_INTERVAL, missing_in, room};

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

/// Number of shares loaded as verified that are checked again in one go, and the pause after it.
const RECHECK_SHARES: usize = 20;
const RECHECK_PAUSE: Duration = Duration::from_millis(20);

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
    ratchet_file: RatchetFile,
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
    refused_sources: RefusedSources,
    refused: watch::Sender<RefusedLately>,
    /// Time of the last report that our clock is wrong, while it is.
    early_reported: Option<Instant>,
    minimum_protocol: watch::Sender<u32>,
    solved: mpsc::Sender<SolvedShare>,
    solved_taker: Option<mpsc::Receiver<SolvedShare>>,
    parent: ParentFeed,
    own_hashes: HashSet<ShareHash>,
    announced: Option<(Option<ShareHash>, StaleInfo, Option<RatchetState>)>,
    /// Version of the next share as last logged.
    next_version: Option<ShareVersion>,
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
        mut chain: Sharechain,
        store: Option<Store>,
        parent: ParentFeed,
        config: &Config,
    ) -> Result<(Handle, Owner), StartError> {
        let (network, disk) = (config.network, config.disk.clone());
        let ratchet_file = RatchetFile::new(&config.data_dir, disk.clone(), store.is_some());
        let (slot, at_risk) = (Arc::<StoreSlot>::default(), Arc::<AtRisk>::default());
        let store = store.map(|store| start_store(&chain, store, &disk, &at_risk)).transpose()?;
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
        let (solved, solved_taker) = mpsc::channel(SOLVED_QUEUED_MAX);
        let mut owner = Owner {
            relayed_tip: chain.choice().best,
            minimum_protocol: watch::Sender::new(chain.minimum_protocol()),
            chain,
            store,
            slot: slot.clone(),
            at_risk: at_risk.clone(),
            disk,
            ratchet_file,
            saved,
            unsaved: VecDeque::new(),
            unsaved_set: HashSet::new(),
            tips: tips_sender,
            events: events.clone(),
            own,
            received,
            queries,
            opened,
            needs: watch::Sender::new(Arc::default()),
            early_sources: EarlySources::default(),
            early: watch::Sender::new(Early::default()),
            refused_sources: RefusedSources::default(),
            refused: watch::Sender::new(RefusedLately::default()),
            early_reported: None,
            solved,
            solved_taker: Some(solved_taker),
            parent,
            own_hashes: HashSet::new(),
            announced: None,
            next_version: None,
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
            needs: owner.needs.subscribe(),
            early: owner.early.subscribe(),
            refused: owner.refused.subscribe(),
            minimum_protocol: owner.minimum_protocol.subscribe(),
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
                    self.attach(opened).await;
                    self.think().await;
                }
                _ = thinking.tick() => {
                    self.think().await;
                    self.tidy().await;
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
        self.publish_refused();
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
    async fn tidy(&mut self) {
        let forgotten = self.chain.prune(unix_now());
        self.forget(forgotten);
        self.save_worthy();
        self.ratchet_file.go_on().await;
        if let Some(store) = &self.store {
            store.check();
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
}

/// Writes the shares of `chain` that the store lacks, and starts the store's thread.
fn start_store(
    chain: &Sharechain,
    mut store: Store,
    disk: &DiskHealth,
    at_risk: &Arc<AtRisk>,
) -> Result<StoreWriter, StartError> {
    let missing = missing_in(chain, &|hash| store.contains(hash));
    store.append_all(&missing)?;
    StoreWriter::start(store, SYNC_INTERVAL, disk.clone(), at_risk.clone()).map_err(StartError::Thread)
}

/// Predicate that turns false after a slice of time.
fn slice() -> impl FnMut() -> bool {
    let end = Instant::now() + SLICE;
    move || Instant::now() < end
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
