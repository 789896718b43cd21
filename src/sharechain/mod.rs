//! P2Pool's tracker and consensus with ancestors.

mod forest;
pub mod store;
