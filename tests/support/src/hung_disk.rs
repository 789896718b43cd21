//! Hanging and full disks.
//!
//! A hanging disk is simulated, which needs no rights: a library loaded into the node delays each call that would write
//! below given paths, for as long as the test wants. A full disk is a real one, a small tmpfs that only the node sees.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

use crate::namespace;
use crate::node::{Node, NodeBuilder};

/// Source of the library; a C compiler exists wherever Rust links.
const LIBRARY: &str = include_str!("hung_disk.c");

/// The disk below some paths, which can hang or be full.
#[derive(Debug)]
pub struct HungDisk {
    folder: TempDir,
    paths: String,
}

impl HungDisk {
    /// Covers everything whose path starts with one of `paths`. Works normally at first.
    pub fn of(paths: &[PathBuf]) -> Self {
        let folder = tempfile::Builder::new().prefix("p2pool-disk-").tempdir().expect("a temporary folder");
        let (source, library) = (folder.path().join("hung_disk.c"), folder.path().join("hung_disk.so"));
        fs::write(&source, LIBRARY).expect("the folder is ours");
        let output = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output();
        let output = output.unwrap_or_else(|error| panic!("cc, which Rust links with: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let paths: Vec<&str> = paths.iter().map(|path| path.to_str().expect("a path of text")).collect();
        Self { folder, paths: paths.join(":") }
    }

    /// Makes a node use it.
    pub fn under(&self, node: NodeBuilder) -> NodeBuilder {
        let text = |path: PathBuf| path.to_str().expect("a path of text").to_owned();
        node.env("LD_PRELOAD", &text(self.folder.path().join("hung_disk.so")))
            .env("TEST_DISK_STATE", &text(self.state()))
            .env("TEST_DISK_PATHS", &self.paths)
    }

    /// Makes each call that would write wait from now on.
    pub fn hang(&self) {
        self.set("hangs");
    }

    /// Makes each call that needs space fail from now on.
    pub fn fill(&self) {
        self.set("full");
    }

    /// Makes it work again, and continues waiting calls.
    pub fn mend(&self) {
        fs::remove_file(self.state()).expect("it hangs, or is full");
    }

    fn set(&self, state: &str) {
        let new = self.folder.path().join("new");
        fs::write(&new, state).and_then(|()| fs::rename(&new, self.state())).expect("the folder is ours");
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }
}

/// A data directory on a small disk of its own.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Starts `node` with a disk of `megabytes` mounted on its data directory. `None` where the tests' user has opted
    /// out of namespaces.
    pub fn spawn(node: NodeBuilder, megabytes: u32) -> Option<(Self, Node)> {
        if namespace::is_opted_out() {
            return None;
        }
        let data_dir = tempfile::Builder::new().prefix("p2pool-node-").tempdir().expect("a temporary folder");
        let folder = data_dir.path().to_owned();
        let script = format!("mount -t tmpfs -o size={megabytes}m tmpfs '{}' && exec \"$@\"", folder.display());
        // A user namespace substitutes for root.
        let way = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
        let node = node.wrapped(&["unshare", way, "sh", "-c", &script, "sh"]).spawn_in(data_dir);
        Some((Self { folder }, node))
    }

    /// Fills the remaining space.
    pub fn fill(&self, node: &Node) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.filler(node)).expect("a filler");
        let error = loop {
            if let Err(error) = file.write_all(&[0; 512]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    /// Frees the space again.
    pub fn free(&self, node: &Node) {
        fs::remove_file(self.filler(node)).expect("it was filled");
    }

    /// Path in the node's data directory, as seen from outside its namespace.
    pub fn path(&self, node: &Node, path: &str) -> PathBuf {
        let folder = self.folder.strip_prefix("/").expect("temporary folders have absolute paths");
        Path::new("/proc").join(node.pid().to_string()).join("root").join(folder).join(path)
    }

    fn filler(&self, node: &Node) -> PathBuf {
        self.path(node, "filler")
    }
}
