//! The daemon back end against a real `bitcoind`.

#![allow(clippy::unwrap_used, reason = "a test can do nothing about an error but fail")]

mod support;

mod health;
mod submission;
mod templates;
