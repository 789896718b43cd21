//! Asks one chain's daemon for its next block, or for a template of it: every second, after a solution at once, after
//! failures with a back-off. Each chain has a task of its own, so that none waits for another's daemon.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use sharechain::merged::{DOGECOIN, MergedBlock};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::daemon::Daemon;
use super::maturity::confirmations_mature;
use super::offers::Offer;
use super::reading::{Failure, Moment, Reading};
use super::trouble::{RETRY_LONGEST, Trouble};
use super::{Mode, Pays};
use crate::blocks::{Chain, NextBlock};
use crate::runtime::backoff::Backoff;

/// Interval of calls, as in P2Pool (protocol section 9.8); also the minimum time between two calls after solutions, for
/// a daemon with an easy target has solutions all the time.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Age from which on a template is replaced although its daemon has the same tip: its time and transactions get old.
pub(super) const TEMPLATE_AGE_MAX: Duration = Duration::from_secs(5);

/// Time until templates are asked for again after the daemon gave none that could be used.
const TEMPLATES_RETRY: Duration = Duration::from_secs(60);

/// First back-off after a failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// What the answers of a daemon mean; no I/O.
#[derive(Debug)]
pub(super) struct Poll {
    reading: Reading,
    /// Set once the daemon was probed since its last failure.
    is_probed: bool,
    /// Time of the last template.
    template_at: Option<Instant>,
    /// Reason why the daemon's templates cannot be used, and the time from which on they are asked for again.
    no_templates: Option<(Trouble, Instant)>,
    backoff: Backoff,
}

impl Poll {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            reading: Reading::new(now),
            is_probed: false,
            template_at: None,
            no_templates: None,
            backoff: Backoff::new(RETRY_FIRST, RETRY_LONGEST),
        }
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

    /// Template that holds as long as the daemon's tip is the same; `None` if another is due.
    fn young_template(&self, now: Instant) -> Option<&Offer> {
        let is_young = self.is_probed && self.template_at.is_some_and(|at| now < at + TEMPLATE_AGE_MAX);
        self.reading.offer.as_ref().filter(|offer| is_young && matches!(offer, Offer::Template { .. }))
    }

    /// False while the daemon's templates are known to be of no use.
    fn tries_templates(&self, now: Instant) -> bool {
        self.no_templates.as_ref().is_none_or(|(_, until)| now >= *until)
    }

    /// Last block that the daemon made, if it made the last one.
    fn made(&self) -> Option<&MergedBlock> {
        match &self.reading.offer {
            Some(Offer::Made(block)) => Some(block),
            _ => None,
        }
    }

    /// Takes a good answer, the second step of a probe as well.
    pub(super) fn answered(&mut self, offer: Offer, mode: Mode, now: Moment) {
        let reading = &mut self.reading;
        if reading.offer.as_ref().is_none_or(|before| !is_same(before, &offer)) {
            reading.offer_since = Some(now.unix);
        }
        reading.chain_id = Some(offer.chain_id());
        let is_unpaid = mode != Mode::Payouts && offer.chain_id() == DOGECOIN;
        let reason = self.no_templates.as_ref().filter(|_| is_unpaid);
        reading.unpaid = reason.map(|(trouble, _)| trouble.to_string().into());
        // Most answers are the same, which readers then see at a glance.
        if reading.offer.as_ref() != Some(&offer) {
            reading.offer = Some(offer);
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
            reading.offer = None;
            reading.offer_since = None;
        }
        reading.failure = Some(Failure { word: trouble.word(), text: trouble.to_string().into(), is_refusal });
        reading.failures += 1;
        self.is_probed = false;
        trouble.delay(self.backoff.delay())
    }

    /// Position of the next block in the daemon's chain, while it answers.
    pub(super) fn next_block(&self) -> Option<NextBlock> {
        let offer = self.reading.offer.as_ref().filter(|_| self.reading.failure.is_none())?;
        Some(NextBlock { previous_block: BlockHash::from_byte_array(offer.previous_block()), height: offer.height() })
    }
}

/// True if both are the same block, or templates for blocks on the same one.
fn is_same(before: &Offer, now: &Offer) -> bool {
    match (before, now) {
        (Offer::Made(before), Offer::Made(now)) => before.hash == now.hash,
        _ => !now.is_news_after(before),
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
    /// The operator's wish who is paid.
    pub(super) pays: Pays,
    /// True while blocks can pay the miners.
    pub(super) pays_miners: watch::Receiver<bool>,
}

impl Poller {
    /// Runs until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut poll = Poll::new(Instant::now());
        // Time from which on news leads to a call.
        let mut news_from = Instant::now();
        let mut pays_miners = self.pays_miners.clone();
        loop {
            pays_miners.mark_unchanged();
            let asked = Instant::now();
            let asking = self.ask(&mut poll);
            let result = tokio::select! {
                () = stop.cancelled() => return,
                result = asking => result,
            };
            let due = match result {
                Ok((offer, mode)) => {
                    self.chain.set_maturity(confirmations_mature(offer.chain_id()));
                    poll.answered(offer, mode, Moment::now());
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
                Ok(()) = pays_miners.changed() => {}
            }
        }
    }

    async fn ask(&self, poll: &mut Poll) -> Result<(Offer, Mode), Trouble> {
        if !poll.is_probed {
            let version = self.daemon.version().await?;
            poll.version(version);
        }
        let is_possible = *self.pays_miners.borrow();
        match self.pays {
            Pays::Miners if is_possible => return self.template(poll).await,
            Pays::Miners => return Err(Trouble::NoPayoutsYet),
            Pays::MinersIfPossible if is_possible => {
                let now = Instant::now();
                if poll.tries_templates(now) {
                    match self.template(poll).await {
                        Err(trouble) if trouble.is_about_templates() => {
                            poll.no_templates = Some((trouble, now + TEMPLATES_RETRY));
                        }
                        other => {
                            poll.no_templates = None;
                            return other;
                        }
                    }
                }
            }
            Pays::MinersIfPossible | Pays::One => poll.no_templates = None,
        }
        match (self.daemon.next_block(poll.expected_chain_id(), poll.made()).await, &poll.no_templates) {
            (Ok(block), _) => Ok((Offer::Made(block.into()), self.daemon.mode())),
            // The daemon makes no blocks either, and need not: templates are what is missing.
            (Err(Trouble::NoGet | Trouble::NoCreate { .. } | Trouble::Wallet { .. }), Some((trouble, _))) => {
                Err(trouble.clone())
            }
            (Err(trouble), _) => Err(trouble),
        }
    }

    async fn template(&self, poll: &mut Poll) -> Result<(Offer, Mode), Trouble> {
        let young = poll.young_template(Instant::now()).cloned();
        if let Some(young) = young
            && self.daemon.tip_hash().await? == young.previous_block()
        {
            return Ok((young, Mode::Payouts));
        }
        let template = self.daemon.template().await?;
        poll.template_at = Some(Instant::now());
        Ok((Offer::Template { chain: self.daemon.chain().clone(), template }, Mode::Payouts))
    }

    fn publish(&self, poll: &Poll) {
        self.readings.send_modify(|readings| readings[self.index] = poll.reading().clone());
        let next = poll.next_block();
        self.next_block.send_if_modified(|published| std::mem::replace(published, next) != next);
    }
}

#[cfg(test)]
mod tests;
