//! The network of pool nodes: who is connected, what they tell each other, and how a share gets from one to all.

pub mod addrs;
pub mod bans;
pub mod dial;
pub mod download;
pub mod frame;
pub mod message;
pub mod peer;
mod subnet;
pub mod swarm;
pub mod transactions;
pub mod upnp;

pub use dial::Host;
pub use subnet::Subnet;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use tokio::sync::oneshot;

use crate::network::Network;
use bans::{Ban, NotBanned};

/// The most connections that a node makes by itself: more would only take other nodes' places.
pub const OUTGOING_MAX: usize = 10;

/// What an operator orders.
#[derive(Debug)]
pub enum Command {
    /// Keep an address away.
    Ban {
        /// Whom.
        address: IpAddr,
        /// For how long.
        seconds: f64,
        /// Why.
        reason: String,
        /// What came of it.
        reply: oneshot::Sender<Result<Ban, NotBanned>>,
    },
    /// Let an address in again, or all.
    Unban {
        /// Whom; none for all.
        address: Option<IpAddr>,
        /// How many were banned.
        reply: oneshot::Sender<usize>,
    },
}

/// How this node takes part in the pool's network.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Whose shares.
    pub network: &'static Network,
    /// Where addresses and bans are kept.
    pub data_dir: PathBuf,
    /// Where peers connect.
    pub listen: SocketAddr,
    /// Nodes to be connected with at all times.
    pub nodes: Vec<Host>,
    /// Where to find the first peers.
    pub bootstrap: Vec<Host>,
    /// Most peers that may connect to this node.
    pub incoming_max: usize,
    /// Peers that this node connects to by itself, beside `nodes`.
    pub outgoing: usize,
    /// Whether to have the router let peers in.
    pub upnp: bool,
    /// Whether to tell peers where this node is.
    pub advertise: bool,
    /// What to tell them, if that is not where its connections come from.
    pub external: Option<Host>,
    /// Whom not to ban.
    pub whitelist: Vec<Subnet>,
}
