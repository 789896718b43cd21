//! A node that mines merged chains beside a real `bitcoind` or `litecoind`. Their daemons are the one of
//! `p2pool::embedded::auxiliary`, which judges each proof of work with code of its own.

#![allow(clippy::unwrap_used, reason = "a test can do nothing about an error but fail")]

mod daemons;
mod mining;
mod payouts;
mod restart;
mod shown;
mod trouble;
#[path = "../litecoin/window.rs"]
mod window;

use bitcoin::{BlockHash, Target};
use serde_json::Value;
use std::time::Duration;
use test_support::{Bitcoind, Job, Node, NodeBuilder, StratumClient, Submission, payout_address, wait_until};

use daemons::{Aux, Auxes};

/// Path of the program.
const P2POOL: &str = env!("CARGO_BIN_EXE_p2pool");

/// Time until what a test waits for has happened, on a machine that runs other tests too.
const LIMIT: Duration = Duration::from_secs(60);

/// Bits of which every hash is a block.
const EVERY_HASH: u32 = 0x2100_ffff;

/// Target of every hash.
fn every_hash() -> Target {
    Target::from_be_bytes([0xff; 32])
}

/// User name of a miner that submits every other hash.
fn miner_name(seed: u8) -> String {
    format!("{}.rig+1e-9", payout_address(seed))
}

/// Starts a node that mines these chains.
fn start(daemon: &Bitcoind, chains: &[&Aux]) -> Node {
    let options: Vec<String> = chains.iter().flat_map(|chain| ["--merged".to_owned(), chain.option()]).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    NodeBuilder::new(P2POOL, daemon).args(&options).start()
}

/// Waits for a job that commits to the next block of each of `chains`.
fn job_for(miner: &mut StratumClient, chains: &[&Aux]) -> Job {
    let commits = |job: &Job| commitment(&job.coinbase_start).is_some_and(|found| found == Auxes::commitment(chains));
    miner.try_wait_for_job(commits, LIMIT).expect("jobs follow the merged chains")
}

/// Commitment to merged chains in a coinbase: the tree's root, and its size.
fn commitment(coinbase: &[u8]) -> Option<([u8; 32], u32)> {
    let at = coinbase.windows(4).position(|four| four == [0xfa, 0xbe, 0x6d, 0x6d])?;
    let root = coinbase.get(at + 4..at + 36)?.try_into().ok()?;
    Some((root, u32::from_le_bytes(coinbase.get(at + 36..at + 40)?.try_into().ok()?)))
}

/// Finds a header that is a block of the parent chain, or is none, with a hash of at most `target`.
fn solve(job: &Job, target: Target, is_block: bool) -> Submission {
    let block = job.block_target();
    assert!(is_block || target > block, "no hash is both");
    job.search(|hash| hash <= target && (hash <= block) == is_block)
}

/// Submits a hash that only a merged chain takes. It is easier than the port's minimum difficulty, so the miner is not
/// credited, but the block counts.
fn submit_easy(miner: &mut StratumClient, user: &str, submission: &Submission) {
    let answer = miner.submit(user, submission);
    assert!(answer.as_ref().is_err_and(|error| error.code() == Some(23)), "{answer:?}");
}

/// The node's record of a merged chain's block.
fn record(node: &Node, chain: &Aux, hash: BlockHash) -> Option<Value> {
    let folder = node.data_dir().join("bitcoin_regtest").join("merged").join(chain.name());
    let content: Value = serde_json::from_slice(&std::fs::read(folder.join("found_blocks.json")).ok()?).unwrap();
    content["blocks"].as_array().unwrap().iter().find(|one| one["hash"] == hash.to_string()).cloned()
}

fn wait_for_standing(node: &Node, chain: &Aux, hash: BlockHash, standing: &str) -> Value {
    let is_there = || record(node, chain, hash).filter(|record| record["standing"] == standing);
    wait_until(&format!("{hash} of {} is {standing}", chain.name()), LIMIT, || is_there().is_some());
    is_there().unwrap()
}
