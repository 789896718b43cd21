//! What differs between the chains whose found blocks are submitted and followed.

use std::path::{Path, PathBuf};

/// Confirmations at which a coinbase of the parent chain can be spent.
const PARENT_MATURITY: u32 = 100;

/// A chain whose found blocks are submitted and followed. Immutable; shared by all that handle its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    daemon: String,
    maturity: u32,
}

impl Default for Chain {
    /// The parent chain.
    fn default() -> Self {
        Self { daemon: "bitcoind".to_owned(), maturity: PARENT_MATURITY }
    }
}

impl Chain {
    /// Its daemon in messages.
    pub fn daemon(&self) -> &str {
        &self.daemon
    }

    /// Confirmations at which a coinbase can be spent; a competitor that deep is final, too.
    pub fn maturity(&self) -> u32 {
        self.maturity
    }

    /// Returns the folder of its files in `data_dir`.
    pub fn folder(&self, data_dir: &Path) -> PathBuf {
        data_dir.to_owned()
    }
}
