//! Owner task of the share chain: takes shares, thinks, keeps the store, publishes tips and events.
//!
//! ```text
//!     ┌───────────────────────────────────▶ store's queue: own shares, before anything else is done
//!  own shares (first) ─▶┐            ┌─▶ tips: what to build on
//!  peers' shares ──────▶┤            ├─▶ events: accepted, refused, relay, block
//!  queries ────────────▶┼── Owner ───┼─▶ needs: missing parents, stops
//!  heights ────────────▶┤   think    ├─▶ solved: shares that are blocks
//!  templates ──────────▶┘  in slices └─▶ StoreWriter
//! ```

pub mod at_risk;
mod listed;
mod load;
mod owner;
pub mod ratchet_file;
pub mod store;

pub use load::{load, load_read_only};
pub use owner::Owner;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use parking_lot::Mutex;
use sharechain::chain::{Early, REFUSAL_LABELS, Ratchet, RefusedLately, Sharechain, Tip, Wanted};
use sharechain::coin::Network;
use sharechain::merkle::Digest;
use sharechain::share::{Share, ShareHash, ShareRules};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::runtime::disk::DiskHealth;
use crate::template::RecentTemplates;
use at_risk::AtRisk;
use store::legacy::LegacyError;
use store::{NewShare, Store, StoreError, StoreQueue};

/// Queue capacity for own shares; senders wait when it is full.
pub const SHARES_QUEUED_MAX: usize = 1024;

/// Queue capacity for batches of peers' shares; peers wait when it is full.
pub const RECEIVED_QUEUED_MAX: usize = 8;

/// Queue capacity for queries.
pub const QUERIES_QUEUED_MAX: usize = 64;

/// Queue capacity for solved shares to make blocks of; the owner waits when it is full.
pub const SOLVED_QUEUED_MAX: usize = 256;

/// Queue capacity for blocks whose heights are requested.
pub const HEIGHTS_QUEUED_MAX: usize = 1024;

/// Events buffered for a lagging subscriber.
pub const EVENTS_KEPT_MAX: usize = 4096;

/// Configuration of the share chain.
#[derive(Debug, Clone)]
pub struct Config {
    pub network: &'static Network,
    /// Folder of the store.
    pub data_dir: PathBuf,
    /// An old node's data folder, whose shares are imported.
    pub legacy: Option<PathBuf>,
    /// Receives reports of disk trouble.
    pub disk: DiskHealth,
}

/// Handle to the owner task.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Newest tip; `None` while the chain is not to be built on.
    pub tips: watch::Receiver<Option<Arc<Tip>>>,
    /// Queue of own shares. They take precedence over everything else.
    pub own: OwnShares,
    /// Own shares that are neither stored nor sent to a peer.
    pub at_risk: Arc<AtRisk>,
    /// Queue of peers' shares. Senders wait while it is full.
    pub received: mpsc::Sender<Received>,
    /// Queue of queries.
    pub queries: mpsc::Sender<Query>,
    /// Shares that the chain lacks. Changes only when they do.
    pub needs: watch::Receiver<Arc<Needs>>,
    /// Lead of peers' shares over our clock; our clock may be the wrong one.
    pub early: watch::Receiver<Early>,
    /// Peers' shares that were refused within the last hour.
    pub refused: watch::Receiver<RefusedLately>,
    /// Minimum protocol version of peers (protocol section 5.5).
    pub minimum_protocol: watch::Receiver<u32>,
    /// Events on the chain, share by share.
    pub events: broadcast::Sender<ChainEvent>,
    opened: mpsc::Sender<OpenedStore>,
    network: &'static Network,
}

/// Passes own shares to the store and to the owner at once: the owner may be busy for some milliseconds.
#[derive(Debug, Clone)]
pub struct OwnShares {
    shares: mpsc::Sender<OwnShare>,
    slot: Arc<StoreSlot>,
    at_risk: Arc<AtRisk>,
}

/// An own share on its way to the owner.
#[derive(Debug)]
pub struct OwnShare {
    share: Arc<Share>,
    /// Set when the store has queued it.
    is_queued: bool,
}

/// Queue of the current store, if any.
#[derive(Debug, Default)]
struct StoreSlot(Mutex<Option<StoreQueue>>);

impl StoreSlot {
    fn fill(&self, queue: StoreQueue) {
        *self.0.lock() = Some(queue);
    }

    fn empty(&self) {
        *self.0.lock() = None;
    }

    fn append_own(&self, share: NewShare) -> bool {
        self.0.lock().as_ref().is_some_and(|queue| queue.append_own(share))
    }
}

impl OwnShares {
    /// Gives the store a share whose submission was judged at `judged`. Send the result to the owner next, through
    /// [`room`](Self::room).
    pub fn store(&self, share: Arc<Share>, judged: Instant) -> OwnShare {
        let hash = share.hash();
        self.at_risk.add(hash, judged);
        let new = NewShare { hash, bytes: share.to_bytes().into(), time_seen: owner::now_seconds(), verified: false };
        let is_queued = self.slot.append_own(new);
        OwnShare { share, is_queued }
    }

    /// Waits for room in the owner's queue.
    ///
    /// # Errors
    /// The owner has ended.
    pub async fn room(&self) -> Result<mpsc::Permit<'_, OwnShare>, OwnerEnded> {
        self.shares.reserve().await.map_err(|_| OwnerEnded)
    }

    /// Returns room in the owner's queue if there is any now.
    pub fn try_room(&self) -> Option<mpsc::Permit<'_, OwnShare>> {
        self.shares.try_reserve().ok()
    }

    /// Stores and sends a share whose submission was judged at `judged`; waits while the queue is full.
    ///
    /// # Errors
    /// The owner has ended.
    pub async fn send(&self, share: Arc<Share>, judged: Instant) -> Result<(), OwnerEnded> {
        let share = self.store(share, judged);
        self.room().await?.send(share);
        Ok(())
    }
}

#[derive(Debug, Error)]
#[error("the share chain has ended")]
pub struct OwnerEnded;

/// Shares from one peer, in the order received. Known ones cost nothing.
#[derive(Debug, Clone)]
pub struct Received {
    pub shares: Vec<Arc<Share>>,
    /// Sender, answerable if a share does not fit its ancestors.
    pub source: SocketAddr,
}

/// A query to the chain. The caller may go away before the answer.
#[derive(Debug)]
pub enum Query {
    /// Shares and their ancestors, as peers ask for them (protocol section 3.7): see
    /// [`Sharechain::ancestry`](sharechain::chain::Sharechain::ancestry).
    Ancestry {
        hashes: Vec<ShareHash>,
        /// Maximum number of ancestors of each; bounded here once more.
        parents: u64,
        /// Shares to stop before.
        stops: Vec<ShareHash>,
        /// Newest first.
        reply: oneshot::Sender<Vec<Arc<Share>>>,
    },
    /// Asks if a share is known.
    Knows { hash: ShareHash, reply: oneshot::Sender<bool> },
    /// Any other read of the chain: see [`Handle::look`].
    Look(Look),
}

/// A prepared read of the chain, which answers by itself.
pub struct Look(Box<dyn FnOnce(&Sharechain) + Send>);

impl Look {
    fn at(self, chain: &Sharechain) {
        (self.0)(chain);
    }
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Look")
    }
}

/// Shares that the chain lacks, as of the last choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Needs {
    /// Missing parents worth requesting.
    pub wanted: Vec<Wanted>,
    /// Known shares at which an answer may stop. At most 100.
    pub stops: Vec<ShareHash>,
}

/// Event on the chain.
#[derive(Debug, Clone)]
pub enum ChainEvent {
    /// A share was verified.
    Accepted {
        share: Arc<Share>,
        /// True if miners of this node found it.
        is_own: bool,
    },
    /// A share that does not fit its ancestors.
    Refused {
        hash: ShareHash,
        /// Peer that sent it, to be banned if no honest node does so; `None` for our own shares and the store's.
        source: Option<SocketAddr>,
        reason: Arc<str>,
    },
    /// The share to build on has changed.
    TipChanged {
        /// New tip and up to four ancestors, except those in an earlier such event or loaded at the start: the shares
        /// to send to peers (protocol section 3.7).
        newest_first: Arc<[Arc<Share>]>,
        /// Source of each, in the same order: it needs no copy. `None` for our own.
        sources: Arc<[Option<SocketAddr>]>,
    },
    /// A verified share whose block may still count: to be sent to every peer at once (protocol section 3.7).
    Block {
        share: Arc<Share>,
        /// Peer that sent it.
        source: Option<SocketAddr>,
    },
    /// An own share that came too late to be the tip's child.
    Late(Arc<Share>),
}

/// A verified share that solves its block, by the target its header claims, and the parts of that block.
#[derive(Debug, Clone)]
pub struct SolvedShare {
    pub share: Arc<Share>,
    /// Coinbase as in the block: with witness where the share has segwit data.
    pub coinbase: Arc<[u8]>,
    /// Hashes of the block's other transactions over all their bytes, for versions that list them.
    pub transactions: Option<Arc<[Digest]>>,
    /// Peer that sent it; `None` for our own.
    pub source: Option<SocketAddr>,
    /// True if miners of this node found it: its block was submitted already.
    pub is_own: bool,
}

/// What the parent chain's daemon knows, as far as shares depend on it.
#[derive(Debug)]
pub struct ParentFeed {
    /// Queue of blocks whose heights are wanted.
    pub wanted: mpsc::Sender<Digest>,
    /// Known heights.
    pub known: watch::Receiver<Arc<HashMap<Digest, u32>>>,
    /// Recent templates: their transactions are known, for checking shares that list theirs.
    pub templates: watch::Receiver<Arc<RecentTemplates>>,
}

/// Error of starting the chain.
#[derive(Debug, Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The old node's folder cannot be read.
    #[error(transparent)]
    Legacy(#[from] LegacyError),
    /// The store's thread cannot be started.
    #[error("cannot start the share store's thread: {0}")]
    Thread(std::io::Error),
    /// The owner has ended, or has a store already.
    #[error("the share chain takes no store")]
    NotTaken,
}

/// A store opened for a running owner, with its contents.
#[derive(Debug)]
struct OpenedStore {
    store: Store,
    shares: Vec<Arc<Share>>,
    verified: HashSet<ShareHash>,
    /// State of the ratchet, if one was saved.
    ratchet: Option<Ratchet>,
}

impl Handle {
    /// Opens the store in `data_dir` for a chain loaded with [`load_read_only`]: adds what another process wrote there
    /// meanwhile, and writes what the store lacks. The caller must hold the lock on the directory.
    ///
    /// # Errors
    /// The store cannot be used; the chain then continues without one.
    pub async fn attach_store(&self, data_dir: &Path) -> Result<(), StartError> {
        let (data_dir, network) = (data_dir.to_owned(), self.network);
        let opening = tokio::task::spawn_blocking(move || load::open(&data_dir, network));
        let opened = opening.await.expect("loading does not panic")?;
        self.opened.send(opened).await.map_err(|_| StartError::NotTaken)
    }

    /// Returns the result of `look`, or `None` when the owner has ended. The owner is blocked meanwhile, so a look
    /// takes at most a few milliseconds on a full chain; compute elsewhere what can be.
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Sharechain) -> T + Send + 'static) -> Option<T> {
        let (reply, found) = oneshot::channel();
        let look = Look(Box::new(move |chain| {
            // The caller may have gone away.
            if !reply.is_closed() {
                let _ = reply.send(look(chain));
            }
        }));
        self.queries.send(Query::Look(look)).await.ok()?;
        found.await.ok()
    }

    /// Rules for reading and checking shares.
    pub fn rules(&self) -> ShareRules {
        sharechain::chain::share_rules(self.network)
    }
}

/// Describes the metrics of this room.
pub fn describe() {
    at_risk::describe();
    describe_gauge!("sharechain_height", "Shares from the best one down");
    describe_gauge!("sharechain_shares", "Shares in memory");
    describe_gauge!("sharechain_verified_shares", "Shares in memory that fit their ancestors");
    describe_gauge!("sharechain_next_version", "Version of the next share that this node makes");
    describe_gauge!(
        "sharechain_ratchet_state",
        "State of the change from share version 35 to 36: 0 the network has none, 1 voting, 2 activated, 3 confirmed"
    );
    describe_gauge!("sharechain_pool_hash_rate", "Hashes per second of the pool over the last hour; 0 while unknown");
    describe_counter!(
        "sharechain_own_shares_total",
        "Shares that miners of this node found, by whether they came in time"
    );
    describe_counter!("sharechain_received_shares_total", "Shares that peers sent and that were not here yet");
    describe_counter!("sharechain_checked_shares_total", "Shares that were checked with their ancestors");
    describe_gauge!("sharechain_tip_timestamp_seconds", "The time that the best share bears, in seconds since 1970");
    describe_counter!("sharechain_refused_shares_total", "Shares that did not fit their ancestors, by reason");
    describe_gauge!(
        "sharechain_refused_hour_shares",
        "Different shares of peers that were refused within the last hour"
    );
    describe_gauge!(
        "sharechain_refused_hour_networks",
        "Networks whose nodes sent them; from 3 on the pool may be about to split"
    );
    describe_counter!(
        "sharechain_early_shares_total",
        "Shares that were too far ahead of this machine's clock to be judged"
    );
    describe_gauge!(
        "sharechain_early_networks",
        "Networks that sent shares which are too far ahead of this machine's clock; from 3 on the clock is likely wrong"
    );
    describe_histogram!(
        "sharechain_think_seconds",
        metrics::Unit::Seconds,
        "Verifying what came and choosing the share to build on"
    );
    describe_histogram!(
        "sharechain_look_seconds",
        metrics::Unit::Seconds,
        "Looks at the chain for pages and the like, which everything else waits for"
    );
    for kind in ["in_time", "late"] {
        counter!("sharechain_own_shares_total", "kind" => kind).absolute(0);
    }
    gauge!("sharechain_ratchet_state").set(0.0);
    counter!("sharechain_received_shares_total").absolute(0);
    for reason in REFUSAL_LABELS {
        counter!("sharechain_refused_shares_total", "reason" => reason).absolute(0);
    }
    for gauge in ["sharechain_refused_hour_shares", "sharechain_refused_hour_networks"] {
        gauge!(gauge).set(0.0);
    }
    counter!("sharechain_early_shares_total").absolute(0);
    counter!("sharechain_checked_shares_total").absolute(0);
}
