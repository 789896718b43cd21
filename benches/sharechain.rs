//! Time to check one share on full windows of growing length, and to take a look at the chain for pages (the first one,
//! and one after each share); memory of a full chain; and time until an empty node has checked and stored a downloaded
//! one. The last for share versions 35 and 36 side by side, 36 also with a merged block in each share.
//!
//! `cargo bench --bench sharechain`, with `-- versions` for the comparison of share versions alone, or `-- sync` for the
//! first download alone. Forged shares on a network where nearly every hash is good enough; each is checked in full, so
//! the results hold for shares arriving one by one.

#![allow(clippy::unwrap_used, reason = "a benchmark can do nothing about an error but stop")]

use sharechain::chain::{Event, Sharechain};
use sharechain::coin::{Network, Pow};
use sharechain::share::{Bits, Share};
use sharechain::testkit::{Plan, START, bits_of, merged_address, merged_block, network, network_of_work, share_on};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use p2pool::chain::store::Store;
use sharechain::chain::pool::{Carried, NextBlock, look};

/// Number of payees, in turn.
const PAYEES: u32 = 300;
/// Number of shares timed at each length.
const TIMED: u32 = 500;
/// Length of a real chain.
const LENGTH: u32 = 8_640;
/// Hashes that a share takes where versions are compared: with less, all weights that fade are rounded to 0.
const WORK: u64 = 64;
/// Value of a merged block in base units, 10,000 Dogecoin and fees.
const MERGED_VALUE: u64 = 1_000_000_450_007;
/// Height of the first one.
const MERGED_HEIGHT: u64 = 5_000_000;

/// Sort of shares that a chain consists of.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    version: u64,
    /// True if each share has an address of its payee on the merged chain, and proves that a block there pays all payees
    /// of the window.
    merges: bool,
}

const OLD: Kind = Kind { name: "35", version: 35, merges: false };
const KINDS: [Kind; 3] = [
    OLD,
    Kind { name: "36", version: 36, merges: false },
    Kind { name: "36 with merged blocks", version: 36, merges: true },
];

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|one| one == name);
    if asked.is_empty() {
        windows();
    }
    if is_asked("sync") {
        cold_sync(OLD, network(LENGTH, OLD.version), 1, None);
    }
    if is_asked("versions") {
        versions();
    }
}

/// Windows of growing length.
fn windows() {
    println!(
        "{:>8} {:>12} {:>12} {:>14} {:>12} {:>12}",
        "window", "check µs", "tip µs", "first look µs", "look µs", "kB/share"
    );
    for length in [1_000, 4_000, LENGTH, 16_000, 32_000, 64_000] {
        let (_, [check, tip, first_look, one_look], of_each) = measured(OLD, network(length, OLD.version), 1);
        println!(
            "{length:>8} {:>12.1} {:>12.1} {:>14.1} {:>12.1} {of_each:>12.2}",
            micros(check),
            micros(tip),
            micros(first_look),
            micros(one_look)
        );
    }
}

/// Share versions side by side. The check is without scrypt; for the first download each header is hashed with it once,
/// which costs as much as its proof of work, and is not compared: to find shares with scrypt would take half an hour.
fn versions() {
    let rows = KINDS.map(|kind| {
        let network = network_of_work(LENGTH, kind.version, WORK);
        let (bytes, [check, tip, ..], of_each) = measured(kind, network, WORK);
        let sync = cold_sync(kind, network, WORK, Some(Pow::Scrypt));
        (kind, check, tip, sync, bytes, of_each)
    });
    println!("{LENGTH} shares of {PAYEES} payees; at most 500 µs for a check, 15 s for a cold sync with scrypt:");
    println!(
        "{:<22} {:>10} {:>8} {:>12} {:>12} {:>10}",
        "share version", "check µs", "tip µs", "cold sync s", "bytes/share", "kB/share"
    );
    for (kind, check, tip, sync, bytes, of_each) in rows {
        println!(
            "{:<22} {:>10.1} {:>8.1} {:>12.2} {bytes:>12} {of_each:>10.2}",
            kind.name,
            micros(check),
            micros(tip),
            sync.as_secs_f64(),
        );
    }
}

/// Returns the size of a share in bytes, what [`run`] measures, and the kB of memory that one share takes. Parameters as
/// for [`run`].
fn measured(kind: Kind, network: &'static Network, work: u64) -> (usize, [Duration; 4], f64) {
    let before = resident_kilobytes();
    let (chain, times) = run(kind, network, work);
    let kilobytes = resident_kilobytes().saturating_sub(before);
    let of_each = kilobytes as f64 / chain.all().len() as f64;
    let bytes = chain.choice().best.and_then(|best| chain.share(best)).unwrap().wire_bytes();
    // The next chain must not reuse the memory freed by this one.
    std::mem::forget(chain);
    (bytes, times, of_each)
}

/// Feeds two windows of shares, in replies of 500, newest first, to an empty node: parse (one after the other, as for
/// one peer; with the further hash `pow` of each header), join, check, store. Returns the sum.
fn cold_sync(kind: Kind, network: &'static Network, work: u64, pow: Option<Pow>) -> Duration {
    let bytes = {
        let mut chain = Sharechain::new(network);
        grow(&mut chain, kind, 2 * LENGTH + 10, full_by_number(LENGTH, work));
        let best = chain.choice().best.unwrap();
        let newest_first: Vec<Vec<u8>> =
            chain.all().chain(best, u32::MAX).map(|hash| chain.share(hash).unwrap().to_bytes()).collect();
        newest_first
    };
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap().0;
    let mut chain = Sharechain::new(network);
    let before = resident_kilobytes();
    let now = f64::from(START + 20 * LENGTH);
    let [mut parsing, mut adding, mut thinking, mut storing] = [Duration::ZERO; 4];
    let mut longest = Duration::ZERO;
    for reply in bytes.chunks(500) {
        let begin = Instant::now();
        let shares: Vec<Arc<Share>> =
            reply.iter().map(|bytes| Arc::new(Share::from_bytes(bytes, chain.rules()).unwrap())).collect();
        if let Some(pow) = pow {
            for share in &shares {
                black_box(pow.function()(&share.header()));
            }
        }
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
    let sum = parsing + adding + thinking + storing;
    println!(
        "cold sync of {} shares of version {}, {}, {} verified: {:.2} s (parse {parsing:.2?}, join {adding:.2?}, check {thinking:.2?} with {longest:.1?} at most in one go, store {storing:.2?}), {kilobytes} kB",
        chain.all().len(),
        kind.name,
        if pow.is_some() { "with scrypt" } else { "without scrypt" },
        chain.verified().len(),
        sum.as_secs_f64(),
    );
    assert!(chain.verified().len() >= LENGTH as usize);
    sum
}

/// Block target hard enough for a window of `length` shares, which take `work` hashes each, to be full by number, not by
/// work.
fn full_by_number(length: u32, work: u64) -> Bits {
    bits_of(4 * work * u64::from(length))
}

/// Forges the next share of a chain.
fn forge(chain: &mut Sharechain, kind: Kind, number: u32, block_bits: Bits) -> Arc<Share> {
    let timestamp = START + 10 * number;
    let mut plan = Plan { payee: number % PAYEES, timestamp, block_bits, nonce: number, ..Plan::default() };
    if kind.merges {
        plan.merged_addresses = vec![merged_address(plan.payee)];
        plan.merged_coinbase_info = vec![merged_block(&chain.tip(), MERGED_VALUE, MERGED_HEIGHT + u64::from(number))];
    }
    let best = chain.choice().best;
    share_on(chain, best, &plan)
}

/// Adds `count` shares.
fn grow(chain: &mut Sharechain, kind: Kind, count: u32, block_bits: Bits) {
    for number in 0..count {
        let share = forge(chain, kind, number, block_bits);
        let now = f64::from(share.timestamp());
        chain.add(share, None, now);
        chain.think(now);
        while chain.poll_event().is_some() {}
    }
}

/// Fills a window of shares that take `work` hashes each, then times the checks of more, and the making of tips.
fn run(kind: Kind, network: &'static Network, work: u64) -> (Sharechain, [Duration; 4]) {
    let mut chain = Sharechain::new(network);
    let length = network.chain_length;
    let block_bits = full_by_number(length, work);
    let mut spent = [Duration::ZERO; 3];
    let mut first_look = Duration::ZERO;
    let mut carried = Carried::default();
    let block = Some(NextBlock { target: block_bits.target(), value: 625_000_000 });
    for number in 0..length + 10 + TIMED {
        let share = forge(&mut chain, kind, number, block_bits);
        // As from a peer: without anything computed before.
        let bytes = share.to_bytes();
        let now = f64::from(share.timestamp());
        let begin = Instant::now();
        let share = Arc::new(Share::from_bytes(&bytes, chain.rules()).unwrap());
        chain.add(share, None, now);
        chain.think(now);
        let checked = Instant::now();
        chain.tip();
        let told = Instant::now();
        // As in a node, where miners have the tip by now.
        chain.prepare();
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
    assert_eq!(chain.tip().weights(block_bits.target()).by_payee.len(), PAYEES as usize);
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
