//! Cost of a node for its pool, with the product as its users run it: time and memory of an empty node until it has
//! received and checked a full chain, and latency of a share from the miner who found it to the miners of the next
//! node.
//!
//! `cargo bench --bench network`, with `-- sync` or `-- relay` for one of the two. Two nodes on the loopback interface
//! and a real bitcoind; forged shares of 300 payees, on a network where a share takes a few hundred hashes.

#![allow(clippy::unwrap_used, reason = "a benchmark can do nothing about an error but stop")]

use sharechain::chain::Sharechain;
use sharechain::coin::{Network, from_toml};
use sharechain::testkit::{Plan, bits_of, share_on};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bitcoin::hashes::Hash;
use bitcoin::{Address, KnownHrp, WPubkeyHash, WitnessProgram, WitnessVersion};
use p2pool::chain::store::Store;
use tempfile::TempDir;
use test_support::{Bitcoind, Node, NodeBuilder, StratumClient, metric_value};

/// Length of a full chain.
const LENGTH: u32 = 8_640;
/// Number of shares that a node keeps.
const KEPT: u32 = 2 * LENGTH + 10;
/// Number of payees, in turn.
const PAYEES: u32 = 300;
/// Seconds between shares.
const PERIOD: u32 = 10;
/// Number of shares whose relay is timed.
const RELAYED: usize = 60;
/// Pause between two of them; on a real network it is longer.
const PAUSE: Duration = Duration::from_millis(150);
/// Timeout of every step.
const PATIENCE: Duration = Duration::from_secs(300);

/// A private signet whose challenge is `51`, where a block takes five million hashes.
const TABLE: &str = r#"
BASE = "bitcoin_signet"
NAME = "forged"
IDENTIFIER = "6532652065617380"
PREFIX = "6532652070656573"
SHARE_PERIOD = 10
CHAIN_LENGTH = 8640
REAL_CHAIN_LENGTH = 8640
TARGET_LOOKBEHIND = 200
SPREAD = 3
START_VERSION = 35
MINIMUM_PROTOCOL_VERSION = 1400
MAX_TARGET = "00ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
PERSIST = false

[PARENT]
MAGIC = "54d26fbd"
"#;

fn main() {
    let is_asked = |name: &str| {
        let names: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
        names.is_empty() || names.iter().any(|asked| asked == name)
    };
    let network: &'static Network = Box::leak(Box::new(from_toml(TABLE).unwrap()));
    let table = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(table.path(), TABLE).unwrap();
    let bench = Bench {
        network,
        table: table.path().to_str().unwrap().to_owned(),
        daemon: Bitcoind::start_with(&["-chain=signet", "-signetchallenge=51"]),
    };
    if is_asked("sync") {
        bench.sync(LENGTH);
        bench.sync(KEPT);
    }
    if is_asked("relay") {
        bench.relay();
    }
}

struct Bench {
    network: &'static Network,
    table: String,
    daemon: Bitcoind,
}

impl Bench {
    /// Starts a node that has `count` shares already.
    fn full(&self, count: u32) -> Node {
        let node = self.builder().spawn_in(stored(self.network, count));
        node.wait_ready();
        wait_for(&node, &[("sharechain_height ", count), ("sharechain_verified_shares ", LENGTH)]);
        node
    }

    fn builder(&self) -> NodeBuilder {
        NodeBuilder::new(env!("CARGO_BIN_EXE_p2pool"), &self.daemon)
            .network(&self.table)
            .address(Some(&payee(0xff).to_string()))
    }

    /// Measures the time from a node's start until it has a chain of `count` shares.
    fn sync(&self, count: u32) {
        let full = self.full(count);
        let begin = Instant::now();
        let node = self.builder().peer(full.pool_address()).spawn();
        let first = wait_for(&node, &[("sharechain_shares ", 1)]) - begin;
        let all = wait_for(&node, &[("sharechain_verified_shares ", LENGTH)]) - begin;
        println!(
            "cold sync from a node with {count} shares: {:.2} s from the process's start (first shares after {:.2} s), \
             {} shares, {LENGTH} of them verified, {} MB at most; the node that has them: {} MB at most",
            all.as_secs_f64(),
            first.as_secs_f64(),
            metric(&node, "sharechain_shares "),
            node.memory_peak() / 1_000_000,
            full.memory_peak() / 1_000_000,
        );
    }

    /// Measures the time from a submission to one node until the miners of another have work on top of the share.
    fn relay(&self) {
        let finder = self.full(KEPT);
        let other = self.builder().peer(finder.pool_address()).spawn();
        wait_for(&other, &[("sharechain_verified_shares ", LENGTH)]);
        other.wait_ready();
        let user = format!("{}.rig+1e9", payee(1));
        let mut miner = StratumClient::ready(finder.worker_port(), &user);
        let mut told = [&finder, &other].map(|node| (watch(node.worker_port()), Vec::new()));
        let before = metric(&other, "sharechain_received_shares_total");
        for _ in 0..RELAYED {
            std::thread::sleep(PAUSE);
            miner.poll();
            let job = miner.job();
            let (share, block) = (job.submission_target(), job.block_target());
            let found = job.search(|hash| hash <= share && hash > block);
            told.iter().for_each(|(jobs, _)| jobs.try_iter().for_each(drop));
            let begin = Instant::now();
            assert_eq!(miner.submit(&user, &found), Ok(true));
            for (jobs, took) in &mut told {
                took.push(jobs.recv_timeout(PATIENCE).unwrap() - begin);
            }
            // On a busy machine this thread may run late; a share found on an old job would be no new tip.
            miner.wait_for_job(|next| next.clean && next.id != job.id);
        }
        assert_eq!(metric(&finder, "sharechain_own_shares_total{kind=\"in_time\"}"), RELAYED as f64);
        assert_eq!(metric(&other, "sharechain_received_shares_total") - before, RELAYED as f64);
        println!("{RELAYED} shares on a chain of {KEPT}, from the submission to a job on top of it:");
        println!("    to the finder's miners: {}", spread_of(&mut told[0].1));
        println!("    to the miners of another node: {}", spread_of(&mut told[1].1));
    }
}

/// Reports the times of new jobs that replace older ones.
fn watch(worker_port: u16) -> mpsc::Receiver<Instant> {
    let (jobs, arrivals) = mpsc::channel();
    let mut miner = StratumClient::ready(worker_port, &format!("{}.rig+1e9", payee(2)));
    std::thread::spawn(move || {
        while let Ok(notification) = miner.next_notification(PATIENCE) {
            let now = Instant::now();
            let is_clean = notification.method == "mining.notify" && miner.job().clean;
            if is_clean && jobs.send(now).is_err() {
                break;
            }
        }
    });
    arrivals
}

fn metric(node: &Node, name: &str) -> f64 {
    metric_value(&node.metrics(), name).unwrap_or(0.0)
}

/// Creates a data directory with a forged chain that ends now.
fn stored(network: &'static Network, count: u32) -> TempDir {
    let now = u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let mut chain = Sharechain::new(network);
    // So hard that none of them is a block.
    let block_bits = bits_of(1 << 40);
    for number in 0..count {
        let timestamp = now - PERIOD * (count - number);
        let plan = Plan { payee: number % PAYEES, timestamp, block_bits, nonce: number, ..Plan::default() };
        let best = chain.choice().best;
        let share = share_on(&mut chain, best, &plan);
        chain.add(share, None, f64::from(timestamp));
        chain.think(f64::from(timestamp));
        while chain.poll_event().is_some() {}
    }
    let dir = tempfile::Builder::new().prefix("p2pool-node-").tempdir().unwrap();
    let mut store = Store::open(&dir.path().join(network.name)).unwrap().0;
    let newest_first: Vec<_> = chain.all().chain(chain.choice().best.unwrap(), u32::MAX).collect();
    for hash in newest_first.into_iter().rev() {
        let share = chain.share(hash).unwrap();
        store.append_share(hash, &share.to_bytes(), share.timestamp(), true).unwrap();
    }
    store.sync().unwrap();
    dir
}

/// Waits until a node's metrics are at least these, and returns the time.
fn wait_for(node: &Node, wanted: &[(&str, u32)]) -> Instant {
    let begin = Instant::now();
    loop {
        let metrics = node.try_get("/metrics").map(|response| response.body).unwrap_or_default();
        let now = Instant::now();
        let is_there = |(name, least): &(&str, u32)| metric_value(&metrics, name).unwrap_or(0.0) >= f64::from(*least);
        if wanted.iter().all(is_there) {
            return now;
        }
        assert!(begin.elapsed() < PATIENCE, "{wanted:?} is not reached; the node said:\n{}", node.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn spread_of(times: &mut [Duration]) -> String {
    times.sort();
    let of = |place: usize| times[place.min(times.len() - 1)].as_secs_f64() * 1e3;
    format!(
        "median {:.1} ms, 90 of 100 within {:.1} ms, longest {:.1} ms",
        of(times.len() / 2),
        of(times.len() * 9 / 10),
        of(times.len() - 1)
    )
}

fn payee(seed: u8) -> Address {
    let hash = WPubkeyHash::from_byte_array([seed; 20]);
    let program = WitnessProgram::new(WitnessVersion::V0, hash.as_byte_array()).unwrap();
    Address::from_witness_program(program, KnownHrp::Testnets)
}
