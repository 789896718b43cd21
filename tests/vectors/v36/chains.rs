//! Recorded chains, share by share from genesis with every check; and single shares, right and wrong in one respect.

use crate::vectors::support::{bytes_of, digest_of, json, list_of, number_of, ran, str_of};
use serde_json::Value;
use sharechain::chain::{Counting, Entry, Event, Fading, Query, Sharechain, Window};
use sharechain::coin::{self, Network};
use sharechain::share::{self, CheckError, Share, ShareHash, ShareVersion, Target, coinbase_of, display_hex};
use std::collections::HashMap;
use std::sync::Arc;

use super::parts::payee_of;

const CROSS: &str = "shares_cross_v35_v36.json";
const MERGED: &str = "shares_v36_merged.json";

/// Network of a recorded chain.
fn network_of(file: &Value) -> &'static Network {
    let mut lines = vec!["BASE = \"bitcoin_signet\"".to_owned(), "NEWEST_VERSION = 36".to_owned()];
    lines.push(format!("START_VERSION = {}", file["shares"][0]["type"]));
    let (net, parent) = (file["net"].as_object().unwrap(), file["net"]["parent"].as_object().unwrap());
    lines.extend(
        net.iter().chain(parent).filter(|(key, _)| *key != "parent").map(|(key, value)| format!("{key} = {value}")),
    );
    Box::leak(Box::new(coin::from_toml(&lines.join("\n")).unwrap()))
}

fn hash_of(value: &Value) -> Option<ShareHash> {
    (!value.is_null()).then(|| ShareHash(digest_of(value)))
}

/// Shares of a file, parsed once.
fn shares_of(file: &Value, network: &'static Network) -> Vec<Arc<Share>> {
    let rules = sharechain::chain::share_rules(network);
    let shares = list_of(&file["shares"]).iter();
    shares.map(|case| Arc::new(Share::from_bytes(&bytes_of(&case["raw"]), &rules).unwrap())).collect()
}

/// Adds a share to the chain and returns what became of it.
fn judge(chain: &mut Sharechain, share: &Arc<Share>, now: f64) -> Result<(), String> {
    chain.add(Arc::clone(share), None, now);
    chain.think(now);
    let events: Vec<Event> = std::iter::from_fn(|| chain.poll_event()).collect();
    let of_share = |event: &Event| match event {
        Event::Verified(hash) if *hash == share.hash() => Some(Ok(())),
        Event::Refused { hash, error, .. } | Event::Early { hash, error, .. } if *hash == share.hash() => {
            Some(Err(error.to_string()))
        }
        _ => None,
    };
    events.iter().find_map(of_share).unwrap_or_else(|| panic!("no verdict on {}: {events:?}", share.hash()))
}

/// Chain with the first `count` shares.
fn chain_of(network: &'static Network, shares: &[Arc<Share>], count: usize) -> Sharechain {
    let mut chain = Sharechain::new(network);
    for share in &shares[..count] {
        let now = f64::from(share.timestamp());
        judge(&mut chain, share, now).unwrap();
    }
    chain
}

fn check_bytes(share: &Share, case: &Value, chain: &Sharechain) {
    assert_eq!(share.to_bytes(), bytes_of(&case["raw"]));
    assert_eq!(share.hash(), hash_of(&case["hash"]).unwrap());
    assert_eq!(share.version().number(), case["type"].as_u64().unwrap());
    assert_eq!(display_hex(share.pow_hash()), case["pow_hash"]);
    assert_eq!(hex::encode(share.header()), case["header_hex"]);
    assert_eq!(hex::encode(share.ref_hash()), case["ref_hash"]);
    assert_eq!(display_hex(share.gentx_hash()), case["txid"]);
    assert_eq!(share.payee().as_str(), str_of(&case["address"]));
    assert_eq!(share.is_block(), case["is_block"].as_bool().unwrap());
    for (target, key) in [(share.target(), "target"), (share.max_target(), "max_target")] {
        assert_eq!(target, Target::from_be_bytes(&bytes_of(&case[key]).try_into().unwrap()), "{key}");
    }
    if let Some(recorded) = case["ref_type_hex"].as_str() {
        assert_eq!(hex::encode(share::ref_type(share.info(), chain.rules())), recorded);
    }
    if share.version() == ShareVersion::V36 {
        check_weights(share, case, chain);
    }
}

/// Compares the decayed weights behind a share, and the coinbase that they lead to.
fn check_weights(share: &Share, case: &Value, chain: &Sharechain) {
    let (network, rules) = (chain.network(), chain.rules());
    let length = share.previous().map_or(0, |previous| chain.all().height(previous)).min(network.real_chain_length);
    let fading = Fading::with_half_life(network.chain_length / 4);
    let query = Query { start: share.previous(), shares_max: length, counting: Counting::Fading(fading) };
    let look = |hash: ShareHash| chain.share(hash).map(|share| Entry::of(share));
    let weights = Window::default().weights(query, &look);
    let coinbase = coinbase_of(share.version(), share.info(), share.payee(), &weights, rules).unwrap();
    let stripped = coinbase.stripped(share.ref_hash(), share.contents().last_txout_nonce);
    assert_eq!(hex::encode(stripped), case["gentx_stripped_hex"]);
    let recorded = &case["decayed_weights"];
    if recorded.is_null() {
        return;
    }
    assert_eq!(weights.total, number_of(&recorded["total_weight"]));
    assert_eq!(weights.donation, number_of(&recorded["donation_weight"]));
    let recorded = recorded["weights"].as_object().unwrap();
    for (script, weight) in recorded {
        let weight = number_of(weight);
        assert_eq!(
            weights.by_payee.get(&payee_of(&script.as_str().into(), rules)).copied().unwrap_or_default(),
            weight
        );
    }
    assert_eq!(weights.by_payee.len(), recorded.values().filter(|weight| !number_of(weight).is_zero()).count());
}

/// Compares the outputs of a verified share's coinbase.
fn check_outputs(share: &Share, case: &Value, chain: &mut Sharechain) {
    let paid: Vec<(String, u64)> = chain
        .payouts_of(share.hash())
        .unwrap()
        .unwrap()
        .into_iter()
        .map(|(script, amount)| (hex::encode(script), amount))
        .collect();
    let recorded: Vec<(String, u64)> = list_of(&case["outputs"])
        .iter()
        .map(|output| (str_of(&output["script"]).to_owned(), number_of(&output["value"]).to()))
        .collect();
    // The recorded ones have the commitment first and the ref hash last.
    let commitments = usize::from(share.info().segwit_data.is_some());
    assert_eq!(paid, recorded[commitments..recorded.len() - 1]);
}

#[test]
fn every_recorded_share_follows_from_its_ancestors() {
    for name in [CROSS, MERGED] {
        let file = json(name);
        let network = network_of(&file);
        let (shares, cases) = (shares_of(&file, network), list_of(&file["shares"]));
        let mut chain = Sharechain::new(network);
        for (share, case) in shares.iter().zip(cases) {
            check_bytes(share, case, &chain);
            let verdict = judge(&mut chain, share, f64::from(share.timestamp()));
            assert_eq!(verdict, Ok(()), "share {} of {name}, height {}", share.hash(), case["tracker_height"]);
            check_outputs(share, case, &mut chain);
            assert_eq!(u64::from(chain.all().height(share.hash())), case["tracker_height"].as_u64().unwrap());
            assert_eq!(chain.all().work(share.hash()).own.0, number_of(&case["tracker_work"]));
        }
        assert_eq!(chain.choice().best, hash_of(&file["best"]));
        ran(name, "shares", cases.len());
        ran(name, "replayed through the tracker", shares.len());
    }
}

#[test]
fn shares_of_version_36_that_come_too_early_are_refused_as_the_fork_refuses_them() {
    let file = json(CROSS);
    let network = network_of(&file);
    let shares = shares_of(&file, network);
    let places: HashMap<ShareHash, usize> = shares.iter().map(|share| share.hash()).zip(1..).collect();
    let cases = list_of(&file["probes"]);
    for case in cases {
        assert_eq!(case["load"], "ok");
        let mut chain = chain_of(network, &shares, places[&hash_of(&case["prev"]).unwrap()]);
        let share = Arc::new(Share::from_bytes(&bytes_of(&case["raw"]), chain.rules()).unwrap());
        assert_eq!(share.hash(), hash_of(&case["hash"]).unwrap());
        let verdict = judge(&mut chain, &share, f64::from(share.timestamp()));
        assert_eq!(verdict.is_ok(), case["check"] == "ok", "{}: {verdict:?} and {}", case["name"], case["error"]);
    }
    ran(CROSS, "probes", cases.len());
}

#[test]
fn shares_wrong_in_one_respect_are_judged_as_the_fork_judges_them() {
    let (file, base) = (json("checks_v36.json"), json(MERGED));
    let network = network_of(&base);
    let shares = shares_of(&base, network);
    let cases = list_of(&file["cases"]);
    for case in cases {
        let name = str_of(&case["name"]);
        let mut chain = chain_of(network, &shares, shares.len());
        let loaded = Share::from_bytes(&bytes_of(&case["raw"]), chain.rules());
        let load = match &loaded {
            Ok(_) => "ok",
            Err(error) if CheckError::is_misbehaviour(error) => "ban",
            Err(_) => "error",
        };
        assert_eq!(load, case["load"], "{name}: {loaded:?} and {}", case["error"]);
        let Ok(share) = loaded else { continue };
        assert_eq!(share.hash(), hash_of(&case["hash"]).unwrap(), "{name}");
        // Late enough for all but the one that is meant to be early.
        let now = f64::from(shares[shares.len() - 1].timestamp()) + 1000.0;
        let verdict = judge(&mut chain, &Arc::new(share), now);
        assert_eq!(verdict.is_ok(), case["check"] == "ok", "{name}: {verdict:?} and {}", case["error"]);
    }
    ran("checks_v36.json", "cases", cases.len());
}
