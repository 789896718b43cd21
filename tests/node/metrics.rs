//! Metrics on the worker port.

use std::time::Duration;
use test_support::{Bitcoind, Node, StratumClient, payout_address, wait_until};

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

#[test]
fn a_miner_finds_its_workers_and_what_is_wrong_with_them_by_its_address() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let (user, address) = (miner_name(1), payout_address(1).to_string());
    let page = format!("/address/{address}");
    assert_eq!(node.get_text(&page).status, 404);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let found = miner.job().solve();
    assert_eq!(miner.submit(&user, &found), Ok(true));
    wait_until("the worker is there", Duration::from_secs(10), || node.get_text(&page).status == 200);
    let body = node.get_text(&page).body;
    assert!(body.contains(&format!("{address}.rig  ")) && body.contains(" H/s"), "{body}");
    assert_eq!(node.get_text(&format!("/address/{}", &address[..10])).status, 404, "of others nothing is told");

    // NerdMiner's firmware holds a coinbase of 250 bytes.
    let mut small = StratumClient::connect(node.worker_port());
    small.raw(r#"{"id":1,"method":"mining.subscribe","params":["NerdMinerV2"]}"#);
    small.raw(&format!(r#"{{"id":2,"method":"mining.authorize","params":["{user}","x"]}}"#));
    wait_until("its owner is warned", Duration::from_secs(10), || node.get_text(&page).body.contains("warning: "));
    let body = node.get_text(&page).body;
    assert!(body.contains("too big for this firmware"), "{body}");
}
