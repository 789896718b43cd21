//! P2Pool's network protocol as a library: bytes, times and orders in; messages, orders and verdicts out. No sockets,
//! files, clock or tasks; the manifest and `.clippy.toml` enforce it.
//!
//! ```text
//!  bytes ──frame──▶ message ──▶ peer: one connection ──PeerEvent──▶ swarm: all of them
//!  bytes ◀─────────────────────── Order ◀──────────────────────────── addrs, bans, download
//! ```
//!
//! `docs/protocol.md` is the specification; comments cite its sections and traps.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test may begin at the clock's time"))]

pub mod addrs;
pub mod bans;
pub mod budget;
mod command;
pub mod download;
pub mod frame;
mod limits;
pub mod message;
pub mod peer;
mod peer_id;
pub mod proofs;
mod refusals;
mod sources;
pub mod swarm;
#[cfg(test)]
mod test_shares;
pub mod transactions;

pub use swarm::{PeerStatus, Status};
