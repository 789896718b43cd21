//! Proofs of work and whole blocks on their way to a merged chain's daemon. An answer is only a hint: where the block is in the daemon's
//! chain decides.

use futures::future::BoxFuture;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use stratum::Printable;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::daemon::{Daemon, SUBMIT_WHOLE};
use crate::bitcoind::rpc::{RpcError, code};
use crate::blocks::{BlockPosition, FoundBlock, Outcome, Route};

/// Delay before the second look for a block that the daemon took, but does not have in its chain.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// Maximum length of an answer that is quoted, in characters.
const QUOTED_MAX: usize = 200;

/// Words that say nothing final about a block: the daemon has it, or cannot judge it yet, because the parent is missing or
/// in doubt, or its clock is behind.
const UNCLEAR: [&str; 7] = [
    "duplicate",
    "inconclusive",
    "duplicate-inconclusive",
    "prev-blk-not-found",
    "bad-prevblk",
    "time-too-new",
    "valid?",
];

/// A daemon's RPC as a route for blocks.
#[derive(Debug)]
pub(super) struct AuxRoute {
    daemon: Daemon,
    /// Asks for the next block: with this one, the daemon has a new tip.
    news: Arc<Notify>,
}

/// Meaning of an answer to a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// The block is good.
    Taken,
    /// The daemon may have it, or take it later.
    Unclear(String),
    /// The daemon does not take it.
    Refused(String),
    /// Nothing was said about the block.
    None(String),
}

/// Interprets the answer to `method`.
fn read(method: &str, answer: &Result<Value, RpcError>) -> Verdict {
    let quoted = |value: &Value| {
        format!("the daemon answered {} to {method}", Printable::of_at_most(&value.to_string(), QUOTED_MAX))
    };
    match answer {
        Ok(Value::Bool(true)) => Verdict::Taken,
        // Of a whole block, which the daemon has checked, it is a yes (BIP 22).
        Ok(Value::Null) if method == SUBMIT_WHOLE => Verdict::Taken,
        Ok(value @ Value::Null) => Verdict::Unclear(quoted(value)),
        Ok(value @ Value::String(word)) if UNCLEAR.contains(&&**word) => Verdict::Unclear(quoted(value)),
        Ok(value @ (Value::Bool(false) | Value::String(_))) => Verdict::Refused(quoted(value)),
        Ok(value) => Verdict::None(quoted(value)),
        Err(RpcError::Daemon { code: code::INVALID_PARAMETER, message, .. }) => Verdict::Refused(format!(
            "the daemon does not know this block ({message}): it has restarted, or made others on a new tip, since it gave \
             it out"
        )),
        Err(error @ RpcError::Daemon { code: code::UNREADABLE, .. }) => Verdict::Refused(error.to_string()),
        Err(error) => Verdict::None(error.to_string()),
    }
}

/// Outcome of a submission with this answer, if the block is `place` now.
fn outcome(verdict: Verdict, place: BlockPosition) -> Outcome {
    match (place, verdict) {
        (BlockPosition::InChain { .. }, _) => Outcome::Accepted,
        (BlockPosition::Beside { .. }, _) => Outcome::Stale,
        (BlockPosition::Unknown, Verdict::Taken) => {
            Outcome::Waiting("the daemon took it, but does not know it yet".to_owned())
        }
        (BlockPosition::Unknown, Verdict::Unclear(reason)) => Outcome::Waiting(reason),
        (BlockPosition::Unknown, Verdict::Refused(reason)) => Outcome::Rejected(reason),
        (BlockPosition::Unknown, Verdict::None(reason)) => Outcome::Failed(reason),
    }
}

impl AuxRoute {
    /// Creates a route to `daemon` that sends `news` after each answer.
    pub(super) fn new(daemon: Daemon, news: Arc<Notify>) -> Self {
        Self { daemon, news }
    }

    async fn submit(&self, block: &FoundBlock) -> Outcome {
        let verdict = read(self.daemon.submit_method(block), &self.daemon.submit(block).await);
        if let Verdict::None(reason) = verdict {
            return Outcome::Failed(reason);
        }
        self.news.notify_one();
        let mut place = self.daemon.position(&block.hash).await;
        let is_in_chain = |place: &_| matches!(place, Ok(BlockPosition::InChain { .. }));
        if verdict == Verdict::Taken && !is_in_chain(&place) {
            sleep(SECOND_LOOK).await;
            place = self.daemon.position(&block.hash).await;
        }
        match place {
            Ok(place) => outcome(verdict, place),
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }
}

impl Route for AuxRoute {
    fn name(&self) -> &'static str {
        "rpc"
    }

    /// Makes one attempt: each of its calls has a timeout of its own.
    fn attempt<'a>(&'a self, block: &'a FoundBlock) -> BoxFuture<'a, Outcome> {
        Box::pin(self.submit(block))
    }
}

#[cfg(test)]
mod tests;
