//! `/api/v1`: the JSON API of the pages and of other programs.
//!
//! Answers are JSON objects, `snake_case`; hash rates are in hashes per second, amounts in satoshis, times in seconds
//! since 1970, durations in seconds, fractions from 0 to 1; difficulties of shares and submissions are in the unit of the
//! coin's miners, those of blocks in the daemon's; unknown values are null. Errors are `application/problem+json` (RFC
//! 9457). Answers are made from existing snapshots, or from one bounded query to the share chain. `openapi.json` is
//! generated from these types; `tests/node/api.rs` checks answers against it.

mod additions;
mod blocks;
mod connections;
mod events;
mod graphs;
mod health;
mod merged;
mod miners;
mod network;
mod shares;
mod summary;
mod versions;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

use super::Sources;
pub use blocks::{Block, Blocks, Route};
pub use events::Listeners;
pub use health::Health;
pub use merged::{Merged, MergedBlock, MergedChain, MergedSummary};
pub(super) use miners::is_worker_of;
pub use miners::{Payout, Payouts, Worker, Workers};
pub use network::{Ban, Bans, Download, Peer, Peers};
pub use shares::{Share, Shares};
pub use summary::{
    Connections, Daemon, DesiredVersion, Estimate, FoundBlocks, Local, NextBlock, Node, OwnShares, Pool, Summary,
};
pub use versions::{AuthorityMessage, ShareVersions};

/// Default number of elements of a list.
const LIMIT_DEFAULT: usize = 300;

/// Maximum number of elements of a list.
pub(in crate::view) const LIMIT_MAX: usize = 10_000;

/// OpenAPI description of all paths.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "P2Pool node",
        description = "State of a P2Pool node: miners, payouts, shares, blocks, merged chains and peers. Hash rates are \
                       in hashes per second, amounts in satoshis, times in seconds since 1970, durations in seconds, \
                       fractions from 0 to 1. Difficulties of shares and submissions are in the unit of the coin's miners: \
                       difficulty_scale (65,536 on scrypt networks, else 1) times those of blocks \
                       (bdiff). Unknown values are null. Errors are application/problem+json (RFC 9457). The API is \
                       public and read-only.",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        summary::summary,
        summary::node,
        miners::miners,
        miners::workers,
        connections::connections,
        miners::address,
        miners::payouts,
        shares::shares,
        shares::share,
        network::peers,
        network::bans,
        blocks::blocks,
        merged::merged,
        graphs::graphs,
        graphs::graph,
        events::events,
        description,
    )
)]
struct Description;

/// Returns every path with its handler.
fn table() -> Vec<(&'static str, MethodRouter<Sources>)> {
    vec![
        ("/api/v1/summary", get(summary::summary)),
        ("/api/v1/node", get(summary::node)),
        ("/api/v1/miners", get(miners::miners)),
        ("/api/v1/workers", get(miners::workers)),
        ("/api/v1/connections", get(connections::connections)),
        ("/api/v1/addresses/{address}", get(miners::address)),
        ("/api/v1/payouts", get(miners::payouts)),
        ("/api/v1/shares", get(shares::shares)),
        ("/api/v1/shares/{hash}", get(shares::share)),
        ("/api/v1/peers", get(network::peers)),
        ("/api/v1/bans", get(network::bans)),
        ("/api/v1/blocks", get(blocks::blocks)),
        ("/api/v1/merged", get(merged::merged)),
        ("/api/v1/graphs", get(graphs::graphs)),
        ("/api/v1/graphs/{source}/{view}", get(graphs::graph)),
        ("/api/v1/events", get(events::events)),
        ("/api/v1/openapi.json", get(description)),
    ]
}

pub(super) fn routes() -> Router<Sources> {
    let nothing = || async { Problem::not_found("no such path; /api/v1/openapi.json lists the paths") };
    table()
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| router.route(path, methods))
        .route("/api/v1/{*rest}", get(nothing))
        .layer(axum::middleware::map_response(open))
}

/// Allows pages of other origins to read answers, as with P2Pool's own JSON.
async fn open(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, header::HeaderValue::from_static("*"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(header::HeaderValue::from_static("no-store"));
    response
}

/// OpenAPI description of this API.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "description",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
async fn description() -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "max-age=3600")];
    (kind, text()).into_response()
}

/// Returns the text of `openapi.json`.
fn text() -> String {
    let mut text = serde_json::to_string_pretty(&Description::openapi()).expect("a description is plain data");
    text.push('\n');
    text
}

/// Problem details of a failed request (RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// HTTP status code.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// Kind of problem.
    pub title: String,
    /// Explanation of this occurrence.
    pub detail: String,
}

impl Problem {
    pub(in crate::view) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Problem").to_owned(),
            detail: detail.into(),
        }
    }

    pub(in crate::view) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(self)).into_response()
    }
}

/// Query parameter that limits a list.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Limit {
    limit: Option<usize>,
}

/// Returns the limit of a request.
fn limit(query: Result<Query<Limit>, QueryRejection>) -> Result<usize, Problem> {
    let Query(Limit { limit }) = query.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    match limit.unwrap_or(LIMIT_DEFAULT) {
        limit if limit > LIMIT_MAX => {
            Err(Problem::new(StatusCode::BAD_REQUEST, format!("`limit` is {limit}; the maximum is {LIMIT_MAX}")))
        }
        limit => Ok(limit),
    }
}

/// Result of a handler.
pub(in crate::view) type Answer<T> = Result<Json<T>, Problem>;

/// Returns the latest snapshot.
fn snapshot(State(sources): &State<Sources>) -> std::sync::Arc<crate::view::snapshot::Snapshot> {
    sources.snapshot.borrow().clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_route_is_described_and_every_description_has_a_route() {
        let described: BTreeSet<String> = Description::openapi().paths.paths.into_keys().collect();
        let routes: BTreeSet<String> = table().into_iter().map(|(path, _)| path.to_owned()).collect();
        assert_eq!(described, routes);
    }

    /// `UPDATE_OPENAPI=1 cargo test openapi` rewrites the file.
    #[test]
    fn the_description_beside_the_code_is_the_one_that_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/view/http/api/openapi.json");
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(path, text()).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap();
        assert!(kept == text(), "src/view/http/api/openapi.json is outdated: UPDATE_OPENAPI=1 cargo test openapi");
    }

    #[test]
    fn every_field_is_explained() {
        let description = serde_json::to_value(Description::openapi()).unwrap();
        let schemas = description["components"]["schemas"].as_object().unwrap();
        for (name, schema) in schemas {
            for (field, about) in schema["properties"].as_object().into_iter().flatten() {
                // Nullable objects have it one level down.
                let alternatives = about["oneOf"].as_array().into_iter().flatten().chain([about]);
                let is_explained =
                    alternatives.filter_map(|one| one["description"].as_str()).any(|text| text.len() > 3);
                assert!(is_explained, "{name}.{field} has no description");
            }
        }
        assert!(schemas.len() > 10);
    }

    #[test]
    fn a_limit_is_bounded() {
        let of = |limit| super::limit(Ok(Query(Limit { limit })));
        assert_eq!(of(None), Ok(LIMIT_DEFAULT));
        assert_eq!(of(Some(7)), Ok(7));
        assert_eq!(of(Some(LIMIT_MAX + 1)).unwrap_err().status, 400);
    }
}
