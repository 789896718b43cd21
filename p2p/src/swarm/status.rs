//! Status of the swarm for pages, the console and the work gate.

use std::net::SocketAddr;

use serde::Serialize;

use super::{Connection, Now, PeerId, Swarm};
use crate::bans::Ban;
use crate::download::Progress;
use crate::peer::Direction;

/// Snapshot of the swarm.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    /// Peers with a complete handshake, the oldest first.
    pub peers: Vec<PeerStatus>,
    /// Bans in force, the longest first.
    pub banned: Vec<Ban>,
    /// Progress of the share chain's download; `None` while nothing is missing.
    pub downloading: Option<Progress>,
    /// Connections opened by peers, including those in their handshake.
    pub incoming: usize,
    /// Connections opened by this node, including those in their handshake.
    pub outgoing: usize,
    /// Connections being established.
    pub dialing: usize,
    /// Number of addresses in the book.
    pub addresses: usize,
    /// True while latencies are being measured.
    pub is_measuring: bool,
}

/// Status of one peer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerStatus {
    /// Identifier of the connection.
    pub id: PeerId,
    /// Address of the peer.
    pub address: SocketAddr,
    /// True if the peer opened the connection.
    pub is_incoming: bool,
    /// True if the operator always wants it connected.
    pub is_permanent: bool,
    /// Name of its software, as claimed.
    pub sub_version: String,
    /// Protocol version of the peer.
    pub protocol_version: u32,
    /// Start of the connection, seconds since 1970.
    pub since: f64,
    /// Shares received from it, including duplicates.
    pub shares_received: u64,
    /// Shares sent to it.
    pub shares_sent: u64,
    /// Quickest round trip of the last measurement, in seconds; `None` before the first and if the peer did not answer.
    pub latency: Option<f64>,
}

impl Swarm {
    /// Returns the current status.
    pub fn status(&self, now: Now) -> Status {
        let incoming = self.connections.values().filter(|connection| connection.dialed.is_none()).count();
        Status {
            peers: self.up().filter_map(|(peer, connection)| self.peer_status(peer, connection)).collect(),
            banned: self.bans.list(now.unix),
            downloading: self.download.progress(now.instant),
            incoming,
            outgoing: self.connections.len() - incoming,
            dialing: self.dialer.dialing(),
            addresses: self.book.len(),
            is_measuring: self.is_measuring(),
        }
    }

    fn peer_status(&self, id: PeerId, connection: &Connection) -> Option<PeerStatus> {
        let hello = connection.hello.as_ref()?;
        Some(PeerStatus {
            id,
            address: connection.address,
            is_incoming: Swarm::direction(connection) == Direction::Inbound,
            is_permanent: connection.dialed == Some(super::DialKind::Permanent),
            sub_version: hello.sub_version.clone(),
            protocol_version: hello.version,
            since: connection.since,
            shares_received: connection.shares_received,
            shares_sent: connection.shares_sent,
            latency: connection.latency.seconds(),
        })
    }
}
