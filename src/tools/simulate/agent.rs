//! Who takes part in the simulated network, and what the world and they say to each other.

use p2p::swarm::Now;
use sharechain::share::ShareHash;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::node::Node;

/// A moment of the simulation, as sans-IO parts want it told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Since the simulation began.
    pub(super) elapsed: Duration,
    /// The same, as durations are measured.
    pub(super) now: Instant,
    /// The same, in seconds since 1970.
    pub(super) unix: f64,
}

impl Moment {
    /// The same as swarms want it.
    pub(super) fn for_swarm(self) -> Now {
        Now { instant: self.now, unix: self.unix }
    }

    /// Whole seconds since 1970.
    pub(super) fn whole_unix(self) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time since 1970")]
        let seconds = self.unix as u64;
        seconds
    }
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Socket(pub(super) u32);

impl Socket {
    pub(super) fn connection(self) -> usize {
        (self.0 / 2) as usize
    }

    pub(super) fn end(self) -> usize {
        (self.0 % 2) as usize
    }

    pub(super) fn other(self) -> Socket {
        Socket(self.0 ^ 1)
    }
}

/// A new connection, as one end sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    /// The agent's own end.
    pub(super) socket: Socket,
    /// Who is at the other.
    pub(super) remote: SocketAddr,
    /// How the other end sees this one.
    pub(super) local: SocketAddr,
    /// Whether the agent dialled.
    pub(super) is_outbound: bool,
}

/// What an agent wants done.
#[derive(Debug, Clone)]
pub(super) enum Command {
    /// Connect to `to`, from the address `from`.
    Dial {
        /// One of the agent's addresses; the port is chosen for it.
        from: SocketAddr,
        /// Whose listening address it should be.
        to: SocketAddr,
    },
    /// Write to a stream.
    Send(Socket, Bytes),
    /// Close a stream.
    Close(Socket),
    /// Nothing to be done: this share entered the agent's chain.
    Accepted(ShareHash),
    /// Nothing to be done: the agent found this share.
    Found(ShareHash),
}

/// Whoever takes part. What an agent does not do in its own way, the node inside it does.
pub(super) trait Agent {
    /// The node that it is or has inside.
    fn node(&self) -> &Node;

    /// The same, to be meddled with.
    fn node_mut(&mut self) -> &mut Node;

    /// Whether a connection from `from` is let in; it is there next.
    fn accepts(&mut self, from: SocketAddr, at: Moment) -> bool {
        self.node_mut().accepts(from, at)
    }

    /// A connection is there.
    fn connected(&mut self, opened: Opened, at: Moment) {
        self.node_mut().connected(opened, at);
    }

    /// A dial came to nothing.
    fn unreachable(&mut self, address: SocketAddr, at: Moment) {
        self.node_mut().unreachable(address, at);
    }

    /// Bytes came.
    fn received(&mut self, socket: Socket, bytes: &[u8], at: Moment) {
        self.node_mut().received(socket, bytes, at);
    }

    /// The other end closed.
    fn closed(&mut self, socket: Socket, at: Moment) {
        self.node_mut().closed(socket, at);
    }

    /// It was asked for.
    fn timeout(&mut self, at: Moment) {
        self.node_mut().timeout(at);
    }

    /// When [`timeout`](Self::timeout) is wanted.
    fn poll_timeout(&self) -> Option<Instant> {
        self.node().poll_timeout()
    }

    /// What is to be done.
    fn poll_command(&mut self) -> Option<Command> {
        self.node_mut().poll_command()
    }

    /// Luck struck: a share is found, told apart from all others by `nonce`.
    fn find(&mut self, nonce: u32, at: Moment) {
        self.node_mut().find(nonce, at);
    }

    /// Bad shares that it sent, counted for each peer.
    fn bad_shares_sent(&self) -> u64 {
        0
    }
}
