//! What pages, the console and the work gate show of the swarm.

use std::net::SocketAddr;

use serde::Serialize;

use super::{Connection, Now, PeerId, Swarm};
use crate::bans::Ban;
use crate::download::Progress;
use crate::peer::Direction;

/// The swarm at one time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    /// Peers that are through their handshake, the oldest first.
    pub peers: Vec<PeerStatus>,
    /// Who is banned, the longest first.
    pub banned: Vec<Ban>,
    /// How far the download of the share chain is; none while nothing is missing.
    pub downloading: Option<Progress>,
    /// Connections that peers opened, those in their handshake included.
    pub incoming: usize,
    /// Connections that we opened, those in their handshake included.
    pub outgoing: usize,
    /// Connections that are being made.
    pub dialing: usize,
    /// Addresses in the book.
    pub addresses: usize,
    /// Whether latencies of peers are being measured.
    pub is_measuring: bool,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerStatus {
    /// Names the connection.
    pub id: PeerId,
    /// Its address.
    pub address: SocketAddr,
    /// Whether it opened the connection.
    pub is_incoming: bool,
    /// Whether the operator named it as one to be connected always.
    pub is_permanent: bool,
    /// Its software, as it says.
    pub sub_version: String,
    /// Its protocol version.
    pub protocol_version: u32,
    /// Since when it is connected, seconds since 1970.
    pub since: f64,
    /// Shares that it sent, duplicates too.
    pub shares_received: u64,
    /// Shares that it was sent.
    pub shares_sent: u64,
    /// Seconds of the round trip, the quickest of the last measurement; none before the first and if the peer did not answer.
    pub latency: Option<f64>,
}

impl Swarm {
    /// How things stand.
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
