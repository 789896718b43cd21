//! One found block on its way: a pursuit for each route, and the verdict.

use bitcoin::BlockHash;
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use metrics::{Gauge, counter, gauge, histogram};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::keeper::Safe;
use super::{Live, STOP_GRACE};
use crate::blocks::journal::{self, DamageError};
use crate::blocks::{BlockReport, Finding, FoundBlock, Outcome, Reports, Route};
use crate::runtime::backoff::Backoff;
use crate::template::Template;

/// First and longest wait before a route that failed is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// Wait before a stale block is offered again: the daemon has it, as a rule, and connects it by itself after a
/// reorganisation.
const STALE_RETRY: Duration = Duration::from_secs(60);

/// Depth at which a stale block's competitor decides it, in blocks.
pub(super) const COMPETITOR_DEPTH: u32 = 100;

/// Time that a rejection waits for another route to get the block accepted, and that routes may go on after the verdict.
const SETTLE: Duration = Duration::from_secs(10);

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

/// One block on its way.
pub(super) struct Submission {
    /// The block without its bytes.
    pub(super) about: FoundBlock,
    /// Whether it was rejected before.
    pub(super) is_recheck: bool,
    /// Its bytes; none while they are in its file and no attempt is due: a stale block is offered for hours.
    pub(super) bytes: Mutex<Option<Bytes>>,
    /// For a block that stays in its file between attempts from the start: limits how many are in memory, by route.
    pub(super) leftovers: Option<Arc<[Semaphore]>>,
    /// Its file, once there is one.
    pub(super) entries: watch::Receiver<Option<journal::Entry>>,
    pub(super) routes: Arc<[Arc<dyn Route>]>,
    pub(super) templates: watch::Receiver<Option<Arc<Template>>>,
    pub(super) reports: Reports,
    pub(super) fate: watch::Sender<Option<Outcome>>,
    pub(super) safe: Arc<Safe>,
    /// Has the routes try at once.
    pub(super) again: Arc<Notify>,
    pub(super) stop: CancellationToken,
    /// The verdict is final: no more retries.
    pub(super) decided: CancellationToken,
    pub(super) _live: Live,
}

/// A route's outcome.
struct Word {
    outcome: Outcome,
    /// Whether the competitor was deep enough before the daemon was asked.
    is_buried: bool,
}

impl Submission {
    pub(super) async fn run(self) {
        let (said, mut words) = mpsc::unbounded_channel();
        let mut pursuits: FuturesUnordered<_> =
            self.routes.iter().enumerate().map(|(index, route)| self.pursue(index, route.as_ref(), &said)).collect();
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
    async fn pursue(&self, index: usize, route: &dyn Route, said: &mpsc::UnboundedSender<Word>) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        let mut templates = self.templates.clone();
        let mut failed_before = false;
        loop {
            let is_buried = self.is_buried();
            let parent = tip(&mut templates);
            let turn = match &self.leftovers {
                Some(leftovers) => Some(leftovers[index].acquire().await.expect("it is never closed")),
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
            let (height, hash) = (block.height, block.hash);
            let Finding { value, payee, finder, .. } = &block.finding;
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
