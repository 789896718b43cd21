//! Coins and networks: their addresses, the files that describe them, and the page that explains how to add one.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod addresses;
mod files;
mod howto;

use std::fs;
use std::path::PathBuf;

/// Path of a file or folder of the repository.
fn repository(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), path].iter().collect()
}

/// Text of a file of the repository.
fn text(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
