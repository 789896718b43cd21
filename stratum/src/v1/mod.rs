//! Stratum version 1: messages, the session, and the miner's side.

pub mod client;
pub mod line;
pub mod message;
pub mod session;
