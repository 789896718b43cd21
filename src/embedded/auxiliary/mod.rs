//! Merged chains: their daemons, inside this process, for tests and for `p2pool demo --merged`.
//!
//! A [`Chain`] has branches, keeps the blocks that it creates as Dogecoin Core does, and judges each proof by the
//! published rules, with code of its own ([`proof`]).

mod addresses;
mod block;
mod chain;
mod created;
pub mod proof;
mod tree;

pub use addresses::Addresses;
pub use block::Block;
pub use chain::{AuxWork, Balance, Bits, BitsError, Chain, Fate, Rules, Submission, SubmitError};
