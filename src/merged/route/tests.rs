//! Submissions to a daemon that answers from a script.

use super::*;
use crate::blocks::Finding;
use crate::merged::testing::Scripted;
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bytes::Bytes;
use serde_json::json;
use std::time::Instant;

const METHOD: &str = "submitauxblock";

fn daemon_error(code: i32) -> Result<Value, RpcError> {
    Err(RpcError::Daemon { daemon: "doge".into(), method: METHOD, code, message: "block hash unknown".into() })
}

fn outcomes(answer: &Result<Value, RpcError>) -> [Outcome; 3] {
    let places = [
        BlockPosition::InChain { height: 7, confirmations: 1 },
        BlockPosition::Beside { height: 7 },
        BlockPosition::Unknown,
    ];
    places.map(|place| outcome(read(METHOD, answer), place))
}

#[test]
fn where_a_block_is_decides_and_only_what_is_nowhere_is_judged_by_the_answer() {
    let answers = [
        (Ok(json!(true)), "waiting"),
        (Ok(json!(false)), "rejected"),
        (Ok(json!(null)), "waiting"),
        (Ok(json!("duplicate")), "waiting"),
        (Ok(json!("inconclusive")), "waiting"),
        (Ok(json!("high-hash")), "rejected"),
        (Ok(json!("true")), "rejected"),
        (daemon_error(-8), "rejected"),
        (daemon_error(-22), "rejected"),
    ];
    for (answer, word) in answers {
        let [in_chain, beside, unknown] = outcomes(&answer);
        assert_eq!((in_chain, beside, unknown.word()), (Outcome::Accepted, Outcome::Stale, word), "{answer:?}");
    }
}

#[test]
fn nothing_but_an_answer_about_the_block_ends_its_submission() {
    for answer in [daemon_error(-28), daemon_error(-32601), Ok(json!(1)), Ok(json!({"a": 1}))] {
        let verdict = read(METHOD, &answer);
        assert!(matches!(verdict, Verdict::None(_)), "{answer:?} is {verdict:?}");
    }
}

#[test]
fn a_rejection_quotes_the_answer_in_one_printable_line() {
    let [.., no] = outcomes(&Ok(json!(false)));
    assert_eq!(no, Outcome::Rejected("the daemon answered false to submitauxblock".to_owned()));
    let [.., unknown] = outcomes(&daemon_error(-8));
    assert!(unknown.reason().unwrap().contains("block hash unknown"), "{unknown:?}");
    let [.., attack] = outcomes(&Ok(json!("<b>\u{1b}[31m".repeat(1000))));
    let reason = attack.reason().unwrap();
    assert!(reason.chars().all(stratum::printable::is_printable) && reason.chars().count() < 300, "{reason}");
}

fn block() -> FoundBlock {
    let mut hash = [0; 32];
    hash[31] = 0xab;
    FoundBlock {
        hash: BlockHash::from_byte_array(hash),
        previous_block: BlockHash::from_byte_array([2; 32]),
        height: 7,
        bytes: Bytes::from_static(&[1, 2, 255]),
        finding: Finding { value: 5, payee: "D8".into(), finder: "worker".into(), is_ours: true },
        judged_at: None,
    }
}

async fn route(address: Option<&str>) -> (Arc<Scripted>, AuxRoute) {
    let (script, config) = Scripted::start(address).await;
    (script, AuxRoute::new(Daemon::new(&config), Arc::default()))
}

#[tokio::test]
async fn a_block_in_the_chain_is_accepted_and_its_daemon_asked_for_the_next() {
    for (address, method) in [(Some("D8"), "submitauxblock"), (None, "getauxblock")] {
        let (script, route) = route(address).await;
        script.answers(method, json!(true));
        script.answers("getblockheader", json!({"confirmations": 1, "height": 7}));
        assert_eq!(route.attempt(&block()).await, Outcome::Accepted);
        let hash = "ab".to_owned() + &"00".repeat(31);
        assert_eq!(
            script.called(),
            [(method.to_owned(), json!([hash, "0102ff"])), ("getblockheader".to_owned(), json!([hash])),]
        );
        tokio::time::timeout(Duration::from_secs(1), route.news.notified()).await.unwrap();
    }
}

/// A block that the node built: it begins with its header.
fn whole() -> FoundBlock {
    let bytes = [9; 200];
    FoundBlock { hash: BlockHash::hash(&bytes[..80]), bytes: Bytes::copy_from_slice(&bytes), ..block() }
}

#[tokio::test]
async fn a_whole_block_is_submitted_as_one_whatever_the_mode_is_now() {
    for address in [Some("D8"), None] {
        let (script, route) = route(address).await;
        script.answers("submitblock", json!(null));
        script.answers("getblockheader", json!({"confirmations": 1, "height": 7}));
        assert_eq!(route.attempt(&whole()).await, Outcome::Accepted);
        let called = script.called();
        assert_eq!(called[0], ("submitblock".to_owned(), json!(["09".repeat(200)])));
        assert_eq!(called[1], ("getblockheader".to_owned(), json!([whole().hash])));
    }
}

#[test]
fn answers_about_a_whole_block_that_is_nowhere() {
    for (answer, word) in [
        (json!(null), "waiting"),
        (json!("duplicate"), "waiting"),
        (json!("inconclusive"), "waiting"),
        (json!("bad-prevblk"), "waiting"),
        (json!("prev-blk-not-found"), "waiting"),
        (json!("time-too-new"), "waiting"),
        (json!("duplicate-invalid"), "rejected"),
        (json!("bad-cb-amount"), "rejected"),
        (json!("high-hash"), "rejected"),
    ] {
        let verdict = read(SUBMIT_WHOLE, &Ok(answer.clone()));
        assert_eq!(outcome(verdict, BlockPosition::Unknown).word(), word, "{answer}");
    }
    assert_eq!(read(SUBMIT_WHOLE, &Ok(json!(null))), Verdict::Taken);
}

#[tokio::test]
async fn a_block_that_was_taken_gets_a_second_look() {
    let (script, route) = route(Some("D8")).await;
    script.answers("submitauxblock", json!(true));
    script.fails("getblockheader", -5, "Block not found");
    let before = Instant::now();
    assert_eq!(route.attempt(&block()).await.word(), "waiting");
    assert!(before.elapsed() >= SECOND_LOOK);
    assert_eq!(script.called().len(), 3);
    script.answers("getblockheader", json!({"confirmations": -1, "height": 7}));
    assert_eq!(route.attempt(&block()).await, Outcome::Stale);
}

#[tokio::test]
async fn a_block_that_the_daemon_forgot_may_be_in_its_chain_already() {
    let (script, route) = route(Some("D8")).await;
    script.fails("submitauxblock", -8, "block hash unknown");
    script.answers("getblockheader", json!({"confirmations": 3, "height": 7}));
    assert_eq!(route.attempt(&block()).await, Outcome::Accepted);
    script.fails("getblockheader", -5, "Block not found");
    let gone = route.attempt(&block()).await;
    assert!(matches!(&gone, Outcome::Rejected(reason) if reason.contains("(block hash unknown)")), "{gone:?}");
}

#[tokio::test]
async fn a_daemon_that_cannot_answer_now_has_said_nothing() {
    let (script, route) = route(Some("D8")).await;
    script.fails("submitauxblock", -28, "Loading block index...");
    assert_eq!(route.attempt(&block()).await.word(), "failed");
    script.answers("submitauxblock", json!(false));
    script.fails("getblockheader", -28, "Loading block index...");
    assert_eq!(route.attempt(&block()).await.word(), "failed");
    let (script, config) = Scripted::start(None).await;
    script.stop();
    let news = Arc::<Notify>::default();
    let failed = AuxRoute::new(Daemon::new(&config), news.clone()).attempt(&block()).await;
    assert!(matches!(&failed, Outcome::Failed(reason) if reason.starts_with("cannot reach doge's RPC")), "{failed:?}");
    assert!(futures::FutureExt::now_or_never(news.notified()).is_none(), "there is nothing to ask for");
}
