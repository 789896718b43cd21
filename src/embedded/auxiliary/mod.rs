//! Merged chains: their daemons, inside this process, for tests and for `p2pool demo --merged`.
//!
//! Each proof is judged by the published rules, with code of its own ([`proof`]).

pub mod proof;
