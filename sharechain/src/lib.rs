//! P2Pool's consensus as a library: bytes and the time in, verdicts out. No sockets, files, clock or tasks; the
//! manifest and `.clippy.toml` enforce it.
//!
//! ```text
//!  bytes ──share──▶ Share ──chain: verify──▶ Sharechain ──select──▶ Tip ──▶ the next share
//!            ▲                                   ▲
//!            └── coin: networks, addresses, proof of work
//! ```
//!
//! `docs/protocol.md` is the specification; comments cite its sections and traps.

pub mod chain;
pub mod coin;
pub mod map;
pub mod merged;
pub mod merkle;
pub mod pack;
pub mod rules;
pub mod script;
pub mod share;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
