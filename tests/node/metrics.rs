//! What the operator's Prometheus finds on the worker port.

use test_support::{Bitcoind, Node, StratumClient};

use crate::{P2POOL, miner_name};

#[test]
fn metrics_tell_of_miners_and_of_the_daemon_beside_stratum() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let _miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    let metrics = node.metrics();
    for family in ["stratum_", "bitcoind_"] {
        assert!(metrics.lines().any(|line| line.starts_with(family)), "no {family} family in:\n{metrics}");
    }
    for line in metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value = line.rsplit_once(' ').map(|(_, value)| value.parse::<f64>());
        assert!(matches!(value, Some(Ok(_))), "not a sample: {line}");
    }
    assert!(metrics.contains("# HELP stratum_"), "families come with help:\n{metrics}");
}

#[test]
fn a_path_that_is_not_there_is_not_found() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    assert_eq!(node.get("/no-such-page").status, 404);
}
