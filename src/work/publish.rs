//! Watches the inputs of work and publishes a new `WorkSet` when they change.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use sharechain::chain::{MergedWindowWeights, NextShare, Tip};
use std::sync::Arc;
use std::time::Duration;
use stratum::Epochs;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Config, Gate, WorkParts, WorkSet};
use crate::merged::{MergedJobs, MergedOffers};
use crate::rates::Rates;
use crate::template::Template;

/// Time for which a gate must be closed before it is logged: at the start, it takes a moment to learn the known peers.
const WAITING_IS_REPORTED_AFTER: Duration = Duration::from_secs(1);

/// Interval of logging what a closed gate waits for.
const WAITING_IS_REPORTED_EVERY: Duration = Duration::from_secs(30);

/// Describes the metrics of this module.
pub fn describe() {
    describe_counter!("work_sets_total", "Work made, by what brought it: block, share, urgent, merged, refresh");
    describe_histogram!(
        "work_seconds",
        metrics::Unit::Seconds,
        "From learning of a new template or tip to having work for miners"
    );
    describe_gauge!("work_available", "1 while there is work for miners, else 0: they are sent away");
    for cause in Cause::ALL {
        counter!("work_sets_total", "cause" => cause.word()).absolute(0);
    }
    gauge!("work_available").set(0.0);
}

/// Cause of new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The parent chain has a new block.
    Block,
    /// The share chain has a new tip.
    Share,
    /// The template supersedes the last one.
    Urgent,
    /// Merged chains have other blocks to mine.
    Merged,
    /// The template changed otherwise.
    Refresh,
}

impl Cause {
    const ALL: [Self; 5] = [Self::Block, Self::Share, Self::Urgent, Self::Merged, Self::Refresh];

    fn word(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Share => "share",
            Self::Urgent => "urgent",
            Self::Merged => "merged",
            Self::Refresh => "refresh",
        }
    }
}

/// Inputs of work.
#[derive(Debug)]
pub struct Inputs {
    /// Templates of the daemon.
    pub templates: watch::Receiver<Option<Arc<Template>>>,
    /// Tips of the share chain; `None` while it is not to be built on.
    pub tips: watch::Receiver<Option<Arc<Tip>>>,
    /// Next blocks of merged chains; used at once with other new work, else not more often than
    /// [`Config::merged_pause`].
    pub merged: watch::Receiver<Arc<MergedOffers>>,
    /// State of the gate.
    pub gate: watch::Receiver<Gate>,
    /// Miners' rates; their change alone makes no new work.
    pub rates: watch::Receiver<Arc<Rates>>,
}

/// What is published.
#[derive(Debug)]
pub struct Outputs {
    /// A snapshot of the work; `None` while there is nothing to mine or the gate is closed.
    pub work: watch::Sender<Option<Arc<WorkSet>>>,
    /// State of the gate; closed as well while no work can be made of template and tip, with the reason.
    pub gate: watch::Sender<Gate>,
    /// True while the next share can say how merged blocks pay the miners.
    pub pays_miners: Arc<watch::Sender<bool>>,
}

/// Publishes work until `stop`, whenever template, tip, gate or the merged chains' blocks change.
pub async fn publish(config: Config, mut inputs: Inputs, outputs: Outputs, stop: CancellationToken) {
    let Outputs { work, gate: gate_sender, pays_miners } = outputs;
    let pause = config.merged_pause;
    let mut publisher = Publisher::new(config);
    let mut trouble = None;
    let mut tell_at = None;
    loop {
        let learned = Instant::now();
        let mut gate = inputs.gate.borrow_and_update().clone();
        let template = inputs.templates.borrow_and_update().clone();
        let tip = inputs.tips.borrow_and_update().clone();
        let rates = inputs.rates.borrow().clone();
        let merged = inputs.merged.borrow_and_update().clone();
        let mut made = None;
        let mut is_failure = false;
        let (next, why) = match (&gate, template, tip) {
            (Gate::Closed(reason), ..) => (None, Some(reason.as_ref().to_owned())),
            (Gate::Open, Some(template), Some(tip)) => {
                match publisher.next(template, tip, merged, rates, work.borrow().as_deref()) {
                    Ok((set, cause)) => {
                        made = Some(cause);
                        (Some(Arc::new(set)), None)
                    }
                    Err(error) => {
                        is_failure = true;
                        gate = Gate::Closed(error.to_string().into());
                        (None, Some(error.to_string()))
                    }
                }
            }
            (Gate::Open, None, _) => (None, Some("there is no template".to_owned())),
            (Gate::Open, Some(_), None) => (None, Some("the share chain is not ready".to_owned())),
        };
        tell_at = (gate != Gate::Open).then(|| tell_at.unwrap_or_else(|| Instant::now() + WAITING_IS_REPORTED_AFTER));
        let reason = why.as_deref().unwrap_or_default();
        let is_due = tell_at.is_some_and(|at| Instant::now() >= at);
        if (why != trouble && work.borrow().is_some() && next.is_none()) || (is_due && is_failure) {
            warn!(reason, "no work: miners are sent away until there is some");
            tell_at = tell_at.map(|_| Instant::now() + WAITING_IS_REPORTED_EVERY);
        } else if is_due {
            info!("no work for miners yet: {reason}");
            tell_at = Some(Instant::now() + WAITING_IS_REPORTED_EVERY);
        } else if trouble.is_some() && why.is_none() {
            info!("there is work for miners");
        }
        trouble = why;
        if next.is_some() || work.borrow().is_some() {
            gauge!("work_available").set(if next.is_some() { 1.0 } else { 0.0 });
            work.send_replace(next);
        }
        let can_pay = publisher.merged.pays_miners;
        pays_miners.send_if_modified(|before| std::mem::replace(before, can_pay) != can_pay);
        gate_sender.send_if_modified(|shown| std::mem::replace(shown, gate.clone()) != gate);
        if let Some(cause) = made {
            counter!("work_sets_total", "cause" => cause.word()).increment(1);
            histogram!("work_seconds").record(learned.elapsed());
        }
        if !inputs.changed(tell_at, learned + pause, &stop).await {
            return;
        }
    }
}

impl Inputs {
    /// Waits until there is a reason to make work, at the latest at `tell_at`; new blocks of merged chains alone are one
    /// from `merged_from` on. False if the node stops.
    async fn changed(&mut self, tell_at: Option<Instant>, merged_from: Instant, stop: &CancellationToken) -> bool {
        let merged_changed = async {
            // Without merged chains, nothing changes.
            if self.merged.changed().await.is_err() {
                return std::future::pending().await;
            }
            sleep_until(merged_from).await;
        };
        tokio::select! {
            () = stop.cancelled() => false,
            changed = self.templates.changed() => changed.is_ok(),
            changed = self.tips.changed() => changed.is_ok(),
            changed = self.gate.changed() => changed.is_ok(),
            () = merged_changed => true,
            () = sleep_until(tell_at.unwrap_or_else(Instant::now)), if tell_at.is_some() => true,
        }
    }
}

/// Decides which changes are announced to miners.
#[derive(Debug)]
struct Publisher {
    config: Arc<Config>,
    last: Option<(Arc<Template>, Arc<Tip>, Arc<MergedOffers>)>,
    epochs: Epochs,
    merged: MergedPayouts,
}

/// Merged chains' blocks as jobs commit to them, and what they were made of.
#[derive(Debug)]
struct MadeJobs {
    offers: Arc<MergedOffers>,
    weights: Option<Arc<MergedWindowWeights>>,
    jobs: Arc<MergedJobs>,
}

/// Merged chains' blocks as jobs commit to them: made once for each offer and tip.
#[derive(Debug, Default)]
struct MergedPayouts {
    last: Option<MadeJobs>,
    /// True while the next share can say how they pay the miners.
    pays_miners: bool,
}

impl MergedPayouts {
    /// Blocks for `next` share.
    fn jobs(&mut self, offers: &Arc<MergedOffers>, next: &NextShare) -> Arc<MergedJobs> {
        // Before version 36 the weights would count those alone who vote for it.
        let weights = next.additions.as_ref().map(|additions| &additions.merged);
        self.pays_miners = weights.is_some_and(|window| !window.weights.is_empty());
        let is_same = |before: &Option<Arc<MergedWindowWeights>>| match (before, weights) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        let has_template = offers.has_template();
        if let Some(before) = &self.last
            && Arc::ptr_eq(&before.offers, offers)
            && (!has_template || is_same(&before.weights))
        {
            return before.jobs.clone();
        }
        let is_certain = weights.is_some_and(|window| window.looked_up == 0);
        let jobs = Arc::new(offers.jobs(weights.map(|window| &window.weights), is_certain));
        let left_out = self.last.as_ref().and_then(|before| before.jobs.left_out.clone());
        if let Some((chain, reason)) = jobs.left_out.as_ref().filter(|now| left_out.as_ref() != Some(now)) {
            warn!(chain = &**chain, %reason, "a merged chain is not mined");
        }
        self.last = Some(MadeJobs { offers: offers.clone(), weights: weights.cloned(), jobs: jobs.clone() });
        jobs
    }
}

impl Publisher {
    fn new(config: Config) -> Self {
        Self { config: Arc::new(config), last: None, epochs: Epochs::default(), merged: MergedPayouts::default() }
    }

    fn next(
        &mut self,
        template: Arc<Template>,
        tip: Arc<Tip>,
        merged: Arc<MergedOffers>,
        rates: Arc<Rates>,
        before: Option<&WorkSet>,
    ) -> Result<(WorkSet, Cause), super::WorkError> {
        let mut cause = Cause::Refresh;
        if let Some((last_template, last_tip, last_merged)) = &self.last {
            if last_template.previous_block != template.previous_block {
                self.epochs.stale += 1;
                cause = Cause::Block;
            } else if last_tip.best_hash() != tip.best_hash() {
                self.epochs.late += 1;
                cause = Cause::Share;
            } else if template.supersedes(last_template) {
                self.epochs.urgent += 1;
                cause = Cause::Urgent;
            } else if merged.supersedes(last_merged) {
                // Blocks of the other chains are still found with the work before.
                self.epochs.urgent += 1;
                cause = Cause::Merged;
            }
        }
        self.last = Some((template.clone(), tip.clone(), merged.clone()));
        let parts = WorkParts::with_jobs(&template, &tip, |next| self.merged.jobs(&merged, next))?;
        let set = WorkSet::new(&self.config, parts, rates, self.epochs, before)?;
        Ok((set, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merged::{MergedTemplate, Offer};
    use crate::template::testing::{spending, with_extension};
    use crate::template::tests::{RULES, parts};
    use crate::template::{BLOCK_WEIGHT_MAX, TemplateParts};
    use crate::work::Payout;
    use bitcoin::hashes::Hash;
    use bitcoin::{BlockHash, CompactTarget};
    use sharechain::chain::{NextAdditions, Sharechain};
    use sharechain::coin::BITCOIN_REGTEST;
    use sharechain::merged::{MergedKey, MergedWeights};
    use sharechain::share::Bits;
    use stratum::Work;

    fn config() -> Config {
        Config {
            network: &BITCOIN_REGTEST,
            default_payout: Payout::to_address("mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", &BITCOIN_REGTEST).unwrap(),
            fee_percent: 0.0,
            donation_percent: 0.0,
            coinbase_texts: Vec::new(),
            clock: crate::runtime::clock::unix_second,
            merged_pause: Duration::from_secs(3),
        }
    }

    fn template(change: impl FnOnce(&mut TemplateParts)) -> Arc<Template> {
        let mut parts = parts();
        change(&mut parts);
        Template::new(parts, RULES).unwrap().into()
    }

    fn tip() -> Arc<Tip> {
        let mut chain = Sharechain::new(&BITCOIN_REGTEST);
        chain.think(0.0);
        chain.tip()
    }

    #[test]
    fn a_new_parent_makes_old_work_worthless_and_new_bits_are_urgent() {
        let mut publisher = Publisher::new(config());
        let mut next = |template| {
            let (set, cause) = publisher.next(template, tip(), Arc::default(), Arc::default(), None).unwrap();
            (set.epochs(), cause)
        };
        assert_eq!(next(template(|_| {})), (Epochs::default(), Cause::Refresh));
        assert_eq!(next(template(|parts| parts.time += 1)), (Epochs::default(), Cause::Refresh));
        let harder = CompactTarget::from_consensus(0x1f7f_ffff);
        let urgent = Epochs { urgent: 1, ..Epochs::default() };
        assert_eq!(next(template(|parts| parts.bits = harder)), (urgent, Cause::Urgent));
        let other = BlockHash::from_byte_array([9; 32]);
        let stale = Epochs { stale: 1, urgent: 1, late: 0 };
        assert_eq!(next(template(|parts| parts.previous_block = other)), (stale, Cause::Block));
    }

    fn next(weights: Option<(&[u8], u32)>) -> NextShare {
        let mut next = tip().next_share(template(|_| {}).block_target()).unwrap();
        next.additions = weights.map(|(script, looked_up)| {
            let mut weights = MergedWeights::default();
            if !script.is_empty() {
                weights.count(MergedKey::Merged(script.into()), Bits(0x1d00_ffff).target().attempts(), 7);
            }
            NextAdditions { payout_hash: None, merged: Arc::new(MergedWindowWeights { weights, looked_up }) }
        });
        next
    }

    #[test]
    fn merged_blocks_that_pay_the_miners_are_made_once_for_each_template_and_window() {
        let offer =
            |previous| Offer::Template { chain: "doge".into(), template: MergedTemplate::of_test([previous; 32]) };
        let offers = |previous| Arc::new(MergedOffers::from(vec![offer(previous)]));
        let (one, other, mut payouts) = (offers(1), offers(2), MergedPayouts::default());
        let (of_one, of_other) = (next(Some((b"one", 0))), next(Some((b"other", 0))));
        let first = payouts.jobs(&one, &of_one);
        assert!(payouts.pays_miners && first.entry().is_some());
        assert!(Arc::ptr_eq(&first, &payouts.jobs(&one, &of_one)), "nothing has changed");
        let others = payouts.jobs(&one, &of_other);
        assert_ne!(first.work.blocks()[0].hash, others.work.blocks()[0].hash);
        assert_ne!(payouts.jobs(&other, &of_other).work.blocks()[0].hash, others.work.blocks()[0].hash);
        // What other nodes may see otherwise is mined, but no share claims it.
        let doubtful = payouts.jobs(&one, &next(Some((b"one", 1))));
        assert_eq!((&doubtful.work, doubtful.entry()), (&first.work, None));
        for unpaid in [None, Some((&b""[..], 0))] {
            let jobs = payouts.jobs(&one, &next(unpaid));
            assert!(!payouts.pays_miners && jobs.work.blocks().is_empty() && jobs.left_out.is_some());
        }
        let none = payouts.jobs(&Arc::default(), &of_one);
        assert!(payouts.pays_miners && none.work.commitment().is_none() && none.left_out.is_none());
    }

    #[tokio::test]
    async fn work_comes_and_goes_with_templates_tips_and_the_gate() {
        let (templates_sender, templates) = watch::channel(None);
        let (tips_sender, tips) = watch::channel(None);
        let (gate_sender, gate) = watch::channel(Gate::Open);
        let (_rates_sender, rates) = watch::channel(Arc::default());
        let merged = watch::channel(Arc::default()).1;
        let (sender, mut work) = watch::channel(None);
        let (shown_sender, mut shown) = watch::channel(Gate::Open);
        let outputs = Outputs { work: sender, gate: shown_sender, pays_miners: Arc::new(watch::channel(false).0) };
        let stop = CancellationToken::new();
        let task =
            tokio::spawn(publish(config(), Inputs { templates, tips, merged, gate, rates }, outputs, stop.clone()));
        templates_sender.send_replace(Some(template(|_| {})));
        assert!(work.borrow().is_none(), "there is no tip yet");
        tips_sender.send_replace(Some(tip()));
        work.wait_for(Option::is_some).await.unwrap();
        gate_sender.send_replace(Gate::Closed("alone".into()));
        work.wait_for(Option::is_none).await.unwrap();
        shown.wait_for(|gate| gate.reason() == Some("alone")).await.unwrap();
        gate_sender.send_replace(Gate::Open);
        work.wait_for(Option::is_some).await.unwrap();
        assert_eq!(*shown.borrow(), Gate::Open);
        let peg_in = spending(1, &[], 0, BLOCK_WEIGHT_MAX - 2000);
        let peg_ins = [peg_in.txid];
        let full = Template::new(with_extension(vec![peg_in], &peg_ins), RULES).unwrap();
        templates_sender.send_replace(Some(full.into()));
        work.wait_for(Option::is_none).await.unwrap();
        shown.wait_for(|gate| gate.reason().is_some_and(|reason| reason.contains("no room"))).await.unwrap();
        templates_sender.send_replace(Some(template(|_| {})));
        work.wait_for(Option::is_some).await.unwrap();
        shown.wait_for(|gate| *gate == Gate::Open).await.unwrap();
        templates_sender.send_replace(None);
        work.wait_for(Option::is_none).await.unwrap();
        stop.cancel();
        task.await.unwrap();
    }
}
