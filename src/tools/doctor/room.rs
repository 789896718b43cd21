//! The doctor's look at a template: the room that it leaves for the coinbase of a pool.

use sharechain::coin::Network;

use super::Check;
use crate::template::Template;
use crate::view::http::api::Payouts;
use crate::work::{Payout, room};

/// Number of payees assumed without a running node.
const PAYEES_ASSUMED: usize = 300;

/// Size of the largest script that most payees have, in bytes: that of a P2PKH address.
const SCRIPT_BYTES: usize = 25;

const NAME: &str = "coinbase room";

/// Payees of the next block.
#[derive(Debug)]
pub(super) struct Payees {
    /// Sizes of their scripts, in bytes.
    scripts: Vec<usize>,
    /// True if no running node named them.
    are_assumed: bool,
}

impl Payees {
    /// Those of a running node's payouts, if there are any.
    pub(super) fn new(payouts: Option<&Payouts>, network: &'static Network) -> Self {
        let listed = payouts.map(|all| all.payouts.as_slice()).unwrap_or_default();
        let size = |address: &str| Payout::to_address(address, network).map_or(SCRIPT_BYTES, |one| one.script.len());
        let mut scripts: Vec<usize> = listed.iter().map(|payout| size(&payout.address)).collect();
        let are_assumed = payouts.is_none_or(|all| all.total == 0);
        let count = payouts.map(|all| all.total).filter(|count| *count > 0).unwrap_or(PAYEES_ASSUMED);
        scripts.resize(count.max(scripts.len()), SCRIPT_BYTES);
        Self { scripts, are_assumed }
    }
}

/// Checks that the template leaves room for the coinbase of a pool; otherwise transactions are left out.
pub(super) fn coinbase_room(template: &Template, payees: &Payees) -> Check {
    let needed = room::expected(payees.scripts.iter().copied());
    let count = payees.scripts.len();
    let who = if payees.are_assumed { format!("a pool of {count} payees") } else { format!("{count} payees") };
    let left = template.room().without(template.used());
    let mut text = format!("{} weight units left, {who} need {}", left.weight, needed.weight);
    if let Some(pinned) = template.pinned() {
        let rest = template.room().without(pinned);
        let fit = room::payees_within(rest, SCRIPT_BYTES);
        text = format!(
            "{text}; the extension block needs transactions of {} weight units, which leaves {} for payouts at most: \
             {fit} payees",
            pinned.weight, rest.weight
        );
    }
    let limit = format!("-blockmaxweight={}", needed.block_weight_max(template.weight_max));
    let advice = match template.pinned() {
        Some(_) => format!("let litecoind leave the room: {limit}"),
        None => format!(
            "let bitcoind reserve the weight: -blockreservedweight={} (from version 29), or {limit}",
            needed.weight
        ),
    };
    let kept = match template.fitting(needed) {
        Ok(kept) => kept,
        Err(error) => return Check::bad(NAME, format!("{text}: no block can be made: {error}"), advice),
    };
    let fees: Vec<u64> = template.left_out(&kept).map(|one| one.fee).collect();
    if fees.is_empty() {
        return Check::ok(NAME, text);
    }
    let sum = fees.iter().fold(0_u64, |sum, fee| sum.saturating_add(*fee));
    let text = format!("{text}: {} transactions with {sum} satoshis of fees are left out of blocks", fees.len());
    Check::warning(NAME, text, advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::testing::{spending, with_extension};
    use crate::template::tests::{RULES, parts};
    use crate::template::{BLOCK_WEIGHT_MAX, TemplateParts, TemplateTransaction};
    use crate::tools::doctor::State;
    use crate::view::http::api;
    use sharechain::coin::BITCOIN_REGTEST;

    fn payouts(addresses: &[&str], total: usize) -> Payouts {
        let payout = |address: &&str| api::Payout { address: (*address).to_owned(), ..api::Payout::default() };
        Payouts { total, payouts: addresses.iter().map(payout).collect(), ..Payouts::default() }
    }

    fn check(parts: TemplateParts, payees: &Payees) -> (State, String, String) {
        let check = coinbase_room(&Template::new(parts, RULES).unwrap(), payees);
        (check.state, check.text, check.advice.unwrap_or_default())
    }

    fn weighing(weight: u64) -> TemplateTransaction {
        spending(0, &[], 700, weight)
    }

    #[test]
    fn payees_count_with_their_own_scripts_and_assumed_ones_are_called_so() {
        let [key, short] = ["mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"];
        let of = |payouts: &Payouts| Payees::new(Some(payouts), &BITCOIN_REGTEST);
        assert_eq!(of(&payouts(&[key, short, "unknown"], 5)).scripts, [25, 22, 25, 25, 25]);
        assert!(!of(&payouts(&[key], 1)).are_assumed);
        for assumed in [of(&payouts(&[], 0)), Payees::new(None, &BITCOIN_REGTEST)] {
            assert!(assumed.are_assumed && assumed.scripts.len() == PAYEES_ASSUMED);
        }
        let (state, text, _) = check(parts(), &of(&payouts(&[key], 1)));
        assert_eq!(state, State::Ok);
        assert!(text.starts_with("3999660 weight units left, 1 payees need "), "{text}");
    }

    #[test]
    fn a_full_template_costs_its_last_transactions_and_the_option_that_prevents_it_is_named() {
        let parts = TemplateParts { transactions: vec![weighing(BLOCK_WEIGHT_MAX - 4000)], ..parts() };
        let (state, text, advice) = check(parts, &Payees::new(None, &BITCOIN_REGTEST));
        let needed = room::expected([SCRIPT_BYTES; PAYEES_ASSUMED]).weight;
        assert_eq!(state, State::Warning);
        assert!(text.contains("3660 weight units left, a pool of 300 payees need"), "{text}");
        assert!(text.ends_with("1 transactions with 700 satoshis of fees are left out of blocks"), "{text}");
        assert!(advice.contains(&format!("-blockreservedweight={needed}")), "{advice}");
    }

    #[test]
    fn with_an_extension_block_what_it_pins_is_reported_and_too_much_of_it_is_bad() {
        let with = |peg_in: u64, other: u64| {
            let peg_in = TemplateTransaction { fee: 0, ..weighing(peg_in) };
            let txid = peg_in.txid;
            let parts = with_extension(vec![peg_in, spending(1, &[], 900, other)], &[txid]);
            check(parts, &Payees::new(None, &BITCOIN_REGTEST))
        };
        let needed = room::expected([SCRIPT_BYTES; PAYEES_ASSUMED]).weight;
        let option = format!("-blockmaxweight={}", BLOCK_WEIGHT_MAX - needed);
        let (state, text, advice) = with(1_000_000, 1_000_000);
        assert_eq!((state, &*advice), (State::Ok, ""));
        let pinned = Template::new(with_extension(vec![weighing(1)], &[weighing(1).txid]), RULES).unwrap().pinned();
        let pinned = pinned.map_or(0, |room| room.weight) + 999_999;
        assert!(text.contains(&format!("needs transactions of {pinned} weight units")), "{text}");
        let (state, text, advice) = with(1_000_000, 2_990_000);
        assert_eq!(state, State::Warning);
        assert!(text.ends_with("1 transactions with 900 satoshis of fees are left out of blocks"), "{text}");
        assert!(advice.ends_with(&option) && !advice.contains("reserved"), "{advice}");
        let (state, text, advice) = with(BLOCK_WEIGHT_MAX - 4000, 400);
        assert_eq!(state, State::Bad);
        assert!(text.contains(": 11 payees: no block can be made: no room for the coinbase"), "{text}");
        assert!(advice.ends_with(&option), "{advice}");
    }
}
