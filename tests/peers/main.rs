//! Attacks by peers on the pool's network: each case by name, against a node with a daemon, a miner and an honest peer.
//! Each states the cost to the attacker, and the node must serve miner and peer after each.
//!
//! The tests run in network namespaces, where attackers have other addresses than 127.0.0.1, which is never banned.

mod arena;
mod connections;
mod floods;
mod frames;
mod handshake;
mod long;
mod requests;
mod shares;
mod transactions;
mod version36;
