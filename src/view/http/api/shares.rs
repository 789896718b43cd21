//! The share chain: its newest shares, and single shares by hash.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sharechain::chain::pool::RecentShare;
use sharechain::coin::Network;
use sharechain::share::{ShareHash, display_hex, height_of};
use std::time::Duration;
use stratum::Scale;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::additions::ShareAdditions;
use super::{Answer, Limit, Problem, Sources};
use crate::view::snapshot::Snapshot;
use crate::view::snapshot::difficulty::bdiff;
use crate::view::snapshot::share::SharePosition;

/// Timeout of a query to the chain, including the wait for other queries.
const PATIENCE: Duration = Duration::from_secs(5);

/// The newest part of the share chain.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Shares {
    /// Hash of the best share; null while there is none.
    pub tip: Option<String>,
    /// Number of heads, forks and unverified ones included.
    pub heads: usize,
    /// Newest shares with their forks, highest first.
    pub shares: Vec<Share>,
}

/// A share in short.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Share {
    /// Hash of the share, which is also the hash of its block.
    pub hash: String,
    /// Hash of its parent; null for the first of a chain.
    pub parent: Option<String>,
    /// Height above the chain's first share.
    pub height: u32,
    /// Timestamp of the share.
    pub time: u32,
    /// Address that the share pays.
    pub payee: String,
    /// Difficulty of the share, in the unit of the coin's miners.
    pub difficulty: f64,
    /// Announcement of an earlier stale share of the same miner: `orphan`, `doa` (dead on arrival), or null.
    pub stale: Option<String>,
    /// True if it was verified against its ancestors.
    pub is_verified: bool,
    /// True if it is in the best chain.
    pub is_best: bool,
    /// True if a miner of this node found it.
    pub is_own: bool,
    /// True if it solves its block.
    pub is_block: bool,
}

impl Share {
    /// Returns the share in short, with its difficulty on `scale`.
    pub(super) fn of(share: &RecentShare, scale: Scale) -> Self {
        Self {
            hash: share.hash.to_string(),
            parent: share.parent.map(|parent| parent.to_string()),
            height: share.height,
            time: share.time,
            payee: share.payee.as_str().to_owned(),
            difficulty: scale.show(bdiff(share.target)),
            stale: share.stale_info.name(),
            is_verified: share.is_verified,
            is_best: share.in_best_chain,
            is_own: share.is_own,
            is_block: share.is_block,
        }
    }
}

/// A share in detail, with its relatives and its block.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShareInDetail {
    /// The share in short.
    #[serde(flatten)]
    share: Share,
    /// Hashes of its children, those with most children first.
    children: Vec<String>,
    /// Hashes of its ancestors, parent first.
    ancestors: Vec<String>,
    /// Hash of its hundredth ancestor, as the share claims.
    far_share: Option<String>,
    /// Minimum difficulty that was allowed for it, in the unit of the coin's miners.
    min_difficulty: f64,
    /// Version of the share.
    version: u64,
    /// Share version that it votes for.
    desired_version: u64,
    /// Fraction of its payout that goes to the author of the original P2Pool.
    donation: f64,
    /// Work from the chain's first share up to this one, in hashes, as a decimal number.
    abswork: String,
    /// Time at which this node received it; null if it was loaded from disk.
    first_seen: Option<f64>,
    /// Address of the peer that sent it.
    received_from: Option<String>,
    /// Fields of share version 36; null before that version.
    additions: Option<ShareAdditions>,
    /// Block that the share would be.
    block: ShareBlock,
}

/// Block of a share.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShareBlock {
    /// Hash of the block, which is also the hash of the share.
    hash: String,
    /// Height of the block, if its coinbase contains it.
    height: Option<u32>,
    /// Hash of the previous block.
    previous: Option<String>,
    /// Difficulty of the block (bdiff), as the daemon and block explorers count it.
    difficulty: f64,
    /// Timestamp in the header.
    time: u32,
    /// Total of the coinbase, in satoshis.
    value: u64,
    /// Ticker symbol of the coin.
    symbol: String,
    /// Transaction id of the coinbase.
    coinbase_txid: String,
    /// Script of the coinbase, hex.
    coinbase_script: String,
    /// Coinbase without witness, hex; null if this node has too little of the chain to reconstruct it.
    coinbase: Option<String>,
}

/// Newest shares with their forks.
#[utoipa::path(get, path = "/api/v1/shares", tag = "sharechain", params(("limit" = Option<usize>, Query, description = "Maximum number of generations")),
    responses((status = 200, description = "The newest shares", body = Shares), (status = 400, description = "Not a limit", body = Problem)))]
pub(super) async fn shares(state: State<Sources>, query: Result<Query<Limit>, QueryRejection>) -> Answer<Shares> {
    let limit = u32::try_from(super::limit(query)?).unwrap_or(u32::MAX);
    Ok(Json(Shares::of(&super::snapshot(&state), limit)))
}

impl Shares {
    /// Returns the newest `limit` generations of the chain as of `snapshot`.
    pub(in crate::view) fn of(snapshot: &Snapshot, limit: u32) -> Self {
        let chain = &snapshot.chain;
        let above = chain.absolute_height.saturating_sub(limit);
        let newest = chain.recent.iter().filter(|share| share.height > above);
        Self {
            tip: chain.best.map(|best| best.to_string()),
            heads: chain.heads.len(),
            shares: newest.map(|share| Share::of(share, snapshot.scale)).collect(),
        }
    }
}

/// One share with its ancestors and children.
#[utoipa::path(get, path = "/api/v1/shares/{hash}", tag = "sharechain", params(("hash" = String, Path, description = "64 hex digits")),
    responses((status = 200, description = "The share", body = ShareInDetail), (status = 400, description = "Not a hash", body = Problem),
        (status = 404, description = "No such share", body = Problem), (status = 503, description = "The chain is busy", body = Problem)))]
pub(super) async fn share(state: State<Sources>, Path(text): Path<String>) -> Answer<ShareInDetail> {
    let hash = parse(&text).ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "a share's hash is 64 hex digits"))?;
    let busy = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the share chain is too busy just now: try again");
    let looked = timeout(PATIENCE, state.shares.find(hash, true)).await.map_err(busy)?;
    let found = looked.ok_or_else(|| Problem::not_found(format!("there is no share {hash}")))?;
    let snapshot = super::snapshot(&state);
    Ok(Json(in_detail(&found, state.network, snapshot.scale)))
}

/// Parses a hash in the usual notation, most significant digit first.
fn parse(text: &str) -> Option<ShareHash> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok().filter(|()| text.len() == 64)?;
    bytes.reverse();
    Some(ShareHash(bytes))
}

fn in_detail(found: &SharePosition, network: &Network, scale: Scale) -> ShareInDetail {
    let share = &found.share;
    let header = &share.contents().min_header;
    let texts = |hashes: &[ShareHash]| hashes.iter().map(ToString::to_string).collect();
    ShareInDetail {
        share: Share {
            hash: share.hash().to_string(),
            parent: share.previous().map(|parent| parent.to_string()),
            height: share.absheight(),
            time: share.timestamp(),
            payee: share.payee().as_str().to_owned(),
            difficulty: scale.show(bdiff(share.target())),
            stale: share.data().stale_info.name(),
            is_verified: found.is_verified,
            is_best: found.in_best_chain,
            is_own: found.is_own,
            is_block: share.is_block(),
        },
        children: texts(&found.children),
        ancestors: texts(&found.ancestors),
        far_share: share.info().far_share_hash.map(|far| far.to_string()),
        min_difficulty: scale.show(bdiff(share.max_target())),
        version: share.version().number(),
        desired_version: share.data().desired_version,
        donation: f64::from(share.data().donation) / f64::from(u16::MAX),
        abswork: share.abswork().to_string(),
        first_seen: (found.first_seen > 0.0).then_some(found.first_seen),
        received_from: found.source.map(|source| source.to_string()),
        additions: share.info().additions.as_ref().map(|additions| ShareAdditions::of(additions, network)),
        block: ShareBlock {
            hash: share.hash().to_string(),
            height: height_of(&share.data().coinbase),
            previous: header.previous_block.as_ref().map(display_hex),
            difficulty: bdiff(share.block_target()),
            time: header.timestamp,
            value: share.data().subsidy,
            symbol: network.parent.symbol.to_owned(),
            coinbase_txid: display_hex(share.gentx_hash()),
            coinbase_script: hex::encode(&share.data().coinbase),
            coinbase: found.coinbase.as_ref().map(hex::encode),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let text = "000002a40a394242be020f536241037386f2fb915d035ccc23d78eac6b3dcdaa";
        assert_eq!(parse(text).unwrap().to_string(), text);
        for odd in ["", "00", &text[1..], "zz", &format!("0x{}", &text[2..]), &format!("{text}00")] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
