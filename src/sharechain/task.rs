//! The one owner of the share chain: takes shares, thinks, keeps the store, publishes the tip.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::store::legacy::{self, LegacyError};
use super::store::{Store, StoreError, StoreWriter, StoredShare};
use super::{Event, Sharechain, Tip};
use crate::merkle::Digest;
use crate::network::Network;
use crate::share::{Share, ShareHash, ShareRules, StaleInfo};

/// Shares of our own that may wait. Whoever found one waits with it when it is full.
pub const SHARES_QUEUED_MAX: usize = 1024;

/// Blocks whose heights may be asked for at a time.
pub const HEIGHTS_QUEUED_MAX: usize = 1024;

/// What is told to a listener that lags behind.
pub const EVENTS_KEPT_MAX: usize = 1024;

/// Shares taken up between two choices, so that a burst is chosen over once.
const BATCH_MAX: usize = 64;

/// The choice is made anew at least this often: time alone may change it (protocol section 8.2).
const THINK_INTERVAL: Duration = Duration::from_secs(5);

/// How long the last shares are waited for when everything stops.
const LAST_SHARES: Duration = Duration::from_millis(200);

/// What a power loss may cost.
const SYNC_INTERVAL: Duration = Duration::from_secs(10);

/// Shares loaded as verified that are checked in one go, and the pause in which others get their turn.
const RECHECK_SHARES: usize = 20;
const RECHECK_PAUSE: Duration = Duration::from_millis(20);

/// What the chain is kept in and fed from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose shares.
    pub network: &'static Network,
    /// Where the store is.
    pub data_dir: PathBuf,
    /// An old node's data folder, whose shares are taken over.
    pub legacy: Option<PathBuf>,
}

/// What the rest of the node holds of the chain.
#[derive(Debug, Clone)]
pub struct Handle {
    /// The newest tip; `None` while the chain is not to be built on.
    pub tips: watch::Receiver<Option<Arc<Tip>>>,
    /// Where shares of our own go.
    pub own: mpsc::Sender<Arc<Share>>,
    /// What happens on the chain, share by share.
    pub events: broadcast::Sender<ChainEvent>,
}

/// Something that happened on the chain.
#[derive(Debug, Clone)]
pub enum ChainEvent {
    /// A share was verified.
    Accepted {
        /// The share.
        share: Arc<Share>,
        /// Whether miners of this node found it.
        is_own: bool,
    },
    /// A share of our own came too late to be the tip's child.
    Late(Arc<Share>),
}

/// The parent chain's side: who knows the heights of its blocks.
#[derive(Debug)]
pub struct Heights {
    /// Where to ask.
    pub wanted: mpsc::Sender<Digest>,
    /// What is known.
    pub known: watch::Receiver<Arc<HashMap<Digest, u32>>>,
}

/// Why the chain cannot be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The old node's folder cannot be read.
    #[error(transparent)]
    Legacy(#[from] LegacyError),
    /// There is no thread for the store.
    #[error("cannot start the share store's thread: {0}")]
    Thread(std::io::Error),
}

/// Names and explains the metrics of this part.
pub fn describe() {
    describe_gauge!("sharechain_height", "Shares from the best one down");
    describe_gauge!("sharechain_shares", "Shares in memory");
    describe_gauge!("sharechain_verified_shares", "Shares in memory that fit their ancestors");
    describe_gauge!("sharechain_pool_hash_rate", "Hashes per second of the pool over the last hour; 0 while unknown");
    describe_counter!(
        "sharechain_own_shares_total",
        "Shares that miners of this node found, by whether they came in time"
    );
    describe_counter!("sharechain_refused_shares_total", "Shares that did not fit their ancestors");
    describe_histogram!(
        "sharechain_think_seconds",
        metrics::Unit::Seconds,
        "Verifying what came and choosing the share to build on"
    );
    for kind in ["in_time", "late"] {
        counter!("sharechain_own_shares_total", "kind" => kind).absolute(0);
    }
    counter!("sharechain_refused_shares_total").absolute(0);
}

/// A chain that is loaded and not running yet.
#[derive(Debug)]
pub struct Owner {
    chain: Sharechain,
    store: StoreWriter,
    tips: watch::Sender<Option<Arc<Tip>>>,
    events: broadcast::Sender<ChainEvent>,
    own: mpsc::Receiver<Arc<Share>>,
    heights: Heights,
    own_hashes: HashSet<ShareHash>,
    announced: Option<(Option<ShareHash>, StaleInfo)>,
}

/// Loads the chain that the last run left, and prepares its owner. Takes a second for a full store; keep it off the event
/// loop.
///
/// # Errors
/// The store cannot be used. What is merely damaged in it is told and left out.
pub fn load(config: &Config, heights: Heights) -> Result<(Handle, Owner), StartError> {
    let started = Instant::now();
    let (mut store, loaded) = Store::open(&config.data_dir)?;
    for problem in &loaded.problems {
        warn!(%problem, "share store");
    }
    let mut chain = Sharechain::new(config.network);
    let verified: HashSet<ShareHash> = loaded.verified.into_iter().collect();
    let shares = parse(&loaded.shares, chain.rules());
    let count = shares.len();
    for share in shares {
        let was_verified = verified.contains(&share.hash());
        chain.load(share, was_verified);
    }
    let legacy = match &config.legacy {
        Some(folder) => load_legacy(folder, &mut chain, &mut store)?,
        None => Vec::new(),
    };
    if count + legacy.len() > 0 {
        info!(shares = count, from_old_node = legacy.len(), took = ?started.elapsed(), "share chain loaded");
    }
    let store = StoreWriter::start(store, SYNC_INTERVAL).map_err(StartError::Thread)?;
    let (tips_sender, tips) = watch::channel(None);
    let (own_sender, own) = mpsc::channel(SHARES_QUEUED_MAX);
    let (events, _) = broadcast::channel(EVENTS_KEPT_MAX);
    let mut owner = Owner {
        chain,
        store,
        tips: tips_sender,
        events: events.clone(),
        own,
        heights,
        own_hashes: HashSet::new(),
        announced: None,
    };
    owner.chain.think(unix_now());
    owner.publish();
    Ok((Handle { tips, own: own_sender, events }, owner))
}

/// Parses stored shares on all cores: each costs a proof of work, which is scrypt on some coins. What does not parse any
/// more is left out.
fn parse(stored: &[StoredShare], rules: &ShareRules) -> Vec<Arc<Share>> {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let chunk = stored.len().div_ceil(cores).max(1);
    let parse_chunk = |chunk: &[StoredShare]| -> Vec<Arc<Share>> {
        let parsed = chunk.iter().filter_map(|one| match Share::from_bytes(&one.bytes, rules) {
            Ok(share) => Some(Arc::new(share)),
            Err(error) => {
                warn!(share = %one.hash, %error, "stored share left out");
                None
            }
        });
        parsed.collect()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = stored.chunks(chunk).map(|chunk| scope.spawn(move || parse_chunk(chunk))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("parsing does not panic")).collect()
    })
}

/// Takes over an old node's shares, also into our own store: our next shares build on them, and a start without the old
/// folder would find those without ancestors.
fn load_legacy(folder: &Path, chain: &mut Sharechain, store: &mut Store) -> Result<Vec<ShareHash>, StartError> {
    let legacy = legacy::read(folder)?;
    for problem in &legacy.problems {
        warn!(%problem, "old node's share store");
    }
    let verified: HashSet<ShareHash> = legacy.verified.into_iter().collect();
    let mut added = Vec::new();
    for bytes in legacy.shares {
        match Share::from_bytes(&bytes, chain.rules()) {
            Ok(share) => {
                let hash = share.hash();
                let was_verified = verified.contains(&hash);
                // When it was seen is not known; it was made no later than that.
                let made = share.timestamp();
                if chain.load(Arc::new(share), was_verified) {
                    store.append_share(hash, &bytes, made)?;
                    if was_verified {
                        store.append_verified(hash)?;
                    }
                    added.push(hash);
                }
            }
            Err(error) => warn!(%error, "old node's share left out"),
        }
    }
    store.sync()?;
    Ok(added)
}

impl Owner {
    /// Runs until `stop`, then leaves the store in order.
    pub async fn run(mut self, stop: CancellationToken) {
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
                _ = thinking.tick() => {
                    self.think().await;
                    let forgotten = self.chain.prune(unix_now());
                    if !forgotten.is_empty() {
                        forgotten.iter().for_each(|hash| { self.own_hashes.remove(hash); });
                        self.keep(self.store.forget(forgotten).await);
                    }
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
        if let Err(error) = self.store.stop().await {
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
        let now = unix_now();
        if self.chain.add_own(share.clone(), is_late, now) {
            let kept = self.store.append_share(share.hash(), share.to_bytes().into(), whole_seconds(now)).await;
            self.keep(kept);
        }
    }

    /// Chooses, tells what came of it, and publishes the tip if anything about it changed.
    async fn think(&mut self) {
        let started = Instant::now();
        tokio::task::block_in_place(|| self.chain.think(unix_now()));
        histogram!("sharechain_think_seconds").record(started.elapsed());
        self.publish();
        while let Some(event) = self.chain.poll_event() {
            self.note(event).await;
        }
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

    async fn note(&mut self, event: Event) {
        match event {
            Event::Verified(hash) => {
                let kept = self.store.append_verified(hash).await;
                self.keep(kept);
                if let Some(share) = self.chain.share(hash) {
                    let is_own = self.own_hashes.contains(&hash);
                    if is_own {
                        info!(height = share.absheight(), share = %hash, payee = %share.payee(), "share found");
                    }
                    let _ = self.events.send(ChainEvent::Accepted { share: share.clone(), is_own });
                }
            }
            Event::Refused { hash, source, error } => {
                counter!("sharechain_refused_shares_total").increment(1);
                if self.own_hashes.contains(&hash) {
                    error!(share = %hash, %error, "a share of our own does not fit its ancestors");
                } else {
                    warn!(share = %hash, ?source, %error, "share refused");
                }
            }
            Event::Block(hash) => debug!(share = %hash, "a share of the chain is a block"),
            Event::TipChanged(best) => debug!(best = ?best, "tip changed"),
            Event::ParentWanted(_) | Event::Reissue | Event::MinimumProtocol(_) => {}
        }
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
        self.tips.send_replace(Some(tip));
    }

    fn take_heights(&mut self) {
        let known = self.heights.known.borrow_and_update().clone();
        let facts = self.chain.facts_mut();
        facts.best_height = known.values().copied().max().unwrap_or_default().max(facts.best_height);
        facts.heights = (*known).clone();
    }

    fn keep<E: std::fmt::Display>(&self, kept: Result<(), E>) {
        if let Err(error) = kept {
            error!(%error, "share store");
        }
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
