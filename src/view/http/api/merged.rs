//! Merged chains: their condition, who is paid for their blocks, and the blocks that were found.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use stratum::mining::difficulty::HASHES_AT_DIFFICULTY_ONE;
use utoipa::ToSchema;

use super::blocks::{Route, detail, route};
use super::{Answer, Limit, Problem, Sources};
use crate::blocks::found::{FoundBlocks, Record, Standing};
use crate::merged::{ChainStatus, State as Condition, confirmations_mature};
use crate::view::snapshot::Snapshot;

/// Merged chains, and the blocks that this node's miners found of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Merged {
    /// Chains in the order of the configuration; empty if there are none.
    pub chains: Vec<MergedChain>,
    /// Number of found blocks that this node remembers, of all chains.
    pub total: usize,
    /// Found blocks, newest first.
    pub blocks: Vec<MergedBlock>,
}

/// One merged chain.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MergedChain {
    /// Name, as configured.
    pub name: String,
    /// State: `starting` (its daemon has not given any work yet), `mining`, `waiting` (its daemon gives none now; its
    /// last work is mined) or `left_out` (not mined).
    pub state: String,
    /// Payee of its blocks: `the miners` of the pool, or an address that the operator of this node chose, or `the daemon's
    /// wallet`, which is the operator's, too. Of the latter two miners get nothing.
    pub payee: String,
    /// How work is asked for: `payouts` (its blocks pay the miners), `address` or `wallet`; null until known.
    pub mode: Option<String>,
    /// Chain id in the commitment; null until its daemon has answered.
    pub chain_id: Option<u32>,
    /// User agent of its daemon; empty until known.
    pub version: String,
    /// Current failure, or what is wrong with its work; null if all is well.
    pub trouble: Option<String>,
    /// Height of the block that is being mined.
    pub height: Option<u32>,
    /// Difficulty of the block that is being mined (bdiff); null without work, or if it is that of a share.
    pub difficulty: Option<f64>,
    /// What the block pays, in hundred-millionths of the chain's coin, if its daemon says so.
    pub value: Option<u64>,
    /// Average time until this node's miners find a block of it, in seconds.
    pub seconds_to_block: Option<f64>,
    /// Time at which the current work was new.
    pub work_since: Option<f64>,
    /// Time of its daemon's latest good answer.
    pub answered_at: Option<f64>,
    /// Number of failed calls to its daemon since the start.
    pub failures: u64,
    /// Number of its found blocks that this node remembers.
    pub found: usize,
    /// Of these, the number that did not stay in its chain: stale, orphaned or rejected.
    pub lost: usize,
    /// Time at which the newest was found.
    pub last_found: Option<f64>,
}

/// One found block of a merged chain.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MergedBlock {
    /// Name of the chain.
    pub chain: String,
    /// Hash of the block.
    pub hash: String,
    /// Height of the block in its chain, if known.
    pub height: Option<u32>,
    /// Time at which it was found.
    pub time: f64,
    /// Worker that found it.
    pub finder: String,
    /// Payee of the block: an address that the operator of this node chose, or `the daemon's wallet`.
    pub payee: String,
    /// What it pays, in hundred-millionths of the chain's coin, if its daemon said so.
    pub value: Option<u64>,
    /// State: `submitted`, `confirming`, `mature` (its coinbase can be spent), `stale` (another block of its height was
    /// first), `orphaned` (no longer in the best chain) or `rejected`.
    pub state: String,
    /// Time of the latest change of state.
    pub state_since: f64,
    /// Blocks from it to the tip, itself included.
    pub confirmations: u32,
    /// Confirmations at which its coinbase can be spent; null until its chain's daemon has answered.
    pub maturity: Option<u32>,
    /// Reason why it was rejected, if so.
    pub detail: Option<String>,
    /// Outcome of each route to its daemon.
    pub routes: Vec<Route>,
}

/// Merged chains in brief.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MergedSummary {
    /// Number of merged chains that are configured; `/api/v1/merged` has each.
    pub chains: usize,
    /// Number of those that are mined.
    pub mined: usize,
    /// Number of those that are left out, because of trouble with their daemon or its work.
    pub left_out: usize,
    /// Number of found blocks that this node remembers, of all chains.
    pub found: usize,
}

/// Merged chains, who is paid for their blocks, and the blocks that this node's miners found.
#[utoipa::path(get, path = "/api/v1/merged", tag = "merged", params(("limit" = Option<usize>, Query, description = "Maximum number of blocks")),
    responses((status = 200, description = "The chains and blocks", body = Merged), (status = 400, description = "Not a limit", body = Problem)))]
pub(super) async fn merged(state: State<Sources>, query: Result<Query<Limit>, QueryRejection>) -> Answer<Merged> {
    let limit = super::limit(query)?;
    let snapshot = super::snapshot(&state);
    let found = state.merged_found.borrow().clone();
    Ok(Json(Merged::of(&snapshot, &found, limit)))
}

impl Merged {
    /// Returns the chains as of `snapshot`, and up to `limit` of their `found` blocks.
    pub(in crate::view) fn of(snapshot: &Snapshot, found: &FoundBlocks, limit: usize) -> Self {
        let mut counts: HashMap<&str, Counts> = HashMap::new();
        for record in &found.blocks {
            counts.entry(chain_of(record)).or_default().add(record);
        }
        let hash_rate = snapshot.rates.hash_rate;
        let chain = |status: &ChainStatus| {
            MergedChain::of(status, counts.get(&*status.name).copied().unwrap_or_default(), hash_rate)
        };
        Self {
            chains: snapshot.merged.iter().map(chain).collect(),
            total: found.blocks.len(),
            blocks: found.blocks.iter().take(limit).map(|record| MergedBlock::of(record, snapshot)).collect(),
        }
    }
}

/// Counts of a chain's found blocks.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    found: usize,
    lost: usize,
    last: Option<f64>,
}

impl Counts {
    fn add(&mut self, record: &Record) {
        self.found += 1;
        let is_lost = matches!(record.standing, Standing::Stale | Standing::Orphaned | Standing::Rejected);
        self.lost += usize::from(is_lost);
        self.last = Some(self.last.unwrap_or(record.found_at).max(record.found_at));
    }
}

impl MergedChain {
    fn of(status: &ChainStatus, counts: Counts, hash_rate: f64) -> Self {
        let is_mined = matches!(status.state, Condition::Mining | Condition::Waiting);
        let difficulty = status.difficulty.filter(|_| is_mined && hash_rate > 0.0);
        Self {
            name: status.name.to_string(),
            state: status.state.word().to_owned(),
            payee: status.payee.to_string(),
            mode: status.mode.map(|mode| mode.word().to_owned()),
            chain_id: status.chain_id,
            version: status.version.to_string(),
            trouble: status.trouble.as_deref().map(str::to_owned),
            height: status.height,
            difficulty: status.difficulty,
            value: status.value,
            seconds_to_block: difficulty.map(|difficulty| difficulty * HASHES_AT_DIFFICULTY_ONE / hash_rate),
            work_since: status.work_since,
            answered_at: status.answered_at,
            failures: status.failures,
            found: counts.found,
            lost: counts.lost,
            last_found: counts.last,
        }
    }
}

impl MergedBlock {
    /// Returns a found block, with the maturity of its chain as of `snapshot`.
    pub(super) fn of(record: &Record, snapshot: &Snapshot) -> Self {
        let chain = snapshot.merged.iter().find(|status| *status.name == *chain_of(record));
        let verdict = record.verdict.as_ref().and_then(|verdict| detail(&verdict.outcome));
        Self {
            chain: chain_of(record).to_owned(),
            hash: record.hash.to_string(),
            height: record.height,
            time: record.found_at,
            finder: record.finding.finder.clone(),
            payee: record.finding.payee.clone(),
            // Zero where the daemon gave none.
            value: Some(record.finding.value).filter(|value| *value > 0),
            state: record.standing.word().to_owned(),
            state_since: record.standing_since,
            confirmations: record.confirmations,
            maturity: chain.and_then(|status| status.chain_id).map(confirmations_mature),
            detail: record.not_submitted.clone().or(verdict),
            routes: record.routes.iter().map(|report| route(report, record.found_at)).collect(),
        }
    }
}

impl MergedSummary {
    /// Returns the numbers as of `snapshot`.
    pub(super) fn of(snapshot: &Snapshot, found: &FoundBlocks) -> Self {
        let count = |states: &[Condition]| snapshot.merged.iter().filter(|chain| states.contains(&chain.state)).count();
        Self {
            chains: snapshot.merged.len(),
            mined: count(&[Condition::Mining, Condition::Waiting]),
            left_out: count(&[Condition::LeftOut]),
            found: found.blocks.len(),
        }
    }
}

/// Name of the merged chain whose block this is.
pub(super) fn chain_of(record: &Record) -> &str {
    record.chain.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rates::Rates;
    use crate::view::http::testing::{ask, merged_block, merged_chain, sources, status_of};
    use crate::view::http::{Http, pages};
    use serde_json::Value;
    use std::sync::Arc;
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    fn body(answer: &str) -> Value {
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    /// Returns a server whose node mines `doge`, leaves out `nmc`, and has found three blocks of the first.
    fn http(folder: &std::path::Path) -> Http {
        let left_out = ChainStatus {
            state: Condition::LeftOut,
            trouble: Some("its daemon is away".into()),
            difficulty: None,
            ..merged_chain("nmc")
        };
        let mut sources = sources(folder);
        let mut snapshot = Snapshot::clone(&sources.snapshot.borrow());
        snapshot.merged = Arc::new(vec![merged_chain("doge"), left_out]);
        snapshot.rates = Arc::new(Rates { hash_rate: HASHES_AT_DIFFICULTY_ONE, ..Rates::default() });
        sources.snapshot = watch::channel(Arc::new(snapshot)).1;
        let blocks = [(3, Standing::Submitted), (2, Standing::Orphaned), (1, Standing::Mature)]
            .map(|(number, standing)| Arc::new(merged_block("doge", number, standing)));
        sources.merged_found = watch::channel(Arc::new(FoundBlocks { blocks: blocks.into() })).1;
        Http::new(pages(sources), CancellationToken::new())
    }

    #[tokio::test]
    async fn each_chain_is_listed_with_who_is_paid_and_what_was_found() {
        let folder = tempfile::tempdir().unwrap();
        let http = http(folder.path());
        let get = async |path: &str| ask(&http, [192, 0, 2, 1], &format!("GET {path}"), "").await;
        let answer = get("/api/v1/merged?limit=2").await;
        assert!(!answer.contains("22555"), "where its daemon is concerns no reader: {answer}");
        let merged: Merged = serde_json::from_value(body(&answer)).unwrap();
        let [doge, nmc] = &merged.chains[..] else { panic!("{merged:?}") };
        assert_eq!([&doge.state[..], &doge.payee, &doge.version], ["mining", "DOperator1", "/Shibetoshi:1.14.9/"]);
        assert_eq!((doge.found, doge.lost, doge.last_found), (3, 1, Some(3.0)));
        assert_eq!(doge.seconds_to_block, Some(16.0));
        assert_eq!((&nmc.state[..], nmc.trouble.as_deref()), ("left_out", Some("its daemon is away")));
        assert_eq!((nmc.found, nmc.last_found, nmc.seconds_to_block), (0, None, None));
        assert_eq!(merged.total, 3);
        let shown: Vec<_> =
            merged.blocks.iter().map(|block| (&block.chain[..], block.time, &block.state[..])).collect();
        assert_eq!(shown, [("doge", 3.0, "submitted"), ("doge", 2.0, "orphaned")]);
        assert_eq!((merged.blocks[0].value, &merged.blocks[0].payee[..]), (None, "DOperator1"));
        assert_eq!((doge.chain_id, merged.blocks[0].maturity), (Some(98), Some(240)));
        let summary = body(&get("/api/v1/summary").await);
        let brief: MergedSummary = serde_json::from_value(summary["merged"].clone()).unwrap();
        assert_eq!(brief, MergedSummary { chains: 2, mined: 1, left_out: 1, found: 3 });
    }

    #[tokio::test]
    async fn blocks_of_merged_chains_are_not_among_the_pools() {
        let folder = tempfile::tempdir().unwrap();
        let http = http(folder.path());
        let get = async |path: &str| ask(&http, [192, 0, 2, 1], &format!("GET {path}"), "").await;
        assert_eq!(body(&get("/recent_blocks").await), serde_json::json!([]));
        assert_eq!(body(&get("/api/v1/blocks").await)["total"], 0);
    }

    #[tokio::test]
    async fn a_merged_chain_that_is_left_out_is_in_the_health_without_making_it_worse() {
        let folder = tempfile::tempdir().unwrap();
        let mut sources = sources(folder.path());
        let health = crate::bitcoind::Health {
            last_success: Some(std::time::Instant::now()),
            ..crate::bitcoind::Health::default()
        };
        sources.health = watch::channel(health).1;
        sources.gate = watch::channel(crate::work::Gate::Open).1;
        let mut snapshot = Snapshot::clone(&sources.snapshot.borrow());
        snapshot.merged = Arc::new(vec![ChainStatus { state: Condition::LeftOut, ..merged_chain("doge") }]);
        sources.snapshot = watch::channel(Arc::new(snapshot)).1;
        let http = Http::new(pages(sources), CancellationToken::new());
        let answer = ask(&http, [192, 0, 2, 1], "GET /health", "").await;
        assert_eq!(status_of(&answer), 200, "{answer}");
        let listed = serde_json::json!([{"chain": "doge", "state": "left_out", "trouble": null}]);
        assert_eq!(body(&answer)["merged"], listed);
    }
}
