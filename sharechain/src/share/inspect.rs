//! Shows a share as JSON, with the reference's field names and formats.

use serde_json::{Value, json};
use thiserror::Error;

use super::format::{self, FormatError};
use super::message::{self, AuthorityMessage, MessageError};
use super::{
    Contents, MergedAddress, MergedCoinbase, PayeeError, Payout, Share, ShareInfo, ShareRules, check, display_hex,
};
use crate::merkle::Digest;

/// Reasons why a share cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InspectError {
    /// The bytes are not a share.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The payout has no payee, so nothing can be derived.
    #[error("share_data.address: {0}")]
    Payee(#[from] PayeeError),
}

/// Decodes a share (version and contents): its fields, the values derived from them, and as `verdict` either `"ok"` or
/// the first check that fails without ancestors.
///
/// Hashes and targets are 64 hex digits as P2Pool prints them, other bytes are hex in their own order, and numbers that
/// may exceed 2^53 are decimal strings. A share of version 36 with `message_data` has the decrypted `messages`, or the
/// reason why they cannot be read.
///
/// # Errors
/// [`InspectError`].
pub fn inspect(bytes: &[u8], rules: &ShareRules) -> Result<Value, InspectError> {
    let contents = format::unpack(bytes, rules)?;
    let payee = check::payee_of(&contents.share_info.share_data.payout, contents.version, rules)?;
    let verdict = match Share::check(contents.clone(), rules) {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    };
    let share = Share::derive(contents, payee, rules, rules.pow);
    let mut shown = json(&share);
    if let Some(additions) = &share.info().additions
        && !additions.message_data.is_empty()
    {
        shown["messages"] = messages(message::read(&additions.message_data));
    }
    shown["verdict"] = verdict.into();
    Ok(shown)
}

/// Fields of a share and all derived values.
fn json(share: &Share) -> Value {
    json!({
        "version": share.version().number(),
        "type_name": share.version().rules().name,
        "hash": share.hash().to_string(),
        "pow_hash": display_hex(share.pow_hash()),
        "header_hex": hex::encode(share.header()),
        "merkle_root": display_hex(share.merkle_root()),
        "gentx_hash": display_hex(share.gentx_hash()),
        "ref_hash": hex::encode(share.ref_hash()),
        "address": share.payee().as_str(),
        "new_script": share.payee().script(share.version()).map(hex::encode).ok(),
        "target": share.target().to_hex(),
        "max_target": share.max_target().to_hex(),
        "block_target": share.block_target().to_hex(),
        "attempts": share.attempts().to_string(),
        "min_attempts": share.min_attempts().to_string(),
        "absheight": share.absheight(),
        "abswork": share.abswork().to_string(),
        "is_block": share.is_block(),
        "fields": fields(share.contents()),
    })
}

/// Fields in a share's bytes.
pub(super) fn fields(contents: &Contents) -> Value {
    let header = &contents.min_header;
    let mut shown = json!({
        "min_header": {
            "version": header.version,
            "previous_block": header.previous_block.as_ref().map(display_hex),
            "timestamp": header.timestamp,
            "bits": header.bits.to_string(),
            "nonce": header.nonce,
        },
        "share_info": share_info(&contents.share_info),
        "ref_merkle_link": link(&contents.ref_merkle_branch),
        "last_txout_nonce": contents.last_txout_nonce.to_string(),
        "hash_link": {
            "state": hex::encode(contents.hash_link.state),
            "extra_data": hex::encode(&contents.hash_link.extra_data),
            "length": contents.hash_link.length,
        },
        "merkle_link": link(&contents.merkle_branch),
    });
    if let Some(additions) = &contents.share_info.additions {
        let message = Some(&additions.message_data).filter(|message| !message.is_empty());
        shown["message_data"] = message.map(hex::encode).into();
    }
    shown
}

/// Messages of version 36's authors. What they say stays hex: a terminal must not be steered by it.
fn messages(read: Result<Vec<AuthorityMessage>, MessageError>) -> Value {
    let shown = |message: AuthorityMessage| {
        json!({
            "kind": message.kind,
            "kind_name": message.kind_name(),
            "flags": message.flags,
            "timestamp": message.timestamp,
            "payload": hex::encode(&message.payload),
            "signer": message.signer.name(),
        })
    };
    match read {
        Ok(read) => read.into_iter().map(shown).collect(),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

fn share_info(info: &ShareInfo) -> Value {
    let data = &info.share_data;
    let mut share_data = json!({
        "previous_share_hash": data.previous.map(|hash| hash.to_string()),
        "coinbase": hex::encode(&data.coinbase),
        "nonce": data.nonce,
        "subsidy": data.subsidy,
        "donation": data.donation,
        "stale_info": data.stale_info.name(),
        "desired_version": data.desired_version,
    });
    match &data.payout {
        Payout::Address(text) => share_data["address"] = (**text).into(),
        // The reference holds it as a little-endian integer, and prints that.
        Payout::PubkeyHash(hash) => {
            share_data["pubkey_hash"] = hex::encode(hash.iter().rev().copied().collect::<Vec<u8>>()).into();
        }
        Payout::Hash { hash, kind } => {
            share_data["pubkey_hash"] = hex::encode(hash).into();
            share_data["pubkey_type"] = (*kind).into();
        }
    }
    let mut shown = json!({
        "share_data": share_data,
        "segwit_data": info.segwit_data.as_ref().map(|segwit| json!({
            "txid_merkle_link": link(&segwit.txid_merkle_branch),
            "wtxid_merkle_root": display_hex(&segwit.wtxid_merkle_root),
        })),
        "far_share_hash": info.far_share_hash.map(|hash| hash.to_string()),
        "max_bits": info.max_bits.to_string(),
        "bits": info.bits.to_string(),
        "timestamp": info.timestamp,
        "absheight": info.absheight,
        "abswork": info.abswork.to_string(),
    });
    if let Some(transactions) = &info.transactions {
        shown["new_transaction_hashes"] = transactions.new_hashes.iter().map(display_hex).collect();
        shown["transaction_hash_refs"] =
            transactions.refs.iter().flat_map(|(share_count, tx_count)| [*share_count, *tx_count]).collect();
    }
    if let Some(additions) = &info.additions {
        let addresses = additions.merged_addresses.iter().map(merged_address).collect::<Vec<_>>();
        let coinbases = additions.merged_coinbase_info.iter().map(merged_coinbase).collect::<Vec<_>>();
        shown["merged_addresses"] = if addresses.is_empty() { Value::Null } else { addresses.into() };
        shown["merged_coinbase_info"] = if coinbases.is_empty() { Value::Null } else { coinbases.into() };
        shown["merged_payout_hash"] = additions.merged_payout_hash.as_ref().map(display_hex).into();
    }
    shown
}

fn merged_address(entry: &MergedAddress) -> Value {
    json!({ "chain_id": entry.chain_id, "script": hex::encode(&entry.script) })
}

fn merged_coinbase(entry: &MergedCoinbase) -> Value {
    json!({
        "chain_id": entry.chain_id,
        "coinbase_value": entry.value,
        "block_height": entry.height,
        "block_header": hex::encode(entry.header),
        "coinbase_merkle_link": { "branch": entry.branch.iter().map(display_hex).collect::<Vec<_>>() },
        "coinbase_script": hex::encode(&entry.script),
    })
}

fn link(branch: &[Digest]) -> Value {
    json!({ "branch": branch.iter().map(display_hex).collect::<Vec<_>>(), "index": 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::Signer;

    #[test]
    fn messages_are_shown_with_their_signer_or_the_reason_why_they_cannot_be_read() {
        let message = AuthorityMessage {
            kind: 0x03,
            flags: 1,
            timestamp: 1_780_000_000,
            payload: b"\x1b[2J".as_slice().into(),
            signer: Signer::ForkMaintainer,
        };
        let wanted = json!([{
            "kind": 3,
            "kind_name": "announcement",
            "flags": 1,
            "timestamp": 1_780_000_000,
            "payload": "1b5b324a",
            "signer": "fork maintainer",
        }]);
        assert_eq!(messages(Ok(vec![message])), wanted);
        let reason = "message_data has 3 bytes, which should be 53 or more";
        assert_eq!(messages(message::read(&[1, 2, 3])), json!({ "error": reason }));
    }
}
