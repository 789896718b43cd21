//! `/patron_sendmany`: divides an amount among all current miners, as argument of `sendmany` (protocol section 13.2).

use axum::extract::{Path, State};
use axum::response::Response;
use sharechain::share::Payee;
use std::collections::BTreeMap;

use super::{Answer, COIN, Failed, coins, newest, text};
use crate::view::http::Sources;

/// Default amount, in coins, below which parts are pooled and drawn for by one of their payees.
const TRUNC: &str = "0.01";

/// Maximum amount in coins: more than the supply of any supported coin.
const TOTAL_MAX: f64 = 1e8;

pub(super) async fn no_total() -> Response {
    text("need total argument. go to patron_sendmany/<TOTAL>".to_owned())
}

pub(super) async fn sendmany(State(sources): State<Sources>, Path(total): Path<String>) -> Answer {
    answer(&sources, &total, TRUNC)
}

pub(super) async fn sendmany_without_dust(
    State(sources): State<Sources>,
    Path((total, trunc)): Path<(String, String)>,
) -> Answer {
    answer(&sources, &total, &trunc)
}

fn answer(sources: &Sources, total: &str, trunc: &str) -> Answer {
    let (total, trunc) = (satoshis(total).ok_or(Failed)?, satoshis(trunc).ok_or(Failed)?);
    let payouts = &newest(sources).payouts;
    let divided = divide(payouts, total, trunc, &mut |bound| fastrand::u64(..bound));
    let shown: BTreeMap<&Payee, f64> = divided.iter().map(|(payee, amount)| (*payee, coins(*amount))).collect();
    Ok(text(serde_json::to_string(&shown).map_err(|_| Failed)?))
}

/// Parses coins in a path.
fn satoshis(coins: &str) -> Option<u64> {
    let coins: f64 = coins.parse().ok().filter(|coins| (0.0..=TOTAL_MAX).contains(coins))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    let satoshis = (coins * COIN) as u64;
    Some(satoshis)
}

/// Divides `total` in proportion to `payouts`; parts below `trunc` go to one of their payees, drawn in proportion to
/// its part. `draw` returns a random number below its argument.
fn divide<'a>(
    payouts: &'a BTreeMap<Payee, u64>,
    total: u64,
    trunc: u64,
    draw: &mut dyn FnMut(u64) -> u64,
) -> BTreeMap<&'a Payee, u64> {
    let sum: u128 = payouts.values().map(|amount| u128::from(*amount)).sum();
    if sum == 0 {
        return BTreeMap::new();
    }
    // No part exceeds `total`.
    let part = |amount: u64| u64::try_from(u128::from(amount) * u128::from(total) / sum).unwrap_or(total);
    let mut divided: BTreeMap<&Payee, u64> = payouts.iter().map(|(payee, amount)| (payee, part(*amount))).collect();
    let small: BTreeMap<&Payee, u64> = divided.iter().filter(|(_, a)| **a < trunc).map(|(p, a)| (*p, *a)).collect();
    let lot: u64 = small.values().sum();
    if let Some(winner) = drawn(&small, draw) {
        divided.retain(|payee, _| !small.contains_key(payee));
        divided.insert(winner, lot);
    }
    let rest = total.saturating_sub(divided.values().sum());
    if rest > 0
        && let Some(winner) = drawn(&divided, draw)
    {
        *divided.entry(winner).or_default() += rest;
    }
    divided
}

/// Draws one of `amounts` in proportion to its size; `None` if their sum is zero.
fn drawn<'a>(amounts: &BTreeMap<&'a Payee, u64>, draw: &mut dyn FnMut(u64) -> u64) -> Option<&'a Payee> {
    let sum: u64 = amounts.values().sum();
    let mut left = if sum > 0 { draw(sum) } else { return None };
    for (payee, amount) in amounts {
        match left.checked_sub(*amount) {
            Some(rest) => left = rest,
            None => return Some(payee),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payee(number: u8) -> Payee {
        Payee::from_versioned_hash(&[number; 20], 111)
    }

    #[test]
    fn an_amount_is_divided_as_a_block_would_be_and_dust_is_drawn_for() {
        let payouts = BTreeMap::from([(payee(1), 600), (payee(2), 397), (payee(3), 2), (payee(4), 1)]);
        let divided = divide(&payouts, 10_000, 100, &mut |_| 0);
        assert_eq!(divided.values().sum::<u64>(), 10_000);
        assert_eq!((divided[&payee(1)], divided[&payee(2)]), (6000, 3970));
        assert_eq!(divided.len(), 3, "one of the two small payees gets both parts: {divided:?}");
        assert_eq!(divide(&payouts, 10_000, 0, &mut |_| 0).len(), 4);
        assert!(divide(&BTreeMap::new(), 10_000, 0, &mut |_| 0).is_empty());
    }

    #[test]
    fn amounts_that_are_none_are_refused() {
        assert_eq!(satoshis("0.01"), Some(1_000_000));
        assert_eq!(satoshis("1e3"), Some(100_000_000_000));
        for odd in ["", "x", "-1", "nan", "inf", "1e9", "1,5"] {
            assert_eq!(satoshis(odd), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_is_made(
            amounts in prop::collection::vec(0u64..5_000_000_000, 1..40),
            total in 0u64..10_000_000_000_000_000,
            trunc in 0u64..1_000_000_000,
            seed: u64,
        ) {
            let payouts: BTreeMap<Payee, u64> =
                amounts.iter().enumerate().map(|(number, amount)| (payee(u8::try_from(number).unwrap()), *amount)).collect();
            let mut random = fastrand::Rng::with_seed(seed);
            let divided = divide(&payouts, total, trunc, &mut |bound| random.u64(..bound));
            let wanted = if amounts.iter().all(|amount| *amount == 0) { 0 } else { total };
            prop_assert_eq!(divided.values().sum::<u64>(), wanted);
        }
    }
}
