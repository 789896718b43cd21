//! The daemon back end against a real `bitcoind`.

mod support;

mod health;
mod submission;
mod templates;
