//! Answers that only the control socket gives. Facts that `/api/v1` has as well use its types and its constructors.

use bitcoin::BlockHash;
use serde::{Deserialize, Serialize};
use sharechain::chain::RefusedLately;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::blocks::Outcome;
use crate::view::http;
use crate::view::http::api::{Blocks, Merged, Peers, Shares, Summary, Workers};
use crate::view::snapshot::Snapshot;

/// Maximum rows of each list of [`Overview`]: more than fit on a screen.
const WORKERS_MAX: usize = 200;
const GENERATIONS_MAX: u32 = 60;
const BLOCKS_MAX: usize = 60;
pub(super) const LOG_LINES_MAX: usize = 100;

/// State of the node in short.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Process id of the node.
    pub pid: u32,
    /// Warning that the node's clock is wrong; also among the summary's warnings.
    pub clock: Option<String>,
    /// Peers' shares that were refused within the last hour; absent from nodes older than this field.
    #[serde(default)]
    pub refused: Option<RefusedShares>,
    /// As in `/api/v1/summary`.
    pub summary: Summary,
}

/// Peers' shares that were refused because they do not fit their ancestors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RefusedShares {
    /// Number of different shares.
    pub shares: usize,
    /// Number of networks that sent them.
    pub networks: usize,
    /// Shares by reason: the labels of `sharechain_refused_shares_total`.
    pub reasons: BTreeMap<String, usize>,
}

impl From<&RefusedLately> for RefusedShares {
    fn from(lately: &RefusedLately) -> Self {
        let reasons = lately.reasons.iter().map(|(reason, shares)| ((*reason).to_owned(), *shares)).collect();
        Self { shares: lately.shares, networks: lately.networks, reasons }
    }
}

/// State of the node on one page, each part as in `/api/v1`. Bounded in size.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// As in `/api/v1/summary`.
    pub summary: Summary,
    /// As in `/api/v1/workers`.
    pub workers: Workers,
    /// As in `/api/v1/shares`.
    pub shares: Shares,
    /// As in `/api/v1/peers`.
    pub peers: Peers,
    /// As in `/api/v1/blocks`.
    pub blocks: Blocks,
    /// As in `/api/v1/merged`.
    #[serde(default)]
    pub merged: Merged,
    /// Last lines of the log, oldest first.
    pub log: Vec<String>,
}

/// Result of submitting a block again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resubmitted {
    /// Name of the merged chain that it is of; absent for the parent chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Arc<str>>,
    pub hash: BlockHash,
    /// Latest outcome of each route that has answered.
    pub routes: Vec<Attempt>,
    /// Verdict on the block, if there is one.
    pub verdict: Option<Outcome>,
}

/// Latest outcome of one route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Name of the route, such as `rpc` or `p2p`.
    pub route: String,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Result of lifting bans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unbanned {
    /// Number of bans lifted.
    pub unbanned: u64,
}

impl Status {
    /// Returns the status as of `snapshot`.
    pub(super) fn of(snapshot: &Snapshot, sources: &http::Sources) -> Self {
        Self {
            pid: std::process::id(),
            clock: snapshot.clock.clone(),
            refused: Some((&snapshot.refused).into()),
            summary: Summary::of(snapshot, sources),
        }
    }
}

impl Overview {
    /// Returns the overview as of `snapshot`, with these lines of the log.
    pub(super) fn of(snapshot: &Snapshot, sources: &http::Sources, log: Vec<String>) -> Self {
        Self {
            summary: Summary::of(snapshot, sources),
            workers: Workers::of(snapshot, &(sources.small_devices.0)(), WORKERS_MAX),
            shares: Shares::of(snapshot, GENERATIONS_MAX),
            peers: Peers::of(&snapshot.peers),
            blocks: Blocks::of(snapshot, &sources.found.borrow(), BLOCKS_MAX),
            merged: Merged::of(snapshot, &sources.merged_found.borrow(), BLOCKS_MAX),
            log,
        }
    }
}
