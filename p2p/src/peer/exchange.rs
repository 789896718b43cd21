//! Inputs and outputs of a connection: our own data, events, orders.

use bytes::Bytes;
use sharechain::merkle::Digest;
use sharechain::share::{Share, ShareHash};
use std::net::SocketAddr;
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Close, PeerId};
use crate::budget::Budget;
use crate::limits::SourceRates;
use crate::message::{AddressRecord, ReplyResult, shares_frame, shares_that_fit};
use crate::proofs::{Hasher, Proofs};
use crate::transactions::TemplateTransactions;

/// Data that this node sends about itself on one connection, as of its start.
#[derive(Debug, Clone)]
pub struct Local {
    /// Prefix of every frame of the network.
    pub prefix: [u8; 8],
    /// Protocol version to announce.
    pub protocol_version: u32,
    /// Name of this software.
    pub sub_version: String,
    /// Random number, the same on all connections of this process.
    pub nonce: u64,
    /// Our best share.
    pub best_share: Option<ShareHash>,
    /// Version of our best share. Decides whether transactions are forwarded on this connection (section 18.1).
    pub best_version: Option<u64>,
    /// Lowest accepted protocol version of a peer.
    pub minimum_protocol: u32,
    /// True if honest nodes of the network check less than this one, and send what it cannot use: such messages and shares
    /// are skipped (protocol-v36 section 9.1).
    pub has_laxer_nodes: bool,
    /// Address to advertise to other nodes.
    pub advertise: Advertise,
    /// State shared with other connections.
    pub shared: Shared,
}

/// State that a connection shares with others, from [`Swarm::shared`](crate::swarm::Swarm::shared). The default is
/// that of a connection without others.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Identifier of the connection.
    pub(crate) peer: PeerId,
    /// Memory of unfinished messages.
    pub(crate) unfinished: Arc<Budget>,
    /// Memory of transactions remembered for peers.
    pub(crate) remembered: Arc<Budget>,
    /// Rate limits of its network.
    pub(crate) rates: Vec<SourceRates>,
    /// Proofs of work that are known already.
    pub(crate) proofs: Arc<Proofs>,
    /// Computes the others; `None` for the network's function.
    pub(crate) hasher: Option<Arc<dyn Hasher>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            peer: PeerId(0),
            unfinished: Budget::of_bytes_and_time(usize::MAX),
            remembered: Budget::of_bytes(usize::MAX),
            rates: Vec::new(),
            proofs: Arc::new(Proofs::new(0)),
            hasher: None,
        }
    }
}

impl Shared {
    /// Has proofs of work computed by `hasher`, if there is one.
    #[must_use]
    pub fn hashing_with(self, hasher: Option<Arc<dyn Hasher>>) -> Self {
        Self { hasher, ..self }
    }

    /// Bytes of unfinished messages on all connections.
    pub fn unfinished_bytes(&self) -> usize {
        self.unfinished.used()
    }

    /// Bytes of transactions remembered for all peers.
    pub fn remembered_bytes(&self) -> usize {
        self.remembered.used()
    }
}

/// Address to advertise to other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advertise {
    /// No advertisement.
    Nothing,
    /// The address that peers see, with this port.
    Port(u16),
    /// This address.
    External(SocketAddr),
}

/// Side that opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Opened by the peer.
    Inbound,
    /// Opened by this node.
    Outbound,
}

/// Identifier of a request for shares, chosen by the swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Data that a peer sent about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Protocol version.
    pub version: u32,
    /// Opaque service bits.
    pub services: u64,
    /// Nonce, the same on all connections of the peer: two with one nonce are one node.
    pub nonce: u64,
    /// Name of its software, at most 512 bytes, safe for display.
    pub sub_version: String,
    /// Best share of the peer.
    pub best_share: Option<ShareHash>,
}

/// Reason why a request for shares failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestFailed {
    /// Refused by the peer.
    #[error("the peer answered a request for shares with {0:?}")]
    Refused(ReplyResult),
}

/// Event from a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// The handshake is complete. The swarm closes the connection if it has this nonce already; otherwise it orders
    /// [`Order::Keep`], then a request for the peer's best share if that is unknown, then the current template
    /// ([`Order::Template`], an empty one if there is none), in this order as the reference sends.
    Connected(Hello),
    /// Unsolicited shares, newest first, each checked as far as possible without its ancestors. May be empty.
    Shares(Vec<Arc<Share>>),
    /// Answer to a request.
    Replied {
        /// The request.
        request: RequestId,
        /// Shares, newest first; empty if the peer has none of them.
        shares: Result<Vec<Arc<Share>>, RequestFailed>,
    },
    /// Request for shares, to be answered with [`Order::Answer`].
    Asked {
        /// Identifier for the answer.
        id: [u8; 32],
        /// Wanted shares, at least one.
        hashes: Vec<ShareHash>,
        /// Number of ancestors of each, unlimited.
        parents: u64,
        /// Shares to stop before.
        stops: Vec<ShareHash>,
    },
    /// Nodes known to the peer.
    Addresses(Vec<AddressRecord>),
    /// Listening port of the peer.
    AdvertisesPort(u16),
    /// Request for this number of nodes.
    WantsAddresses(u32),
    /// Block header, unchecked: the swarm knows which ones are worth a proof of work.
    BestBlock([u8; 80]),
    /// The memory of all connections exceeds a limit, and this one takes part of it: the swarm closes the connection
    /// that takes most. Nothing more is read from this one until the event is handled.
    OverBudget,
    /// Transactions of the peer that were unknown to this node: to be announced to all peers by [`Order::Have`].
    TransactionsLearned(Vec<Digest>),
    /// End of a measurement: the quickest round trip, or `None` without any answer within
    /// [`MEASUREMENT_TIMEOUT`](super::MEASUREMENT_TIMEOUT).
    Latency(Option<Duration>),
}

/// Unsolicited shares for peers, newest first, split into messages by size. Clones share the messages, which are
/// encoded on first use: fifty peers need no fifty copies of a long share.
#[derive(Debug, Clone)]
pub struct Announcement(Arc<Announced>);

#[derive(Debug)]
struct Announced {
    shares: Box<[Arc<Share>]>,
    messages: Box<[AnnouncedMessage]>,
}

#[derive(Debug)]
struct AnnouncedMessage {
    shares: Range<usize>,
    frame: OnceLock<Bytes>,
}

impl Announcement {
    /// Number of messages: one if there are no shares.
    pub fn messages(&self) -> usize {
        self.0.messages.len()
    }

    /// Returns the shares of one message.
    pub(super) fn message(&self, index: usize) -> &[Arc<Share>] {
        &self.0.shares[self.0.messages[index].shares.clone()]
    }

    /// Returns the frame of one message on the network with this prefix, shared by all peers.
    pub(super) fn frame(&self, index: usize, prefix: [u8; 8]) -> Bytes {
        self.0.messages[index].frame.get_or_init(|| shares_frame(prefix, self.message(index))).clone()
    }
}

impl From<Vec<Arc<Share>>> for Announcement {
    fn from(shares: Vec<Arc<Share>>) -> Announcement {
        let mut messages = Vec::new();
        let mut at = 0;
        while at < shares.len() {
            let count = shares_that_fit(&shares[at..]);
            if count > 0 {
                messages.push(at..at + count);
            }
            // A share too long for any message is left out; only a miner of this node could have made it.
            at += count.max(1);
        }
        if messages.is_empty() {
            messages.push(0..0);
        }
        let message = |shares| AnnouncedMessage { shares, frame: OnceLock::new() };
        Announcement(Arc::new(Announced {
            shares: shares.into(),
            messages: messages.into_iter().map(message).collect(),
        }))
    }
}

impl FromIterator<Arc<Share>> for Announcement {
    fn from_iter<T: IntoIterator<Item = Arc<Share>>>(shares: T) -> Announcement {
        Vec::from_iter(shares).into()
    }
}

impl Deref for Announcement {
    type Target = [Arc<Share>];

    fn deref(&self) -> &[Arc<Share>] {
        &self.0.shares
    }
}

/// Order for a connection.
#[derive(Debug, Clone)]
pub enum Order {
    /// Keep the connection: from now on the peer is pinged and receives our address. Not earlier, because a reference
    /// that has another connection to us silently drops this one at our `version`, and bans us for any message that it
    /// reads right after.
    Keep,
    /// Measure the round trip, unless a measurement is running; ends with [`PeerEvent::Latency`].
    MeasureLatency,
    /// Send these shares, newest first, even if there are none. Those from before version 34 are sent with their
    /// transactions, or not at all if we lack these.
    Shares(Announcement),
    /// Request shares.
    Request {
        /// Identifier, returned with the answer.
        request: RequestId,
        /// Wanted shares, at least one.
        hashes: Vec<ShareHash>,
        /// Number of ancestors of each.
        parents: u64,
        /// Shares to stop before.
        stops: Vec<ShareHash>,
    },
    /// Answer [`PeerEvent::Asked`].
    Answer {
        /// Identifier of the request.
        id: [u8; 32],
        /// Shares, newest first.
        shares: Vec<Arc<Share>>,
    },
    /// Send nodes known to us.
    Addresses(Vec<AddressRecord>),
    /// Forward the advertisement of a node on the same host as the peer.
    AddressOfMe(u16),
    /// Ask for this number of nodes.
    GetAddresses(u32),
    /// Send our best block header.
    BestBlock([u8; 80]),
    /// Announce our current template's transactions: once after [`PeerEvent::Connected`], then whenever they change.
    Template(Arc<TemplateTransactions>),
    /// Announce transactions learned from other sources than a template.
    Have(Arc<[Digest]>),
    /// Announce transactions that we forgot.
    Losing(Arc<[Digest]>),
    /// Close the connection.
    Close(Close),
}
