//! A template of Litecoin's daemon with an extension block: what its block needs, and what a large coinbase leaves out.

use super::support::{json, list_of, ran, str_of};
use p2pool::bitcoind::responses::BlockTemplate;
use p2pool::template::{BLOCK_WEIGHT_MAX, Room, Selection, Template};
use sharechain::coin::LITECOIN_REGTEST;
use std::sync::Arc;

const FILE: &str = "litecoin_template.json";

fn template() -> Arc<Template> {
    let answer: BlockTemplate = serde_json::from_value(json(FILE)).unwrap();
    // Checks the daemon's witness commitment against ours, with HogEx as one of the leaves.
    Arc::new(answer.into_template(LITECOIN_REGTEST.known_rules, BLOCK_WEIGHT_MAX).unwrap())
}

#[test]
fn a_block_of_litecoin_keeps_its_peg_ins_and_loses_the_cheapest_with_all_that_spend_them() {
    let recorded = json(FILE);
    let listed = list_of(&recorded["transactions"]);
    let template = template();
    let count = template.transactions.len();
    assert_eq!(count, listed.len());
    assert_eq!(template.suffix[0], 1);
    assert_eq!(hex::encode(&template.suffix[1..]), str_of(&recorded["mweb"]));
    // Two peg-ins, the second with a parent, and HogEx.
    let pinned = [3, 4, 5, 10];
    let weight: u64 = pinned.iter().map(|index| template.transactions[*index].weight).sum();
    assert_eq!(template.pinned().map(|room| room.weight), Some(weight));
    // The first two pay next to nothing, but the third pays for them: the others, which pay the same, go from the last.
    let cases = [
        (3_993_000, vec![]),
        (3_994_000, vec![9]),
        (3_995_000, vec![7, 8, 9]),
        (3_996_000, vec![6, 7, 8, 9]),
        (3_997_000, vec![0, 1, 2, 6, 7, 8, 9]),
    ];
    for (weight, left_out) in &cases {
        let room = Room { weight: *weight, sigops: 100 };
        let kept = template.fitting(room).unwrap();
        assert_eq!(kept, Selection::Without(left_out.clone().into()), "beside a coinbase of {weight}");
        let block = template.keeping(&kept);
        assert!(block.used().weight + weight <= template.room().weight);
        for index in (0..count).filter(|index| kept.has(*index)) {
            let mut depends = list_of(&listed[index]["depends"]).iter().map(|one| one.as_u64().unwrap());
            assert!(depends.all(|parent| kept.has(usize::try_from(parent).unwrap() - 1)), "{index}");
        }
        let fees = |index: &usize| listed[*index]["fee"].as_u64().unwrap();
        assert_eq!(block.coinbase_value + left_out.iter().map(fees).sum::<u64>(), template.coinbase_value);
        assert_eq!(block.suffix, template.suffix);
    }
    assert!(template.fitting(Room { weight: 3_998_000, sigops: 100 }).is_err());
    ran(FILE, "transactions", count);
    ran(FILE, "coinbases", cases.len());
}
