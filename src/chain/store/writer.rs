//! Shields the sharechain's owner from the disk: a bounded queue that never makes it wait, and a thread that writes the
//! queue and syncs at intervals. A disk that refuses or hangs costs memory up to the queue's capacity, and nothing
//! else; shares that do not fit stay with the owner, which has them all anyway.

use parking_lot::{Condvar, Mutex};
use sharechain::share::ShareHash;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use super::{Store, StoreError};
use crate::chain::at_risk::AtRisk;
use crate::runtime::disk::{DiskHealth, Part};

/// Queue capacity in bytes of shares: minutes of the fastest chain, or a second of a download. Tests have few shares.
const QUEUE_BYTES_MAX: usize = if cfg!(test) { 16 << 10 } else { 8 << 20 };

/// Queue capacity in bytes of own shares: they have their own queue, so that a download does not delay them.
const OWN_BYTES_MAX: usize = 2 << 20;

/// Pause after an attempt that the disk refused.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Duration from which a write is reported as hanging. On a slow disk one takes seconds now and then.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// Handle to the share store. No call waits for the disk. Commands are executed in order, except that own shares go
/// first. Dropping it still writes and syncs the queue.
#[derive(Debug)]
pub struct StoreWriter(StoreQueue);

/// Queue of the store's thread. Clones share it; it closes with the [`StoreWriter`].
#[derive(Debug, Clone)]
pub struct StoreQueue(Arc<Shared>);

/// A share to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewShare {
    pub hash: ShareHash,
    /// Version and contents.
    pub bytes: Box<[u8]>,
    /// Time at which this node first saw it, seconds since 1970.
    pub time_seen: u32,
    /// Set if it passed all checks.
    pub verified: bool,
}

#[derive(Debug)]
enum Command {
    Share(NewShare),
    Verified(Vec<ShareHash>),
    Forget(Vec<ShareHash>),
}

impl Command {
    /// Bytes that count against the queue's capacity. Marks do not count: a share in the store gets at most one of each
    /// kind, so that the store bounds them.
    fn bytes(&self) -> usize {
        match self {
            Self::Share(share) => share.bytes.len(),
            Self::Verified(_) | Self::Forget(_) => 0,
        }
    }
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Signalled when the thread has work.
    filled: Condvar,
    /// Signalled when there is room again.
    room: Notify,
    /// Set when the thread has ended.
    ended: watch::Sender<bool>,
    disk: DiskHealth,
}

#[derive(Debug, Default)]
struct Queue {
    own: VecDeque<NewShare>,
    own_bytes: usize,
    commands: VecDeque<Command>,
    bytes: usize,
    /// Number of shares in both queues and in the current command.
    shares: usize,
    /// Set when nothing more comes: the thread finishes the queue and ends.
    is_closed: bool,
    /// Set when the thread has ended.
    is_gone: bool,
    /// Start of the current disk operation.
    busy_since: Option<Instant>,
    /// Last reported trouble.
    trouble: Option<String>,
}

impl StoreQueue {
    /// Queues an own share, to be written before everything else; returns false if there was no room.
    pub fn append_own(&self, share: NewShare) -> bool {
        let mut queue = self.0.queue.lock();
        let is_full = queue.own_bytes > 0 && queue.own_bytes + share.bytes.len() > OWN_BYTES_MAX;
        if is_full || queue.is_closed || queue.is_gone {
            return false;
        }
        queue.own_bytes += share.bytes.len();
        queue.shares += 1;
        queue.own.push_back(share);
        drop(queue);
        self.0.filled.notify_one();
        true
    }

    fn push(&self, command: Command) {
        let mut queue = self.0.queue.lock();
        if queue.is_gone {
            return;
        }
        queue.bytes += command.bytes();
        queue.shares += usize::from(matches!(command, Command::Share(_)));
        queue.commands.push_back(command);
        drop(queue);
        self.0.filled.notify_one();
    }

    fn close(&self) {
        self.0.queue.lock().is_closed = true;
        self.0.filled.notify_one();
    }
}

impl StoreWriter {
    /// Starts the thread, which syncs every `sync_interval`: the maximum loss at a power failure. Disk trouble is
    /// reported to `disk`; shares that are written are no longer `at_risk`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        store: Store,
        sync_interval: Duration,
        disk: DiskHealth,
        at_risk: Arc<AtRisk>,
    ) -> io::Result<StoreWriter> {
        let queue = Mutex::default();
        let shared =
            Shared { queue, filled: Condvar::new(), room: Notify::new(), ended: watch::Sender::new(false), disk };
        let shared = Arc::new(shared);
        let worker = Worker { store, at_risk, shared: shared.clone() };
        thread::Builder::new().name("share store".into()).spawn(move || worker.run(sync_interval))?;
        Ok(StoreWriter(StoreQueue(shared)))
    }

    /// Returns the queue, for senders of own shares only.
    pub fn queue(&self) -> StoreQueue {
        self.0.clone()
    }

    /// True if a share may be queued: at most `QUEUE_BYTES_MAX` bytes wait, plus the share that exceeds them.
    pub fn has_room(&self) -> bool {
        let queue = self.0.0.queue.lock();
        queue.bytes < QUEUE_BYTES_MAX && !queue.is_gone
    }

    /// Waits until there is plenty of room again after the queue was full.
    pub async fn room(&self) {
        self.0.0.room.notified().await;
    }

    /// Queues [`Store::append_share`]. Call it only while the queue [`has_room`](Self::has_room).
    pub fn append_share(&self, share: NewShare) {
        self.0.push(Command::Share(share));
    }

    /// Queues [`Store::append_verified`].
    pub fn append_verified(&self, hashes: Vec<ShareHash>) {
        self.0.push(Command::Verified(hashes));
    }

    /// Queues [`Store::forget`].
    pub fn forget(&self, hashes: Vec<ShareHash>) {
        self.0.push(Command::Forget(hashes));
    }

    /// Reports a hanging write, which the thread itself cannot. Call it every few seconds.
    pub fn check(&self) {
        let mut queue = self.0.0.queue.lock();
        let Some(since) = queue.busy_since.filter(|since| since.elapsed() > HANGS_AFTER) else { return };
        let trouble = format!("a write has been hanging for {} s", since.elapsed().as_secs());
        let is_new = queue.trouble.is_none();
        self.0.0.note(&mut queue, Some(trouble.clone()));
        drop(queue);
        if is_new {
            error!(trouble, "share store hangs: shares wait in memory");
        }
    }

    /// Writes and syncs the queue and ends the thread, waiting for it until `until`. Returns the number of shares not
    /// written; the thread continues with them while the process lives.
    pub async fn stop(self, until: Instant) -> usize {
        self.0.close();
        let mut ended = self.0.0.ended.subscribe();
        let _ = tokio::time::timeout_at(until.into(), ended.wait_for(|ended| *ended)).await;
        self.0.0.queue.lock().shares
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Shared {
    /// Reports trouble, or its end; under the queue's lock, which orders reports of the thread and the owner.
    fn note(&self, queue: &mut Queue, trouble: Option<String>) {
        if queue.trouble != trouble {
            queue.trouble.clone_from(&trouble);
            self.disk.report(Part::ShareStore, trouble);
        }
    }
}

struct Worker {
    store: Store,
    at_risk: Arc<AtRisk>,
    shared: Arc<Shared>,
}

/// Next action of the thread.
enum Job {
    Own(NewShare),
    Command(Command),
    Sync,
    End,
}

impl Drop for Worker {
    /// Also reached when the thread panics.
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.is_gone = true;
        if !queue.is_closed {
            self.shared.note(&mut queue, Some("its thread has ended; restart the node".to_owned()));
        }
        drop(queue);
        self.shared.ended.send_replace(true);
    }
}

impl Worker {
    fn run(mut self, sync_interval: Duration) {
        let mut next_sync = Instant::now() + sync_interval;
        // Earliest time of the next attempt after a refusal.
        let mut not_before = None;
        loop {
            let result = match self.next_job(next_sync, not_before) {
                Job::Own(share) => self.keep_own(share),
                Job::Command(command) => self.perform(command),
                Job::Sync => {
                    next_sync = Instant::now() + sync_interval;
                    self.store.sync()
                }
                Job::End => break,
            };
            not_before = result.is_err().then(|| Instant::now() + RETRY_INTERVAL);
            self.done(result.err());
            if not_before.is_some() && self.shared.queue.lock().is_closed {
                break;
            }
        }
        let result = self.store.sync();
        let left = self.shared.queue.lock().shares;
        if left > 0 {
            error!(shares = left, "share store: not written before the end, as the disk refuses them");
        } else if let Err(error) = result {
            error!(%error, "share store: the last shares are lost if the machine loses power now");
        }
    }

    /// Waits for work. Until `not_before`, everything except a sync waits.
    fn next_job(&self, next_sync: Instant, not_before: Option<Instant>) -> Job {
        let mut queue = self.shared.queue.lock();
        loop {
            let now = Instant::now();
            let is_waiting = not_before.is_some_and(|at| now < at) && !queue.is_closed;
            let job = if is_waiting {
                None
            } else if let Some(share) = queue.own.pop_front() {
                Some(Job::Own(share))
            } else if let Some(command) = queue.commands.pop_front() {
                Some(Job::Command(command))
            } else if queue.is_closed {
                return Job::End;
            } else {
                (now >= next_sync).then_some(Job::Sync)
            };
            if let Some(job) = job {
                queue.busy_since = Some(now);
                return job;
            }
            let until = if is_waiting { not_before.unwrap_or(next_sync) } else { next_sync };
            self.shared.filled.wait_until(&mut queue, until);
        }
    }

    /// Records the disk's answer, and logs when it begins to refuse and when it works again.
    fn done(&self, error: Option<StoreError>) {
        let trouble = error.map(|error| error.to_string());
        let mut queue = self.shared.queue.lock();
        queue.busy_since = None;
        let was = queue.trouble.is_some();
        self.shared.note(&mut queue, trouble.clone());
        drop(queue);
        match trouble {
            Some(trouble) if !was => error!(trouble, "share store failed: shares wait in memory"),
            None if was => info!("share store works again"),
            _ => {}
        }
    }

    fn keep_own(&mut self, share: NewShare) -> Result<(), StoreError> {
        let result = self.keep(&share);
        let mut queue = self.shared.queue.lock();
        if result.is_ok() {
            queue.own_bytes -= share.bytes.len();
            queue.shares -= 1;
        } else {
            queue.own.push_front(share);
        }
        result
    }

    /// Executes a command. If the disk refuses, it returns to the head of the queue.
    fn perform(&mut self, command: Command) -> Result<(), StoreError> {
        let result = match &command {
            Command::Share(share) => self.keep(share),
            Command::Verified(hashes) => hashes.iter().try_for_each(|hash| self.store.append_verified(*hash)),
            // They are forgotten anyway; the next command tries again to free their space.
            Command::Forget(hashes) => return self.store.forget(hashes),
        };
        let mut queue = self.shared.queue.lock();
        if result.is_err() {
            queue.commands.push_front(command);
            return result;
        }
        let was = queue.bytes;
        queue.bytes -= command.bytes();
        queue.shares -= usize::from(matches!(command, Command::Share(_)));
        if was > QUEUE_BYTES_MAX / 2 && queue.bytes <= QUEUE_BYTES_MAX / 2 {
            self.shared.room.notify_one();
        }
        result
    }

    fn keep(&mut self, share: &NewShare) -> Result<(), StoreError> {
        match self.store.append_share(share.hash, &share.bytes, share.time_seen, share.verified) {
            Ok(()) => self.at_risk.is_safe(share.hash),
            Err(error @ StoreError::Disk { .. }) => return Err(error),
            // A retry would not make it fit.
            Err(error) => warn!(%error, "share store: a share cannot be stored"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn share(byte: u8) -> NewShare {
        NewShare { hash: ShareHash([byte; 32]), bytes: [byte; 9].into(), time_seen: 5, verified: false }
    }

    fn start(store: Store) -> (StoreWriter, DiskHealth) {
        let disk = DiskHealth::new();
        (StoreWriter::start(store, Duration::from_secs(60), disk.clone(), Arc::default()).unwrap(), disk)
    }

    fn order(dir: &std::path::Path) -> Vec<u8> {
        Store::open(dir).unwrap().1.shares.iter().map(|share| share.hash.0[0]).collect()
    }

    #[tokio::test]
    async fn what_was_queued_is_on_disk_after_a_stop() {
        let dir = tempfile::tempdir().unwrap();
        let hash = share(1).hash;
        let (writer, _) = start(Store::open(dir.path()).unwrap().0);
        writer.append_share(share(1));
        writer.append_verified(vec![hash]);
        writer.append_share(share(2));
        assert!(writer.queue().append_own(NewShare { verified: true, ..share(4) }));
        writer.forget(vec![ShareHash([3; 32])]);
        let queue = writer.queue();
        assert_eq!(writer.stop(Instant::now() + PATIENCE).await, 0);
        assert!(!queue.append_own(share(5)), "the queue is closed");
        let mut loaded = Store::open(dir.path()).unwrap().1;
        assert_eq!(loaded.shares.len(), 3);
        loaded.verified.sort_unstable();
        assert_eq!(loaded.verified, [hash, share(4).hash]);
        assert_eq!(loaded.problems, [""; 0]);
    }

    #[tokio::test]
    async fn what_the_disk_refuses_is_reported_and_written_when_it_works_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("shares");
        let store = Store::open(dir.path()).unwrap().0;
        std::fs::remove_dir(&folder).unwrap();
        let (writer, disk) = start(store);
        let mut trouble = disk.watch();
        for byte in 0..3 {
            writer.append_share(share(byte));
        }
        let is_told = |told: &Arc<crate::runtime::disk::Troubles>| !told.sentences().is_empty();
        let told = tokio::time::timeout(PATIENCE, trouble.wait_for(is_told)).await.unwrap().unwrap().sentences();
        assert!(told[0].contains("the share store cannot be written (cannot create "), "{told:?}");
        std::fs::create_dir(&folder).unwrap();
        tokio::time::timeout(PATIENCE, trouble.wait_for(|told| !is_told(told))).await.unwrap().unwrap();
        assert_eq!(writer.stop(Instant::now() + PATIENCE).await, 0);
        assert_eq!(order(dir.path()), [0, 1, 2]);
    }

    #[tokio::test]
    async fn what_the_disk_refuses_to_the_end_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().0;
        std::fs::remove_dir(dir.path().join("shares")).unwrap();
        let (writer, _) = start(store);
        writer.append_share(share(1));
        assert!(writer.queue().append_own(share(2)));
        assert_eq!(writer.stop(Instant::now() + PATIENCE).await, 2);
    }

    #[tokio::test]
    async fn a_disk_that_hangs_holds_up_nobody_and_own_shares_are_written_first_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap().0;
        let release = store.hang();
        let (writer, disk) = start(store);
        let big = |byte| NewShare { bytes: vec![byte; QUEUE_BYTES_MAX / 16].into(), ..share(byte) };
        writer.append_share(big(0));
        while writer.0.0.queue.lock().busy_since.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut queued = 1;
        while writer.has_room() {
            writer.append_share(big(queued));
            queued += 1;
        }
        assert_eq!(queued, 16);
        assert!(writer.queue().append_own(share(99)));
        assert!(writer.queue().append_own(NewShare { bytes: vec![0; OWN_BYTES_MAX / 2].into(), ..share(98) }));
        assert!(!writer.queue().append_own(NewShare { bytes: vec![0; OWN_BYTES_MAX / 2].into(), ..share(97) }));
        writer.check();
        assert!(disk.watch().borrow().sentences().is_empty(), "it has not been long");
        writer.0.0.queue.lock().busy_since = Instant::now().checked_sub(2 * HANGS_AFTER);
        writer.check();
        assert!(disk.watch().borrow().sentences()[0].contains("a write has been hanging for"));
        drop(release);
        tokio::time::timeout(PATIENCE, writer.room()).await.unwrap();
        assert!(writer.has_room());
        assert_eq!(writer.stop(Instant::now() + PATIENCE).await, 0);
        assert!(disk.watch().borrow().sentences().is_empty());
        let order = order(dir.path());
        assert_eq!(order[..3], [0, 99, 98], "own shares come next");
        assert!(order[3..].is_sorted() && order.len() == 18);
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_a_disk_that_hangs() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap().0;
        let _release = store.hang();
        let (writer, _) = start(store);
        writer.append_share(share(1));
        writer.append_share(share(2));
        let started = Instant::now();
        assert_eq!(writer.stop(Instant::now() + Duration::from_millis(100)).await, 2);
        assert!(started.elapsed() < PATIENCE);
    }
}
