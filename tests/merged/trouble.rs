//! A daemon of a merged chain that is gone, slow, broken or lying costs its own chain only.

use p2pool::embedded::auxiliary::{Calls, Fault};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use test_support::{Bitcoind, Node, StratumClient, metric_value, payout_address, wait_until};

use crate::daemons::{Aux, Auxes};
use crate::{
    EVERY_HASH, LIMIT, commitment, every_hash, job_for, miner_name, solve, start, submit_easy, wait_for_standing,
};

/// What `/api/v1/merged` says of a chain.
fn shown(node: &Node, name: &str) -> Value {
    let answer: Value = serde_json::from_str(&node.get("/api/v1/merged").body).unwrap();
    answer["chains"].as_array().unwrap().iter().find(|chain| chain["name"] == name).unwrap().clone()
}

/// Mines a block of the parent, and checks that it took no longer than usual.
fn mine_parent(daemon: &Bitcoind, miner: &mut StratumClient) {
    let tip = daemon.best_block_hash();
    let job = miner.try_wait_for_job(|job| job.previous_block_hash() == tip, Duration::from_secs(20)).unwrap();
    let found = job.solve_block();
    assert_eq!(miner.submit(&miner_name(1), &found), Ok(true));
    wait_until("the parent's block is there", Duration::from_secs(20), || daemon.best_block_hash() == found.hash);
}

#[test]
fn the_parent_is_mined_on_whatever_a_merged_daemon_does() {
    let auxes = Auxes::new();
    let (good, bad) = (auxes.start("good", 1, EVERY_HASH), auxes.start("bad", 2, EVERY_HASH));
    let daemon = Bitcoind::start();
    let node = start(&daemon, &[&good, &bad]);
    let mut miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    job_for(&mut miner, &[&good, &bad]);
    let faults = [
        Fault::Hang,
        Fault::Disconnect,
        Fault::Status(500),
        Fault::warming_up(),
        Fault::Body(b"{\"result\":".to_vec()),
        Fault::HalfAnswer,
        Fault::Huge(100_000_000),
        Fault::Result(json!("none")),
        Fault::Result(json!({"chainid": 2, "hash": "ab", "target": "ff"})),
        Fault::Field("hash", json!("zz".repeat(32))),
        Fault::Field("chainid", json!(1)),
        Fault::Field("chainid", json!(-1)),
        Fault::target_zero("_target"),
        Fault::Without("_target"),
    ];
    for fault in faults {
        bad.faults().set_all(&fault);
        let before = good.height();
        mine_parent(&daemon, &mut miner);
        wait_until("the other chain goes on", LIMIT, || {
            let Ok(job) = miner.try_wait_for_job(|job| commitment(&job.coinbase_start).is_some(), LIMIT) else {
                return false;
            };
            let _ = miner.submit(&miner_name(1), &solve(&job, every_hash(), false));
            good.height() > before
        });
    }
    bad.faults().clear();
    let before = bad.height();
    wait_until("the chain is mined again", LIMIT, || {
        let job = miner.job();
        let _ = miner.submit(&miner_name(1), &solve(&job, every_hash(), false));
        miner.poll();
        bad.height() > before
    });
    assert!(node.memory_peak() < 400_000_000, "{} bytes", node.memory_peak());
}

#[test]
fn the_last_work_of_a_daemon_that_is_gone_is_used_and_shown_as_such() {
    let auxes = Auxes::new();
    let chain = auxes.start("aux", 1, EVERY_HASH);
    let daemon = Bitcoind::start();
    let node = start(&daemon, &[&chain]);
    let mut miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    job_for(&mut miner, &[&chain]);
    wait_until("it is mined", LIMIT, || shown(&node, "aux")["state"] == "mining");
    assert_eq!(shown(&node, "aux")["payee"], json!(chain.payee()));
    chain.close();
    wait_until("its trouble is shown", LIMIT, || shown(&node, "aux")["state"] == "waiting");
    assert!(shown(&node, "aux")["trouble"].as_str().unwrap().contains("aux"));
    mine_parent(&daemon, &mut miner);
    let tip = daemon.best_block_hash();
    let job = miner.wait_for_job(|job| job.previous_block_hash() == tip);
    assert!(commitment(&job.coinbase_start).is_some(), "its last work is still valid");
    assert_eq!(metric_value(&node.metrics(), "merged_up{chain=\"aux\""), Some(0.0));
    assert_eq!(node.get("/health").status, 200, "the node is healthy");
    chain.open();
    wait_until("it is mined again", LIMIT, || shown(&node, "aux")["state"] == "mining");
    assert_eq!(metric_value(&node.metrics(), "merged_up{chain=\"aux\""), Some(1.0));
}

/// Finds one block of `chain` under `fault` of its submissions.
fn find_one(node: &Node, chain: &Aux) -> bitcoin::BlockHash {
    let mut miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    let job = job_for(&mut miner, &[chain]);
    let created = chain.created();
    submit_easy(&mut miner, &miner_name(1), &solve(&job, every_hash(), false));
    created
}

#[test]
fn only_a_block_that_its_daemon_has_counts_as_accepted() {
    let auxes = Auxes::new();
    let chain = auxes.start("aux", 1, EVERY_HASH);
    let daemon = Bitcoind::start();
    let node = start(&daemon, &[&chain]);
    // `false` of a daemon that does not have the block is a rejection.
    chain.faults().set(Calls::Submissions, Fault::Result(json!(false)));
    let refused = find_one(&node, &chain);
    let record = wait_for_standing(&node, &chain, refused, "rejected");
    assert!(record["verdict"]["reason"].as_str().unwrap().contains("false"), "{record}");
    // Neither of these says that it has the block.
    for answer in [json!("inconclusive"), json!("duplicate"), Value::Null] {
        chain.faults().clear();
        chain.mine(1);
        chain.faults().set(Calls::Submissions, Fault::Result(answer.clone()));
        let hash = find_one(&node, &chain);
        wait_until("it was offered", LIMIT, || crate::record(&node, &chain, hash).is_some());
        std::thread::sleep(Duration::from_secs(2));
        let standing = crate::record(&node, &chain, hash).unwrap()["standing"].clone();
        assert!(standing != "confirming" && standing != "mature", "{answer}: {standing}");
        chain.faults().clear();
        if standing != "rejected" {
            wait_for_standing(&node, &chain, hash, "confirming");
        }
    }
    // An error after the block was taken is no failure.
    chain.mine(1);
    chain.faults().set_after(Calls::Submissions, Fault::Disconnect);
    let taken = find_one(&node, &chain);
    wait_for_standing(&node, &chain, taken, "confirming");
}

#[test]
fn a_trivial_target_does_not_lower_the_difficulty_below_the_ports_minimum_and_is_shown() {
    let auxes = Auxes::new();
    let chain = auxes.start("easy", 1, EVERY_HASH);
    let daemon = Bitcoind::start();
    let node = start(&daemon, &[&chain]);
    // Without a fixed difficulty.
    let mut miner = StratumClient::ready(node.worker_port(), &payout_address(1).to_string());
    let job = job_for(&mut miner, &[&chain]);
    assert!(job.difficulty > 0.0);
    wait_until("it is shown", LIMIT, || {
        shown(&node, "easy")["trouble"].as_str().is_some_and(|text| text.contains("minimum"))
    });
    assert_eq!(shown(&node, "easy")["state"], "mining");
}

#[test]
fn two_chains_of_one_number_are_not_mined_together_and_the_second_is_left_out() {
    let auxes = Auxes::new();
    let (first, second) = (auxes.start("first", 7, EVERY_HASH), auxes.start("second", 7, EVERY_HASH));
    let daemon = Bitcoind::start();
    let node = start(&daemon, &[&first, &second]);
    let mut miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    job_for(&mut miner, &[&first]);
    wait_until("it is shown", LIMIT, || shown(&node, "second")["state"] == "left_out");
    assert!(shown(&node, "second")["trouble"].as_str().unwrap().contains('7'));
    assert_eq!(shown(&node, "first")["state"], "mining");
}

#[test]
fn a_start_does_not_wait_for_a_merged_daemon() {
    let auxes = Auxes::new();
    let chain = auxes.start("aux", 1, EVERY_HASH);
    chain.faults().set_all(&Fault::Hang);
    let daemon = Bitcoind::start();
    let begin = Instant::now();
    let node = start(&daemon, &[&chain]);
    let mut miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    mine_parent(&daemon, &mut miner);
    assert!(begin.elapsed() < LIMIT);
    chain.faults().clear();
    chain.close();
    chain.open();
    job_for(&mut miner, &[&chain]);
}
