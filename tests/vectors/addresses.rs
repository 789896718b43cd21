//! Addresses to scripts with both padding rules, and base58.

use super::support::{address_rules, bytes_of, json, list_of, ran, str_of};
use bitcoin::base58;
use serde_json::Value;
use sharechain::share::{Payee, ShareRules, ShareVersion, donation_payee};

/// Our networks, and the forks whose address format we support.
fn rules_of(network: &str) -> ShareRules {
    match network {
        "bitcoin" => address_rules(0, 5, "bc"),
        "bitcoin_testnet" => address_rules(111, 196, "tb"),
        "btcregtest" => address_rules(111, 196, "bcrt"),
        "litecoin" => address_rules(48, 50, "ltc"),
        "litecoin_testnet" => address_rules(111, 58, "tltc"),
        "fastcoin" => address_rules(96, 5, "none"),
        _ => address_rules(0, 5, "none"),
    }
}

fn script(payee: Option<&Payee>, version: ShareVersion) -> Option<String> {
    payee.and_then(|payee| payee.script(version).ok()).map(hex::encode)
}

fn ok(result: &Value) -> Option<String> {
    result["ok"].as_str().map(str::to_owned)
}

#[test]
fn addresses_become_the_recorded_scripts() {
    let file = json("addresses.json");
    let (mut texts, mut hashes, mut donations) = (0, 0, 0);
    for case in list_of(&file) {
        let rules = rules_of(str_of(&case["net"]));
        match str_of(&case["kind"]) {
            // Addresses of Bitcoin Cash in their own format, on networks that we do not have.
            "cashaddr0" | "cashaddr1" => {}
            "donation_script_to_address" => {
                assert_eq!(
                    ok(&case["result"]).as_deref(),
                    Some(donation_payee(ShareVersion::V35, &rules).as_str()),
                    "{case}"
                );
                donations += 1;
            }
            // Networks that the reference lists without the constants that its own code needs.
            _ if ["terracoin", "fastcoin"].contains(&str_of(&case["net"])) => {}
            "pubkey_hash(v<34)" => {
                let hash = bytes_of(&case["pack160"]).try_into().unwrap();
                let payee = Payee::from_pubkey_hash(&hash, &rules);
                assert_eq!(payee.as_str(), case["address"]);
                assert_eq!(script(Some(&payee), ShareVersion::V17), ok(&case["script"]), "{case}");
                // The text parses back to the same script.
                assert_eq!(
                    Payee::from_address(payee.as_str(), &rules).unwrap().script(ShareVersion::V35),
                    payee.script(ShareVersion::V35)
                );
                hashes += 1;
            }
            _ => {
                let payee = Payee::from_address(str_of(&case["address"]), &rules);
                assert_eq!(payee.is_ok(), case["address_to_pubkey_hash"].get("ok").is_some(), "{case}");
                let payee = payee.ok();
                assert_eq!(script(payee.as_ref(), ShareVersion::V34), ok(&case["script_padfix_0"]), "{case}");
                assert_eq!(script(payee.as_ref(), ShareVersion::V35), ok(&case["script_padfix_1"]), "{case}");
                texts += 1;
            }
        }
    }
    ran("addresses.json", "texts", texts);
    ran("addresses.json", "pubkey hashes", hashes);
    ran("addresses.json", "donation", donations);
}

#[test]
fn base58_is_the_recorded_one() {
    let file = json("base58.json");
    let cases = list_of(&file);
    for case in cases {
        assert_eq!(base58::encode(&bytes_of(&case["hex"])), case["b58"]);
        assert_eq!(hex::encode(base58::decode(str_of(&case["b58"])).unwrap()), case["back"]);
    }
    ran("base58.json", "cases", cases.len());
}
