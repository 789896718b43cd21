//! Submits found blocks. Every route starts at once and the journal is written beside them, so that neither a hanging
//! disk nor a hanging daemon delays a block. Routes retry until the daemon has the block in its best chain, rejects it
//! in answer to `submitblock`, or has a competitor of it 100 blocks deep.
//!
//! ```text
//! FoundBlock ──▶ Submitter ──▶ Submission ──▶ one pursuit per Route ──outcome──▶ verdict ──▶ BlockReport
//!                    ▲              └──▶ FileKeeper: journal file, its sync, its state
//!  journal's blocks, │
//!  Resubmitter ──────┘
//! ```

mod keeper;
mod proofs;
mod submission;
#[cfg(test)]
mod tests;

use bitcoin::BlockHash;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{Chain, Reports, Route};
use crate::blocks::FoundBlock;
use crate::blocks::journal::{self, FindError, Journal, Unfinished};
use crate::runtime::tasks::Tasks;
use crate::template::NextBlock;
pub(crate) use proofs::PROOFS_MAX;

use keeper::{FileKeeper, Safe};
use proofs::{LIVE_MAX, Proofs};
use submission::Submission;

/// Grace period for blocks in flight at a stop: enough for a first attempt, and less than the two seconds that a stop
/// may take. Unsettled blocks remain in the journal.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Capacity of the queue of found blocks. One in ten minutes is usual and each is processed at once; regtest finds them
/// faster than they are processed, and then the finder waits.
const BLOCKS_QUEUED_MAX: usize = 64;

/// Capacity of the queue of resubmission requests; more are refused.
const REQUESTS_QUEUED_MAX: usize = 16;

/// Stale and rejected blocks of earlier runs that each route reads and submits at a time: a test network may have
/// hundreds, of megabytes each.
const LEFTOVERS_AT_ONCE: usize = 4;

/// Inputs of the submitter.
pub(crate) struct Inputs {
    pub(crate) journal: Journal,
    /// Routes to the daemon. Blocks that earlier runs hold for rejected use only the first, whose answers are the
    /// daemon's own.
    pub(crate) routes: Vec<Arc<dyn Route>>,
    /// Position of the next block in the daemon's chain; `None` while unknown.
    pub(crate) next_block: watch::Receiver<Option<NextBlock>>,
}

/// Handle to the submitter. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    /// New blocks. The submitter ends when the last sender is dropped.
    pub(crate) blocks: mpsc::Sender<FoundBlock>,
    pub(crate) resubmitter: Resubmitter,
    pub(crate) reports: Reports,
}

/// Starts the submitter: it takes up new blocks, and those that an earlier run left in the journal.
pub(crate) fn start(tasks: &Tasks, inputs: Inputs) -> Handle {
    let Inputs { journal, routes, next_block } = inputs;
    let (blocks, found) = mpsc::channel(BLOCKS_QUEUED_MAX);
    let (sender, requests) = mpsc::channel(REQUESTS_QUEUED_MAX);
    let reports = Reports::new();
    let leftovers = routes.iter().map(|_| Semaphore::new(LEFTOVERS_AT_ONCE)).collect();
    let submitter = Submitter {
        tasks: tasks.clone(),
        chain: journal.chain().clone(),
        journal,
        routes: routes.into(),
        next_block,
        reports: reports.clone(),
        live: Arc::default(),
        proofs: Arc::default(),
        reading: Arc::default(),
        leftovers,
    };
    tasks.spawn("submit", submitter.run(found, requests));
    Handle { blocks, resubmitter: Resubmitter(sender), reports }
}

/// Handle that requests resubmission of blocks in the journal. Clones share the submitter.
#[derive(Debug, Clone)]
pub struct Resubmitter(mpsc::Sender<Request>);

#[derive(Debug)]
struct Request {
    hash: BlockHash,
    reply: Option<oneshot::Sender<Result<(), ResubmitError>>>,
}

/// Reason why a block is not submitted again.
#[derive(Debug, Error)]
pub enum ResubmitError {
    /// Its bytes are not kept by any of these chains.
    #[error(
        "no bytes of block {hash} are kept: those of a block that is mature, or that lost by as many blocks ({}), are \
         removed; the daemon may have them (getblock {hash} 0)",
        maturities(.chains)
    )]
    NotKept {
        /// Hash of the block.
        hash: BlockHash,
        /// Chains whose journals were searched.
        chains: Vec<Arc<Chain>>,
    },
    /// Its file cannot be read.
    #[error(transparent)]
    Find(#[from] FindError),
    /// An earlier request is still reading its file.
    #[error("the file of block {0} is being read already: the disk is slow")]
    Reading(BlockHash),
    /// The node is stopping, or its queue is full.
    #[error("the node is stopping, or too busy: try again")]
    Busy,
}

/// Lists each chain's daemon with the chain's maturity.
fn maturities(chains: &[Arc<Chain>]) -> String {
    let maturity = |chain: &Arc<Chain>| format!("{} for {}", chain.maturity(), chain.daemon());
    chains.iter().map(maturity).collect::<Vec<_>>().join(", ")
}

impl Resubmitter {
    /// Submits a block of the journal by every route; one in flight is retried at once.
    ///
    /// # Errors
    /// [`ResubmitError`].
    pub async fn resubmit(&self, hash: BlockHash) -> Result<(), ResubmitError> {
        let (reply, done) = oneshot::channel();
        self.0.try_send(Request { hash, reply: Some(reply) }).map_err(|_| ResubmitError::Busy)?;
        done.await.map_err(|_| ResubmitError::Busy)?
    }

    /// Same as [`resubmit`](Self::resubmit), without an answer. Dropped if the queue is full.
    pub fn request(&self, hash: BlockHash) {
        let _ = self.0.try_send(Request { hash, reply: None });
    }
}

impl Resubmitter {
    /// Returns a handle that is always busy, for routes without a node.
    pub fn disconnected() -> Self {
        Self(mpsc::channel(1).0)
    }
}

#[derive(Clone)]
struct Submitter {
    tasks: Tasks,
    chain: Arc<Chain>,
    journal: Journal,
    routes: Arc<[Arc<dyn Route>]>,
    next_block: watch::Receiver<Option<NextBlock>>,
    reports: Reports,
    /// Blocks in flight, each with the signal that makes its routes retry at once.
    live: Arc<Mutex<HashMap<BlockHash, Arc<Notify>>>>,
    /// Solutions that a merged chain's blocks may still have.
    proofs: Arc<Mutex<Proofs>>,
    /// Blocks whose files are being read on request, with one reader each.
    reading: Arc<Mutex<HashSet<BlockHash>>>,
    /// `LEFTOVERS_AT_ONCE` permits per route to load a block that is otherwise only on disk. A route that hangs holds
    /// only its own.
    leftovers: Arc<[Semaphore]>,
}

/// Origin of a block to submit.
#[derive(Debug)]
enum Origin {
    /// Just found, or assembled from a peer's share.
    New,
    /// Kept in the journal.
    Kept(journal::Entry),
    /// Kept in the journal as rejected: only the daemon's own answer counts, and another rejection is not reported.
    Rejected(journal::Entry),
}

impl Submitter {
    async fn run(self, mut blocks: mpsc::Receiver<FoundBlock>, mut requests: mpsc::Receiver<Request>) {
        let stop = self.tasks.stop_signal();
        let journal = self.journal.clone();
        let chain = self.chain.clone();
        // Concurrent with new blocks, which a hanging disk must not delay.
        let mut leftovers: Option<BoxFuture<'static, _>> = Some(Box::pin(async move {
            // Until the earlier process ends, its blocks are its own.
            journal.ours().await;
            tokio::task::spawn_blocking(move || journal.unfinished()).await
        }));
        loop {
            tokio::select! {
                biased;
                block = blocks.recv() => match block {
                    Some(block) => if self.is_wanted(&block) {
                        self.take_up(block, Origin::New);
                    },
                    // Sessions and share chain have ended: no block is still being assembled.
                    None => return,
                },
                found = async { leftovers.as_mut().expect("it is there").await },
                    if leftovers.is_some() && !stop.is_cancelled() =>
                {
                    leftovers = None;
                    match found {
                        Ok(Ok(found)) => self.resubmit_all(found),
                        Ok(Err(error)) => error!(chain = chain.label(), %error, "cannot read found blocks of an earlier run"),
                        Err(error) => error!(chain = chain.label(), %error, "reading found blocks of an earlier run failed"),
                    }
                }
                Some(Request { hash, reply }) = requests.recv() => {
                    let submitter = self.clone();
                    // Reading the file may take long.
                    self.tasks.spawn("resubmit", async move {
                        let done = submitter.resubmit(hash).await;
                        match reply {
                            Some(reply) => drop(reply.send(done)),
                            None => if let Err(error) = done {
                                debug!(chain = submitter.chain.label(), %hash, %error, "cannot submit a block again");
                            }
                        }
                    });
                }
            }
        }
    }

    /// True if a new block is to be submitted: always on the parent chain, whose blocks are all different.
    fn is_wanted(&self, block: &FoundBlock) -> bool {
        let Some(chain) = self.chain.label() else { return true };
        let (height, hash) = (block.height, block.hash);
        let live = self.live.lock();
        if live.contains_key(&hash) {
            debug!(chain, height, %hash, "another proof of a block that is being submitted");
            return false;
        }
        if live.len() >= LIVE_MAX {
            let daemon = self.chain.daemon();
            error!(chain, height, %hash, "found block dropped: {LIVE_MAX} are being submitted, and {daemon} takes none");
            return false;
        }
        let is_admitted = self.proofs.lock().admit(hash);
        if !is_admitted {
            debug!(chain, height, %hash, "another proof of a block that was submitted");
        }
        is_admitted
    }

    fn resubmit_all(&self, found: Unfinished) {
        let chain = self.chain.label();
        for (path, reason) in found.damaged {
            error!(chain, path = %path.display(), %reason, "the file of a found block is damaged and was set aside");
        }
        for (block, entry) in found.blocks {
            warn!(chain, height = block.height, hash = %block.hash, "submitting a block of an earlier run");
            self.take_up(block, Origin::Kept(entry));
        }
        for (block, entry) in found.rejected {
            info!(chain, height = block.height, hash = %block.hash, "submitting a rejected block once more");
            self.take_up(block, Origin::Rejected(entry));
        }
    }

    async fn resubmit(&self, hash: BlockHash) -> Result<(), ResubmitError> {
        if let Some(again) = self.live.lock().get(&hash) {
            again.notify_waiters();
            return Ok(());
        }
        if !self.reading.lock().insert(hash) {
            return Err(ResubmitError::Reading(hash));
        }
        let journal = self.journal.clone();
        let found = tokio::task::spawn_blocking(move || journal.find(&hash)).await;
        self.reading.lock().remove(&hash);
        let found = found.map_err(|_| ResubmitError::Busy)??;
        let (block, entry) = found.ok_or_else(|| ResubmitError::NotKept { hash, chains: vec![self.chain.clone()] })?;
        info!(chain = self.chain.label(), height = block.height, %hash, "submitting a block again");
        self.take_up(block, Origin::Kept(entry));
        Ok(())
    }

    /// Starts a task for the block: none waits for another. One already in flight is retried at once.
    fn take_up(&self, block: FoundBlock, origin: Origin) {
        let Some((live, again)) = Live::begin(&self.live, block.hash) else { return };
        let judged_at = block.judged_at;
        let is_recheck = matches!(origin, Origin::Rejected(_));
        let entry = match origin {
            Origin::New => None,
            Origin::Kept(entry) | Origin::Rejected(entry) => Some(entry),
        };
        let routes = if is_recheck { self.routes.iter().take(1).cloned().collect() } else { self.routes.clone() };
        let (fate, fates) = watch::channel(None);
        let (kept, entries) = watch::channel(entry.clone());
        let safe = Arc::new(Safe::since(judged_at, self.chain.clone()));
        let keeper = FileKeeper {
            journal: self.journal.clone(),
            fates,
            kept,
            safe: safe.clone(),
            stop: self.tasks.stop_signal(),
        };
        // Spawned first: writing the file takes a millisecond, and the process may be killed in the next.
        self.tasks.spawn("found block's file", keeper.run(block.clone(), entry));
        let submission = Submission {
            about: FoundBlock { bytes: Bytes::new(), ..block.clone() },
            is_recheck,
            leftovers: block.bytes.is_empty().then(|| self.leftovers.clone()),
            bytes: Mutex::new((!block.bytes.is_empty()).then_some(block.bytes)),
            entries,
            routes,
            next_block: self.next_block.clone(),
            chain: self.chain.clone(),
            proofs: self.proofs.clone(),
            reports: self.reports.clone(),
            fate,
            safe,
            again,
            stop: self.tasks.stop_signal(),
            decided: CancellationToken::new(),
            _live: live,
        };
        self.tasks.spawn("submission", submission.run());
    }
}

/// Registration of a block as in flight; dropping it removes the block.
struct Live {
    hash: BlockHash,
    all: Arc<Mutex<HashMap<BlockHash, Arc<Notify>>>>,
}

impl Live {
    /// Registers the block, and returns the signal that makes its routes retry at once. If the block is in flight
    /// already, sends that signal instead.
    fn begin(all: &Arc<Mutex<HashMap<BlockHash, Arc<Notify>>>>, hash: BlockHash) -> Option<(Self, Arc<Notify>)> {
        match all.lock().entry(hash) {
            Entry::Occupied(taken) => {
                taken.get().notify_waiters();
                None
            }
            Entry::Vacant(free) => {
                let again = free.insert(Arc::default()).clone();
                Some((Self { hash, all: all.clone() }, again))
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.all.lock().remove(&self.hash);
    }
}
