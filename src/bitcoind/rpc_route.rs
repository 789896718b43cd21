//! `submitblock` as a way for blocks, and what its answers mean (BIP 22).

use bitcoin::hex::DisplayHex;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

use super::Route;
use super::responses::BlockHeaderInfo;
use super::rpc::{Rpc, RpcError, code};
use crate::block::{FoundBlock, Outcome};

/// Between two looks at a block that the daemon has but not in its best chain.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// What `submitblock` says when the block cannot even be read (`RPC_DESERIALIZATION_ERROR`).
const UNREADABLE: i32 = -22;

/// The daemon's RPC port as a way for blocks.
#[derive(Debug)]
pub struct RpcRoute {
    rpc: Rpc,
}

/// What an answer of `submitblock` says by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reading {
    /// The daemon has the block; its chain says whether that was in time.
    Has,
    /// The daemon lacks the block before it.
    Behind,
    /// It breaks a rule.
    Breaks(String),
}

/// Reads `submitblock`'s answer; `None` stands for null.
fn read(answer: Option<&str>) -> Reading {
    match answer {
        // "inconclusive": stored, but not judged, since it is not on top of the best chain.
        None | Some("duplicate" | "inconclusive" | "duplicate-inconclusive") => Reading::Has,
        Some("prev-blk-not-found") => Reading::Behind,
        Some(reason) => Reading::Breaks(reason.to_owned()),
    }
}

impl RpcRoute {
    /// Submits through `rpc`.
    pub fn new(rpc: Rpc) -> Self {
        Self { rpc }
    }

    async fn submit(&self, block: &FoundBlock) -> Result<Outcome, RpcError> {
        let hex = Value::String(block.bytes.to_lower_hex_string());
        for last in [false, true] {
            let answer = match self.rpc.call::<Option<String>>("submitblock", vec![hex.clone()]).await {
                Err(RpcError::Daemon { code: UNREADABLE, message, .. }) => return Ok(Outcome::Rejected(message)),
                other => other?,
            };
            match read(answer.as_deref()) {
                Reading::Breaks(reason) => return Ok(Outcome::Rejected(reason)),
                Reading::Behind => {
                    return Ok(Outcome::Failed("bitcoind does not have the block before it".to_owned()));
                }
                Reading::Has if self.is_in_chain(block).await? => return Ok(Outcome::Accepted),
                // Asked again, since a block that another route brought may be on its way into the chain, or be found
                // to break a rule, while it is already known.
                Reading::Has if !last => sleep(SECOND_LOOK).await,
                Reading::Has => {}
            }
        }
        Ok(Outcome::Stale)
    }

    async fn is_in_chain(&self, block: &FoundBlock) -> Result<bool, RpcError> {
        let header: BlockHeaderInfo = self.rpc.call("getblockheader", vec![json!(block.hash)]).await?;
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
                    Outcome::Failed("bitcoind took it, but does not know it".to_owned())
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
        assert_eq!(read(Some("prev-blk-not-found")), Reading::Behind);
        for breaks in ["duplicate-invalid", "high-hash", "bad-txnmrklroot", "rejected", ""] {
            assert_eq!(read(Some(breaks)), Reading::Breaks(breaks.to_owned()));
        }
    }
}
