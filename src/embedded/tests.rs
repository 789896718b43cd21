//! The embedded chain's tasks, in real time.

use super::chain::tests::solve;
use super::*;
use crate::blocks::Finding;
use bitcoin::consensus::encode::serialize;
use sharechain::coin::DEMO;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

fn regtest() -> Config {
    Config { rules: Rules::REGTEST, known_rules: DEMO.known_rules }
}

async fn template(handle: &mut Handle) -> Arc<Template> {
    let ready = handle.templates.wait_for(Option::is_some);
    timeout(PATIENCE, ready).await.unwrap().unwrap().clone().unwrap()
}

fn found(embedded: &Embedded, salt: u32) -> FoundBlock {
    let (parts, _) = embedded.template();
    let block = solve(&parts, salt);
    FoundBlock {
        hash: block.block_hash(),
        previous_block: parts.previous_block,
        height: parts.height,
        bytes: serialize(&block).into(),
        finding: Finding { value: parts.coinbase_value, payee: "anyone".into(), finder: "test".into(), is_ours: true },
        judged_at: None,
    }
}

#[tokio::test]
async fn a_found_block_is_accepted_reported_and_mined_upon() {
    let tasks = Tasks::new();
    let folder = tempfile::tempdir().unwrap();
    let (mut handle, embedded) = start(&regtest(), Journal::of_test(folder.path()), &tasks);
    let mut reports = handle.reports.subscribe();
    assert_eq!(template(&mut handle).await.height, 1);
    assert!(handle.health.borrow().p2p_connected && !handle.health.borrow().gone);
    let block = found(&embedded, 0);
    handle.blocks.send(block.clone()).await.unwrap();
    let report = loop {
        let report = timeout(PATIENCE, reports.recv()).await.unwrap().unwrap();
        if report.route.is_none() {
            break report;
        }
    };
    assert_eq!((report.block.hash, report.outcome), (block.hash, Outcome::Accepted));
    let next = handle.templates.wait_for(|next| next.as_ref().is_some_and(|next| next.height == 2));
    let next = timeout(PATIENCE, next).await.unwrap().unwrap().clone().unwrap();
    assert_eq!(next.previous_block, block.hash);
    assert_eq!(embedded.tip(), Tip { hash: block.hash, height: 1 });
    drop(handle);
    assert!(tasks.drain(PATIENCE).await);
}

#[tokio::test]
async fn the_route_tells_accepted_stale_and_rejected_apart() {
    let embedded = Embedded::new(Rules::REGTEST);
    let (first, second) = (found(&embedded, 1), found(&embedded, 2));
    assert_eq!(embedded.attempt(&first).await, Outcome::Accepted);
    assert_eq!(embedded.attempt(&first).await, Outcome::Accepted, "submitted twice, still in the best chain");
    assert_eq!(embedded.attempt(&second).await, Outcome::Stale);
    assert_eq!(embedded.attempt(&second).await, Outcome::Stale);
    let mut bad = first.clone();
    let mut bytes = bad.bytes.to_vec();
    bytes[40] ^= 1;
    bytes[72..76].copy_from_slice(&[0xff, 0xff, 0, 3]);
    bad.bytes = bytes.into();
    assert_eq!(embedded.attempt(&bad).await, Outcome::Rejected("high-hash".into()));
}

#[tokio::test]
async fn a_new_transaction_gets_into_a_template_within_seconds() {
    let tasks = Tasks::new();
    let folder = tempfile::tempdir().unwrap();
    let (mut handle, embedded) = start(&regtest(), Journal::of_test(folder.path()), &tasks);
    let first = found(&embedded, 0);
    let coinbase: bitcoin::Block = bitcoin::consensus::encode::deserialize(&first.bytes).unwrap();
    assert_eq!(embedded.submit_block(&first.hash, &first.bytes), Outcome::Accepted);
    for _ in 0..100 {
        let block = found(&embedded, 0);
        assert_eq!(embedded.submit_block(&block.hash, &block.bytes), Outcome::Accepted);
    }
    let mut spend = coinbase.txdata[0].clone();
    spend.input[0] = bitcoin::TxIn {
        previous_output: bitcoin::OutPoint { txid: spend.compute_txid(), vout: 0 },
        ..bitcoin::TxIn::default()
    };
    let txid = embedded.submit_transaction(&serialize(&spend)).unwrap();
    let shown = |template: &Option<Arc<Template>>| {
        template.as_ref().is_some_and(|template| template.transactions.iter().any(|one| one.txid == txid))
    };
    timeout(PATIENCE, handle.templates.wait_for(shown)).await.unwrap().unwrap();
    drop(handle);
    assert!(tasks.drain(PATIENCE).await);
}

#[test]
fn a_template_stands_until_its_bits_ease_and_never_longer_than_twenty_seconds() {
    assert_eq!(Embedded::new(Rules::REGTEST).template().1, REFRESH_INTERVAL);
    let difficulty = Difficulty::Adaptive { hash_rate: 1e6, spacing: Duration::from_secs(3) };
    let (_, lasts) = Embedded::new(Rules { difficulty, ..Rules::REGTEST }).template();
    assert!(lasts <= Duration::from_secs(6), "{lasts:?}");
}
