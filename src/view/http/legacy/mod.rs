//! P2Pool's original JSON API, with its paths, fields, units and types, so that existing clients keep working (protocol
//! section 13.2), and what dashboards of share version 36 read beside it (protocol-v36 section 9.3).
//!
//! Answers are made from snapshots; only single shares are requested from the chain's owner, one at a time. Failures
//! are a 500 with the body `---ERROR---`, as in the reference.

mod merged;
mod miner;
mod patron;
mod share;
mod stats;
mod v36;
mod versions;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::value::RawValue;
use sharechain::share::ShareHash;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use stratum::Printable;
use tower_http::set_header::SetResponseHeaderLayer;

use super::Sources;
use crate::view::graphs::Graphs;
use crate::view::snapshot::Snapshot;

/// Satoshis in a coin.
const COIN: f64 = 1e8;

/// Own shares in the short list.
const OWN_SHORT: usize = 50;

/// The reference's answer to a failed request.
pub(super) struct Failed;

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
        (StatusCode::INTERNAL_SERVER_ERROR, kind, "---ERROR---").into_response()
    }
}

type Answer = Result<Response, Failed>;

/// Returns the router of the old paths.
pub(super) fn router() -> Router<Sources> {
    let everybody = (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    Router::new()
        .route("/rate", figure(|snapshot| json(&snapshot.pool.as_ref().ok_or(Failed)?.stretch.hash_rate)))
        .route("/difficulty", figure(|snapshot| json(&snapshot.pool.as_ref().ok_or(Failed)?.share_difficulty)))
        .route("/users", figure(|snapshot| json(&snapshot.users)))
        .route("/user_stales", figure(|snapshot| json(&snapshot.user_stales)))
        .route("/fee", figure(|snapshot| json(&snapshot.fee_percent)))
        .route("/current_payouts", figure(|snapshot| json(&current_payouts(snapshot))))
        .route("/patron_sendmany", get(patron::no_total))
        .route("/patron_sendmany/{total}", get(patron::sendmany))
        .route("/patron_sendmany/{total}/{trunc}", get(patron::sendmany_without_dust))
        .route("/global_stats", figure(|snapshot| json(&stats::global(snapshot))))
        .route("/local_stats", get(local_stats))
        .route("/peer_addresses", get(peer_addresses))
        .route("/peer_txpool_sizes", get(peer_txpool_sizes))
        .route("/pings", get(pings))
        .route("/peer_versions", figure(|snapshot| json(&peer_versions(snapshot))))
        .route("/payout_addr", figure(|snapshot| json(&snapshot.payout_address)))
        .route("/payout_addrs", figure(|snapshot| json(&[&snapshot.payout_address])))
        .route("/recent_blocks", figure(|snapshot| json(&stats::recent_blocks(snapshot))))
        .route("/uptime", figure(|snapshot| json(&snapshot.uptime())))
        .route("/stale_rates", figure(|snapshot| json(&stats::stale_rates(snapshot).ok_or(Failed)?)))
        .route("/web/log", get(log))
        .route("/web/share/{hash}", get(share::share))
        .route("/web/share_data/{hash}", get(share::share_data))
        .route("/web/payout_address/{hash}", get(share::payout_address))
        .route("/web/heads", figure(|snapshot| json(&snapshot.chain.heads)))
        .route("/web/verified_heads", figure(|snapshot| json(&snapshot.chain.verified_heads)))
        .route("/web/tails", figure(|snapshot| json(&snapshot.chain.tails)))
        .route("/web/verified_tails", figure(|snapshot| json(&snapshot.chain.verified_tails)))
        .route("/web/tree", figure(|snapshot| json(&stats::tree(snapshot))))
        .route("/web/verified", figure(|snapshot| json(&stats::verified(snapshot))))
        .route("/web/best_share", figure(best_share))
        .route("/web/best_share_hash", figure(best_share))
        .route("/web/my_share_hashes", figure(|snapshot| json(&snapshot.chain.own)))
        .route(
            "/web/my_share_hashes50",
            figure(|snapshot| json(&snapshot.chain.own[..snapshot.chain.own.len().min(OWN_SHORT)])),
        )
        .route("/web/currency_info", get(currency_info))
        .route("/web/version", figure(|snapshot| json(&snapshot.version)))
        .route("/web/graph_data/{source}/{view}", get(graph_data))
        .merge(v36::router())
        .layer(SetResponseHeaderLayer::overriding(everybody.0, everybody.1))
}

/// Returns a handler that makes its answer from the latest snapshot.
fn figure(answer: fn(&Snapshot) -> Answer) -> axum::routing::MethodRouter<Sources> {
    get(move |State(sources): State<Sources>| async move {
        let snapshot = sources.snapshot.borrow().clone();
        answer(&snapshot)
    })
}

/// Encodes `body` as JSON.
pub(super) fn json<T: Serialize + ?Sized>(body: &T) -> Answer {
    let text = serde_json::to_vec(body).map_err(|_| Failed)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// Encodes an integer of any length, as Python does.
pub(super) fn integer(number: impl Display) -> Box<RawValue> {
    // Digits are valid JSON.
    RawValue::from_string(number.to_string()).unwrap_or_default()
}

/// Converts satoshis to coins.
fn coins(satoshis: u64) -> f64 {
    satoshis as f64 / COIN
}

/// Parses a share's hash in a path: up to 64 hex digits, as Python's `int` reads them.
pub(super) fn hash_of(text: &str) -> Option<ShareHash> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let padded = (!text.is_empty() && text.len() <= 64).then(|| format!("{text:0>64}"))?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(&padded, &mut bytes).ok()?;
    bytes.reverse();
    Some(ShareHash(bytes))
}

fn current_payouts(snapshot: &Snapshot) -> BTreeMap<&str, f64> {
    snapshot.payouts.iter().map(|(payee, amount)| (payee.as_str(), coins(*amount))).collect()
}

/// Round-trip time of each peer in milliseconds, measured now unless a recent measurement exists.
async fn pings(State(sources): State<Sources>) -> Answer {
    let Some(p2p) = &sources.p2p else { return json(&BTreeMap::<String, f64>::new()) };
    p2p.measure_latencies().await;
    let status = p2p.status.borrow().clone();
    let of = |peer: &p2p::PeerStatus| (peer.address.to_string(), peer.latency.map(|seconds| seconds * 1000.0));
    json(&status.peers.iter().map(of).collect::<BTreeMap<_, _>>())
}

/// Software of each peer, which front ends put into pages as it is.
fn peer_versions(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let version = |peer: &p2p::PeerStatus| (peer.address.to_string(), Printable::new(&peer.sub_version).to_string());
    snapshot.peers.peers.iter().map(version).collect()
}

fn best_share(snapshot: &Snapshot) -> Answer {
    json(&snapshot.chain.best.ok_or(Failed)?)
}

async fn local_stats(State(sources): State<Sources>) -> Answer {
    let snapshot = sources.snapshot.borrow().clone();
    let rates = sources.rates.borrow().clone();
    json(&stats::local(&snapshot, &rates))
}

async fn peer_addresses(State(sources): State<Sources>) -> Answer {
    let snapshot = sources.snapshot.borrow().clone();
    let shown = |address: std::net::SocketAddr| match (address.port() == sources.network.p2p_port, address) {
        (true, address) => address.ip().to_string(),
        (false, address) => address.to_string(),
    };
    let addresses: Vec<String> = snapshot.peers.peers.iter().map(|peer| shown(peer.address)).collect();
    json(&addresses.join(" "))
}

async fn peer_txpool_sizes(State(sources): State<Sources>) -> Answer {
    let snapshot = sources.snapshot.borrow().clone();
    let remembered = |peer| sources.p2p.as_ref().map_or(0, |p2p| p2p.traffic.remembered(peer));
    let peers = snapshot.peers.peers.iter();
    let sizes: BTreeMap<String, usize> = peers.map(|peer| (peer.address.to_string(), remembered(peer.id))).collect();
    json(&sizes)
}

async fn log(State(sources): State<Sources>) -> Answer {
    let records = sources.graphs.log();
    json(&records)
}

/// URLs of block explorers for links.
#[derive(Serialize)]
struct CurrencyInfo {
    symbol: &'static str,
    block_explorer_url_prefix: String,
    address_explorer_url_prefix: String,
    tx_explorer_url_prefix: String,
}

async fn currency_info(State(sources): State<Sources>) -> Answer {
    let explorer = explorer_of(sources.network.name);
    let prefix = |what: &str| explorer.map_or_else(|| "#".to_owned(), |explorer| format!("{explorer}/{what}/"));
    json(&CurrencyInfo {
        symbol: sources.network.parent.symbol,
        block_explorer_url_prefix: prefix("block"),
        address_explorer_url_prefix: prefix("address"),
        tx_explorer_url_prefix: prefix("tx"),
    })
}

/// Returns the block explorer of a network; `None` for private chains.
fn explorer_of(network: &str) -> Option<&'static str> {
    match network {
        "bitcoin" => Some("https://mempool.space"),
        "bitcoin_testnet" => Some("https://mempool.space/testnet"),
        "bitcoin_testnet4" => Some("https://mempool.space/testnet4"),
        "bitcoin_signet" => Some("https://mempool.space/signet"),
        "litecoin" => Some("https://litecoinspace.org"),
        "litecoin_testnet" => Some("https://litecoinspace.org/testnet"),
        _ => None,
    }
}

async fn graph_data(State(sources): State<Sources>, Path((source, view)): Path<(String, String)>) -> Answer {
    json(&drawn(&sources.graphs, &source, &view).ok_or(Failed)?)
}

/// Returns a graph, or one line of it under the name of its former graph, which front ends of 2013 request.
fn drawn(graphs: &Graphs, source: &str, view: &str) -> Option<Vec<crate::view::graphs::Bin>> {
    let (source, keys): (_, &[&str]) = match source {
        "incoming_peers" => ("peers", &["incoming"]),
        "outgoing_peers" => ("peers", &["outgoing"]),
        "local_share_hash_rate" => ("local_share_hash_rates", &["good", "dead", "orphan"]),
        "local_dead_share_hash_rate" => ("local_share_hash_rates", &["dead"]),
        "pool_rate" => ("pool_rates", &["good", "orphan", "doa"]),
        "pool_stale_rate" => ("pool_rates", &["orphan", "doa"]),
        other => return graphs.draw(other, view),
    };
    let mut bins = graphs.draw(source, view)?;
    for bin in &mut bins {
        bin.value = bin.value.total_of(keys);
    }
    Some(bins)
}

/// Answers JSON as plain text, as the reference does.
fn text(body: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain")], body).into_response()
}

/// Returns the latest snapshot.
fn newest(sources: &Sources) -> Arc<Snapshot> {
    sources.snapshot.borrow().clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_the_reference_reads_it_and_nothing_else_is() {
        let text = format!("{:0>64}", "308a78d8eb84");
        assert_eq!(hash_of(&text).unwrap().to_string(), text);
        assert_eq!(hash_of("308a78d8eb84"), hash_of(&text));
        assert_eq!(hash_of("0x308A78D8EB84"), hash_of(&text));
        for odd in ["", "0x", "-1", "xyz", "../../etc/passwd", &"0".repeat(65), "é", "0x0x1"] {
            assert_eq!(hash_of(odd), None, "{odd}");
        }
    }

    #[test]
    fn whole_numbers_keep_all_of_their_digits() {
        let target = "23931797032512946448355080119003371062739634849393183336097152401145856";
        assert_eq!(serde_json::to_string(&integer(target)).unwrap(), target);
        assert_eq!(serde_json::to_string(&integer(7_u128)).unwrap(), "7");
    }
}
