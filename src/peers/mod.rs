//! The network of pool nodes: connections, messages, and the spread of shares from one node to all.
//!
//! ```text
//! socket ⇄ link: one task and one sans-IO `Peer` each, parses shares off the event loop
//!            │ PeerEvent (bounded, the connection waits)   ▲ Order (bounded; a slow reader is dropped)
//!            ▼                                             │
//!          task ── drives the sans-IO `Swarm`: who is connected, gossip, bans, download, relay
//!            │ peers' shares (bounded, their senders wait)  ▲ tips, needs, answers
//!            ▼                                              │
//!          sharechain
//! ```
//!
//! Peers announce the parent chain's best header to each other (protocol section 3.10). We pass it on and poll our
//! daemon at once, which then has the block or gets it at about the same time; work is made from its templates alone.
//! Mining an empty block on an unchecked header has cost miners a lot of money, for a second's gain.

pub mod dial;
mod files;
mod latency;
mod link;
mod listed;
mod proofs;
pub mod task;
mod traffic;
pub mod upnp;

pub use dial::Host;
pub use latency::LatencyRequests;
pub use traffic::Traffic;

use ipnet::IpNet;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use p2p::Status;
use p2p::bans::{Ban, NotBanned};
use p2p::transactions::Transactions;
use sharechain::coin::Network;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Capacity of the operator command queue; senders wait when it is full.
pub const COMMANDS_QUEUED_MAX: usize = 16;

/// Maximum number of connections that a node dials: more would only take other nodes' slots.
pub const OUTGOING_MAX: usize = 10;

/// Configuration of the node's part in the pool's network.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub network: &'static Network,
    /// Address to listen on for peers.
    pub listen: SocketAddr,
    /// Nodes to stay connected to.
    pub nodes: Vec<Host>,
    /// Sources of the first peers.
    pub bootstrap: Vec<Host>,
    /// Maximum number of incoming connections.
    pub incoming_max: usize,
    /// Number of peers to dial, besides `nodes`.
    pub outgoing: usize,
    /// Requests a port mapping from the router.
    pub upnp: bool,
    /// Announces this node's address to peers.
    pub advertise: bool,
    /// Announced address, if it differs from the source of its connections.
    pub external: Option<Host>,
    /// Networks exempt from bans.
    pub whitelist: Vec<IpNet>,
}

impl Config {
    /// A node of `network` that lets peers in at the network's port, on all of this machine's addresses.
    pub fn on(network: &'static Network) -> Self {
        let host = |text: &&str| Host::parse(text, network.p2p_port);
        Self {
            network,
            listen: (Ipv6Addr::UNSPECIFIED, network.p2p_port).into(),
            nodes: Vec::new(),
            bootstrap: network.bootstrap_addresses.iter().filter_map(host).collect(),
            incoming_max: 40,
            outgoing: 6,
            upnp: true,
            advertise: true,
            external: None,
            whitelist: Vec::new(),
        }
    }
}

/// Handle to the P2P task.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Status, at most half a second old.
    pub status: watch::Receiver<Arc<Status>>,
    /// Queue of operator commands.
    pub commands: mpsc::Sender<Command>,
    /// Transactions of shares before version 34, for blocks that peers find.
    pub transactions: Arc<Transactions>,
    /// Traffic of all connections.
    pub traffic: Arc<Traffic>,
    /// Limits how often latencies are requested.
    pub latency_requests: LatencyRequests,
}

/// Operator command. The caller may go away before the answer.
#[derive(Debug)]
pub enum Command {
    /// Returns the current status.
    Status { reply: oneshot::Sender<Arc<Status>> },
    /// Measures peers' latencies, except recent ones. They are in the status once it no longer says that a measurement
    /// runs.
    MeasureLatencies {
        /// Sent when the measurement has begun and the status says so.
        reply: oneshot::Sender<()>,
    },
    /// Lists the bans.
    ListBans { reply: oneshot::Sender<Vec<Ban>> },
    /// Bans an address and disconnects it.
    Ban {
        address: IpAddr,
        /// Duration of the ban.
        seconds: f64,
        /// Reason, for the list.
        reason: String,
        /// The ban, or the reason why there is none.
        reply: oneshot::Sender<Result<Ban, NotBanned>>,
    },
    /// Lifts a ban.
    Unban {
        address: IpAddr,
        /// True if it was banned.
        reply: oneshot::Sender<bool>,
    },
}

/// Describes the metrics of this room.
pub fn describe() {
    describe_gauge!("p2p_peers", "Peers that are connected, by who opened the connection");
    describe_gauge!("p2p_bans", "Addresses that are banned");
    describe_gauge!("p2p_addresses", "Addresses of nodes that are known");
    describe_counter!("p2p_messages_total", "Messages, by direction and command");
    describe_counter!("p2p_bytes_total", Unit::Bytes, "Bytes over all connections, by direction");
    describe_counter!("p2p_offences_total", "Misbehaviour of peers, by kind");
    describe_counter!(
        "p2p_peers_let_go_total",
        "Peers left alone for an hour without a ban, since too many of their shares were refused"
    );
    describe_counter!("p2p_refused_connections_total", "Connections that were refused, by reason");
    describe_counter!("p2p_shares_received_total", "Shares that peers sent, those that are here already too");
    describe_counter!("p2p_shares_relayed_total", "Shares that peers were told of, one for each peer");
    describe_gauge!("p2p_download_shares_missing", "Shares of the chain that are still to be downloaded, about");
    describe_gauge!(
        "p2p_download_shares_per_second",
        "Shares downloaded per second, lately; 0 while nothing is missing"
    );
    for direction in ["in", "out"] {
        gauge!("p2p_peers", "direction" => direction).set(0.0);
        counter!("p2p_bytes_total", "direction" => direction).absolute(0);
    }
    for reason in ["banned", "full", "neighbourhood", "refused_shares"] {
        counter!("p2p_refused_connections_total", "reason" => reason).absolute(0);
    }
    counter!("p2p_peers_let_go_total").absolute(0);
    counter!("p2p_shares_received_total").absolute(0);
    counter!("p2p_shares_relayed_total").absolute(0);
}
