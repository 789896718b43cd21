//! Combines the chains' next blocks into the offers that work is made of, and into what people see of the chains.

use metrics::gauge;
use sharechain::merged::{MergedBlock, MergedError, MergedTarget, MergedWork};
use sharechain::share::Target;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::episodes::{Condition, Episodes};
use super::offers::{MINERS, MergedOffers, Offer};
use super::reading::Reading;
use super::{ChainStatus, Mode, State};

/// Time for which the last work of a silent daemon is used. Of a chain with a block a minute, it is worthless by then.
pub(super) const KEPT_MAX: Duration = Duration::from_secs(600);

/// Warning about a target that the ports' minimum difficulty does not let miners use.
const EASY: &str =
    "its target is easier than the ports' minimum difficulty: miners submit less often than it has blocks";

/// What never changes of a chain.
#[derive(Debug, Clone)]
pub(super) struct Label {
    pub(super) name: Arc<str>,
    /// Address and port of the daemon.
    pub(super) daemon: Arc<str>,
    /// Payee of the blocks that the daemon makes.
    pub(super) payee: Arc<str>,
}

/// Trouble of a chain that its daemon's answers do not have alone.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Warning {
    /// It cannot be mined beside another one.
    Collision(Arc<str>),
    /// Its target is easier than miners' submissions.
    Easy,
    /// Its blocks do not pay the miners, although they could.
    Unpaid(Arc<str>),
}

/// Work and status of all chains at one moment.
#[derive(Debug)]
struct Combined {
    work: Arc<MergedOffers>,
    status: Vec<ChainStatus>,
    /// Kind of each chain's trouble.
    words: Vec<Option<&'static str>>,
    /// Time at which another chain is left out if its daemon stays silent.
    changes_at: Option<Instant>,
}

/// Task that combines the chains.
#[derive(Debug)]
pub(super) struct Assembler {
    pub(super) chains: Vec<Label>,
    /// Easiest target that the ports' minimum difficulties let miners submit for.
    pub(super) floor: Target,
    pub(super) readings: watch::Receiver<Vec<Reading>>,
    pub(super) work: watch::Sender<Arc<MergedOffers>>,
    pub(super) status: watch::Sender<Arc<Vec<ChainStatus>>>,
}

impl Assembler {
    /// Publishes work when it changes, until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut episodes: Vec<Episodes> = self.chains.iter().map(|_| Episodes::default()).collect();
        loop {
            let readings = self.readings.borrow_and_update().clone();
            let (now, before) = (Instant::now(), self.work.borrow().clone());
            let combined = combine(&self.chains, &readings, self.floor, &before, now);
            let work = combined.work;
            self.work.send_if_modified(|published| {
                // What is not news is there for the next work, and no reason to make some.
                let is_news = work.supersedes(published);
                *published = work;
                is_news
            });
            let conditions = combined.status.iter().zip(combined.words);
            for (((status, trouble), reading), episodes) in conditions.zip(&readings).zip(&mut episodes) {
                measure(status, reading);
                if episodes.is_news(Condition { state: status.state, trouble, mode: status.mode }, now) {
                    log(status);
                }
            }
            self.status.send_if_modified(|published| {
                let is_new = **published != combined.status;
                if is_new {
                    *published = Arc::new(combined.status);
                }
                is_new
            });
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.readings.changed() => if changed.is_err() { return },
                () = sleep_until(combined.changes_at.unwrap_or(now)), if combined.changes_at.is_some() => {}
            }
        }
    }
}

/// Combines all that can be mined; `before` is the work until now, which is returned if it still holds.
fn combine(
    chains: &[Label],
    readings: &[Reading],
    floor: Target,
    before: &Arc<MergedOffers>,
    now: Instant,
) -> Combined {
    let usable: Vec<Option<&Offer>> = readings.iter().map(|reading| usable(reading, now)).collect();
    let (work, collisions) = choose(&usable, before);
    let mut changes: Vec<Instant> = readings.iter().filter_map(|reading| changes_at(reading, now)).collect();
    changes.sort();
    let mut combined = Combined { work, status: Vec::new(), words: Vec::new(), changes_at: changes.first().copied() };
    for (((chain, reading), offer), collision) in chains.iter().zip(readings).zip(usable).zip(collisions) {
        let own_target = offer.and_then(|offer| match offer.target() {
            MergedTarget::Own(target) => Some(target),
            MergedTarget::Share => None,
        });
        let warning = match (collision, &reading.unpaid) {
            (Some(text), _) => Some(Warning::Collision(text)),
            (None, Some(text)) => Some(Warning::Unpaid(text.clone())),
            (None, None) => own_target.filter(|target| *target > floor).map(|_| Warning::Easy),
        };
        let state = match (&warning, offer) {
            (Some(Warning::Collision(_)), _) => State::LeftOut,
            (_, Some(_)) if reading.failure.is_none() => State::Mining,
            (_, Some(_)) => State::Waiting,
            (_, None) if is_starting(reading, now) => State::Starting,
            (_, None) => State::LeftOut,
        };
        let (word, trouble) = match (&reading.failure, &warning) {
            (Some(failure), _) => (Some(failure.word), Some(failure.text.clone())),
            (None, Some(Warning::Collision(text))) => (Some("collision"), Some(text.clone())),
            (None, Some(Warning::Easy)) => (Some("easy_target"), Some(EASY.into())),
            (None, Some(Warning::Unpaid(text))) => (Some("unpaid"), Some(text.clone())),
            (None, None) => (None, None),
        };
        combined.words.push(word);
        combined.status.push(ChainStatus {
            name: chain.name.clone(),
            chain_id: reading.chain_id,
            daemon: chain.daemon.clone(),
            version: reading.version.clone(),
            mode: reading.mode,
            payee: if reading.mode == Some(Mode::Payouts) { MINERS.into() } else { chain.payee.clone() },
            state,
            height: offer.map(Offer::height),
            difficulty: own_target.map(|target| stratum::Target::from_le_bytes(target.to_le_bytes()).difficulty()),
            value: offer.and_then(Offer::value),
            answered_at: reading.answered.map(|answered| answered.unix),
            work_since: reading.offer_since.filter(|_| offer.is_some()),
            failures: reading.failures,
            trouble,
        });
    }
    combined
}

/// The chain's block, if it can be mined: its daemon gave it not long ago.
fn usable(reading: &Reading, now: Instant) -> Option<&Offer> {
    reading.offer.as_ref().filter(|_| kept_until(reading).is_some_and(|until| now < until))
}

/// End of the time in which the last answer is of use.
fn kept_until(reading: &Reading) -> Option<Instant> {
    reading.answered.map(|answered| answered.at + KEPT_MAX)
}

/// True if the daemon has not given work yet, and may still be starting.
fn is_starting(reading: &Reading, now: Instant) -> bool {
    let is_refused = reading.failure.as_ref().is_some_and(|failure| failure.is_refusal);
    reading.answered.is_none() && !is_refused && now < reading.started + KEPT_MAX
}

/// Time at which the chain's state changes without an answer.
fn changes_at(reading: &Reading, now: Instant) -> Option<Instant> {
    if usable(reading, now).is_some() {
        kept_until(reading)
    } else {
        is_starting(reading, now).then(|| reading.started + KEPT_MAX)
    }
}

/// As many of the blocks as can be mined together, the first ones first, and for each of the others the reason.
fn choose(offers: &[Option<&Offer>], before: &Arc<MergedOffers>) -> (Arc<MergedOffers>, Vec<Option<Arc<str>>>) {
    let mut collisions = vec![None; offers.len()];
    if offers.iter().flatten().copied().eq(before.all()) {
        return (before.clone(), collisions);
    }
    let (mut chosen, mut blocks) = (Vec::new(), Vec::new());
    for (offer, collision) in offers.iter().zip(&mut collisions) {
        let Some(offer) = offer else { continue };
        blocks.push(offer.stand_in());
        match MergedWork::new(blocks.clone()) {
            Ok(_) => chosen.push(Offer::clone(offer)),
            Err(error) => {
                let block = blocks.pop().expect("it was pushed");
                *collision = Some(collided(&block, &blocks, &error).into());
            }
        }
    }
    let chosen = MergedOffers::from(chosen);
    (if chosen == **before { before.clone() } else { Arc::new(chosen) }, collisions)
}

/// Text for a block that cannot be mined beside `others`.
fn collided(block: &MergedBlock, others: &[MergedBlock], error: &MergedError) -> String {
    let is_in_the_way = |other: &&MergedBlock| MergedWork::new(vec![(*other).clone(), block.clone()]).is_err();
    let (other, other_id) =
        others.iter().find(is_in_the_way).map_or(("another", 0), |other| (&*other.chain, other.chain_id));
    let id = block.chain_id;
    match error {
        MergedError::SameChain(_) => format!(
            "its chain number {id} is also that of {other}, which comes first in the configuration, and each can be \
             mined once: remove one of the two, or correct the URL that leads to the wrong daemon"
        ),
        MergedError::NoSlots => format!(
            "its chain number {id} has the same place in every tree as {other_id} of {other}, which comes first in the \
             configuration: remove one of the two"
        ),
    }
}

/// Publishes the chain's metrics.
fn measure(status: &ChainStatus, reading: &Reading) {
    let chain = || status.name.clone();
    let flag = |is_set: bool| if is_set { 1.0 } else { 0.0 };
    let is_up = reading.answered.is_some() && reading.failure.is_none();
    gauge!("merged_up", "chain" => chain()).set(flag(is_up));
    gauge!("merged_left_out", "chain" => chain()).set(flag(status.state == State::LeftOut));
    gauge!("merged_work_timestamp_seconds", "chain" => chain()).set(status.answered_at.unwrap_or_default());
    gauge!("merged_height", "chain" => chain()).set(status.height.map_or(0.0, f64::from));
    gauge!("merged_difficulty", "chain" => chain()).set(status.difficulty.unwrap_or_default());
}

/// Logs a chain whose condition has changed.
fn log(status: &ChainStatus) {
    let ChainStatus { name, daemon, payee, height, version, state, trouble, .. } = status;
    let (chain, state) = (&**name, state.word());
    match trouble {
        Some(trouble) => warn!(chain, %daemon, state, %trouble, "trouble with a merged chain"),
        None => info!(chain, %daemon, %version, height, %payee, "mining a merged chain"),
    }
}

#[cfg(test)]
mod tests;
