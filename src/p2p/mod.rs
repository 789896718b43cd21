//! The share network: peers, and what passes between them.

pub mod frame;
pub mod message;
pub mod peer;
pub mod transactions;
