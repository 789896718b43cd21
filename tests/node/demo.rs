//! The demonstration, as a newcomer runs it: no daemon, a story in a few lines, and an end.

use std::time::Duration;
use test_support::{NodeBuilder, StratumClient, payout_address};

use crate::P2POOL;

/// Three blocks at about ten seconds each, on a machine that is busy with other tests too.
const DEMO_LIMIT: Duration = Duration::from_secs(180);

#[test]
fn the_demo_finds_three_blocks_tells_the_story_and_ends_well() {
    let mut demo = NodeBuilder::demo(P2POOL).args(&["--blocks", "3"]).spawn();
    let exit = demo.wait_exit(DEMO_LIMIT);
    let story = demo.log();
    assert_eq!(exit.status.code(), Some(0), "{story}");
    let lower = story.to_lowercase();
    for part in ["listening", &demo.worker_port().to_string(), "job", "difficulty", "accepted", "block", "height"] {
        assert!(lower.contains(part), "nothing about {part:?} in:\n{story}");
    }
    for height in 1..=3 {
        let told = lower
            .lines()
            .any(|line| line.contains("block") && line.contains(&format!("height {height}")) && line.contains("bcrt1"));
        assert!(told, "nothing about a block at height {height} and whom it pays in:\n{story}");
    }
    assert!(!story.contains('\r') && !story.contains('\u{1b}'), "a pipe is no terminal:\n{story:?}");
    // A few well-chosen lines: a newcomer reads them all.
    assert!(story.lines().count() < 60, "{} lines:\n{story}", story.lines().count());
}

#[test]
fn a_real_miner_finds_a_block_in_the_demo() {
    let mut demo = NodeBuilder::demo(P2POOL).args(&["--no-miner", "--blocks", "1"]).spawn();
    demo.wait_ready();
    let user = payout_address(1).to_string();
    let mut miner = StratumClient::ready(demo.worker_port(), &user);
    let found = miner.job().solve_block();
    assert_eq!(miner.submit(&user, &found), Ok(true));
    let line = demo.wait_for_log(&user, Duration::from_secs(20));
    assert!(line.to_lowercase().contains("block"), "{line}");
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
