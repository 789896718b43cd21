//! Submission of one found block: a pursuit per route, and the verdict.

use bitcoin::BlockHash;
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use metrics::Gauge;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::keeper::Safe;
use super::proofs::Proofs;
use super::{Live, STOP_GRACE};
use crate::blocks::journal::{self, DamageError};
use crate::blocks::{BlockReport, Chain, Finding, FoundBlock, Outcome, Reports, Route};
use crate::runtime::backoff::Backoff;
use crate::template::NextBlock;

/// First and longest back-off of a failed route.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// Pause before a stale block is offered again: the daemon usually has it, and connects it by itself after a
/// reorganisation.
const STALE_RETRY: Duration = Duration::from_secs(60);

/// Time that a rejection waits for another route to get the block accepted, and that routes may take after the verdict.
const SETTLE: Duration = Duration::from_secs(10);

/// Counts a block in the gauge of unsettled blocks until dropped.
struct Unsettled(Gauge);

impl Unsettled {
    fn one(chain: &Chain) -> Self {
        let gauge = chain.unsettled();
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// One block in flight.
pub(super) struct Submission {
    /// The block without its bytes.
    pub(super) about: FoundBlock,
    /// Set if an earlier run holds it for rejected.
    pub(super) is_recheck: bool,
    /// Its bytes; `None` while they are on disk and no attempt is due: a stale block is offered for hours.
    pub(super) bytes: Mutex<Option<Bytes>>,
    /// Set if the block stays on disk between attempts from the start: limits such blocks in memory, by route.
    pub(super) leftovers: Option<Arc<[Semaphore]>>,
    /// Its file, once written.
    pub(super) entries: watch::Receiver<Option<journal::Entry>>,
    pub(super) routes: Arc<[Arc<dyn Route>]>,
    pub(super) next_block: watch::Receiver<Option<NextBlock>>,
    pub(super) chain: Arc<Chain>,
    pub(super) proofs: Arc<Mutex<Proofs>>,
    pub(super) reports: Reports,
    pub(super) fate: watch::Sender<Option<Outcome>>,
    pub(super) safe: Arc<Safe>,
    /// Makes the routes retry at once.
    pub(super) again: Arc<Notify>,
    pub(super) stop: CancellationToken,
    /// Cancelled once the verdict is final: no more retries.
    pub(super) decided: CancellationToken,
    pub(super) _live: Live,
}

/// A route's outcome.
struct Word {
    outcome: Outcome,
    /// True if the competitor was deep enough before the attempt.
    is_buried: bool,
}

impl Submission {
    pub(super) async fn run(self) {
        let (said, mut words) = mpsc::unbounded_channel();
        let mut pursuits: FuturesUnordered<_> =
            self.routes.iter().enumerate().map(|(index, route)| self.pursue(index, route.as_ref(), &said)).collect();
        let mut unsettled = Some(Unsettled::one(&self.chain));
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
                        let (chain, depth) = (self.chain.label(), self.chain.maturity());
                        let (hash, height) = (self.about.hash, self.about.height);
                        info!(chain, %hash, height, "stale block given up: its competitor is {depth} deep");
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
                            error!(chain = self.chain.label(), hash = %self.about.hash, "no route left to submit a found block: its file stays in found_blocks");
                            return;
                        }
                    }
                },
                () = sleep_until(settled_at), if rejection.is_some() => {
                    break rejection.take().expect("it is there").0;
                }
                () = &mut stopped => {
                    warn!(chain = self.chain.label(), hash = %self.about.hash, "stopping before the block's outcome is known: the next start submits it again");
                    return;
                }
            }
        };
        self.decided.cancel();
        if verdict == Outcome::Accepted {
            self.proofs.lock().accepted(&self.about.hash);
        }
        self.conclude(&verdict);
        drop(unsettled);
        self.fate.send_replace(Some(verdict));
        // The other routes' outcomes are still logged; their tasks end here at the latest.
        tokio::select! {
            _ = timeout(SETTLE, async { while pursuits.next().await.is_some() {} }) => {}
            () = &mut stopped => {}
        }
    }

    /// Reports that a competitor is in the best chain. The submission goes on.
    fn show_stale(&self, unsettled: &mut Option<Unsettled>) {
        if unsettled.take().is_none() {
            return;
        }
        self.conclude(&Outcome::Stale);
        self.fate.send_replace(Some(Outcome::Stale));
    }

    /// Runs one route until its outcome is final, or until the block is decided.
    async fn pursue(&self, index: usize, route: &dyn Route, said: &mpsc::UnboundedSender<Word>) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        let mut next_block = self.next_block.clone();
        let mut failed_before = false;
        loop {
            let is_buried = self.is_buried();
            let parent = tip(&mut next_block);
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
                    warn!(chain = self.chain.label(), hash = %self.about.hash, %reason, "cannot read the file of a stale block: it is not offered again");
                    return;
                }
            };
            let started = Instant::now();
            let outcome = route.attempt(&block).await;
            self.put_back(&block);
            drop(turn);
            let name = route.name();
            self.chain.count_submission(name, &outcome, started.elapsed());
            if matches!(outcome, Outcome::Accepted | Outcome::Stale) {
                self.safe.reached();
            }
            // Reports are buffered for lagging subscribers: those on hundreds of stale blocks omit the bytes.
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
                // The daemon is back, or has another tip: its verdict may have changed.
                () = changed(&mut next_block, parent), if !is_stale => backoff.reset(),
                () = sleep(pause) => {}
            }
        }
    }

    /// Returns the block with its bytes, from memory or from its file.
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

    /// Keeps the bytes in memory while the block is not stale, or has no file.
    fn put_back(&self, block: &FoundBlock) {
        let is_stale = self.leftovers.is_some() || *self.fate.borrow() == Some(Outcome::Stale);
        let is_in_file = self.entries.borrow().is_some();
        *self.bytes.lock() = if is_stale && is_in_file { None } else { Some(block.bytes.clone()) };
    }

    /// True if a competitor would be so deep that the block can be given up.
    fn is_buried(&self) -> bool {
        let next = *self.next_block.borrow();
        next.is_some_and(|next| next.height > self.about.height.saturating_add(self.chain.maturity()))
    }

    fn log(&self, route: &'static str, outcome: &Outcome, failed_before: bool) {
        let (chain, hash, reason) = (self.chain.label(), self.about.hash, outcome.reason().unwrap_or_default());
        match outcome {
            // Logged once: retries during an outage of the daemon would fill the log.
            Outcome::Failed(_) | Outcome::Waiting(_) if !failed_before => {
                warn!(chain, %hash, route, reason, "block not delivered, trying on");
            }
            Outcome::Failed(_) | Outcome::Waiting(_) => debug!(chain, %hash, route, reason, "block not delivered yet"),
            Outcome::Rejected(_) if self.is_recheck => info!(chain, %hash, route, reason, "block is still rejected"),
            Outcome::Rejected(_) => warn!(chain, %hash, route, reason, "block rejected"),
            Outcome::Accepted | Outcome::Stale => {
                info!(chain, %hash, route, outcome = outcome.word(), "block delivered")
            }
        }
    }

    fn conclude(&self, verdict: &Outcome) {
        let bytes = self.bytes.lock().clone().unwrap_or_default();
        let block = FoundBlock { bytes, ..self.about.clone() };
        let is_news = !(self.is_recheck && matches!(verdict, Outcome::Rejected(_)));
        if is_news {
            self.chain.count_verdict(verdict);
            let (chain, height, hash) = (self.chain.label(), block.height, block.hash);
            let Finding { value, payee, finder, .. } = &block.finding;
            let depth = self.chain.maturity();
            match verdict {
                Outcome::Accepted => info!(chain, height, %hash, payee, value, finder, "BLOCK ACCEPTED"),
                Outcome::Stale => warn!(
                    chain, height, %hash, payee, value, finder,
                    "block is stale: another was first; it is offered until that one is {depth} deep"
                ),
                Outcome::Rejected(reason) | Outcome::Waiting(reason) | Outcome::Failed(reason) => {
                    let text = if chain.is_none() {
                        "BLOCK REJECTED: it breaks a rule; its bytes are kept in found_blocks"
                    } else {
                        "BLOCK OF A MERGED CHAIN REJECTED by its daemon; what was submitted is kept in found_blocks"
                    };
                    error!(chain, height, %hash, payee, value, finder, reason, "{text}");
                }
            }
        }
        self.reports.send(BlockReport { block, route: None, outcome: verdict.clone() });
    }
}

/// Returns the last block of the daemon's chain.
fn tip(next_block: &mut watch::Receiver<Option<NextBlock>>) -> Option<BlockHash> {
    next_block.borrow_and_update().map(|next| next.previous_block)
}

/// Waits until the daemon's chain ends in another block than `before`.
async fn changed(next_block: &mut watch::Receiver<Option<NextBlock>>, before: Option<BlockHash>) {
    loop {
        if next_block.changed().await.is_err() {
            return std::future::pending().await;
        }
        let now = tip(next_block);
        if now.is_some() && now != before {
            return;
        }
    }
}
