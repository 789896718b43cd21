//! What strangers may try on the pool's network: each case by name, against a node that has a daemon, a miner and an honest
//! peer. Each says what the attempt costs whoever makes it, and the node must serve miner and peer after each.
//!
//! The tests run in network namespaces, where strangers have other addresses than 127.0.0.1: that one is never banned.

mod arena;
mod connections;
mod floods;
mod frames;
mod handshake;
mod long;
mod requests;
mod shares;
mod transactions;
