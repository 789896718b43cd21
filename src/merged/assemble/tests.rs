//! Chains whose daemons answer, lie, collide and fall silent, on a clock of the test's.

use super::*;
use crate::merged::Mode;
use crate::merged::reading::{Failure, Moment};
use crate::merged::template::TemplateAnswer;
use sharechain::merkle::Digest;

fn label(name: &str) -> Label {
    Label { name: name.into(), daemon: "127.0.0.1:22555".into(), payee: "D8".into() }
}

fn block(chain: &str, chain_id: u32, hash: u8) -> MergedBlock {
    MergedBlock {
        chain: chain.into(),
        chain_id,
        hash: [hash; 32],
        target: MergedTarget::Own(hard()),
        previous_block: Digest::default(),
        height: 1000 + u32::from(hash),
        value: Some(50),
        payee: "D8".into(),
    }
}

/// Difficulty 1.
fn hard() -> Target {
    sharechain::share::Bits(0x1d00_ffff).target()
}

/// Difficulty 2^-8.
fn floor() -> Target {
    sharechain::share::Bits(0x1e00_ffff).target()
}

fn answering(block: MergedBlock, start: Instant) -> Reading {
    Reading {
        version: "/Shibetoshi:1.14.9/".into(),
        mode: Some(Mode::Address),
        chain_id: Some(block.chain_id),
        offer: Some(Offer::Made(Arc::new(block))),
        offer_since: Some(5.0),
        answered: Some(Moment { at: start, unix: 6.0 }),
        ..Reading::new(start)
    }
}

fn failing(reading: Reading, is_refusal: bool) -> Reading {
    let word = if is_refusal { "answer" } else { "timeout" };
    Reading { failure: Some(Failure { word, text: "no".into(), is_refusal }), failures: 1, ..reading }
}

fn combined(readings: &[Reading], before: &Arc<MergedOffers>, now: Instant) -> Combined {
    let names = ["one", "two", "three"].map(label);
    combine(&names[..readings.len()], readings, floor(), before, now)
}

fn states(combined: &Combined) -> Vec<State> {
    combined.status.iter().map(|status| status.state).collect()
}

fn mined(combined: &Combined) -> Vec<u32> {
    combined.work.all().iter().map(Offer::chain_id).collect()
}

#[test]
fn chains_are_mined_in_the_order_of_the_configuration_and_unchanged_work_is_the_same() {
    let start = Instant::now();
    let readings = [answering(block("one", 98, 1), start), Reading::new(start), answering(block("three", 1, 2), start)];
    let first = combined(&readings, &Arc::default(), start);
    assert_eq!(states(&first), [State::Mining, State::Starting, State::Mining]);
    assert_eq!(mined(&first), [98, 1]);
    let status = &first.status[0];
    assert_eq!((status.height, status.difficulty, status.value), (Some(1001), Some(1.0), Some(50)));
    assert_eq!((status.answered_at, status.work_since, &status.trouble), (Some(6.0), Some(5.0), &None));
    assert_eq!(first.status[1].height, None);
    let again = combined(&readings, &first.work, start + Duration::from_secs(1));
    assert!(Arc::ptr_eq(&first.work, &again.work));
    let newer = [answering(block("one", 98, 3), start), readings[1].clone(), readings[2].clone()];
    let newer = combined(&newer, &first.work, start);
    assert_ne!(first.work, newer.work);
    assert_eq!(newer.work.all()[0].stand_in().hash, [3; 32]);
}

#[test]
fn a_silent_daemons_last_work_is_used_for_ten_minutes() {
    let start = Instant::now();
    let readings = [failing(answering(block("one", 98, 1), start), false), answering(block("two", 1, 2), start)];
    let now = combined(&readings, &Arc::default(), start);
    assert_eq!((states(&now), mined(&now)), (vec![State::Waiting, State::Mining], vec![98, 1]));
    assert_eq!((now.words[0], now.status[0].trouble.as_deref()), (Some("timeout"), Some("no")));
    assert_eq!(now.changes_at, Some(start + KEPT_MAX));
    let readings = [readings[0].clone(), answering(block("two", 1, 2), start + Duration::from_secs(500))];
    let before = combined(&readings, &now.work, start + KEPT_MAX - Duration::from_secs(1));
    assert!(Arc::ptr_eq(&before.work, &now.work));
    let after = combined(&readings, &now.work, start + KEPT_MAX);
    assert_eq!((states(&after), mined(&after)), (vec![State::LeftOut, State::Mining], vec![1]));
    assert_eq!((after.status[0].height, after.status[0].work_since), (None, None));
    assert_eq!(after.changes_at, Some(start + Duration::from_secs(500) + KEPT_MAX));
}

#[test]
fn a_daemon_that_never_answered_is_left_out_after_a_while_and_one_that_refuses_at_once() {
    let start = Instant::now();
    let readings = [failing(Reading::new(start), false), failing(Reading::new(start), true)];
    let now = combined(&readings, &Arc::default(), start);
    assert_eq!(states(&now), [State::Starting, State::LeftOut]);
    assert_eq!(now.changes_at, Some(start + KEPT_MAX));
    let later = combined(&readings, &now.work, start + KEPT_MAX);
    assert_eq!(states(&later), [State::LeftOut, State::LeftOut]);
    assert_eq!((later.changes_at, mined(&later).len()), (None, 0));
}

#[test]
fn the_later_of_two_chains_with_one_number_is_left_out_until_the_first_is() {
    let start = Instant::now();
    let readings = [
        answering(block("one", 98, 1), start),
        answering(block("two", 98, 2), start),
        answering(block("three", 98 + (1 << 30), 3), start),
    ];
    let now = combined(&readings, &Arc::default(), start);
    assert_eq!((states(&now), mined(&now)), (vec![State::Mining, State::LeftOut, State::LeftOut], vec![98]));
    assert_eq!(&**now.work.all()[0].chain(), "one");
    for (status, chain) in now.status[1..].iter().zip(["98 is also that of one", "98 of one"]) {
        assert!(status.trouble.as_ref().unwrap().contains(chain), "{:?}", status.trouble);
    }
    assert_eq!(now.words, [None, Some("collision"), Some("collision")]);
    let again = combined(&readings, &now.work, start);
    assert!(Arc::ptr_eq(&now.work, &again.work), "nothing has changed");
    let readings = [failing(Reading::new(start), true), readings[1].clone(), readings[2].clone()];
    let later = combined(&readings, &now.work, start);
    assert_eq!((states(&later), mined(&later)), (vec![State::LeftOut, State::Mining, State::LeftOut], vec![98]));
}

#[test]
fn a_target_that_miners_cannot_use_is_mined_with_a_warning() {
    let start = Instant::now();
    let with = |target| MergedBlock { target, ..block("one", 98, 1) };
    let of = |target| combined(&[answering(with(target), start)], &Arc::default(), start);
    let easy = of(MergedTarget::Own(Target::MAX_256));
    assert_eq!((states(&easy), mined(&easy).len()), (vec![State::Mining], 1));
    assert_eq!((easy.words[0], easy.status[0].trouble.as_deref()), (Some("easy_target"), Some(EASY)));
    assert_eq!(of(MergedTarget::Own(floor())).status[0].trouble, None);
    let shares = of(MergedTarget::Share);
    assert_eq!((shares.status[0].trouble.clone(), shares.status[0].difficulty), (None, None));
    let silent = failing(answering(with(MergedTarget::Own(Target::MAX_256)), start), false);
    assert_eq!(combined(&[silent], &Arc::default(), start).words, [Some("timeout")], "a failure comes first");
}

/// A template on the block with this hash, for a block of this value.
fn template(previous: u8, value: u64) -> Offer {
    let answer = serde_json::json!({
        "version": 0x0062_0004,
        "previousblockhash": format!("{previous:02x}").repeat(32),
        "transactions": [],
        "coinbasevalue": value,
        "target": "00".repeat(4) + "ffff" + &"00".repeat(26),
        "curtime": 1_700_000_000,
        "bits": "1d00ffff",
        "height": 7,
    });
    let template = serde_json::from_value::<TemplateAnswer>(answer).unwrap().check().unwrap().into();
    Offer::Template { chain: "one".into(), template }
}

fn paying(offer: Offer, start: Instant) -> Reading {
    Reading { mode: Some(Mode::Payouts), offer: Some(offer), ..answering(block("one", 98, 1), start) }
}

#[test]
fn a_chain_that_pays_the_miners_says_so_and_one_that_could_is_mined_with_a_warning() {
    let start = Instant::now();
    let now = combined(&[paying(template(1, 50), start)], &Arc::default(), start);
    let status = &now.status[0];
    assert_eq!((&*status.payee, status.state, status.mode), ("the miners", State::Mining, Some(Mode::Payouts)));
    assert_eq!((status.height, status.difficulty, status.value), (Some(7), Some(1.0), Some(50)));
    let unpaid = Reading { unpaid: Some("no templates".into()), ..answering(block("one", 98, 1), start) };
    let now = combined(&[unpaid], &Arc::default(), start);
    assert_eq!((&*now.status[0].payee, states(&now), mined(&now).len()), ("D8", vec![State::Mining], 1));
    assert_eq!((now.words[0], now.status[0].trouble.as_deref()), (Some("unpaid"), Some("no templates")));
}

/// An assembler of one chain, and what it publishes.
struct Running {
    work: watch::Receiver<Arc<MergedOffers>>,
    status: watch::Receiver<Arc<Vec<ChainStatus>>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn run(readings: watch::Receiver<Vec<Reading>>) -> Running {
    let (work_sender, work) = watch::channel(Arc::default());
    let (status_sender, status) = watch::channel(Arc::default());
    let assembler =
        Assembler { chains: vec![label("one")], floor: floor(), readings, work: work_sender, status: status_sender };
    let stop = CancellationToken::new();
    let task = tokio::spawn(assembler.run(stop.clone()));
    Running { work, status, stop, task }
}

#[tokio::test(start_paused = true)]
async fn a_refreshed_template_wakes_no_one_and_is_there_for_the_next_work() {
    let (readings, receiver) = watch::channel(vec![paying(template(1, 50), Instant::now())]);
    let Running { mut work, mut status, stop, task } = run(receiver);
    work.changed().await.unwrap();
    assert_eq!(work.borrow_and_update().all(), [template(1, 50)]);
    status.mark_unchanged();
    readings.send_replace(vec![paying(template(1, 60), Instant::now())]);
    status.changed().await.unwrap();
    assert!(!work.has_changed().unwrap());
    assert_eq!(work.borrow().all(), [template(1, 60)]);
    readings.send_replace(vec![paying(template(2, 60), Instant::now())]);
    work.changed().await.unwrap();
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn work_is_published_when_it_changes_and_withdrawn_in_time() {
    let start = Instant::now();
    let (readings, receiver) = watch::channel(vec![Reading::new(start)]);
    let Running { mut work, mut status, stop, task } = run(receiver);
    status.changed().await.unwrap();
    assert_eq!(status.borrow_and_update()[0].state, State::Starting);
    readings.send_replace(vec![answering(block("one", 98, 1), Instant::now())]);
    work.changed().await.unwrap();
    assert_eq!(work.borrow_and_update().all().len(), 1);
    status.changed().await.unwrap();
    // The same again, a second later.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut same = answering(block("one", 98, 1), Instant::now());
    same.answered = Some(Moment { at: Instant::now(), unix: 7.0 });
    readings.send_replace(vec![same]);
    status.changed().await.unwrap();
    assert_eq!(status.borrow_and_update()[0].answered_at, Some(7.0));
    assert!(!work.has_changed().unwrap());
    let answered = Instant::now();
    work.changed().await.unwrap();
    assert!((KEPT_MAX..KEPT_MAX + Duration::from_secs(1)).contains(&answered.elapsed()), "{:?}", answered.elapsed());
    assert_eq!(work.borrow_and_update().all().len(), 0);
    status.changed().await.unwrap();
    assert_eq!(status.borrow_and_update()[0].state, State::LeftOut);
    stop.cancel();
    task.await.unwrap();
}
