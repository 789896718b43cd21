//! Publishes the newest template: long polls for speed, regular polls for certainty, and a poll at once when the P2P
//! peer announces a block.

use futures::future::BoxFuture;
use metrics::{counter, gauge, histogram};
use serde_json::{Value, json};
use sharechain::coin::Network;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::check::{self, Diagnosis, RuleLog, TroubleLog};
use super::clock::{ClockCheck, Sample};
use super::health::Monitor;
use super::responses::{BlockTemplate, ConversionError};
use super::rpc::{Rpc, RpcError};
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::unix_now;

/// Interval of regular polls, as in P2Pool (protocol section 9.2).
pub const POLL_INTERVAL: Duration = Duration::from_secs(15);

/// Timeout of a long poll. After we give up, it keeps one of the daemon's few RPC threads busy until there is news; so
/// a quiet chain must not be polled again often.
const LONG_POLL_TIMEOUT: Duration = Duration::from_secs(3600);

/// Delay between a failed long poll and the ordinary poll that checks if the daemon is still there.
const LONG_POLL_PAUSE: Duration = Duration::from_secs(1);

/// First and longest delay between attempts while the daemon fails.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Trigger of a template, as a label in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Poll,
    LongPoll,
    Block,
}

impl Source {
    fn word(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::LongPoll => "long_poll",
            Self::Block => "block",
        }
    }
}

/// Follows the templates of one daemon.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) rpc: Rpc,
    pub(super) network: &'static Network,
    pub(super) allow_obsolete: bool,
    pub(super) monitor: Monitor,
    /// Interval of regular polls.
    pub(super) poll_interval: Duration,
    /// Notified of news of a block. Notifications are merged.
    pub(super) news: Arc<Notify>,
}

impl Follower {
    /// Runs until `stop`. Every failure restarts with the daemon's check: another daemon may be there afterwards.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut trouble_log = TroubleLog::default();
        let mut rule_log = RuleLog::default();
        let mut clock = ClockCheck::default();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        loop {
            let diagnosis = tokio::select! {
                () = stop.cancelled() => return,
                followed = self.follow(&mut trouble_log, &mut rule_log, &mut clock, &mut backoff) => match followed {
                    Err(diagnosis) => diagnosis,
                    Ok(never) => match never {},
                },
            };
            self.monitor.failed(diagnosis.to_string());
            if diagnosis.stops_work() {
                self.monitor.withdraw();
            }
            trouble_log.report(&diagnosis, Instant::now());
            let delay = backoff.delay().min(diagnosis.retry_max());
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(delay) => {}
                // The daemon is back, or has news. Without peers it makes no templates, and our connection is one.
                () = self.news.notified() => {}
            }
        }
    }

    async fn follow(
        &self,
        trouble_log: &mut TroubleLog,
        rule_log: &mut RuleLog,
        clock: &mut ClockCheck,
        backoff: &mut Backoff,
    ) -> Result<Infallible, Diagnosis> {
        let node = check::check(&self.rpc, self.network, self.allow_obsolete).await?;
        self.monitor.version(node.user_agent.clone());
        self.monitor.warnings(node.warnings.clone().texts());
        let mut source = Source::Poll;
        let mut long_poll: Option<BoxFuture<'_, Result<BlockTemplate, RpcError>>> = None;
        loop {
            let (due, asked) = (Instant::now(), unix_now());
            let answer: BlockTemplate = self.rpc.call("getblocktemplate", request(self.network, None)).await?;
            self.monitor.took(due.elapsed());
            if let Some(daemon) = answer.clock() {
                let (ahead, is_off) = clock.note(Sample { asked, came: unix_now(), daemon }, Instant::now());
                self.monitor.clock(ahead, is_off);
            }
            let (mut height, mut long_poll_id) = self.publish(answer, source, due, rule_log).await?;
            backoff.reset();
            if trouble_log.all_well() {
                info!(version = node.user_agent, height, "bitcoind is ready: working on its templates");
            }
            let poll = sleep(self.poll_interval);
            tokio::pin!(poll);
            source = loop {
                if let (None, Some(id)) = (&long_poll, long_poll_id.take()) {
                    long_poll = Some(Box::pin(self.long_poll(id)));
                }
                tokio::select! {
                    () = self.news.notified() => break Source::Block,
                    () = &mut poll => break Source::Poll,
                    answered = pending_or(&mut long_poll) => {
                        long_poll = None;
                        match answered {
                            // Older than the template of a poll meanwhile: poll again.
                            Ok(answer) if answer.height() < height => break Source::Poll,
                            Ok(answer) => {
                                (height, long_poll_id) =
                                    self.publish(answer, Source::LongPoll, Instant::now(), rule_log).await?;
                            }
                            Err(error) => {
                                debug!(%error, "long poll ended");
                                poll.as_mut().reset(tokio::time::Instant::now() + LONG_POLL_PAUSE);
                            }
                        }
                    }
                }
            };
        }
    }

    async fn long_poll(&self, id: String) -> Result<BlockTemplate, RpcError> {
        let params = request(self.network, Some(id));
        self.rpc.call_within(LONG_POLL_TIMEOUT, "getblocktemplate", "getblocktemplate_long_poll", params).await
    }

    /// Decodes, checks and publishes the template, `due` since then; returns its height and the id for the next long
    /// poll.
    async fn publish(
        &self,
        answer: BlockTemplate,
        source: Source,
        due: Instant,
        rule_log: &mut RuleLog,
    ) -> Result<(u32, Option<String>), Diagnosis> {
        let long_poll_id = answer.long_poll_id.clone();
        let (known_rules, weight_max) = (self.network.known_rules, self.network.parent.block_max_weight.into());
        let converted = tokio::task::spawn_blocking(move || answer.into_template(known_rules, weight_max)).await;
        let unusable = |error: tokio::task::JoinError| ConversionError::Field {
            field: "answer".to_owned(),
            reason: error.to_string(),
        };
        let template = converted.map_err(unusable).and_then(|result| result).map_err(Diagnosis::Template)?;
        rule_log.report(&template, known_rules);
        let height = template.height;
        gauge!("bitcoind_template_height").set(f64::from(height));
        // At most some thousands, so the conversion is exact.
        gauge!("bitcoind_template_transactions").set(template.transactions.len() as f64);
        counter!("bitcoind_templates_total", "source" => source.word()).increment(1);
        debug!(
            height,
            previous = %template.previous_block,
            transactions = template.transactions.len(),
            source = source.word(),
            "template"
        );
        self.monitor.succeeded(template);
        histogram!("bitcoind_template_seconds", "source" => source.word()).record(due.elapsed());
        gauge!("bitcoind_template_timestamp_seconds").set(unix_now());
        Ok((height, long_poll_id))
    }
}

/// Parameters of `getblocktemplate` (BIP 22, BIP 9, BIP 145).
pub(super) fn request(network: &Network, long_poll_id: Option<String>) -> Vec<Value> {
    let mut request = json!({ "mode": "template", "rules": network.parent.template_rules });
    if let Some(algo) = network.parent.template_algo {
        request["algo"] = algo.into();
    }
    if let Some(id) = long_poll_id {
        request["longpollid"] = Value::String(id);
    }
    vec![request]
}

/// Waits for the future, or forever without one.
async fn pending_or<T>(future: &mut Option<BoxFuture<'_, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sharechain::coin::{BITCOIN, BITCOIN_SIGNET, LITECOIN, Parent};

    #[test]
    fn signet_is_asked_with_its_own_rule_and_a_long_poll_names_what_is_known() {
        assert_eq!(request(&BITCOIN, None)[0], json!({"mode": "template", "rules": ["segwit"]}));
        assert_eq!(
            request(&BITCOIN_SIGNET, Some("abc".into()))[0],
            json!({"mode": "template", "rules": ["segwit", "signet"], "longpollid": "abc"})
        );
    }

    #[test]
    fn a_coin_with_several_proofs_of_work_is_asked_for_templates_of_one() {
        let parent = Parent { template_algo: Some("scrypt"), ..LITECOIN.parent };
        assert_eq!(
            request(&Network { parent, ..LITECOIN }, None)[0],
            json!({"mode": "template", "rules": ["segwit", "mweb"], "algo": "scrypt"})
        );
    }
}
