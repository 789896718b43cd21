//! Stratum version 1: lines of JSON, the session that they make, and the miner's side of it.

pub mod client;
pub mod line;
pub mod message;
pub mod session;
