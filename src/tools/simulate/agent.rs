//! Agents of the simulated network.

use std::net::SocketAddr;
use std::time::Instant;

use super::exchange::{Command, Moment, Opened, Socket};
use super::node::Node;

/// Participant of the network. The node inside it does whatever the agent does not override.
pub(super) trait Agent {
    /// The node that it is or contains.
    fn node(&self) -> &Node;

    /// Mutable access to the node, for interference.
    fn node_mut(&mut self) -> &mut Node;

    /// Returns true to accept a connection from `from`; [`connected`](Self::connected) follows.
    fn accepts(&mut self, from: SocketAddr, at: Moment) -> bool {
        self.node_mut().accepts(from, at)
    }

    /// A connection was made.
    fn connected(&mut self, opened: Opened, at: Moment) {
        self.node_mut().connected(opened, at);
    }

    /// A dial failed.
    fn unreachable(&mut self, address: SocketAddr, at: Moment) {
        self.node_mut().unreachable(address, at);
    }

    /// Bytes arrived.
    fn received(&mut self, socket: Socket, bytes: &[u8], at: Moment) {
        self.node_mut().received(socket, bytes, at);
    }

    /// The other end closed the connection.
    fn closed(&mut self, socket: Socket, at: Moment) {
        self.node_mut().closed(socket, at);
    }

    /// The requested timeout is due.
    fn timeout(&mut self, at: Moment) {
        self.node_mut().timeout(at);
    }

    /// Time at which [`timeout`](Self::timeout) is requested.
    fn poll_timeout(&self) -> Option<Instant> {
        self.node().poll_timeout()
    }

    /// Next command to the world.
    fn poll_command(&mut self) -> Option<Command> {
        self.node_mut().poll_command()
    }

    /// The agent finds a share; `nonce` makes it unique.
    fn find(&mut self, nonce: u32, at: Moment) {
        self.node_mut().find(nonce, at);
    }

    /// Number of bad shares sent, counted once per peer.
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
