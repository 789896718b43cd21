//! A miner's block is accepted by both routes or by the remaining one, with its transactions and correct payouts.

use bitcoin::{Transaction, Txid};
use std::collections::HashSet;
use std::time::Duration;
use test_support::{
    Bitcoind, Fault, HttpProxy, Node, NodeBuilder, Spender, StratumClient, TcpProxy, mine_blocks, payout_address,
    wait_until,
};

use crate::{LANDING_LIMIT, P2POOL, job_on_tip, mine_one, miner_name, wait_for_best};

/// Checks that all transactions are in the block, and that some of them, but not all, are segwit.
fn check_transactions(block: &bitcoin::Block, sent: &[Transaction]) {
    let included: HashSet<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
    for transaction in sent {
        assert!(included.contains(&transaction.compute_txid()), "{} is missing", transaction.compute_txid());
    }
    let segwit = sent.iter().filter(|transaction| !transaction.input[0].witness.is_empty()).count();
    assert!(segwit > 0 && segwit < sent.len(), "{segwit} of {} are segwit", sent.len());
}

#[test]
fn a_miner_finds_five_blocks_in_a_row_with_transactions_and_each_pays_its_address() {
    let daemon = Bitcoind::start();
    let sent = Spender::new(&daemon).send_many(&daemon, 24);
    let node = Node::start(P2POOL, &daemon);
    let (user, payee) = (miner_name(1), payout_address(1));
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let block = mine_one(&mut miner, &user, &daemon, &node, &payee);
    check_transactions(&block, &sent);
    assert_eq!(daemon.mempool(), []);
    for _ in 0..5 {
        mine_one(&mut miner, &user, &daemon, &node, &payee);
    }
    wait_until("every block is settled", LANDING_LIMIT, || node.found_blocks("block").is_empty());
}

#[test]
fn two_miners_are_each_paid_by_the_blocks_that_they_find() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let users = [miner_name(1), miner_name(2)];
    let mut miners = users.clone().map(|user| StratumClient::ready(node.worker_port(), &user));
    for round in 0..6_u8 {
        let which = usize::from(round % 2);
        let payee = payout_address(round % 2 + 1);
        mine_one(&mut miners[which], &users[which], &daemon, &node, &payee);
    }
}

#[test]
fn new_transactions_reach_the_miner_without_a_new_block() {
    let daemon = Bitcoind::start();
    let mut spender = Spender::new(&daemon);
    let node = Node::start(P2POOL, &daemon);
    let (user, payee) = (miner_name(1), payout_address(1));
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let sent = spender.send_many(&daemon, 20);
    let tip = daemon.best_block_hash();
    // Twenty transactions and a coinbase have a branch of five.
    let job = miner
        .try_wait_for_job(|job| job.previous_block_hash() == tip && job.branch.len() == 5, Duration::from_secs(60))
        .expect("templates are asked for more than once a minute");
    let found = job.solve_block();
    assert_eq!(miner.submit(&user, &found), Ok(true));
    wait_for_best(&daemon, found.hash);
    let block = daemon.block(&found.hash);
    check_transactions(&block, &sent);
    crate::check_coinbase(&daemon, &node, &block, &payee);
}

#[test]
fn a_block_lands_over_p2p_alone_when_submitblock_fails() {
    let daemon = Bitcoind::start();
    let sent = Spender::new(&daemon).send_many(&daemon, 22);
    let rpc = HttpProxy::start(daemon.rpc_port());
    rpc.fail("submitblock", Fault::Cut);
    let node = NodeBuilder::new(P2POOL, &daemon).rpc_port(rpc.port()).start();
    let (user, payee) = (miner_name(1), payout_address(1));
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let block = mine_one(&mut miner, &user, &daemon, &node, &payee);
    check_transactions(&block, &sent);
    for _ in 0..4 {
        mine_one(&mut miner, &user, &daemon, &node, &payee);
    }
    assert!(rpc.calls("submitblock") > 0, "the RPC route was not tried");
    wait_until("every block is settled", LANDING_LIMIT, || node.found_blocks("block").is_empty());
}

#[test]
fn a_block_lands_over_rpc_alone_when_p2p_is_cut() {
    let daemon = Bitcoind::start();
    let sent = Spender::new(&daemon).send_many(&daemon, 22);
    let rpc = HttpProxy::start(daemon.rpc_port());
    let p2p = TcpProxy::start(daemon.p2p_port());
    let node = NodeBuilder::new(P2POOL, &daemon).rpc_port(rpc.port()).p2p_port(p2p.port()).start();
    wait_until("the node connects over P2P", Duration::from_secs(10), || p2p.connections() > 0);
    p2p.cut();
    let (user, payee) = (miner_name(1), payout_address(1));
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let block = mine_one(&mut miner, &user, &daemon, &node, &payee);
    check_transactions(&block, &sent);
    for _ in 0..4 {
        mine_one(&mut miner, &user, &daemon, &node, &payee);
    }
    assert!(rpc.calls("submitblock") >= 5);
    wait_until("every block is settled", LANDING_LIMIT, || node.found_blocks("block").is_empty());
}

#[test]
fn a_block_whose_submitblock_answer_is_lost_still_counts_as_accepted() {
    let daemon = Bitcoind::start();
    let rpc = HttpProxy::start(daemon.rpc_port());
    let p2p = TcpProxy::start(daemon.p2p_port());
    p2p.cut();
    rpc.fail("submitblock", Fault::LoseAnswer);
    let node = NodeBuilder::new(P2POOL, &daemon).rpc_port(rpc.port()).p2p_port(p2p.port()).start();
    let (user, payee) = (miner_name(1), payout_address(1));
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    mine_one(&mut miner, &user, &daemon, &node, &payee);
    rpc.mend("submitblock");
    wait_until("the block is settled", Duration::from_secs(20), || node.found_blocks("accepted").len() == 1);
}

#[test]
fn a_competing_block_makes_the_old_job_stale_and_brings_a_new_one() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let old = job_on_tip(&mut miner, &daemon);
    let rival = mine_blocks(&daemon, 1, &payout_address(9).script_pubkey())[0];
    let new = miner.wait_for_job(|job| job.previous_block_hash() == rival);
    assert!(new.clean, "a job on a new block must void the old ones");
    let late = miner.submit(&user, &old.solve()).expect_err("the job is stale");
    assert_eq!(late.code(), Some(21), "{late}");
    let found = new.solve_block();
    assert_eq!(miner.submit(&user, &found), Ok(true));
    wait_for_best(&daemon, found.hash);
}

#[test]
fn a_new_block_brings_a_new_job_within_two_seconds() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let mut miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    for _ in 0..5 {
        let rival = mine_blocks(&daemon, 1, &payout_address(9).script_pubkey())[0];
        let job = miner.try_wait_for_job(|job| job.previous_block_hash() == rival, Duration::from_secs(2));
        assert!(job.is_ok_and(|job| job.clean));
    }
}

#[test]
fn rolled_version_bits_and_times_make_valid_blocks() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let user = miner_name(1);
    let mut miner = StratumClient::connect(node.worker_port());
    miner.configure(0x1fff_e000).expect("version rolling is granted");
    assert_eq!(miner.version_mask, Some(0x1fff_e000));
    miner.subscribe().expect("subscribing needs nothing");
    assert_eq!(miner.authorize(&user, "x"), Ok(true));
    for (seconds, bits) in [(0, 0x0000_2000), (1, 0x1fff_e000), (60, 0)] {
        // Easier than a submission on regtest, so this is a block.
        let found = job_on_tip(&mut miner, &daemon).solve_rolled(seconds, Some((bits, 0x1fff_e000)));
        assert_eq!(miner.submit(&user, &found), Ok(true));
        wait_for_best(&daemon, found.hash);
        assert_eq!(daemon.block(&found.hash).header.version.to_consensus() & 0x1fff_e000, bits.cast_signed());
    }
}
