//! Bytes, hash links, payees and payouts of single shares.

use crate::vectors::support::{bytes_of, digest_of, json, list_of, number_of, ran, str_of};
use serde_json::Value;
use sharechain::chain::share_rules;
use sharechain::coin::{BITCOIN, LITECOIN, LITECOIN_TESTNET};
use sharechain::share::{
    self, FormatError, HashLink, Payee, Payouts, ShareRules, ShareVersion, Weights, constant_ending, donation_payee,
};

const VERSION: ShareVersion = ShareVersion::V36;

/// Litecoin's rules, for shares of the version.
fn rules() -> ShareRules {
    ShareRules { newest_version: VERSION.number(), ..share_rules(&LITECOIN) }
}

/// Payee with this output script.
pub(crate) fn payee_of(script: &Value, rules: &ShareRules) -> Payee {
    let script = bytes_of(script);
    let (kind, hash) = match script.len() {
        22 => (1, &script[2..]),
        23 => (2, &script[2..22]),
        _ => (0, &script[3..23]),
    };
    let payee = Payee::from_hash(kind, hash.try_into().unwrap(), rules);
    assert_eq!(payee.script(VERSION).unwrap(), script);
    payee
}

/// True if a recorded value and one of `inspect` are the same; integers may be text.
fn same(shown: &Value, recorded: &Value) -> bool {
    let is_number = |value: &Value| value.is_u64() || value.as_str().is_some_and(|text| text.parse::<u128>().is_ok());
    shown == recorded || is_number(shown) && is_number(recorded) && number_of(shown) == number_of(recorded)
}

#[test]
fn every_field_is_read_and_written_and_hashed_as_recorded() {
    let (file, rules) = (json("pack_v36.json"), rules());
    let cases = list_of(&file["cases"]);
    for case in cases {
        if case["pack_error"].is_string() {
            // A varint has 64 bits.
            let info = &case["fields"]["share_info"];
            let is_too_large = |field: &str| u64::try_from(number_of(&info[field])).is_err();
            assert!(is_too_large("subsidy") || is_too_large("abswork"), "{}", case["name"]);
            continue;
        }
        let wrapped = bytes_of(&case["wrapper_hex"]);
        if u32::try_from(number_of(&case["fields"]["min_header"]["version"])).is_err() {
            // The fork fails on its header.
            assert!(share::unpack(&wrapped, &rules).is_err(), "{}", case["name"]);
            continue;
        }
        if case["fields"]["share_info"]["segwit_data"].is_null() {
            // The fork reads it, and then fails on the share.
            assert_eq!(share::unpack(&wrapped, &rules), Err(FormatError::NoSegwitData(VERSION)));
            continue;
        }
        let contents = share::unpack(&wrapped, &rules).unwrap();
        let packed = share::pack(&contents);
        // The link that nothing commits to is cut where it is longer than the one that the header commits to.
        let kept =
            case["fields"]["share_info"]["segwit_data"]["txid_merkle_link"]["branch"].as_array().map_or(0, Vec::len);
        let is_cut = list_of(&case["fields"]["merkle_branch"]).len() > kept;
        assert_eq!(packed == wrapped, !is_cut, "{}", case["name"]);
        assert_eq!(share::unpack(&packed, &rules).unwrap(), contents, "{}", case["name"]);
        assert_eq!(contents, share::unpack_contents(36, &bytes_of(&case["contents_hex"]), &rules).unwrap());
        let info = &contents.share_info;
        assert_eq!(hex::encode(share::ref_type(info, &rules)), case["ref_type_hex"], "{}", case["name"]);
        assert_eq!(hex::encode(share::ref_hash(info, &contents.ref_merkle_branch, &rules)), case["ref_hash"]);

        let shown = &share::inspect(&wrapped, &rules).unwrap()["fields"];
        let mut compared = 0;
        for (key, recorded) in case["fields"]["share_info"].as_object().unwrap() {
            let shown = &shown["share_info"];
            let shown = if shown[key].is_null() { &shown["share_data"][key] } else { &shown[key] };
            if ["segwit_data", "merged_addresses", "merged_coinbase_info"].contains(&key.as_str()) {
                // Lists whose numbers are text there: the bytes above say enough.
                assert_eq!(shown.is_null(), recorded.is_null(), "{key}");
                assert_eq!(shown.as_array().map(Vec::len), recorded.as_array().map(Vec::len), "{key}");
            } else {
                assert!(same(shown, recorded), "{key}: {shown} and {recorded}");
            }
            compared += 1;
        }
        assert_eq!(compared, 19, "{}", case["fields"]["share_info"]);
        for key in ["message_data", "last_txout_nonce"] {
            assert!(same(&shown[key], &case["fields"][key]), "{key}");
        }
        for key in ["state", "extra_data", "length"] {
            assert!(same(&shown["hash_link"][key], &case["fields"]["hash_link"][key]), "{key}");
        }
    }
    ran("pack_v36.json", "cases", cases.len());

    let bad = list_of(&file["bad"]);
    for case in bad {
        // The fork reads a last field that is cut short; no node relays it so.
        assert!(share::unpack_contents(36, &bytes_of(&case["contents_hex"]), &rules).is_err(), "{}", case["name"]);
    }
    ran("pack_v36.json", "bad", bad.len());
}

#[test]
fn hash_links_have_the_recorded_extra_data() {
    let file = json("hash_link_v36.json");
    let ending = constant_ending(VERSION);
    assert_eq!(hex::encode(ending), file["const_ending"]);
    let cases = list_of(&file["cases"]);
    for case in cases {
        let link = HashLink::of_prefix(VERSION, &bytes_of(&case["prefix_hex"]));
        assert_eq!(hex::encode(link.state), case["state"]);
        assert_eq!(hex::encode(&link.extra_data), case["extra_data"]);
        assert_eq!(link.length, case["length"].as_u64().unwrap());
        let data = bytes_of(&case["data"]);
        let hash = link.double_hash(&[&link.extra_data[..], ending].concat(), &data);
        assert_eq!(hash, digest_of(&case["result"]));
        // The recorded data have the form of a coinbase's end.
        let nonce = u64::from_le_bytes(data[32..40].try_into().unwrap());
        assert_eq!(link.gentx_hash(VERSION, &data[..32].try_into().unwrap(), nonce), hash);
    }
    ran("hash_link_v36.json", "cases", cases.len());
    let bad = list_of(&file["bad"]);
    for case in bad {
        let (length, extra) = (case["length"].as_u64().unwrap(), bytes_of(&case["extra_data"]));
        let wanted = usize::try_from(length % 64).unwrap().saturating_sub(ending.len());
        assert_eq!((case["result"].as_str(), wanted == extra.len()), (Some("error"), false));
    }
    ran("hash_link_v36.json", "bad", bad.len());
}

#[test]
fn addresses_have_the_recorded_hash_kind_and_script() {
    let file = json("addresses_v36.json");
    let cases = list_of(&file["cases"]);
    let mut dgb = share_rules(&BITCOIN);
    (dgb.address_version, dgb.address_p2sh_version, dgb.human_readable_part) = (30, 63, "dgb".to_owned());
    for case in cases {
        let rules = match str_of(&case["coin"]) {
            "litecoin" => share_rules(&LITECOIN),
            "litecoin_testnet" => share_rules(&LITECOIN_TESTNET),
            "bitcoin" => share_rules(&BITCOIN),
            "digibyte" => dgb.clone(),
            other => panic!("{other}"),
        };
        let text = str_of(&case["address"]);
        let parts = |of: &Value| {
            let kind = u8::try_from(of["pubkey_type"].as_u64().unwrap()).unwrap();
            (kind, <[u8; 20]>::try_from(bytes_of(&of["pubkey_hash"])).unwrap())
        };
        let (kind, hash) = parts(case);
        let of_hash = Payee::from_hash(kind, &hash, &rules);
        assert_eq!(of_hash.as_str(), text);
        let payee = Payee::from_address(text, &rules).unwrap();
        assert_eq!(hex::encode(payee.script(VERSION).unwrap()), case["script"], "{text}");
        assert_eq!(payee.by_script(ShareVersion::V35), &of_hash, "{text}");
        let (kind, hash) = parts(&case["address_reads_back_as"]);
        assert_eq!(payee.payout(VERSION).unwrap(), share::Payout::Hash { hash, kind }, "{text}");
    }
    ran("addresses_v36.json", "cases", cases.len());
}

#[test]
fn payouts_are_the_recorded_outputs() {
    let (file, rules) = (json("payouts_v36.json"), rules());
    let cases = list_of(&file["cases"]);
    for case in cases {
        let recorded = &case["weights"];
        let weights = Weights {
            by_payee: recorded["weights"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(script, weight)| (payee_of(&script.as_str().into(), &rules), number_of(weight)))
                .collect(),
            total: number_of(&recorded["total_weight"]),
            donation: number_of(&recorded["donation_weight"]),
        };
        let subsidy = number_of(&case["subsidy"]).to();
        let payouts = Payouts::new(VERSION, subsidy, &weights, &rules).unwrap();
        let finder = Payee::from_hash(0, &[1; 20], &rules);
        let paid: Vec<(String, u64)> = payouts
            .with_finder(&finder)
            .map(|(payee, amount)| (hex::encode(payee.script(VERSION).unwrap()), amount))
            .collect();
        let wanted: Vec<(String, u64)> = list_of(&case["outputs"])
            .iter()
            .map(|output| (str_of(&output["script"]).to_owned(), number_of(&output["value"]).to()))
            .collect();
        assert_eq!(paid, wanted, "{}", case["name"]);
        assert_eq!(paid.iter().map(|(_, amount)| amount).sum::<u64>(), subsidy);
    }
    let names = [(&LITECOIN, "MLhSmVQxMusLE3pjGFvp4unFckgjeD8LUA"), (&BITCOIN, "3EVJTbzzQo1uRYYqANwUFGXrJ46HeaLvze")];
    for (network, address) in names {
        assert_eq!(donation_payee(VERSION, &share_rules(network)).as_str(), address);
    }
    ran("payouts_v36.json", "cases", cases.len());
}
