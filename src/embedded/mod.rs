//! The private chain of `p2pool demo`, inside this process, behind the same [`Handle`] as a real daemon.
//!
//! ```text
//! FoundBlock ──▶ submit ──▶ Route `embedded` ──▶ Chain (under a short lock) ──▶ Outcome
//!                                                  │ new tip, new transactions, easier bits, 20 s
//!                                                  └──▶ templates: watch<Option<Arc<Template>>>
//! ```
//!
//! [`Chain`] is pure and implements Bitcoin's rules, with the proof of work of the demo's coin; `tests/parity` compares its
//! verdicts with a real bitcoind's. Clock and tasks are in this file only.
//!
//! Beside it, [`auxiliary`] has daemons of merged chains, which are reached over HTTP as real ones.

pub mod auxiliary;
mod chain;
mod coins;
mod connect;
mod decode;
mod difficulty;
mod mempool;
mod reject;
mod rules;
mod scripts;

pub use chain::{Chain, Moment, REORGANISATION_DEPTH_MAX, Rules, Tip};
pub use difficulty::Difficulty;
pub use mempool::TransactionError;
pub use reject::{Reject, TransactionReject, Verdict};

use bitcoin::{BlockHash, Txid};
use futures::future::BoxFuture;
use metrics::gauge;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tracing::{debug, error};

use crate::bitcoind::{Handle, Health, heights};
use crate::blocks::journal::Journal;
use crate::blocks::{BlockPosition, Explorer, Route, submit};
use crate::blocks::{FoundBlock, Outcome};
use crate::runtime::clock::since_1970;
use crate::runtime::tasks::Tasks;
use crate::template::{Template, TemplateParts, TemplateSender};

/// Maximum age of a template, for its time.
const REFRESH_INTERVAL: Duration = Duration::from_secs(20);
/// Minimum interval of templates for new transactions: miners do not need each at once.
const TRANSACTIONS_INTERVAL: Duration = Duration::from_secs(1);

/// Settings of the embedded chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Parameters of Bitcoin's rules.
    pub rules: Rules,
    /// Soft forks of which work may be made ([`Network::known_rules`](sharechain::coin::Network::known_rules)).
    pub known_rules: &'static [&'static str],
}

/// Handle to the chain. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Embedded(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    chain: Mutex<Chain>,
    started: Instant,
    tip: watch::Sender<Tip>,
    /// Wakes the template task for new transactions.
    transactions: Notify,
}

impl Embedded {
    fn new(rules: Rules) -> Self {
        let started = Instant::now();
        let chain = Chain::new(rules, moment(started));
        let tip = watch::Sender::new(chain.tip());
        Self(Arc::new(Shared { chain: Mutex::new(chain), started, tip, transactions: Notify::new() }))
    }

    /// Returns the last block of the best chain.
    pub fn tip(&self) -> Tip {
        *self.0.tip.borrow()
    }

    /// Subscribes to changes of the tip.
    pub fn tips(&self) -> watch::Receiver<Tip> {
        self.0.tip.subscribe()
    }

    /// True if a block is in the best chain.
    pub fn is_in_best_chain(&self, hash: &BlockHash) -> bool {
        self.0.chain.lock().is_in_best_chain(hash)
    }

    /// Queues a serialised transaction for the next block. Checks its signatures at once, so call it off the event loop
    /// for more than a few inputs.
    ///
    /// # Errors
    /// The reason why it cannot be in the next block, or that the queue is full.
    pub fn submit_transaction(&self, raw: &[u8]) -> Result<Txid, TransactionError> {
        let txid = self.0.chain.lock().submit_transaction(raw)?;
        self.0.transactions.notify_one();
        Ok(txid)
    }

    /// Judges a serialised block, and adds it to the chain if it is valid.
    pub fn submit_block(&self, hash: &BlockHash, bytes: &[u8]) -> Outcome {
        let now = moment(self.0.started);
        let mut chain = self.0.chain.lock();
        let verdict = chain.submit(bytes, now);
        let tip = chain.tip();
        // Sent while the chain is locked, so that tips are sent in order.
        self.0.tip.send_if_modified(|told| std::mem::replace(told, tip) != tip);
        debug!(%hash, %verdict, height = tip.height, "embedded chain judged a block");
        match verdict {
            Verdict::Accepted => Outcome::Accepted,
            Verdict::Duplicate if chain.is_in_best_chain(hash) => Outcome::Accepted,
            Verdict::Duplicate | Verdict::Inconclusive => Outcome::Stale,
            Verdict::Rejected(reject) => Outcome::Rejected(reject.to_string()),
        }
    }

    /// Returns the next template, and its lifetime.
    fn template(&self) -> (TemplateParts, Duration) {
        let now = moment(self.0.started);
        let mut chain = self.0.chain.lock();
        let parts = chain.template(now);
        let lasts = chain.until_easing(now).map_or(REFRESH_INTERVAL, |easing| easing.min(REFRESH_INTERVAL));
        (parts, lasts)
    }
}

fn moment(started: Instant) -> Moment {
    // Before 1970 the clock is useless; the chain then takes its time from the blocks.
    let unix = since_1970().as_secs();
    Moment { unix, elapsed: started.elapsed() }
}

impl Explorer for Embedded {
    fn place<'a>(&'a self, hash: &'a BlockHash) -> BoxFuture<'a, Result<BlockPosition, String>> {
        Box::pin(std::future::ready(Ok(self.0.chain.lock().place_of(hash))))
    }
}

impl Route for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn attempt<'a>(&'a self, block: &'a FoundBlock) -> BoxFuture<'a, Outcome> {
        let (chain, hash, bytes) = (self.clone(), block.hash, block.bytes.clone());
        // Checks signatures: milliseconds for a full block, too long for the event loop.
        let judged = tokio::task::spawn_blocking(move || chain.submit_block(&hash, &bytes));
        Box::pin(async move { judged.await.unwrap_or_else(|panic| Outcome::Failed(panic.to_string())) })
    }
}

/// Starts the chain at its genesis block, with the tasks that replace a daemon.
///
/// The chain is kept in memory only: `journal` should be in a folder of this run, since blocks left by an earlier run
/// build on blocks unknown to this one.
pub fn start(config: &Config, journal: Journal, tasks: &Tasks) -> (Handle, Embedded) {
    let embedded = Embedded::new(config.rules);
    let health = Health {
        last_success: Some(Instant::now()),
        gone: false,
        version: "embedded chain".into(),
        warnings: Vec::new(),
        trouble: None,
        template_took: None,
        clock_ahead: None,
        p2p_connected: true,
    };
    let templates_out = TemplateSender::default();
    let (templates, recent_templates) = (templates_out.newest(), templates_out.recent());
    let next_block = templates_out.next_block();
    let (health_out, health) = watch::channel(health);
    let inputs = submit::Inputs { journal, routes: vec![Arc::new(embedded.clone())], next_block: next_block.clone() };
    let submit::Handle { blocks, resubmitter, reports } = submit::start(tasks, inputs);
    let (heights, teller) = heights::new(None, templates.clone());
    tasks.spawn("embedded heights", teller.run(tasks.stop_signal()));
    let publishing = publish_templates(embedded.clone(), config.known_rules, templates_out, health_out);
    let stop = tasks.stop_signal();
    tasks.spawn("embedded templates", async move {
        // Can stop anywhere without leaving partial state.
        let _ = stop.run_until_cancelled(publishing).await;
    });
    // Headers are for peers, which an embedded chain does not have; its templates need no polling.
    let (_, best_header) = watch::channel(None);
    let news = Arc::default();
    let explorer = Arc::new(embedded.clone());
    (
        Handle {
            templates,
            next_block,
            recent_templates,
            health,
            blocks,
            resubmitter,
            heights,
            reports,
            best_header,
            explorer,
            news,
        },
        embedded,
    )
}

async fn publish_templates(
    embedded: Embedded,
    known_rules: &[&str],
    templates: TemplateSender,
    health: watch::Sender<Health>,
) {
    let mut tips = embedded.tips();
    loop {
        tips.mark_unchanged();
        let (parts, lasts) = embedded.template();
        match Template::new(parts, known_rules) {
            Ok(template) => {
                gauge!("bitcoind_template_height").set(f64::from(template.height));
                templates.send(template);
            }
            // A bug of the chain; miners can go on with the old template.
            Err(error) => error!(%error, "invalid template from the embedded chain"),
        }
        let published = tokio::time::Instant::now();
        health.send_modify(|health| health.last_success = Some(published.into_std()));
        gauge!("bitcoind_up").set(1.0);
        let mut due = published + lasts;
        loop {
            tokio::select! {
                changed = tips.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = embedded.0.transactions.notified() => due = due.min(published + TRANSACTIONS_INTERVAL),
                () = tokio::time::sleep_until(due) => break,
            }
        }
    }
}

#[cfg(test)]
mod tests;
