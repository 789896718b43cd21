//! Subcommands beside the node itself: each is a program of its own.

pub mod bench;
pub mod demo;
pub mod doctor;
pub mod import;
pub mod mine;
pub mod simulate;
pub mod top;
