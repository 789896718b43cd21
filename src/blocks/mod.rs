//! Found blocks: submitted and written to disk at once, followed until their coinbase can be spent, announced.
//!
//! ```text
//! FoundBlock ──▶ submit ──▶ every Route of the daemon ──BlockReport──▶ found ──events──▶ announce
//!                  └──▶ journal: one file per block
//! ```
//!
//! Each chain, the parent and merged ones, has its own submitter, journal and records ([`keep()`] starts those of a merged
//! one); all share the announcers. [`Chain`] has what differs.

pub mod announce;
mod block;
mod chain;
mod daemon;
pub mod found;
pub mod journal;
mod keep;
mod metrics;
mod reports;
pub mod submit;

pub use block::{BlockReport, Finding, FoundBlock, Outcome, Sighting};
pub use chain::{CHAIN_NAME_MAX, Chain, ChainNameError};
pub use daemon::{BlockPosition, Explorer, Route};
pub use keep::{Handle, Inputs, keep};
pub use metrics::describe;
pub use reports::{REPORTS_KEPT_MAX, Reports};

pub use crate::template::NextBlock;
