//! The ratchet against histories of the fork's.

use serde_json::{Value, json};
use sharechain::chain::{Ratchet, RatchetInput, RatchetState};
use sharechain::share::{ShareVersion, Target};
use std::collections::BTreeMap;

use crate::vectors::support::{bytes_of, json, list_of, number_of, ran, str_of};

/// Rows in which ours makes another version than the fork's: 36 after 35 although no node accepts that (protocol-v36
/// trap 13).
const REFUSED_36: [(&str, std::ops::Range<usize>); 3] = [
    ("votes lost after confirmation", 141..142),
    ("confirmed, a chain that votes 35", 1..20),
    ("activated, a short chain", 1..2),
];

/// First row in which ours is confirmed on a pruned chain, and the fork's never is (protocol-v36 trap 14).
const CONFIRMED_WHEN_PRUNED: (&str, usize) = ("pruned at 2*CL+10", 60);

/// Vote, version and work of a share.
type Row = (u64, u64, u128);

fn input(shares: &[Row], kept: usize, chain_length: u32, absheight_of: impl Fn(usize) -> usize) -> RatchetInput {
    let all = &shares[shares.len().saturating_sub(kept)..];
    let (length, count) = (chain_length as usize, |number: usize| u32::try_from(number).unwrap());
    let window: Vec<&Row> = all.iter().rev().take(length).collect();
    let tenth: Vec<&Row> = all.iter().rev().skip(length * 9 / 10).take(length / 10).collect();
    let for_36: u128 = tenth.iter().filter(|(vote, ..)| *vote == 36).map(|(.., work)| work).sum();
    let total: u128 = tenth.iter().map(|(.., work)| work).sum();
    RatchetInput {
        height: count(all.len()),
        absheight: count(absheight_of(all.len())),
        chain_length,
        votes: count(window.iter().filter(|(vote, ..)| *vote >= 36).count()),
        shares: count(window.iter().filter(|(_, version, _)| *version >= 36).count()),
        origins: 2,
        work_test: all.len() >= length && for_36 * 100 >= total * 60,
        parent: all.last().map(|(_, version, _)| ShareVersion::from_number(*version).unwrap()),
    }
}

fn word(state: RatchetState) -> Value {
    serde_json::to_value(state).unwrap()
}

/// Average number of hashes for a target.
fn work_of(target: &Value) -> u128 {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&bytes_of(target));
    u128::try_from(Target::from_be_bytes(&bytes).attempts().0).unwrap()
}

/// A history's rows as ours gives them: version, vote, state, count. By height in memory, or by absheight.
fn ours(case: &Value, targets: &[u128], by_absheight: bool) -> Vec<Value> {
    let chain_length = u32::try_from(case["chain_length"].as_u64().unwrap()).unwrap();
    let kept = case["kept_shares"].as_u64().map_or(usize::MAX, |kept| usize::try_from(kept).unwrap());
    let mut ratchet = Ratchet::from_json(&json!({ "state": case["initial_state"] }).to_string()).unwrap();
    let mut shares: Vec<Row> = Vec::new();
    let mut rows = Vec::new();
    for row in list_of(&case["rows"]) {
        let added = shares.len();
        let input = input(&shares, kept, chain_length, |in_memory| if by_absheight { added } else { in_memory });
        let decision = ratchet.next(&input, 1);
        rows.push(json!([decision.version.number(), 36, word(ratchet.state()), ratchet.confirm_count()]));
        let number = |column: usize| u64::try_from(number_of(&row[column])).unwrap();
        shares.push((number(4), number(5), targets[usize::try_from(number(6)).unwrap()]));
    }
    rows
}

#[test]
fn decisions_are_the_forks_except_where_it_makes_invalid_shares() {
    let file = json("auto_ratchet.json");
    let targets: Vec<u128> = list_of(&file["targets"]).iter().map(work_of).collect();
    let refused: BTreeMap<_, _> = REFUSED_36.into_iter().collect();
    for case in list_of(&file["cases"]) {
        let name = str_of(&case["name"]);
        let rows = ours(case, &targets, false);
        for (number, (row, ours)) in list_of(&case["rows"]).iter().zip(&rows).enumerate() {
            let mut wanted = json!(list_of(row)[..4]);
            if refused.get(name).is_some_and(|rows| rows.contains(&number)) {
                assert_eq!(wanted[0], 36);
                wanted[0] = json!(35);
            }
            assert_eq!(*ours, wanted, "{name}, row {number}");
        }

        // By absheight, only a pruned chain's count is another, and the versions are the same.
        for (number, (of_memory, ours)) in rows.iter().zip(self::ours(case, &targets, true)).enumerate() {
            let (pruned, from) = CONFIRMED_WHEN_PRUNED;
            let mut wanted = of_memory.clone();
            if name == pruned && number > 50 {
                wanted[3] = json!(number.min(from) - 20);
                wanted[2] = json!(if number < from { "activated" } else { "confirmed" });
            }
            assert_eq!(ours, wanted, "{name}, row {number}");
        }
    }
    ran("auto_ratchet.json", "histories", list_of(&file["cases"]).len());
}
