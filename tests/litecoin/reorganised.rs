//! Litecoin's chain is reorganised under the node: found blocks are reported as what they are then, and mining goes on.

use serde_json::json;
use test_support::{Litecoind, Node, StratumClient, wait_until};

use crate::{LIMIT, P2POOL, check_block, job_on_tip, miner_name, send_every_kind, wait_for_standing};

#[test]
fn a_block_orphaned_by_a_longer_chain_is_reported_and_the_next_ones_are_mined_on_that_chain() {
    let daemon = Litecoind::start_with_mweb();
    let rival = Litecoind::start();
    rival.connect(&daemon);
    let node = Node::start(P2POOL, &daemon);
    let payee = daemon.payout_address(1);
    let user = miner_name(&payee);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    rival.disconnect(&daemon);
    let sent = send_every_kind(&daemon, &daemon.new_address());
    // Until a template has the transactions, which takes some seconds.
    let job = miner.try_wait_for_job(|job| job.branch.len() == 2, LIMIT).expect("templates follow the mempool");
    let first = job.solve_block_with_scrypt();
    assert_eq!(miner.submit(&user, &first), Ok(true));
    wait_until("it becomes the best block", LIMIT, || daemon.best_block_hash() == first.hash);
    check_block(&daemon, first.hash, &payee);
    wait_for_standing(&node, first.hash, "confirming");

    rival.mine(2);
    rival.connect(&daemon);
    assert_ne!(daemon.best_block_hash(), first.hash);
    wait_for_standing(&node, first.hash, "orphaned");
    assert!(node.wait_for_log("BLOCK ORPHANED", LIMIT).contains(&first.hash.to_string()));

    // litecoind does not bring back every transaction of an extension block, whose parts are merged; this one it does.
    let confirmations = || daemon.call_wallet("main", "gettransaction", json!([sent]))["confirmations"].as_i64();
    assert_eq!(confirmations(), Some(0));
    while !daemon.mempool().is_empty() {
        let next = job_on_tip(&mut miner, &daemon).solve_block_with_scrypt();
        assert_eq!(miner.submit(&user, &next), Ok(true));
        wait_until("it becomes the best block", LIMIT, || daemon.best_block_hash() == next.hash);
        check_block(&daemon, next.hash, &payee);
        wait_for_standing(&node, next.hash, "confirming");
    }
    assert!(confirmations() > Some(0), "{sent} was not mined again");
    wait_until("the other daemon follows", LIMIT, || rival.best_block_hash() == daemon.best_block_hash());

    // A block that was orphaned by hand and comes back is confirmed again.
    let tip = daemon.best_block_hash();
    daemon.call("invalidateblock", json!([tip]));
    let parent = job_on_tip(&mut miner, &daemon).previous_block_hash();
    assert_eq!(parent, daemon.best_block_hash());
    daemon.call("reconsiderblock", json!([tip]));
    let job = job_on_tip(&mut miner, &daemon);
    assert_eq!(job.previous_block_hash(), tip);
    let last = job.solve_block_with_scrypt();
    assert_eq!(miner.submit(&user, &last), Ok(true));
    wait_until("it becomes the best block", LIMIT, || daemon.best_block_hash() == last.hash);
    check_block(&daemon, last.hash, &payee);
}
