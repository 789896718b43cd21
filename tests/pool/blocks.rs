//! Blocks found by one node's miner and received by another's daemon.

use bitcoin::hashes::Hash;
use bitcoin::{Address, Network as Chain, PubkeyHash};
use std::time::Duration;
use test_support::{Bitcoind, NodeBuilder, Spender, StratumClient, mine_blocks, payout_address, wait_until};

use crate::near::{BEGINNING, grow};
use crate::pool::{AGREEMENT, Pool, network_file};

#[test]
fn a_block_of_a_node_that_lost_its_daemon_is_submitted_by_its_peers() {
    let mut pool = Pool::near(2);
    grow(&mut pool, BEGINNING);
    pool.at(0, |member| member.daemon.pause());
    let block = pool.at(0, |member| member.mine_block());
    pool.at(1, |member| {
        wait_until("the other's daemon has the block", AGREEMENT, || member.daemon.best_block_hash() == block);
        assert_eq!(member.metric("solution_peer_blocks_total{result=\"made\"}"), 1.0);
    });
    pool.at(0, |member| {
        member.daemon.resume();
        wait_until("the finder's daemon has it, too", AGREEMENT, || member.daemon.best_block_hash() == block);
    });
}

#[test]
fn a_block_is_made_of_the_transactions_that_its_finder_forwarded() {
    let first = Bitcoind::start();
    let mut spender = Spender::new(&first);
    // This daemon receives blocks only, so its node knows only transactions forwarded by the other node.
    let seeks = format!("-addnode=127.0.0.1:{}", first.p2p_port());
    let second = Bitcoind::start_with(&[&seeks, "-blocksonly=1"]);
    let sent = spender.send_many(&first, 12);
    wait_until("both daemons have one chain", AGREEMENT, || second.best_block_hash() == first.best_block_hash());

    // Shares before version 34 pay public key hashes only.
    let payee = Address::p2pkh(PubkeyHash::from_byte_array([0x11; 20]), Chain::Regtest);
    let start = |daemon| {
        NodeBuilder::new(env!("CARGO_BIN_EXE_p2pool"), daemon)
            .network(&network_file("old.toml"))
            .address(Some(&payee.to_string()))
    };
    let finder = start(&first).start();
    let other = start(&second).peer(finder.pool_address()).start();
    other.wait_for_log("connected", AGREEMENT);
    let user = format!("{payee}.rig+0.00001");
    let mut miner = StratumClient::ready(finder.worker_port(), &user);
    let tip = first.best_block_hash();
    let job = miner.wait_for_job(|job| job.previous_block_hash() == tip && !job.branch.is_empty());
    // The finder's `remember_tx` takes a moment to arrive.
    std::thread::sleep(Duration::from_secs(1));

    let mut first = first;
    first.pause();
    let found = job.solve_block();
    assert_eq!(miner.submit(&user, &found), Ok(true));
    wait_until("the other's daemon has the block", AGREEMENT, || second.best_block_hash() == found.hash);
    let block = second.block(&found.hash);
    assert_eq!(block.txdata.len(), 1 + sent.len());
    first.resume();
    wait_until("the finder's daemon has it, too", AGREEMENT, || first.best_block_hash() == found.hash);
    mine_blocks(&first, 1, &payout_address(1).script_pubkey());
}
