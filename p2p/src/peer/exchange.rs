//! What goes into a connection and comes out of it: what we say about ourselves, events, orders.

use bytes::Bytes;
use sharechain::merkle::Digest;
use sharechain::share::{Share, ShareHash};
use std::net::SocketAddr;
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Close;
use crate::frame::Budget;
use crate::message::{AddressRecord, ReplyResult, shares_frame, shares_that_fit};
use crate::transactions::TemplateTransactions;

/// What this node says about itself on one connection, as it was when the connection began.
#[derive(Debug, Clone)]
pub struct Local {
    /// Begins every frame of the network.
    pub prefix: [u8; 8],
    /// The protocol version to announce: [`PROTOCOL_VERSION`](super::PROTOCOL_VERSION).
    pub protocol_version: u32,
    /// The name of this software.
    pub sub_version: String,
    /// A random number, the same on all connections of this process.
    pub nonce: u64,
    /// Our best share.
    pub best_share: Option<ShareHash>,
    /// Its version. Whether transactions are forwarded on this connection follows from it (section 18.1).
    pub best_version: Option<u64>,
    /// The lowest protocol version that a peer may speak.
    pub minimum_protocol: u32,
    /// What to have others told about us.
    pub advertise: Advertise,
    /// What all connections together may hold of unfinished messages.
    pub budget: Arc<Budget>,
}

/// What to have others told about us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advertise {
    /// Nothing.
    Nothing,
    /// That we listen at the address that peers see, on this port.
    Port(u16),
    /// That we listen here.
    External(SocketAddr),
}

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The peer.
    Inbound,
    /// We.
    Outbound,
}

/// Names a request for shares; the swarm's to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What a peer said about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Protocol version.
    pub version: u32,
    /// Opaque.
    pub services: u64,
    /// The same on all of its connections: two with one nonce are one node.
    pub nonce: u64,
    /// Its software, at most 512 bytes, fit to be shown.
    pub sub_version: String,
    /// Its best share.
    pub best_share: Option<ShareHash>,
}

/// Why a request for shares has no shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestFailed {
    /// The peer said so.
    #[error("the peer answered a request for shares with {0:?}")]
    Refused(ReplyResult),
}

/// What a peer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// The handshake is through. The swarm closes the connection if it has this nonce already, and else orders
    /// [`Order::Keep`], then a request for the peer's best share if that is unknown, then the current template
    /// ([`Order::Template`], an empty one if there is none), in this order as the reference sends.
    Connected(Hello),
    /// Shares that nobody asked for, newest first, each good as far as it can be told without its ancestors. May be none.
    Shares(Vec<Arc<Share>>),
    /// The answer to a request.
    Replied {
        /// Whose.
        request: RequestId,
        /// The shares, newest first; none if the peer has none of them.
        shares: Result<Vec<Arc<Share>>, RequestFailed>,
    },
    /// A request for shares, to be answered with [`Order::Answer`].
    Asked {
        /// To go into the answer.
        id: [u8; 32],
        /// At least one.
        hashes: Vec<ShareHash>,
        /// Any number.
        parents: u64,
        /// Where to stop.
        stops: Vec<ShareHash>,
    },
    /// Nodes that the peer knows.
    Addresses(Vec<AddressRecord>),
    /// The peer listens on this port.
    AdvertisesPort(u16),
    /// The peer wants to know nodes.
    WantsAddresses(u32),
    /// A block header whose proof of work meets its own bits.
    BestBlock([u8; 80]),
    /// The peer's transactions that this node did not know: to be told to all peers by [`Order::Have`].
    TransactionsLearned(Vec<Digest>),
    /// The end of a measurement: the quickest round trip, or none if nothing was answered within
    /// [`MEASUREMENT_TIMEOUT`](super::MEASUREMENT_TIMEOUT).
    Latency(Option<Duration>),
}

/// Shares that peers are sent unasked, newest first, in as many messages as their bytes take. Clones share the messages,
/// which are written when the first peer's turn comes: fifty peers need no fifty copies of a long share.
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
    /// How many messages it takes: one if there are no shares.
    pub fn messages(&self) -> usize {
        self.0.messages.len()
    }

    /// The shares of one message.
    pub(super) fn message(&self, index: usize) -> &[Arc<Share>] {
        &self.0.shares[self.0.messages[index].shares.clone()]
    }

    /// The frame of one message on the network with this prefix, which is the same for all peers.
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
            // One that no message takes is left out; only a miner of this node's own could have made it.
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

/// What is to be sent to a peer.
#[derive(Debug, Clone)]
pub enum Order {
    /// The connection is wanted: from now on the peer is pinged and told where we are. Not before, because a reference that
    /// knows us by another connection drops this one without a word at our `version`, and bans us for whatever it reads in
    /// the same breath.
    Keep,
    /// A measurement of the round trip, unless one is under way; [`PeerEvent::Latency`] when it has ended.
    MeasureLatency,
    /// These shares, newest first, also if there are none. Those from before version 34 go with their transactions, or
    /// not at all if we do not have these.
    Shares(Announcement),
    /// A request for shares.
    Request {
        /// Comes back with the answer.
        request: RequestId,
        /// At least one.
        hashes: Vec<ShareHash>,
        /// How many ancestors of each.
        parents: u64,
        /// Where to stop.
        stops: Vec<ShareHash>,
    },
    /// The answer to [`PeerEvent::Asked`].
    Answer {
        /// That of the question.
        id: [u8; 32],
        /// Newest first.
        shares: Vec<Arc<Share>>,
    },
    /// Nodes that we know.
    Addresses(Vec<AddressRecord>),
    /// The advertisement of a node that connects from the same host as the peer does.
    AddressOfMe(u16),
    /// A question for so many nodes.
    GetAddresses(u32),
    /// Our best block header.
    BestBlock([u8; 80]),
    /// Our current template's transactions, once after [`PeerEvent::Connected`] and then whenever they change.
    Template(Arc<TemplateTransactions>),
    /// Transactions that we learned otherwise than by a template.
    Have(Arc<[Digest]>),
    /// Transactions that we forgot.
    Losing(Arc<[Digest]>),
    /// The end of the connection.
    Close(Close),
}
