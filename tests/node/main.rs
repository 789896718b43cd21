//! The whole node against a real bitcoind: each test has its own daemon, node and miners.

mod access;
mod api;
mod bench;
mod block_found;
mod console;
mod containers;
mod control;
mod daemon_trouble;
mod demo;
mod difficulty;
mod disk;
mod doors;
mod files;
mod found;
mod gate;
mod json;
mod ledger;
mod metrics;
mod pages;
mod peers;
mod prometheus;
mod refusals;
mod restart;
mod share_command;
mod shares;
mod shutdown;
mod startup;
mod strangers;
mod takeover;
mod usernames;
mod web;
mod words;

use bitcoin::{Address, BlockHash};
use sharechain::coin::BITCOIN_REGTEST;
use std::time::Duration;
use test_support::{Bitcoind, Job, Node, StratumClient, payout_address, wait_until};

use ledger::{Ledger, share_hash};

/// Path of the program.
const P2POOL: &str = env!("CARGO_BIN_EXE_p2pool");

/// Time limit from a miner's submission until the block is in the daemon's chain.
const LANDING_LIMIT: Duration = Duration::from_secs(10);

/// User name that pays `payout_address(seed)`, at a difficulty that a test solves in a moment.
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

/// Mines a block on the daemon's best one, waits until it is accepted, and checks that it pays what is due by the
/// shares before it, with `finder` as the finder.
fn mine_one(miner: &mut StratumClient, user: &str, daemon: &Bitcoind, node: &Node, finder: &Address) -> bitcoin::Block {
    let found = job_on_tip(miner, daemon).solve_block();
    assert_eq!(miner.submit(user, &found), Ok(true));
    wait_for_best(daemon, found.hash);
    let block = daemon.block(&found.hash);
    check_coinbase(daemon, node, &block, finder);
    block
}

/// Checks that a block's coinbase pays subsidy and fees by the shares before it, to the satoshi, with `finder` as the
/// finder. On regtest every block is a share.
fn check_coinbase(daemon: &Bitcoind, node: &Node, block: &bitcoin::Block, finder: &Address) {
    let ledger = Ledger::with(node, &BITCOIN_REGTEST, share_hash(block.block_hash()));
    let due = ledger.check_block(daemon, block, finder);
    let part = due.outputs.iter().map(|(_, amount)| amount).sum::<u64>() / 200;
    let paid = due.outputs.iter().find(|(script, _)| *script == finder.script_pubkey().into_bytes());
    assert!(paid.is_some_and(|(_, amount)| *amount >= part), "the finder's part is missing: {due:?}");
}
