//! Found blocks: every route by itself, every outcome, and a block that survives a crash.

use crate::support::{
    Backend, LIMIT, config, config_without_p2p, journalled, mine, mine_paying, start, start_in, wait_for,
};
use p2pool::bitcoind::daemon::Config;
use p2pool::blocks::journal::Journal;
use p2pool::blocks::{FoundBlock, Outcome};
use p2pool::runtime::data_dir::DataDir;
use p2pool::runtime::disk::DiskHealth;
use serde_json::json;
use sharechain::coin::BITCOIN_REGTEST;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use test_support::{Bitcoind, Fault, HttpProxy, mine_blocks, payout_address};

/// Back end whose RPC works for everything but `submitblock`.
async fn start_with_p2p_alone(daemon: &Bitcoind) -> (Backend, HttpProxy) {
    let proxy = HttpProxy::start(daemon.rpc_port());
    proxy.fail("submitblock", Fault::Cut);
    let mut backend = start(Config { rpc_port: Some(proxy.port()), ..config(daemon) }).await;
    backend.health(|health| health.p2p_connected).await;
    (backend, proxy)
}

/// Last reported outcome of `route`.
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

/// Block that pays more than allowed.
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
    // The first route gets the reason; RPC may then only report that the block is known to be bad.
    let Some(Outcome::Rejected(reason)) = word_of(&told, None) else { panic!("{told:?}") };
    assert!(["bad-cb-amount", "duplicate-invalid"].contains(&reason.as_str()), "{told:?}");
    wait_for("the block kept", || journalled(backend.data_dir.path(), ".rejected").len() == 1).await;
    assert_eq!(daemon.height(), 0);
    backend.stop().await;
}

/// Waits for a report on `block` accepted by `wanted`; returns all reports up to it.
async fn reports_until(
    backend: &mut Backend,
    block: &FoundBlock,
    limit: Duration,
    wanted: impl Fn(&(Option<&'static str>, Outcome)) -> bool,
) -> Vec<(Option<&'static str>, Outcome)> {
    let mut told = Vec::new();
    let waiting = async {
        while !told.last().is_some_and(&wanted) {
            let report = backend.reports.recv().await.unwrap();
            assert_eq!(report.block.hash, block.hash);
            told.push((report.route, report.outcome));
        }
    };
    let ended = tokio::time::timeout(limit, waiting).await;
    assert!(ended.is_ok(), "not reported within {limit:?}: {told:?}");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn p2p_alone_never_rejects_a_block_and_submitblocks_answer_does() {
    let daemon = Bitcoind::start();
    let (mut backend, proxy) = start_with_p2p_alone(&daemon).await;
    let block = greedy(&mut backend).await;
    backend.handle.blocks.send(block.clone()).await.unwrap();
    // bitcoind closes the connection each time.
    let mut attempts = 0;
    while attempts < 7 {
        let report = tokio::time::timeout(LIMIT, backend.reports.recv()).await.expect("tried on").unwrap();
        assert!(matches!(report.outcome, Outcome::Failed(_)), "{:?} {:?}", report.route, report.outcome);
        attempts += u32::from(report.route == Some("p2p"));
    }
    assert_eq!(journalled(backend.data_dir.path(), ".block").len(), 1);
    proxy.mend("submitblock");
    let told = backend.fate(&block).await;
    assert!(matches!(word_of(&told, Some("rpc")), Some(Outcome::Rejected(_))), "{told:?}");
    assert!(matches!(word_of(&told, None), Some(Outcome::Rejected(_))), "{told:?}");
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_comes_second_is_shown_as_stale_and_lands_when_the_first_is_gone() {
    let (for_p2p, for_rpc) = (Bitcoind::start(), Bitcoind::start());
    let (by_p2p, _proxy) = start_with_p2p_alone(&for_p2p).await;
    let by_rpc = start(config_without_p2p(&for_rpc)).await;
    for (daemon, mut backend, route) in [(&for_p2p, by_p2p, "p2p"), (&for_rpc, by_rpc, "rpc")] {
        let late = mine(&*backend.template(|_| true).await, 1);
        let first = mine_blocks(daemon, 1, &payout_address(9).script_pubkey())[0];
        let told = backend.submit(&late).await;
        assert_eq!(word_of(&told, Some(route)), Some(Outcome::Stale), "{told:?}");
        assert_eq!(word_of(&told, None), Some(Outcome::Stale), "{told:?}");
        assert_eq!(daemon.best_block_hash(), first);
        wait_for("the block noted", || journalled(backend.data_dir.path(), ".stale").len() == 1).await;
        daemon.call("invalidateblock", json!([first]));
        // Without this request, once a minute.
        backend.handle.resubmitter.resubmit(late.hash).await.unwrap();
        let told = backend.fate(&late).await;
        assert_eq!(word_of(&told, None), Some(Outcome::Accepted), "{told:?}");
        assert_eq!(daemon.best_block_hash(), late.hash);
        wait_for("the block noted", || journalled(backend.data_dir.path(), ".accepted").len() == 1).await;
        backend.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_block_is_offered_again_after_a_restart() {
    let daemon = Bitcoind::start();
    let mut backend = start(config(&daemon)).await;
    let late = mine(&*backend.template(|_| true).await, 1);
    let first = mine_blocks(&daemon, 1, &payout_address(9).script_pubkey())[0];
    assert_eq!(word_of(&backend.submit(&late).await, None), Some(Outcome::Stale));
    wait_for("the block noted", || journalled(backend.data_dir.path(), ".stale").len() == 1).await;
    let data_dir = backend.stop().await;
    daemon.call("invalidateblock", json!([first]));
    let mut backend = start_in(config(&daemon), &BITCOIN_REGTEST, data_dir).await;
    let told = backend.fate(&late).await;
    assert_eq!(word_of(&told, None), Some(Outcome::Accepted), "{told:?}");
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_block_is_given_up_when_its_competitor_is_a_hundred_deep() {
    let daemon = Bitcoind::start();
    let mut backend = start(config_without_p2p(&daemon)).await;
    let late = mine(&*backend.template(|_| true).await, 1);
    mine_blocks(&daemon, 100, &payout_address(9).script_pubkey());
    assert_eq!(word_of(&backend.submit(&late).await, None), Some(Outcome::Stale));
    backend.handle.resubmitter.resubmit(late.hash).await.unwrap();
    reports_until(&mut backend, &late, LIMIT, |told| *told == (Some("rpc"), Outcome::Stale)).await;
    mine_blocks(&daemon, 1, &payout_address(9).script_pubkey());
    backend.template(|template| template.height == 102).await;
    backend.handle.resubmitter.resubmit(late.hash).await.unwrap();
    reports_until(&mut backend, &late, LIMIT, |told| *told == (Some("rpc"), Outcome::Stale)).await;
    // It is no longer being submitted: a request starts again from its file.
    wait_for("an end of it", || journalled(backend.data_dir.path(), ".stale").len() == 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    backend.handle.resubmitter.resubmit(late.hash).await.unwrap();
    let told = backend.fate(&late).await;
    assert_eq!(word_of(&told, None), Some(Outcome::Stale), "{told:?}");
    backend.stop().await;
}

/// Routes from a back end to its daemon.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ways {
    Both,
    P2pAlone,
    RpcAlone,
}

/// Cause of the missing parent of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lack {
    /// The daemon runs on an older data directory, as after a power cut or from a backup.
    Older,
    /// The parent was invalidated, and is reconsidered.
    Invalidated,
}

/// Longer than three times the period after which an earlier version gave a block up.
const WITHOUT_PARENT: Duration = Duration::from_secs(75);

/// Finds a block on a parent that the daemon then lacks for [`WITHOUT_PARENT`]; it is accepted once the parent is back.
async fn lands_after_its_parent(ways: Ways, lack: Lack) {
    let mut daemon = Bitcoind::start();
    mine_blocks(&daemon, 5, &payout_address(9).script_pubkey());
    let older = tempfile::tempdir().unwrap();
    daemon.stop();
    copy(&daemon.data_dir().join("regtest"), &older.path().join("regtest"));
    daemon.restart();
    let later = mine_blocks(&daemon, 3, &payout_address(9).script_pubkey());
    let raw: Vec<_> = later.iter().map(|hash| daemon.call("getblock", json!([hash, 0]))).collect();
    let (mut backend, _proxy) = match ways {
        Ways::Both => (start(config(&daemon)).await, None),
        Ways::RpcAlone => (start(config_without_p2p(&daemon)).await, None),
        Ways::P2pAlone => {
            let (backend, proxy) = start_with_p2p_alone(&daemon).await;
            (backend, Some(proxy))
        }
    };
    let block = mine(&*backend.template(|template| template.height == 9).await, 1);
    match lack {
        Lack::Older => {
            daemon.stop();
            std::fs::remove_dir_all(daemon.data_dir().join("regtest")).unwrap();
            copy(&older.path().join("regtest"), &daemon.data_dir().join("regtest"));
            daemon.restart();
            assert_eq!(daemon.height(), 5);
        }
        Lack::Invalidated => drop(daemon.call("invalidateblock", json!([later[2]]))),
    }
    backend.handle.blocks.send(block.clone()).await.unwrap();
    let until = tokio::time::Instant::now() + WITHOUT_PARENT;
    while let Ok(report) = tokio::time::timeout_at(until, backend.reports.recv()).await {
        let report = report.unwrap();
        let is_open = matches!(report.outcome, Outcome::Waiting(_) | Outcome::Failed(_));
        assert!(report.route.is_some() && is_open, "{ways:?} {lack:?}: {:?} {:?}", report.route, report.outcome);
    }
    assert_eq!(journalled(backend.data_dir.path(), ".block").len(), 1);
    match lack {
        Lack::Older => {
            for block in &raw {
                daemon.call("submitblock", json!([block]));
            }
        }
        Lack::Invalidated => drop(daemon.call("reconsiderblock", json!([later[2]]))),
    }
    let told = backend.fate(&block).await;
    assert_eq!(word_of(&told, None), Some(Outcome::Accepted), "{ways:?} {lack:?}: {told:?}");
    assert_eq!(daemon.best_block_hash(), block.hash);
    wait_for("the block noted", || journalled(backend.data_dir.path(), ".accepted").len() == 1).await;
    backend.stop().await;
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_waits_for_its_parent_for_as_long_as_it_takes() {
    // Concurrently, as they mostly wait.
    let cases = [
        (Ways::Both, Lack::Older),
        (Ways::P2pAlone, Lack::Older),
        (Ways::Both, Lack::Invalidated),
        (Ways::RpcAlone, Lack::Invalidated),
    ];
    let running: Vec<_> =
        cases.into_iter().map(|(ways, lack)| tokio::spawn(lands_after_its_parent(ways, lack))).collect();
    for case in running {
        case.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_block_that_an_earlier_version_called_rejected_lands_at_the_next_start() {
    let daemon = Bitcoind::start();
    let mut backend = start(config(&daemon)).await;
    let good = mine(&*backend.template(|_| true).await, 1);
    let bad = greedy(&mut backend).await;
    let data_dir = backend.stop().await;
    let journal_dir = DataDir::open(data_dir.path(), &BITCOIN_REGTEST).unwrap();
    let journal = Journal::open(Arc::default(), &journal_dir, DiskHealth::new()).unwrap();
    for block in [&good, &bad] {
        let reason = Outcome::Rejected("bitcoind hung up on it".into());
        journal.write(block).unwrap().mark(&reason).unwrap();
    }
    drop((journal, journal_dir));
    let backend = start_in(config(&daemon), &BITCOIN_REGTEST, data_dir).await;
    wait_for("the good block in the chain", || daemon.best_block_hash() == good.hash).await;
    wait_for("the good block noted", || journalled(backend.data_dir.path(), ".accepted").len() == 1).await;
    let rejected = journalled(backend.data_dir.path(), ".rejected");
    assert!(rejected.len() == 1 && rejected[0].contains(&bad.hash.to_string()), "{rejected:?}");
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_found_while_the_daemon_hangs_lands_after_our_restart() {
    let mut daemon = Bitcoind::start();
    let mut backend = start(config(&daemon)).await;
    backend.health(|health| health.p2p_connected).await;
    let block = mine(&*backend.template(|_| true).await, 1);
    daemon.pause();
    // The signal may take a moment on a busy machine.
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
    // More than the sockets' buffers hold, and never read.
    block.bytes = vec![0; 20_000_000].into();
    daemon.pause();
    backend.handle.blocks.send(block).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    backend.stop().await;
}
