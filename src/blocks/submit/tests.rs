//! Submissions with scripted routes.

use super::*;
use crate::blocks::{BlockReport, Finding, Outcome};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep, timeout};

/// Depth at which a competitor in the parent chain is final.
const COMPETITOR_DEPTH: u32 = 100;

/// Returns these outcomes in turn, then hangs.
struct Scripted(&'static str, Mutex<VecDeque<Outcome>>);

impl Route for Scripted {
    fn name(&self) -> &'static str {
        self.0
    }

    fn attempt<'a>(&'a self, _: &'a FoundBlock) -> BoxFuture<'a, Outcome> {
        let next = self.1.lock().pop_front();
        Box::pin(async move {
            match next {
                Some(outcome) => outcome,
                None => std::future::pending().await,
            }
        })
    }
}

fn block() -> FoundBlock {
    FoundBlock {
        hash: BlockHash::from_byte_array([1; 32]),
        previous_block: BlockHash::from_byte_array([2; 32]),
        height: 7,
        bytes: Bytes::from_static(b"block"),
        finding: Finding { value: 1, payee: "payee".into(), finder: "finder".into(), is_ours: true },
        judged_at: None,
    }
}

/// A running submitter, and the channels to it.
struct Bench {
    tasks: Tasks,
    blocks: mpsc::Sender<FoundBlock>,
    heard: broadcast::Receiver<BlockReport>,
    next_block: watch::Sender<Option<NextBlock>>,
    resubmitter: Resubmitter,
}

fn bench(journal: Journal, routes: Vec<Arc<dyn Route>>) -> Bench {
    let tasks = Tasks::new();
    let (next_block, receiver) = watch::channel(None);
    let Handle { blocks, resubmitter, reports } = start(&tasks, Inputs { journal, routes, next_block: receiver });
    let heard = reports.from_the_start();
    Bench { tasks, blocks, heard, next_block, resubmitter }
}

fn at_height(height: u32) -> Option<NextBlock> {
    Some(NextBlock { previous_block: BlockHash::from_byte_array([7; 32]), height })
}

fn scripted(name: &'static str, outcomes: &[Outcome]) -> Arc<dyn Route> {
    Arc::new(Scripted(name, Mutex::new(outcomes.iter().cloned().collect())))
}

/// Returns the states of the journal's files.
fn states(dir: &std::path::Path) -> Vec<String> {
    let files = std::fs::read_dir(dir.join("found_blocks")).unwrap();
    let state = |name: String| name.rsplit('.').next().unwrap().to_owned();
    files.map(|file| state(file.unwrap().file_name().to_string_lossy().into_owned())).collect()
}

async fn wait_for_state(dir: &std::path::Path, state: &str) {
    let waited = Instant::now();
    while states(dir) != [state] {
        assert!(waited.elapsed() < Duration::from_secs(10), "{:?} instead of {state}", states(dir));
        sleep(Duration::from_millis(5)).await;
    }
}

/// Submits one block by routes with these outcomes; returns every report up to the verdict, and the state of its file.
async fn fate(routes: &[(&'static str, &[Outcome])]) -> (Vec<(Option<&'static str>, Outcome)>, String) {
    let dir = tempfile::tempdir().unwrap();
    let routes = routes.iter().map(|(name, outcomes)| scripted(name, outcomes)).collect();
    let mut bench = bench(Journal::of_test(dir.path()), routes);
    bench.blocks.send(block()).await.unwrap();
    let mut reported = Vec::new();
    while reported.last().is_none_or(|(route, _): &(Option<&str>, Outcome)| route.is_some()) {
        let report = bench.heard.recv().await.unwrap();
        reported.push((report.route, report.outcome));
    }
    let waited = Instant::now();
    // Written concurrently with the routes, and renamed just after the verdict.
    let is_open = || states(dir.path()).first().is_none_or(|state| ["block", "tmp"].contains(&state.as_str()));
    while is_open() && waited.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(5)).await;
    }
    (reported, states(dir.path()).remove(0))
}

fn failed() -> Outcome {
    Outcome::Failed("no".into())
}

fn rejected(reason: &str) -> Outcome {
    Outcome::Rejected(reason.into())
}

#[tokio::test]
async fn one_route_that_hangs_does_not_keep_the_others_word() {
    let (reported, state) = fate(&[("rpc", &[]), ("p2p", &[Outcome::Accepted])]).await;
    assert_eq!(reported, [(Some("p2p"), Outcome::Accepted), (None, Outcome::Accepted)]);
    assert_eq!(state, "accepted");
}

#[tokio::test]
async fn a_route_that_fails_is_tried_again() {
    let (reported, _) = fate(&[("rpc", &[failed(), failed(), Outcome::Accepted])]).await;
    let outcomes: Vec<_> = reported.into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, [failed(), failed(), Outcome::Accepted, Outcome::Accepted]);
}

#[tokio::test]
async fn a_rejection_waits_for_a_route_that_may_know_better() {
    let (reported, state) = fate(&[("rpc", &[rejected("bad")]), ("p2p", &[failed(), Outcome::Accepted])]).await;
    assert_eq!(reported.last(), Some(&(None, Outcome::Accepted)));
    assert_eq!(state, "accepted");
}

#[tokio::test]
async fn a_rejection_counts_once_no_other_route_got_the_block_accepted() {
    let (reported, state) = fate(&[("rpc", &[failed(), rejected("bad")])]).await;
    assert_eq!(reported.last(), Some(&(None, rejected("bad"))));
    assert_eq!(state, "rejected");
}

impl Bench {
    /// Returns the next verdict; the block is retried at once until there is one.
    async fn verdict(&mut self) -> Outcome {
        loop {
            match timeout(Duration::from_millis(20), self.heard.recv()).await {
                Ok(report) => {
                    let report = report.unwrap();
                    if report.route.is_none() {
                        return report.outcome;
                    }
                }
                Err(_) => self.resubmitter.resubmit(block().hash).await.unwrap(),
            }
        }
    }
}

#[tokio::test]
async fn a_stale_block_is_shown_at_once_and_offered_until_the_chain_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    let waiting = Outcome::Waiting("no parent".into());
    let route = scripted("rpc", &[waiting, Outcome::Stale, Outcome::Stale, failed(), Outcome::Accepted]);
    let mut bench = bench(Journal::of_test(dir.path()), vec![route]);
    bench.blocks.send(block()).await.unwrap();
    assert_eq!(bench.verdict().await, Outcome::Stale);
    wait_for_state(dir.path(), "stale").await;
    assert_eq!(bench.verdict().await, Outcome::Accepted, "it is reported as stale once");
    wait_for_state(dir.path(), "accepted").await;
}

#[tokio::test]
async fn a_block_is_given_up_when_its_competitor_is_a_hundred_deep() {
    let dir = tempfile::tempdir().unwrap();
    let waiting = vec![Outcome::Waiting("no parent".into()); 1000];
    let mut bench = bench(Journal::of_test(dir.path()), vec![scripted("rpc", &waiting)]);
    bench.next_block.send_replace(at_height(block().height + COMPETITOR_DEPTH));
    bench.blocks.send(block()).await.unwrap();
    for _ in 0..20 {
        assert_eq!(bench.heard.recv().await.unwrap().route, Some("rpc"));
        bench.resubmitter.resubmit(block().hash).await.unwrap();
    }
    bench.next_block.send_replace(at_height(block().height + COMPETITOR_DEPTH + 1));
    assert_eq!(bench.verdict().await, Outcome::Stale);
    wait_for_state(dir.path(), "stale").await;
    assert_eq!(bench.verdict().await, Outcome::Stale, "it had ended, and started again from the file");
}

#[tokio::test]
async fn a_block_left_by_an_earlier_run_goes_out_first_and_one_in_the_queue_at_the_stop_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::of_test(dir.path());
    journal.write(&block()).unwrap();
    let mut bench = bench(journal.clone(), vec![scripted("rpc", &[Outcome::Accepted])]);
    assert_eq!(bench.heard.recv().await.unwrap().block, block());
    // A block that is assembled during a stop arrives after the signal.
    bench.tasks.stop();
    sleep(Duration::from_millis(50)).await;
    let queued = FoundBlock { hash: BlockHash::from_byte_array([9; 32]), ..block() };
    bench.blocks.send(queued.clone()).await.unwrap();
    drop(bench.blocks);
    assert!(bench.tasks.drain(Duration::from_secs(5)).await);
    let left: Vec<_> = journal.unfinished().unwrap().blocks.into_iter().map(|(block, _)| block).collect();
    assert_eq!(left, [queued]);
}

#[tokio::test]
async fn what_an_earlier_run_held_for_rejected_is_decided_by_the_first_routes_answer() {
    for (answer, state) in [(rejected("bad"), "rejected"), (Outcome::Accepted, "accepted"), (Outcome::Stale, "stale")] {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of_test(dir.path());
        journal.write(&block()).unwrap().mark(&rejected("an earlier version's guess")).unwrap();
        let routes = vec![scripted("rpc", &[failed(), answer.clone()]), scripted("p2p", &[Outcome::Accepted])];
        let mut bench = bench(journal, routes);
        let mut reported = Vec::new();
        while reported.last().is_none_or(|(route, _): &(Option<&str>, Outcome)| route.is_some()) {
            let report = bench.heard.recv().await.unwrap();
            reported.push((report.route, report.outcome));
        }
        assert_eq!(reported, [(Some("rpc"), failed()), (Some("rpc"), answer.clone()), (None, answer)]);
        wait_for_state(dir.path(), state).await;
    }
}

#[tokio::test]
async fn a_block_is_submitted_again_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::of_test(dir.path());
    let mut bench = bench(journal.clone(), vec![scripted("rpc", &[Outcome::Accepted])]);
    let error = bench.resubmitter.resubmit(block().hash).await.unwrap_err();
    assert!(matches!(error, ResubmitError::NotKept { .. }));
    assert!(error.to_string().contains("lost by as many blocks (100 for bitcoind), are removed"), "{error}");
    journal.write(&block()).unwrap().mark(&Outcome::Accepted).unwrap();
    bench.resubmitter.resubmit(block().hash).await.unwrap();
    assert_eq!(bench.heard.recv().await.unwrap().outcome, Outcome::Accepted);
}

/// Takes a while per block, and counts the blocks it has at a time.
#[derive(Default)]
struct Counting {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Route for Counting {
    fn name(&self) -> &'static str {
        "rpc"
    }

    fn attempt<'a>(&'a self, block: &'a FoundBlock) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            assert_eq!(block.bytes, super::tests::block().bytes, "it was read from its file");
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            sleep(Duration::from_millis(10)).await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            Outcome::Accepted
        })
    }
}

#[tokio::test]
async fn many_stale_blocks_of_earlier_runs_are_offered_a_few_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::of_test(dir.path());
    let count = 5 * LEFTOVERS_AT_ONCE;
    for seed in 0..u8::try_from(count).unwrap() {
        let stale = FoundBlock { hash: BlockHash::from_byte_array([seed; 32]), ..block() };
        journal.write(&stale).unwrap().mark(&Outcome::Stale).unwrap();
    }
    let route = Arc::new(Counting::default());
    let mut bench = bench(journal, vec![route.clone()]);
    let mut accepted = 0;
    while accepted < count {
        accepted += usize::from(bench.heard.recv().await.unwrap().route.is_none());
    }
    assert_eq!(route.most.load(Ordering::SeqCst), LEFTOVERS_AT_ONCE);
}

#[tokio::test]
async fn a_route_that_hangs_over_stale_blocks_does_not_hold_up_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::of_test(dir.path());
    let count = 3 * LEFTOVERS_AT_ONCE;
    for seed in 0..u8::try_from(count).unwrap() {
        let stale = FoundBlock { hash: BlockHash::from_byte_array([seed; 32]), ..block() };
        journal.write(&stale).unwrap().mark(&Outcome::Stale).unwrap();
    }
    let mut bench = bench(journal, vec![scripted("p2p", &[]), Arc::new(Counting::default())]);
    let mut by_rpc = 0;
    while by_rpc < count {
        let report = timeout(Duration::from_secs(10), bench.heard.recv()).await.expect("RPC continues").unwrap();
        by_rpc += usize::from(report.route == Some("rpc"));
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_occupies_one_reader_however_often_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::of_test(dir.path());
    let bench = bench(journal.clone(), vec![scripted("rpc", &[Outcome::Accepted])]);
    let file = dir.path().join("found_blocks").join(format!("0000007-{}.accepted", block().hash));
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    let request = || Box::pin(bench.resubmitter.resubmit(block().hash));
    let (refused, reader) = futures::future::select(request(), request()).await.factor_first();
    assert!(matches!(refused, Err(ResubmitError::Reading(_))), "{refused:?}");
    // The reader gets an empty file, and ends.
    std::fs::write(&file, b"").unwrap();
    assert!(matches!(reader.await, Err(ResubmitError::Find(_))));
}

#[tokio::test]
async fn routes_start_at_once_and_a_disk_that_refuses_is_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::of_test(dir.path());
    let folder = dir.path().join("found_blocks");
    std::fs::remove_dir(&folder).unwrap();
    let mut bench = bench(journal, vec![scripted("rpc", &[Outcome::Accepted])]);
    bench.blocks.send(block()).await.unwrap();
    assert_eq!(bench.heard.recv().await.unwrap().outcome, Outcome::Accepted);
    std::fs::create_dir(&folder).unwrap();
    wait_for_state(dir.path(), "accepted").await;
}

#[tokio::test]
async fn a_journal_that_hangs_delays_neither_the_routes_nor_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::of_test(dir.path());
    // Opening a FIFO for writing blocks until there is a reader, which never comes.
    let path = dir.path().join("found_blocks").join(format!("{:07}-{}.tmp", block().height, block().hash));
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let Bench { tasks, blocks, mut heard, .. } = bench(journal, vec![scripted("rpc", &[Outcome::Accepted])]);
    blocks.send(block()).await.unwrap();
    drop(blocks);
    assert_eq!(heard.recv().await.unwrap().outcome, Outcome::Accepted);
    assert!(tasks.drain(Duration::from_secs(5)).await);
    // Unblocks the thread, so that the test's runtime can end.
    drop(std::fs::File::open(&path).unwrap());
}
