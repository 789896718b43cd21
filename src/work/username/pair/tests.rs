//! Tests of user names with two addresses.

use super::*;
use crate::work::username::{accounts, check_merged_addresses, operators_payout, parse, with_merged_addresses};
use crate::work::{MergedEntry, Origin};
use proptest::prelude::*;
use sharechain::coin::{BITCOIN, LITECOIN, LITECOIN_TESTNET};
use stratum::{Difficulty, Worker};

const NETWORK: &Network = &LITECOIN;
const LTC: &str = "LdrKq4oUQBJtekFvMzEQQyKMZwzBo4AhMA";
const LTC_P2SH: &str = "M9yc8NzsGcgMduDUs1xEi1Lsnbjgt3JZT2";
const DOGE: &str = "DGdY6D21dTGeWqNQQjh5NbwFKpjqD8ef6e";
const DOGE_P2SH: &str = "A3viDLdhx1ZdyNFiDP2XVbkxHngHXSfhZX";

fn default() -> Payout {
    Payout::to_address("ltc1q3ydhr35drlhsa4lecregwwrchnzx9usgwzwkvs", NETWORK).unwrap()
}

fn parsed(name: &str) -> Worker<Payout> {
    parse(name, NETWORK, &default()).unwrap_or_else(|refusal| panic!("{name}: {refusal}"))
}

fn refused(name: &str) -> String {
    parse(name, NETWORK, &default()).expect_err(name).0
}

fn entry(worker: &Worker<Payout>) -> &MergedEntry {
    worker.payout.merged.as_deref().unwrap()
}

fn notice(name: &str) -> String {
    parsed(name).notice.unwrap_or_default()
}

#[test]
fn two_addresses_are_read_in_all_forms_and_in_either_order() {
    for form in [
        "L,D",
        "L|D",
        "L;D",
        "L D",
        "L, D",
        " L , D ",
        "D,L",
        "D L",
        "L/98:D",
        "L/098:D",
        "L%2CD",
        "L%7cD",
        "L%3BD",
        "L%20D",
        "L%2F98%3AD",
        "L,D,D",
    ] {
        let name = form.replace('L', LTC).replace('D', DOGE);
        let worker = parsed(&name);
        assert_eq!((&*worker.name, &*worker.payout.address), (LTC, LTC), "{name}");
        assert_eq!((&*entry(&worker).address, entry(&worker).origin), (DOGE, Origin::Explicit), "{name}");
        assert_eq!(worker.notice.is_some(), form.starts_with('D'), "{name}: {:?}", worker.notice);
    }
    assert!(notice(&format!("{DOGE},{LTC}")).contains("swapped"));
}

#[test]
fn a_worker_may_follow_either_address_and_difficulties_come_last() {
    for (form, name) in [
        ("L.rig,D", "L.rig"),
        ("L,D.rig", "L.rig"),
        ("L,D_rig.1", "L.rig.1"),
        ("L_a,D_b", "L.b"),
        ("L/98:D.rig", "L.rig"),
        ("L.rig/98:D", "L.rig"),
        ("L,D.rig 1, upstairs", "L.rig 1, upstairs"),
        ("L,D.", "L"),
    ] {
        for wishes in ["", "+8", "/16+8"] {
            let with = |form: &str| form.replace('L', LTC).replace('D', DOGE);
            let worker = parsed(&(with(form) + wishes));
            assert_eq!(*worker.name, with(name), "{form}{wishes}");
            assert_eq!(&*entry(&worker).address, DOGE, "{form}{wishes}");
            assert_eq!(worker.difficulty, Difficulty::new(8.0).filter(|_| !wishes.is_empty()));
            assert_eq!(worker.payout.share_difficulty, Difficulty::new(16.0).filter(|_| wishes.starts_with('/')));
        }
    }
    let worker = parsed(&format!("{LTC}/98:{DOGE}/16+8"));
    assert_eq!((worker.difficulty, worker.payout.share_difficulty), (Difficulty::new(8.0), Difficulty::new(16.0)));
    assert_eq!(*parsed(&format!("{LTC}.rig 1")).name, format!("{LTC}.rig 1"), "as on other networks");
}

#[test]
fn an_address_alone_is_converted_and_the_miner_is_told() {
    let worker = parsed(LTC);
    assert_eq!(entry(&worker).origin, Origin::Converted);
    let shown = worker.notice.clone().unwrap();
    assert!(shown.contains(&*entry(&worker).address) && shown.contains("LTC_ADDRESS,DOGE_ADDRESS"), "{shown}");
    assert!(!shown.contains("warning"));
    let shown = notice(LTC_P2SH);
    assert!(shown.starts_with("warning: ") && shown.contains("anybody"), "{shown}");
    for (text, first) in [(DOGE, 'L'), (DOGE_P2SH, 'M')] {
        for name in [text.to_owned(), format!(",{text}"), format!("garage,{text}"), format!("garage/98:{text}")] {
            let worker = parsed(&name);
            assert!(worker.payout.address.starts_with(first), "{name} pays {}", worker.payout);
            assert_eq!((&*entry(&worker).address, entry(&worker).origin), (text, Origin::Explicit));
            let shown = worker.notice.unwrap();
            assert!(shown.contains(&*worker.payout.address) && !shown.contains("warning"), "{shown}");
            assert_eq!(&*worker.name, if name.starts_with("garage") { "garage" } else { text });
        }
    }
    // As long as a miner can show.
    for name in [LTC, LTC_P2SH, DOGE, DOGE_P2SH, "ltc1q3ydhr35drlhsa4lecregwwrchnzx9usgwzwkvs"] {
        assert!(notice(name).chars().count() <= 200, "{}", notice(name));
    }
}

#[test]
fn an_old_spelling_that_is_an_address_of_the_other_chain_pays_the_same_script_on_both() {
    let network = &Network { newest_version: 36, ..LITECOIN_TESTNET };
    let own = Payout::to_address("tltc1q3ydhr35drlhsa4lecregwwrchnzx9usgesdll6", network).unwrap();
    let worker = parse("2N4jfYEVqVQC6GnWnUNyysR7qoZWRKUvWQg", network, &own).unwrap();
    assert!(worker.payout.address.starts_with('Q'));
    assert_eq!(entry(&worker).script, worker.payout.script);
}

#[test]
fn what_was_meant_as_an_address_and_cannot_be_paid_is_refused_with_the_reason() {
    let typo = "DGdY6D21dTGeWqNQQjh5NbwFKpjqD8ef6f";
    let p2wsh = "ltc1q00pvzpszzmkp6cmeug3y93gk9gr02wuqv8amdxtagntp486tge6qutvn8p";
    for (name, reason) in [
        (typo.to_owned(), "DOGE address: `DGdY6D21dTGeWqNQQjh5NbwFKpjqD8ef6f` looks like an address but is mistyped"),
        (format!("{LTC},{typo}"), "DOGE address: "),
        (format!("{LTC}/98:{typo}"), "DOGE address: "),
        (format!("{LTC}/98:"), "`` is not an address"),
        (format!("{LTC}/98:garage"), "`garage` is not an address"),
        (format!("{LTC},1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"), "this one's look like D…, 9… or A…"),
        (format!("{LTC},nfgbpDkvZRjNPowbSZLXd1XYZh88GXgPyq"), "another network"),
        (format!("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2,{DOGE}"), "this one's look like L…, M… or ltc1q…"),
        (format!("LdrKq4oUQBJtekFvMzEQQyKMZwzBo4AhM2,{DOGE}"), "mistyped"),
        (format!("{DOGE},LdrKq4oUQBJtekFvMzEQQyKMZwzBo4AhM2"), "mistyped"),
        (format!("{LTC},{LTC_P2SH}"), "two LTC addresses"),
        (format!("{DOGE},{DOGE_P2SH}"), "two DOGE addresses"),
        (format!("{LTC},{DOGE}/98:{DOGE_P2SH}"), "two DOGE addresses"),
        (format!("{LTC},{}", &DOGE[..20]), "perhaps a part of one"),
        (format!("{},{DOGE}", &LTC[..20]), "perhaps a part of one"),
        (format!("{LTC},{}", &DOGE[..30]), "mistyped"),
        (p2wsh.to_owned(), "P2WSH"),
        (format!("{p2wsh},{DOGE}"), "P2WSH"),
        (format!("{DOGE},{p2wsh}"), "P2WSH"),
        ("ltc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqpj6zg2".to_owned(), "taproot"),
        ("MLhSmVQxMusLE3pjGFvp4unFckgjeD8LUA".to_owned(), "donation address"),
        ("A5EZCT4tUrtoKuvJaWbtVQADzdUKdtsqpr".to_owned(), "donation address"),
    ] {
        let refusal = refused(&name);
        assert!(refusal.contains(reason), "{name}: {refusal}");
    }
}

#[test]
fn mere_names_beside_an_address_are_ignored_and_reported_and_alone_pay_the_node() {
    for name in [format!("{LTC},junk"), format!("{LTC} junk"), format!("{LTC},junk.rig")] {
        let worker = parsed(&name);
        assert_eq!((&*worker.payout.address, entry(&worker).origin), (LTC, Origin::Converted), "{name}");
        assert!(worker.notice.unwrap().contains("`junk` is not an address"));
        assert_eq!(worker.name.ends_with(".rig"), name.ends_with(".rig"));
    }
    for name in ["", "garage", "garage,attic", "garage|attic.rig", "two words", ",", ", ;|", "garage/63:x"] {
        let worker = parsed(name);
        assert_eq!(worker.payout, default(), "{name}");
        assert_eq!(entry(&worker), default().merged.as_deref().unwrap(), "{name}: the node's own on both chains");
        assert!(worker.notice.unwrap().contains("not an address"));
    }
    assert!(notice(&format!("{LTC}/63:PmFwZ3")).contains("chain 63 is not paid"));
    assert!(notice(&format!("{LTC},\u{1b}[2J")).contains("\\u{1b}"));
}

#[test]
fn without_a_merged_chain_a_name_has_one_address() {
    let own = Payout::to_address("3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", &BITCOIN).unwrap();
    let address = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2";
    assert_eq!(parse(&format!("{address},{DOGE}"), &BITCOIN, &own).unwrap().payout, own, "it is a mere name");
    assert!(parse(&format!("{address}/98:{DOGE}"), &BITCOIN, &own).unwrap_err().0.contains("not a difficulty"));
    let worker = parse(&format!("{address}.a,b"), &BITCOIN, &own).unwrap();
    assert_eq!((&*worker.payout.address, worker.payout.merged), (address, None));
}

#[test]
fn each_of_two_addresses_is_an_account() {
    let names = accounts(&format!("{LTC},{DOGE}.rig+8"));
    for wanted in [format!("{LTC}.rig"), LTC.to_owned(), format!("{DOGE}.rig"), DOGE.to_owned()] {
        assert!(names.contains(&wanted), "{names:?} have {wanted}");
    }
    assert!(!accounts(&format!("garage,{DOGE}")).contains(&"garage".to_owned()), "a mere name is another account");
    assert_eq!(accounts(LTC), [LTC, LTC]);
}

#[test]
fn an_address_set_for_a_connection_replaces_the_one_of_the_name() {
    let set = |name: &str, pairs: &[(u32, &str)]| {
        let addresses: Vec<(u32, Box<str>)> = pairs.iter().map(|(number, text)| (*number, (*text).into())).collect();
        let checked = check_merged_addresses(&addresses, NETWORK);
        let result = with_merged_addresses(parsed(name), &addresses, NETWORK, &default());
        assert!(checked.is_ok() || checked.as_ref().err() == result.as_ref().err(), "{checked:?}, {result:?}");
        result
    };
    let worker = set(LTC, &[(63, "anything"), (98, DOGE)]).unwrap();
    assert_eq!((&*worker.payout.address, &*entry(&worker).address), (LTC, DOGE));
    assert_eq!((entry(&worker).origin, worker.notice), (Origin::Explicit, None));
    let name = format!("{LTC},{DOGE_P2SH}.rig");
    let worker = set(&name, &[(98, DOGE)]).unwrap();
    assert_eq!((&*worker.name, &*entry(&worker).address), (&*format!("{LTC}.rig"), DOGE));
    let shown = worker.notice.unwrap();
    assert!(shown.contains(&format!("DOGE will go to {DOGE}, not to {DOGE_P2SH}")), "{shown}");
    assert_eq!(set(&name, &[(98, DOGE_P2SH)]).unwrap().notice, None, "it is the same");
    for (name, pairs, reason) in [
        ("garage", &[(98, DOGE)][..], "this node's own address"),
        (LTC, &[(98, LTC)][..], "another network"),
        (LTC, &[(98, "garage")][..], "`garage` is not an address"),
        (LTC, &[(63, DOGE)][..], "dogecoin, chain 98"),
        (LTC, &[][..], "dogecoin, chain 98"),
    ] {
        let refusal = set(name, pairs).unwrap_err().0;
        assert!(refusal.contains(reason), "{refusal}");
    }
    let of_35 = Network { newest_version: 35, ..LITECOIN };
    let none = check_merged_addresses(&[(98, DOGE.into())], &of_35).unwrap_err().0;
    assert!(none.contains("no merged chain"), "{none}");
}

#[test]
fn the_operators_own_payout_may_have_both_addresses_and_nothing_else() {
    let payout = |form: &str| operators_payout(&form.replace('L', LTC).replace('D', DOGE), NETWORK);
    for form in ["L,D", "D,L", " L , D ", "L|D", "L D", "L/98:D", "L,D,"] {
        let payout = payout(form).unwrap_or_else(|refusal| panic!("{form}: {refusal}"));
        let entry = payout.merged.unwrap();
        assert_eq!((&*payout.address, &*entry.address, entry.origin), (LTC, DOGE, Origin::Explicit), "{form}");
    }
    let converted = payout("L").unwrap();
    assert_eq!(converted, Payout::to_address(LTC, NETWORK).unwrap());
    assert_eq!(converted.merged.unwrap().origin, Origin::Converted);
    for (form, reason) in [
        ("", "LTC address is missing"),
        ("D", "LTC address is missing"),
        ("L.rig", "LdrK"),
        ("L,rig", "`rig` is not an address"),
        ("L/1000", "is not the address of a chain"),
        ("L/99:D", "chain 99 is not paid"),
        ("L/98:L", "DOGE address"),
    ] {
        let refusal = payout(form).expect_err(form);
        assert!(refusal.0.contains(reason), "{form}: {refusal}");
    }
    let two = operators_payout(&format!("{LTC},{LTC_P2SH}"), NETWORK).unwrap_err();
    assert!(two.0.contains("two LTC addresses"), "{two}");
    assert!(operators_payout(&format!("{LTC},{DOGE}"), &BITCOIN).is_err());
    let unsafe_payout = operators_payout(LTC_P2SH, NETWORK).unwrap();
    assert!(unsafe_payout.merged.unwrap().is_unsafe());
    let safe = operators_payout(&format!("{LTC_P2SH},{DOGE_P2SH}"), NETWORK).unwrap();
    assert!(!safe.merged.unwrap().is_unsafe(), "the operator chose it");
}

proptest! {
    #[test]
    fn no_name_makes_it_panic(name in "\\PC{0,300}", other in "[ ,|;/._+:0-9]{0,20}") {
        for name in [&*name, &format!("{LTC}{other}{name}"), &format!("{name}{other}{DOGE}{other}")] {
            let _ = parse(name, NETWORK, &default());
            let _ = accounts(name);
        }
    }

    #[test]
    fn whatever_surrounds_two_good_addresses_they_are_paid_or_the_name_is_refused(
        between in "[,|; ]{1,3}", suffix in "([._/+ ,][a-z0-9._/+ ,:]{0,30})?",
    ) {
        if let Ok(worker) = parse(&format!("{LTC}{between}{DOGE}{suffix}"), NETWORK, &default()) {
            prop_assert_eq!(&*worker.payout.address, LTC);
            prop_assert_eq!(&*entry(&worker).address, DOGE);
        }
    }
}
