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

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use metrics::{Gauge, counter, gauge, histogram};
use parking_lot::Mutex;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};
use thiserror::Error;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use bitcoin::BlockHash;

use super::{Reports, Route};
use crate::blocks::journal::{self, DamageError, FindError, Journal, JournalError, Unfinished};
use crate::blocks::{BlockReport, FoundBlock, Outcome};
use crate::runtime::backoff::Backoff;
use crate::runtime::tasks::Tasks;
use crate::template::Template;

/// First and longest wait before a route that failed is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// Wait before a stale block is offered again: the daemon has it, as a rule, and connects it by itself after a
/// reorganisation.
const STALE_RETRY: Duration = Duration::from_secs(60);

/// Depth at which a stale block's competitor decides it, in blocks.
const COMPETITOR_DEPTH: u32 = 100;

/// Time that a rejection waits for another route to get the block accepted, and that routes may go on after the verdict.
const SETTLE: Duration = Duration::from_secs(10);

/// Time that blocks in flight keep a stopping node: long enough for a first attempt, short of the two seconds that a stop
/// may take. What is not settled by then is in the journal.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// First and longest wait before the journal is written again after the disk refused.
const WRITE_RETRY_FIRST: Duration = Duration::from_millis(500);
const WRITE_RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Time after which a write that has not ended is reported.
const WRITE_SLOW: Duration = Duration::from_secs(5);

/// Requests to submit a block of the journal again that may wait; more are refused.
const REQUESTS_QUEUED_MAX: usize = 16;

/// Stale and rejected blocks of earlier runs that are read back and submitted at once: a test network may have hundreds, of
/// megabytes each.
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
    let submitter = Submitter {
        tasks: tasks.clone(),
        journal,
        routes: routes.into(),
        templates,
        reports,
        live: Arc::default(),
        reading: Arc::default(),
        leftovers: Arc::new(Semaphore::new(LEFTOVERS_AT_ONCE)),
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
    /// Permits to have a block without bytes in memory, `LEFTOVERS_AT_ONCE`.
    leftovers: Arc<Semaphore>,
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

/// A block whose fate is not known, in the metrics.
struct Unsettled(Gauge);

impl Unsettled {
    fn one() -> Self {
        let gauge = gauge!("bitcoind_blocks_unsettled");
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Measures how long a block could be lost by a kill of the process.
struct Safe(Mutex<Option<StdInstant>>);

impl Safe {
    fn since(judged_at: Option<StdInstant>) -> Self {
        Self(Mutex::new(judged_at))
    }

    /// The block is on disk, or the daemon has answered.
    fn reached(&self) {
        if let Some(judged_at) = self.0.lock().take() {
            histogram!("bitcoind_block_safe_seconds").record(judged_at.elapsed());
        }
    }
}

/// Keeps a block's file: writes it, syncs it, and has its name say what became of the block.
struct FileKeeper {
    journal: Journal,
    /// The latest verdict; closed when the submission ends.
    fates: watch::Receiver<Option<Outcome>>,
    /// Published once the file is there.
    kept: watch::Sender<Option<journal::Entry>>,
    safe: Arc<Safe>,
    stop: CancellationToken,
}

impl FileKeeper {
    async fn run(self, block: FoundBlock, entry: Option<journal::Entry>) {
        let (hash, stop) = (block.hash, self.stop.clone());
        let is_kept = self.kept.subscribe();
        let stopped = async {
            stop.cancelled().await;
            sleep(STOP_GRACE).await;
        };
        tokio::select! {
            () = self.keep(block, entry) => {}
            () = stopped => if is_kept.borrow().is_none() {
                error!(%hash, "stopping without a found block's file: the disk does not take it");
            }
        }
    }

    async fn keep(mut self, block: FoundBlock, entry: Option<journal::Entry>) {
        let hash = block.hash;
        let mut entry = match entry {
            Some(entry) => entry,
            None => match self.write(block).await {
                Some(entry) => entry,
                None => return,
            },
        };
        self.safe.reached();
        self.kept.send_replace(Some(entry.clone()));
        // Beside the attempts: the disk may take longer than the daemon.
        let syncing = entry.clone();
        finish_sync(tokio::task::spawn_blocking(move || syncing.sync())).await;
        loop {
            let fate = self.fates.borrow_and_update().clone();
            if let Some(fate) = &fate {
                entry = self.mark(entry, fate).await;
                self.kept.send_replace(Some(entry.clone()));
            }
            let is_over = fate.is_some_and(|fate| fate.is_final());
            if is_over || self.fates.changed().await.is_err() {
                debug!(%hash, "a found block's file is in its last state");
                return;
            }
        }
    }

    /// Writes the block, as often as it takes; `None` if another process keeps it.
    async fn write(&mut self, block: FoundBlock) -> Option<journal::Entry> {
        if !self.journal.is_ours() {
            // Found by a peer, as miners are not served yet. The process that has the journal keeps it, too.
            tokio::select! {
                () = self.journal.ours() => {}
                _ = self.fates.wait_for(|fate| fate.as_ref().is_some_and(Outcome::is_final)) => return None,
            }
        }
        let mut backoff = Backoff::new(WRITE_RETRY_FIRST, WRITE_RETRY_LONGEST);
        let block = Arc::new(block);
        loop {
            let (journal, copy) = (self.journal.clone(), block.clone());
            let mut writing = tokio::task::spawn_blocking(move || journal.write(&copy));
            let written = match timeout(WRITE_SLOW, &mut writing).await {
                Ok(written) => written,
                Err(_) => {
                    let reason = format!("the disk has not answered for {} s", WRITE_SLOW.as_secs());
                    error!(hash = %block.hash, reason, "a found block is not on disk yet: it is submitted all the same");
                    self.journal.report(Some(reason));
                    writing.await
                }
            };
            let reason = match written {
                Ok(Ok(entry)) => {
                    self.journal.report(None);
                    return Some(entry);
                }
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            let pause = backoff.delay();
            error!(
                hash = %block.hash, reason, again_in = ?pause,
                "a found block cannot be written to disk: it is submitted all the same, but a restart would forget it"
            );
            self.journal.report(Some(reason));
            sleep(pause).await;
        }
    }

    async fn mark(&self, entry: journal::Entry, fate: &Outcome) -> journal::Entry {
        let (mut marked, fate, before) = (entry.clone(), fate.clone(), entry);
        let marking = tokio::task::spawn_blocking(move || marked.mark(&fate).map(|()| marked));
        match marking.await {
            Ok(Ok(entry)) => return entry,
            Ok(Err(error)) => warn!(%error, "a block's fate could not be noted: the next start submits it again"),
            Err(error) => warn!(%error, "noting a block's fate failed: the next start submits it again"),
        }
        before
    }
}

/// One block on its way.
struct Submission {
    /// The block without its bytes.
    about: FoundBlock,
    /// Whether it was rejected before.
    is_recheck: bool,
    /// Its bytes; none while they are in its file and no attempt is due: a stale block is offered for hours.
    bytes: Mutex<Option<Bytes>>,
    /// For a block that stays in its file between attempts from the start: limits how many are in memory.
    leftovers: Option<Arc<Semaphore>>,
    /// Its file, once there is one.
    entries: watch::Receiver<Option<journal::Entry>>,
    routes: Arc<[Arc<dyn Route>]>,
    templates: watch::Receiver<Option<Arc<Template>>>,
    reports: Reports,
    fate: watch::Sender<Option<Outcome>>,
    safe: Arc<Safe>,
    /// Has the routes try at once.
    again: Arc<Notify>,
    stop: CancellationToken,
    /// The verdict is final: no more retries.
    decided: CancellationToken,
    _live: Live,
}

/// A route's outcome.
struct Word {
    outcome: Outcome,
    /// Whether the competitor was deep enough before the daemon was asked.
    is_buried: bool,
}

impl Submission {
    async fn run(self) {
        let (said, mut words) = mpsc::unbounded_channel();
        let mut pursuits: FuturesUnordered<_> =
            self.routes.iter().map(|route| self.pursue(route.as_ref(), &said)).collect();
        let mut unsettled = Some(Unsettled::one());
        let mut rejection: Option<(Outcome, Instant)> = None;
        let stopped = async {
            self.stop.cancelled().await;
            sleep(STOP_GRACE).await;
        };
        tokio::pin!(stopped);
        let verdict = loop {
            let settled_at = rejection.as_ref().map_or_else(Instant::now, |(_, at)| *at);
            tokio::select! {
                biased;
                Some(Word { outcome, is_buried }) = words.recv() => match outcome {
                    Outcome::Accepted => break Outcome::Accepted,
                    Outcome::Rejected(_) if self.routes.len() == 1 => break outcome,
                    Outcome::Rejected(_) => {
                        rejection.get_or_insert_with(|| (outcome, Instant::now() + SETTLE));
                    }
                    Outcome::Stale | Outcome::Waiting(_) if is_buried => {
                        self.show_stale(&mut unsettled);
                        info!(hash = %self.about.hash, height = self.about.height, "a stale block is given up: its competitor is 100 deep");
                        self.decided.cancel();
                        return;
                    }
                    Outcome::Stale => self.show_stale(&mut unsettled),
                    Outcome::Waiting(_) | Outcome::Failed(_) => {}
                },
                ended = pursuits.next() => if ended.is_none() {
                    match rejection.take() {
                        Some((rejection, _)) => break rejection,
                        None => {
                            error!(hash = %self.about.hash, "no way left to submit a found block: its file stays in found_blocks");
                            return;
                        }
                    }
                },
                () = sleep_until(settled_at), if rejection.is_some() => {
                    break rejection.take().expect("it is there").0;
                }
                () = &mut stopped => {
                    warn!(hash = %self.about.hash, "stopping before the block's fate is known: the next start goes on with it");
                    return;
                }
            }
        };
        self.decided.cancel();
        self.conclude(&verdict);
        drop(unsettled);
        self.fate.send_replace(Some(verdict));
        // The other routes' words are still worth a line in the log; their tasks end here at the latest.
        tokio::select! {
            _ = timeout(SETTLE, async { while pursuits.next().await.is_some() {} }) => {}
            () = &mut stopped => {}
        }
    }

    /// Another block of its height is in the best chain: shown at once, and not the end.
    fn show_stale(&self, unsettled: &mut Option<Unsettled>) {
        if unsettled.take().is_none() {
            return;
        }
        self.conclude(&Outcome::Stale);
        self.fate.send_replace(Some(Outcome::Stale));
    }

    /// One route until it has a final word, or until another's was final for the block.
    async fn pursue(&self, route: &dyn Route, said: &mpsc::UnboundedSender<Word>) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        let mut templates = self.templates.clone();
        let mut failed_before = false;
        loop {
            let is_buried = self.is_buried();
            let parent = tip(&mut templates);
            let turn = match &self.leftovers {
                Some(leftovers) => Some(leftovers.acquire().await.expect("it is never closed")),
                None => None,
            };
            let block = match self.load().await {
                Ok(block) => block,
                // `found` has removed its file.
                Err(_) if is_buried => {
                    let _ = said.send(Word { outcome: Outcome::Stale, is_buried });
                    return;
                }
                Err(reason) => {
                    warn!(hash = %self.about.hash, %reason, "a stale block cannot be read from its file: it is not offered again");
                    return;
                }
            };
            let started = Instant::now();
            let outcome = route.attempt(&block).await;
            self.put_back(&block);
            drop(turn);
            let name = route.name();
            histogram!("bitcoind_block_submission_seconds", "route" => name).record(started.elapsed());
            counter!("bitcoind_block_submissions_total", "route" => name, "outcome" => outcome.word()).increment(1);
            if matches!(outcome, Outcome::Accepted | Outcome::Stale) {
                self.safe.reached();
            }
            // Reports wait for subscribers that lag behind: those on hundreds of stale blocks go without the bytes.
            let block = if self.leftovers.is_some() { self.about.clone() } else { block };
            self.reports.send(BlockReport { block, route: Some(name), outcome: outcome.clone() });
            self.log(name, &outcome, failed_before);
            failed_before = true;
            let is_over = outcome.is_final();
            let is_stale = outcome == Outcome::Stale;
            let pause = if is_stale { STALE_RETRY } else { backoff.delay() };
            let _ = said.send(Word { outcome, is_buried });
            if is_over || self.decided.is_cancelled() {
                return;
            }
            tokio::select! {
                () = self.decided.cancelled() => return,
                () = self.again.notified() => backoff.reset(),
                // The daemon is back, or has another tip: what it said of the block may have changed.
                () = changed(&mut templates, parent), if !is_stale => backoff.reset(),
                () = sleep(pause) => {}
            }
        }
    }

    /// The block for an attempt: from memory, or from its file.
    async fn load(&self) -> Result<FoundBlock, DamageError> {
        if let Some(bytes) = self.bytes.lock().clone() {
            return Ok(FoundBlock { bytes, ..self.about.clone() });
        }
        let Some(entry) = self.entries.borrow().clone() else {
            return Err(DamageError::Unreadable("there is no file".to_owned()));
        };
        match tokio::task::spawn_blocking(move || entry.load()).await {
            Ok(loaded) => loaded,
            Err(error) => Err(DamageError::Unreadable(error.to_string())),
        }
    }

    /// Keeps the bytes in memory while the block may still be a matter of seconds, or has no file.
    fn put_back(&self, block: &FoundBlock) {
        let is_stale = self.leftovers.is_some() || *self.fate.borrow() == Some(Outcome::Stale);
        let is_in_file = self.entries.borrow().is_some();
        *self.bytes.lock() = if is_stale && is_in_file { None } else { Some(block.bytes.clone()) };
    }

    /// Whether a competitor would be so deep that the block can be given up.
    fn is_buried(&self) -> bool {
        let next = self.templates.borrow().as_ref().map(|template| template.height);
        next.is_some_and(|next| next > self.about.height.saturating_add(COMPETITOR_DEPTH))
    }

    fn log(&self, route: &'static str, outcome: &Outcome, failed_before: bool) {
        let (hash, reason) = (self.about.hash, outcome.reason().unwrap_or_default());
        match outcome {
            // Logged once; the retries of a daemon that is away would fill the log.
            Outcome::Failed(_) | Outcome::Waiting(_) if !failed_before => {
                warn!(%hash, route, reason, "block not delivered, trying on");
            }
            Outcome::Failed(_) | Outcome::Waiting(_) => debug!(%hash, route, reason, "block not delivered yet"),
            Outcome::Rejected(_) if self.is_recheck => info!(%hash, route, reason, "block is still rejected"),
            Outcome::Rejected(_) => warn!(%hash, route, reason, "block rejected"),
            Outcome::Accepted | Outcome::Stale => info!(%hash, route, outcome = outcome.word(), "block delivered"),
        }
    }

    fn conclude(&self, verdict: &Outcome) {
        let bytes = self.bytes.lock().clone().unwrap_or_default();
        let block = FoundBlock { bytes, ..self.about.clone() };
        let is_news = !(self.is_recheck && matches!(verdict, Outcome::Rejected(_)));
        if is_news {
            counter!("bitcoind_blocks_total", "outcome" => verdict.word()).increment(1);
            let (height, hash, finder) = (block.height, block.hash, &block.finder);
            let (payee, value) = (&block.payee, block.value);
            match verdict {
                Outcome::Accepted => info!(height, %hash, payee, value, finder, "BLOCK ACCEPTED"),
                Outcome::Stale => warn!(
                    height, %hash, payee, value, finder,
                    "block is stale: another was first; it is offered until that one is 100 deep"
                ),
                Outcome::Rejected(reason) | Outcome::Waiting(reason) | Outcome::Failed(reason) => error!(
                    height, %hash, payee, value, finder, reason,
                    "BLOCK REJECTED: it breaks a rule; its bytes are kept in found_blocks"
                ),
            }
        }
        self.reports.send(BlockReport { block, route: None, outcome: verdict.clone() });
    }
}

/// The block that templates build on.
fn tip(templates: &mut watch::Receiver<Option<Arc<Template>>>) -> Option<BlockHash> {
    templates.borrow_and_update().as_ref().map(|template| template.previous_block)
}

/// Ends when templates build on another block than `before`.
async fn changed(templates: &mut watch::Receiver<Option<Arc<Template>>>, before: Option<BlockHash>) {
    loop {
        if templates.changed().await.is_err() {
            return std::future::pending().await;
        }
        let now = tip(templates);
        if now.is_some() && now != before {
            return;
        }
    }
}

async fn finish_sync(sync: JoinHandle<Result<(), JournalError>>) {
    match sync.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "a found block is not safe from a power cut"),
        Err(error) => warn!(%error, "syncing a found block failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;
    use futures::future::BoxFuture;
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::broadcast;

    use crate::template::TemplateParts;
    use crate::template::tests::{RULES, parts};

    /// Gives these outcomes in turn, then hangs.
    struct Scripted(&'static str, Mutex<VecDeque<Outcome>>);

    impl Route for Scripted {
        fn name(&self) -> &'static str {
            self.0
        }

        fn attempt<'a>(&'a self, _: &'a FoundBlock) -> BoxFuture<'a, Outcome> {
            let next = self.1.lock().pop_front();
            Box::pin(async move {
                match next {
                    Some(outcome) => outcome,
                    None => std::future::pending().await,
                }
            })
        }
    }

    fn block() -> FoundBlock {
        FoundBlock {
            hash: BlockHash::from_byte_array([1; 32]),
            previous_block: BlockHash::from_byte_array([2; 32]),
            height: 7,
            bytes: Bytes::from_static(b"block"),
            value: 1,
            payee: "payee".into(),
            finder: "finder".into(),
            is_ours: true,
            judged_at: None,
        }
    }

    /// The submitter on `journal` with `routes`, at a daemon whose next block has this height.
    struct Bench {
        tasks: Tasks,
        blocks: mpsc::Sender<FoundBlock>,
        heard: broadcast::Receiver<BlockReport>,
        templates: watch::Sender<Option<Arc<Template>>>,
        resubmitter: Resubmitter,
    }

    fn bench(journal: Journal, routes: Vec<Arc<dyn Route>>) -> Bench {
        let tasks = Tasks::new();
        let (blocks, receiver) = mpsc::channel(1);
        let (templates, receiver_of_templates) = watch::channel(None);
        let reports = Reports::new();
        let heard = reports.from_the_start();
        let inputs = Inputs { journal, routes, blocks: receiver, templates: receiver_of_templates, reports };
        let resubmitter = start(&tasks, inputs);
        Bench { tasks, blocks, heard, templates, resubmitter }
    }

    fn at_height(height: u32) -> Option<Arc<Template>> {
        let parts = TemplateParts { height, ..parts() };
        Some(Arc::new(Template::new(parts, RULES).unwrap()))
    }

    fn scripted(name: &'static str, outcomes: &[Outcome]) -> Arc<dyn Route> {
        Arc::new(Scripted(name, Mutex::new(outcomes.iter().cloned().collect())))
    }

    /// The names of the journal's files, by their states.
    fn states(dir: &std::path::Path) -> Vec<String> {
        let files = std::fs::read_dir(dir.join("found_blocks")).unwrap();
        let state = |name: String| name.rsplit('.').next().unwrap().to_owned();
        files.map(|file| state(file.unwrap().file_name().to_string_lossy().into_owned())).collect()
    }

    async fn wait_for_state(dir: &std::path::Path, state: &str) {
        let waited = Instant::now();
        while states(dir) != [state] {
            assert!(waited.elapsed() < Duration::from_secs(10), "{:?} instead of {state}", states(dir));
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Submits one block by routes with these outcomes; gives every report up to the final one, and the journal's file.
    async fn fate(routes: &[(&'static str, &[Outcome])]) -> (Vec<(Option<&'static str>, Outcome)>, String) {
        let dir = tempfile::tempdir().unwrap();
        let routes = routes.iter().map(|(name, outcomes)| scripted(name, outcomes)).collect();
        let mut bench = bench(Journal::of_test(dir.path()), routes);
        bench.blocks.send(block()).await.unwrap();
        let mut told = Vec::new();
        while told.last().is_none_or(|(route, _): &(Option<&str>, Outcome)| route.is_some()) {
            let report = bench.heard.recv().await.unwrap();
            told.push((report.route, report.outcome));
        }
        let waited = Instant::now();
        // Written beside the routes, and renamed just after the verdict.
        let is_open = || states(dir.path()).first().is_none_or(|state| ["block", "tmp"].contains(&state.as_str()));
        while is_open() && waited.elapsed() < Duration::from_secs(10) {
            sleep(Duration::from_millis(5)).await;
        }
        (told, states(dir.path()).remove(0))
    }

    fn failed() -> Outcome {
        Outcome::Failed("no".into())
    }

    fn rejected(reason: &str) -> Outcome {
        Outcome::Rejected(reason.into())
    }

    #[tokio::test]
    async fn one_route_that_hangs_does_not_keep_the_others_word() {
        let (told, state) = fate(&[("rpc", &[]), ("p2p", &[Outcome::Accepted])]).await;
        assert_eq!(told, [(Some("p2p"), Outcome::Accepted), (None, Outcome::Accepted)]);
        assert_eq!(state, "accepted");
    }

    #[tokio::test]
    async fn a_route_that_fails_is_tried_again() {
        let (told, _) = fate(&[("rpc", &[failed(), failed(), Outcome::Accepted])]).await;
        let outcomes: Vec<_> = told.into_iter().map(|(_, outcome)| outcome).collect();
        assert_eq!(outcomes, [failed(), failed(), Outcome::Accepted, Outcome::Accepted]);
    }

    #[tokio::test]
    async fn a_rejection_waits_for_a_route_that_may_know_better() {
        let (told, state) = fate(&[("rpc", &[rejected("bad")]), ("p2p", &[failed(), Outcome::Accepted])]).await;
        assert_eq!(told.last(), Some(&(None, Outcome::Accepted)));
        assert_eq!(state, "accepted");
    }

    #[tokio::test]
    async fn a_rejection_counts_once_no_other_route_got_the_block_accepted() {
        let (told, state) = fate(&[("rpc", &[failed(), rejected("bad")])]).await;
        assert_eq!(told.last(), Some(&(None, rejected("bad"))));
        assert_eq!(state, "rejected");
    }

    impl Bench {
        /// The next verdict; the block is tried at once as long as there is none.
        async fn verdict(&mut self) -> Outcome {
            loop {
                match timeout(Duration::from_millis(20), self.heard.recv()).await {
                    Ok(report) => {
                        let report = report.unwrap();
                        if report.route.is_none() {
                            return report.outcome;
                        }
                    }
                    Err(_) => self.resubmitter.resubmit(block().hash).await.unwrap(),
                }
            }
        }
    }

    #[tokio::test]
    async fn a_stale_block_is_shown_at_once_and_offered_until_the_chain_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let waiting = Outcome::Waiting("no parent".into());
        let route = scripted("rpc", &[waiting, Outcome::Stale, Outcome::Stale, failed(), Outcome::Accepted]);
        let mut bench = bench(Journal::of_test(dir.path()), vec![route]);
        bench.blocks.send(block()).await.unwrap();
        assert_eq!(bench.verdict().await, Outcome::Stale);
        wait_for_state(dir.path(), "stale").await;
        assert_eq!(bench.verdict().await, Outcome::Accepted, "it is shown as stale once");
        wait_for_state(dir.path(), "accepted").await;
    }

    #[tokio::test]
    async fn a_block_is_given_up_when_its_competitor_is_a_hundred_deep() {
        let dir = tempfile::tempdir().unwrap();
        let waiting = vec![Outcome::Waiting("no parent".into()); 1000];
        let mut bench = bench(Journal::of_test(dir.path()), vec![scripted("rpc", &waiting)]);
        bench.templates.send_replace(at_height(block().height + COMPETITOR_DEPTH));
        bench.blocks.send(block()).await.unwrap();
        for _ in 0..20 {
            assert_eq!(bench.heard.recv().await.unwrap().route, Some("rpc"));
            bench.resubmitter.resubmit(block().hash).await.unwrap();
        }
        bench.templates.send_replace(at_height(block().height + COMPETITOR_DEPTH + 1));
        assert_eq!(bench.verdict().await, Outcome::Stale);
        wait_for_state(dir.path(), "stale").await;
        assert_eq!(bench.verdict().await, Outcome::Stale, "it had ended, and began anew with the file");
    }

    #[tokio::test]
    async fn a_block_left_by_an_earlier_run_goes_out_first_and_one_in_the_queue_at_the_stop_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of_test(dir.path());
        journal.write(&block()).unwrap();
        let mut bench = bench(journal.clone(), vec![scripted("rpc", &[Outcome::Accepted])]);
        assert_eq!(bench.heard.recv().await.unwrap().block, block());
        // One that is being assembled while the node stops comes after the signal.
        bench.tasks.stop();
        sleep(Duration::from_millis(50)).await;
        let queued = FoundBlock { hash: BlockHash::from_byte_array([9; 32]), ..block() };
        bench.blocks.send(queued.clone()).await.unwrap();
        drop(bench.blocks);
        assert!(bench.tasks.drain(Duration::from_secs(5)).await);
        let left: Vec<_> = journal.unfinished().unwrap().blocks.into_iter().map(|(block, _)| block).collect();
        assert_eq!(left, [queued]);
    }

    #[tokio::test]
    async fn what_an_earlier_run_held_for_rejected_is_decided_by_the_first_routes_answer() {
        for (answer, state) in
            [(rejected("bad"), "rejected"), (Outcome::Accepted, "accepted"), (Outcome::Stale, "stale")]
        {
            let dir = tempfile::tempdir().unwrap();
            let journal = Journal::of_test(dir.path());
            journal.write(&block()).unwrap().mark(&rejected("an earlier version's guess")).unwrap();
            let routes = vec![scripted("rpc", &[failed(), answer.clone()]), scripted("p2p", &[Outcome::Accepted])];
            let mut bench = bench(journal, routes);
            let mut told = Vec::new();
            while told.last().is_none_or(|(route, _): &(Option<&str>, Outcome)| route.is_some()) {
                let report = bench.heard.recv().await.unwrap();
                told.push((report.route, report.outcome));
            }
            assert_eq!(told, [(Some("rpc"), failed()), (Some("rpc"), answer.clone()), (None, answer)]);
            wait_for_state(dir.path(), state).await;
        }
    }

    #[tokio::test]
    async fn a_block_is_submitted_again_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of_test(dir.path());
        let mut bench = bench(journal.clone(), vec![scripted("rpc", &[Outcome::Accepted])]);
        assert!(matches!(bench.resubmitter.resubmit(block().hash).await, Err(ResubmitError::NotKept(_))));
        journal.write(&block()).unwrap().mark(&Outcome::Accepted).unwrap();
        bench.resubmitter.resubmit(block().hash).await.unwrap();
        assert_eq!(bench.heard.recv().await.unwrap().outcome, Outcome::Accepted);
    }

    /// Takes a while, and counts how many blocks it has at once.
    #[derive(Default)]
    struct Counting {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    impl Route for Counting {
        fn name(&self) -> &'static str {
            "rpc"
        }

        fn attempt<'a>(&'a self, block: &'a FoundBlock) -> BoxFuture<'a, Outcome> {
            Box::pin(async move {
                assert_eq!(block.bytes, super::tests::block().bytes, "it was read from its file");
                let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(now, Ordering::SeqCst);
                sleep(Duration::from_millis(10)).await;
                self.now.fetch_sub(1, Ordering::SeqCst);
                Outcome::Accepted
            })
        }
    }

    #[tokio::test]
    async fn many_stale_blocks_of_earlier_runs_are_offered_a_few_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of_test(dir.path());
        let count = 5 * LEFTOVERS_AT_ONCE;
        for seed in 0..u8::try_from(count).unwrap() {
            let stale = FoundBlock { hash: BlockHash::from_byte_array([seed; 32]), ..block() };
            journal.write(&stale).unwrap().mark(&Outcome::Stale).unwrap();
        }
        let route = Arc::new(Counting::default());
        let mut bench = bench(journal, vec![route.clone()]);
        let mut accepted = 0;
        while accepted < count {
            accepted += usize::from(bench.heard.recv().await.unwrap().route.is_none());
        }
        assert_eq!(route.most.load(Ordering::SeqCst), LEFTOVERS_AT_ONCE);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_occupies_one_reader_however_often_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of_test(dir.path());
        let bench = bench(journal.clone(), vec![scripted("rpc", &[Outcome::Accepted])]);
        let file = dir.path().join("found_blocks").join(format!("0000007-{}.accepted", block().hash));
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        let request = || Box::pin(bench.resubmitter.resubmit(block().hash));
        let (refused, reader) = futures::future::select(request(), request()).await.factor_first();
        assert!(matches!(refused, Err(ResubmitError::Reading(_))), "{refused:?}");
        // The reader gets nothing, and ends.
        std::fs::write(&file, b"").unwrap();
        assert!(matches!(reader.await, Err(ResubmitError::Find(_))));
    }

    #[tokio::test]
    async fn routes_start_at_once_and_a_disk_that_refuses_is_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of_test(dir.path());
        let folder = dir.path().join("found_blocks");
        std::fs::remove_dir(&folder).unwrap();
        let mut bench = bench(journal, vec![scripted("rpc", &[Outcome::Accepted])]);
        bench.blocks.send(block()).await.unwrap();
        assert_eq!(bench.heard.recv().await.unwrap().outcome, Outcome::Accepted);
        std::fs::create_dir(&folder).unwrap();
        wait_for_state(dir.path(), "accepted").await;
    }

    #[tokio::test]
    async fn a_journal_that_hangs_delays_neither_the_routes_nor_a_stop() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of_test(dir.path());
        // To open a FIFO for writing waits for a reader, which never comes.
        let path = dir.path().join("found_blocks").join(format!("{:07}-{}.tmp", block().height, block().hash));
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let Bench { tasks, blocks, mut heard, .. } = bench(journal, vec![scripted("rpc", &[Outcome::Accepted])]);
        blocks.send(block()).await.unwrap();
        drop(blocks);
        assert_eq!(heard.recv().await.unwrap().outcome, Outcome::Accepted);
        assert!(tasks.drain(Duration::from_secs(5)).await);
        // Lets the blocked thread go, so that the test's runtime can end.
        drop(std::fs::File::open(&path).unwrap());
    }
}
