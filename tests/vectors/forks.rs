//! Bookkeeping of the share forest, and decisions of a node that had mined apart from its peer.

use serde_json::{Value, json};
use sharechain::chain::{Forest, Sharechain, Work};
use sharechain::share::{Share, ShareHash};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chains::{hash_of, network_of, share_of};
use super::support::{json as file_of, list_of, ran, str_of};

/// The vectors' shares are small numbers.
fn number(value: &Value) -> Option<ShareHash> {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&value.as_u64()?.to_le_bytes());
    Some(ShareHash(digest))
}

fn show(hash: Option<ShareHash>) -> Value {
    hash.map_or(Value::Null, |hash| u64::from_le_bytes(hash.0[..8].try_into().unwrap()).into())
}

#[test]
fn heads_tails_and_heights_are_those_of_the_reference_after_every_step() {
    let forests = file_of("forest.json");
    let (mut steps, mut pairs) = (0, 0);
    for case in list_of(&forests) {
        let mut forest = Forest::default();
        for step in list_of(&case["ops"]) {
            let hash = number(&step["hash"]).unwrap();
            match str_of(&step["op"]) {
                "add" => assert!(forest.insert(hash, number(&step["prev"]), Work::default())),
                "remove_head" => forest.remove(hash).unwrap(),
                other => panic!("unknown step {other}"),
            }
            let heads: BTreeMap<String, Value> =
                forest.heads().iter().map(|head| (show(Some(*head)).to_string(), show(forest.last(*head)))).collect();
            assert_eq!(json!(heads), step["heads"]);
            let tails: BTreeMap<String, Vec<Value>> = forest
                .tails()
                .into_iter()
                .map(|(tail, heads)| (show(tail).to_string(), heads.into_iter().map(|head| show(Some(head))).collect()))
                .collect();
            let wanted: BTreeMap<String, Vec<Value>> =
                list_of(&step["tails"]).iter().map(|pair| (pair[0].to_string(), list_of(&pair[1]).to_vec())).collect();
            assert_eq!(tails, wanted);
            for triple in list_of(&step["hl"]) {
                let (height, last) = forest.height_and_last(number(&triple[0]).unwrap());
                assert_eq!(json!([height, show(last)]), json!([triple[1], triple[2]]));
            }
            assert_eq!(list_of(&step["hl"]).len(), forest.len());
            steps += 1;
        }
        for triple in list_of(&case["is_child_of"]) {
            let is_ancestor = forest.is_ancestor(number(&triple[0]).unwrap(), number(&triple[1]).unwrap());
            assert_eq!(json!(is_ancestor), triple[2]);
            pairs += 1;
        }
    }
    ran("forest.json", "ops", steps);
    ran("forest.json", "is_child_of", pairs);
}

/// Adds those of the first `count` shares in arrival order that are missing.
fn arrive(chain: &mut Sharechain, file: &Value, order: &[Value], from: usize, count: usize) {
    for arrival in order.iter().take(count).skip(from) {
        let share: Arc<Share> = share_of(chain, &file["raw"][str_of(&arrival["hash"])]);
        // The reference's heights are those of the blocks that its own shares were built on.
        if let Some(block) = share.contents().min_header.previous_block {
            let height = &file["block_heights"][ShareHash(block).to_string()];
            if let Some(height) = height.as_u64().and_then(|height| u32::try_from(height).ok()) {
                let facts = chain.facts_mut();
                facts.heights.insert(block, height);
                facts.best_height = facts.best_height.max(height);
            }
        }
        assert!(chain.add(share, None, arrival["t"].as_f64().unwrap()));
    }
}

#[test]
fn a_node_that_rejoins_its_peer_chooses_as_the_reference_did_at_every_moment() {
    let file = file_of("fork35_best_share_A.json");
    let node = &file["nodes"]["A"];
    let order = list_of(&node["order"]);
    let mut chain = Sharechain::new(network_of(&file));
    let (mut added, mut checked, mut live) = (0, 0, 0);
    // Both kinds of events by time; a live choice precedes a checkpoint of the same time.
    let mut moments: Vec<(f64, Result<&Value, &Value>)> = Vec::new();
    moments.extend(list_of(&node["live_best_events"]).iter().map(|event| (event[0].as_f64().unwrap(), Err(&event[1]))));
    moments.extend(list_of(&node["checkpoints"]).iter().map(|point| (point["t"].as_f64().unwrap(), Ok(point))));
    moments.sort_by(|one, other| one.0.total_cmp(&other.0));
    for (now, moment) in moments {
        let checkpoint = match moment {
            Ok(checkpoint) => checkpoint,
            Err(best) => {
                let arrived = order.iter().take_while(|arrival| arrival["t"].as_f64().unwrap() <= now).count();
                arrive(&mut chain, &file, order, added, arrived);
                added = added.max(arrived);
                let chosen = chain.think(now).best;
                assert_eq!(chosen, hash_of(best), "live at {now}");
                live += 1;
                continue;
            }
        };
        let arrived = usize::try_from(checkpoint["n_added"].as_u64().unwrap()).unwrap();
        arrive(&mut chain, &file, order, added, arrived);
        added = added.max(arrived);
        assert_eq!(u64::from(chain.facts_mut().best_height), checkpoint["max_block_height"].as_u64().unwrap());
        let choice = chain.think(now).clone();
        assert_eq!(choice.best, hash_of(&checkpoint["best"]), "at {now}");
        let best = choice.best.unwrap();
        assert_eq!(u64::from(chain.all().height(best)), checkpoint["best_height"].as_u64().unwrap());
        assert_eq!(chain.all().work(best).own.to_string(), str_of(&checkpoint["best_work"]));
        let heads: Vec<Value> = choice
            .heads
            .iter()
            .map(|head| {
                json!({
                    "adj_work": head.work.to_decimal(), "hash": head.hash.to_string(),
                    "neg_punish": -head.punishment, "neg_time_seen": -head.first_seen,
                })
            })
            .collect();
        assert_eq!(json!(heads), checkpoint["heads"], "at {now}");
        assert_eq!(json!(choice.punish_aggressively != 0), checkpoint["punish_aggressively"]);
        let score = chain.tail_score().unwrap();
        let wanted = list_of(&checkpoint["tail_score"]);
        assert_eq!(score.height.to_string(), str_of(&wanted[0]));
        assert_eq!(score.rate, str_of(&wanted[1]).parse().ok());
        let tails: BTreeSet<String> =
            chain.all().tails().into_keys().map(|tail| tail.map_or("null".into(), |tail| tail.to_string())).collect();
        let wanted: BTreeSet<String> =
            list_of(&checkpoint["tails"]).iter().map(|tail| str_of(tail).to_owned()).collect();
        assert_eq!(tails, wanted);
        let desired: BTreeSet<String> = choice.wanted.iter().map(|wanted| wanted.hash.to_string()).collect();
        assert_eq!(desired.len(), list_of(&checkpoint["desired"]).len(), "{desired:?} {}", checkpoint["desired"]);
        assert!(
            checkpoint["desired"].to_string().is_empty()
                || desired.iter().all(|hash| checkpoint["desired"].to_string().contains(hash))
        );
        assert_eq!(chain.all().heads().len() as u64, checkpoint["n_heads"].as_u64().unwrap());
        assert_eq!(chain.verified().len() as u64, checkpoint["n_verified"].as_u64().unwrap(), "at {now}");
        checked += 1;
    }
    assert_eq!(chain.choice().best, hash_of(&node["final_best"]));
    ran("fork35_best_share_A.json", "checkpoints", checked);
    ran("fork35_best_share_A.json", "live_best_events", live);
}
