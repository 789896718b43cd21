//! `v36_ratchet.json`: state of the ratchet between share versions 35 and 36, under the reference's name and in its
//! format. It is written in the background, so that the owner task never waits for the disk.

use sharechain::chain::Ratchet;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use crate::runtime::disk::{DiskHealth, Part};
use crate::runtime::files;

/// File name in the data directory.
pub const NAME: &str = "v36_ratchet.json";

/// Maximum size of a file that is read, in bytes: some ten times what is written.
const BYTES_MAX: u64 = 4096;

/// Reads the saved ratchet; `None` if there is none.
///
/// # Errors
/// The file cannot be read, or is no such file; the text says which and why.
pub fn read(folder: &Path) -> Result<Option<Ratchet>, String> {
    let path = folder.join(NAME);
    let text = files::read(&path, BYTES_MAX).map_err(|error| format!("{}: {error}", path.display()))?;
    text.map(|text| Ratchet::from_json(&text)).transpose().map_err(|error| format!("{}: {error}", path.display()))
}

/// Reads the saved ratchet; one that cannot be read is logged and counts as none.
pub(super) fn load(folder: &Path) -> Option<Ratchet> {
    read(folder).unwrap_or_else(|problem| {
        warn!(%problem, "cannot read which share version was made last: the share chain alone decides");
        None
    })
}

fn write(path: &Path, ratchet: Ratchet) -> Result<(), String> {
    let text = ratchet.to_json();
    files::replace(path, |file| file.write_all(text.as_bytes())).map_err(|error| format!("{}: {error}", path.display()))
}

/// Saves the newest ratchet: one write at a time, and again until it succeeds.
#[derive(Debug)]
pub(super) struct RatchetFile {
    path: PathBuf,
    disk: DiskHealth,
    /// False while another process owns the data directory.
    is_ours: bool,
    unsaved: Option<Ratchet>,
    writing: Option<(Ratchet, JoinHandle<Result<(), String>>)>,
    /// Problem that was logged last.
    logged: Option<String>,
}

impl RatchetFile {
    pub(super) fn new(folder: &Path, disk: DiskHealth, is_ours: bool) -> Self {
        Self { path: folder.join(NAME), disk, is_ours, unsaved: None, writing: None, logged: None }
    }

    /// Writes from now on: the data directory is this process's. What was to be saved before is dropped, since the
    /// process that owned the directory has saved it.
    pub(super) fn take_over(&mut self) {
        (self.is_ours, self.unsaved) = (true, None);
    }

    /// Starts to save `ratchet`, or does so after the write that is running.
    pub(super) async fn save(&mut self, ratchet: Ratchet) {
        self.unsaved = Some(ratchet);
        self.go_on().await;
    }

    /// Takes the result of a write that has ended, and starts the next one, if there is anything to write. Call now and
    /// then. Waits for nothing.
    pub(super) async fn go_on(&mut self) {
        if let Some((ratchet, writing)) = self.writing.take_if(|(_, writing)| writing.is_finished()) {
            self.note_written(ratchet, writing.await.unwrap_or_else(|error| Err(error.to_string())));
        }
        if self.writing.is_none()
            && self.is_ours
            && let Some(ratchet) = self.unsaved.take()
        {
            let path = self.path.clone();
            self.writing = Some((ratchet, tokio::task::spawn_blocking(move || write(&path, ratchet))));
        }
    }

    /// Finishes writing, until `until` at the latest.
    pub(super) async fn finish(&mut self, until: Instant) {
        for _ in 0..2 {
            self.go_on().await;
            let Some((ratchet, mut writing)) = self.writing.take() else { return };
            match tokio::time::timeout_at(until.into(), &mut writing).await {
                Ok(written) => self.note_written(ratchet, written.unwrap_or_else(|error| Err(error.to_string()))),
                Err(_) => {
                    let path = self.path.display();
                    error!(%path, "not written before the end: a restart decides from the share chain alone which share version to make");
                    return;
                }
            }
        }
    }

    fn note_written(&mut self, ratchet: Ratchet, written: Result<(), String>) {
        let problem = written.err();
        if problem.is_some() {
            // Unless there is a newer one already.
            self.unsaved.get_or_insert(ratchet);
        }
        if let Some(problem) = problem.as_ref().filter(|_| problem != self.logged) {
            warn!(%problem, "cannot save which share version is made");
        }
        self.disk.report(Part::Ratchet, problem.clone());
        self.logged = problem;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    fn ratchet(state: &str) -> Ratchet {
        Ratchet::from_json(&format!(r#"{{"state": "{state}", "confirm_count": 7}}"#)).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn the_newest_state_is_saved_once_the_directory_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()), Ok(None));
        let mut file = RatchetFile::new(folder.path(), DiskHealth::new(), false);
        file.save(ratchet("activated")).await;
        file.finish(soon()).await;
        assert_eq!(read(folder.path()), Ok(None), "the directory is another process's");
        file.take_over();
        file.save(ratchet("activated")).await;
        file.save(ratchet("voting")).await;
        file.save(ratchet("confirmed")).await;
        file.finish(soon()).await;
        assert_eq!(read(folder.path()), Ok(Some(ratchet("confirmed"))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_write_that_fails_is_reported_and_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let (later, disk) = (folder.path().join("later"), DiskHealth::new());
        let mut file = RatchetFile::new(&later, disk.clone(), true);
        file.save(ratchet("confirmed")).await;
        file.finish(soon()).await;
        let sentences = disk.watch().borrow().sentences();
        assert!(sentences.len() == 1 && sentences[0].contains(NAME), "{sentences:?}");
        fs::create_dir(&later).unwrap();
        file.finish(soon()).await;
        assert_eq!(read(&later), Ok(Some(ratchet("confirmed"))));
        assert!(disk.watch().borrow().sentences().is_empty());
    }

    #[test]
    fn a_file_of_another_kind_is_named_and_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        for wrong in ["", "{\"state\": \"on\"}", "[]"] {
            fs::write(folder.path().join(NAME), wrong).unwrap();
            assert!(read(folder.path()).unwrap_err().contains(NAME), "{wrong}");
            assert_eq!(load(folder.path()), None);
        }
    }
}
