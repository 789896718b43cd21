//! One share in the format of the old front ends (protocol section 13.2).

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use bitcoin::Script;
use serde::Serialize;
use serde_json::value::RawValue;
use sharechain::coin::Network;
use sharechain::share::{Additions, AuthorityMessage, ShareHash, display_hex, read_messages};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::timeout;

use super::{Answer, Failed, coins, hash_of, integer, json, newest};
use crate::view::http::Sources;
use crate::view::snapshot::share::SharePosition;

/// Unit of a share's donation: 65535ths.
const DONATION_WHOLE: f64 = 65_535.0;

/// Maximum length of the message bytes that are given, in bytes.
const BLOB_BYTES_MAX: usize = 64 * 1024;

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
    version: u64,
    /// From version 36 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    v36_metadata: Option<V36Metadata>,
}

/// Fields of version 36 (protocol-v36 section 9.3).
#[derive(Serialize)]
struct V36Metadata {
    merged_addresses: Option<Vec<MergedAddress>>,
    merged_payout_hash: Option<String>,
    message_data_hex: Option<String>,
    message_data_size: usize,
    messages: Option<Vec<Message>>,
}

#[derive(Serialize)]
struct MergedAddress {
    chain_id: u32,
    script_hex: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

#[derive(Serialize)]
struct Message {
    r#type: u8,
    flags: u8,
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

fn v36_metadata(additions: &Additions, network: &Network) -> V36Metadata {
    let blob = Some(&*additions.message_data).filter(|blob| !blob.is_empty());
    // Longer ones have the same three messages, and waste.
    let short = blob.filter(|blob| blob.len() <= BLOB_BYTES_MAX);
    let address = |entry: &sharechain::share::MergedAddress| MergedAddress {
        chain_id: entry.chain_id,
        script_hex: hex::encode(&entry.script),
        address: network
            .paid_merged_chain()
            .filter(|chain| chain.chain_id == entry.chain_id)
            .and_then(|chain| chain.address_of(Script::from_bytes(&entry.script))),
    };
    let message = |message: &AuthorityMessage| Message { r#type: message.kind, flags: message.flags };
    let entries = &additions.merged_addresses;
    V36Metadata {
        merged_addresses: (!entries.is_empty()).then(|| entries.iter().map(address).collect()),
        merged_payout_hash: additions.merged_payout_hash.as_ref().map(display_hex),
        message_data_hex: short.map(hex::encode),
        message_data_size: additions.message_data.len(),
        messages: short
            .and_then(|blob| read_messages(blob).ok())
            .map(|messages| messages.iter().map(message).collect()),
    }
}

/// Formats a share; `started` is the time at which shares from disk count as first seen.
fn shown(found: &SharePosition, started: f64, network: &Network) -> Shown {
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
        version: share.version().number(),
        v36_metadata: info.additions.as_ref().map(|additions| v36_metadata(additions, network)),
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
    json(&found.map(|found| shown(&found, started, sources.network)))
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
    use sharechain::coin::{BITCOIN_REGTEST, DOGECOIN, LITECOIN};
    use sharechain::share::Share;
    use sharechain::testkit;
    use std::sync::Arc;

    /// Answer of the reference node for a share, and the share's bytes.
    const ANSWER: &str = include_str!("../../../../tests/vectors/http/web_share.txt");
    const BYTES: &[u8] = include_bytes!("../../../../tests/vectors/http/web_share_data.bin");

    #[test]
    fn a_share_is_shown_as_the_reference_shows_it() {
        let mut rules = share_rules(&BITCOIN_REGTEST);
        let mut wanted: Value = serde_json::from_str(ANSWER).unwrap();
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
        let shown: Value =
            serde_json::from_str(&serde_json::to_string(&shown(&found, 0.0, &BITCOIN_REGTEST)).unwrap()).unwrap();
        // Later than the recorded node.
        wanted["version"] = found.share.version().number().into();
        assert_eq!(shown, wanted);
    }

    #[test]
    fn what_version_36_added_is_shown_with_addresses_of_the_merged_chain_and_long_messages_are_not() {
        let network = Network { newest_version: 36, merged_chain: Some(&DOGECOIN), ..LITECOIN };
        let script = hex::decode(format!("76a914{}88ac", "07".repeat(20))).unwrap();
        let entry = |chain_id, script: &[u8]| sharechain::share::MergedAddress { chain_id, script: script.into() };
        let mut additions = Additions {
            merged_addresses: [entry(98, &script), entry(98, &[0x51]), entry(5, &script)].into(),
            message_data: hex::decode(testkit::GENUINE_MESSAGE).unwrap().into(),
            ..Additions::default()
        };
        let of = |additions: &Additions| serde_json::to_value(v36_metadata(additions, &network)).unwrap();
        let shown = of(&additions);
        let addresses = shown["merged_addresses"].as_array().unwrap();
        assert!(addresses[0]["address"].as_str().is_some_and(|address| address.starts_with('D')), "{shown}");
        assert!(addresses[1..].iter().all(|entry| entry.get("address").is_none()), "{shown}");
        assert_eq!(shown["messages"][0]["type"], 0x20);
        assert_eq!(shown["message_data_hex"], testkit::GENUINE_MESSAGE);
        additions.message_data = vec![0; BLOB_BYTES_MAX + 1].into();
        let long = of(&additions);
        assert_eq!(
            (&long["message_data_hex"], &long["message_data_size"]),
            (&Value::Null, &(BLOB_BYTES_MAX + 1).into())
        );
        let none = of(&Additions::default());
        assert!(none.as_object().unwrap().iter().all(|(_, value)| value.is_null() || value == 0), "{none}");
    }
}
