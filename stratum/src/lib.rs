//! A Stratum v1 server.
//!
//! Stratum v1 is how miners get work from a pool: lines of JSON over TCP. A session's life:
//!
//! ```text
//! miner                                   pool
//!   ── mining.configure (version bits) ──▶        optional, first or later (BIP 310)
//!   ── mining.subscribe ─────────────────▶
//!   ◀─ extranonce1, size of extranonce2 ──
//!   ── mining.authorize (name) ──────────▶        before or after subscribe, several times
//!   ◀─ true, or why not ──────────────────
//!   ◀─ mining.set_difficulty ─────────────        directly before a job, when it changed
//!   ◀─ mining.notify (job) ───────────────        on new work, and at least every notify interval
//!   ── mining.submit ────────────────────▶
//!   ◀─ true, or [code, reason, null] ─────
//! ```
//!
//! The core does no I/O and reads no clock: [`Session`] takes lines, work and time, and returns lines and events. The
//! feature `server` (on by default) adds the tokio half, [`server`]. The user of the crate supplies work by
//! implementing [`Work`] and processes each [`Solution`]. The crate has no notion of shares, chains, peers or daemons.
//!
//! [`checklist`] lists the requirements for a server that works with every miner in the field.
//!
//! [`mining`] is independent of any protocol; [`v1`] and [`getwork`] are protocols on top of it, and [`server`] drives
//! them. [`v1::client`] is the miner's side, for tools that mine.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test may begin at the clock's time"))]

pub mod getwork;
pub mod mining;
pub mod printable;
pub mod v1;

mod sync;

#[cfg(feature = "server")]
pub mod server;

#[doc = include_str!("../CHECKLIST.md")]
pub mod checklist {}

pub use mining::difficulty::{Difficulty, Scale, Target};
pub use mining::epochs::Epochs;
pub use mining::error::StratumError;
pub use mining::job::{Job, JobId, JobParts, Offer, Unannounced};
pub use mining::memory::Memory;
pub use mining::solution::{Now, Solution};
pub use mining::tally::{Credit, Tallies, Tally};
pub use mining::work::{Refusal, Work, Worker};
pub use printable::Printable;
pub use v1::session::{Disconnect, Event, Session};
