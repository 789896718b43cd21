//! Watches the inputs of work and publishes a new `WorkSet` when they change.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use sharechain::chain::Tip;
use sharechain::merged::MergedWork;
use std::sync::Arc;
use std::time::Duration;
use stratum::Epochs;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Config, Gate, WorkParts, WorkSet};
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
    pub merged: watch::Receiver<Arc<MergedWork>>,
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
}

/// Publishes work until `stop`, whenever template, tip, gate or the merged chains' blocks change.
pub async fn publish(config: Config, mut inputs: Inputs, outputs: Outputs, stop: CancellationToken) {
    let Outputs { work, gate: gate_sender } = outputs;
    let pause = config.merged_pause;
    let mut publisher = Publisher { config: Arc::new(config), last: None, epochs: Epochs::default() };
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
    last: Option<(Arc<Template>, Arc<Tip>, Arc<MergedWork>)>,
    epochs: Epochs,
}

impl Publisher {
    fn next(
        &mut self,
        template: Arc<Template>,
        tip: Arc<Tip>,
        merged: Arc<MergedWork>,
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
            } else if *last_merged != merged {
                // Blocks of the other chains are still found with the work before.
                self.epochs.urgent += 1;
                cause = Cause::Merged;
            }
        }
        self.last = Some((template.clone(), tip.clone(), merged.clone()));
        let parts = WorkParts::new(&template, &tip, merged)?;
        let set = WorkSet::new(&self.config, parts, rates, self.epochs, before)?;
        Ok((set, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::testing::{spending, with_extension};
    use crate::template::tests::{RULES, parts};
    use crate::template::{BLOCK_WEIGHT_MAX, TemplateParts};
    use crate::work::Payout;
    use bitcoin::hashes::Hash;
    use bitcoin::{BlockHash, CompactTarget};
    use sharechain::chain::Sharechain;
    use sharechain::coin::BITCOIN_REGTEST;
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
        let mut publisher = Publisher { config: Arc::new(config()), last: None, epochs: Epochs::default() };
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

    #[tokio::test]
    async fn work_comes_and_goes_with_templates_tips_and_the_gate() {
        let (templates_sender, templates) = watch::channel(None);
        let (tips_sender, tips) = watch::channel(None);
        let (gate_sender, gate) = watch::channel(Gate::Open);
        let (_rates_sender, rates) = watch::channel(Arc::default());
        let merged = watch::channel(Arc::default()).1;
        let (sender, mut work) = watch::channel(None);
        let (shown_sender, mut shown) = watch::channel(Gate::Open);
        let outputs = Outputs { work: sender, gate: shown_sender };
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
