//! A block with an extension block lands over each route alone, and waits for its parent on both.

use serde_json::json;
use std::process::Command;
use std::time::Duration;
use test_support::{Fault, HttpProxy, Litecoind, Node, NodeBuilder, StratumClient, TcpProxy, wait_until};

use crate::{FIRST, LIMIT, P2POOL, check_block, job_on_tip, miner_name, record, send_every_kind};

/// Finds a block with a transaction of every kind, and two more.
fn find_three_blocks(daemon: &Litecoind, node: &Node) {
    let payee = daemon.payout_address(1);
    let user = miner_name(&payee);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    for _ in 0..3 {
        let found = job_on_tip(&mut miner, daemon).solve_block_with_scrypt();
        assert_eq!(miner.submit(&user, &found), Ok(true));
        wait_until(&format!("{} becomes the best block", found.hash), LIMIT, || daemon.best_block_hash() == found.hash);
        check_block(daemon, found.hash, &payee);
    }
    assert_eq!(daemon.mempool(), []);
    wait_until("every block is settled", LIMIT, || node.found_blocks("accepted").len() == 3);
}

#[test]
fn a_block_with_an_extension_block_lands_over_p2p_alone_when_submitblock_fails() {
    let daemon = Litecoind::start_with_mweb();
    send_every_kind(&daemon, &daemon.new_address());
    let rpc = HttpProxy::start(daemon.rpc_port());
    rpc.fail("submitblock", Fault::Cut);
    let node = NodeBuilder::new(P2POOL, &daemon).rpc_port(rpc.port()).start();
    find_three_blocks(&daemon, &node);
    assert!(rpc.calls("submitblock") > 0, "the RPC route was not tried");
}

#[test]
fn a_block_with_an_extension_block_lands_over_rpc_alone_when_p2p_is_cut() {
    let daemon = Litecoind::start_with_mweb();
    // Litecoin's daemon makes no templates without a peer.
    let other = Litecoind::start();
    other.connect(&daemon);
    send_every_kind(&daemon, &daemon.new_address());
    let rpc = HttpProxy::start(daemon.rpc_port());
    let p2p = TcpProxy::start(daemon.p2p_port());
    p2p.cut();
    let node = NodeBuilder::new(P2POOL, &daemon).rpc_port(rpc.port()).p2p_port(p2p.port()).start();
    find_three_blocks(&daemon, &node);
    assert!(rpc.calls("submitblock") >= 3);
    wait_until("the other daemon has the blocks too", LIMIT, || other.best_block_hash() == daemon.best_block_hash());
}

#[test]
fn a_block_waits_until_litecoind_has_its_parent() {
    let mut daemon = Litecoind::start_with_mweb();
    daemon.stop();
    let (current, older) = (daemon.data_dir().join("regtest"), daemon.data_dir().join("older"));
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs");
        assert!(copied.success());
    };
    copy(&current, &older);
    daemon.restart();
    daemon.peg_in();
    let between = daemon.mine(3).into_iter().map(|hash| daemon.call("getblock", json!([hash, 0])));
    let between: Vec<_> = between.collect();
    daemon.send_in_mweb(1.0);
    let node = Node::start(P2POOL, &daemon);
    let payee = daemon.payout_address(1);
    let user = miner_name(&payee);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let found = job_on_tip(&mut miner, &daemon).solve_block_with_scrypt();
    // As after a power cut or a restored backup: three blocks behind.
    daemon.stop();
    std::fs::remove_dir_all(&current).expect("the daemon's files can be removed");
    copy(&older, &current);
    daemon.restart();
    assert_eq!(daemon.height(), FIRST);
    // The node works on the older chain again, and takes solutions of the jobs before.
    miner.try_wait_for_job(|job| job.previous_block_hash() == daemon.best_block_hash(), LIMIT).expect("a new job");
    assert_eq!(miner.submit(&user, &found).map_err(|error| error.code()), Err(Some(21)), "the job is stale");
    let outcome = |route: &str| {
        let routes = record(&node, found.hash)?["routes"].take();
        routes.as_array()?.iter().find(|one| one["route"] == route).map(|one| one["outcome"].clone())
    };
    wait_until("RPC reports that the parent is missing", LIMIT, || outcome("rpc") == Some("waiting".into()));
    // Long enough for P2P to be tried without its parent, which must not cost the connection for long.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(node.found_blocks("block").len(), 1, "it is still open");
    for block in &between {
        assert_eq!(daemon.call("submitblock", json!([block])), serde_json::Value::Null);
    }
    wait_until("it is in the chain", LIMIT, || daemon.best_block_hash() == found.hash);
    check_block(&daemon, found.hash, &payee);
    wait_until("it is settled", LIMIT, || node.found_blocks("accepted").len() == 1);
}
