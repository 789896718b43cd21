//! The network of pool nodes: who is connected, what they tell each other, and how a share gets from one to all.
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
//! Peers tell each other the parent chain's best header (protocol section 3.10). We pass it on and ask our daemon at once,
//! which then has the block or gets it in about the same time; work is made from its templates alone. To mine an empty block
//! on a header whose block nobody has checked has cost miners a lot of money, for a second's gain.

pub mod dial;
mod files;
mod latency;
mod link;
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
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Wishes of the operator that may wait. Whoever has one waits with it.
pub const COMMANDS_QUEUED_MAX: usize = 16;

/// The most connections that a node makes by itself: more would only take other nodes' places.
pub const OUTGOING_MAX: usize = 10;

/// How this node takes part in the pool's network.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Whose shares.
    pub network: &'static Network,
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
    pub whitelist: Vec<IpNet>,
}

/// What the rest of the node holds of the pool's network.
#[derive(Debug, Clone)]
pub struct Handle {
    /// How things stand, at most half a second old.
    pub status: watch::Receiver<Arc<Status>>,
    /// Where the operator's wishes go.
    pub commands: mpsc::Sender<Command>,
    /// The transactions of shares from before version 34, for blocks that peers find.
    pub transactions: Arc<Transactions>,
    /// What goes over the connections.
    pub traffic: Arc<Traffic>,
    /// Limits how often latencies are asked for.
    pub latency_requests: LatencyRequests,
}

/// What an operator may wish. Whoever asks may go away before the answer.
#[derive(Debug)]
pub enum Command {
    /// How things stand this moment.
    Status {
        /// The answer.
        reply: oneshot::Sender<Arc<Status>>,
    },
    /// Measure peers' latencies, those that were not just now. They are in the status when it says that nothing is being
    /// measured any more.
    MeasureLatencies {
        /// Sent when that has begun, and the status says so.
        reply: oneshot::Sender<()>,
    },
    /// Who is banned.
    ListBans {
        /// The answer.
        reply: oneshot::Sender<Vec<Ban>>,
    },
    /// Ban an address, and disconnect it.
    Ban {
        /// Whom.
        address: IpAddr,
        /// For how long.
        seconds: f64,
        /// Why, for the list.
        reason: String,
        /// The ban, or why there is none.
        reply: oneshot::Sender<Result<Ban, NotBanned>>,
    },
    /// Let an address in again.
    Unban {
        /// Whom.
        address: IpAddr,
        /// Whether it was banned.
        reply: oneshot::Sender<bool>,
    },
}

/// Names and explains the metrics of this part.
pub fn describe() {
    describe_gauge!("p2p_peers", "Peers that are connected, by who opened the connection");
    describe_gauge!("p2p_bans", "Addresses that are banned");
    describe_gauge!("p2p_addresses", "Addresses of nodes that are known");
    describe_counter!("p2p_messages_total", "Messages, by direction and command");
    describe_counter!("p2p_bytes_total", Unit::Bytes, "Bytes over all connections, by direction");
    describe_counter!("p2p_offences_total", "Misbehaviour of peers, by kind");
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
    for reason in ["banned", "full", "neighbourhood"] {
        counter!("p2p_refused_connections_total", "reason" => reason).absolute(0);
    }
    counter!("p2p_shares_received_total").absolute(0);
    counter!("p2p_shares_relayed_total").absolute(0);
}
