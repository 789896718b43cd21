//! Asks one chain's daemon for its next block: every second, after a solution at once, after failures with a back-off.
//! Each chain has a task of its own, so that none waits for another's daemon.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use sharechain::merged::MergedBlock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Mode;
use super::daemon::Daemon;
use super::maturity::confirmations_mature;
use super::reading::{Failure, Moment, Reading};
use super::trouble::{RETRY_LONGEST, Trouble};
use crate::blocks::{Chain, NextBlock};
use crate::runtime::backoff::Backoff;

/// Interval of calls, as in P2Pool (protocol section 9.8); also the minimum time between two calls after solutions, for
/// a daemon with an easy target has solutions all the time.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// First back-off after a failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// What the answers of a daemon mean; no I/O.
#[derive(Debug)]
pub(super) struct Poll {
    reading: Reading,
    /// Set once the daemon was probed since its last failure.
    is_probed: bool,
    backoff: Backoff,
}

impl Poll {
    pub(super) fn new(now: Instant) -> Self {
        Self { reading: Reading::new(now), is_probed: false, backoff: Backoff::new(RETRY_FIRST, RETRY_LONGEST) }
    }

    pub(super) fn reading(&self) -> &Reading {
        &self.reading
    }

    /// Chain number that the next answer must have; `None` if it may have any: another daemon may be there after a
    /// failure.
    pub(super) fn expected_chain_id(&self) -> Option<u32> {
        self.reading.chain_id.filter(|_| self.is_probed)
    }

    /// Takes the daemon's user agent, the first step of a probe.
    pub(super) fn version(&mut self, version: Arc<str>) {
        self.reading.version = version;
    }

    /// Takes a good answer, the second step of a probe as well.
    pub(super) fn answered(&mut self, block: MergedBlock, mode: Mode, now: Moment) {
        let reading = &mut self.reading;
        if reading.block.as_ref().is_none_or(|before| before.hash != block.hash) {
            reading.block_since = Some(now.unix);
        }
        reading.chain_id = Some(block.chain_id);
        // Most answers are the same, which readers then see at a glance.
        if reading.block.as_deref() != Some(&block) {
            reading.block = Some(Arc::new(block));
        }
        reading.mode = Some(mode);
        reading.answered = Some(now);
        reading.failure = None;
        self.is_probed = true;
        self.backoff.reset();
    }

    /// Takes a failure; returns the delay before the next try.
    pub(super) fn failed(&mut self, trouble: &Trouble) -> Duration {
        let reading = &mut self.reading;
        let is_refusal = trouble.is_refusal();
        if is_refusal {
            reading.block = None;
            reading.block_since = None;
        }
        reading.failure = Some(Failure { word: trouble.word(), text: trouble.to_string().into(), is_refusal });
        reading.failures += 1;
        self.is_probed = false;
        trouble.delay(self.backoff.delay())
    }

    /// Position of the next block in the daemon's chain, while it answers.
    pub(super) fn next_block(&self) -> Option<NextBlock> {
        let block = self.reading.block.as_ref().filter(|_| self.reading.failure.is_none())?;
        Some(NextBlock { previous_block: BlockHash::from_byte_array(block.previous_block), height: block.height })
    }
}

/// Poll task of one chain.
#[derive(Debug)]
pub(super) struct Poller {
    pub(super) daemon: Daemon,
    /// The chain of its found blocks, whose maturity depends on its number.
    pub(super) chain: Arc<Chain>,
    /// Position of the chain in the configuration.
    pub(super) index: usize,
    /// States of all chains, each written by its own task.
    pub(super) readings: Arc<watch::Sender<Vec<Reading>>>,
    pub(super) next_block: watch::Sender<Option<NextBlock>>,
    /// Notified when the daemon may have a new block for miners.
    pub(super) news: Arc<Notify>,
}

impl Poller {
    /// Runs until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut poll = Poll::new(Instant::now());
        // Time from which on news leads to a call.
        let mut news_from = Instant::now();
        loop {
            let asked = Instant::now();
            let asking = self.ask(&mut poll);
            let result = tokio::select! {
                () = stop.cancelled() => return,
                result = asking => result,
            };
            let due = match result {
                Ok(block) => {
                    self.chain.set_maturity(confirmations_mature(block.chain_id));
                    poll.answered(block, self.daemon.mode(), Moment::now());
                    asked + POLL_INTERVAL
                }
                Err(trouble) => {
                    let delay = poll.failed(&trouble);
                    debug!(chain = &**self.daemon.chain(), %trouble, ?delay, "no work of a merged chain");
                    Instant::now() + delay
                }
            };
            self.publish(&poll);
            let news = async {
                self.news.notified().await;
                sleep_until(news_from).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(due) => {}
                () = news => news_from = Instant::now() + POLL_INTERVAL,
            }
        }
    }

    async fn ask(&self, poll: &mut Poll) -> Result<MergedBlock, Trouble> {
        if !poll.is_probed {
            let version = self.daemon.version().await?;
            poll.version(version);
        }
        self.daemon.next_block(poll.expected_chain_id(), poll.reading().block.as_deref()).await
    }

    fn publish(&self, poll: &Poll) {
        self.readings.send_modify(|readings| readings[self.index] = poll.reading().clone());
        let next = poll.next_block();
        self.next_block.send_if_modified(|published| std::mem::replace(published, next) != next);
    }
}

#[cfg(test)]
mod tests;
