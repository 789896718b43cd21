//! Restarts keep the share chain, except at most the very last share.

use flate2::read::GzDecoder;
use serde_json::Value;
use sharechain::coin::{self, Network};
use sharechain::share::ShareHash;
use std::collections::HashSet;
use std::io::Read;
use std::path::PathBuf;
use test_support::NodeBuilder;

use crate::P2POOL;
use crate::shares::{Pool, check_chain, network_file, open_signet, own_address, wpkh};

/// Text of a recording in `tests/vectors/data`.
pub(crate) fn recording(name: &str) -> String {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests", "vectors", "data", &format!("{name}.gz")].iter().collect();
    let mut text = String::new();
    let file = std::fs::File::open(path).expect("the recordings are in the repository");
    GzDecoder::new(file).read_to_string(&mut text).expect("the recordings are compressed text");
    text
}

#[test]
fn a_killed_node_goes_on_with_its_share_chain() {
    let mut pool = Pool::start(&[]);
    let mut found: Vec<ShareHash> = {
        let mut miner = pool.miner(&wpkh(1), "");
        (0..12).map(|_| miner.mine_share()).collect()
    };
    pool.ledger(found[11]);
    pool.node.kill9();
    pool.node.restart();
    pool.wait_for_height(12);
    let mut miner = pool.miner(&wpkh(2), "");
    found.push(miner.mine_share());
    pool.wait_for_height(13);
    check_chain(&pool.ledger(found[12]), &found);

    // A share may be lost only right after its acceptance.
    found.push(miner.mine_share());
    pool.node.kill9();
    pool.node.restart();
    if pool.metric("sharechain_height ") < 14.0 {
        found.pop();
    }
    pool.wait_for_height(found.len());
    found.push(pool.miner(&wpkh(2), "").mine_share());
    check_chain(&pool.ledger(found[found.len() - 1]), &found);
}

#[test]
fn a_node_that_was_asked_to_end_goes_on_with_its_whole_share_chain() {
    let mut pool = Pool::start(&[]);
    let mut found: Vec<ShareHash> = {
        let mut miner = pool.miner(&wpkh(1), "");
        (0..10).map(|_| miner.mine_share()).collect()
    };
    // Right after the last share was accepted.
    assert_eq!(pool.node.terminate().status.code(), Some(0));
    pool.node.restart();
    pool.wait_for_height(10);
    found.push(pool.miner(&wpkh(2), "").mine_share());
    pool.wait_for_height(11);
    check_chain(&pool.ledger(found[10]), &found);
}

/// Network of the recorded share store of the old node.
fn run17() -> &'static Network {
    Box::leak(Box::new(coin::from_toml(include_str!("../networks/run17.toml")).expect("the example is good")))
}

/// Old node's store: its text, the best share, and the length of the chain below it. The first shares of that run are
/// missing.
fn old_store() -> (String, String, usize) {
    let store = recording("share_store_run17.txt");
    let kept: HashSet<&str> = store.lines().filter_map(|line| line.strip_prefix("2 ")).collect();
    let chain: Value = serde_json::from_str(&recording("shares_run17_v17_to_v35_segwit.json")).expect("JSON");
    let recorded: Vec<&str> = chain["shares"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|share| share["hash"].as_str().expect("a text"))
        .filter(|hash| kept.contains(hash.trim_start_matches('0')))
        .collect();
    let (best, height) = (recorded.last().expect("the store is of that run").to_string(), recorded.len());
    (store, best, height)
}

#[test]
fn an_old_nodes_shares_are_taken_over_and_kept() {
    let (store, best, height) = old_store();
    assert!(height > 100, "the recording is too short to prove anything: {height}");
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    std::fs::write(folder.path().join("shares.0"), store).expect("the temporary folder can be written");
    let daemon = open_signet();
    let path = folder.path().to_str().expect("the folder's path is text").to_owned();
    let old_shares = ["--old-shares", &path];
    let node = NodeBuilder::new(P2POOL, &daemon)
        .network(&network_file("run17.toml"))
        .address(Some(&own_address().to_string()))
        .args(&old_shares)
        .start();
    let mut pool = Pool { daemon, node, network: run17() };
    pool.wait_for_height(height);

    let next = pool.miner(&wpkh(1), "").mine_share();
    let ledger = pool.ledger(next);
    assert_eq!(ledger.share(next).previous().map(|share| share.to_string()), Some(best));
    assert_eq!(ledger.shares.len(), height + 1, "the old shares are not in the node's own store");

    // The old folder is no longer needed.
    drop(folder);
    pool.node.restart_without(&old_shares);
    pool.wait_for_height(height + 1);
}
