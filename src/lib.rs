//! A P2Pool node. Draft of the map.

pub mod bitcoind;
pub mod journal;
pub mod merkle;
pub mod network;
pub mod tasks;
pub mod template;
