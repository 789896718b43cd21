//! Paths that dashboards of share version 36 read, on any network (protocol-v36 section 9.3).

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{MethodRouter, get};
use serde::Serialize;

use super::{Answer, figure, json, merged, miner, newest, versions};
use crate::blocks::found::FoundBlocks;
use crate::view::http::Sources;
use crate::view::snapshot::Snapshot;

/// `/node_info`.
#[derive(Serialize)]
struct NodeInfo {
    /// This node does not ask others for its address.
    external_ip: Option<()>,
    worker_port: u16,
    p2p_port: u16,
    network: &'static str,
    symbol: &'static str,
}

pub(super) fn router() -> Router<Sources> {
    Router::new()
        .route("/version_signaling", figure(|snapshot| json(&versions::signaling(snapshot))))
        .route("/v36_status", get(v36_status))
        .route("/web/v36_status", get(v36_status))
        .route("/node_info", get(node_info))
        .route("/miner_stats/{address}", get(miner_stats))
        .route("/current_merged_payouts", get(current_merged_payouts))
        .route(
            "/merged_stats",
            of_found(|snapshot, found, sources| json(&merged::stats(snapshot, found, sources.network))),
        )
        .route(
            "/recent_merged_blocks",
            of_found(|snapshot, found, sources| json(&merged::blocks(snapshot, found, sources.network, false))),
        )
        .route(
            "/all_merged_blocks",
            of_found(|snapshot, found, sources| json(&merged::blocks(snapshot, found, sources.network, true))),
        )
        .route(
            "/discovered_merged_blocks",
            of_found(|snapshot, found, sources| json(&merged::discovered(snapshot, found, sources.network))),
        )
}

/// Returns a handler that makes its answer from the latest snapshot and the found blocks of merged chains.
fn of_found(answer: fn(&Snapshot, &FoundBlocks, &Sources) -> Answer) -> MethodRouter<Sources> {
    get(move |State(sources): State<Sources>| async move {
        let found = sources.merged_found.borrow().clone();
        answer(&newest(&sources), &found, &sources)
    })
}

async fn v36_status(State(sources): State<Sources>) -> Answer {
    let chain_id = sources.network.paid_merged_chain().map(|chain| chain.chain_id);
    json(&versions::v36_status(&newest(&sources), chain_id))
}

async fn node_info(State(sources): State<Sources>) -> Answer {
    json(&NodeInfo {
        external_ip: None,
        worker_port: sources.network.worker_port,
        p2p_port: sources.network.p2p_port,
        network: sources.network.name,
        symbol: sources.network.parent.symbol,
    })
}

async fn miner_stats(State(sources): State<Sources>, Path(address): Path<String>) -> Answer {
    match miner::stats(&newest(&sources), &address, sources.network) {
        Ok(miner) => json(&miner),
        Err(unknown) => json(&unknown),
    }
}

async fn current_merged_payouts(State(sources): State<Sources>) -> Answer {
    json(&merged::current_payouts(&newest(&sources), sources.network))
}
