//! Payee and requests in a user name; no name makes a payout silently go to the wrong payee.

use bitcoin::hashes::Hash;
use bitcoin::{Address, KnownHrp, Network};
use sharechain::coin::BITCOIN_REGTEST;
use std::time::Duration;
use test_support::{Bitcoind, ClientError, Node, NodeBuilder, StratumClient, metric_value, payout_address};

use crate::ledger::{Ledger, share_hash};
use crate::{P2POOL, job_on_tip, mine_one, miner_name, wait_for_best};

/// Response of the node to this user name on a new connection.
fn authorize(node: &Node, user: &str) -> Result<bool, ClientError> {
    let mut miner = StratumClient::connect(node.worker_port());
    miner.subscribe().expect("subscribing needs nothing");
    miner.authorize(user, "x")
}

/// Checks that a name is refused as not authorised, and that the reason names the error.
fn check_refused(user: &str, reason_word: &str) {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let refused = authorize(&node, user).expect_err("it cannot be paid");
    assert_eq!(refused.code(), Some(24), "{refused}");
    let reason = refused.reason().to_lowercase();
    assert!(reason.contains(reason_word), "{reason:?} does not tell that the reason is {reason_word:?}");
}

#[test]
fn an_address_with_a_typo_is_refused_with_the_reason() {
    let good = payout_address(1).to_string();
    let swapped = if good.ends_with('q') { 'p' } else { 'q' };
    check_refused(&format!("{}{swapped}", &good[..good.len() - 1]), "mistyped");
}

#[test]
fn an_address_of_another_network_is_refused_with_the_reason() {
    check_refused("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "network");
}

#[test]
fn a_legacy_address_of_another_network_is_refused_with_the_reason() {
    check_refused("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "network");
}

#[test]
fn a_taproot_address_is_refused_with_the_reason() {
    let secp = bitcoin::key::Secp256k1::new();
    let key = bitcoin::secp256k1::SecretKey::from_slice(&[0x77; 32]).expect("in the range of the curve's order");
    let address = Address::p2tr(&secp, key.x_only_public_key(&secp).0, None, KnownHrp::Regtest);
    check_refused(&address.to_string(), "taproot");
}

#[test]
fn an_address_whose_witness_program_begins_with_a_zero_byte_is_refused_with_the_reason() {
    let mut program = [0x55; 32];
    program[0] = 0;
    let script = bitcoin::ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_byte_array(program));
    let address = Address::from_script(&script, Network::Regtest).expect("P2WSH");
    check_refused(&address.to_string(), "zero");
}

#[test]
fn an_address_of_a_script_is_paid() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let script = bitcoin::ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_byte_array([0x55; 32]));
    let address = Address::from_script(&script, Network::Regtest).expect("P2WSH");
    let user = format!("{address}.rig+0.00001");
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    mine_one(&mut miner, &user, &daemon, &node, &address);
}

#[test]
fn a_name_that_is_no_address_mines_for_the_node_itself() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let user = "somebody.rig+0.00001";
    let mut miner = StratumClient::ready(node.worker_port(), user);
    mine_one(&mut miner, user, &daemon, &node, &payout_address(255));
}

#[test]
fn a_worker_name_with_any_separators_is_paid_at_its_address() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let payee = payout_address(1);
    for suffix in ["", ".rig", "_rig", ".rig_2", "_rig.2", ".", "_", "._"] {
        let user = format!("{payee}{suffix}");
        let mut miner = StratumClient::ready(node.worker_port(), &user);
        mine_one(&mut miner, &user, &daemon, &node, &payee);
    }
}

#[test]
fn a_name_with_difficulties_is_paid_at_its_address_also_for_a_block_that_is_no_share() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let payee = payout_address(1);
    let user = miner_name(2);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let tip = (0..3).map(|_| mine_one(&mut miner, &user, &daemon, &node, &payout_address(2)).block_hash()).last();
    let tip = share_hash(tip.expect("three were mined"));
    for suffix in ["/1", ".rig/1+0.001", "+0.001/1"] {
        let user = format!("{payee}{suffix}");
        let mut miner = StratumClient::ready(node.worker_port(), &user);
        let job = job_on_tip(&mut miner, &daemon);
        // A share may be up to thirty times harder than the easiest one, which is a block on regtest.
        let no_share = bitcoin::Target::from_be_bytes({
            let mut bytes = [0xff; 32];
            bytes[0] = 0x08;
            bytes
        });
        let found = job.search(|hash| hash <= job.block_target() && hash > no_share);
        assert_eq!(miner.submit(&user, &found), Ok(true));
        wait_for_best(&daemon, found.hash);
        let ledger = Ledger::with(&node, &BITCOIN_REGTEST, tip);
        ledger.check_block_that_is_no_share(&daemon, &daemon.block(&found.hash), &payee, tip);
    }
}

#[test]
fn a_second_name_with_the_same_address_is_credited() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let (first, second) = (miner_name(1), format!("{}.other", payout_address(1)));
    let mut miner = StratumClient::ready(node.worker_port(), &first);
    assert_eq!(miner.authorize(&second, "x"), Ok(true));
    mine_one(&mut miner, &second, &daemon, &node, &payout_address(1));
    mine_one(&mut miner, &first, &daemon, &node, &payout_address(1));
}

#[test]
fn a_second_name_with_another_address_is_refused_with_the_reason() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let (first, second) = (miner_name(1), miner_name(2));
    let mut miner = StratumClient::ready(node.worker_port(), &first);
    let refused = miner.authorize(&second, "x").expect_err("the connection's jobs pay the first name");
    assert_eq!(refused.code(), Some(24), "{refused}");
    for named in [payout_address(1), payout_address(2)] {
        assert!(refused.reason().contains(&named.to_string()), "{refused}");
    }
    let submission = miner.job().solve();
    assert_eq!(miner.submit(&second, &submission).expect_err("it was refused").code(), Some(24));
    // The name is refused, but the block is accepted.
    wait_for_best(&daemon, submission.hash);
    mine_one(&mut miner, &first, &daemon, &node, &payout_address(1));
}

#[test]
fn a_difficulty_in_the_user_name_is_the_sessions() {
    // No difficulty is above that of a share, or shares would be missed: 2^236 on this network, as compact bits
    // represent it. Regtest's is next to nothing, so that a request shows only on a harder chain.
    let of_share = 65_535.0 / 256.0 / 1_048_575.0;
    let daemon = Bitcoind::start_with(&["-chain=signet"]);
    let address = Address::from_script(&payout_address(1).script_pubkey(), Network::Signet).expect("P2WPKH");
    let node = NodeBuilder::new(P2POOL, &daemon).network("bitcoin_signet").address(Some(&address.to_string())).start();
    for (suffix, difficulty) in [("+0.0001", 1e-4), (".rig+1e-5", 1e-5), ("_rig+2.25E-4", 2.25e-4), ("+1e-3", of_share)]
    {
        let user = format!("{address}{suffix}");
        let miner = StratumClient::ready(node.worker_port(), &user);
        assert!((miner.difficulty / difficulty - 1.0).abs() < 1e-9, "{user} gets {}", miner.difficulty);
        assert!((miner.job().difficulty / difficulty - 1.0).abs() < 1e-9, "{user}'s first job comes too early");
    }
}

#[test]
fn submissions_are_counted() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    mine_one(&mut miner, &user, &daemon, &node, &payout_address(1));
    std::thread::sleep(Duration::from_millis(200));
    let metrics = node.metrics();
    assert!(metric_value(&metrics, "stratum_submissions_total{").is_some_and(|count| count >= 1.0), "{metrics}");
}
