//! The pool's network: peers, and who is kept away.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Sources;

/// Other nodes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Peers {
    /// Connections that others opened.
    pub incoming: usize,
    /// Connections that this node opened.
    pub outgoing: usize,
    /// Connections that are being made.
    pub dialing: usize,
    /// Addresses of nodes that are known.
    pub known_addresses: usize,
    /// How far the download of the share chain is; null while nothing is missing.
    pub download: Option<Download>,
    /// Nodes that shares are exchanged with, those connected longest first.
    pub peers: Vec<Peer>,
}

/// How far the download of the share chain is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Download {
    /// Shares that are here.
    pub have: u32,
    /// Shares that there will be, as far as can be told.
    pub wanted: u32,
    /// Seconds that the rest will take.
    pub seconds_left: Option<f64>,
}

/// One node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Names the connection.
    pub id: u64,
    /// Where it is.
    pub address: String,
    /// Whether it opened the connection.
    pub is_incoming: bool,
    /// Whether the operator wants it to be connected always.
    pub is_permanent: bool,
    /// Its software, as it says.
    pub sub_version: String,
    /// Its protocol version.
    pub protocol_version: u32,
    /// Since when it is connected.
    pub since: f64,
    /// Shares that it sent.
    pub shares_received: u64,
    /// Shares that it was sent.
    pub shares_sent: u64,
    /// Seconds of the round trip, the quickest of three; measured when somebody asks for it, at most once in ten seconds. Null
    /// before the first measurement and if the peer did not answer within three seconds.
    pub latency: Option<f64>,
}

/// Who is kept away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bans {
    /// How many there are.
    pub total: usize,
    /// The longest first.
    pub bans: Vec<Ban>,
}

/// One address that is kept away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Ban {
    /// The address; for IPv6 the first of its /64, all of which is banned.
    pub address: String,
    /// Until when.
    pub until: f64,
    /// Offences that are not forgiven yet.
    pub score: u32,
    /// Why.
    pub reason: String,
    /// Whether the operator asked for it.
    pub by_operator: bool,
}

/// Nodes that shares are exchanged with.
#[utoipa::path(get, path = "/api/v1/peers", tag = "network", responses((status = 200, description = "The peers", body = Peers)))]
pub(super) async fn peers(state: State<Sources>) -> Json<Peers> {
    if let Some(p2p) = &state.p2p {
        p2p.refresh_latencies();
    }
    let snapshot = super::snapshot(&state);
    Json(Peers::of(&snapshot.peers))
}

/// Who is kept away, for how long and why.
#[utoipa::path(get, path = "/api/v1/bans", tag = "network", responses((status = 200, description = "The bans", body = Bans)))]
pub(super) async fn bans(state: State<Sources>) -> Json<Bans> {
    let snapshot = super::snapshot(&state);
    Json(Bans::of(&snapshot.peers.banned))
}

impl Peers {
    /// As of `status`.
    pub(in crate::view) fn of(status: &p2p::Status) -> Self {
        Self {
            incoming: status.incoming,
            outgoing: status.outgoing,
            dialing: status.dialing,
            known_addresses: status.addresses,
            download: status.downloading.as_ref().map(|progress| Download {
                have: progress.have,
                wanted: progress.wanted_estimate,
                seconds_left: progress.seconds_left,
            }),
            peers: status.peers.iter().map(Peer::from).collect(),
        }
    }
}

impl From<&p2p::PeerStatus> for Peer {
    fn from(peer: &p2p::PeerStatus) -> Self {
        Self {
            id: peer.id.0,
            address: peer.address.to_string(),
            is_incoming: peer.is_incoming,
            is_permanent: peer.is_permanent,
            sub_version: peer.sub_version.clone(),
            protocol_version: peer.protocol_version,
            since: peer.since,
            shares_received: peer.shares_received,
            shares_sent: peer.shares_sent,
            latency: peer.latency,
        }
    }
}

impl Bans {
    /// The first of `bans`, as many as a list may have.
    pub(in crate::view) fn of(bans: &[p2p::bans::Ban]) -> Self {
        Self { total: bans.len(), bans: bans.iter().take(super::LIMIT_MAX).map(Ban::from).collect() }
    }
}

impl From<&p2p::bans::Ban> for Ban {
    fn from(ban: &p2p::bans::Ban) -> Self {
        Self {
            address: ban.address.to_string(),
            until: ban.until,
            score: ban.score,
            reason: ban.reason.clone(),
            by_operator: ban.by_operator,
        }
    }
}
