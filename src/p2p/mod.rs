//! The share network: peers, and what passes between them.

pub mod addrs;
pub mod bans;
pub mod download;
pub mod frame;
pub mod message;
pub mod peer;
pub mod swarm;
#[cfg(test)]
mod test_shares;
pub mod transactions;
