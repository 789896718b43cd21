//! Address book and bans on disk, each replaced atomically.

use std::path::{Path, PathBuf};

use crate::runtime::files;

/// File name of the address book, in the reference's format and under its name.
const ADDRESSES: &str = "addrs";

/// File name of the bans.
const BANS: &str = "bans.json";

/// Maximum size of a file: ten thousand entries of some hundred bytes each.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Contents of address book and bans.
pub(super) type Loaded = (Text, Text);

/// Content of a file; `None` if there is none, or the reason why it cannot be read.
pub(super) type Text = Result<Option<String>, String>;

/// Reads address book and bans.
pub(super) async fn load(folder: &Path) -> Loaded {
    let folder = folder.to_owned();
    let loading = tokio::task::spawn_blocking(move || (read(&folder.join(ADDRESSES)), read(&folder.join(BANS))));
    loading.await.unwrap_or_else(|error| (Err(error.to_string()), Ok(None)))
}

/// Writes the address book, and the bans if given; returns the problems.
pub(super) async fn save(folder: PathBuf, addresses: String, bans: Option<String>) -> Vec<String> {
    let saving = tokio::task::spawn_blocking(move || {
        let files = [(ADDRESSES, Some(addresses)), (BANS, bans)];
        let written = files.into_iter().filter_map(|(name, text)| Some(write(&folder.join(name), &text?)));
        written.filter_map(Result::err).collect()
    });
    saving.await.unwrap_or_else(|error| vec![error.to_string()])
}

fn read(path: &Path) -> Text {
    files::read(path, FILE_BYTES_MAX).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    files::replace(path, |file| file.write_all(text.as_bytes())).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn what_is_saved_is_loaded_and_nothing_else_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()).await, (Ok(None), Ok(None)));
        assert!(save(folder.path().to_owned(), "[]".into(), Some("{}".into())).await.is_empty());
        assert!(save(folder.path().to_owned(), "[1]".into(), None).await.is_empty(), "bans that did not change stay");
        assert_eq!(load(folder.path()).await, (Ok(Some("[1]".into())), Ok(Some("{}".into()))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn what_cannot_be_written_or_read_is_told_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(ADDRESSES)).unwrap();
        fs::write(folder.path().join(BANS), [0xff]).unwrap();
        let (addresses, bans) = load(folder.path()).await;
        assert!(addresses.unwrap_err().contains(ADDRESSES) && bans.unwrap_err().contains(BANS));
        let problems = save(folder.path().join("missing"), String::new(), Some(String::new())).await;
        assert_eq!(problems.len(), 2);
        assert!(problems[0].contains("missing"), "{problems:?}");
    }
}
