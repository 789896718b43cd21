//! Weights equal a naive sum over the chain, and those that fade the worked example.

use super::*;
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
