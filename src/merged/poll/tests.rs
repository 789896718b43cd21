//! What answers mean, on a clock of the test's, and the task against a daemon that answers from a script.

use super::*;
use crate::bitcoind::rpc::RpcError;
use crate::merged::testing::{Scripted, bare};
use sharechain::merged::MergedTarget;
use tokio::time::{sleep, timeout};

fn block(chain_id: u32, hash: u8) -> Offer {
    Offer::Made(Arc::new(MergedBlock {
        chain: "doge".into(),
        chain_id,
        hash: [hash; 32],
        target: MergedTarget::Share,
        previous_block: [9; 32],
        height: 7,
        value: None,
        payee: "D8".into(),
    }))
}

fn hash(reading: &Reading) -> Option<[u8; 32]> {
    reading.offer.as_ref().map(|offer| offer.stand_in().hash)
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
    let Some(Offer::Made(first)) = poll.reading().offer.clone() else { panic!("{poll:?}") };
    poll.answered(block(98, 1), Mode::Address, moment(start, 2));
    let reading = poll.reading();
    assert!(matches!(&reading.offer, Some(Offer::Made(same)) if Arc::ptr_eq(&first, same)));
    assert_eq!((reading.offer_since, reading.answered), (Some(1.0), Some(moment(start, 2))));
    poll.answered(block(98, 2), Mode::Address, moment(start, 3));
    assert_eq!(poll.reading().offer_since, Some(3.0));
    assert_eq!(poll.next_block().unwrap().height, 7);
}

#[test]
fn silence_leaves_the_last_work_and_a_refusal_does_not() {
    let start = Instant::now();
    let mut poll = Poll::new(start);
    poll.answered(block(98, 1), Mode::Address, moment(start, 1));
    poll.failed(&silent());
    assert!(poll.reading().offer.is_some() && poll.next_block().is_none());
    assert_eq!((poll.reading().failures, poll.reading().failure.as_ref().unwrap().word), (1, "unreachable"));
    poll.failed(&Trouble::NoGet);
    assert_eq!((hash(poll.reading()), poll.reading().offer_since, poll.reading().failures), (None, None, 2));
    poll.answered(block(98, 1), Mode::Address, moment(start, 9));
    let reading = poll.reading();
    assert_eq!((&reading.failure, reading.failures, reading.offer_since), (&None, 2, Some(9.0)));
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
    assert_eq!((hash(poll.reading()), poll.expected_chain_id()), (None, None));
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
        pays: Pays::MinersIfPossible,
        pays_miners: watch::channel(false).1,
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

/// A template on the block with this hash.
fn template(previous: u8) -> serde_json::Value {
    serde_json::json!({
        "version": 0x0062_0004,
        "previousblockhash": format!("{previous:02x}").repeat(32),
        "transactions": [],
        "coinbasevalue": 1_000_000,
        "target": "00".repeat(4) + "ffff" + &"00".repeat(26),
        "curtime": 1_700_000_000,
        "bits": "1d00ffff",
        "height": 7,
    })
}

/// A poll task's parts, for calls one by one.
async fn poller(pays: Pays) -> (Arc<Scripted>, Poller, watch::Sender<bool>) {
    let (script, config) = Scripted::start(Some("D8")).await;
    let (sender, pays_miners) = watch::channel(true);
    let poller = Poller {
        daemon: Daemon::new(&config),
        chain: Arc::new(Chain::merged("doge", 1).unwrap()),
        index: 0,
        readings: Arc::new(watch::channel(vec![Reading::new(Instant::now())]).0),
        next_block: watch::channel(None).0,
        news: Arc::default(),
        pays,
        pays_miners,
    };
    (script, poller, sender)
}

/// Asks once, and takes what comes.
async fn asked(poller: &Poller, poll: &mut Poll) -> Result<Mode, Trouble> {
    let (offer, mode) = poller.ask(poll).await?;
    poll.answered(offer, mode, Moment::now());
    Ok(mode)
}

fn methods(script: &Scripted) -> Vec<String> {
    script.called().into_iter().map(|(method, _)| method).filter(|method| method != "getnetworkinfo").collect()
}

#[tokio::test]
async fn a_template_is_asked_for_again_when_the_tip_changes_or_it_gets_old() {
    let (script, poller, _possible) = poller(Pays::MinersIfPossible).await;
    script.answers("getblocktemplate", template(1));
    script.answers("getbestblockhash", "01".repeat(32).into());
    let mut poll = Poll::new(Instant::now());
    assert_eq!(asked(&poller, &mut poll).await, Ok(Mode::Payouts));
    assert_eq!(methods(&script), ["getblocktemplate"]);
    let since = poll.reading().offer_since;
    assert_eq!(asked(&poller, &mut poll).await, Ok(Mode::Payouts));
    assert_eq!(methods(&script), ["getbestblockhash"], "nothing has changed");
    poll.template_at = Some(Instant::now() - TEMPLATE_AGE_MAX);
    assert_eq!(asked(&poller, &mut poll).await, Ok(Mode::Payouts));
    assert_eq!(methods(&script), ["getblocktemplate"]);
    assert_eq!((poll.reading().offer_since, poll.next_block().unwrap().height), (since, 7));
    script.answers("getblocktemplate", template(2));
    script.answers("getbestblockhash", "02".repeat(32).into());
    assert_eq!(asked(&poller, &mut poll).await, Ok(Mode::Payouts));
    assert_eq!(methods(&script), ["getbestblockhash", "getblocktemplate"]);
    assert_eq!(poll.next_block().unwrap().previous_block, BlockHash::from_byte_array([2; 32]));
    assert_eq!(poll.reading().chain_id, Some(98));
}

#[tokio::test]
async fn who_is_paid_depends_on_the_wish_the_share_chain_and_the_daemon() {
    for (pays, is_possible, expected) in [
        (Pays::MinersIfPossible, true, Ok(Mode::Payouts)),
        (Pays::MinersIfPossible, false, Ok(Mode::Address)),
        (Pays::Miners, true, Ok(Mode::Payouts)),
        (Pays::Miners, false, Err(Trouble::NoPayoutsYet)),
        (Pays::One, true, Ok(Mode::Address)),
    ] {
        let (script, poller, possible) = poller(pays).await;
        script.answers("getblocktemplate", template(1));
        script.answers("createauxblock", complete(98));
        possible.send_replace(is_possible);
        assert_eq!(asked(&poller, &mut Poll::new(Instant::now())).await, expected, "{pays:?} {is_possible}");
    }
}

fn complete(chain_id: u32) -> serde_json::Value {
    let mut answer = bare(chain_id, 1);
    answer["height"] = 12.into();
    answer["previousblockhash"] = "02".repeat(32).into();
    answer
}

#[tokio::test]
async fn templates_of_no_use_leave_the_daemons_own_blocks_with_a_warning_and_are_tried_again() {
    let mut absurd = template(1);
    absurd["coinbasevalue"] = u64::MAX.into();
    let mut other_chain = template(1);
    other_chain["version"] = 0x2000_0000.into();
    let mut witnesses = template(1);
    witnesses["default_witness_commitment"] = "6a24aa21a9ed".into();
    for (answer, word) in [
        (Some(absurd), "coinbasevalue"),
        (Some(witnesses), "witness"),
        (Some(other_chain), "8192"),
        (None, "templates"),
    ] {
        let (script, poller, possible) = poller(Pays::MinersIfPossible).await;
        if let Some(answer) = answer {
            script.answers("getblocktemplate", answer);
        }
        script.answers("createauxblock", complete(98));
        let mut poll = Poll::new(Instant::now());
        assert_eq!(asked(&poller, &mut poll).await, Ok(Mode::Address));
        let unpaid = poll.reading().unpaid.clone().unwrap();
        assert!(unpaid.contains(word), "{unpaid}");
        assert_eq!(methods(&script), ["getblocktemplate", "createauxblock"]);
        asked(&poller, &mut poll).await.unwrap();
        assert_eq!(methods(&script), ["createauxblock"]);
        poll.no_templates.as_mut().unwrap().1 = Instant::now();
        script.answers("getblocktemplate", template(1));
        assert_eq!(asked(&poller, &mut poll).await, Ok(Mode::Payouts));
        assert_eq!(poll.reading().unpaid, None);
        possible.send_replace(false);
        assert_eq!(asked(&poller, &mut poll).await, Ok(Mode::Address));
        assert_eq!(poll.reading().unpaid, None, "nothing is missing");
    }
}

#[tokio::test]
async fn other_chains_miss_no_templates_and_a_daemon_without_both_is_told_about_templates() {
    let (script, of_other, _possible) = poller(Pays::MinersIfPossible).await;
    script.answers("createauxblock", complete(1));
    let mut poll = Poll::new(Instant::now());
    assert_eq!(asked(&of_other, &mut poll).await, Ok(Mode::Address));
    assert_eq!(poll.reading().unpaid, None);
    let (_script, of_none, _possible) = poller(Pays::MinersIfPossible).await;
    let none = asked(&of_none, &mut Poll::new(Instant::now())).await;
    assert!(matches!(&none, Err(trouble @ Trouble::NoTemplates { .. }) if trouble.is_refusal()), "{none:?}");
    let (script, of_busy, _possible) = poller(Pays::MinersIfPossible).await;
    script.fails("getblocktemplate", -10, "Dogecoin is downloading blocks...");
    script.answers("createauxblock", complete(98));
    let busy = asked(&of_busy, &mut Poll::new(Instant::now())).await;
    assert!(matches!(busy, Err(Trouble::Syncing(_))), "its own blocks would be as old: {busy:?}");
}
