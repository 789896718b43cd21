//! A node on Litecoin against a real `litecoind` whose extension block (MWEB) is active. Every found block must carry the
//! template's extension block, whatever its route to the daemon.

#![allow(clippy::unwrap_used, reason = "a test can do nothing about an error but fail")]

mod cpu_miner;
mod full_blocks;
mod reorganised;
mod routes;
mod version36;
mod window;

use bitcoin::BlockHash;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use test_support::{Job, Litecoind, Node, StratumClient, wait_until};

use cpu_miner::CpuMiner;

/// Path of the program.
const P2POOL: &str = env!("CARGO_BIN_EXE_p2pool");

/// Time until a miner at a few hashes per second has found what a test waits for.
const LIMIT: Duration = Duration::from_secs(60);

/// Height of the first block with an extension block.
const FIRST: u64 = 432;

/// Name of a miner that is paid at `address`, at a difficulty of a few hashes of scrypt.
fn miner_name(address: &str) -> String {
    format!("{address}.rig+1e-9")
}

/// Puts a transaction of every kind into the mempool: one outside the extension block, one into it, one inside, and one
/// out of it, which pays `payee`. Returns the id of the first.
fn send_every_kind(daemon: &Litecoind, payee: &str) -> String {
    let outside = daemon.send(&daemon.new_address(), 1.0);
    daemon.peg_in();
    daemon.send_in_mweb(1.5);
    daemon.peg_out(payee, 2.0);
    outside
}

/// Hash of the block at `height`.
fn hash_at(daemon: &Litecoind, height: u64) -> BlockHash {
    serde_json::from_value(daemon.call("getblockhash", json!([height]))).expect("the best chain is that high")
}

/// Waits for a job on the daemon's best block.
fn job_on_tip(miner: &mut StratumClient, daemon: &Litecoind) -> Job {
    let tip = daemon.best_block_hash();
    miner.try_wait_for_job(|job| job.previous_block_hash() == tip, LIMIT).expect("jobs follow the daemon's chain")
}

/// Checks that a block has an extension block, and that its coinbase pays `payee` and divides subsidy and fees to the
/// last unit. Returns the block as `getblock` shows it.
fn check_block(daemon: &Litecoind, hash: BlockHash, payee: &str) -> Value {
    let block = daemon.call("getblock", json!([hash, 2]));
    assert_eq!(block["mweb"]["height"], block["height"], "{hash} has no extension block");
    let transactions = block["tx"].as_array().expect("a block has transactions");
    let [coinbase, .., hogex] = &transactions[..] else { panic!("too few transactions: {transactions:?}") };
    assert_eq!(hogex["vout"][0]["scriptPubKey"]["type"], "witness_mweb_hogaddr");
    let stats = daemon.call("getblockstats", json!([hash, ["subsidy", "totalfee"]]));
    let due = stats["subsidy"].as_u64().expect("a number") + stats["totalfee"].as_u64().expect("a number");
    let outputs = coinbase["vout"].as_array().expect("a coinbase has outputs");
    let paid = |output: &Value| bitcoin::Amount::from_btc(output["value"].as_f64()?).ok().map(bitcoin::Amount::to_sat);
    assert_eq!(outputs.iter().map(|output| paid(output).expect("an amount")).sum::<u64>(), due);
    let to_payee: u64 =
        outputs.iter().filter(|one| one["scriptPubKey"]["addresses"][0] == payee).filter_map(paid).sum();
    assert!(to_payee >= due / 200, "the finder's part is missing: {outputs:?}");
    block
}

/// The node's record of a found block.
fn record(node: &Node, hash: BlockHash) -> Option<Value> {
    let path = node.data_dir().join("litecoin_regtest").join("found_blocks.json");
    let content: Value = serde_json::from_slice(&std::fs::read(path).ok()?).expect("it is always whole");
    content["blocks"].as_array().expect("a list").iter().find(|one| one["hash"] == hash.to_string()).cloned()
}

fn wait_for_standing(node: &Node, hash: BlockHash, standing: &str) {
    wait_until(&format!("{hash} is {standing}"), LIMIT, || {
        record(node, hash).is_some_and(|record| record["standing"] == standing)
    });
}

#[test]
fn the_scrypt_miner_finds_the_first_extension_block_and_later_ones_until_its_payouts_can_be_spent() {
    let daemon = Litecoind::start();
    daemon.mine(431);
    daemon.peg_in();
    let node = Node::start(P2POOL, &daemon);
    let (payee, pegged_out) = (daemon.new_address(), daemon.new_address());
    let miner = CpuMiner::start(&node, &payee);
    wait_until("the first block with an extension is found", LIMIT, || daemon.height() >= FIRST);
    send_every_kind(&daemon, &pegged_out);
    wait_until("every transaction is mined", LIMIT, || daemon.mempool().is_empty());
    let printed = miner.stop();
    assert!(printed.contains("submission accepted") && printed.contains(" H/s"), "{printed}");
    wait_until("every block is settled", LIMIT, || node.found_blocks("block").is_empty());
    let found: Vec<BlockHash> = (FIRST..=daemon.height()).map(|height| hash_at(&daemon, height)).collect();
    let blocks: Vec<Value> = found.iter().map(|hash| check_block(&daemon, *hash, &payee)).collect();
    // Every transaction but the first kind has one kernel, and so has the peg-in of the first block.
    let kernels: u64 = blocks.iter().filter_map(|block| block["mweb"]["num_kernels"].as_u64()).sum();
    assert_eq!(kernels, 4);
    let pays = |output: &Value| output["scriptPubKey"]["addresses"][0] == pegged_out;
    let outputs = blocks.iter().filter_map(|block| block["tx"].as_array()?.last()?["vout"].as_array()).flatten();
    assert_eq!(outputs.filter(|output| pays(output)).count(), 1);

    // What the node keeps is the daemon's block to the byte, extension and all.
    let exported = Command::new(P2POOL)
        .args(["blocks", "export", &found[0].to_string(), "--net", "litecoin_regtest", "--datadir"])
        .arg(node.data_dir())
        .output()
        .expect("the program runs");
    let exported = String::from_utf8(exported.stdout).expect("hex");
    assert_eq!(exported.trim_end(), daemon.call("getblock", json!([found[0], 0])).as_str().expect("hex"));

    wait_for_standing(&node, found[0], "confirming");
    daemon.mine(100);
    for hash in &found {
        wait_for_standing(&node, *hash, "mature");
    }
    wait_until("no block's bytes are kept for ever", LIMIT, || node.found_blocks("accepted").is_empty());
    let spendable = daemon.call_wallet("main", "listunspent", json!([1, 9_999_999, [payee]]));
    assert_eq!(spendable.as_array().map(Vec::len), Some(found.len()), "{spendable}");
}

#[test]
fn mining_goes_on_when_litecoind_was_restarted() {
    let mut daemon = Litecoind::start_with_mweb();
    let node = Node::start(P2POOL, &daemon);
    let payee = daemon.payout_address(1);
    let _miner = CpuMiner::start(&node, &payee);
    wait_until("a block is found", LIMIT, || daemon.height() > FIRST);
    daemon.stop();
    daemon.restart();
    let before = daemon.height();
    daemon.send_in_mweb(1.0);
    daemon.peg_in();
    wait_until("blocks are found again, with the new transactions", LIMIT, || {
        daemon.height() > before && daemon.mempool().is_empty()
    });
    for height in before + 1..=daemon.height() {
        check_block(&daemon, hash_at(&daemon, height), &payee);
    }
}
