//! Recorded chains, share by share: every field parsed, every byte serialised again, every coinbase derived.

use super::support::{bytes_of, digests_of, json, list_of, number_of, ran, rules_of, str_of};
use proptest::prelude::*;
use serde_json::Value;
use sharechain::merkle;
use sharechain::share::{
    self, Coinbase, Draft, Payee, Payouts, SegwitData, Share, ShareRules, ShareVersion, Weights, coinbase_of,
    display_hex,
};
use std::sync::OnceLock;

const FILES: [&str; 4] = [
    "shares_run17_v17_to_v35_segwit.json",
    "shares_run33_v33_to_v35_segwit.json",
    "shares_mm35_mergedmining.json",
    "shares_lead0_v35_padding.json",
];

/// Parsed once for all tests.
fn files() -> &'static [(&'static str, ShareRules, Value)] {
    static FILES_PARSED: OnceLock<Vec<(&'static str, ShareRules, Value)>> = OnceLock::new();
    FILES_PARSED.get_or_init(|| {
        FILES
            .iter()
            .map(|name| {
                let file = json(name);
                (*name, rules_of(&file["net"]), file)
            })
            .collect()
    })
}

/// Calls `check` with every share of the recorded main chains, and compares the number of calls with the manifest.
fn for_every_share(check: impl Fn(&Share, &Value, &ShareRules)) {
    for (name, rules, file) in files() {
        let cases = list_of(&file["shares"]);
        for case in cases {
            let share = Share::from_bytes(&bytes_of(&case["raw"]), rules).unwrap();
            check(&share, case, rules);
        }
        ran(name, "shares", cases.len());
    }
}

fn weights_of(case: &Value, rules: &ShareRules) -> Weights {
    let recorded = &case["cumulative_weights"];
    Weights {
        by_payee: recorded["weights"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(text, weight)| (Payee::from_address(text, rules).unwrap(), number_of(weight)))
            .collect(),
        total: number_of(&recorded["total_weight"]),
        donation: number_of(&recorded["donation_weight"]),
    }
}

fn derived(share: &Share, case: &Value, rules: &ShareRules) -> Coinbase {
    let weights = weights_of(case, rules);
    coinbase_of(share.version(), share.info(), share.payee(), &weights, rules).unwrap()
}

#[test]
fn every_field_of_every_share_is_the_recorded_one() {
    for_every_share(|share, case, rules| {
        let raw = bytes_of(&case["raw"]);
        assert_eq!(share.to_bytes(), raw);
        let shown = share::inspect(&raw, rules).unwrap();
        assert_eq!(shown["verdict"], "ok");
        let mut compared = 0;
        for (key, value) in shown.as_object().unwrap() {
            let Some(recorded) = case.get(key) else {
                assert!(["verdict", "type_name"].contains(&&key[..]), "{key} is not recorded");
                continue;
            };
            if key == "fields" {
                // Versions without segwit have no such field, but the vectors have null.
                assert_eq!(value, recorded);
            } else if key.ends_with("attempts") || key == "abswork" {
                assert_eq!(number_of(value), number_of(recorded), "{key}");
            } else {
                assert_eq!(value, recorded, "{key}");
            }
            compared += 1;
        }
        assert_eq!(compared, 18);
        assert_eq!(share.hash().to_string(), case["header_hash"]);
        assert_eq!(share.contents().min_header.bits.to_string(), case["block_bits"]);
        assert_eq!(case["txid"], case["gentx_hash"]);
    });
}

#[test]
fn every_ref_hash_is_of_the_recorded_bytes() {
    let count = std::cell::Cell::new(0);
    for_every_share(|share, case, rules| {
        if let Some(recorded) = case["ref_type_hex"].as_str() {
            assert_eq!(hex::encode(share::ref_type(share.info(), rules)), recorded);
            count.set(count.get() + 1);
        }
    });
    assert!(count.get() > 80, "every tenth is recorded");
}

#[test]
fn every_coinbase_is_the_recorded_one() {
    for_every_share(|share, case, rules| {
        let coinbase = derived(share, case, rules);
        let nonce = share.contents().last_txout_nonce;
        let stripped = coinbase.stripped(share.ref_hash(), nonce);
        assert_eq!(hex::encode(&stripped), case["gentx_stripped_hex"]);
        assert_eq!(
            [coinbase.head(share.ref_hash()), nonce.to_le_bytes().to_vec(), coinbase.tail().to_vec()].concat(),
            stripped
        );
        let whole = match share.info().segwit_data {
            Some(_) => coinbase.with_witness(share.ref_hash(), nonce),
            None => stripped,
        };
        assert_eq!(hex::encode(whole), case["gentx_hex"]);
        let link = coinbase.hash_link();
        assert_eq!(link, share.contents().hash_link);
        assert_eq!(display_hex(&link.gentx_hash(share.version(), share.ref_hash(), nonce)), case["txid"]);
    });
}

#[test]
fn every_payout_is_the_recorded_one() {
    for_every_share(|share, case, rules| {
        let payouts = Payouts::new(share.version(), share.data().subsidy, &weights_of(case, rules), rules).unwrap();
        let paid: Vec<_> = payouts.with_finder(share.payee()).collect();
        let recorded = list_of(&case["outputs"]);
        // The recorded ones have the commitment first and the ref hash last.
        let commitments = usize::from(share.info().segwit_data.is_some());
        let recorded = &recorded[commitments..recorded.len() - 1];
        assert_eq!(paid.len(), recorded.len());
        for ((payee, amount), recorded) in paid.iter().zip(recorded) {
            assert_eq!(recorded[1], *amount);
            if *payee != &share::donation_payee(share.version(), rules) {
                assert_eq!(hex::encode(payee.script(share.version()).unwrap()), recorded[0]);
            }
        }
        assert_eq!(paid.iter().map(|(_, amount)| amount).sum::<u64>(), share.data().subsidy);
        assert_eq!(paid.last().unwrap().0.as_str(), share::donation_payee(share.version(), rules).as_str());
    });
}

#[test]
fn every_share_can_be_made_again_from_its_draft() {
    for_every_share(|share, case, rules| {
        let contents = share.contents();
        let payouts = Payouts::new(share.version(), share.data().subsidy, &weights_of(case, rules), rules).unwrap();
        let draft = Draft::new(share.info().clone(), &payouts, &contents.merkle_branch, rules).unwrap();
        let again = draft.finish(contents.min_header, contents.last_txout_nonce, rules).unwrap();
        assert_eq!(&again, share);
        assert_eq!(hex::encode(draft.coinbase_bytes(contents.last_txout_nonce)), case["gentx_hex"]);
    });
}

#[test]
fn branches_and_witness_roots_follow_from_the_recorded_transactions() {
    let with_transactions = std::cell::Cell::new(0);
    for_every_share(|share, case, _| {
        // Only versions that list transactions name them; their hashes include the witness.
        if share.version().lists_transactions() {
            let wtxids = digests_of(&case["other_tx_hashes"]);
            assert_eq!(*share.contents().merkle_branch, merkle::branch_of_first(&wtxids));
            if let Some(segwit) = &share.info().segwit_data {
                let derived = SegwitData::of_transactions(&[], &wtxids);
                assert_eq!(derived.wtxid_merkle_root, segwit.wtxid_merkle_root);
            }
            with_transactions.set(with_transactions.get() + usize::from(!wtxids.is_empty()));
        } else {
            assert!(case["other_tx_hashes"].is_null());
        }
    });
    assert!(with_transactions.get() > 100);
    let empty = SegwitData::of_transactions(&[], &[]);
    assert_eq!(empty, SegwitData { txid_merkle_branch: Box::default(), wtxid_merkle_root: [0; 32] });
}

#[test]
fn side_shares_are_good_alone_too() {
    for (name, rules, file) in files() {
        let cases = list_of(&file["side_shares"]);
        for case in cases {
            let raw = bytes_of(&case["raw"]);
            let share = Share::from_bytes(&raw, rules).unwrap();
            assert_eq!(share.to_bytes(), raw);
            assert_eq!(share.hash().to_string(), case["hash"]);
            assert_eq!(share.previous().map(|hash| hash.to_string()).as_deref(), case["prev"].as_str());
        }
        ran(name, "side_shares", cases.len());
    }
}

#[test]
fn every_version_with_vectors_was_seen() {
    let mut versions: Vec<u64> = files()
        .iter()
        .flat_map(|(_, _, file)| list_of(&file["shares"]))
        .map(|case| case["version"].as_u64().unwrap())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions, [17, 33, 35].map(|number| ShareVersion::from_number(number).unwrap().number()));
}

/// Serialised bytes of some share of the chains.
fn any_raw() -> impl Strategy<Value = (ShareRules, Vec<u8>)> {
    (0..FILES.len(), any::<prop::sample::Index>()).prop_map(|(file, index)| {
        let (_, rules, file) = &files()[file];
        let cases = list_of(&file["shares"]);
        (rules.clone(), hex::decode(str_of(&cases[index.index(cases.len())]["raw"])).unwrap())
    })
}

proptest! {
    #[test]
    fn a_damaged_share_never_panics_and_what_is_read_is_canonical(
        (rules, raw) in any_raw(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut raw = raw;
        for (at, with) in damages {
            let at = at.index(raw.len());
            raw[at] = with;
        }
        if let Some(cut) = cut {
            raw.truncate(cut.index(raw.len()));
        }
        // Any bytes that can be parsed must be the only serialisation.
        if let Ok(contents) = share::unpack(&raw, &rules) {
            prop_assert_eq!(share::pack(&contents), &raw[..]);
        }
        let _ = Share::from_bytes(&raw, &rules);
        let _ = share::inspect(&raw, &rules);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(raw in prop::collection::vec(any::<u8>(), 0..600), version in 15u64..37) {
        let (_, rules, _) = &files()[0];
        let _ = share::unpack(&raw, rules);
        let _ = share::unpack_contents(version, &raw, rules);
    }
}
