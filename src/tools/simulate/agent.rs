//! Who takes part in the simulated network.

use std::net::SocketAddr;
use std::time::Instant;

use super::exchange::{Command, Moment, Opened, Socket};
use super::node::Node;

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

impl Agent for Node {
    fn node(&self) -> &Node {
        self
    }

    fn node_mut(&mut self) -> &mut Node {
        self
    }
}
