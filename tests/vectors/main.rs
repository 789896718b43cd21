//! Golden vectors, recorded from the reference node (`data/README.md`), against this node's own code.
//!
//! `manifest.json` has the number of cases of each part of each file; a test that runs fewer or more fails.

#![allow(clippy::unwrap_used, reason = "a test can do nothing about an error but fail")]

// So that `cargo test vectors` runs exactly these.
#[path = "."]
mod vectors {
    mod addresses;
    mod behaviours;
    mod chains;
    mod dialogues;
    mod forks;
    mod merged;
    mod messages;
    mod numbers;
    mod primitives;
    mod recorded;
    mod shares;
    mod support;
    mod templates;
    mod v36;
    mod work;
}
