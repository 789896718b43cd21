//! How long the check of one share takes on full windows of growing length, and what a full chain weighs in memory.
//!
//! `cargo bench --bench sharechain`. Forged shares on a network where nearly every hash is good enough; each is checked in
//! full, so the figures are those of shares that arrive on the steady path.

#![allow(clippy::unwrap_used, reason = "a benchmark can do nothing about an error but stop")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use p2pool::share::Share;
use p2pool::sharechain::Sharechain;
use p2pool::simulation::forge::{Plan, START, bits_of, network, share_on};

/// Payees that take turns.
const PAYEES: u32 = 300;
/// Shares that are timed at each length.
const TIMED: u32 = 500;

fn main() {
    println!("{:>8} {:>12} {:>12} {:>12}", "window", "check µs", "tip µs", "kB/share");
    for length in [1_000, 4_000, 8_640, 16_000, 32_000, 64_000] {
        let before = resident_kilobytes();
        let (chain, check, tip) = run(length);
        let kilobytes = resident_kilobytes().saturating_sub(before);
        let shares = chain.all().len() as u64;
        let of_each = kilobytes as f64 / shares as f64;
        println!("{length:>8} {:>12.1} {:>12.1} {of_each:>12.2}", micros(check), micros(tip));
        // What the next length allocates should not fit into what this one leaves.
        std::mem::forget(chain);
    }
}

/// Fills a window of `length` shares, then times the checks of more, and the making of tips.
fn run(length: u32) -> (Sharechain, Duration, Duration) {
    let network = network(length, 35);
    let mut chain = Sharechain::new(network);
    // Hard enough for the window to be full by number, not by work.
    let block_bits = bits_of(4 * u64::from(length));
    let mut timestamp = START;
    let mut spent = [Duration::ZERO; 2];
    for number in 0..length + 10 + TIMED {
        timestamp += 10;
        let plan = Plan { payee: number % PAYEES, timestamp, block_bits, nonce: number, ..Plan::default() };
        let best = chain.choice().best;
        let share = share_on(&mut chain, best, &plan);
        // As it would come from a peer: nothing of it was computed here before.
        let bytes = share.to_bytes();
        let now = f64::from(timestamp);
        let begin = Instant::now();
        let share = Arc::new(Share::from_bytes(&bytes, chain.rules()).unwrap());
        chain.add(share, None, now);
        chain.think(now);
        let checked = Instant::now();
        chain.tip();
        let told = Instant::now();
        while chain.poll_event().is_some() {}
        if number >= length + 10 {
            spent[0] += checked - begin;
            spent[1] += told - checked;
        }
    }
    assert_eq!(u32::try_from(chain.verified().len()), Ok(length + 10 + TIMED));
    (chain, spent[0] / TIMED, spent[1] / TIMED)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Memory of this process; 0 where the system does not say.
fn resident_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
