//! The one owner of the share chain, as a task: takes shares, thinks, keeps the store, tells the rest of the node.
//!
//! ```text
//!     ┌───────────────────────────────────▶ store's queue: own shares, before anything else is done
//!  own shares (first) ─▶┐            ┌─▶ tips: what to build on
//!  peers' shares ──────▶┤            ├─▶ events: accepted, refused, relay, block
//!  queries ────────────▶┼── Owner ───┼─▶ needs: missing parents, stops
//!  heights ────────────▶┤   think    ├─▶ solved: shares that are blocks
//!  transactions ───────▶┘  in slices └─▶ StoreWriter
//! ```

pub mod at_risk;
mod load;
mod owner;
pub mod store;

pub use load::{load, load_read_only};
pub use owner::Owner;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram};
use parking_lot::Mutex;
use sharechain::chain::{Early, KnownTransaction, Sharechain, Tip, Wanted};
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
use at_risk::AtRisk;
use store::legacy::LegacyError;
use store::{NewShare, Store, StoreError, StoreQueue};

/// Shares of our own that may wait. Whoever found one waits with it when it is full.
pub const SHARES_QUEUED_MAX: usize = 1024;

/// Batches of peers' shares that may wait; the peers wait beyond.
pub const RECEIVED_QUEUED_MAX: usize = 8;

/// Questions that may wait.
pub const QUERIES_QUEUED_MAX: usize = 64;

/// Solved shares that may wait to be made blocks of; the owner waits beyond.
pub const SOLVED_QUEUED_MAX: usize = 256;

/// Blocks whose heights may be asked for at a time.
pub const HEIGHTS_QUEUED_MAX: usize = 1024;

/// What is told to a listener that lags behind.
pub const EVENTS_KEPT_MAX: usize = 4096;

/// What the chain is kept in and fed from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose shares.
    pub network: &'static Network,
    /// Where the store is.
    pub data_dir: PathBuf,
    /// An old node's data folder, whose shares are taken over.
    pub legacy: Option<PathBuf>,
    /// Where to report trouble with the disk.
    pub disk: DiskHealth,
}

/// Transactions that this node knows, by the hash over all of their bytes: what share versions that list their
/// transactions are judged by.
pub type KnownTransactions = HashMap<Digest, KnownTransaction>;

/// What the rest of the node holds of the chain.
#[derive(Debug, Clone)]
pub struct Handle {
    /// The newest tip; `None` while the chain is not to be built on.
    pub tips: watch::Receiver<Option<Arc<Tip>>>,
    /// Where shares of our own go. They come before everything else.
    pub own: OwnShares,
    /// Own shares that are neither stored nor sent to a peer.
    pub at_risk: Arc<AtRisk>,
    /// Where peers' shares go. Their senders wait while it is full.
    pub received: mpsc::Sender<Received>,
    /// Where to ask.
    pub queries: mpsc::Sender<Query>,
    /// What the chain lacks. Changes only when something in it does.
    pub needs: watch::Receiver<Arc<Needs>>,
    /// Lead of peers' shares over our clock, which may be the wrong one.
    pub early: watch::Receiver<Early>,
    /// The protocol version that peers must speak at least (protocol section 5.5).
    pub minimum_protocol: watch::Receiver<u32>,
    /// What happens on the chain, share by share.
    pub events: broadcast::Sender<ChainEvent>,
    /// Where to publish which transactions are known: with each new template, while shares list theirs.
    pub transactions: Arc<watch::Sender<Arc<KnownTransactions>>>,
    opened: mpsc::Sender<OpenedStore>,
    network: &'static Network,
}

/// Takes shares of our own, to the store and to the owner at once: the owner may be busy for some milliseconds.
#[derive(Debug, Clone)]
pub struct OwnShares {
    shares: mpsc::Sender<OwnShare>,
    slot: Arc<StoreSlot>,
    at_risk: Arc<AtRisk>,
}

/// A share of our own on its way to the owner.
#[derive(Debug)]
pub struct OwnShare {
    share: Arc<Share>,
    /// The store's queue has it.
    is_queued: bool,
}

/// The queue of the store that there is at present, if any.
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
    /// Gives the store a share whose submission was judged at `judged`. The owner is to have it next, through
    /// [`room`](Self::room).
    pub fn store(&self, share: Arc<Share>, judged: Instant) -> OwnShare {
        let hash = share.hash();
        self.at_risk.add(hash, judged);
        let new = NewShare { hash, bytes: share.to_bytes().into(), time_seen: owner::now_seconds(), verified: false };
        let is_queued = self.slot.append_own(new);
        OwnShare { share, is_queued }
    }

    /// Waits until the owner can be given a share.
    ///
    /// # Errors
    /// The owner has ended.
    pub async fn room(&self) -> Result<mpsc::Permit<'_, OwnShare>, OwnerEnded> {
        self.shares.reserve().await.map_err(|_| OwnerEnded)
    }

    /// Room for a share, if there is any at once.
    pub fn try_room(&self) -> Option<mpsc::Permit<'_, OwnShare>> {
        self.shares.try_reserve().ok()
    }

    /// Hands over a share whose submission was judged at `judged`, waiting while too many wait.
    ///
    /// # Errors
    /// The owner has ended.
    pub async fn send(&self, share: Arc<Share>, judged: Instant) -> Result<(), OwnerEnded> {
        let share = self.store(share, judged);
        self.room().await?.send(share);
        Ok(())
    }
}

/// The owner of the share chain has ended.
#[derive(Debug, Error)]
#[error("the share chain has ended")]
pub struct OwnerEnded;

/// Shares from one peer, in the order in which they came. Those that are here already cost nothing.
#[derive(Debug, Clone)]
pub struct Received {
    /// The shares.
    pub shares: Vec<Arc<Share>>,
    /// Who sent them, and is banned if one does not fit its ancestors.
    pub source: SocketAddr,
}

/// A question to the chain. Whoever asks may go away before the answer.
#[derive(Debug)]
pub enum Query {
    /// Shares and their ancestors, as peers ask for them (protocol section 3.7): see
    /// [`Sharechain::ancestry`](sharechain::chain::Sharechain::ancestry).
    Ancestry {
        /// The shares.
        hashes: Vec<ShareHash>,
        /// Ancestors of each at most; bounded here once more.
        parents: u64,
        /// Where to stop, before the share itself.
        stops: Vec<ShareHash>,
        /// Newest first.
        reply: oneshot::Sender<Vec<Arc<Share>>>,
    },
    /// Whether a share is here.
    Knows {
        /// The share.
        hash: ShareHash,
        /// Whether it is.
        reply: oneshot::Sender<bool>,
    },
    /// Whatever a look at the chain finds: see [`Handle::look`].
    Look(Look),
}

/// A look at the chain, prepared: it answers by itself.
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

/// What the chain lacks, as of the last choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Needs {
    /// Missing parents worth asking for.
    pub wanted: Vec<Wanted>,
    /// What is here already: where an answer may stop. At most 100.
    pub stops: Vec<ShareHash>,
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
    /// A share does not fit its ancestors.
    Refused {
        /// The share.
        hash: ShareHash,
        /// Who sent it, and is to be banned; none for our own and the store's.
        source: Option<SocketAddr>,
        /// Why.
        reason: Arc<str>,
    },
    /// There is another share to build on.
    TipChanged {
        /// That share and up to four ancestors, as far as they were not in an earlier such message nor loaded at the
        /// start: what peers are told (protocol section 3.7).
        newest_first: Arc<[Arc<Share>]>,
        /// Who sent each of them, in the same order: those need not be told. None for our own.
        sources: Arc<[Option<SocketAddr>]>,
    },
    /// A verified share solves a block that may still count: every peer is to be told at once (protocol section 3.7).
    Block {
        /// The share.
        share: Arc<Share>,
        /// Who sent it.
        source: Option<SocketAddr>,
    },
    /// A share of our own came too late to be the tip's child.
    Late(Arc<Share>),
}

/// A verified share that solves its block, by the target that its header claims, and what its block can be made of.
#[derive(Debug, Clone)]
pub struct SolvedShare {
    /// The share.
    pub share: Arc<Share>,
    /// Its coinbase as it stands in the block: with witness where the share has segwit data.
    pub coinbase: Arc<[u8]>,
    /// Hashes of the block's other transactions over all of their bytes, of versions that list them.
    pub transactions: Option<Arc<[Digest]>>,
    /// Who sent it; none for our own.
    pub source: Option<SocketAddr>,
    /// Whether miners of this node found it: then its block was submitted already.
    pub is_own: bool,
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
    /// The owner has ended, or has a store already.
    #[error("the share chain takes no store")]
    NotTaken,
}

/// A store that was opened for an owner that runs already, with what is in it.
#[derive(Debug)]
struct OpenedStore {
    store: Store,
    shares: Vec<Arc<Share>>,
    verified: HashSet<ShareHash>,
}

impl Handle {
    /// Opens the store in `data_dir` for a chain that was loaded with [`load_read_only`]: what another process wrote
    /// there meanwhile is taken up, and what this one has beyond that is written. Only whoever holds the lock on the
    /// directory may do so.
    ///
    /// # Errors
    /// The store cannot be used; the chain then goes on without one.
    pub async fn attach_store(&self, data_dir: &Path) -> Result<(), StartError> {
        let (data_dir, network) = (data_dir.to_owned(), self.network);
        let opening = tokio::task::spawn_blocking(move || load::open(&data_dir, network));
        let opened = opening.await.expect("loading does not panic")?;
        self.opened.send(opened).await.map_err(|_| StartError::NotTaken)
    }

    /// What `look` finds, or none when the chain's owner has ended. The owner does nothing else meanwhile, so a look takes
    /// no more than a few milliseconds on a full chain; what can be worked out elsewhere is.
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Sharechain) -> T + Send + 'static) -> Option<T> {
        let (reply, found) = oneshot::channel();
        let look = Look(Box::new(move |chain| {
            // Whoever asked may have gone away.
            if !reply.is_closed() {
                let _ = reply.send(look(chain));
            }
        }));
        self.queries.send(Query::Look(look)).await.ok()?;
        found.await.ok()
    }

    /// What shares are read and checked by.
    pub fn rules(&self) -> ShareRules {
        sharechain::chain::share_rules(self.network)
    }
}

/// Names and explains the metrics of this part.
pub fn describe() {
    at_risk::describe();
    describe_gauge!("sharechain_height", "Shares from the best one down");
    describe_gauge!("sharechain_shares", "Shares in memory");
    describe_gauge!("sharechain_verified_shares", "Shares in memory that fit their ancestors");
    describe_gauge!("sharechain_pool_hash_rate", "Hashes per second of the pool over the last hour; 0 while unknown");
    describe_counter!(
        "sharechain_own_shares_total",
        "Shares that miners of this node found, by whether they came in time"
    );
    describe_counter!("sharechain_received_shares_total", "Shares that peers sent and that were not here yet");
    describe_counter!("sharechain_checked_shares_total", "Shares that were checked with their ancestors");
    describe_gauge!("sharechain_tip_timestamp_seconds", "The time that the best share bears, in seconds since 1970");
    describe_counter!("sharechain_refused_shares_total", "Shares that did not fit their ancestors");
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
    counter!("sharechain_received_shares_total").absolute(0);
    counter!("sharechain_refused_shares_total").absolute(0);
    counter!("sharechain_early_shares_total").absolute(0);
    counter!("sharechain_checked_shares_total").absolute(0);
}
