//! One connection to a peer as a state machine without I/O: handshake, keep-alive, requests, forwarding of transactions,
//! and every limit that a stranger is held to.
//!
//! ```text
//!  bytes ──frame──▶ message ──▶ Peer ──▶ PeerEvent
//!  frame ◀──────── message ◀──┘   ▲───── Order
//! ```

mod close;
mod limits;

use bytes::Bytes;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame::{Budget, Frames};
use super::message::{AddressRecord, ReplyResult};
use super::transactions::{TemplateTransactions, Transaction, Transactions};
use crate::merkle::Digest;
use crate::share::{Share, ShareHash, ShareRules};

pub use close::{Close, Offence};

/// The protocol version that we speak.
pub const PROTOCOL_VERSION: u32 = 3501;

/// What this node says about itself on one connection, as it was when the connection began.
#[derive(Debug, Clone)]
pub struct Local {
    /// Begins every frame of the network.
    pub prefix: [u8; 8],
    /// The protocol version to announce: [`PROTOCOL_VERSION`].
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
    /// The handshake is through. The swarm closes the connection if it has this nonce already, and else orders: a request
    /// for the peer's best share if that is unknown, then the current template ([`Order::Template`], an empty one if there
    /// is none), in this order as the reference sends.
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
}

/// What is to be sent to a peer.
#[derive(Debug, Clone)]
pub enum Order {
    /// These shares, newest first, also if there are none. Those from before version 34 go with their transactions, or
    /// not at all if we do not have these.
    Shares(Arc<[Arc<Share>]>),
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

/// One connection.
#[derive(Debug)]
pub struct Peer {
    local: Local,
    rules: Arc<ShareRules>,
    remote: SocketAddr,
    direction: Direction,
    random: fastrand::Rng,
    frames: Frames,
    output: VecDeque<Bytes>,
    events: VecDeque<PeerEvent>,
}

impl Peer {
    /// A connection between `remote` and our `local_address` that has just been made; `version` is queued at once. `seed`
    /// is a random number, and `unix` the time in seconds since 1970.
    #[allow(clippy::too_many_arguments, reason = "all of it is known when a connection is made, and nothing else is")]
    pub fn new(
        local: Local,
        rules: Arc<ShareRules>,
        remote: SocketAddr,
        local_address: SocketAddr,
        direction: Direction,
        seed: u64,
        now: Instant,
        unix: u64,
    ) -> Peer {
        let _ = (local_address, now, unix);
        let frames = Frames::new(local.prefix, Arc::clone(&local.budget));
        Peer {
            local,
            rules,
            remote,
            direction,
            random: fastrand::Rng::with_seed(seed),
            frames,
            output: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The peer's address.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Who opened the connection.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Takes bytes that came.
    ///
    /// # Errors
    /// [`Close`]: the connection is to be closed, after the frames and events that are queued.
    pub fn handle_bytes(&mut self, bytes: &[u8], known: &Transactions, now: Instant) -> Result<(), Close> {
        let _ = (bytes, known, now);
        Ok(())
    }

    /// Does what is due at `now`, which is `unix` seconds after 1970.
    ///
    /// # Errors
    /// [`Close`].
    pub fn handle_timeout(&mut self, now: Instant, unix: u64) -> Result<(), Close> {
        let _ = (now, unix);
        Ok(())
    }

    /// When [`Peer::handle_timeout`] is next due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Bytes to send, if there are any.
    pub fn poll_frame(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    /// News, if there is any.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// Does what the swarm wants. Orders before the handshake is through are ignored, but for [`Order::Close`].
    ///
    /// # Errors
    /// [`Close`]: the order said so, or the peer reads too slowly.
    pub fn handle_order(&mut self, order: Order, known: &Transactions, now: Instant) -> Result<(), Close> {
        let _ = (known, now);
        match order {
            Order::Close(close) => Err(close),
            _ => Ok(()),
        }
    }
}
