//! A found block's file: written, synced and renamed concurrently with the submission.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::STOP_GRACE;
use crate::blocks::journal::{self, Journal, JournalError};
use crate::blocks::{Chain, FoundBlock, Outcome};
use crate::runtime::backoff::Backoff;

/// First and longest back-off after a failed write of the journal.
const WRITE_RETRY_FIRST: Duration = Duration::from_millis(500);
const WRITE_RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Time after which a pending write is reported.
const WRITE_SLOW: Duration = Duration::from_secs(5);

/// Measures the time during which killing the process would lose the block.
pub(super) struct Safe {
    judged_at: Mutex<Option<StdInstant>>,
    chain: Arc<Chain>,
}

impl Safe {
    pub(super) fn since(judged_at: Option<StdInstant>, chain: Arc<Chain>) -> Self {
        Self { judged_at: Mutex::new(judged_at), chain }
    }

    /// Records that the block is on disk, or that the daemon has it.
    pub(super) fn reached(&self) {
        if let Some(judged_at) = self.judged_at.lock().take() {
            self.chain.record_safe(judged_at.elapsed());
        }
    }
}

/// Writes a block's file, syncs it, and renames it as the block's state changes.
pub(super) struct FileKeeper {
    pub(super) journal: Journal,
    /// The latest verdict; closed when the submission ends.
    pub(super) fates: watch::Receiver<Option<Outcome>>,
    /// Published once the file is written.
    pub(super) kept: watch::Sender<Option<journal::Entry>>,
    pub(super) safe: Arc<Safe>,
    pub(super) stop: CancellationToken,
}

impl FileKeeper {
    pub(super) async fn run(self, block: FoundBlock, entry: Option<journal::Entry>) {
        let (hash, stop, chain) = (block.hash, self.stop.clone(), self.journal.chain().clone());
        let is_kept = self.kept.subscribe();
        let stopped = async {
            stop.cancelled().await;
            sleep(STOP_GRACE).await;
        };
        tokio::select! {
            () = self.keep(block, entry) => {}
            () = stopped => if is_kept.borrow().is_none() {
                error!(chain = chain.label(), %hash, "stopping before a found block was written to disk");
            }
        }
    }

    async fn keep(mut self, block: FoundBlock, entry: Option<journal::Entry>) {
        let hash = block.hash;
        let mut entry = match entry {
            Some(entry) => entry,
            None => match self.write(block).await {
                Some(entry) => entry,
                None => return,
            },
        };
        self.safe.reached();
        self.kept.send_replace(Some(entry.clone()));
        // Concurrent with the attempts: the disk may take longer than the daemon.
        let syncing = entry.clone();
        finish_sync(self.journal.chain(), tokio::task::spawn_blocking(move || syncing.sync())).await;
        loop {
            let fate = self.fates.borrow_and_update().clone();
            if let Some(fate) = &fate {
                entry = self.mark(entry, fate).await;
                self.kept.send_replace(Some(entry.clone()));
            }
            let is_over = fate.is_some_and(|fate| fate.is_final());
            if is_over || self.fates.changed().await.is_err() {
                debug!(%hash, "a found block's file is in its final state");
                return;
            }
        }
    }

    /// Writes the block, and retries until that succeeds; `None` if another process keeps it.
    async fn write(&mut self, block: FoundBlock) -> Option<journal::Entry> {
        if !self.journal.is_ours() {
            // Found by a peer, as miners are not served yet. The process that owns the journal keeps it as well.
            tokio::select! {
                () = self.journal.ours() => {}
                _ = self.fates.wait_for(|fate| fate.as_ref().is_some_and(Outcome::is_final)) => return None,
            }
        }
        let mut backoff = Backoff::new(WRITE_RETRY_FIRST, WRITE_RETRY_LONGEST);
        let (block, chain) = (Arc::new(block), self.journal.chain().clone());
        let chain = chain.label();
        loop {
            let (journal, copy) = (self.journal.clone(), block.clone());
            let mut writing = tokio::task::spawn_blocking(move || journal.write(&copy));
            let written = match timeout(WRITE_SLOW, &mut writing).await {
                Ok(written) => written,
                Err(_) => {
                    let reason = format!("the disk has not answered for {} s", WRITE_SLOW.as_secs());
                    error!(chain, hash = %block.hash, reason, "a found block is not on disk yet: it is submitted all the same");
                    self.journal.report(Some(reason));
                    writing.await
                }
            };
            let reason = match written {
                Ok(Ok(entry)) => {
                    self.journal.report(None);
                    return Some(entry);
                }
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            let pause = backoff.delay();
            error!(
                chain, hash = %block.hash, reason, again_in = ?pause,
                "a found block cannot be written to disk: it is submitted all the same, but a restart would forget it"
            );
            self.journal.report(Some(reason));
            sleep(pause).await;
        }
    }

    async fn mark(&self, entry: journal::Entry, fate: &Outcome) -> journal::Entry {
        let (mut marked, fate, before) = (entry.clone(), fate.clone(), entry);
        let chain = self.journal.chain().label();
        let marking = tokio::task::spawn_blocking(move || marked.mark(&fate).map(|()| marked));
        match marking.await {
            Ok(Ok(entry)) => return entry,
            Ok(Err(error)) => warn!(chain, %error, "cannot record a block's state: the next start submits it again"),
            Err(error) => warn!(chain, %error, "recording a block's state failed: the next start submits it again"),
        }
        before
    }
}

async fn finish_sync(chain: &Chain, sync: JoinHandle<Result<(), JournalError>>) {
    let chain = chain.label();
    match sync.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(chain, %error, "cannot sync a found block: a power cut may lose it"),
        Err(error) => warn!(chain, %error, "syncing a found block failed"),
    }
}
