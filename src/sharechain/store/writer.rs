//! Keeps the disk away from the sharechain's owner: a thread that writes what a bounded queue brings, and syncs at intervals.

use std::collections::VecDeque;
use std::io;
use std::thread;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::{Store, StoreError};
use crate::share::ShareHash;

/// Queued commands; the owner waits beyond. Some seconds of the fastest chain, and far more than a full disk holds up.
const QUEUE_MAX: usize = 1024;

/// Commands that wait for a disk that refuses them; more are given up, and said to be. Days of a public network.
const BACKLOG_MAX: usize = 16 * 1024;

/// Why a command did not get through.
#[derive(Debug, Error)]
pub enum WriterError {
    /// The writer's thread has ended; only a panic ends it early.
    #[error("the share store's writer has ended")]
    Gone,
    /// The disk refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The share store as its owner sees it. Commands are carried out in their order. When it is dropped, what is queued is
/// still written and synced.
#[derive(Debug)]
pub struct StoreWriter {
    commands: mpsc::Sender<Command>,
    trouble: watch::Receiver<Option<String>>,
    ended: oneshot::Receiver<()>,
}

/// A share to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewShare {
    /// Its hash.
    pub hash: ShareHash,
    /// Version and contents.
    pub bytes: Box<[u8]>,
    /// When this node first saw it, seconds since 1970.
    pub time_seen: u32,
    /// Whether it passed all checks.
    pub verified: bool,
}

#[derive(Debug)]
enum Command {
    Shares(Vec<NewShare>),
    Verified(Vec<ShareHash>),
    Forget(Vec<ShareHash>),
    Sync(oneshot::Sender<Result<(), StoreError>>),
}

impl StoreWriter {
    /// Starts the thread, which syncs every `sync_interval`: what a power loss may cost.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(store: Store, sync_interval: Duration) -> io::Result<StoreWriter> {
        let (commands, queue) = mpsc::channel(QUEUE_MAX);
        let (told, trouble) = watch::channel(None);
        let (ending, ended) = oneshot::channel();
        // A runtime of its own, so that waiting for a command can end with a sync.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let worker = Worker { store, backlog: VecDeque::new(), given_up: 0, trouble: told };
        thread::Builder::new().name("share store".into()).spawn(move || {
            runtime.block_on(worker.run(queue, sync_interval));
            let _ = ending.send(());
        })?;
        Ok(StoreWriter { commands, trouble, ended })
    }

    /// See [`Store::append_share`] and [`Store::append_verified`], for all of them at once: at most some hundreds.
    ///
    /// # Errors
    /// [`WriterError::Gone`].
    pub async fn append_shares(&self, shares: Vec<NewShare>) -> Result<(), WriterError> {
        self.send(Command::Shares(shares)).await
    }

    /// See [`Store::append_verified`].
    ///
    /// # Errors
    /// [`WriterError::Gone`].
    pub async fn append_verified(&self, hashes: Vec<ShareHash>) -> Result<(), WriterError> {
        self.send(Command::Verified(hashes)).await
    }

    /// See [`Store::forget`].
    ///
    /// # Errors
    /// [`WriterError::Gone`].
    pub async fn forget(&self, hashes: Vec<ShareHash>) -> Result<(), WriterError> {
        self.send(Command::Forget(hashes)).await
    }

    /// Waits until all that was sent before outlives a power loss.
    ///
    /// # Errors
    /// [`WriterError`].
    pub async fn sync(&self) -> Result<(), WriterError> {
        let (reply, done) = oneshot::channel();
        self.send(Command::Sync(reply)).await?;
        Ok(done.await.map_err(|_| WriterError::Gone)??)
    }

    /// Says what is wrong with the disk while it is.
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.clone()
    }

    /// Writes and syncs all that was sent, then ends the thread.
    ///
    /// # Errors
    /// [`WriterError::Gone`].
    pub async fn stop(self) -> Result<(), WriterError> {
        drop(self.commands);
        self.ended.await.map_err(|_| WriterError::Gone)
    }

    async fn send(&self, command: Command) -> Result<(), WriterError> {
        self.commands.send(command).await.map_err(|_| WriterError::Gone)
    }
}

#[derive(Debug)]
struct Worker {
    store: Store,
    /// What the disk refused, in order; while there is any, all that follows goes behind it.
    backlog: VecDeque<Command>,
    given_up: u64,
    trouble: watch::Sender<Option<String>>,
}

impl Worker {
    async fn run(mut self, mut queue: mpsc::Receiver<Command>, sync_interval: Duration) {
        let mut next_sync = Instant::now() + sync_interval;
        loop {
            let left = next_sync.saturating_duration_since(Instant::now());
            match timeout(left, queue.recv()).await {
                Ok(Some(command)) => self.take(command),
                Ok(None) => break,
                Err(_) => {}
            }
            if Instant::now() >= next_sync {
                self.note(Worker::flush);
                next_sync = Instant::now() + sync_interval;
            }
        }
        self.note(Worker::flush);
        if !self.backlog.is_empty() {
            error!(commands = self.backlog.len(), "share store: given up at the end, as the disk refuses them");
        }
    }

    fn take(&mut self, command: Command) {
        if let Command::Sync(reply) = command {
            let _ = reply.send(self.flush());
        } else if self.backlog.len() >= BACKLOG_MAX {
            self.given_up += 1;
        } else {
            self.backlog.push_back(command);
            // While the disk refuses, it is asked again at intervals, not for every share.
            if self.backlog.len() == 1 {
                self.note(Worker::work_off);
            }
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.work_off()?;
        self.store.sync()
    }

    fn work_off(&mut self) -> Result<(), StoreError> {
        while let Some(command) = self.backlog.front() {
            match perform(&mut self.store, command) {
                Err(StoreError::Disk { action, path, source }) => {
                    return Err(StoreError::Disk { action, path, source });
                }
                // Trying again would not make it fit.
                Err(error) => warn!(%error, "share store: a share is not kept"),
                Ok(()) => {}
            }
            self.backlog.pop_front();
        }
        Ok(())
    }

    /// Does something and tells when it begins to fail, and when it works again.
    fn note(&mut self, act: fn(&mut Worker) -> Result<(), StoreError>) {
        let trouble = act(self).err().map(|error| error.to_string());
        let was = self.trouble.borrow().is_some();
        match &trouble {
            Some(trouble) if !was => error!(trouble, "share store: the disk refuses; shares wait in memory"),
            None if was => info!(given_up = self.given_up, "share store: the disk works again"),
            _ => {}
        }
        self.trouble.send_if_modified(|told| {
            let changed = *told != trouble;
            *told = trouble;
            changed
        });
    }
}

fn perform(store: &mut Store, command: &Command) -> Result<(), StoreError> {
    match command {
        // Tried again from the start if the disk refuses one: those before are kept already.
        Command::Shares(shares) => shares.iter().try_for_each(|share| keep(store, share)),
        Command::Verified(hashes) => hashes.iter().try_for_each(|hash| store.append_verified(*hash)),
        Command::Forget(hashes) => store.forget(hashes),
        Command::Sync(_) => store.sync(),
    }
}

fn keep(store: &mut Store, share: &NewShare) -> Result<(), StoreError> {
    match store.append_share(share.hash, &share.bytes, share.time_seen, share.verified) {
        // Trying again would not make it fit, and the others do.
        Err(error @ StoreError::TooLong { .. }) => {
            warn!(%error, "share store: a share is not kept");
            Ok(())
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(byte: u8) -> NewShare {
        NewShare { hash: ShareHash([byte; 32]), bytes: [byte; 9].into(), time_seen: 5, verified: false }
    }

    #[tokio::test]
    async fn what_was_sent_is_on_disk_after_a_stop() {
        let dir = tempfile::tempdir().unwrap();
        let hash = share(1).hash;
        let writer = StoreWriter::start(Store::open(dir.path()).unwrap().0, Duration::from_secs(60)).unwrap();
        writer.append_shares(vec![share(1)]).await.unwrap();
        writer.append_verified(vec![hash]).await.unwrap();
        writer.append_shares(vec![share(2), NewShare { verified: true, ..share(4) }]).await.unwrap();
        writer.forget(vec![ShareHash([3; 32])]).await.unwrap();
        writer.sync().await.unwrap();
        writer.stop().await.unwrap();
        let loaded = Store::open(dir.path()).unwrap().1;
        assert_eq!(loaded.shares.len(), 3);
        assert_eq!(loaded.verified, [hash, share(4).hash]);
        assert_eq!(loaded.problems, [""; 0]);
    }

    #[tokio::test]
    async fn what_the_disk_refuses_is_written_when_it_works_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("shares");
        let store = Store::open(dir.path()).unwrap().0;
        std::fs::remove_dir(&folder).unwrap();
        let writer = StoreWriter::start(store, Duration::from_millis(5)).unwrap();
        let mut trouble = writer.trouble();
        for byte in 0..3 {
            writer.append_shares(vec![share(byte)]).await.unwrap();
        }
        trouble.wait_for(Option::is_some).await.unwrap();
        assert!(matches!(writer.sync().await, Err(WriterError::Store(StoreError::Disk { .. }))));
        std::fs::create_dir(&folder).unwrap();
        trouble.wait_for(Option::is_none).await.unwrap();
        writer.stop().await.unwrap();
        let order: Vec<_> = Store::open(dir.path()).unwrap().1.shares.iter().map(|share| share.hash.0[0]).collect();
        assert_eq!(order, [0, 1, 2]);
    }
}
