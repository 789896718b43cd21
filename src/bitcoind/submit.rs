//! Gets a found block accepted: on disk first, then by every route at once, again and again until its fate is known.

use futures::stream::{FuturesUnordered, StreamExt};
use metrics::{Gauge, counter, gauge, histogram};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::Route;
use super::backoff::Backoff;
use crate::block::{BlockReport, FoundBlock, Outcome};
use crate::journal::{Entry, Journal, JournalError};
use crate::tasks::Tasks;

/// First and longest wait before a route that failed is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// How long a word against a block waits for the other routes' words, and how long routes may go on after the final word.
const SETTLE: Duration = Duration::from_secs(10);

/// How long blocks in flight keep a stopping node: long enough for a first attempt, short of the two seconds that a stop
/// may take. What is not settled by then is in the journal.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Starts taking up blocks: first those that `journal` has left of an earlier run, then those that come through `blocks`.
/// Where routes disagree on a block that none accepted, the word of the first in `routes` counts.
pub fn start(
    tasks: &Tasks,
    journal: Journal,
    routes: Vec<Arc<dyn Route>>,
    blocks: mpsc::Receiver<FoundBlock>,
    reports: broadcast::Sender<BlockReport>,
) {
    let submitter = Submitter { tasks: tasks.clone(), journal, routes: routes.into(), reports };
    tasks.spawn("submit", submitter.run(blocks));
}

struct Submitter {
    tasks: Tasks,
    journal: Journal,
    routes: Arc<[Arc<dyn Route>]>,
    reports: broadcast::Sender<BlockReport>,
}

impl Submitter {
    async fn run(self, mut blocks: mpsc::Receiver<FoundBlock>) {
        let stop = self.tasks.stop_signal();
        let mut has_resubmitted = false;
        loop {
            tokio::select! {
                biased;
                // What an earlier run left is that run's while it lasts.
                () = self.journal.ours(), if !has_resubmitted => {
                    self.resubmit().await;
                    has_resubmitted = true;
                }
                block = blocks.recv() => match block {
                    Some(block) => self.take_up(block, None),
                    None => return,
                },
                () = stop.cancelled() => {
                    // Closed first, so that nothing slips in after the last look.
                    blocks.close();
                    while let Some(block) = blocks.recv().await {
                        self.take_up(block, None);
                    }
                    return;
                }
            }
        }
    }

    async fn resubmit(&self) {
        let journal = self.journal.clone();
        match tokio::task::spawn_blocking(move || journal.unfinished()).await {
            Ok(Ok(unfinished)) => {
                for (path, reason) in unfinished.damaged {
                    error!(path = %path.display(), %reason, "a found block on disk is damaged and was set aside");
                }
                for (block, entry) in unfinished.blocks {
                    warn!(height = block.height, hash = %block.hash, "submitting a block that an earlier run left");
                    self.take_up(block, Some(entry));
                }
            }
            Ok(Err(error)) => error!(%error, "found blocks of an earlier run cannot be looked for"),
            Err(error) => error!(%error, "looking for found blocks of an earlier run failed"),
        }
    }

    /// Starts a task for the block: none waits for another.
    fn take_up(&self, block: FoundBlock, entry: Option<Entry>) {
        let submission = Submission {
            journal: self.journal.clone(),
            routes: self.routes.clone(),
            reports: self.reports.clone(),
            stop: self.tasks.stop_signal(),
            decided: CancellationToken::new(),
        };
        let unsettled = Unsettled::one();
        self.tasks.spawn("submission", async move { submission.run(&block, entry, unsettled).await });
    }
}

/// A block whose fate is not known, in the metrics.
struct Unsettled(Gauge);

impl Unsettled {
    fn one() -> Self {
        let gauge = gauge!("bitcoind_blocks_unsettled");
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// One block on its way.
struct Submission {
    journal: Journal,
    routes: Arc<[Arc<dyn Route>]>,
    reports: broadcast::Sender<BlockReport>,
    stop: CancellationToken,
    /// The final word is spoken: no more retries.
    decided: CancellationToken,
}

impl Submission {
    async fn run(&self, block: &FoundBlock, entry: Option<Entry>, unsettled: Unsettled) {
        let entry = match entry {
            Some(entry) => Some(entry),
            None => self.write(block).await,
        };
        // Beside the attempts: the disk may take longer than the daemon.
        let sync = entry.clone().map(|entry| tokio::task::spawn_blocking(move || entry.sync()));
        let mut pursuits: FuturesUnordered<_> =
            self.routes.iter().enumerate().map(|(index, route)| self.pursue(index, route.as_ref(), block)).collect();
        let mut words: Vec<Option<Outcome>> = vec![None; self.routes.len()];
        let mut settled_at: Option<Instant> = None;
        let stopped = async {
            self.stop.cancelled().await;
            sleep(STOP_GRACE).await;
        };
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                word = pursuits.next() => {
                    let Some((index, outcome)) = word else { break };
                    let accepted = outcome == Outcome::Accepted;
                    words[index] = Some(outcome);
                    if accepted {
                        break;
                    }
                    settled_at.get_or_insert_with(|| Instant::now() + SETTLE);
                }
                () = sleep_until(settled_at.unwrap_or_else(Instant::now)), if settled_at.is_some() => break,
                () = &mut stopped => {
                    if let Some(sync) = sync {
                        finish_sync(sync).await;
                    }
                    warn!(hash = %block.hash, "stopping before the block's fate is known: the next start goes on with it");
                    return;
                }
            }
        }
        let Some(verdict) = verdict(&words) else {
            error!(hash = %block.hash, "no route for blocks: the block stays on disk");
            return;
        };
        self.decided.cancel();
        self.conclude(block, &verdict);
        drop(unsettled);
        if let Some(sync) = sync {
            finish_sync(sync).await;
        }
        if let Some(entry) = entry {
            let finished = tokio::task::spawn_blocking(move || entry.finish(&verdict)).await;
            if let Ok(Err(error)) = finished {
                warn!(%error, "a block's fate could not be noted: the next start submits it again");
            }
        }
        // The other routes' words are still worth a line in the log; their tasks end here at the latest.
        tokio::select! {
            _ = timeout(SETTLE, async { while pursuits.next().await.is_some() {} }) => {}
            () = &mut stopped => {}
        }
    }

    async fn write(&self, block: &FoundBlock) -> Option<Entry> {
        if !self.journal.is_ours() {
            // Found by a peer, as miners are not served yet: the process that has the journal keeps it, too.
            return None;
        }
        let (journal, copy) = (self.journal.clone(), block.clone());
        match tokio::task::spawn_blocking(move || journal.write(&copy)).await {
            Ok(Ok(entry)) => return Some(entry),
            Ok(Err(error)) => error!(%error, hash = %block.hash, "a found block could not be written to disk"),
            Err(error) => error!(%error, hash = %block.hash, "writing a found block failed"),
        }
        None
    }

    /// One route until it has a final word, or until another's was final for the block.
    async fn pursue(&self, index: usize, route: &dyn Route, block: &FoundBlock) -> (usize, Outcome) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        let mut failed_before = false;
        loop {
            let started = Instant::now();
            let outcome = route.attempt(block).await;
            histogram!("bitcoind_block_submission_seconds", "route" => route.name()).record(started.elapsed());
            counter!("bitcoind_block_submissions_total", "route" => route.name(), "outcome" => outcome.word())
                .increment(1);
            self.report(block, Some(route.name()), outcome.clone());
            let (hash, route) = (block.hash, route.name());
            match &outcome {
                // Said once; the retries of a daemon that is away would fill the log.
                Outcome::Failed(reason) if !failed_before => {
                    warn!(%hash, route, reason, "block not delivered, trying on")
                }
                Outcome::Failed(reason) => debug!(%hash, route, reason, "block not delivered yet"),
                Outcome::Rejected(reason) => warn!(%hash, route, reason, "block rejected"),
                Outcome::Accepted | Outcome::Stale => info!(%hash, route, outcome = outcome.word(), "block delivered"),
            }
            failed_before = true;
            if outcome.is_final() || self.decided.is_cancelled() {
                return (index, outcome);
            }
            tokio::select! {
                () = self.decided.cancelled() => return (index, outcome),
                () = sleep(backoff.delay()) => {}
            }
        }
    }

    fn conclude(&self, block: &FoundBlock, verdict: &Outcome) {
        counter!("bitcoind_blocks_total", "outcome" => verdict.word()).increment(1);
        let (height, hash, finder) = (block.height, block.hash, &block.finder);
        let (payee, value) = (&block.payee, block.value);
        match verdict {
            Outcome::Accepted => info!(height, %hash, payee, value, finder, "BLOCK ACCEPTED"),
            Outcome::Stale => warn!(height, %hash, payee, value, finder, "block is stale: another was there first"),
            Outcome::Rejected(reason) | Outcome::Failed(reason) => {
                error!(
                    height, %hash, payee, value, finder, reason,
                    "BLOCK REJECTED: it breaks a rule and is lost; its bytes are kept in found_blocks"
                );
            }
        }
        self.report(block, None, verdict.clone());
    }

    fn report(&self, block: &FoundBlock, route: Option<&'static str>, outcome: Outcome) {
        // Fails if nobody listens, which is nobody's loss.
        let _ = self.reports.send(BlockReport { block: block.clone(), route, outcome });
    }
}

/// Accepted by one is accepted; otherwise the first route's final word counts.
fn verdict(words: &[Option<Outcome>]) -> Option<Outcome> {
    let finals = || words.iter().flatten().filter(|outcome| outcome.is_final());
    finals().find(|outcome| **outcome == Outcome::Accepted).or_else(|| finals().next()).cloned()
}

async fn finish_sync(sync: JoinHandle<Result<(), JournalError>>) {
    match sync.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "a found block is not safe from a power cut"),
        Err(error) => warn!(%error, "syncing a found block failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;
    use bytes::Bytes;
    use futures::future::BoxFuture;
    use parking_lot::Mutex;
    use std::collections::VecDeque;

    /// Gives these outcomes in turn, then hangs.
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
            value: 1,
            payee: "payee".into(),
            finder: "finder".into(),
            is_ours: true,
        }
    }

    /// Submits one block by routes with these outcomes; gives every report up to the final one, and the journal's file.
    async fn fate(routes: &[(&'static str, &[Outcome])]) -> (Vec<(Option<&'static str>, Outcome)>, String) {
        let dir = tempfile::tempdir().unwrap();
        let tasks = Tasks::new();
        let (blocks, receiver) = mpsc::channel(1);
        let (reports, mut heard) = broadcast::channel(64);
        let routes = routes.iter().map(|(name, outcomes)| {
            Arc::new(Scripted(name, Mutex::new(outcomes.iter().cloned().collect()))) as Arc<dyn Route>
        });
        start(&tasks, Journal::of_test(dir.path()), routes.collect(), receiver, reports);
        blocks.send(block()).await.unwrap();
        let mut told = Vec::new();
        while told.last().is_none_or(|(route, _): &(Option<&str>, Outcome)| route.is_some()) {
            let report = heard.recv().await.unwrap();
            told.push((report.route, report.outcome));
        }
        // The journal's file is renamed just after the word.
        let name = || {
            let mut files = std::fs::read_dir(dir.path().join("found_blocks")).unwrap();
            files.next().unwrap().unwrap().file_name().to_string_lossy().into_owned()
        };
        while name().ends_with(".block") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (told, name().rsplit('.').next().unwrap().to_owned())
    }

    fn failed() -> Outcome {
        Outcome::Failed("no".into())
    }

    fn rejected(reason: &str) -> Outcome {
        Outcome::Rejected(reason.into())
    }

    #[tokio::test]
    async fn one_route_that_hangs_does_not_keep_the_others_word() {
        let (told, state) = fate(&[("rpc", &[]), ("p2p", &[Outcome::Accepted])]).await;
        assert_eq!(told, [(Some("p2p"), Outcome::Accepted), (None, Outcome::Accepted)]);
        assert_eq!(state, "accepted");
    }

    #[tokio::test]
    async fn a_route_that_fails_is_tried_again() {
        let (told, _) = fate(&[("rpc", &[failed(), failed(), Outcome::Accepted])]).await;
        let outcomes: Vec<_> = told.into_iter().map(|(_, outcome)| outcome).collect();
        assert_eq!(outcomes, [failed(), failed(), Outcome::Accepted, Outcome::Accepted]);
    }

    #[tokio::test]
    async fn a_rejection_waits_for_a_route_that_may_know_better() {
        let (told, state) = fate(&[("rpc", &[rejected("bad")]), ("p2p", &[failed(), Outcome::Accepted])]).await;
        assert_eq!(told.last(), Some(&(None, Outcome::Accepted)));
        assert_eq!(state, "accepted");
    }

    #[tokio::test]
    async fn where_routes_disagree_the_first_ones_word_counts() {
        let (told, state) = fate(&[("rpc", &[failed(), rejected("bad")]), ("p2p", &[Outcome::Stale])]).await;
        assert_eq!(told.last(), Some(&(None, rejected("bad"))));
        assert_eq!(state, "rejected");
    }

    #[tokio::test]
    async fn a_block_left_by_an_earlier_run_goes_out_first_and_one_in_the_queue_at_the_stop_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of_test(dir.path());
        journal.write(&block()).unwrap();
        let tasks = Tasks::new();
        let (blocks, receiver) = mpsc::channel(1);
        let (reports, mut heard) = broadcast::channel(64);
        let route = Scripted("rpc", Mutex::new([Outcome::Accepted].into()));
        start(&tasks, journal.clone(), vec![Arc::new(route)], receiver, reports);
        assert_eq!(heard.recv().await.unwrap().block, block());
        let queued = FoundBlock { hash: BlockHash::from_byte_array([9; 32]), ..block() };
        blocks.send(queued.clone()).await.unwrap();
        assert!(tasks.drain(Duration::from_secs(5)).await);
        let left: Vec<_> = journal.unfinished().unwrap().blocks.into_iter().map(|(block, _)| block).collect();
        assert_eq!(left, [queued]);
    }
}
