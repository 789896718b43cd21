//! The node ends when it is asked to, at once and with a good conscience.

use std::time::Duration;
use test_support::{Bitcoind, Node, StratumClient};

use crate::{P2POOL, miner_name};

/// What the issue promises.
const LIMIT: Duration = Duration::from_secs(2);

#[test]
fn sigterm_ends_the_node_in_under_two_seconds_with_success() {
    let daemon = Bitcoind::start();
    let mut node = Node::start(P2POOL, &daemon);
    let mut miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    let exit = node.terminate();
    assert!(exit.took < LIMIT, "it took {:?}", exit.took);
    assert_eq!(exit.status.code(), Some(0), "{}", node.log());
    assert!(miner.disconnected_within(Duration::from_secs(1)));
}

#[test]
fn ctrl_c_ends_the_node_in_under_two_seconds_with_success() {
    let daemon = Bitcoind::start();
    let mut node = Node::start(P2POOL, &daemon);
    let exit = node.interrupt();
    assert!(exit.took < LIMIT, "it took {:?}", exit.took);
    assert_eq!(exit.status.code(), Some(0), "{}", node.log());
}

#[test]
fn sigterm_ends_the_node_though_the_daemon_hangs() {
    let mut daemon = Bitcoind::start();
    let mut node = Node::start(P2POOL, &daemon);
    let _miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    daemon.pause();
    // Long enough for a call to hang in.
    std::thread::sleep(Duration::from_secs(3));
    let exit = node.terminate();
    assert!(exit.took < LIMIT, "it took {:?}", exit.took);
    assert_eq!(exit.status.code(), Some(0), "{}", node.log());
}
