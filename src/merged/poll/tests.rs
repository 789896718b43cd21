//! What answers mean, on a clock of the test's, and the task against a daemon that answers from a script.

use super::*;
use crate::bitcoind::rpc::RpcError;
use crate::merged::testing::{Scripted, bare};
use sharechain::merged::MergedTarget;
use tokio::time::{sleep, timeout};

fn block(chain_id: u32, hash: u8) -> MergedBlock {
    MergedBlock {
        chain: "doge".into(),
        chain_id,
        hash: [hash; 32],
        target: MergedTarget::Share,
        previous_block: [9; 32],
        height: 7,
        value: None,
        payee: "D8".into(),
    }
}

fn moment(start: Instant, seconds: u32) -> Moment {
    Moment { at: start + Duration::from_secs(seconds.into()), unix: f64::from(seconds) }
}

fn silent() -> Trouble {
    Trouble::Rpc(RpcError::Unreachable { daemon: "doge".into(), target: "here".into(), reason: "closed".into() })
}

#[test]
fn the_same_block_stays_the_same_and_its_age_counts_from_its_first_answer() {
    let start = Instant::now();
    let mut poll = Poll::new(start);
    poll.answered(block(98, 1), Mode::Address, moment(start, 1));
    let first = poll.reading().block.clone().unwrap();
    poll.answered(block(98, 1), Mode::Address, moment(start, 2));
    let reading = poll.reading();
    assert!(Arc::ptr_eq(&first, reading.block.as_ref().unwrap()));
    assert_eq!((reading.block_since, reading.answered), (Some(1.0), Some(moment(start, 2))));
    poll.answered(block(98, 2), Mode::Address, moment(start, 3));
    assert_eq!(poll.reading().block_since, Some(3.0));
    assert_eq!(poll.next_block().unwrap().height, 7);
}

#[test]
fn silence_leaves_the_last_work_and_a_refusal_does_not() {
    let start = Instant::now();
    let mut poll = Poll::new(start);
    poll.answered(block(98, 1), Mode::Address, moment(start, 1));
    poll.failed(&silent());
    assert!(poll.reading().block.is_some() && poll.next_block().is_none());
    assert_eq!((poll.reading().failures, poll.reading().failure.as_ref().unwrap().word), (1, "unreachable"));
    poll.failed(&Trouble::NoGet);
    assert_eq!((&poll.reading().block, poll.reading().block_since, poll.reading().failures), (&None, None, 2));
    poll.answered(block(98, 1), Mode::Address, moment(start, 9));
    let reading = poll.reading();
    assert_eq!((&reading.failure, reading.failures, reading.block_since), (&None, 2, Some(9.0)));
}

#[test]
fn failures_are_retried_ever_more_slowly_up_to_half_a_minute() {
    let start = Instant::now();
    let mut poll = Poll::new(start);
    let delays: Vec<f64> = (0..8).map(|_| poll.failed(&silent()).as_secs_f64()).collect();
    assert!((0.79..1.21).contains(&delays[0]) && (23.0..37.0).contains(&delays[7]), "{delays:?}");
    poll.answered(block(98, 1), Mode::Wallet, moment(start, 1));
    assert!(poll.failed(&silent()) < Duration::from_secs(2));
}

#[test]
fn another_chain_number_counts_from_the_next_probe_on_which_is_half_a_minute_later() {
    let start = Instant::now();
    let mut poll = Poll::new(start);
    assert_eq!(poll.expected_chain_id(), None);
    poll.answered(block(98, 1), Mode::Wallet, moment(start, 1));
    assert_eq!(poll.expected_chain_id(), Some(98));
    assert_eq!(poll.failed(&Trouble::OtherChain { before: 98, now: 1 }), RETRY_LONGEST);
    assert_eq!((&poll.reading().block, poll.expected_chain_id()), (&None, None));
    poll.answered(block(1, 1), Mode::Wallet, moment(start, 40));
    assert_eq!((poll.reading().chain_id, poll.expected_chain_id()), (Some(1), Some(1)));
}

#[tokio::test]
async fn the_daemon_is_probed_then_asked_every_second_and_at_once_on_news() {
    let (script, config) = Scripted::start(Some("D8")).await;
    let mut answer = bare(98, 1);
    answer["height"] = 12.into();
    answer["previousblockhash"] = "02".repeat(32).into();
    script.answers("createauxblock", answer);
    script.answers("getnetworkinfo", serde_json::json!({"subversion": "/Shibetoshi:1.14.9/"}));
    let (readings, mut changed) = watch::channel(vec![Reading::new(Instant::now())]);
    let (next_block, next) = watch::channel(None);
    let chain = Arc::new(Chain::merged("doge", 1).unwrap());
    let (news, stop) = (Arc::<Notify>::default(), CancellationToken::new());
    let poller = Poller {
        daemon: Daemon::new(&config),
        chain: chain.clone(),
        index: 0,
        readings: Arc::new(readings),
        next_block,
        news: news.clone(),
    };
    let task = tokio::spawn(poller.run(stop.clone()));
    timeout(Duration::from_secs(20), changed.changed()).await.unwrap().unwrap();
    let reading = changed.borrow_and_update()[0].clone();
    assert_eq!(
        (&*reading.version, reading.mode, reading.chain_id),
        ("/Shibetoshi:1.14.9/", Some(Mode::Address), Some(98))
    );
    assert_eq!((next.borrow().unwrap().height, chain.maturity()), (12, 240));
    // On a machine that is busy, a call may be late.
    let is_early =
        |times: &[std::time::Instant]| times.windows(2).any(|pair| pair[1] - pair[0] < POLL_INTERVAL * 9 / 10);
    let asked = timeout(Duration::from_secs(60), async {
        while !is_early(&script.times("createauxblock")) {
            news.notify_one();
            sleep(Duration::from_millis(100)).await;
        }
        script.times("createauxblock")
    });
    let asked = asked.await.unwrap();
    assert_eq!(script.times("getnetworkinfo").len(), 1, "it is probed once");
    let intervals = (asked[asked.len() - 1] - asked[0]).as_secs_f64() / POLL_INTERVAL.as_secs_f64();
    assert!(asked.len() as f64 <= 2.0 * intervals + 3.0, "two a second at most: {} in {intervals} s", asked.len());
    stop.cancel();
    timeout(Duration::from_secs(20), task).await.unwrap().unwrap();
}
