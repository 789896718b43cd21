//! Errors of a node that cannot start, or not yet: one line that names the reason.

use std::time::Duration;
use test_support::{Bitcoind, Node, NodeBuilder, StratumClient, free_port};

use crate::{P2POOL, miner_name};

const SOON: Duration = Duration::from_secs(15);

#[test]
fn without_an_address_and_without_a_wallet_it_refuses_to_start_and_says_what_to_do() {
    let daemon = Bitcoind::start();
    let mut node = NodeBuilder::new(P2POOL, &daemon).address(None).spawn();
    let exit = node.wait_exit(SOON);
    assert_ne!(exit.status.code(), Some(0));
    assert!(node.log().contains("-a ADDRESS"), "no advice in:\n{}", node.log());
}

#[test]
fn a_wrong_password_is_named_and_tried_again() {
    let daemon = Bitcoind::start();
    let mut node = NodeBuilder::new(P2POOL, &daemon).credentials(Some(("tester", "wrong"))).spawn();
    node.wait_for_log("password", SOON);
    std::thread::sleep(Duration::from_secs(2));
    assert!(node.is_running(), "it gave up:\n{}", node.log());
    assert!(!node.log().contains("wrong\""), "a password does not belong in a log:\n{}", node.log());
}

#[test]
fn a_daemon_on_another_chain_is_named() {
    let daemon = Bitcoind::start_with(&["-chain=signet"]);
    let node = NodeBuilder::new(P2POOL, &daemon).spawn();
    node.wait_for_log("signet", SOON);
}

#[test]
fn a_daemon_that_comes_later_is_waited_for() {
    let mut daemon = Bitcoind::start();
    daemon.stop();
    let mut node = NodeBuilder::new(P2POOL, &daemon).spawn();
    std::thread::sleep(Duration::from_secs(3));
    assert!(node.is_running(), "it gave up:\n{}", node.log());
    daemon.restart();
    node.wait_ready();
    StratumClient::ready(node.worker_port(), &miner_name(1));
}

#[test]
fn credentials_may_come_from_the_environment() {
    let daemon = Bitcoind::start();
    let (user, password) = daemon.credentials();
    let node = NodeBuilder::new(P2POOL, &daemon)
        .credentials(None)
        .env("P2POOL_RPC_USER", &user)
        .env("P2POOL_RPC_PASSWORD", &password)
        .start();
    StratumClient::ready(node.worker_port(), &miner_name(1));
}

#[test]
fn a_worker_port_in_use_is_named() {
    let daemon = Bitcoind::start();
    let first = Node::start(P2POOL, &daemon);
    let port = first.worker_port().to_string();
    let mut second = NodeBuilder::new(P2POOL, &daemon).worker_port(first.worker_port()).spawn();
    let exit = second.wait_exit(SOON);
    assert_ne!(exit.status.code(), Some(0));
    assert!(second.log().contains(&port), "{port} is not named in:\n{}", second.log());
}

#[test]
fn a_bad_option_is_named() {
    let daemon = Bitcoind::start();
    for (args, named) in [
        (["--share-rate", "often"], "often"),
        (["--bitcoind-timeout", "-1"], "-1"),
        (["--no-such-option", "1"], "--no-such-option"),
    ] {
        let mut node = NodeBuilder::new(P2POOL, &daemon).args(&args).spawn();
        let exit = node.wait_exit(SOON);
        assert_ne!(exit.status.code(), Some(0), "{args:?}");
        assert!(node.log().contains(named), "{named} is not named in:\n{}", node.log());
    }
}

#[test]
fn an_unknown_network_is_named() {
    let daemon = Bitcoind::start();
    let mut node = NodeBuilder::new(P2POOL, &daemon).network("bitcoin_moon").spawn();
    let exit = node.wait_exit(SOON);
    assert_ne!(exit.status.code(), Some(0));
    assert!(node.log().contains("bitcoin_moon"), "{}", node.log());
}

#[test]
fn an_own_address_that_cannot_be_paid_is_named() {
    let daemon = Bitcoind::start();
    let foreign = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    let mut node = NodeBuilder::new(P2POOL, &daemon).address(Some(foreign)).spawn();
    let exit = node.wait_exit(SOON);
    assert_ne!(exit.status.code(), Some(0));
    assert!(node.log().contains(foreign), "{}", node.log());
}

#[test]
fn no_daemon_at_all_is_named_and_tried_again() {
    let daemon = Bitcoind::start();
    let port = free_port();
    let mut node = NodeBuilder::new(P2POOL, &daemon).rpc_port(port).spawn();
    node.wait_for_log(&port.to_string(), SOON);
    assert!(node.is_running(), "it gave up:\n{}", node.log());
}
