//! On a public network, no work is served without peers and the pool's shares.

use std::time::Duration;
use tempfile::TempDir;
use test_support::{Bitcoind, NodeBuilder, StratumClient};

use crate::P2POOL;
use crate::shares::{open_signet, own_address, wpkh};

const SOON: Duration = Duration::from_secs(30);

/// Network of `tests/networks/easy.toml`, marked as public.
fn guarded_network() -> (TempDir, String) {
    let text = include_str!("../networks/easy.toml").replace("PERSIST = false", "PERSIST = true");
    assert!(text.contains("PERSIST = true"));
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let path = folder.path().join("guarded.toml");
    std::fs::write(&path, text).expect("the temporary folder can be written");
    let path = path.to_str().expect("text").to_owned();
    (folder, path)
}

fn builder(daemon: &Bitcoind, network: &str) -> NodeBuilder {
    NodeBuilder::new(P2POOL, daemon).network(network).address(Some(&own_address().to_string()))
}

#[test]
fn the_first_node_of_a_pool_is_begun_knowingly_and_the_second_waits_for_it_and_its_shares() {
    let daemon = open_signet();
    let (_folder, network) = guarded_network();
    let mut alone = builder(&daemon, &network).spawn();
    alone.wait_for_log("no work for miners yet: waiting for a peer", SOON);
    assert!(!alone.serves_miners());
    let health = alone.get("/health");
    assert_eq!(health.status, 503);
    assert!(health.body.contains("waiting for a peer"), "{health:?}");
    alone.terminate();

    let first = builder(&daemon, &network).args(&["--start-pool"]).start();
    let second = builder(&daemon, &network).peer(first.pool_address()).spawn();
    second.wait_for_log("no work for miners yet: waiting for shares", SOON);
    assert!(!second.serves_miners());
    let user = format!("{}.rig+1e9", wpkh(1));
    let mut miner = StratumClient::ready(first.worker_port(), &user);
    let job = miner.job();
    assert_eq!(miner.submit(&user, &job.solve()), Ok(true));
    second.wait_for_log("there is work for miners", SOON);
    second.wait_ready();
    assert_eq!(second.get("/health").status, 200);
}
