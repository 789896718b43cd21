//! Block templates: they arrive, are updated, and can be mined on.

use crate::support::{LIMIT, config, config_without_p2p, mine, start, start_in};
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use p2pool::bitcoind::daemon::{Config, wallet_address};
use p2pool::blocks::Outcome;
use serde_json::{Value, json};
use sharechain::coin::{BITCOIN_REGTEST, BITCOIN_SIGNET};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use test_support::{Bitcoind, Fault, HttpProxy, Spender, mine_blocks, payout_address};
use tokio::time::timeout;

/// Well below the regular poll's 15 s, so that only the faster ways can meet it.
const QUICK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_block_heard_over_p2p_brings_a_new_template_at_once() {
    let daemon = Bitcoind::start();
    let proxy = HttpProxy::start(daemon.rpc_port());
    let mut backend = start(Config { rpc_port: Some(proxy.port()), ..config(&daemon) }).await;
    backend.health(|health| health.p2p_connected).await;
    let first = backend.template(|_| true).await;
    assert_eq!(first.height, 1);
    // Wait out the poll caused by the connection itself.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = proxy.calls("getblocktemplate");
    let mined = mine_blocks(&daemon, 1, &payout_address(1).script_pubkey())[0];
    let started = Instant::now();
    backend.template(|template| template.previous_block == mined).await;
    assert!(started.elapsed() < QUICK);
    println!("new template {:?} after the block", started.elapsed());
    // The long poll that returned is one new call; the announcement is the other.
    crate::support::wait_for("a call besides the long poll", || proxy.calls("getblocktemplate") >= calls + 2).await;
    assert!(started.elapsed() < QUICK);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_p2p_the_long_poll_brings_a_new_template_before_the_next_poll() {
    let daemon = Bitcoind::start();
    let mut backend = start(config_without_p2p(&daemon)).await;
    backend.template(|_| true).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..3 {
        let mined = mine_blocks(&daemon, 1, &payout_address(1).script_pubkey())[0];
        let started = Instant::now();
        backend.template(|template| template.previous_block == mined).await;
        println!("new template {:?} after the block", started.elapsed());
        assert!(started.elapsed() < QUICK);
    }
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_that_templates_build_on_is_told_and_news_of_a_block_is_a_reason_to_ask() {
    let daemon = Bitcoind::start();
    let proxy = HttpProxy::start(daemon.rpc_port());
    let mut backend = start(Config { rpc_port: Some(proxy.port()), ..config_without_p2p(&daemon) }).await;
    backend.template(|_| true).await;
    let mined = mine_blocks(&daemon, 1, &payout_address(1).script_pubkey())[0];
    backend.template(|template| template.previous_block == mined).await;
    let is_of_mined = |header: &Option<[u8; 80]>| {
        header.is_some_and(|header| deserialize::<Header>(&header).unwrap().block_hash() == mined)
    };
    timeout(LIMIT, backend.handle.best_header.wait_for(is_of_mined)).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = proxy.calls("getblocktemplate");
    backend.handle.news.notify_one();
    crate::support::wait_for("a call for the news", || proxy.calls("getblocktemplate") > calls).await;
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_full_of_the_mempools_transactions_is_accepted() {
    let daemon = Bitcoind::start();
    let mut spender = Spender::new(&daemon);
    let sent = spender.send_many(&daemon, 25);
    let mut backend = start(config(&daemon)).await;
    backend.health(|health| health.p2p_connected).await;
    let template = backend.template(|template| template.transactions.len() == sent.len()).await;
    let block = mine(&template, 3);
    let told = backend.submit(&block).await;
    assert_eq!(told.last(), Some(&(None, Outcome::Accepted)), "{told:?}");
    assert_eq!(daemon.best_block_hash(), block.hash);
    assert_eq!(daemon.block(&block.hash).txdata.len(), sent.len() + 1);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_a_wallet_has_no_address_to_give() {
    let daemon = Bitcoind::start();
    assert_eq!(wallet_address(&config(&daemon), &BITCOIN_REGTEST).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallets_labelled_address_is_taken_again_and_a_new_one_only_made_once() {
    let daemon = Bitcoind::start();
    let proxy = HttpProxy::start(daemon.rpc_port());
    let config = Config { rpc_port: Some(proxy.port()), ..config(&daemon) };
    // The daemon of these tests has no wallet, so the proxy provides its responses.
    let answer = |status, result: Value, error: Value| {
        Fault::Answer(status, json!({"result": result, "error": error, "id": 1}).to_string())
    };
    let no_label = json!({"code": -11, "message": "No addresses with label p2pool"});
    proxy.fail("getaddressesbylabel", answer(500, Value::Null, no_label));
    let (first, second) = (payout_address(1).to_string(), payout_address(2).to_string());
    proxy.fail("getnewaddress", answer(200, json!(first), Value::Null));
    assert_eq!(wallet_address(&config, &BITCOIN_REGTEST).await.unwrap(), Some(first.clone()));
    proxy.fail("getnewaddress", answer(200, json!(second), Value::Null));
    proxy.fail("getaddressesbylabel", answer(200, json!({first.clone(): {"purpose": "receive"}}), Value::Null));
    assert_eq!(wallet_address(&config, &BITCOIN_REGTEST).await.unwrap(), Some(first));
    let no_wallet = json!({"code": -18, "message": "No wallet is loaded."});
    proxy.fail("getaddressesbylabel", answer(500, Value::Null, no_wallet));
    assert_eq!(wallet_address(&config, &BITCOIN_REGTEST).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn signet_gives_templates_too() {
    // A private signet without a signing key: the public one would need its chain.
    let daemon = Bitcoind::start_with(&["-chain=signet", "-signetchallenge=51"]);
    let mut backend = start_in(config(&daemon), &BITCOIN_SIGNET, Arc::new(TempDir::new().unwrap())).await;
    let template = backend.template(|_| true).await;
    assert!(template.rules.iter().any(|rule| rule == "signet"), "{:?}", template.rules);
    backend.stop().await;
}
