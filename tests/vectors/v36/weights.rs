//! Weights that fade, undecayed weights of the shares that vote for version 36, and the hash of those (protocol-v36
//! sections 4.1 and 6.3).

use ruint::aliases::U320;
use serde_json::Value;
use sharechain::chain::{Counting, Entry, Fading, Query, Window, share_rules};
use sharechain::coin::LITECOIN;
use sharechain::share::{Attempts, Bits, Payee, ShareHash, ShareRules, Weights, payout_hash};

use super::parts::payee_of;
use crate::vectors::support::{digest_of, json, list_of, number_of, ran};

fn hash_of(index: usize) -> ShareHash {
    let mut digest = [0xff; 32];
    digest[..8].copy_from_slice(&(index as u64).to_le_bytes());
    ShareHash(digest)
}

fn index_of(hash: ShareHash) -> usize {
    u64::from_le_bytes(hash.0[..8].try_into().unwrap()).try_into().unwrap()
}

fn u32_of(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

fn fading(chain_length: u32) -> Counting {
    Counting::Fading(Fading::with_half_life((chain_length / 4).max(1)))
}

#[test]
fn factors_of_decay_at_every_recorded_depth() {
    let file = json("decay.json");
    let cases = list_of(&file["cases"]);
    for case in cases {
        let chain_length = u32_of(&case["chain_length"]);
        // A share of 2^40 attempts weighs 65535 times its factor.
        let newest = chain_length as usize + 1;
        let payee = |index: usize| {
            let mut of = [0; 20];
            of[..8].copy_from_slice(&(index as u64).to_le_bytes());
            Payee::from_versioned_hash(&of, 48)
        };
        let look = |hash: ShareHash| {
            let index = index_of(hash);
            let attempts = Attempts(U320::from(1_u64 << 40));
            let previous = index.checked_sub(1).map(hash_of);
            Some(Entry { hash, previous, payee: payee(index), by_script: payee(index), attempts, donation: 0 })
        };
        let query =
            Query { start: Some(hash_of(newest)), shares_max: chain_length + 2, counting: fading(chain_length) };
        let weights = Window::default().weights(query, &look);
        let factors = case["factor_at_depth"].as_object().unwrap();
        assert!(factors.contains_key(&(newest).to_string()));
        for (depth, factor) in factors {
            let of = weights.by_payee[&payee(newest - depth.parse::<usize>().unwrap())];
            assert_eq!(of, number_of(factor) * U320::from(65_535), "{chain_length}, {depth}");
        }
    }
    ran("decay.json", "cases", cases.len());
}

/// The recorded chain: entries that count in full, and those of the votes for version 36.
struct Chain {
    all: Vec<Entry>,
    voting: Vec<Entry>,
}

impl Chain {
    fn of(file: &Value, rules: &ShareRules) -> Chain {
        let payees: Vec<Payee> = list_of(&file["scripts"]).iter().map(|script| payee_of(script, rules)).collect();
        let entry = |(index, share): (usize, &Value)| {
            let payee = &payees[u32_of(&share[1]) as usize];
            Entry {
                hash: hash_of(index),
                previous: index.checked_sub(1).map(hash_of),
                payee: payee.clone(),
                by_script: payee.clone(),
                attempts: Bits(u32_of(&share[0])).target().attempts(),
                donation: share[2].as_u64().unwrap().try_into().unwrap(),
            }
        };
        let shares = list_of(&file["shares"]);
        let all: Vec<Entry> = shares.iter().enumerate().map(entry).collect();
        let voting = all.iter().zip(shares).map(|(entry, share)| {
            let attempts = if u32_of(&share[3]) >= 36 { entry.attempts } else { Attempts::default() };
            Entry { attempts, ..entry.clone() }
        });
        Chain { voting: voting.collect(), all }
    }
}

/// Entry of a share of `entries`.
fn look_in(entries: &[Entry]) -> impl Fn(ShareHash) -> Option<Entry> {
    |hash| entries.get(index_of(hash)).cloned()
}

fn assert_same(weights: &Weights, wanted: &Value, rules: &ShareRules, query: &Value) {
    assert_eq!(weights.total, number_of(&wanted["total_weight"]), "{query}");
    assert_eq!(weights.donation, number_of(&wanted["donation_weight"]), "{query}");
    // The recording may hold weights of zero.
    let wanted = wanted["weights"].as_object().unwrap();
    let wanted = wanted.iter().map(|(script, weight)| (payee_of(&script.as_str().into(), rules), number_of(weight)));
    let wanted = wanted.filter(|(_, weight)| !weight.is_zero()).collect();
    assert_eq!(weights.by_payee, wanted, "{query}");
}

/// The fork's function can cut a window by work, which no share's window is (protocol-v36 section 4.1): the result lies
/// between the two that are cut by number.
fn assert_between(window: &mut Window, query: Query, chain: &Chain, case: &Value) {
    let (limit, wanted) = (number_of(&case["desired_weight"]), &case["decayed"]);
    assert_eq!(number_of(&wanted["total_weight"]), limit, "{case}");
    let mut weights = |shares_max| window.weights(Query { shares_max, ..query }, &look_in(&chain.all));
    let above = (1..=query.shares_max).find(|shares_max| weights(*shares_max).total > limit).unwrap();
    let (below, above) = (weights(above - 1), weights(above));
    assert!(below.total <= limit, "{case}");
    let donation = number_of(&wanted["donation_weight"]);
    assert!(below.donation <= donation && donation <= above.donation, "{case}");
    let wanted = wanted["weights"].as_object().unwrap();
    assert_eq!(wanted.len(), above.by_payee.len(), "{case}");
    for (payee, most) in &above.by_payee {
        let weight = number_of(&wanted[&hex::encode(payee.newest_script().unwrap())]);
        assert!(weight <= *most, "{case}");
        assert!(weight >= below.by_payee.get(payee).copied().unwrap_or_default(), "{case}");
    }
}

#[test]
fn fading_weights_votes_and_their_hash_on_a_long_chain() {
    let (file, rules) = (json("weights_v36.json"), share_rules(&LITECOIN));
    let chain = Chain::of(&file, &rules);
    let (mut window, mut window_of_votes) = (Window::default(), Window::default());
    let queries = list_of(&file["queries"]);
    for case in queries {
        let start = Some(hash_of(u32_of(&case["start"]) as usize));
        let shares_max = u32_of(&case["max_shares"]);
        let query = Query { start, shares_max, counting: fading(u32_of(&file["chain_length"])) };
        if !case["desired_weight"].is_null() {
            assert_between(&mut window, query, &chain, case);
            continue;
        }
        assert_same(&window.weights(query, &look_in(&chain.all)), &case["decayed"], &rules, case);
        let query = Query { counting: Counting::UpTo(U320::MAX), ..query };
        assert_same(&window_of_votes.weights(query, &look_in(&chain.voting)), &case["merged_none"], &rules, case);
    }
    ran("weights_v36.json", "queries", queries.len());

    let hashes = list_of(&file["merged_payout_hashes"]);
    for case in hashes {
        let start = Some(hash_of(u32_of(&case["prev"]) as usize));
        let shares_max = u32_of(&case["height"]).min(u32_of(&file["real_chain_length"]));
        let query = Query { start, shares_max, counting: Counting::UpTo(U320::MAX) };
        let weights = window_of_votes.weights(query, &look_in(&chain.voting));
        let wanted = (!case["merged_payout_hash"].is_null()).then(|| digest_of(&case["merged_payout_hash"]));
        assert_eq!(payout_hash(&weights), wanted, "{case}");
    }
    ran("weights_v36.json", "merged_payout_hashes", hashes.len());
}
