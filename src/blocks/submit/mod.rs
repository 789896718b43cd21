//! Gets found blocks accepted. Every route starts at once and the journal is written beside them, so that neither a disk nor
//! a daemon that hangs delays a block. Routes go on until the daemon has the block in its best chain, says in answer to
//! `submitblock` that it breaks a rule, or has a competitor of it 100 blocks deep.
//!
//! ```text
//! FoundBlock ──▶ Submitter ──▶ Submission ──▶ a pursuit per Route ──outcome──▶ verdict ──▶ BlockReport
//!                    ▲              └──▶ FileKeeper: journal file, its sync, its state
//!  journal's blocks, │
//!  Resubmitter ──────┘
//! ```

mod keeper;
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

use super::{Reports, Route};
use crate::blocks::FoundBlock;
use crate::blocks::journal::{self, FindError, Journal, Unfinished};
use crate::runtime::tasks::Tasks;
use crate::template::Template;
use keeper::{FileKeeper, Safe};
use submission::Submission;

/// Time that blocks in flight keep a stopping node: long enough for a first attempt, short of the two seconds that a stop
/// may take. What is not settled by then is in the journal.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Requests to submit a block of the journal again that may wait; more are refused.
const REQUESTS_QUEUED_MAX: usize = 16;

/// Stale and rejected blocks of earlier runs that each route reads back and submits at once: a test network may have
/// hundreds, of megabytes each.
const LEFTOVERS_AT_ONCE: usize = 4;

/// What the submitter works with.
pub(crate) struct Inputs {
    /// Where blocks are kept.
    pub(crate) journal: Journal,
    /// The ways to the daemon. Blocks that earlier runs hold for rejected go by the first alone, whose answers are the
    /// daemon's own words.
    pub(crate) routes: Vec<Arc<dyn Route>>,
    /// New blocks. The submitter ends when the last sender is dropped.
    pub(crate) blocks: mpsc::Receiver<FoundBlock>,
    /// The daemon's templates, for the height of its chain.
    pub(crate) templates: watch::Receiver<Option<Arc<Template>>>,
    /// Where outcomes are reported.
    pub(crate) reports: Reports,
}

/// Starts taking up blocks: those that the journal has left of an earlier run, and those that come.
pub(crate) fn start(tasks: &Tasks, inputs: Inputs) -> Resubmitter {
    let Inputs { journal, routes, blocks, templates, reports } = inputs;
    let (sender, requests) = mpsc::channel(REQUESTS_QUEUED_MAX);
    let leftovers = routes.iter().map(|_| Semaphore::new(LEFTOVERS_AT_ONCE)).collect();
    let submitter = Submitter {
        tasks: tasks.clone(),
        journal,
        routes: routes.into(),
        templates,
        reports,
        live: Arc::default(),
        reading: Arc::default(),
        leftovers,
    };
    tasks.spawn("submit", submitter.run(blocks, requests));
    Resubmitter(sender)
}

/// Has blocks of the journal submitted again. Clones share the submitter.
#[derive(Debug, Clone)]
pub struct Resubmitter(mpsc::Sender<Request>);

#[derive(Debug)]
struct Request {
    hash: BlockHash,
    reply: Option<oneshot::Sender<Result<(), ResubmitError>>>,
}

/// Why a block is not submitted again.
#[derive(Debug, Error)]
pub enum ResubmitError {
    /// There are no bytes of it.
    #[error(
        "no bytes of block {0} are kept: those of a block that is mature, or that lost by 100 blocks, are removed; bitcoind \
         may have them (bitcoin-cli getblock {0} 0)"
    )]
    NotKept(BlockHash),
    /// Its file cannot be read.
    #[error(transparent)]
    Find(#[from] FindError),
    /// An earlier request is still reading its file.
    #[error("block {0} is being read from its file already: the disk is slow")]
    Reading(BlockHash),
    /// The node ends, or has too many requests already.
    #[error("the node is stopping, or too busy: try again")]
    Busy,
}

impl Resubmitter {
    /// Submits a block of the journal by every route; one that is on its way is tried at once.
    ///
    /// # Errors
    /// [`ResubmitError`].
    pub async fn resubmit(&self, hash: BlockHash) -> Result<(), ResubmitError> {
        let (reply, done) = oneshot::channel();
        self.0.try_send(Request { hash, reply: Some(reply) }).map_err(|_| ResubmitError::Busy)?;
        done.await.map_err(|_| ResubmitError::Busy)?
    }

    /// As [`resubmit`](Self::resubmit), without an answer. A full queue drops it.
    pub fn request(&self, hash: BlockHash) {
        let _ = self.0.try_send(Request { hash, reply: None });
    }
}

#[cfg(test)]
impl Resubmitter {
    /// One that is always busy.
    pub(crate) fn of_nobody() -> Self {
        Self(mpsc::channel(1).0)
    }
}

#[derive(Clone)]
struct Submitter {
    tasks: Tasks,
    journal: Journal,
    routes: Arc<[Arc<dyn Route>]>,
    templates: watch::Receiver<Option<Arc<Template>>>,
    reports: Reports,
    /// Blocks on their way, each with the signal that has its routes try at once.
    live: Arc<Mutex<HashMap<BlockHash, Arc<Notify>>>>,
    /// Blocks whose files are being read on request: one reader each, however long the disk takes.
    reading: Arc<Mutex<HashSet<BlockHash>>>,
    /// For each route, `LEFTOVERS_AT_ONCE` permits to have a block in memory that is otherwise in its file alone. A route that
    /// hangs keeps its own.
    leftovers: Arc<[Semaphore]>,
}

/// How a block comes to be submitted.
#[derive(Debug)]
enum Origin {
    /// Found, or made of a peer's share, just now.
    New,
    /// Kept in the journal.
    Kept(journal::Entry),
    /// Kept in the journal as rejected: only the daemon's own answer counts, and saying the same again is no news.
    Rejected(journal::Entry),
}

impl Submitter {
    async fn run(self, mut blocks: mpsc::Receiver<FoundBlock>, mut requests: mpsc::Receiver<Request>) {
        let stop = self.tasks.stop_signal();
        let journal = self.journal.clone();
        // Beside new blocks: a disk that hangs is no reason to keep one.
        let mut leftovers: Option<BoxFuture<'static, _>> = Some(Box::pin(async move {
            // What an earlier run left is that run's while it lasts.
            journal.ours().await;
            tokio::task::spawn_blocking(move || journal.unfinished()).await
        }));
        loop {
            tokio::select! {
                biased;
                block = blocks.recv() => match block {
                    Some(block) => self.take_up(block, Origin::New),
                    // Sessions and share chain have ended, so no block that is being assembled at a stop is lost.
                    None => return,
                },
                found = async { leftovers.as_mut().expect("it is there").await },
                    if leftovers.is_some() && !stop.is_cancelled() =>
                {
                    leftovers = None;
                    match found {
                        Ok(Ok(found)) => self.resubmit_all(found),
                        Ok(Err(error)) => error!(%error, "cannot look for found blocks of an earlier run"),
                        Err(error) => error!(%error, "looking for found blocks of an earlier run failed"),
                    }
                }
                Some(Request { hash, reply }) = requests.recv() => {
                    let submitter = self.clone();
                    // Reads a file, which may take its time.
                    self.tasks.spawn("resubmit", async move {
                        let done = submitter.resubmit(hash).await;
                        match reply {
                            Some(reply) => drop(reply.send(done)),
                            None => if let Err(error) = done {
                                debug!(%hash, %error, "a block cannot be submitted again");
                            }
                        }
                    });
                }
            }
        }
    }

    fn resubmit_all(&self, found: Unfinished) {
        for (path, reason) in found.damaged {
            error!(path = %path.display(), %reason, "the file of a found block is damaged and was set aside");
        }
        for (block, entry) in found.blocks {
            warn!(height = block.height, hash = %block.hash, "submitting a block of an earlier run");
            self.take_up(block, Origin::Kept(entry));
        }
        for (block, entry) in found.rejected {
            info!(height = block.height, hash = %block.hash, "submitting a rejected block once more");
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
        let (block, entry) = found.ok_or(ResubmitError::NotKept(hash))?;
        info!(height = block.height, %hash, "submitting a block again");
        self.take_up(block, Origin::Kept(entry));
        Ok(())
    }

    /// Starts a task for the block: none waits for another. One that is on its way already is tried at once.
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
        let safe = Arc::new(Safe::since(judged_at));
        let keeper = FileKeeper {
            journal: self.journal.clone(),
            fates,
            kept,
            safe: safe.clone(),
            stop: self.tasks.stop_signal(),
        };
        // First of all: a file is written in a millisecond, and a kill may come in the next.
        self.tasks.spawn("found block's file", keeper.run(block.clone(), entry));
        let submission = Submission {
            about: FoundBlock { bytes: Bytes::new(), ..block.clone() },
            is_recheck,
            leftovers: block.bytes.is_empty().then(|| self.leftovers.clone()),
            bytes: Mutex::new((!block.bytes.is_empty()).then_some(block.bytes)),
            entries,
            routes,
            templates: self.templates.clone(),
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

/// A block's place among those on their way, free again when dropped.
struct Live {
    hash: BlockHash,
    all: Arc<Mutex<HashMap<BlockHash, Arc<Notify>>>>,
}

impl Live {
    /// Takes the place, and returns it with the signal that has the block tried at once. Where it is taken, sends that
    /// signal instead.
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
