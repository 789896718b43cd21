//! Condition of the daemon: problems reported in one line, outages and recovery.

use crate::support::{LIMIT, config, login, start, start_in};
use p2pool::bitcoind::daemon::Config;
use serde_json::json;
use sharechain::coin::BITCOIN;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use test_support::{Bitcoind, Fault, HttpProxy, mine_blocks, payout_address};
use tokio::time::timeout;

/// Short, to keep the tests fast.
const GONE_AFTER: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_in_one_line_and_keeps_being_tried() {
    let daemon = Bitcoind::start();
    let mut backend =
        start(Config { credentials: login("user", "wrong"), gone_after: GONE_AFTER, ..config(&daemon) }).await;
    let trouble = backend.trouble("wrong password").await;
    assert_eq!(
        trouble,
        format!("wrong password: bitcoind at 127.0.0.1:{} refuses the one given to p2pool", daemon.rpc_port())
    );
    backend.health(|health| health.gone).await;
    assert!(backend.handle.templates.borrow().is_none());
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_given_as_argument_is_used() {
    let daemon = Bitcoind::start();
    let (user, password) = daemon.cookie();
    let mut backend = start(Config { credentials: login(&user, &password), ..config(&daemon) }).await;
    backend.template(|_| true).await;
    assert!(backend.handle.health.borrow().version.contains("Satoshi"));
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_chain_is_told_in_one_line() {
    let daemon = Bitcoind::start();
    let (user, password) = daemon.cookie();
    let config = Config { credentials: login(&user, &password), ..config(&daemon) };
    let mut backend = start_in(config, &BITCOIN, Arc::new(TempDir::new().unwrap())).await;
    let trouble = backend.trouble("wrong chain").await;
    assert!(trouble.contains("bitcoind is on `regtest`, but bitcoin needs `main`"), "{trouble}");
    assert!(!backend.handle.health.borrow().p2p_connected);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_syncing_and_a_starting_daemon_are_told_and_waited_for() {
    let daemon = Bitcoind::start();
    let proxy = HttpProxy::start(daemon.rpc_port());
    let error = |code: i32, text: &str| {
        let body = format!(r#"{{"result":null,"error":{{"code":{code},"message":"{text}"}},"id":1}}"#);
        Fault::Answer(500, body)
    };
    proxy.fail("getblockchaininfo", error(-28, "Verifying blocks…"));
    proxy.fail("getblocktemplate", error(-10, "Bitcoin Core is in initial sync"));
    let mut backend = start(Config { rpc_port: Some(proxy.port()), ..config(&daemon) }).await;
    assert_eq!(backend.trouble("warming up").await, "bitcoind is warming up: Verifying blocks…");
    proxy.mend("getblockchaininfo");
    backend.trouble("still syncing").await;
    proxy.mend("getblocktemplate");
    backend.template(|_| true).await;
    assert_eq!(backend.handle.health.borrow().trouble, None);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_daemon_is_gone_and_its_return_brings_work_despite_a_new_cookie() {
    let mut daemon = Bitcoind::start();
    let mut backend = start(Config { gone_after: GONE_AFTER, ..config(&daemon) }).await;
    backend.health(|health| health.p2p_connected).await;
    backend.template(|_| true).await;
    let cookie = daemon.cookie();
    daemon.stop();
    backend.health(|health| health.trouble.is_some()).await;
    assert!(backend.handle.templates.borrow().is_some(), "work is kept for a short absence");
    backend.health(|health| health.gone && !health.p2p_connected).await;
    assert!(backend.handle.templates.borrow().is_none(), "no work for a long one");
    daemon.restart();
    assert_ne!(daemon.cookie(), cookie);
    backend.template(|_| true).await;
    backend.health(|health| !health.gone && health.p2p_connected).await;
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_after_us_is_waited_for() {
    let mut daemon = Bitcoind::start();
    let config = config(&daemon);
    daemon.stop();
    let mut backend = start(config).await;
    backend.trouble("no cookie at").await;
    daemon.restart();
    backend.template(|_| true).await;
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_long_poll_is_not_gone() {
    let daemon = Bitcoind::start();
    let mut backend = start(Config { gone_after: GONE_AFTER, ..config(&daemon) }).await;
    backend.template(|_| true).await;
    let gone = backend.handle.health.wait_for(|health| health.gone);
    assert!(tokio::time::timeout(GONE_AFTER * 2, gone).await.is_err());
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_is_gone_until_it_goes_on() {
    let mut daemon = Bitcoind::start();
    let mut backend = start(Config { gone_after: GONE_AFTER, ..config(&daemon) }).await;
    backend.template(|_| true).await;
    daemon.pause();
    backend.health(|health| health.gone).await;
    assert!(backend.handle.templates.borrow().is_none());
    daemon.resume();
    backend.template(|_| true).await;
    backend.health(|health| !health.gone).await;
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_becomes_active_and_is_not_known_stops_work_at_once() {
    let daemon = Bitcoind::start();
    let proxy = HttpProxy::start(daemon.rpc_port());
    let mut backend = start(Config { rpc_port: Some(proxy.port()), ..config(&daemon) }).await;
    backend.template(|_| true).await;
    let mut answer = daemon.call("getblocktemplate", json!([{"rules": ["segwit"]}]));
    answer["rules"].as_array_mut().unwrap().push(json!("!quantum"));
    let body = json!({"result": answer, "error": null, "id": 1}).to_string();
    proxy.fail("getblocktemplate", Fault::Answer(200, body));
    mine_blocks(&daemon, 1, &payout_address(1).script_pubkey());
    let trouble = backend.trouble("quantum").await;
    assert!(trouble.contains("update p2pool"), "{trouble}");
    timeout(LIMIT, backend.handle.templates.wait_for(Option::is_none)).await.unwrap().unwrap();
    assert!(!backend.handle.health.borrow().gone);
    proxy.mend("getblocktemplate");
    backend.template(|_| true).await;
    backend.stop().await;
}
