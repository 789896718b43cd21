//! Time to check one share on full windows of growing length, and to take a look at the chain for pages (the first one,
//! and one after each share); memory of a full chain; and time until an empty node has checked and stored a downloaded
//! one.
//!
//! `cargo bench --bench sharechain`, with `-- sync` for the last one alone. Forged shares on a network where nearly
//! every hash is good enough; each is checked in full, so the results hold for shares arriving one by one.

#![allow(clippy::unwrap_used, reason = "a benchmark can do nothing about an error but stop")]

use sharechain::chain::{Event, Sharechain};
use sharechain::share::Share;
use sharechain::testkit::{Plan, START, bits_of, network, share_on};
use std::sync::Arc;
use std::time::{Duration, Instant};

use p2pool::chain::store::Store;
use sharechain::chain::pool::{Carried, NextBlock, look};

/// Number of payees, in turn.
const PAYEES: u32 = 300;
/// Number of shares timed at each length.
const TIMED: u32 = 500;

fn main() {
    println!(
        "{:>8} {:>12} {:>12} {:>14} {:>12} {:>12}",
        "window", "check µs", "tip µs", "first look µs", "look µs", "kB/share"
    );
    let only_sync = std::env::args().any(|argument| argument == "sync");
    for length in [1_000, 4_000, 8_640, 16_000, 32_000, 64_000].into_iter().filter(|_| !only_sync) {
        let before = resident_kilobytes();
        let (chain, [check, tip, first_look, one_look]) = run(length);
        let kilobytes = resident_kilobytes().saturating_sub(before);
        let shares = chain.all().len() as u64;
        let of_each = kilobytes as f64 / shares as f64;
        println!(
            "{length:>8} {:>12.1} {:>12.1} {:>14.1} {:>12.1} {of_each:>12.2}",
            micros(check),
            micros(tip),
            micros(first_look),
            micros(one_look)
        );
        // The next length must not reuse the memory freed by this one.
        std::mem::forget(chain);
    }
    cold_sync();
}

/// Feeds two windows of shares, in replies of 500, newest first, to an empty node: parse, join, check, store.
fn cold_sync() {
    let length = 8_640;
    let network = network(length, 35);
    let bytes = {
        let mut chain = Sharechain::new(network);
        grow(&mut chain, length, 2 * length + 10);
        let best = chain.choice().best.unwrap();
        let newest_first: Vec<Vec<u8>> =
            chain.all().chain(best, u32::MAX).map(|hash| chain.share(hash).unwrap().to_bytes()).collect();
        newest_first
    };
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap().0;
    let mut chain = Sharechain::new(network);
    let before = resident_kilobytes();
    let now = f64::from(START + 20 * length);
    let [mut parsing, mut adding, mut thinking, mut storing] = [Duration::ZERO; 4];
    let mut longest = Duration::ZERO;
    for reply in bytes.chunks(500) {
        let begin = Instant::now();
        let shares: Vec<Arc<Share>> =
            reply.iter().map(|bytes| Arc::new(Share::from_bytes(bytes, chain.rules()).unwrap())).collect();
        let parsed = Instant::now();
        chain.add_all(shares, None, now);
        let added = Instant::now();
        (parsing, adding) = (parsing + (parsed - begin), adding + (added - parsed));
        loop {
            let begin = Instant::now();
            let is_whole = chain.think_while(now, &mut || begin.elapsed() < Duration::from_millis(4));
            chain.bound();
            let thought = Instant::now();
            thinking += thought - begin;
            longest = longest.max(thought - begin);
            while let Some(event) = chain.poll_event() {
                if let Event::Verified(hash) = event {
                    store.append_share(hash, &chain.share(hash).unwrap().to_bytes(), 1, true).unwrap();
                }
            }
            storing += thought.elapsed();
            if is_whole {
                break;
            }
        }
    }
    let kilobytes = resident_kilobytes().saturating_sub(before);
    let seconds = (parsing + adding + thinking + storing).as_secs_f64();
    println!(
        "cold sync of {} shares, {} verified: {seconds:.2} s (parse {parsing:.2?}, join {adding:.2?}, check {thinking:.2?} with {longest:.1?} at most in one go, store {storing:.2?}), {kilobytes} kB",
        chain.all().len(),
        chain.verified().len(),
    );
    assert!(chain.verified().len() >= length as usize);
}

/// Adds `count` shares, of which a window is full by number.
fn grow(chain: &mut Sharechain, length: u32, count: u32) {
    let block_bits = bits_of(4 * u64::from(length));
    for number in 0..count {
        let timestamp = START + 10 * number;
        let plan = Plan { payee: number % PAYEES, timestamp, block_bits, nonce: number, ..Plan::default() };
        let best = chain.choice().best;
        let share = share_on(chain, best, &plan);
        chain.add(share, None, f64::from(timestamp));
        chain.think(f64::from(timestamp));
        while chain.poll_event().is_some() {}
    }
}

/// Fills a window of `length` shares, then times the checks of more, and the making of tips.
fn run(length: u32) -> (Sharechain, [Duration; 4]) {
    let network = network(length, 35);
    let mut chain = Sharechain::new(network);
    // Hard enough for the window to be full by number, not by work.
    let block_bits = bits_of(4 * u64::from(length));
    let mut timestamp = START;
    let mut spent = [Duration::ZERO; 3];
    let mut first_look = Duration::ZERO;
    let mut carried = Carried::default();
    let block = Some(NextBlock { target: block_bits.target(), value: 625_000_000 });
    for number in 0..length + 10 + TIMED {
        timestamp += 10;
        let plan = Plan { payee: number % PAYEES, timestamp, block_bits, nonce: number, ..Plan::default() };
        let best = chain.choice().best;
        let share = share_on(&mut chain, best, &plan);
        // As from a peer: without anything computed before.
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
            let begin = Instant::now();
            let looked = look(&chain, std::mem::take(&mut carried), block);
            let took = begin.elapsed();
            if number == length + 10 {
                first_look = took;
            }
            spent[2] += took;
            carried = looked.into_carried();
        }
    }
    assert_eq!(u32::try_from(chain.verified().len()), Ok(length + 10 + TIMED));
    (chain, [spent[0] / TIMED, spent[1] / TIMED, first_look, spent[2] / TIMED])
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Memory of this process in kB; 0 where the system does not report it.
fn resident_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
