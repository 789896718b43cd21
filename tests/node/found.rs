//! Found blocks are followed until they mature or are orphaned.

use serde_json::Value;
use std::time::Duration;
use test_support::{Bitcoind, Node, NodeBuilder, StratumClient, mine_blocks, payout_address, wait_until};

use crate::{P2POOL, mine_one, miner_name};

/// Time until the node has queried the daemon and saved the response.
const SOON: Duration = Duration::from_secs(20);

/// The node's record of the block with that hash.
fn record(node: &Node, hash: &str) -> Option<Value> {
    let path = node.data_dir().join("bitcoin_regtest").join("found_blocks.json");
    let content: Value = serde_json::from_slice(&std::fs::read(path).ok()?).expect("it is always whole");
    content["blocks"].as_array().expect("a list").iter().find(|one| one["hash"] == hash).cloned()
}

fn wait_for_standing(node: &Node, hash: &str, standing: &str) -> Value {
    wait_until(&format!("{hash} is {standing}"), SOON, || {
        record(node, hash).is_some_and(|record| record["standing"] == standing)
    });
    record(node, hash).expect("it was there")
}

#[test]
fn a_block_is_followed_over_a_restart_until_it_can_be_spent_and_its_file_is_gone_then() {
    let daemon = Bitcoind::start();
    let mut node = Node::start(P2POOL, &daemon);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let block = mine_one(&mut miner, &user, &daemon, &node, &payout_address(1));
    let hash = block.block_hash().to_string();
    let first = wait_for_standing(&node, &hash, "confirming");
    assert_eq!(first["height"], daemon.height());
    assert_eq!(first["is_ours"], true);
    assert!(first["finder"].as_str().is_some_and(|finder| finder.contains(".rig")), "{first}");
    assert_eq!(first["verdict"]["outcome"], "accepted");
    let routes = first["routes"].as_array().expect("a list");
    assert!(routes.iter().any(|route| route["route"] == "rpc" || route["route"] == "p2p"), "{first}");
    wait_until("the block is settled on disk", SOON, || node.found_blocks("accepted").len() == 1);
    mine_blocks(&daemon, 60, &payout_address(9).script_pubkey());
    node.restart();
    assert_eq!(record(&node, &hash).map(|record| record["found_at"].clone()), Some(first["found_at"].clone()));
    mine_blocks(&daemon, 39, &payout_address(9).script_pubkey());
    let mature = wait_for_standing(&node, &hash, "mature");
    assert_eq!((&mature["confirmations"], &mature["is_settled"]), (&100.into(), &true.into()));
    node.wait_for_log("a block is mature", SOON);
    wait_until("its bytes are not kept for ever", SOON, || node.found_blocks("accepted").is_empty());
}

#[test]
fn a_later_orphan_is_shown_and_told() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let block = mine_one(&mut miner, &user, &daemon, &node, &payout_address(1));
    let hash = block.block_hash().to_string();
    wait_for_standing(&node, &hash, "confirming");
    daemon.call("invalidateblock", serde_json::json!([hash]));
    mine_blocks(&daemon, 2, &payout_address(9).script_pubkey());
    let orphan = wait_for_standing(&node, &hash, "orphaned");
    assert_eq!((&orphan["confirmations"], &orphan["is_settled"]), (&0.into(), &false.into()));
    assert!(node.wait_for_log("BLOCK ORPHANED", SOON).contains(&hash));
    daemon.call("reconsiderblock", serde_json::json!([hash]));
    // Its chain is shorter, so its state is unchanged until that grows.
    assert_eq!(record(&node, &hash).expect("it is remembered")["standing"], "orphaned");
}

/// Runs `p2pool blocks` with further arguments on the node's data directory; returns its output or its error.
fn blocks_command(node: &Node, words: &[&str]) -> Result<String, String> {
    let output = std::process::Command::new(P2POOL)
        .arg("blocks")
        .args(words)
        .args(["--net", "bitcoin_regtest", "--datadir"])
        .arg(node.data_dir())
        .output()
        .expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn a_kept_block_is_exported_and_submitted_again_and_its_routes_are_shown() {
    let daemon = Bitcoind::start();
    let mut node = Node::start(P2POOL, &daemon);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let block = mine_one(&mut miner, &user, &daemon, &node, &payout_address(1));
    let hash = block.block_hash().to_string();
    wait_until("the block is settled on disk", SOON, || node.found_blocks("accepted").len() == 1);

    let told = blocks_command(&node, &["resubmit", &hash]).expect("it is kept");
    assert!(told.starts_with(&format!("block {hash}: accepted")), "{told}");
    assert!(told.contains("rpc") || told.contains("p2p"), "{told}");
    let unknown = "11".repeat(32);
    for order in ["resubmit", "export"] {
        let error = blocks_command(&node, &[order, &unknown]).expect_err("there is none");
        assert!(error.contains(&unknown) && error.contains("getblock"), "{error}");
        let error = blocks_command(&node, &[order, "12ab"]).expect_err("no hash");
        assert!(error.contains("`12ab` is not a block hash"), "{error}");
    }

    // As after a run that ended before it recorded the result, while the daemon has the block.
    node.terminate();
    let exported = blocks_command(&node, &["export", &hash]).expect("the node need not run");
    assert_eq!(exported.trim_end(), daemon.call("getblock", serde_json::json!([hash, 0])).as_str().expect("hex"));
    let kept = node.found_blocks("accepted").remove(0);
    std::fs::rename(&kept, kept.with_extension("block")).expect("the file can be renamed");
    std::fs::remove_file(node.data_dir().join("bitcoin_regtest").join("found_blocks.json")).expect("it is there");
    node.restart();
    wait_until("the routes are noted", SOON, || {
        record(&node, &hash).is_some_and(|record| record["routes"].as_array().is_some_and(|routes| !routes.is_empty()))
    });
    let listed = blocks_command(&node, &[]).expect("the node runs");
    assert!(listed.contains("rpc accepted"), "{listed}");
}

#[test]
fn a_peers_block_is_followed_too_wherever_it_was_submitted() {
    let (ours, theirs) = (Bitcoind::start(), Bitcoind::start());
    theirs.call("addnode", serde_json::json!([format!("127.0.0.1:{}", ours.p2p_port()), "onetry"]));
    wait_until("the daemons are connected", SOON, || {
        ours.call("getconnectioncount", serde_json::json!([])).as_u64().is_some_and(|count| count >= 1)
    });
    let first = Node::start(P2POOL, &ours);
    let second = NodeBuilder::new(P2POOL, &theirs).peer(first.pool_address()).start();
    let user = miner_name(2);
    let mut miner = StratumClient::ready(second.worker_port(), &user);
    let block = mine_one(&mut miner, &user, &theirs, &second, &payout_address(2));
    let hash = block.block_hash().to_string();
    assert_eq!(wait_for_standing(&second, &hash, "confirming")["is_ours"], true);
    let heard = wait_for_standing(&first, &hash, "confirming");
    assert_eq!(heard["is_ours"], false);
    assert!(heard["finder"].as_str().is_some_and(|finder| finder.starts_with("peer 127.0.0.1")), "{heard}");
}
