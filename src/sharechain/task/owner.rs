//! The owner's loop: what comes in, in the order of its urgency, and what is told after each choice.

use metrics::{counter, gauge, histogram};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::super::store::{NewShare, Store, StoreWriter};
use super::super::{Event, Sharechain, Tip, VerifyError};
use super::{
    ChainEvent, EVENTS_KEPT_MAX, Handle, Heights, KnownTransactions, Needs, OpenedStore, QUERIES_QUEUED_MAX, Query,
    RECEIVED_QUEUED_MAX, Received, SHARES_QUEUED_MAX, SOLVED_QUEUED_MAX, SolvedShare, StartError,
};
use crate::network::Network;
use crate::share::{Share, ShareHash, StaleInfo};

/// Shares of our own taken up between two choices, so that a burst is chosen over once.
const BATCH_MAX: usize = 64;

/// The choice is made anew at least this often: time alone may change it (protocol section 8.2).
const THINK_INTERVAL: Duration = Duration::from_secs(5);

/// Checks are made for so long in one go; then whatever came meanwhile gets its turn.
const SLICE: Duration = Duration::from_millis(4);

/// Questions answered after each slice while there is no end of slices.
const ANSWERS_BETWEEN: usize = 4;

/// How long the last shares are waited for when everything stops.
const LAST_SHARES: Duration = Duration::from_millis(200);

/// What a power loss may cost.
const SYNC_INTERVAL: Duration = Duration::from_secs(10);

/// Shares loaded as verified that are checked in one go, and the pause in which others get their turn.
const RECHECK_SHARES: usize = 20;
const RECHECK_PAUSE: Duration = Duration::from_millis(20);

/// Shares that one message to the store's writer has.
const STORED_AT_ONCE: usize = 256;

/// Shares told to peers with a new tip (protocol section 3.7).
const RELAYED_MAX: u32 = 5;

/// A solved share older than this is history that is downloaded, and its block in the parent chain or lost for good.
const SOLVED_AGE_MAX: f64 = 3600.0;

/// How long a solved share waits for the height of the block that it builds on, and how many may wait.
const SOLVED_WAIT_MAX: Duration = Duration::from_secs(60);
const SOLVED_WAITING_MAX: usize = 256;

/// A chain that is loaded and not running yet.
#[derive(Debug)]
pub struct Owner {
    chain: Sharechain,
    /// None while another process owns the store.
    store: Option<StoreWriter>,
    /// What is in the store.
    saved: HashSet<ShareHash>,
    tips: watch::Sender<Option<Arc<Tip>>>,
    events: broadcast::Sender<ChainEvent>,
    own: mpsc::Receiver<Arc<Share>>,
    received: mpsc::Receiver<Received>,
    queries: mpsc::Receiver<Query>,
    opened: mpsc::Receiver<OpenedStore>,
    transactions: watch::Receiver<Arc<KnownTransactions>>,
    needs: watch::Sender<Arc<Needs>>,
    minimum_protocol: watch::Sender<u32>,
    solved: mpsc::Sender<SolvedShare>,
    solved_taker: Option<mpsc::Receiver<SolvedShare>>,
    heights: Heights,
    own_hashes: HashSet<ShareHash>,
    announced: Option<(Option<ShareHash>, StaleInfo)>,
    /// What peers were told, or have as long as we do.
    relayed: HashSet<ShareHash>,
    relayed_tip: Option<ShareHash>,
    /// Solved shares of which it is not known yet whether their blocks may still count.
    solved_waiting: VecDeque<(ShareHash, Instant)>,
    /// Whether all was verified that can be.
    is_whole: bool,
}

impl Owner {
    pub(super) fn new(
        network: &'static Network,
        mut chain: Sharechain,
        store: Option<Store>,
        heights: Heights,
    ) -> Result<(Handle, Owner), StartError> {
        let mut saved = HashSet::new();
        let store = match store {
            Some(mut store) => {
                for share in missing_in(&chain, &|hash| store.contains(hash)) {
                    store.append_share(share.hash, &share.bytes, share.time_seen, share.verified)?;
                }
                store.sync()?;
                saved.extend(chain.all().iter());
                Some(StoreWriter::start(store, SYNC_INTERVAL).map_err(StartError::Thread)?)
            }
            None => None,
        };
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
        let (minimum_sender, minimum_protocol) = watch::channel(chain.minimum_protocol());
        let (transactions_sender, transactions) = watch::channel(Arc::default());
        let (solved, solved_taker) = mpsc::channel(SOLVED_QUEUED_MAX);
        let mut owner = Owner {
            relayed_tip: chain.choice().best,
            chain,
            store,
            saved,
            tips: tips_sender,
            events: events.clone(),
            own,
            received,
            queries,
            opened,
            transactions,
            needs: needs_sender,
            minimum_protocol: minimum_sender,
            solved,
            solved_taker: Some(solved_taker),
            heights,
            own_hashes: HashSet::new(),
            announced: None,
            relayed,
            solved_waiting: VecDeque::new(),
            is_whole,
        };
        owner.publish();
        let handle = Handle {
            tips,
            own: own_sender,
            received: received_sender,
            queries: queries_sender,
            needs,
            minimum_protocol,
            events,
            transactions: Arc::new(transactions_sender),
            opened: opened_sender,
            network,
        };
        Ok((handle, owner))
    }

    /// Where solved shares come out, for whoever makes blocks of them; once, before the owner runs. Never drops: the
    /// owner waits while it is full.
    pub fn take_solved(&mut self) -> Option<mpsc::Receiver<SolvedShare>> {
        self.solved_taker.take()
    }

    /// Runs until `stop`, then leaves the store in order.
    pub async fn run(mut self, stop: CancellationToken) {
        // If nobody makes blocks, nobody is waited for.
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
                // What miners of ours found comes before everything else.
                count = self.own.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        break;
                    }
                    for share in batch.drain(..) {
                        self.add_own(share).await;
                    }
                    self.think().await;
                }
                () = stop.cancelled() => break,
                changed = self.heights.known.changed() => {
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
                // Another task's turn, and then, if nothing more urgent came, the next slice.
                () = tokio::task::yield_now(), if !self.is_whole => {
                    self.think().await;
                    self.answer_some();
                }
                Some(query) = self.queries.recv() => self.answer(query),
                Ok(()) = self.transactions.changed() => {
                    let known = self.transactions.borrow_and_update().clone();
                    self.chain.facts_mut().transactions = (*known).clone();
                    self.think().await;
                }
                _ = rechecking.tick(), if trusted_left => {
                    trusted_left = tokio::task::block_in_place(|| self.chain.recheck(RECHECK_SHARES, unix_now()));
                    if !trusted_left {
                        debug!("all stored shares were checked again");
                        self.think().await;
                    }
                }
            }
        }
        // Shares that are found while everything stops are kept as well.
        while let Ok(Some(share)) = timeout(LAST_SHARES, self.own.recv()).await {
            self.add_own(share).await;
        }
        self.save_worthy().await;
        if let Some(store) = self.store.take()
            && let Err(error) = store.stop().await
        {
            error!(%error, "share store");
        }
    }

    async fn add_own(&mut self, share: Arc<Share>) {
        let is_late = share.previous() != self.chain.choice().best;
        let kind = if is_late { "late" } else { "in_time" };
        counter!("sharechain_own_shares_total", "kind" => kind).increment(1);
        self.own_hashes.insert(share.hash());
        if is_late {
            let _ = self.events.send(ChainEvent::Late(share.clone()));
        }
        if self.chain.add_own(share.clone(), is_late, unix_now()) {
            self.save(&[share.hash()]).await;
        }
    }

    /// Adds peers' shares; whether any was new.
    fn take(&mut self, received: Received) -> bool {
        let Received { shares, source } = received;
        let new = tokio::task::block_in_place(|| self.chain.add_all(shares, Some(source), unix_now()));
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

    /// Chooses, tells what came of it, and publishes the tip if anything about it changed. What is told first is what
    /// others wait for.
    async fn think(&mut self) {
        let started = Instant::now();
        let (chain, mut slice) = (&mut self.chain, slice());
        self.is_whole = tokio::task::block_in_place(|| chain.think_while(unix_now(), &mut slice));
        histogram!("sharechain_think_seconds").record(started.elapsed());
        self.publish();
        self.relay();
        let removed = self.chain.bound();
        self.publish_needs();
        self.forget(removed).await;
        self.note_events().await;
        self.tell_solved();
        for block in self.chain.wanted_heights() {
            // Asked again at the next choice if there is no room.
            let _ = self.heights.wanted.try_send(block);
        }
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 shares")]
        {
            gauge!("sharechain_shares").set(self.chain.all().len() as f64);
            gauge!("sharechain_verified_shares").set(self.chain.verified().len() as f64);
        }
    }

    /// Forgets what is not needed any more, and keeps what turned out to be.
    async fn tidy(&mut self) {
        let forgotten = self.chain.prune(unix_now());
        self.forget(forgotten).await;
        self.save_worthy().await;
    }

    async fn forget(&mut self, hashes: Vec<ShareHash>) {
        if hashes.is_empty() {
            return;
        }
        for hash in &hashes {
            self.own_hashes.remove(hash);
            self.saved.remove(hash);
            self.relayed.remove(hash);
        }
        if let Some(store) = &self.store {
            told(store.forget(hashes).await);
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
        self.save(&new).await;
        if let Some(store) = self.store.as_ref().filter(|_| !again.is_empty()) {
            told(store.append_verified(again).await);
        }
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
    }

    /// A verified share that solves its block, as its header has it: whoever makes blocks decides what that is worth.
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
                // Nobody there to make blocks is no mistake.
                let _ = self.solved.send(solved).await;
            }
            Some(Err(error)) => error!(share = %hash, %error, "the coinbase of a verified share cannot be made again"),
            None => {}
        }
    }

    /// Tells of solved shares as soon as it is known that their blocks may count.
    fn tell_solved(&mut self) {
        let (chain, events) = (&self.chain, &self.events);
        self.solved_waiting.retain(|(hash, since)| {
            let Some(known) = chain.known(*hash) else { return false };
            let is_told = chain.may_be_block(*hash);
            if is_told {
                let _ = events.send(ChainEvent::Block { share: known.share.clone(), source: known.source });
            }
            !is_told && since.elapsed() < SOLVED_WAIT_MAX
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

    /// Tells a new tip, with the shares below it that were not told yet, to be sent to peers.
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

    fn take_heights(&mut self) {
        let known = self.heights.known.borrow_and_update().clone();
        let facts = self.chain.facts_mut();
        facts.best_height = known.values().copied().max().unwrap_or_default().max(facts.best_height);
        facts.heights = (*known).clone();
    }

    /// Keeps the best chain, and the one with the most work, which may be under download: strangers cannot fill the disk with
    /// anything else that was not verified.
    async fn save_worthy(&mut self) {
        let all = self.chain.all();
        if self.store.is_none() || self.saved.len() >= all.len() {
            return;
        }
        let most_work = all.heads().iter().copied().max_by_key(|head| all.work(*head).own);
        let mut missing = Vec::new();
        let mut seen = HashSet::new();
        for head in [self.chain.choice().best, most_work].into_iter().flatten() {
            // Oldest first, as a start reads them fastest.
            let chain = all.chain(head, u32::MAX).filter(|hash| !self.saved.contains(hash) && seen.insert(*hash));
            let mut chain: Vec<ShareHash> = chain.collect();
            chain.reverse();
            missing.append(&mut chain);
        }
        self.save(&missing).await;
    }

    /// Keeps shares in the store, if there is one.
    async fn save(&mut self, hashes: &[ShareHash]) {
        let Some(store) = &self.store else { return };
        for some in hashes.chunks(STORED_AT_ONCE) {
            let shares: Vec<NewShare> = some.iter().filter_map(|hash| stored(&self.chain, *hash)).collect();
            self.saved.extend(shares.iter().map(|share| share.hash));
            told(store.append_shares(shares).await);
        }
    }

    /// Takes over a store: first what is in it, then into it what is not.
    async fn attach(&mut self, opened: OpenedStore) {
        if self.store.is_some() {
            error!("share store: there is one already");
            return;
        }
        let OpenedStore { store, shares, verified } = opened;
        let writer = match StoreWriter::start(store, SYNC_INTERVAL) {
            Ok(writer) => writer,
            Err(error) => {
                error!(%error, "share store: no thread for it; shares are kept in memory only");
                return;
            }
        };
        self.saved = shares.iter().map(|share| share.hash()).collect();
        // Its peers have what the other process wrote.
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
        info!(written = missing.len(), "share store taken over");
        told(writer.append_verified(now_verified).await);
        self.store = Some(writer);
        self.save(&missing).await;
    }
}

/// Says no after a slice of time.
fn slice() -> impl FnMut() -> bool {
    let end = Instant::now() + SLICE;
    move || Instant::now() < end
}

/// A share as the store keeps it.
fn stored(chain: &Sharechain, hash: ShareHash) -> Option<NewShare> {
    let known = chain.known(hash)?;
    // When a share from another store was seen is not known; it was made no later than that.
    let seen = if known.first_seen > 0.0 { whole_seconds(known.first_seen) } else { known.share.timestamp() };
    let bytes = known.share.to_bytes().into();
    Some(NewShare { hash, bytes, time_seen: seen, verified: chain.verified().contains(&hash) })
}

/// Shares of `chain` that a store lacks, each after its parent.
fn missing_in(chain: &Sharechain, is_stored: &dyn Fn(ShareHash) -> bool) -> Vec<NewShare> {
    let missing = chain.all().iter().filter(|hash| !is_stored(*hash));
    let shares = missing.filter_map(|hash| chain.share(hash).cloned()).collect();
    super::super::parents_first(shares).iter().filter_map(|share| stored(chain, share.hash())).collect()
}

fn told<E: std::fmt::Display>(kept: Result<(), E>) {
    if let Err(error) = kept {
        error!(%error, "share store");
    }
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn whole_seconds(now: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time since 1970, saturating")]
    let seconds = now as u32;
    seconds
}
