//! Task that follows found blocks: receives reports, queries the daemon for positions, and saves the records.

use futures::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use bitcoin::BlockHash;

use super::book::Book;
use super::{Event, EventKind, FoundBlocks, Record, Standing, file};
use crate::blocks::journal::Journal;
use crate::blocks::submit::Resubmitter;
use crate::blocks::{BlockPosition, BlockReport, Chain, Explorer, Finding, Outcome, Sighting};
use crate::runtime::clock::unix_now;
use crate::runtime::data_dir::DataDir;
use crate::runtime::disk::{DiskHealth, Part};
use crate::runtime::tasks::Tasks;
use crate::template::NextBlock;

/// Interval of queries to the daemon while there is no new block.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Minimum time between two rounds of queries: regtest finds blocks faster than that.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Maximum number of queries in a round. The rest follows in the next.
const LOOKS_MAX: usize = 200;

/// Delay of a write after a change, so that a burst is one write.
const WRITE_PAUSE: Duration = Duration::from_millis(500);

/// Inputs of the follower.
#[derive(Debug)]
pub struct Inputs {
    pub chain: Arc<Chain>,
    /// Holds the folder of the records and of the journal.
    pub data_dir: DataDir,
    /// Outcomes of submissions.
    pub reports: broadcast::Receiver<BlockReport>,
    /// Peers' blocks that cannot be assembled here.
    pub sightings: mpsc::Receiver<Sighting>,
    /// Position of the next block in the daemon's chain; `None` while unknown.
    pub next_block: watch::Receiver<Option<NextBlock>>,
    /// Looks up positions of blocks.
    pub explorer: Arc<dyn Explorer>,
    /// Resubmits blocks that the daemon has lost.
    pub resubmitter: Resubmitter,
    pub disk: DiskHealth,
    /// Events of the blocks; chains share it.
    pub events: broadcast::Sender<Event>,
}

/// Starts following found blocks, and returns their records.
pub fn start(tasks: &Tasks, inputs: Inputs) -> watch::Receiver<Arc<FoundBlocks>> {
    let (published, found) = watch::channel(Arc::default());
    tasks.spawn("found blocks", run(inputs, published, tasks.stop_signal()));
    found
}

/// Follows found blocks until `stop`, once this process owns the data directory: until then, another process does.
async fn run(inputs: Inputs, published: watch::Sender<Arc<FoundBlocks>>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = inputs.data_dir.ours() => {}
    }
    let journal = match Journal::open(inputs.chain.clone(), &inputs.data_dir, inputs.disk.clone()) {
        Ok(journal) => Some(journal),
        Err(error) => {
            error!(chain = inputs.chain.label(), %error, "cannot open the journal of found blocks");
            None
        }
    };
    let folder = inputs.chain.folder(inputs.data_dir.path());
    let from = folder.clone();
    let loading = tokio::task::spawn_blocking(move || file::load(&from));
    let (records, problem) = loading.await.unwrap_or_else(|error| (Vec::new(), Some(error.to_string())));
    if let Some(problem) = problem {
        error!(
            chain = inputs.chain.label(),
            problem, "cannot read the record of found blocks; it is rebuilt from the journal"
        );
    }
    let follower = Follower {
        disk: inputs.disk.for_chain(inputs.chain.name().cloned()),
        book: Book::of(inputs.chain.clone(), records),
        chain: inputs.chain,
        folder,
        journal,
        explorer: inputs.explorer,
        resubmitter: inputs.resubmitter,
        next_block: inputs.next_block,
        published,
        events: inputs.events,
        looking: None,
        pruned_at: Instant::now(),
        write_at: None,
        writing: None,
    };
    follower.run(inputs.reports, inputs.sightings, stop).await;
}

/// The daemon's answers to a round of queries.
type Positions = Vec<(BlockHash, Result<BlockPosition, String>)>;

struct Follower {
    book: Book,
    chain: Arc<Chain>,
    /// Folder of the records.
    folder: PathBuf,
    journal: Option<Journal>,
    explorer: Arc<dyn Explorer>,
    resubmitter: Resubmitter,
    disk: DiskHealth,
    next_block: watch::Receiver<Option<NextBlock>>,
    published: watch::Sender<Arc<FoundBlocks>>,
    events: broadcast::Sender<Event>,
    /// Round of queries in progress: reports are received meanwhile.
    looking: Option<BoxFuture<'static, Positions>>,
    /// Time at which the journal was pruned.
    pruned_at: Instant,
    /// Time at which changes are written.
    write_at: Option<Instant>,
    /// Write in progress: a disk that hangs blocks nothing else.
    writing: Option<JoinHandle<Result<(), String>>>,
}

impl Follower {
    async fn run(
        mut self,
        mut reports: broadcast::Receiver<BlockReport>,
        mut sightings: mpsc::Receiver<Sighting>,
        stop: CancellationToken,
    ) {
        self.reconcile().await;
        let mut sightings_left = true;
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut previous_block = None;
        // Earliest time of the next round, set if one is due.
        let (mut next_look, mut is_wanted) = (Instant::now(), true);
        loop {
            let can_look = is_wanted && self.looking.is_none();
            tokio::select! {
                () = stop.cancelled() => break,
                report = reports.recv() => match report {
                    Ok(report) => {
                        let happened = self.book.report(&report, unix_now());
                        is_wanted |= report.route.is_none();
                        self.publish(happened);
                    }
                    Err(RecvError::Lagged(missed)) => {
                        warn!(chain = self.chain.label(), missed, "reports on found blocks were missed: reading the journal instead");
                        self.reconcile().await;
                        is_wanted = true;
                    }
                    // The submitter has ended: the node is stopping.
                    Err(RecvError::Closed) => break,
                },
                sighting = sightings.recv(), if sightings_left => match sighting {
                    Some(sighting) => {
                        let happened = self.book.sighting(sighting, unix_now());
                        is_wanted = true;
                        self.publish(happened);
                    }
                    None => sightings_left = false,
                },
                changed = self.next_block.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let built_on = self.next_block.borrow_and_update().map(|next| next.previous_block);
                    is_wanted |= built_on.is_some() && built_on != previous_block;
                    previous_block = built_on.or(previous_block);
                }
                _ = ticks.tick() => is_wanted = true,
                () = sleep_until(next_look), if can_look => {
                    is_wanted = false;
                    next_look = Instant::now() + LOOK_PAUSE;
                    self.look();
                }
                seen = async { self.looking.as_mut().expect("it is there").await }, if self.looking.is_some() => {
                    self.looking = None;
                    let happened = self.take_places(&seen);
                    self.publish(happened);
                }
                () = sleep_until(self.write_at.unwrap_or_else(Instant::now)),
                    if self.write_at.is_some() && self.writing.is_none() =>
                {
                    self.begin_write();
                }
                written = async { self.writing.as_mut().expect("it is there").await }, if self.writing.is_some() => {
                    self.end_write(written);
                }
            }
        }
        // The last reports, such as the verdict on a block that was in flight.
        while let Ok(report) = reports.try_recv() {
            let happened = self.book.report(&report, unix_now());
            self.publish(happened);
        }
        self.finish_write().await;
        if self.write_at.is_some() {
            self.begin_write();
            self.finish_write().await;
        }
    }

    /// Starts a round of queries for the positions of unsettled blocks.
    fn look(&mut self) {
        self.prune_merged();
        let mut hashes = self.book.unsettled();
        if hashes.is_empty() {
            return;
        }
        hashes.truncate(LOOKS_MAX);
        let explorer = self.explorer.clone();
        self.looking = Some(Box::pin(async move {
            let mut seen = Vec::with_capacity(hashes.len());
            for hash in hashes {
                let place = explorer.place(&hash).await;
                let is_away = place.is_err();
                seen.push((hash, place));
                // A daemon that fails one query is away: the rest would fail as well.
                if is_away {
                    break;
                }
            }
            seen
        }));
    }

    fn take_places(&mut self, seen: &Positions) -> Vec<Event> {
        let next = self.next_block.borrow().map(|next| next.height);
        let tip = next.unwrap_or_default().saturating_sub(1);
        let now = unix_now();
        let mut happened = Vec::new();
        for (hash, place) in seen {
            if let (Ok(BlockPosition::Unknown), Some(record)) = (place, self.book.get(hash)) {
                self.offer_again(record, tip);
            }
            match place {
                Ok(place) => {
                    happened.extend(self.book.place(hash, *place, tip, now));
                    let record = self.book.get(hash);
                    if record.is_some_and(|record| record.is_settled && record.standing != Standing::Rejected) {
                        self.prune(*hash);
                    }
                }
                Err(reason) => {
                    tracing::debug!(chain = self.chain.label(), %hash, reason, "cannot look up a found block")
                }
            }
        }
        happened
    }

    /// Resubmits a block that was in the daemon's chain and that the daemon has lost: by a power cut, or by running on
    /// an older data directory.
    fn offer_again(&self, record: &Record, tip: u32) {
        let was_in_chain = matches!(record.standing, Standing::Confirming | Standing::Orphaned);
        let is_buried = record.height.is_none_or(|height| tip >= height.saturating_add(self.chain.maturity()));
        if was_in_chain && !is_buried && record.not_submitted.is_none() {
            let daemon = self.chain.daemon();
            let (chain, height) = (self.chain.label(), record.height);
            warn!(chain, height, hash = %record.hash, "{daemon} does not have a block any more: submitted again");
            self.resubmitter.request(record.hash);
        }
    }

    /// Publishes changes, and sends and logs events.
    fn publish(&mut self, happened: Vec<Event>) {
        for event in happened {
            self.chain.count_event(event.kind);
            say(&event);
            // Fails only without subscribers.
            let _ = self.events.send(event);
        }
        if self.book.take_dirty() {
            self.write_at.get_or_insert_with(|| Instant::now() + WRITE_PAUSE);
        }
        let blocks = Arc::new(self.book.blocks());
        for standing in Standing::ALL {
            let count = blocks.blocks.iter().filter(|record| record.standing == standing).count();
            self.chain.set_standing(standing, count);
        }
        self.published.send_if_modified(|published| {
            let is_new = **published != *blocks;
            if is_new {
                *published = blocks;
            }
            is_new
        });
    }

    /// Prunes a merged chain's journal once a minute: blocks may come every second if its daemon asks for almost no work.
    fn prune_merged(&mut self) {
        let Some(journal) = self.journal.clone().filter(|journal| journal.chain().name().is_some()) else { return };
        if self.pruned_at.elapsed() >= LOOK_INTERVAL {
            self.pruned_at = Instant::now();
            tokio::task::spawn_blocking(move || prune_journal(&journal));
        }
    }

    /// Removes the bytes of a settled block.
    fn prune(&self, hash: BlockHash) {
        let Some(journal) = self.journal.clone() else { return };
        tokio::task::spawn_blocking(move || {
            if let Err(error) = journal.forget(&hash) {
                warn!(%error, "cannot remove the file of a settled block");
            }
        });
    }

    /// Adds records for blocks that are only in the journal, and prunes the journal.
    async fn reconcile(&mut self) {
        if let Some(journal) = self.journal.clone() {
            let looking = move || {
                prune_journal(&journal);
                journal.kept()
            };
            match tokio::task::spawn_blocking(looking).await {
                Ok(Ok(kept)) => {
                    let now = unix_now();
                    let mut happened = Vec::new();
                    for one in kept {
                        let found_at = one.modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                        let is_settled = self.book.get(&one.block.hash).is_some_and(|record| record.is_settled);
                        if is_settled && !matches!(one.outcome, Some(Outcome::Rejected(_))) {
                            self.prune(one.block.hash);
                        }
                        happened.extend(self.book.restore(&one.block, one.outcome, found_at, now));
                    }
                    self.publish(happened);
                    return;
                }
                Ok(Err(error)) => error!(chain = self.chain.label(), %error, "cannot read the journal of found blocks"),
                Err(error) => error!(chain = self.chain.label(), %error, "reading the journal of found blocks failed"),
            }
        }
        self.publish(Vec::new());
    }

    fn begin_write(&mut self) {
        self.write_at = None;
        let (folder, blocks) = (self.folder.clone(), self.book.blocks());
        self.writing = Some(tokio::task::spawn_blocking(move || {
            file::save(&folder, &blocks).map_err(|(path, error)| format!("{}: {error}", path.display()))
        }));
    }

    async fn finish_write(&mut self) {
        if let Some(writing) = self.writing.take() {
            let written = writing.await;
            self.end_write(written);
        }
    }

    fn end_write(&mut self, written: Result<Result<(), String>, JoinError>) {
        self.writing = None;
        let trouble = written.unwrap_or_else(|error| Err(error.to_string())).err();
        if let Some(trouble) = &trouble {
            let chain = self.chain.label();
            error!(chain, trouble, again_in = ?LOOK_INTERVAL, "cannot write the record of found blocks");
            self.book.mark_dirty();
            self.write_at = Some(Instant::now() + LOOK_INTERVAL);
        }
        self.disk.report(Part::FoundBlocks, trouble);
    }
}

fn prune_journal(journal: &Journal) {
    if let Err(error) = journal.prune() {
        warn!(chain = journal.chain().label(), %error, "cannot remove old files of found blocks");
    }
}

/// Logs events that `blocks::submit` has not logged already.
fn say(event: &Event) {
    let record = &*event.record;
    let (chain, hash, height) = (record.chain.as_deref(), record.hash, record.height.unwrap_or_default());
    let Finding { value, payee, finder, .. } = &record.finding;
    match event.kind {
        EventKind::Accepted if record.not_submitted.is_some() => {
            info!(chain, height, %hash, payee, value, finder, "a block of the pool is in the chain");
        }
        EventKind::Accepted if record.confirmations > 1 => {
            info!(chain, height, %hash, payee, "a block is in the chain")
        }
        EventKind::Mature => info!(chain, height, %hash, payee, value, "a block is mature: what it pays can be spent"),
        EventKind::Orphaned => {
            warn!(chain, height, %hash, payee, value, finder, "BLOCK ORPHANED: it was in the chain and is not any more; its payouts are void");
        }
        EventKind::Stale if record.not_submitted.is_some() => {
            info!(chain, height, %hash, finder, "a block of the pool lost to another of its height");
        }
        EventKind::Found | EventKind::Accepted | EventKind::Stale | EventKind::Rejected => {}
    }
}
