//! Blocks that the pool found.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Limit, Problem, Sources};
use crate::figures::SolvedBlock;

/// Blocks that the pool found.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Blocks {
    /// The coin's ticker symbol.
    symbol: String,
    /// How many this node remembers.
    total: usize,
    /// The newest first.
    blocks: Vec<Block>,
}

/// One block.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Block {
    /// Its hash.
    hash: String,
    /// The share that solved it: the same hash.
    share: String,
    /// Its height, if known.
    height: Option<u32>,
    /// When it was found.
    time: f64,
    /// Whom its share pays.
    finder: String,
    /// Whether this node's miners found it.
    is_own: bool,
}

/// Blocks that the pool found.
#[utoipa::path(get, path = "/api/v1/blocks", tag = "sharechain", params(("limit" = Option<usize>, Query, description = "How many at most")),
    responses((status = 200, description = "The blocks", body = Blocks), (status = 400, description = "Not a limit", body = Problem)))]
pub(super) async fn blocks(state: State<Sources>, query: Result<Query<Limit>, QueryRejection>) -> Answer<Blocks> {
    let limit = super::limit(query)?;
    let figures = super::figures(&state);
    let solved = &figures.chain.blocks;
    Ok(Json(Blocks {
        symbol: figures.symbol.to_owned(),
        total: solved.len(),
        blocks: solved.iter().take(limit).map(block).collect(),
    }))
}

fn block(solved: &SolvedBlock) -> Block {
    Block {
        hash: solved.hash.to_string(),
        share: solved.hash.to_string(),
        height: solved.height,
        time: f64::from(solved.time),
        finder: solved.payee.as_str().to_owned(),
        is_own: solved.is_own,
    }
}
