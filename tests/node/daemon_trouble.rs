//! Crashes and outages of the node and its daemon: no found block is lost, and no miner works on stale jobs for long.

use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use test_support::{
    Bitcoind, Fault, HttpProxy, Node, NodeBuilder, StratumClient, TcpProxy, mine_blocks, payout_address, wait_until,
};

use crate::doors::{solved_getwork, submit_nameless};
use crate::{P2POOL, job_on_tip, mine_one, miner_name, wait_for_best};

#[test]
fn a_block_found_just_before_a_crash_lands_after_the_restart() {
    let mut daemon = Bitcoind::start();
    mine_blocks(&daemon, 1, &payout_address(9).script_pubkey());
    // An orderly stop writes that block to disk; the kill below would lose it, and ours builds on it.
    daemon.stop();
    daemon.restart();
    let mut node = Node::start(P2POOL, &daemon);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let found = job_on_tip(&mut miner, &daemon).solve_block();
    daemon.pause();
    assert_eq!(miner.submit(&user, &found), Ok(true));
    wait_until("the block is on disk", Duration::from_secs(5), || !node.found_blocks("block").is_empty());
    node.kill9();
    // Data in the paused daemon's sockets must not be processed either, so the daemon is killed.
    daemon.kill();
    daemon.restart();
    assert!(daemon.try_call("getblockheader", json!([found.hash])).is_err(), "it landed before the node was back");
    node.restart();
    wait_for_best(&daemon, found.hash);
    wait_until("the block is settled", Duration::from_secs(20), || node.found_blocks("accepted").len() == 1);
}

#[test]
fn a_block_that_the_daemon_lost_is_submitted_again() {
    let mut daemon = Bitcoind::start();
    mine_blocks(&daemon, 2, &payout_address(9).script_pubkey());
    daemon.stop();
    let (current, older) = (daemon.data_dir().join("regtest"), daemon.data_dir().join("older"));
    let copy = |from: &Path, to: &Path| {
        let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs");
        assert!(copied.success());
    };
    copy(&current, &older);
    daemon.restart();
    let between = mine_blocks(&daemon, 9, &payout_address(9).script_pubkey());
    let between: Vec<Value> = between.iter().map(|hash| daemon.call("getblock", json!([hash, 0]))).collect();
    let node = Node::start(P2POOL, &daemon);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let found = job_on_tip(&mut miner, &daemon).solve_block();
    assert_eq!(miner.submit(&user, &found), Ok(true));
    wait_for_best(&daemon, found.hash);
    wait_until("the block is settled", Duration::from_secs(20), || node.found_blocks("accepted").len() == 1);
    // As after a power cut or a restored backup: ten blocks behind.
    daemon.stop();
    std::fs::remove_dir_all(&current).expect("the daemon's files can be removed");
    copy(&older, &current);
    daemon.restart();
    assert_eq!(daemon.height(), 2);
    node.wait_for_log("bitcoind does not have a block any more", Duration::from_secs(90));
    for block in &between {
        daemon.call("submitblock", json!([block]));
    }
    wait_until("it is in the chain again", Duration::from_secs(30), || daemon.best_block_hash() == found.hash);
}

#[test]
fn a_block_found_while_the_daemon_hangs_lands_when_it_goes_on() {
    let mut daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let found = job_on_tip(&mut miner, &daemon).solve_block();
    daemon.pause();
    assert_eq!(miner.submit(&user, &found), Ok(true));
    std::thread::sleep(Duration::from_secs(3));
    daemon.resume();
    wait_for_best(&daemon, found.hash);
}

#[test]
fn a_block_that_both_routes_fail_is_sent_again_until_it_lands() {
    let daemon = Bitcoind::start();
    let rpc = HttpProxy::start(daemon.rpc_port());
    let p2p = TcpProxy::start(daemon.p2p_port());
    let node = NodeBuilder::new(P2POOL, &daemon).rpc_port(rpc.port()).p2p_port(p2p.port()).start();
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let found = job_on_tip(&mut miner, &daemon).solve_block();
    p2p.cut();
    rpc.fail("submitblock", Fault::Cut);
    assert_eq!(miner.submit(&user, &found), Ok(true));
    wait_until("the RPC route is tried", Duration::from_secs(5), || rpc.calls("submitblock") > 0);
    assert_ne!(daemon.best_block_hash(), found.hash);
    rpc.mend("submitblock");
    wait_until("it lands", Duration::from_secs(30), || daemon.best_block_hash() == found.hash);
}

#[test]
fn a_daemon_restarted_within_thirty_seconds_costs_no_miner_its_connection() {
    let mut daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let (user, payee) = (miner_name(1), payout_address(1));
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    mine_one(&mut miner, &user, &daemon, &node, &payee);
    daemon.stop();
    std::thread::sleep(Duration::from_secs(15));
    assert!(miner.poll(), "the miner was sent away");
    daemon.restart();
    mine_one(&mut miner, &user, &daemon, &node, &payee);
    // The P2P connection is up again too, so the next block is received at once.
    mine_one(&mut miner, &user, &daemon, &node, &payee);
    assert!(miner.poll(), "the miner was sent away");
}

#[test]
fn miners_are_sent_away_while_the_daemon_is_gone_and_served_when_it_is_back() {
    let mut daemon = Bitcoind::start();
    let node = NodeBuilder::new(P2POOL, &daemon).args(&["--bitcoind-timeout", "5"]).start();
    let (user, payee) = (miner_name(1), payout_address(1));
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    mine_one(&mut miner, &user, &daemon, &node, &payee);
    daemon.stop();
    let start = Instant::now();
    assert!(miner.disconnected_within(Duration::from_secs(20)), "a miner must not work for nothing for long");
    assert!(start.elapsed() > Duration::from_secs(3), "sent away after only {:?}", start.elapsed());
    for _ in 0..3 {
        let start = Instant::now();
        assert!(!node.serves_miners(), "a new miner must not work for nothing");
        assert!(start.elapsed() < Duration::from_secs(1), "closed at once, so that it goes to its next pool");
    }
    daemon.restart();
    node.wait_ready();
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    mine_one(&mut miner, &user, &daemon, &node, &payee);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_found_when_miners_are_sent_away_for_want_of_a_daemon_land_when_it_is_back() {
    let mut daemon = Bitcoind::start();
    mine_blocks(&daemon, 1, &payout_address(9).script_pubkey());
    let node = NodeBuilder::new(P2POOL, &daemon).args(&["--bitcoind-timeout", "5"]).start();
    let user = miner_name(1);
    let (data, polled) = solved_getwork(node.worker_port(), &user).await;
    tokio::task::block_in_place(|| {
        let mut miner = StratumClient::ready(node.worker_port(), &user);
        let found = job_on_tip(&mut miner, &daemon).solve_block();
        daemon.stop();
        assert!(miner.disconnected_within(Duration::from_secs(20)), "there is no work any more");
        // The device found it before it received the job; the response is ignored.
        miner.send_submission(&user, &found);
        wait_until("it is on disk", Duration::from_secs(5), || node.found_blocks("block").len() == 1);
        assert!(!node.serves_miners());
        found.hash
    });
    // A polling miner submits whenever it is done, and need not authenticate.
    let answer = submit_nameless(node.worker_port(), &data).await;
    assert_eq!((&answer["result"], &answer["error"]), (&json!(true), &json!(null)));
    wait_until("it is on disk", Duration::from_secs(5), || node.found_blocks("block").len() == 2);
    daemon.restart();
    // Competing blocks: the daemon knows both, and one of them is best.
    wait_until("both have landed", Duration::from_secs(60), || node.found_blocks("block").is_empty());
    let header = daemon.try_call("getblockheader", json!([polled]));
    assert!(header.is_ok(), "{header:?}");
}

#[test]
fn a_daemon_that_hangs_counts_as_gone() {
    let mut daemon = Bitcoind::start();
    let node = NodeBuilder::new(P2POOL, &daemon).args(&["--bitcoind-timeout", "5"]).start();
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    daemon.pause();
    assert!(miner.disconnected_within(Duration::from_secs(45)), "a miner must not work for nothing for long");
    daemon.resume();
    node.wait_ready();
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    mine_one(&mut miner, &user, &daemon, &node, &payout_address(1));
}

#[test]
fn a_quiet_daemon_is_not_gone() {
    let daemon = Bitcoind::start();
    let node = NodeBuilder::new(P2POOL, &daemon).args(&["--bitcoind-timeout", "5"]).start();
    let mut miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    assert!(!miner.disconnected_within(Duration::from_secs(12)), "nothing was wrong, and the miner was sent away");
}
