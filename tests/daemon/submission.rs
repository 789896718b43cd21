//! Found blocks: every route by itself, every fate, and a block that outlives a crash.

use crate::support::{
    Backend, LIMIT, config, config_without_p2p, journalled, mine, mine_paying, start, start_in, wait_for,
};
use p2pool::bitcoind::daemon::Config;
use p2pool::block::{FoundBlock, Outcome};
use p2pool::network::BITCOIN_REGTEST;
use std::time::Duration;
use test_support::{Bitcoind, Fault, HttpProxy, mine_blocks, payout_address};

/// A back end whose RPC works for everything but `submitblock`.
async fn start_with_p2p_alone(daemon: &Bitcoind) -> (Backend, HttpProxy) {
    let proxy = HttpProxy::start(daemon.rpc_port());
    proxy.fail("submitblock", Fault::Cut);
    let mut backend = start(Config { rpc_port: Some(proxy.port()), ..config(daemon) }).await;
    backend.health(|health| health.p2p_connected).await;
    (backend, proxy)
}

/// The last outcome told of `route`.
fn word_of(told: &[(Option<&'static str>, Outcome)], route: Option<&str>) -> Option<Outcome> {
    told.iter().rev().find(|(of, _)| *of == route).map(|(_, outcome)| outcome.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_goes_out_by_both_routes_and_each_tells_its_own_outcome() {
    let daemon = Bitcoind::start();
    let mut backend = start(config(&daemon)).await;
    backend.health(|health| health.p2p_connected).await;
    for height in 1..=5 {
        let template = backend.template(|template| template.height == height).await;
        let block = mine(&template, 1);
        let mut told = backend.submit(&block).await;
        assert_eq!(told.last(), Some(&(None, Outcome::Accepted)), "{told:?}");
        while told.len() < 3 {
            let report = backend.reports.recv().await.unwrap();
            told.push((report.route, report.outcome));
        }
        for route in ["rpc", "p2p"] {
            assert_eq!(word_of(&told, Some(route)), Some(Outcome::Accepted), "{told:?}");
        }
        assert_eq!(daemon.best_block_hash(), block.hash);
    }
    wait_for("five accepted blocks on disk", || journalled(backend.data_dir.path(), ".accepted").len() == 5).await;
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_alone_lands_a_block() {
    let daemon = Bitcoind::start();
    let mut backend = start(config_without_p2p(&daemon)).await;
    let block = mine(&*backend.template(|_| true).await, 1);
    let told = backend.submit(&block).await;
    assert_eq!(word_of(&told, Some("rpc")), Some(Outcome::Accepted), "{told:?}");
    assert_eq!(daemon.best_block_hash(), block.hash);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p2p_alone_lands_a_block() {
    let daemon = Bitcoind::start();
    let (mut backend, proxy) = start_with_p2p_alone(&daemon).await;
    let block = mine(&*backend.template(|_| true).await, 1);
    let told = backend.submit(&block).await;
    assert_eq!(word_of(&told, Some("p2p")), Some(Outcome::Accepted), "{told:?}");
    assert_ne!(word_of(&told, Some("rpc")), Some(Outcome::Accepted), "{told:?}");
    assert_eq!(word_of(&told, None), Some(Outcome::Accepted));
    assert_eq!(daemon.best_block_hash(), block.hash);
    assert!(proxy.calls("submitblock") >= 1);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_of_submitblock_is_asked_for_again() {
    let daemon = Bitcoind::start();
    let proxy = HttpProxy::start(daemon.rpc_port());
    proxy.fail("submitblock", Fault::LoseAnswer);
    let mut backend = start(Config { rpc_port: Some(proxy.port()), ..config_without_p2p(&daemon) }).await;
    let block = mine(&*backend.template(|_| true).await, 1);
    backend.handle.blocks.send(block.clone()).await.unwrap();
    wait_for("the block in the chain", || daemon.best_block_hash() == block.hash).await;
    proxy.mend("submitblock");
    let told = backend.fate(&block).await;
    assert_eq!(word_of(&told, None), Some(Outcome::Accepted), "{told:?}");
    backend.stop().await;
}

/// A block that pays more than it may.
async fn greedy(backend: &mut Backend) -> FoundBlock {
    let template = backend.template(|_| true).await;
    mine_paying(&template, 1, template.coinbase_value + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_breaks_a_rule_is_rejected_in_the_daemons_words_and_kept() {
    let daemon = Bitcoind::start();
    let mut backend = start(config(&daemon)).await;
    backend.health(|health| health.p2p_connected).await;
    let block = greedy(&mut backend).await;
    let told = backend.submit(&block).await;
    // Whichever route comes first is told the reason; RPC may then only hear that the block is known to be bad.
    let Some(Outcome::Rejected(reason)) = word_of(&told, None) else { panic!("{told:?}") };
    assert!(["bad-cb-amount", "duplicate-invalid"].contains(&reason.as_str()), "{told:?}");
    wait_for("the block kept", || journalled(backend.data_dir.path(), ".rejected").len() == 1).await;
    assert_eq!(daemon.height(), 0);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p2p_alone_notices_that_a_block_was_rejected() {
    let daemon = Bitcoind::start();
    let (mut backend, _proxy) = start_with_p2p_alone(&daemon).await;
    let block = greedy(&mut backend).await;
    let told = backend.submit(&block).await;
    assert!(matches!(word_of(&told, Some("p2p")), Some(Outcome::Rejected(_))), "{told:?}");
    assert!(matches!(word_of(&told, None), Some(Outcome::Rejected(_))), "{told:?}");
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_comes_second_is_stale_by_either_route() {
    let daemon = Bitcoind::start();
    let (mut by_p2p, _proxy) = start_with_p2p_alone(&daemon).await;
    let mut by_rpc = start(config_without_p2p(&daemon)).await;
    let late = mine(&*by_p2p.template(|_| true).await, 1);
    let later = mine(&*by_rpc.template(|_| true).await, 2);
    let first = mine_blocks(&daemon, 1, &payout_address(9).script_pubkey())[0];
    let (p2p, rpc) = tokio::join!(by_p2p.submit(&late), by_rpc.submit(&later));
    assert_eq!(word_of(&p2p, Some("p2p")), Some(Outcome::Stale), "{p2p:?}");
    assert_eq!(word_of(&p2p, None), Some(Outcome::Stale), "{p2p:?}");
    assert_eq!(word_of(&rpc, Some("rpc")), Some(Outcome::Stale), "{rpc:?}");
    assert_eq!(word_of(&rpc, None), Some(Outcome::Stale), "{rpc:?}");
    assert_eq!(daemon.best_block_hash(), first);
    by_p2p.stop().await;
    by_rpc.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_found_while_the_daemon_hangs_lands_after_our_restart() {
    let mut daemon = Bitcoind::start();
    let mut backend = start(config(&daemon)).await;
    backend.health(|health| health.p2p_connected).await;
    let block = mine(&*backend.template(|_| true).await, 1);
    daemon.pause();
    // The signal reaches a busy machine's threads in its own time.
    tokio::time::sleep(Duration::from_millis(500)).await;
    backend.handle.blocks.send(block.clone()).await.unwrap();
    wait_for("the block on disk", || journalled(backend.data_dir.path(), ".block").len() == 1).await;
    let data_dir = backend.stop().await;
    assert_eq!(journalled(data_dir.path(), ".block").len(), 1);
    let mut backend = start_in(config(&daemon), &BITCOIN_REGTEST, data_dir).await;
    daemon.resume();
    let told = backend.fate(&block).await;
    assert_eq!(word_of(&told, None), Some(Outcome::Accepted), "{told:?}");
    assert_eq!(daemon.best_block_hash(), block.hash);
    wait_for("the block noted", || journalled(backend.data_dir.path(), ".accepted").len() == 1).await;
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_found_while_the_daemon_is_away_lands_when_it_is_back() {
    let mut daemon = Bitcoind::start();
    let mut backend = start(config(&daemon)).await;
    let block = mine(&*backend.template(|_| true).await, 1);
    daemon.stop();
    backend.handle.blocks.send(block.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    daemon.restart();
    let told = backend.fate(&block).await;
    assert!(told.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_))), "{told:?}");
    assert_eq!(word_of(&told, None), Some(Outcome::Accepted), "{told:?}");
    assert_eq!(daemon.best_block_hash(), block.hash);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_blocks_at_once_each_get_their_own_fate() {
    let daemon = Bitcoind::start();
    let (mut backend, _proxy) = start_with_p2p_alone(&daemon).await;
    let template = backend.template(|_| true).await;
    let blocks: Vec<FoundBlock> = (1..=6).map(|seed| mine(&template, seed)).collect();
    for block in &blocks {
        backend.handle.blocks.send(block.clone()).await.unwrap();
    }
    let mut fates = Vec::new();
    while fates.len() < blocks.len() {
        let report = tokio::time::timeout(LIMIT, backend.reports.recv()).await.unwrap().unwrap();
        if report.route.is_none() {
            fates.push((report.block.hash, report.outcome));
        }
    }
    let accepted: Vec<_> = fates.iter().filter(|(_, outcome)| *outcome == Outcome::Accepted).collect();
    assert_eq!(accepted.len(), 1, "{fates:?}");
    assert_eq!(accepted[0].0, daemon.best_block_hash());
    assert_eq!(fates.iter().filter(|(_, outcome)| *outcome == Outcome::Stale).count(), blocks.len() - 1, "{fates:?}");
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_daemon_delays_no_stop() {
    let mut daemon = Bitcoind::start();
    let mut backend = start(config(&daemon)).await;
    backend.health(|health| health.p2p_connected).await;
    let mut block = mine(&*backend.template(|_| true).await, 1);
    // More than the sockets' buffers hold; nobody will look at it.
    block.bytes = vec![0; 20_000_000].into();
    daemon.pause();
    backend.handle.blocks.send(block).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    backend.stop().await;
}
