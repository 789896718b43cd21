//! Recorded chains, share by share from genesis through the tracker with every check.

use serde_json::Value;
use sharechain::chain::{Counting, Entry, Event, Measure, Query, Sharechain, Window, limit, replay};
use sharechain::coin::{self, Network};
use sharechain::rules::PayeeForm;
use sharechain::share::{Payee, Share, ShareHash, Target, Weights};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::support::{bytes_of, digest_of, json, list_of, number_of, ran, str_of};

const CHAINS: [&str; 4] = [
    "shares_run17_v17_to_v35_segwit.json",
    "shares_run33_v33_to_v35_segwit.json",
    "shares_mm35_mergedmining.json",
    "shares_lead0_v35_padding.json",
];

/// Network file made from a vector's `net`.
pub(crate) fn network_of(file: &Value) -> &'static Network {
    let net = file["net"].as_object().unwrap();
    let mut lines: Vec<String> = net.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    lines.push("BASE = \"bitcoin_signet\"".to_owned());
    if let Some(version) = file["shares"][0]["version"].as_u64() {
        lines.push(format!("START_VERSION = {version}"));
    }
    Box::leak(Box::new(coin::from_toml(&lines.join("\n")).unwrap()))
}

pub(crate) fn hash_of(value: &Value) -> Option<ShareHash> {
    (!value.is_null()).then(|| ShareHash(digest_of(value)))
}

pub(crate) fn share_of(chain: &Sharechain, raw: &Value) -> Arc<Share> {
    Arc::new(Share::from_bytes(&bytes_of(raw), chain.rules()).unwrap())
}

pub(crate) fn target_of(value: &Value) -> Target {
    Target::from_be_bytes(&bytes_of(value).try_into().unwrap())
}

/// Chain with the shares of a file.
pub(crate) fn recorded(file: &Value) -> (Sharechain, Vec<ShareHash>) {
    let mut chain = Sharechain::new(network_of(file));
    let mut hashes = Vec::new();
    for case in list_of(&file["shares"]) {
        let share = share_of(&chain, &case["raw"]);
        hashes.push(share.hash());
        assert!(chain.add(share, None, case["time_seen"].as_f64().unwrap()));
        chain.think(case["time_seen"].as_f64().unwrap());
    }
    (chain, hashes)
}

fn check_weights(weights: &Weights, wanted: &Value) {
    assert_eq!(weights.total, number_of(&wanted["total_weight"]));
    assert_eq!(weights.donation, number_of(&wanted["donation_weight"]));
    let wanted = wanted["weights"].as_object().unwrap();
    assert_eq!(weights.by_payee.len(), wanted.len());
    for (payee, weight) in wanted {
        assert_eq!(weights.by_payee[payee.as_str()], number_of(weight), "{payee}");
    }
}

fn amounts(payouts: &BTreeMap<Payee, u64>) -> BTreeMap<String, u64> {
    payouts.iter().map(|(payee, amount)| (payee.to_string(), *amount)).collect()
}

#[test]
fn every_recorded_share_follows_from_its_ancestors_in_every_field() {
    for name in CHAINS {
        let file = json(name);
        let mut chain = Sharechain::new(network_of(&file));
        let lookbehind = u32::try_from(file["net"]["TARGET_LOOKBEHIND"].as_u64().unwrap()).unwrap();
        let mut count = 0;
        for case in list_of(&file["shares"]) {
            let now = case["time_seen"].as_f64().unwrap();
            let share = share_of(&chain, &case["raw"]);
            let (hash, previous) = (share.hash(), share.previous());
            assert_eq!(hash, hash_of(&case["hash"]).unwrap());
            // The required fields of the next share are known before it arrives.
            let tip = chain.tip();
            assert_eq!(tip.best_hash(), previous);
            let next = tip.next_share(target_of(&case["block_target"])).unwrap();
            let required = &next.requirements;
            let (max_bits, bits) = required.targets(share.version(), share.timestamp(), share.target());
            assert_eq!(
                (max_bits.target(), bits.target()),
                (target_of(&case["max_target"]), target_of(&case["target"]))
            );
            assert_eq!(u64::from(required.absheight), case["absheight"].as_u64().unwrap());
            assert_eq!(required.abswork(bits).to_string(), str_of(&case["abswork"]));
            assert_eq!(required.far_share_hash, hash_of(&case["fields"]["share_info"]["far_share_hash"]));
            assert_eq!(next.timestamp(share.timestamp()), Some(share.timestamp()));
            assert_eq!(next.version, share.version(), "{hash}");
            assert_eq!(next.desired_version, share.data().desired_version);
            check_weights(&next.weights, &case["cumulative_weights"]);
            if let Some(previous) = previous.filter(|_| !case["pool_attempts_per_second_min_work"].is_null()) {
                let rate = chain.statistics().attempts_per_second(previous, lookbehind, Measure::Min);
                assert_eq!(rate, Some(number_of(&case["pool_attempts_per_second_min_work"])));
            }

            chain.add(share, None, now);
            chain.think(now);
            let events: Vec<Event> = std::iter::from_fn(|| chain.poll_event()).collect();
            assert!(events.contains(&Event::Verified(hash)), "{hash}: {events:?}");
            assert_eq!(events.contains(&Event::Block(hash)), case["is_block"].as_bool().unwrap());
            assert_eq!(u64::from(chain.all().height(hash)), case["tracker_height"].as_u64().unwrap());
            assert_eq!(chain.all().work(hash).own.0, number_of(&case["tracker_work"]));
            assert_eq!(u64::from(chain.known(hash).unwrap().naughty), case["naughty"].as_u64().unwrap());
            let paid: BTreeMap<String, u64> =
                chain.payouts_of(hash).unwrap().unwrap().into_iter().map(|(to, sum)| (hex::encode(to), sum)).collect();
            assert_eq!(serde_json::to_value(&paid).unwrap(), case["payouts"]);
            count += 1;
        }
        assert_eq!(chain.choice().best, hash_of(&file["best"]));
        ran(name, "replayed through the tracker", count);
    }
}

#[test]
fn orphans_and_dead_shares_of_the_recordings_are_as_good_as_those_of_the_chain() {
    for name in CHAINS {
        let file = json(name);
        let (mut chain, _) = recorded(&file);
        let best = chain.choice().best;
        let mut count = 0;
        for case in list_of(&file["side_shares"]) {
            let share = share_of(&chain, &case["raw"]);
            let hash = share.hash();
            chain.add(share, None, case["time_seen"].as_f64().unwrap());
            chain.think(case["time_seen"].as_f64().unwrap());
            assert_eq!(chain.verified().contains(&hash), case["verified_live"].as_bool().unwrap(), "{hash}");
            count += 1;
        }
        assert_eq!(chain.choice().best, best);
        ran(name, "side shares verified", count);
    }
}

#[test]
fn what_the_pages_show_of_a_chain_is_what_the_reference_showed() {
    for name in CHAINS {
        let file = json(name);
        let (chain, hashes) = recorded(&file);
        let (best, statistics) = (*hashes.last().unwrap(), chain.statistics());
        let lookbehind =
            u32::try_from(file["net"]["CHAIN_LENGTH"].as_u64().unwrap()).unwrap().min(chain.all().height(best));
        let mut count = 0;
        for (key, rate) in file["pool_attempts_per_second_at_best"].as_object().unwrap() {
            let mut parts = key.split(',');
            let distance = parts.next().unwrap().parse().unwrap();
            let measure = if parts.next() == Some("min_work=1") { Measure::Min } else { Measure::Own };
            assert_eq!(statistics.attempts_per_second(best, distance, measure), Some(number_of(rate)), "{key}");
            count += 1;
        }
        let proportion = statistics.average_stale_proportion(best, lookbehind);
        assert_eq!(Some(proportion), file["average_stale_prop_at_best"].as_f64());
        let stales = statistics.stale_counts(best, lookbehind);
        let wanted = &file["stale_counts_at_best"];
        let or_none = |value: &Value| if value.is_null() { number_of(&Value::from(0)) } else { number_of(value) };
        assert_eq!(stales.good.0, or_none(&wanted["good"]));
        assert_eq!((stales.orphan.0, stales.dead.0), (or_none(&wanted["orphan"]), or_none(&wanted["doa"])));
        let votes = statistics.votes(best, lookbehind);
        for (version, votes) in votes {
            assert_eq!(votes, number_of(&file["desired_version_counts_at_best"][version.to_string()]));
        }
        ran(name, "summaries", count + 3);
    }
}

#[test]
fn a_replay_prints_what_the_reference_found_out() {
    for name in CHAINS {
        let file = json(name);
        let shares = list_of(&file["shares"]);
        let lines: Vec<String> =
            shares.iter().map(|case| format!("{} {}", str_of(&case["raw"]), case["time_seen"])).collect();
        let mut out = Vec::new();
        replay(network_of(&file), lines.join("\n").as_bytes(), &mut out).unwrap();
        let printed: Vec<Value> =
            String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(printed.len(), shares.len() + 1);
        for (line, case) in printed.iter().zip(shares) {
            for key in [
                "hash",
                "version",
                "absheight",
                "abswork",
                "pow_hash",
                "gentx_hash",
                "ref_hash",
                "max_target",
                "target",
                "payouts",
            ] {
                assert_eq!(line[key], case[key], "{key}");
            }
            assert_eq!(line["height"], case["tracker_height"]);
            assert_eq!(line["previous"], case["fields"]["share_info"]["share_data"]["previous_share_hash"]);
            assert_eq!(line["verdict"], "ok");
        }
        let summary = printed.last().unwrap();
        assert_eq!(summary["best"], file["best"]);
        assert_eq!(summary["verified"], shares.len());
        assert_eq!(summary["unverified"], 0);
    }
}

#[test]
fn weights_are_those_of_the_reference_at_any_start_length_and_limit() {
    let file = json("weights_run17.json");
    let source = json("shares_run17_v17_to_v35_segwit.json");
    let (chain, hashes) = recorded(&source);
    let look = |hash: ShareHash| chain.share(hash).map(|share| Entry::of(share));
    let index_of = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let mut window = Window::default();
    let queries = list_of(&file["cumulative_weights"]);
    for case in queries {
        let query = Query {
            start: (!case["start"].is_null()).then(|| hashes[index_of(&case["start"])]),
            shares_max: u32::try_from(case["max_shares"].as_u64().unwrap()).unwrap(),
            counting: Counting::UpTo(number_of(&case["desired_weight"])),
        };
        check_weights(&window.weights(query, &look), case);
        check_weights(&Window::default().weights(query, &look), case);
    }
    ran("weights_run17.json", "cumulative_weights", queries.len());

    let statistics = chain.statistics();
    let payouts = list_of(&file["expected_payouts"]);
    for case in payouts {
        let start = hashes[index_of(&case["index"])];
        let paid =
            statistics.expected_payouts(start, target_of(&case["block_target"]), case["subsidy"].as_u64().unwrap());
        assert_eq!(serde_json::to_value(amounts(&paid)).unwrap(), case["payouts"]);
    }
    ran("weights_run17.json", "expected_payouts", payouts.len());

    let rates = list_of(&file["pool_attempts_per_second"]);
    for case in rates {
        let (start, distance) =
            (hashes[index_of(&case["index"])], u32::try_from(case["dist"].as_u64().unwrap()).unwrap());
        let rate = |measure| statistics.attempts_per_second(start, distance, measure);
        assert_eq!(rate(Measure::Own), Some(number_of(&case["work"])));
        assert_eq!(rate(Measure::Min), Some(number_of(&case["min_work"])));
        let as_printed: f64 = str_of(&case["work_float"]).parse().unwrap();
        assert_eq!(statistics.rate(start, distance), Some(as_printed));
    }
    ran("weights_run17.json", "pool_attempts_per_second", rates.len());

    let stales = list_of(&file["stale"]);
    let mut payees = 0;
    for case in stales {
        let start = hashes[index_of(&case["index"])];
        let lookbehind = u32::try_from(case["lookbehind"].as_u64().unwrap()).unwrap();
        let printed = |value: &Value| str_of(value).parse::<f64>().unwrap();
        assert_eq!(statistics.average_stale_proportion(start, lookbehind), printed(&case["average_stale_prop"]));
        // Below version 34 the reference forgets a payee's previous shares at each share (protocol section 8.5).
        if chain.all().chain(start, lookbehind).all(|hash| is_textual(&chain, hash)) {
            for (payee, stales) in statistics.stales_by_payee(start, lookbehind) {
                let proportion = f64::from(stales.stale) / f64::from(stales.total);
                assert_eq!(proportion, printed(&case["user_stale_props"][payee.as_str()]), "{payee}");
                payees += 1;
            }
        }
    }
    ran("weights_run17.json", "user_stale_props", payees);
    ran("weights_run17.json", "stale", stales.len());
    assert_eq!(
        limit(3, target_of(&source["shares"][0]["block_target"])),
        number_of(&source["shares"][0]["cumulative_weights"]["desired_weight"])
    );
}

fn is_textual(chain: &Sharechain, hash: ShareHash) -> bool {
    chain.share(hash).unwrap().version().rules().payee == PayeeForm::Address
}
