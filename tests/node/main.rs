//! The whole node as its users run it, against a real bitcoind: each test has a daemon, a node and miners of its own.

mod block_found;
mod daemon_trouble;
mod demo;
mod metrics;
mod refusals;
mod shutdown;
mod startup;
mod usernames;

use bitcoin::{Address, BlockHash};
use std::time::Duration;
use test_support::{Bitcoind, Job, StratumClient, payout_address, wait_until};

/// The product.
const P2POOL: &str = env!("CARGO_BIN_EXE_p2pool");

/// How long a block may take from the miner's submission to the daemon's chain.
const LANDING_LIMIT: Duration = Duration::from_secs(10);

/// A user name that is paid to `payout_address(seed)`, at a difficulty that a test solves in a moment.
fn miner_name(seed: u8) -> String {
    format!("{}.rig+0.00001", payout_address(seed))
}

/// Waits until the daemon's best block is `hash`.
fn wait_for_best(daemon: &Bitcoind, hash: BlockHash) {
    wait_until(&format!("{hash} becomes the best block"), LANDING_LIMIT, || daemon.best_block_hash() == hash);
}

/// Waits for a job on the daemon's best block.
fn job_on_tip(miner: &mut StratumClient, daemon: &Bitcoind) -> Job {
    let tip = daemon.best_block_hash();
    miner.wait_for_job(|job| job.previous_block_hash() == tip)
}

/// Mines a block on the daemon's best one, waits until it is there, and checks that all of it is paid to `payee`.
fn mine_one(miner: &mut StratumClient, user: &str, daemon: &Bitcoind, payee: &Address) -> bitcoin::Block {
    let found = job_on_tip(miner, daemon).solve_block();
    assert_eq!(miner.submit(user, &found), Ok(true));
    wait_for_best(daemon, found.hash);
    let block = daemon.block(&found.hash);
    check_coinbase(daemon, &block, payee);
    block
}

/// Checks that a block's coinbase pays subsidy and fees to `payee`, and nothing to anybody else.
fn check_coinbase(daemon: &Bitcoind, block: &bitcoin::Block, payee: &Address) {
    let height = daemon.height();
    let stats = daemon.call("getblockstats", serde_json::json!([height, ["subsidy", "totalfee"]]));
    let due = stats["subsidy"].as_u64().expect("a number") + stats["totalfee"].as_u64().expect("a number");
    let script = payee.script_pubkey();
    let (paid, other): (Vec<_>, Vec<_>) =
        block.txdata[0].output.iter().partition(|output| output.script_pubkey == script);
    assert_eq!(paid.iter().map(|output| output.value.to_sat()).sum::<u64>(), due, "to {payee} at height {height}");
    assert!(other.iter().all(|output| output.value.to_sat() == 0), "others are paid: {other:?}");
}
