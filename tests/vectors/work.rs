//! Recorded work: values derived from a template's transactions and a packed share info without any ancestor.

use super::support::{address_rules, bytes_of, digest_of, digests_of, json, list_of, ran, str_of};
use bitcoin::Transaction;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use serde_json::Value;
use sharechain::merkle::{self, Digest};
use sharechain::pack::Writer;
use sharechain::share::{self, Payee, SegwitData, ShareInfo, ShareRules, coinbase_script};

/// Rules of the recorded node's signet.
fn rules_of(net: &Value) -> ShareRules {
    ShareRules {
        identifier: bytes_of(&net["IDENTIFIER"]).try_into().unwrap(),
        newest_version: 36,
        segwit_activation_version: net["SEGWIT_ACTIVATION_VERSION"].as_u64().unwrap(),
        ..address_rules(111, 196, "tb")
    }
}

/// Parses the share info `packed` as part of a share whose other fields are empty.
fn info_of(packed: &[u8], version: u64, rules: &ShareRules) -> ShareInfo {
    let mut writer = Writer::default();
    writer.varint(0);
    writer.bytes(&[0; 44]);
    writer.bytes(packed);
    // An empty ref merkle link, a nonce, a hash link's state and length, and an empty merkle link.
    writer.bytes(&[0; 1 + 8 + 32 + 1 + 1]);
    let contents = share::unpack_contents(version, writer.as_bytes(), rules).unwrap();
    let typed = share::ref_type(&contents.share_info, rules);
    assert_eq!(typed, [&rules.identifier[..], packed].concat());
    contents.share_info
}

/// Hashes without and with witness.
fn hashes_of<'a>(transactions: impl Iterator<Item = &'a Value>) -> (Vec<Digest>, Vec<Digest>) {
    transactions
        .map(|listed| {
            let transaction: Transaction = deserialize(&bytes_of(&listed["data"])).unwrap();
            (transaction.compute_txid().to_byte_array(), transaction.compute_wtxid().to_byte_array())
        })
        .unzip()
}

#[test]
fn branches_commitments_and_coinbase_ends_of_live_work_are_the_recorded_ones() {
    let file = json("work_generate.json");
    let rules = rules_of(&file["net"]);
    let cases = list_of(&file["live"]);
    for case in cases {
        let info = info_of(&bytes_of(&case["share_info_packed"]), case["version"].as_u64().unwrap(), &rules);
        let template = &case["template"];
        let (txids, wtxids) = hashes_of(list_of(&template["transactions"]).iter());
        assert_eq!(wtxids, digests_of(&case["other_tx_hashes"]));
        let segwit = SegwitData::of_transactions(&txids, &wtxids);
        assert_eq!(info.segwit_data.as_ref(), Some(&segwit));
        assert_eq!(segwit.wtxid_merkle_root, digest_of(&case["segwit_data"]["wtxid_merkle_root"]));
        assert_eq!(*segwit.txid_merkle_branch, digests_of(&case["ba"]["merkle_branch"]));

        let height = u32::try_from(template["height"].as_u64().unwrap()).unwrap();
        let script = coinbase_script(height, &[], &bytes_of(&template["coinbaseflags"])).unwrap();
        assert_eq!(hex::encode(&script), case["share_data_in"]["coinbase"]);

        // Bytes hashed by a miner: up to the ref hash, eight bytes of its own, and the lock time.
        let head = bytes_of(&case["ba"]["coinb1"]);
        assert!(head.ends_with(&share::ref_hash(&info, &[], &rules)));
        assert_eq!(
            hex::encode([&head[..], &[0; 8], &bytes_of(&case["ba"]["coinb2"])].concat()),
            case["gentx_stripped"]
        );
        assert!(Payee::from_address(str_of(&case["address"]), &rules).is_ok());
    }
    ran("work_generate.json", "live, without ancestors", cases.len());
}

#[test]
fn transactions_left_out_at_the_limits_leave_the_recorded_commitments() {
    let file = json("work_generate.json");
    let rules = rules_of(&file["net"]);
    let cases = list_of(&file["size_limits"]);
    for case in cases {
        let info = info_of(&bytes_of(&case["share_info_packed"]), case["version"].as_u64().unwrap(), &rules);
        let all = list_of(&case["txs"]);
        let included =
            list_of(&case["included"]).iter().map(|index| &all[usize::try_from(index.as_u64().unwrap()).unwrap()]);
        let (txids, wtxids) = hashes_of(included);
        assert_eq!(info.segwit_data, Some(SegwitData::of_transactions(&txids, &wtxids)));
        if let Some(transactions) = &info.transactions {
            assert_eq!(transactions.refs.len(), wtxids.len());
        }
        let gentx: Transaction = deserialize(&bytes_of(&case["gentx"])).unwrap();
        let [.., last] = &gentx.output[..] else { panic!("no outputs") };
        assert_eq!(last.script_pubkey.as_bytes()[2..34], share::ref_hash(&info, &[], &rules));
        let commitment = share::witness_commitment_script(&merkle::root(&[&[[0; 32]], &wtxids[..]].concat()));
        assert_eq!(gentx.output[0].script_pubkey.as_bytes(), commitment);
        assert_eq!(Value::from(info.share_data.subsidy), case["subsidy_out"]);
    }
    ran("work_generate.json", "size limits, without ancestors", cases.len());
}
