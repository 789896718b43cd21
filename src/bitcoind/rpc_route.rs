//! `submitblock` as a route for blocks, and the meaning of its answers (BIP 22).

use bitcoin::BlockHash;
use bitcoin::hex::DisplayHex;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

use super::responses::{BlockHeaderInfo, printable};
use super::rpc::{Rpc, RpcError, code};
use super::standing::StandingConnection;
use crate::blocks::Route;
use crate::blocks::{FoundBlock, Outcome};

/// Delay before the second check of a block that the daemon has, but not in its best chain.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// Reason for waiting while the daemon does not have the parent block.
pub(super) const NO_PARENT: &str = "bitcoind does not have its parent block";

/// Time for an answer over the standing connection, after which the call is made over a new one, too: the standing one
/// may be dead without a sign of it. `submitblock` twice does no harm.
const STANDING_ALONE: Duration = Duration::from_secs(2);

/// The daemon's RPC port as a route for blocks.
#[derive(Debug)]
pub(super) struct RpcRoute {
    rpc: Rpc,
    standing: Arc<StandingConnection>,
}

/// Meaning of an answer of `submitblock`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reading {
    /// The daemon has the block; its chain decides if it is in it.
    Has,
    /// The daemon cannot judge it yet.
    Waits(&'static str),
    /// The daemon marked this block, or an ancestor, as invalid earlier.
    MarkedInvalid,
    /// The block breaks a rule.
    Breaks(String),
}

/// Interprets `submitblock`'s answer; `None` stands for null.
fn read(answer: Option<&str>) -> Reading {
    match answer {
        // "inconclusive": stored, but not judged, since it does not extend the best chain.
        None | Some("duplicate" | "inconclusive" | "duplicate-inconclusive") => Reading::Has,
        Some("prev-blk-not-found") => Reading::Waits(NO_PARENT),
        // The parent may be reconsidered (`reconsiderblock`): a daemon marks blocks as invalid for a bad disk, too.
        Some("bad-prevblk") => Reading::Waits("bitcoind considers its parent block invalid"),
        // More than two hours ahead of the daemon's clock, which may be wrong, and advances anyway.
        Some("time-too-new") => Reading::Waits("its time is too far ahead of bitcoind's clock"),
        Some("duplicate-invalid") => Reading::MarkedInvalid,
        // Core's code for a verdict that it did not reach.
        Some("valid?") => Reading::Waits("bitcoind gave no verdict"),
        Some(reason) => Reading::Breaks(printable(reason)),
    }
}

impl RpcRoute {
    /// Creates a route through `rpc`, over its `standing` connection first.
    pub(super) fn new(rpc: Rpc, standing: Arc<StandingConnection>) -> Self {
        Self { rpc, standing }
    }

    /// Calls `method` over the standing connection, or else over a new one.
    async fn call<T>(&self, method: &'static str, params: Value) -> Result<T, RpcError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let standing = self.standing.call(method, &params);
        let mut standing = std::pin::pin!(standing);
        let fresh = || self.rpc.call(method, params.as_array().cloned().unwrap_or_default());
        let answer = match timeout(STANDING_ALONE, &mut standing).await {
            Ok(Some(answer)) => answer?,
            Ok(None) => return fresh().await,
            Err(_) => tokio::select! {
                biased;
                Some(answer) = standing => answer?,
                answer = fresh() => return answer,
            },
        };
        serde_json::from_value(answer).map_err(|error| self.rpc.malformed(method, &error))
    }

    async fn submit(&self, block: &FoundBlock) -> Result<Outcome, RpcError> {
        let params = json!([block.bytes.to_lower_hex_string()]);
        for last in [false, true] {
            let answer = match self.call::<Option<String>>("submitblock", params.clone()).await {
                Err(RpcError::Daemon { code: code::UNREADABLE, message, .. }) => return Ok(Outcome::Rejected(message)),
                other => other?,
            };
            match read(answer.as_deref()) {
                Reading::Breaks(reason) => return Ok(Outcome::Rejected(reason)),
                Reading::Waits(reason) => return Ok(Outcome::Waiting(reason.to_owned())),
                // Only if the parent is in the best chain is the mark about this block itself.
                Reading::MarkedInvalid if self.is_in_chain(&block.previous_block).await? => {
                    return Ok(Outcome::Rejected("duplicate-invalid".to_owned()));
                }
                Reading::MarkedInvalid => {
                    return Ok(Outcome::Waiting("bitcoind considers an ancestor invalid".to_owned()));
                }
                Reading::Has if self.is_in_chain(&block.hash).await? => return Ok(Outcome::Accepted),
                // Repeated, since a block that another route brought may be on its way into the chain, or be found to
                // break a rule, while it is already known.
                Reading::Has if !last => sleep(SECOND_LOOK).await,
                Reading::Has => {}
            }
        }
        // A daemon that lacks ancestors, or is still connecting them, has the block without any competitor.
        let height: u32 = self.call("getblockcount", json!([])).await?;
        Ok(if height >= block.height {
            Outcome::Stale
        } else {
            Outcome::Waiting(format!("bitcoind has it, but its chain ends at height {height}"))
        })
    }

    /// True if a block that the daemon knows is in its best chain.
    async fn is_in_chain(&self, hash: &BlockHash) -> Result<bool, RpcError> {
        let header: BlockHeaderInfo = self.call("getblockheader", json!([hash])).await?;
        Ok(header.confirmations >= 1)
    }
}

impl Route for RpcRoute {
    fn name(&self) -> &'static str {
        "rpc"
    }

    fn attempt<'a>(&'a self, block: &'a FoundBlock) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match self.submit(block).await {
                Ok(outcome) => outcome,
                Err(error) if error.code() == Some(code::NOT_FOUND) => {
                    Outcome::Failed("bitcoind accepted it, but does not know it".to_owned())
                }
                Err(error) => Outcome::Failed(error.to_string()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_read_for_what_it_says() {
        for has in [None, Some("duplicate"), Some("inconclusive"), Some("duplicate-inconclusive")] {
            assert_eq!(read(has), Reading::Has);
        }
        for waits in ["prev-blk-not-found", "bad-prevblk", "time-too-new", "valid?"] {
            assert!(matches!(read(Some(waits)), Reading::Waits(_)), "{waits}");
        }
        assert_eq!(read(Some("duplicate-invalid")), Reading::MarkedInvalid);
        for breaks in ["high-hash", "bad-txnmrklroot", "rejected", ""] {
            assert_eq!(read(Some(breaks)), Reading::Breaks(breaks.to_owned()));
        }
    }
}
