//! `p2pool demo`: no daemon, a readable summary, and an orderly end.

use std::time::Duration;
use test_support::{NodeBuilder, StratumClient, payout_address};

use crate::P2POOL;

/// User names of the demo's miners.
const NAMES: [&str; 3] = ["alice", "bob", "carol"];

/// Time for three blocks, about ten seconds each, on a machine that runs other tests too.
const DEMO_LIMIT: Duration = Duration::from_secs(180);

#[test]
fn the_demo_finds_three_blocks_tells_the_story_and_ends_well() {
    let mut demo = NodeBuilder::demo(P2POOL).args(&["--blocks", "3"]).spawn();
    let exit = demo.wait_exit(DEMO_LIMIT);
    let story = demo.log();
    assert_eq!(exit.status.code(), Some(0), "{story}");
    let lower = story.to_lowercase();
    for part in
        ["listening", &demo.worker_port().to_string(), "job", "difficulty", "accepted", "share 1 found by", "3 workers"]
    {
        assert!(lower.contains(part), "nothing about {part:?} in:\n{story}");
    }
    for height in 1..=3 {
        check_payout_table(&story, height, &["bcrt1q"], 0.25);
    }
    assert!(!story.contains('\r') && !story.contains('\u{1b}'), "a pipe is no terminal:\n{story:?}");
    // The output is short enough to be read in full.
    assert!(story.lines().count() < 60, "{} lines:\n{story}", story.lines().count());
}

#[test]
fn the_demo_of_litecoin_finds_blocks_by_scrypt_and_pays_litecoins_addresses() {
    let mut demo = NodeBuilder::demo(P2POOL).args(&["--net", "litecoin", "--blocks", "2"]).spawn();
    let exit = demo.wait_exit(DEMO_LIMIT);
    let story = demo.log();
    assert_eq!(exit.status.code(), Some(0), "{story}");
    for height in 1..=2 {
        // Two miners name such an address, and the third one Dogecoin's of a key. Version 36 has no part of the finder.
        check_payout_table(&story, height, &["ltc1q", "L"], 0.0);
    }
    // A processor makes a few thousand hashes of scrypt a second, and millions of SHA-256d.
    let speed = story.lines().find(|line| line.starts_with("At this machine's ")).expect("it is told");
    assert!(speed.contains(" kH/s ") || speed.contains(" H/s "), "{speed}");
    // A job may end while it is hashed; nothing else may be wrong with a submission.
    assert!(
        story.lines().filter(|line| line.starts_with("Submission refused")).all(|line| line.contains("stale")),
        "{story}"
    );
}

#[test]
fn the_demo_mines_two_merged_chains_and_says_whom_they_pay() {
    let mut demo = NodeBuilder::demo(P2POOL).args(&["--merged"]).spawn();
    for (chain, amount, address) in [("Dogecoin", "10000", "D"), ("Namecoin", "3.125", "")] {
        for height in 1..=2 {
            demo.wait_for_log(&format!("{chain} block found at height {height}"), DEMO_LIMIT);
        }
        let story = demo.log();
        let mut blocks = story.lines().filter(|line| line.starts_with(&format!("{chain} block found at height ")));
        let pays = format!(": pays {amount} to {address}");
        assert!(blocks.all(|line| line.contains(&pays)), "{pays} in:\n{story}");
    }
    demo.wait_for_log("Block found at height 1 by ", DEMO_LIMIT);
    assert!(demo.log().contains("Merged mining: the same hashes also mine Dogecoin and Namecoin"), "{}", demo.log());
    let exit = demo.terminate();
    let story = demo.log();
    assert_eq!(exit.status.code(), Some(0), "{story}");
    for chain in ["Dogecoin", "Namecoin"] {
        assert!(story.contains(&format!(" coins of {chain} to ")), "no total of {chain} in:\n{story}");
    }
}

/// Checks that the output reports the block at `height` and its payouts: miners by name and address, in total the block's
/// value except for rounding, the finder with at least `finders_part` of it. Addresses begin with one of `prefixes`.
fn check_payout_table(story: &str, height: u32, prefixes: &[&str], finders_part: f64) {
    let start = format!("Block found at height {height} by ");
    let mut lines = story.lines().skip_while(|line| !line.starts_with(&start));
    let told = lines.next().unwrap_or_else(|| panic!("nothing about a block at height {height} in:\n{story}"));
    let finder = told[start.len()..].split(':').next().expect("it has one part at least");
    assert!(NAMES.contains(&finder), "{told}");
    assert!(told.contains("pays 50 demo coins"), "{told}");
    let rows = rows(lines);
    let is_miner = |payee: &str| prefixes.iter().any(|prefix| is_miner(payee, prefix));
    assert!(rows.iter().all(|(_, payee)| is_miner(payee) || payee.starts_with("P2Pool's donation")), "{rows:?}");
    let finders = rows.iter().find(|(_, payee)| payee.starts_with(finder));
    assert!(finders_part <= 0.0 || finders.is_some_and(|(amount, _)| *amount >= finders_part), "{finder} in {rows:?}");
    let unpaid = 50.0 - rows.iter().map(|(amount, _)| amount).sum::<f64>();
    assert!((-1e-7..=1e-4).contains(&unpaid), "{unpaid} are missing in {rows:?}");
}

/// Payouts in the lines after a block's: amounts and payees.
fn rows<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(f64, &'a str)> {
    lines
        .map_while(|line| line.strip_prefix("  ")?.trim_start().split_once(" to "))
        .map(|(amount, payee)| (amount.parse().expect("an amount"), payee))
        .collect()
}

/// True for a miner of the demo with an address that begins with `prefix`.
fn is_miner(payee: &str, prefix: &str) -> bool {
    NAMES.iter().any(|name| payee.starts_with(&format!("{name} ({prefix}")))
}

#[test]
fn the_demo_of_litecoin_pays_its_miners_on_dogecoin_too_and_says_how_much() {
    let mut demo = NodeBuilder::demo(P2POOL).args(&["--net", "litecoin", "--merged"]).spawn();
    // Before the first share only the node can be paid.
    for height in 2..=3 {
        let start = format!("Dogecoin block found at height {height}");
        demo.wait_for_log(&start, DEMO_LIMIT);
        demo.wait_for_log(&format!("Dogecoin block found at height {}", height + 1), DEMO_LIMIT);
        let story = demo.log();
        let mut lines = story.lines().skip_while(|line| !line.starts_with(&start));
        let block = lines.next().expect("it was waited for");
        let rows = rows(lines);
        let miners = if rows.len() == 1 { "1 miner".to_owned() } else { format!("{} miners", rows.len()) };
        assert!(block.contains(&format!(": pays 10000 to {miners} (")), "{block}: {rows:?}");
        assert!(rows.iter().all(|(_, payee)| is_miner(payee, "D")), "{rows:?}");
        let unpaid = 10_000.0 - rows.iter().map(|(amount, _)| amount).sum::<f64>();
        assert!((-1e-6..=1e-4).contains(&unpaid), "{unpaid} are missing in {rows:?}");
    }
    demo.wait_for_log("Block found at height 1 by ", DEMO_LIMIT);
    let exit = demo.terminate();
    let story = demo.log();
    assert_eq!(exit.status.code(), Some(0), "{story}");
    assert!(story.lines().any(|line| line.contains(" demo coins to ") && NAMES.iter().any(|name| line.contains(name))));
    assert!(
        story
            .lines()
            .any(|line| { line.split_once(" coins of Dogecoin to ").is_some_and(|(_, payee)| is_miner(payee, "D")) })
    );
}

#[test]
fn a_real_miner_finds_a_block_in_the_demo() {
    let mut demo = NodeBuilder::demo(P2POOL).args(&["--no-miner", "--blocks", "1"]).spawn();
    demo.wait_ready();
    let user = payout_address(1).to_string();
    let mut miner = StratumClient::ready(demo.worker_port(), &user);
    let found = miner.job().solve_block();
    assert_eq!(miner.submit(&user, &found), Ok(true));
    demo.wait_for_log(&format!("Share 1 found by {user}"), Duration::from_secs(20));
    demo.wait_for_log(&format!("Block found at height 1 by {user}"), Duration::from_secs(20));
    // No miner has an earlier share.
    demo.wait_for_log(&format!(" 0.25 to {user}"), Duration::from_secs(20));
    demo.wait_for_log(" 49.75 to P2Pool's donation address", Duration::from_secs(20));
    demo.wait_for_log("Totals: 1 submission accepted, 0 late; 1 share; 1 block;", Duration::from_secs(20));
    let exit = demo.wait_exit(Duration::from_secs(10));
    assert_eq!(exit.status.code(), Some(0), "{}", demo.log());
}

#[test]
fn ctrl_c_ends_the_demo() {
    let mut demo = NodeBuilder::demo(P2POOL).spawn();
    demo.wait_ready();
    let exit = demo.interrupt();
    assert!(exit.took < Duration::from_secs(2), "it took {:?}", exit.took);
    assert_eq!(exit.status.code(), Some(0), "{}", demo.log());
}
