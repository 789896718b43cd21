//! What differs between the chains whose found blocks are submitted and followed: the parent chain, and merged ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use thiserror::Error;

/// Maximum length of a merged chain's name, in characters.
pub const CHAIN_NAME_MAX: usize = 32;

/// Confirmations at which a coinbase of the parent chain can be spent.
const PARENT_MATURITY: u32 = 100;

/// Folder in the data directory that has one folder for each merged chain.
const MERGED: &str = "merged";

/// A chain whose found blocks are submitted and followed; shared by all that handle its blocks.
#[derive(Debug)]
pub struct Chain {
    name: Option<Arc<str>>,
    daemon: String,
    maturity: AtomicU32,
}

/// A name that cannot be a folder's and a label's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the name of a merged chain is {0:?}: it needs 1 to {CHAIN_NAME_MAX} of the characters a-z, 0-9 and -")]
pub struct ChainNameError(pub String);

impl Default for Chain {
    /// The parent chain.
    fn default() -> Self {
        Self { name: None, daemon: "bitcoind".to_owned(), maturity: PARENT_MATURITY.into() }
    }
}

impl Chain {
    /// Returns a merged chain. Its name is that of its folder, and a label of its metrics.
    ///
    /// # Errors
    /// The name has other characters than `a` to `z`, `0` to `9` and `-`, is empty, or is too long.
    pub fn merged(name: &str, maturity: u32) -> Result<Self, ChainNameError> {
        let is_allowed = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
        if name.is_empty() || name.len() > CHAIN_NAME_MAX || !name.bytes().all(is_allowed) {
            return Err(ChainNameError(name.chars().take(2 * CHAIN_NAME_MAX).collect()));
        }
        Ok(Self { name: Some(name.into()), daemon: format!("the daemon of {name}"), maturity: maturity.into() })
    }

    /// Name of a merged chain; `None` for the parent chain.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    /// Field of log events: absent for the parent chain.
    pub(super) fn label(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its daemon in messages.
    pub fn daemon(&self) -> &str {
        &self.daemon
    }

    /// Confirmations at which a coinbase can be spent; a competitor that deep is final, too.
    pub fn maturity(&self) -> u32 {
        self.maturity.load(Ordering::Relaxed)
    }

    /// Sets the maturity, which for a merged chain is known when its daemon has said which one it is.
    pub fn set_maturity(&self, confirmations: u32) {
        self.maturity.store(confirmations, Ordering::Relaxed);
    }

    /// Returns the folder of its files in `data_dir`: the parent chain's are in that itself.
    pub fn folder(&self, data_dir: &Path) -> PathBuf {
        match &self.name {
            None => data_dir.to_owned(),
            Some(name) => data_dir.join(MERGED).join(&**name),
        }
    }
}

/// Returns the folders of all chains that have had files in `data_dir`: the parent chain's, then those of merged ones.
pub(super) fn folders_in(data_dir: &Path) -> Vec<PathBuf> {
    let listing = std::fs::read_dir(data_dir.join(MERGED));
    let mut merged: Vec<PathBuf> = listing
        .into_iter()
        .flatten()
        .filter_map(|folder| Some(folder.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    merged.sort();
    std::iter::once(data_dir.to_owned()).chain(merged).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_chains_name_cannot_lead_out_of_its_folder() {
        for name in ["", ".", "..", "a/b", "../x", "Dogecoin", "doge coin", "d\u{f6}ge", "a\0", &"x".repeat(33)] {
            assert!(Chain::merged(name, 240).is_err(), "{name:?}");
        }
        for name in ["dogecoin", "chain-98", "0", &"x".repeat(32)] {
            let chain = Chain::merged(name, 240).unwrap();
            assert_eq!(chain.folder(Path::new("/data")), Path::new("/data/merged").join(name));
        }
        assert_eq!(Chain::default().folder(Path::new("/data")), Path::new("/data"));
        let error = Chain::merged("../x", 240).unwrap_err().to_string();
        assert!(error.contains("\"../x\"") && error.contains("1 to 32"), "{error}");
    }
}
