//! A found block of a merged chain survives the end of the process.

use p2pool::embedded::auxiliary::{Calls, Fault};
use test_support::{Bitcoind, StratumClient, wait_until};

use crate::daemons::Auxes;
use crate::{EVERY_HASH, LIMIT, every_hash, job_for, miner_name, solve, start, submit_easy, wait_for_standing};

#[test]
fn a_node_killed_between_solution_and_submission_submits_the_block_when_it_is_back() {
    let auxes = Auxes::new();
    let chain = auxes.start("aux", 1, EVERY_HASH);
    let daemon = Bitcoind::start();
    let mut node = start(&daemon, &[&chain]);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let job = job_for(&mut miner, &[&chain]);
    let created = chain.created();
    chain.faults().set(Calls::Submissions, Fault::Hang);
    submit_easy(&mut miner, &user, &solve(&job, every_hash(), false));
    let folder = node.data_dir().join("bitcoin_regtest").join("merged").join("aux").join("found_blocks");
    let is_kept = || {
        std::fs::read_dir(&folder).is_ok_and(|mut files| {
            files.any(|file| file.unwrap().path().extension().is_some_and(|state| state == "block"))
        })
    };
    wait_until("the block is on disk", LIMIT, is_kept);
    node.kill9();
    assert_eq!(chain.height(), 0);
    chain.faults().clear();
    node.restart();
    chain.wait_for_height(1);
    assert_eq!(chain.tip(), created);
    wait_for_standing(&node, &chain, created, "confirming");
    wait_until("nothing waits to be submitted", LIMIT, || !is_kept());
}

#[test]
fn a_block_is_offered_until_its_daemon_is_back() {
    let auxes = Auxes::new();
    let chain = auxes.start("aux", 1, EVERY_HASH);
    let daemon = Bitcoind::start();
    let node = start(&daemon, &[&chain]);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let job = job_for(&mut miner, &[&chain]);
    let created = chain.created();
    chain.faults().set_all(&Fault::Disconnect);
    submit_easy(&mut miner, &user, &solve(&job, every_hash(), false));
    wait_until("it was offered", LIMIT, || chain.daemon().calls("submitauxblock") > 1);
    assert_eq!(chain.height(), 0);
    chain.faults().clear();
    chain.wait_for_height(1);
    assert_eq!(chain.tip(), created);
    wait_for_standing(&node, &chain, created, "confirming");
}
