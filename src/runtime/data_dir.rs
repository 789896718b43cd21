//! The data directory: one process at a time may write to it, and the next takes over the moment that one ends.
//!
//! The kernel keeps the lock, so it is freed however its holder ends. Code that writes here holds a [`DataDir`] and
//! first checks or awaits ownership; reading needs no lock.

use serde::{Deserialize, Serialize};
use sharechain::coin::Network;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;
use tracing::warn;

use crate::runtime::access::Access;

/// Interval of attempts to lock; at most this much is added to the time without a pool at a takeover.
const TRY_INTERVAL: Duration = Duration::from_millis(50);

/// Maximum size of the holder's note that is read, in bytes.
const NOTE_BYTES_MAX: u64 = 1000;

/// A network's own folder and its lock. Clones share it.
#[derive(Debug, Clone)]
pub struct DataDir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    access: Access,
    note: Note,
    lock: File,
    ours: watch::Sender<bool>,
}

/// Note that the holder writes into the lock file, for a waiting process and for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    pid: u32,
    network: String,
    /// Distinguishes networks defined by file that share a name.
    identifier: String,
}

/// Error of opening the data directory.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// A disk operation failed.
    #[error("cannot {action} {path}: {cause}")]
    Disk {
        /// Operation that failed.
        action: &'static str,
        /// File or folder concerned.
        path: String,
        cause: io::Error,
    },
    /// The other process runs another network: waiting is pointless, as the two share no chain.
    #[error(
        "process {pid} uses {path} for another network, {network} with identifier {identifier}: give this one a --datadir \
         of its own"
    )]
    OtherNetwork {
        path: String,
        /// Process that holds the lock.
        pid: u32,
        /// Name of its network.
        network: String,
        /// Identifier of its network, in hex.
        identifier: String,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError + use<> {
    let path = path.display().to_string();
    move |cause| DataDirError::Disk { action, path, cause }
}

impl DataDir {
    /// Opens the folder at `path` for its owner alone, as [`Self::open_for`] does.
    ///
    /// # Errors
    /// As [`Self::open_for`].
    pub fn open(path: &Path, network: &Network) -> Result<Self, DataDirError> {
        Self::open_for(Access::Owner, path, network)
    }

    /// Creates the folder at `path` if missing, with `access`, and locks it if it is free.
    ///
    /// # Errors
    /// The disk refuses, or a process of another network holds the lock.
    pub fn open_for(access: Access, path: &Path, network: &Network) -> Result<Self, DataDirError> {
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true).mode(access.folder_mode()).create(path).map_err(failed("create", path))?;
        let lock_path = path.join("lock");
        // Not truncated: it may hold the note of another process.
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        let identifier = hex::encode(network.identifier);
        let note = Note { pid: std::process::id(), network: network.name.to_owned(), identifier };
        let data_dir =
            Self(Arc::new(Inner { path: path.to_owned(), access, note, lock, ours: watch::Sender::new(false) }));
        if data_dir.try_take().map_err(failed("lock", &lock_path))? {
            return Ok(data_dir);
        }
        match data_dir.holder() {
            Some(other) if other.identifier != data_dir.0.note.identifier => Err(DataDirError::OtherNetwork {
                path: path.display().to_string(),
                pid: other.pid,
                network: other.network,
                identifier: other.identifier,
            }),
            _ => Ok(data_dir),
        }
    }

    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Users that may read its files.
    pub fn access(&self) -> Access {
        self.0.access
    }

    /// True if this process may write to it. That never changes back.
    pub fn is_ours(&self) -> bool {
        *self.0.ours.borrow()
    }

    /// Waits until this process may write to it.
    pub async fn ours(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.ours.subscribe().wait_for(|ours| *ours).await;
    }

    /// Process that holds the lock instead, if known.
    pub fn holder_pid(&self) -> Option<u32> {
        self.holder().map(|note| note.pid)
    }

    /// Retries until this process holds the lock, then notifies all waiters.
    pub async fn take_over(self) {
        let mut reported = false;
        loop {
            match self.try_take() {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) if !reported => {
                    warn!(%error, path = %self.0.path.display(), "cannot lock the data directory; retrying");
                    reported = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(TRY_INTERVAL).await;
        }
    }

    fn try_take(&self) -> io::Result<bool> {
        match self.0.lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if let Err(error) = self.write_note() {
            // The note only informs the next process and people; a full disk must not keep this node from running.
            warn!(%error, path = %self.0.path.display(), "cannot write the note into the data directory's lock");
        }
        self.0.ours.send_replace(true);
        Ok(true)
    }

    fn write_note(&self) -> io::Result<()> {
        let mut file = &self.0.lock;
        let mut line = serde_json::to_vec(&self.0.note)?;
        line.push(b'\n');
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(&line)
    }

    fn holder(&self) -> Option<Note> {
        let mut file = &self.0.lock;
        let mut text = String::new();
        file.rewind().ok()?;
        file.take(NOTE_BYTES_MAX).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sharechain::coin::{BITCOIN_REGTEST, BITCOIN_SIGNET};

    #[tokio::test]
    async fn the_second_waits_and_takes_over_when_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path(), &BITCOIN_REGTEST).unwrap();
        assert!(first.is_ours());
        first.ours().await;
        let second = DataDir::open(folder.path(), &BITCOIN_REGTEST).unwrap();
        assert!(!second.is_ours());
        assert_eq!(second.holder_pid(), Some(std::process::id()));
        let taking = tokio::spawn(second.clone().take_over());
        tokio::time::sleep(3 * TRY_INTERVAL).await;
        assert!(!second.is_ours(), "the first still has it");
        let clone = first.clone();
        drop(first);
        tokio::time::sleep(3 * TRY_INTERVAL).await;
        assert!(!second.is_ours(), "a part of the first still has it");
        drop(clone);
        second.ours().await;
        assert!(second.is_ours());
        taking.await.unwrap();
    }

    #[test]
    fn another_network_in_the_same_folder_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let _first = DataDir::open(folder.path(), &BITCOIN_REGTEST).unwrap();
        let error = DataDir::open(folder.path(), &BITCOIN_SIGNET).unwrap_err().to_string();
        assert!(error.contains("bitcoin_regtest"), "{error}");
        assert!(error.contains(&std::process::id().to_string()), "{error}");
    }

    #[test]
    fn a_note_that_says_nothing_keeps_nobody_from_waiting_or_starting() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path(), &BITCOIN_REGTEST).unwrap();
        fs::write(folder.path().join("lock"), b"\xff{").unwrap();
        let second = DataDir::open(folder.path(), &BITCOIN_REGTEST).unwrap();
        assert_eq!((second.is_ours(), second.holder_pid()), (false, None));
        drop((first, second));
        assert!(DataDir::open(folder.path(), &BITCOIN_REGTEST).unwrap().is_ours());
    }
}
