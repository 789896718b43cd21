//! Stratum version 1: lines of JSON, and the session that they make.

pub mod line;
pub mod message;
pub mod session;
