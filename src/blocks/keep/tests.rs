//! Pipelines of several chains in one data directory.

use super::*;
use crate::blocks::found::{EventKind, Standing};
use crate::blocks::submit::ResubmitError;
use crate::blocks::{BlockPosition, Finding, Outcome};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use sharechain::coin::BITCOIN_REGTEST;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Every wait takes a second or two on an idle machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Daemon of a chain, with the same answer to every submission.
#[derive(Debug)]
struct Daemon {
    answer: Outcome,
    position: Mutex<BlockPosition>,
    submitted: Mutex<Vec<FoundBlock>>,
}

impl Daemon {
    fn answering(answer: Outcome) -> Arc<Self> {
        let position = match answer {
            Outcome::Accepted => BlockPosition::InChain { height: 7, confirmations: 1 },
            _ => BlockPosition::Unknown,
        };
        Arc::new(Self { answer, position: Mutex::new(position), submitted: Mutex::default() })
    }
}

impl Route for Daemon {
    fn name(&self) -> &'static str {
        "rpc"
    }

    fn attempt<'a>(&'a self, block: &'a FoundBlock) -> BoxFuture<'a, Outcome> {
        self.submitted.lock().push(block.clone());
        Box::pin(std::future::ready(self.answer.clone()))
    }
}

impl Explorer for Daemon {
    fn place<'a>(&'a self, _: &'a BlockHash) -> BoxFuture<'a, Result<BlockPosition, String>> {
        Box::pin(std::future::ready(Ok(*self.position.lock())))
    }
}

/// Data directory and channels that chains share.
struct Bench {
    dir: tempfile::TempDir,
    data_dir: DataDir,
    tasks: Tasks,
    events: broadcast::Sender<Event>,
    heard: broadcast::Receiver<Event>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(dir.path(), &BITCOIN_REGTEST).unwrap();
        let (events, heard) = broadcast::channel(found::EVENTS_KEPT_MAX);
        Self { dir, data_dir, tasks: Tasks::new(), events, heard }
    }

    /// Starts keeping the blocks of `chain`; returns the sender of its next block as well.
    fn keep(&self, chain: &Arc<Chain>, daemon: &Arc<Daemon>) -> (Handle, watch::Sender<Option<NextBlock>>) {
        let (sender, next_block) = watch::channel(None);
        let inputs = Inputs {
            chain: chain.clone(),
            data_dir: self.data_dir.clone(),
            disk: DiskHealth::new(),
            routes: vec![daemon.clone()],
            explorer: daemon.clone(),
            next_block,
            events: self.events.clone(),
        };
        (keep(&self.tasks, inputs).unwrap(), sender)
    }

    /// Returns the next `count` events of blocks from `height` on, in order of the chains.
    async fn events_from(&mut self, height: u32, count: usize) -> Vec<(Option<String>, EventKind, u32)> {
        let mut events = Vec::new();
        while events.len() < count {
            let Event { kind, record } = timeout(LIMIT, self.heard.recv()).await.expect("no event in time").unwrap();
            let chain = record.chain.as_deref().map(str::to_owned);
            events.extend(record.height.filter(|known| *known >= height).map(|height| (chain, kind, height)));
        }
        events.sort_by(|one, other| one.0.cmp(&other.0));
        events
    }

    /// Names of the files in a chain's journal.
    fn files(&self, chain: &Chain) -> Vec<String> {
        names(&chain.folder(self.dir.path()).join("found_blocks"))
    }

    async fn wait_for_files(&self, chain: &Chain, ends: &[&str]) {
        let started = Instant::now();
        let is_so = |files: &[String]| {
            files.len() == ends.len() && files.iter().zip(ends).all(|(file, end)| file.ends_with(end))
        };
        while !is_so(&self.files(chain)) {
            assert!(started.elapsed() < LIMIT, "{:?} instead of {ends:?}", self.files(chain));
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn block(height: u8) -> FoundBlock {
    FoundBlock {
        hash: BlockHash::from_byte_array([height; 32]),
        previous_block: BlockHash::from_byte_array([height - 1; 32]),
        height: height.into(),
        bytes: Bytes::from(vec![height; 5]),
        finding: Finding { value: 1, payee: "operator".into(), finder: "alice".into(), is_ours: true },
        judged_at: None,
    }
}

fn merged(name: &str) -> Arc<Chain> {
    Arc::new(Chain::merged(name, 240).unwrap())
}

/// Waits until the records of a chain have the block, with that standing.
async fn wait_for(handle: &Handle, block: &FoundBlock, standing: Standing) {
    let mut found = handle.found.clone();
    let is_so = |found: &Arc<FoundBlocks>| {
        found.blocks.iter().any(|record| record.hash == block.hash && record.standing == standing)
    };
    let seen = timeout(LIMIT, found.wait_for(is_so)).await;
    assert!(seen.is_ok(), "{block:?} is not {standing:?}");
}

#[tokio::test]
async fn chains_share_the_announcers_and_nothing_else() {
    let mut bench = Bench::new();
    let chains = [Arc::new(Chain::default()), merged("dogecoin"), merged("namecoin")];
    let answers = [Outcome::Accepted, Outcome::Accepted, Outcome::Rejected("block hash unknown".into())];
    let standings = [Standing::Confirming, Standing::Confirming, Standing::Rejected];
    let daemons = answers.map(Daemon::answering);
    let kept: Vec<_> = chains.iter().zip(&daemons).map(|(chain, daemon)| bench.keep(chain, daemon)).collect();
    // What is submitted before the records are read is no news.
    for (((handle, _), standing), height) in kept.iter().zip(standings).zip(7..) {
        handle.blocks.send(block(height)).await.unwrap();
        wait_for(handle, &block(height), standing).await;
    }
    for ((handle, _), height) in kept.iter().zip(17..) {
        handle.blocks.send(block(height)).await.unwrap();
    }
    let (dogecoin, namecoin) = (Some("dogecoin".to_owned()), Some("namecoin".to_owned()));
    let expected = [
        (None, EventKind::Found, 17),
        (None, EventKind::Accepted, 17),
        (dogecoin.clone(), EventKind::Found, 18),
        (dogecoin, EventKind::Accepted, 18),
        (namecoin.clone(), EventKind::Found, 19),
        (namecoin, EventKind::Rejected, 19),
    ];
    assert_eq!(bench.events_from(17, expected.len()).await, expected);
    for ((chain, height), state) in chains.iter().zip(7..).zip(["accepted", "accepted", "rejected"]) {
        let ends = [height, height + 10].map(|height| format!("{}.{state}", block(height).hash));
        bench.wait_for_files(chain, &ends.each_ref().map(String::as_str)).await;
    }
    for (((handle, _), daemon), height) in kept.iter().zip(&daemons).zip(7..) {
        assert_eq!(*daemon.submitted.lock(), [block(height), block(height + 10)]);
        let elsewhere = block(if height == 7 { 8 } else { 7 }).hash;
        assert!(matches!(handle.resubmitter.resubmit(elsewhere).await, Err(ResubmitError::NotKept { .. })));
    }
    drop(kept);
    assert!(bench.tasks.drain(Duration::from_secs(5)).await);
    for chain in &chains {
        let text = std::fs::read_to_string(chain.folder(bench.dir.path()).join("found_blocks.json")).unwrap();
        let name = chain.name().map(|name| format!(r#""chain":"{name}""#));
        let count = text.matches(name.as_deref().unwrap_or("no name")).count();
        assert_eq!(count, 2 * usize::from(name.is_some()), "{text}");
        assert_eq!(text.matches(r#""chain""#).count(), count, "{text}");
    }
    assert_eq!(names(&bench.dir.path().join("merged")), ["dogecoin", "namecoin"]);
}

#[tokio::test]
async fn what_a_killed_run_left_of_each_chain_is_submitted_to_that_chain() {
    let bench = Bench::new();
    let chains = [merged("dogecoin"), merged("namecoin")];
    for (chain, height) in chains.iter().zip(8..) {
        let journal = Journal::open(chain.clone(), &bench.data_dir, DiskHealth::new()).unwrap();
        journal.write(&block(height)).unwrap();
    }
    let daemons = [Outcome::Accepted, Outcome::Rejected("block hash unknown".into())].map(Daemon::answering);
    let kept: Vec<_> = chains.iter().zip(&daemons).map(|(chain, daemon)| bench.keep(chain, daemon)).collect();
    wait_for(&kept[0].0, &block(8), Standing::Confirming).await;
    wait_for(&kept[1].0, &block(9), Standing::Rejected).await;
    bench.wait_for_files(&chains[0], &[".accepted"]).await;
    bench.wait_for_files(&chains[1], &[".rejected"]).await;
    for (daemon, height) in daemons.iter().zip(8..) {
        assert_eq!(*daemon.submitted.lock(), [block(height)]);
    }
}

#[tokio::test]
async fn a_merged_chains_block_is_followed_to_that_chains_maturity_and_its_file_is_removed_then() {
    let mut bench = Bench::new();
    let (chain, daemon) = (merged("dogecoin"), Daemon::answering(Outcome::Accepted));
    let (handle, next_block) = bench.keep(&chain, &daemon);
    handle.blocks.send(block(7)).await.unwrap();
    wait_for(&handle, &block(7), Standing::Confirming).await;
    bench.wait_for_files(&chain, &[".accepted"]).await;
    let mut found = handle.found.clone();
    let steps = [(100, Standing::Confirming), (239, Standing::Confirming), (240, Standing::Mature)];
    for (confirmations, standing) in steps {
        *daemon.position.lock() = BlockPosition::InChain { height: 7, confirmations };
        let previous_block = BlockHash::from_byte_array([u8::try_from(confirmations).unwrap(); 32]);
        next_block.send_replace(Some(NextBlock { previous_block, height: 7 + confirmations }));
        let is_seen = |found: &Arc<FoundBlocks>| found.blocks[0].confirmations == confirmations;
        let seen = timeout(LIMIT, found.wait_for(is_seen)).await.expect("not seen in time").unwrap().clone();
        assert_eq!(seen.blocks[0].standing, standing, "{confirmations}");
    }
    let last = async {
        loop {
            let event = bench.heard.recv().await.unwrap();
            if event.kind == EventKind::Mature {
                return event.record.chain.clone();
            }
        }
    };
    assert_eq!(timeout(LIMIT, last).await.unwrap().as_deref(), Some("dogecoin"));
    bench.wait_for_files(&chain, &[]).await;
}

/// A chain's daemon that answers when it is asked to.
#[derive(Debug, Default)]
struct Slow {
    submitted: Mutex<Vec<FoundBlock>>,
    answers: tokio::sync::Notify,
    answer: Mutex<Option<Outcome>>,
}

impl Route for Arc<Slow> {
    fn name(&self) -> &'static str {
        "rpc"
    }

    fn attempt<'a>(&'a self, block: &'a FoundBlock) -> BoxFuture<'a, Outcome> {
        self.submitted.lock().push(block.clone());
        Box::pin(async move {
            self.answers.notified().await;
            self.answer.lock().clone().unwrap()
        })
    }
}

/// Starts keeping blocks of a merged chain with this daemon.
fn keep_slowly(bench: &Bench, daemon: &Arc<Slow>) -> Handle {
    let inputs = Inputs {
        chain: merged("dogecoin"),
        data_dir: bench.data_dir.clone(),
        disk: DiskHealth::new(),
        routes: vec![Arc::new(daemon.clone())],
        explorer: Daemon::answering(Outcome::Accepted),
        next_block: watch::channel(None).1,
        events: bench.events.clone(),
    };
    keep(&bench.tasks, inputs).unwrap()
}

#[tokio::test]
async fn a_merged_block_that_is_solved_again_and_again_is_submitted_once_unless_its_proof_was_refused() {
    let (bench, daemon) = (Bench::new(), Arc::new(Slow::default()));
    let handle = keep_slowly(&bench, &daemon);
    let mut reports = handle.reports.subscribe();
    let mut verdict = async |answer: Outcome| {
        *daemon.answer.lock() = Some(answer.clone());
        daemon.answers.notify_one();
        while timeout(LIMIT, reports.recv()).await.expect("a report in time").unwrap().route.is_some() {}
    };
    let proof = |seed: u8| FoundBlock { bytes: vec![seed].into(), ..block(7) };
    for seed in 0..100 {
        handle.blocks.send(proof(seed)).await.unwrap();
    }
    verdict(Outcome::Rejected("bad proof".into())).await;
    let started = Instant::now();
    // Its submission ends a moment after its verdict.
    while daemon.submitted.lock().len() < 2 {
        assert!(started.elapsed() < LIMIT, "the second proof is not submitted");
        handle.blocks.send(proof(100)).await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    verdict(Outcome::Accepted).await;
    for seed in 200..210 {
        handle.blocks.send(proof(seed)).await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(*daemon.submitted.lock(), [proof(0), proof(100)]);
}

#[tokio::test]
async fn a_merged_chains_daemon_that_takes_nothing_holds_a_limited_number_of_blocks() {
    let (bench, daemon) = (Bench::new(), Arc::new(Slow::default()));
    let handle = keep_slowly(&bench, &daemon);
    for number in 0..300_u32 {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_le_bytes());
        let block = FoundBlock { hash: BlockHash::from_byte_array(hash), ..block(7) };
        timeout(LIMIT, handle.blocks.send(block)).await.expect("the finder does not wait").unwrap();
    }
    let count = || daemon.submitted.lock().len();
    let started = Instant::now();
    while count() < 256 {
        assert!(started.elapsed() < LIMIT, "{}", count());
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_millis(200)).await;
    assert_eq!(count(), 256);
}
