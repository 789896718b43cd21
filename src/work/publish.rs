//! Watches what work is made of and publishes a new `WorkSet` when it changed.

use std::sync::Arc;
use stratum::Epochs;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Config, WorkSet};
use crate::template::Template;

/// Publishes to `work` until `stop`: a snapshot per template, and `None` while there is none.
pub async fn publish(
    config: Config,
    mut templates: watch::Receiver<Option<Arc<Template>>>,
    work: watch::Sender<Option<Arc<WorkSet>>>,
    stop: CancellationToken,
) {
    let config = Arc::new(config);
    let mut publisher = Publisher::default();
    loop {
        let template = templates.borrow_and_update().clone();
        let next = template.map(|template| Arc::new(publisher.next(&config, template)));
        if next.is_some() || work.borrow().is_some() {
            if next.is_none() {
                info!("no template to work on: miners are sent away until there is one");
            }
            work.send_replace(next);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = templates.changed() => if changed.is_err() { return },
        }
    }
}

/// Decides which changes miners must hear of.
#[derive(Debug, Default)]
struct Publisher {
    last: Option<Arc<Template>>,
    epochs: Epochs,
}

impl Publisher {
    fn next(&mut self, config: &Arc<Config>, template: Arc<Template>) -> WorkSet {
        match &self.last {
            Some(last) if last.previous_block != template.previous_block => self.epochs.stale += 1,
            Some(last) if template.supersedes(last) => self.epochs.urgent += 1,
            _ => {}
        }
        self.last = Some(template.clone());
        WorkSet::new(config.clone(), template, self.epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::BITCOIN_REGTEST;
    use crate::template::TemplateParts;
    use crate::template::tests::{RULES, parts};
    use crate::work::Payout;
    use bitcoin::hashes::Hash;
    use bitcoin::{BlockHash, CompactTarget, ScriptBuf};
    use stratum::Work;

    fn config() -> Config {
        let default_payout = Payout { script: ScriptBuf::new(), address: "x".into(), share_difficulty: None };
        Config { network: &BITCOIN_REGTEST, default_payout, fee_percent: 0.0, coinbase_texts: Vec::new() }
    }

    fn template(change: impl FnOnce(&mut TemplateParts)) -> Arc<Template> {
        let mut parts = parts();
        change(&mut parts);
        Template::new(parts, RULES).unwrap().into()
    }

    #[test]
    fn a_new_parent_makes_old_work_worthless_and_new_bits_are_urgent() {
        let mut publisher = Publisher::default();
        let config = Arc::new(config());
        let mut epochs = |template| publisher.next(&config, template).epochs();
        assert_eq!(epochs(template(|_| {})), Epochs::default());
        assert_eq!(epochs(template(|parts| parts.time += 1)), Epochs::default());
        let harder = CompactTarget::from_consensus(0x1f7f_ffff);
        assert_eq!(epochs(template(|parts| parts.bits = harder)), Epochs { urgent: 1, ..Epochs::default() });
        let next = BlockHash::from_byte_array([9; 32]);
        assert_eq!(epochs(template(|parts| parts.previous_block = next)), Epochs { stale: 1, urgent: 1, late: 0 });
    }

    #[tokio::test]
    async fn work_comes_and_goes_with_templates() {
        let (templates, receiver) = watch::channel(None);
        let (sender, mut work) = watch::channel(None);
        let stop = CancellationToken::new();
        let task = tokio::spawn(publish(config(), receiver, sender, stop.clone()));
        templates.send_replace(Some(template(|_| {})));
        work.wait_for(Option::is_some).await.unwrap();
        templates.send_replace(None);
        work.wait_for(Option::is_none).await.unwrap();
        stop.cancel();
        task.await.unwrap();
    }
}
