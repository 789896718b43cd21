//! Found blocks: submitted and written to disk at once, followed until their coinbase can be spent, announced.
//!
//! ```text
//! FoundBlock ──▶ submit ──▶ every Route of the daemon ──BlockReport──▶ found ──events──▶ announce
//!                  └──▶ journal: one file per block
//! ```

pub mod announce;
mod block;
mod chain;
mod daemon;
pub mod found;
pub mod journal;
mod metrics;
mod reports;
pub mod submit;

pub use block::{BlockReport, Finding, FoundBlock, Outcome, Sighting};
pub use chain::Chain;
pub use daemon::{BlockPosition, Explorer, Route};
pub use metrics::describe;
pub use reports::{REPORTS_KEPT_MAX, Reports};
