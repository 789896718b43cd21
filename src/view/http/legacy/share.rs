//! One share in the format of the old front ends (protocol section 13.2).

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::value::RawValue;
use sharechain::share::{ShareHash, display_hex};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::timeout;

use super::{Answer, Failed, coins, hash_of, integer, json, newest};
use crate::view::http::Sources;
use crate::view::snapshot::share::SharePosition;

/// Unit of a share's donation: 65535ths.
const DONATION_WHOLE: f64 = 65_535.0;

/// Timeout of a look-up, including the wait for others.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Shown {
    parent: String,
    far_parent: String,
    children: Vec<ShareHash>,
    type_name: &'static str,
    local: Local,
    share_data: ShareData,
    block: Block,
}

#[derive(Serialize)]
struct Local {
    verified: bool,
    time_first_seen: f64,
    peer_first_received_from: Option<(IpAddr, u16)>,
}

#[derive(Serialize)]
struct ShareData {
    timestamp: u32,
    target: Box<RawValue>,
    max_target: Box<RawValue>,
    payout_address: String,
    donation: f64,
    stale_info: Option<String>,
    nonce: u32,
    desired_version: u64,
    absheight: u32,
    abswork: Box<RawValue>,
}

#[derive(Serialize)]
struct Block {
    hash: ShareHash,
    header: Header,
    gentx: Gentx,
    other_transaction_hashes: Vec<String>,
}

#[derive(Serialize)]
struct Header {
    version: u32,
    previous_block: String,
    merkle_root: String,
    timestamp: u32,
    target: Box<RawValue>,
    nonce: u32,
}

#[derive(Serialize)]
struct Gentx {
    hash: String,
    raw: String,
    coinbase: String,
    value: f64,
    last_txout_nonce: String,
}

/// Formats a hash, or Python's `None`.
fn or_none(hash: Option<ShareHash>) -> String {
    hash.map_or_else(|| "None".to_owned(), |hash| hash.to_string())
}

/// Formats a share; `started` is the time at which shares from disk count as first seen.
fn shown(found: &SharePosition, started: f64) -> Shown {
    let share = &found.share;
    let (contents, info, data) = (share.contents(), share.info(), share.data());
    let header = &contents.min_header;
    Shown {
        parent: or_none(share.previous()),
        far_parent: or_none(info.far_share_hash),
        children: found.children.clone(),
        type_name: share.version().rules().name,
        local: Local {
            verified: found.is_verified,
            time_first_seen: if found.first_seen > 0.0 { found.first_seen } else { started },
            peer_first_received_from: found.source.map(|peer| (peer.ip(), peer.port())),
        },
        share_data: ShareData {
            timestamp: share.timestamp(),
            target: integer(share.target().0),
            max_target: integer(share.max_target().0),
            payout_address: share.payee().to_string(),
            donation: f64::from(data.donation) / DONATION_WHOLE,
            stale_info: data.stale_info.name(),
            nonce: data.nonce,
            desired_version: data.desired_version,
            absheight: share.absheight(),
            abswork: integer(share.abswork()),
        },
        block: Block {
            hash: share.hash(),
            header: Header {
                version: header.version,
                previous_block: display_hex(&header.previous_block.unwrap_or_default()),
                merkle_root: display_hex(share.merkle_root()),
                timestamp: header.timestamp,
                target: integer(share.block_target().0),
                nonce: header.nonce,
            },
            gentx: Gentx {
                hash: display_hex(share.gentx_hash()),
                raw: found.coinbase.as_ref().map_or_else(|| "unknown".to_owned(), hex::encode),
                coinbase: hex::encode(&data.coinbase),
                value: coins(data.subsidy),
                last_txout_nonce: format!("{:016x}", contents.last_txout_nonce),
            },
            other_transaction_hashes: found.transactions.iter().map(display_hex).collect(),
        },
    }
}

/// Looks up a share, unless too many others are looked up.
async fn look_up(sources: &Sources, hash: ShareHash, with_block: bool) -> Result<Option<SharePosition>, Failed> {
    timeout(LOOK_UP_TIMEOUT, sources.shares.find(hash, with_block)).await.map_err(|_| Failed)
}

/// `/web/share/HASH`.
pub(super) async fn share(State(sources): State<Sources>, Path(hash): Path<String>) -> Answer {
    let hash = hash_of(&hash).ok_or(Failed)?;
    let found = look_up(&sources, hash, true).await?;
    let started = newest(&sources).started;
    json(&found.map(|found| shown(&found, started)))
}

/// `/web/share_data/HASH`: the bytes that peers exchange.
pub(super) async fn share_data(State(sources): State<Sources>, Path(hash): Path<String>) -> Answer {
    let hash = hash_of(&hash).ok_or(Failed)?;
    let found = look_up(&sources, hash, false).await?;
    let bytes = found.map(|found| found.share.to_bytes()).unwrap_or_default();
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

/// `/web/payout_address/HASH`.
pub(super) async fn payout_address(State(sources): State<Sources>, Path(hash): Path<String>) -> Answer {
    let hash = hash_of(&hash).ok_or(Failed)?;
    let found = look_up(&sources, hash, false).await?.ok_or(Failed)?;
    json(found.share.payee())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use sharechain::chain::share_rules;
    use sharechain::coin::BITCOIN_REGTEST;
    use sharechain::share::Share;
    use std::sync::Arc;

    /// Answer of the reference node for a share, and the share's bytes.
    const ANSWER: &str = include_str!("../../../../tests/vectors/http/web_share.txt");
    const BYTES: &[u8] = include_bytes!("../../../../tests/vectors/http/web_share_data.bin");

    #[test]
    fn a_share_is_shown_as_the_reference_shows_it() {
        let mut rules = share_rules(&BITCOIN_REGTEST);
        let wanted: Value = serde_json::from_str(ANSWER).unwrap();
        // Identifier of the private network that the vectors were recorded on.
        rules.identifier = hex::decode_to_array("73696e6574303031").unwrap();
        let contents = sharechain::share::unpack(BYTES, &rules).unwrap();
        let hash = wanted["block"]["hash"].as_str().unwrap();
        let share = Share::check(contents, &rules);
        assert_eq!(share.as_ref().map(|share| share.hash().to_string()).ok().as_deref(), Some(hash), "{share:?}");
        let found = SharePosition {
            share: Arc::new(share.unwrap()),
            ancestors: Vec::new(),
            children: Vec::new(),
            is_verified: true,
            in_best_chain: true,
            is_own: true,
            first_seen: 1_795_233_035.196_349,
            source: None,
            height: 203,
            coinbase: hex::decode(wanted["block"]["gentx"]["raw"].as_str().unwrap()).ok(),
            transactions: Vec::new(),
        };
        let shown: Value = serde_json::from_str(&serde_json::to_string(&shown(&found, 0.0)).unwrap()).unwrap();
        assert_eq!(shown, wanted);
    }
}
