//! Users with passwords, from a file as `htpasswd -B` writes it: read, reread when it changes, and checked.
//!
//! A bcrypt hash takes as long to check as its maker wanted, so that guessing takes long. What that costs is the
//! guesser's, not other users': answers are remembered (a farm that reconnects with one password costs one check), one
//! password is checked at a time, networks take turns, and a network with many wrong passwords has to wait ([`line`]).

mod line;
mod table;

pub use table::{LineProblem, UsersError};

use parking_lot::{Mutex, RwLock};
use std::fs::Metadata;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use line::{Line, SLOTS, Slots};
use table::{Matches, Table};

/// Interval of looking whether the file has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum time for a check, including the wait for its turn.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum length of a name or password to check, in bytes.
const CREDENTIAL_BYTES_MAX: usize = 512;

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The password is right.
    Accepted,
    /// There is no such user, or the password is wrong.
    Refused,
    /// Too many passwords wait for their check, or this one has waited too long.
    Busy,
}

/// Users of a file. Clones share them.
#[derive(Debug, Clone)]
pub struct Users(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    table: RwLock<Arc<Table>>,
    /// State of the file when it was last read, or found to be broken.
    stamp: Mutex<Option<Stamp>>,
    line: Line,
    check_timeout: Duration,
}

/// What changes with a file's content: time, size and inode.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(Option<SystemTime>, u64, u64);

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let of = |metadata: Metadata| Self(metadata.modified().ok(), metadata.len(), metadata.ino());
        std::fs::metadata(path).ok().map(of)
    }
}

impl Users {
    /// Reads the users of the file `path`. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or the line that is wrong.
    pub fn read(path: &Path) -> Result<Self, UsersError> {
        Self::read_with(path, table::bcrypt(), &SLOTS, CHECK_TIMEOUT)
    }

    fn read_with(
        path: &Path,
        matches: Matches,
        slots: &'static Slots,
        check_timeout: Duration,
    ) -> Result<Self, UsersError> {
        // Before the content: what changes in between is read again.
        let stamp = Stamp::of(path);
        let table = Table::read(path, matches)?;
        Ok(Self(Arc::new(Shared {
            path: path.to_owned(),
            table: RwLock::new(Arc::new(table)),
            stamp: Mutex::new(stamp),
            line: Line::new(slots),
            check_timeout,
        })))
    }

    /// Checks the password of a user with these names, asked from `source`: the first one that is in the file counts.
    pub async fn check(&self, names: &[&str], password: &str, source: IpAddr) -> Verdict {
        if names.iter().chain([&password]).any(|text| text.len() > CREDENTIAL_BYTES_MAX) {
            return Verdict::Refused;
        }
        let table = self.0.table.read().clone();
        let claim = table.claim(names, password);
        if let Some(is_right) = table.answer(&claim) {
            return if is_right { Verdict::Accepted } else { Verdict::Refused };
        }
        let checked = self.0.line.check(table, claim, source);
        match timeout(self.0.check_timeout, checked).await {
            Ok(Some(true)) => Verdict::Accepted,
            Ok(Some(false)) => Verdict::Refused,
            Ok(None) | Err(_) => Verdict::Busy,
        }
    }

    /// Rereads the file when it has changed, and on SIGHUP, until `stop`. Users of a broken file are those read before.
    pub async fn keep_current(self, stop: CancellationToken) {
        let mut hangup =
            signal(SignalKind::hangup()).inspect_err(|error| error!(%error, "cannot listen for SIGHUP")).ok();
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let is_asked = tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK_INTERVAL) => false,
                _ = hung_up => true,
            };
            let users = self.clone();
            // Fails only if it panics or the runtime ends.
            let _ = spawn_blocking(move || users.refresh(is_asked)).await;
        }
    }

    /// Rereads the file if it has changed, or anyway if `is_asked`. Blocks.
    fn refresh(&self, is_asked: bool) {
        let Shared { path, table, stamp, .. } = &*self.0;
        let now = Stamp::of(path);
        let before = std::mem::replace(&mut *stamp.lock(), now);
        if !is_asked && *stamp.lock() == before {
            return;
        }
        let matches = table.read().matches();
        match Table::read(path, matches) {
            Ok(new) => {
                info!(path = %path.display(), users = new.len(), "users read again");
                *table.write() = Arc::new(new);
            }
            Err(error) => error!(%error, "cannot read the users again: those read before still count"),
        }
    }
}

#[cfg(test)]
mod tests;
