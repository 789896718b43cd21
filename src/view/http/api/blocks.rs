//! The pool's found blocks and their states.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use sharechain::chain::pool::SolvedBlock;
use std::collections::HashMap;
use utoipa::ToSchema;

use super::{Answer, Limit, Problem, Sources};
use crate::blocks::Outcome;
use crate::blocks::found::{FoundBlocks, Record, RouteReport};
use crate::view::snapshot::Snapshot;

/// The pool's found blocks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Blocks {
    /// Ticker symbol of the coin.
    pub symbol: String,
    /// Number of blocks that this node remembers.
    pub total: usize,
    /// Blocks, newest first.
    pub blocks: Vec<Block>,
}

/// One found block.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Block {
    /// Hash of the block.
    pub hash: String,
    /// Hash of the share that solved it, which is the same.
    pub share: String,
    /// Height of the block, if known.
    pub height: Option<u32>,
    /// Time at which it was found.
    pub time: f64,
    /// Address that its share pays; null if the share is not kept.
    pub payee: Option<String>,
    /// Worker that found it, or peer that sent its share; null if it was found before this node followed blocks.
    pub finder: Option<String>,
    /// True if a miner of this node found it.
    pub is_own: bool,
    /// Total of the coinbase, in satoshis.
    pub value: Option<u64>,
    /// State: `submitted`, `confirming`, `mature` (its coinbase can be spent), `stale` (another block of its height was
    /// first), `orphaned` (no longer in the best chain) or `rejected`; null if it is not followed.
    pub state: Option<String>,
    /// Time of the latest change of state.
    pub state_since: Option<f64>,
    /// Blocks from it to the tip, itself included.
    pub confirmations: Option<u32>,
    /// Reason why it was rejected, or not submitted by this node.
    pub detail: Option<String>,
    /// Outcome of each route to the network.
    pub routes: Vec<Route>,
}

/// Outcome of one route of a block to its daemon.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// `rpc` or `p2p`.
    pub route: String,
    /// `accepted`, `stale`, `rejected`, `waiting` (the daemon cannot judge it yet) or `failed`.
    pub outcome: String,
    /// Reason given by the daemon, if any.
    pub detail: Option<String>,
    /// Number of attempts.
    pub attempts: u32,
    /// Seconds from finding the block to the latest answer.
    pub seconds: f64,
}

/// The pool's found blocks.
#[utoipa::path(get, path = "/api/v1/blocks", tag = "sharechain", params(("limit" = Option<usize>, Query, description = "Maximum number of blocks")),
    responses((status = 200, description = "The blocks", body = Blocks), (status = 400, description = "Not a limit", body = Problem)))]
pub(super) async fn blocks(state: State<Sources>, query: Result<Query<Limit>, QueryRejection>) -> Answer<Blocks> {
    let limit = super::limit(query)?;
    let snapshot = super::snapshot(&state);
    let found = state.found.borrow().clone();
    Ok(Json(Blocks::of(&snapshot, &found, limit)))
}

impl Blocks {
    /// Returns up to `limit` blocks: those that are followed, and others of the share chain.
    pub(in crate::view) fn of(snapshot: &Snapshot, found: &FoundBlocks, limit: usize) -> Self {
        let mut solved: HashMap<String, Block> =
            snapshot.chain.blocks.iter().map(|solved| (solved.hash.to_string(), not_followed(solved))).collect();
        let mut blocks: Vec<Block> = found.blocks.iter().map(|record| followed(record)).collect();
        for block in &mut blocks {
            block.payee = solved.remove(&block.hash).and_then(|solved| solved.payee);
        }
        blocks.extend(solved.into_values());
        blocks.sort_by(|one, other| other.time.total_cmp(&one.time));
        let total = blocks.len();
        blocks.truncate(limit);
        Self { symbol: snapshot.symbol.to_owned(), total, blocks }
    }
}

fn followed(record: &Record) -> Block {
    let verdict = record.verdict.as_ref().and_then(|verdict| detail(&verdict.outcome));
    Block {
        hash: record.hash.to_string(),
        share: record.hash.to_string(),
        height: record.height,
        time: record.found_at,
        payee: None,
        finder: Some(record.finding.finder.clone()),
        is_own: record.finding.is_ours,
        value: Some(record.finding.value),
        state: Some(record.standing.word().to_owned()),
        state_since: Some(record.standing_since),
        confirmations: Some(record.confirmations),
        detail: record.not_submitted.clone().or(verdict),
        routes: record.routes.iter().map(|report| route(report, record.found_at)).collect(),
    }
}

pub(super) fn route(report: &RouteReport, found_at: f64) -> Route {
    Route {
        route: report.route.clone(),
        outcome: report.outcome.word().to_owned(),
        detail: detail(&report.outcome),
        attempts: report.attempts,
        seconds: (report.at - found_at).max(0.0),
    }
}

pub(super) fn detail(outcome: &Outcome) -> Option<String> {
    outcome.reason().map(str::to_owned)
}

/// Converts a block of the share chain that is not followed.
fn not_followed(solved: &SolvedBlock) -> Block {
    Block {
        hash: solved.hash.to_string(),
        share: solved.hash.to_string(),
        height: solved.height,
        time: f64::from(solved.time),
        payee: Some(solved.payee.as_str().to_owned()),
        finder: None,
        is_own: solved.is_own,
        value: None,
        state: None,
        state_since: None,
        confirmations: None,
        detail: None,
        routes: Vec::new(),
    }
}
