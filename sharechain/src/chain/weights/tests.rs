//! Weights equal a naive sum over the chain, and those that fade the worked example.

use super::*;
use crate::chain::Sharechain;
use crate::share::{Attempts, Share};
use crate::testkit::{self, Plan};
use proptest::prelude::*;
use std::collections::HashMap;

fn hash(number: u64) -> ShareHash {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    ShareHash(digest)
}

fn payee(number: u8) -> Payee {
    Payee::from_versioned_hash(&[number; 20], 111)
}

/// The loop of protocol section 7, literally.
fn naive(query: Query, shares: &HashMap<ShareHash, Entry>) -> Weights {
    let mut weights = Weights::default();
    let (mut at, mut count) = (query.start, 0);
    let Counting::UpTo(weight_max) = query.counting else { panic!("{query:?} fades") };
    if query.shares_max == 0 || weight_max.is_zero() {
        return weights;
    }
    while let Some(share) = at.and_then(|at| shares.get(&at)) {
        let attempts = share.attempts.0;
        let own = attempts * U320::from(65_535 - u32::from(share.donation));
        let donated = attempts * U320::from(share.donation);
        let total = attempts * U320::from(65_535);
        let slot = weights.by_payee.entry(share.payee.clone()).or_default();
        if weights.total + total > weight_max {
            let part = (weight_max - weights.total) / U320::from(65_535);
            *slot += part * own / attempts;
            weights.donation += part * donated / attempts;
            weights.total = weight_max;
            break;
        }
        *slot += own;
        weights.donation += donated;
        weights.total += total;
        count += 1;
        if count == query.shares_max || weights.total == weight_max {
            break;
        }
        at = share.previous;
    }
    weights.by_payee.retain(|_, weight| !weight.is_zero());
    weights
}

/// The loop of protocol-v36 section 4.1, literally.
fn naive_fading(query: Query, half_life: u64, shares: &HashMap<ShareHash, Entry>) -> Weights {
    let scale = 1_u64 << 40;
    let taken = u128::from(scale) * 693_147 / (1_000_000 * u128::from(half_life.max(1)));
    let per_share = U320::from(scale) - U320::from(taken);
    let mut weights = Weights::default();
    let (mut at, mut left) = (query.start, U320::from(scale));
    for _ in 0..query.shares_max {
        let Some(share) = at.and_then(|at| shares.get(&at)) else { break };
        let attempts = (share.attempts.0 * left) >> 40;
        *weights.by_payee.entry(share.by_script.clone()).or_default() +=
            attempts * U320::from(65_535 - u32::from(share.donation));
        weights.donation += attempts * U320::from(share.donation);
        weights.total += attempts * U320::from(65_535);
        at = share.previous;
        left = (left * per_share) >> 40;
    }
    weights.by_payee.retain(|_, weight| !weight.is_zero());
    weights
}

/// Work of every width, up to that of a target of 0.
fn work() -> impl Strategy<Value = Attempts> {
    prop_oneof![
        8 => (1u64..50).prop_map(U320::from),
        4 => any::<u64>().prop_map(U320::from),
        1 => Just(U320::from(u64::MAX)),
        2 => (any::<u64>(), 0usize..=192).prop_map(|(number, shift)| U320::from(number) << shift),
        1 => Just(U320::from(1) << 256),
    ]
    .prop_map(Attempts)
}

fn fading_query(start: u64, shares_max: u32, half_life: u32) -> Query {
    let counting = Counting::Fading(Fading::with_half_life(half_life));
    Query { start: Some(hash(start)), shares_max, counting }
}

proptest! {
    #[test]
    fn fading_weights_equal_a_naive_walk_over_random_forests(
        shares in prop::collection::vec((0u64..4, 0u8..9, work(), prop_oneof![Just(0u16), any::<u16>()]), 1..400),
        queries in prop::collection::vec(
            (any::<prop::sample::Index>(), 0u32..420, prop_oneof![Just(0u32), Just(1), Just(10), Just(2160)], any::<bool>()),
            1..60
        ),
    ) {
        let mut forest = HashMap::new();
        for (number, (fork, payee_number, attempts, donation)) in (1u64..).zip(&shares) {
            let previous = number.checked_sub(1 + fork).filter(|previous| *previous > 0).map(hash);
            let entry = Entry {
                hash: hash(number), previous, payee: payee(!payee_number), by_script: payee(*payee_number),
                attempts: *attempts, donation: *donation,
            };
            forest.insert(hash(number), entry);
        }
        let mut window = Window::default();
        let look = |hash| forest.get(&hash).cloned();
        for (start, shares_max, half_life, is_mixed) in queries {
            let start = 1 + start.index(shares.len()) as u64;
            if is_mixed {
                // The other kind of weights moves the same window.
                window.weights(Query { start: Some(hash(start)), shares_max, counting: Counting::UpTo(U320::MAX) }, &look);
            }
            let query = fading_query(start, shares_max, half_life);
            let wanted = naive_fading(query, half_life.into(), &forest);
            prop_assert_eq!(&*window.weights(query, &look), &wanted);
            if shares_max > 0 {
                prop_assert_eq!(&*Snapshot { latest: None, ..window.snapshot() }.weights(query), &wanted);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn fading_weights_equal_a_naive_walk_over_windows_of_every_length(
        length in prop_oneof![64u64..200, 1000u64..3000, Just(8640), Just(9000)],
        seed in prop::collection::vec((0u8..200, work(), prop_oneof![Just(0u16), any::<u16>()]), 100..300),
        steps in prop::collection::vec(0u64..60, 1..8),
    ) {
        let last = length + 150;
        let shares: HashMap<ShareHash, Entry> = (1..=last).zip(seed.iter().cycle()).map(|(number, (of, attempts, donation))| {
            // Payees come and go: their numbers are given again.
            let by_script = payee(u8::try_from((u64::from(*of) + number / 500 * 31) % 256).unwrap());
            let previous = (number > 1).then(|| hash(number - 1));
            let (payee, attempts, donation) = (payee(7), *attempts, *donation);
            (hash(number), Entry { hash: hash(number), previous, payee, by_script, attempts, donation })
        }).collect();
        let mut window = Window::default();
        let starts = steps.iter().scan(length, |at, step| {
            // Mostly up, sometimes back to where it began.
            *at = if at.saturating_add(*step) > last { length } else { *at + step };
            Some(*at)
        });
        for start in starts {
            let query = fading_query(start, u32::try_from(length).unwrap(), 2160);
            prop_assert_eq!(
                &*window.weights(query, &|hash| shares.get(&hash).cloned()),
                &naive_fading(query, 2160, &shares)
            );
        }
    }
}

proptest! {
    #[test]
    fn weights_are_the_same_whatever_was_summed_ahead(
        shares in prop::collection::vec((prop_oneof![4 => Just(0u64), 1 => 1u64..4], 0u8..9, work(), any::<u16>()), 1..300),
        queries in prop::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![6 => Just(20u32), 1 => 0u32..40, 1 => Just(300)], 0u8..8), 1..150
        ),
    ) {
        let forest: HashMap<ShareHash, Entry> = (1u64..).zip(&shares).map(|(number, (fork, of, attempts, donation))| {
            let previous = number.checked_sub(1 + fork).filter(|previous| *previous > 0).map(hash);
            // Payees come and go: their numbers are given again.
            let by_script = payee(*of + u8::try_from(number / 50).unwrap() * 9);
            let (attempts, donation) = (*attempts, *donation);
            (hash(number), Entry { hash: hash(number), previous, payee: payee(0), by_script, attempts, donation })
        }).collect();
        let mut window = Window::default();
        let mut start = 0;
        for (index, shares_max, step) in queries {
            if step != 1 {
                window.prepare(shares_max, fading_query(0, 0, 10).counting);
            }
            // Mostly up by one share, sometimes anywhere.
            start = if step == 0 || start == shares.len() as u64 { 1 + index.index(shares.len()) as u64 } else { start + 1 };
            // Sometimes another window than the one that was prepared.
            let half_life = if step == 3 { 11 } else { 10 };
            let query = fading_query(start, shares_max + u32::from(step == 2), half_life);
            let wanted = naive_fading(query, half_life.into(), &forest);
            prop_assert_eq!(&*window.weights(query, &|hash| forest.get(&hash).cloned()), &wanted);
        }
    }
}

#[test]
fn the_walk_for_a_new_share_is_over_before_it_comes() {
    let shares: HashMap<ShareHash, Entry> = (1u64..=60)
        .map(|number| {
            let previous = (number > 1).then(|| hash(number - 1));
            let (payee, attempts) = (payee(1), Attempts(U320::from(1) << number));
            (
                hash(number),
                Entry { hash: hash(number), previous, by_script: payee.clone(), payee, attempts, donation: 9 },
            )
        })
        .collect();
    let look = |hash| shares.get(&hash).cloned();
    let mut window = Window::default();
    for number in 1..=60_u64 {
        let query = |number: u64| fading_query(number, u32::try_from(number.min(25)).unwrap(), 10);
        assert_eq!(*window.weights(query(number), &look), naive_fading(query(number), 10, &shares));
        assert!(!window.fading.as_ref().unwrap().is_prepared(), "what was summed ahead is used");
        let next = query(number + 1);
        window.prepare(next.shares_max, next.counting);
        window.weights(query(number), &look);
        assert!(window.fading.as_ref().unwrap().is_prepared());
    }
}

#[test]
fn a_window_follows_a_chain_of_new_payees_without_keeping_the_old() {
    let entry = |number: u64| {
        let mut of = [0; 20];
        of[..8].copy_from_slice(&number.to_le_bytes());
        Entry {
            hash: hash(number),
            previous: (number > 1).then(|| hash(number - 1)),
            payee: payee(0),
            by_script: Payee::from_versioned_hash(&of, 111),
            attempts: Attempts(U320::from(number) << 60),
            donation: 0,
        }
    };
    let look = |hash: ShareHash| {
        let number = u64::from_le_bytes(hash.0[..8].try_into().unwrap());
        (number <= 3000).then(|| entry(number))
    };
    let mut window = Window::default();
    for number in 1..=3000 {
        let weights = window.weights(fading_query(number, 100, 25), &look);
        assert_eq!(weights.by_payee.len() as u64, number.min(100));
    }
    assert!(window.fading.as_ref().unwrap().payees_known() < 500);
}

/// A share of version 35 after any number of version 36.
#[test]
fn a_window_that_only_faded_for_long_counts_whole_shares_as_a_fresh_one() {
    let shares: HashMap<ShareHash, Entry> = (1..=3000)
        .map(|number: u64| {
            let of = payee(u8::try_from(number / 20 % 250).unwrap());
            let (previous, attempts) = ((number > 1).then(|| hash(number - 1)), Attempts(U320::from(number)));
            let entry =
                Entry { hash: hash(number), previous, payee: of.clone(), by_script: of, attempts, donation: 600 };
            (hash(number), entry)
        })
        .collect();
    let look = |hash| shares.get(&hash).cloned();
    let mut window = Window::default();
    for number in 1..=3000 {
        window.weights(fading_query(number, 100, 25), &look);
        assert!(window.by_payee.len() < 10, "{number}");
        if number % 37 == 0 {
            // A copy, so that the window itself only fades.
            for weight_max in [U320::MAX >> 1, U320::from(number * 50 * 65_535)] {
                let counting = Counting::UpTo(weight_max);
                let query = Query { start: Some(hash(number - 1)), shares_max: 99, counting };
                assert_eq!(*window.clone().weights(query, &look), naive(query, &shares), "{number}");
            }
        }
    }
}

#[test]
fn a_share_without_the_vote_takes_a_place_in_the_window_but_no_weight() {
    let mut chain = Sharechain::new(testkit::network(24, 35));
    let mut parent = None;
    let shares: Vec<Arc<Share>> = [35, 36, 37, 34, 36]
        .into_iter()
        .zip(0..)
        .map(|(vote, number)| {
            let timestamp = testkit::START + 10 * number;
            let plan = Plan { payee: number, timestamp, vote: Some(vote), donation: 600, ..Plan::default() };
            let share = testkit::share_on(&mut chain, parent, &plan);
            parent = Some(share.hash());
            chain.add(Arc::clone(&share), None, f64::from(timestamp));
            chain.think(f64::from(timestamp));
            share
        })
        .collect();
    let look = |hash| shares.iter().find(|share| share.hash() == hash).map(|share| Entry::voting(share, 36));
    let mut window = Window::default();
    for (shares_max, counted) in [(5, &[1, 2, 4][..]), (4, &[1, 2, 4]), (3, &[2, 4]), (2, &[4]), (1, &[4])] {
        let query = Query { start: parent, shares_max, counting: Counting::UpTo(U320::MAX) };
        let mut wanted = Weights::default();
        for share in counted.iter().map(|number: &usize| &shares[*number]) {
            let attempts = share.attempts().0;
            wanted.by_payee.insert(share.payee().clone(), attempts * U320::from(65_535 - 600));
            wanted.donation += attempts * U320::from(600);
            wanted.total += attempts * U320::from(65_535);
        }
        assert_eq!(*window.weights(query, &look), wanted, "{shares_max}");
    }
    let query = Query { start: shares[0].previous(), shares_max: 1, counting: Counting::UpTo(U320::MAX) };
    assert_eq!(*window.weights(query, &look), Weights::default());
    let query = Query { start: Some(shares[0].hash()), ..query };
    assert_eq!(*window.weights(query, &look), Weights::default());
}

proptest! {
    #[test]
    fn weights_equal_a_naive_sum_over_random_forests(
        shares in prop::collection::vec((0u64..4, 0u8..5, 1u64..50, prop_oneof![Just(0u16), any::<u16>()]), 1..400),
        queries in prop::collection::vec((any::<prop::sample::Index>(), 0u32..420, 0u64..9000), 1..60),
    ) {
        let mut forest = HashMap::new();
        for (number, (fork, payee_number, attempts, donation)) in (1u64..).zip(&shares) {
            let previous = number.checked_sub(1 + fork).filter(|previous| *previous > 0).map(hash);
            let entry = Entry {
                hash: hash(number), previous, payee: payee(*payee_number), by_script: payee(*payee_number),
                attempts: Attempts(U320::from(*attempts)), donation: *donation,
            };
            forest.insert(hash(number), entry);
        }
        let mut window = Window::default();
        for (start, shares_max, weight) in queries {
            let start = Some(hash(1 + start.index(shares.len()) as u64));
            let query = Query { start, shares_max, counting: Counting::UpTo(U320::from(weight) * U320::from(65_535)) };
            let wanted = naive(query, &forest);
            prop_assert_eq!(&*window.weights(query, &|hash| forest.get(&hash).cloned()), &wanted);
            if shares_max > 0 && weight > 0 {
                prop_assert_eq!(&*Snapshot { latest: None, ..window.snapshot() }.weights(query), &wanted);
            }
        }
    }
}

#[test]
fn a_window_that_follows_a_chain_reads_each_share_about_once() {
    let shares: HashMap<ShareHash, Entry> = (1u64..=2000)
        .map(|number| {
            let previous = (number > 1).then(|| hash(number - 1));
            let attempts = Attempts(U320::from(7));
            (
                hash(number),
                Entry { hash: hash(number), previous, payee: payee(1), by_script: payee(1), attempts, donation: 0 },
            )
        })
        .collect();
    let looks = std::cell::Cell::new(0);
    let mut window = Window::default();
    for number in 1..=2000 {
        let query = Query { start: Some(hash(number)), shares_max: 600, counting: Counting::UpTo(U320::MAX >> 1) };
        let weights = window.weights(query, &|hash| {
            looks.set(looks.get() + 1);
            shares.get(&hash).cloned()
        });
        assert_eq!(weights.total, U320::from(number.min(600) * 7 * 65_535));
    }
    assert!(looks.get() < 2 * 2000, "{}", looks.get());
}

/// The worked example of protocol-v36 section 4.4, and the half-life of 2160 shares in section 4.1.
#[test]
fn fading_weights_are_those_of_the_worked_example() {
    let share = |number: u8, attempts: u64, donation| Entry {
        hash: hash(number.into()),
        previous: (number > 1).then(|| hash(u64::from(number) - 1)),
        payee: payee(number),
        by_script: payee(number),
        attempts: Attempts(U320::from(attempts)),
        donation,
    };
    let shares = [share(1, 65_536, 0), share(2, 131_072, 655), share(3, 262_144, 0)];
    let query = Query { start: Some(hash(3)), shares_max: 3, counting: Counting::Fading(Fading::with_half_life(10)) };
    let mut window = Window::default();
    let weights = window.weights(query, &|hash| shares.iter().find(|share| share.hash == hash).cloned());
    let of = |number| u64::try_from(weights.by_payee[&payee(number)]).unwrap();
    assert_eq!([of(3), of(2), of(1)], [17_179_607_040, 7_914_451_680, 3_720_094_275]);
    assert_eq!(weights.donation, U320::from(79_900_830));
    assert_eq!(weights.total, U320::from(28_894_053_825_u64));
    assert_eq!(window.snapshot().weights(query), weights);
    assert_eq!(Snapshot { latest: None, ..window.snapshot() }.weights(query), weights);

    assert_eq!(Fading::with_half_life(2160).per_share, 1_099_158_792_968);
    assert_eq!(Fading::with_half_life(100).per_share, 1_091_890_395_914);
    // Even for a half-life of 0, no weight grows.
    assert_eq!(Fading::with_half_life(0), Fading::with_half_life(1));
}
