//! The pool's network: peers and bans.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use stratum::Printable;
use utoipa::ToSchema;

use super::Sources;

/// Connected peers, and the state of the P2P network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Peers {
    /// Number of incoming connections.
    pub incoming: usize,
    /// Number of outgoing connections.
    pub outgoing: usize,
    /// Number of connections being dialled.
    pub dialing: usize,
    /// Number of known node addresses.
    pub known_addresses: usize,
    /// Progress of the share chain download; null while nothing is missing.
    pub download: Option<Download>,
    /// Connected peers, longest connected first.
    pub peers: Vec<Peer>,
}

/// Progress of the share chain download.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Download {
    /// Number of downloaded shares.
    pub have: u32,
    /// Estimated number of shares after the download.
    pub wanted: u32,
    /// Estimated seconds until the end of the download.
    pub seconds_left: Option<f64>,
}

/// One peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Id of the connection.
    pub id: u64,
    /// IP address and port.
    pub address: String,
    /// True if the peer opened the connection.
    pub is_incoming: bool,
    /// True if the operator configured a permanent connection.
    pub is_permanent: bool,
    /// Software that the peer claims to run.
    pub sub_version: String,
    /// Version of the P2P protocol.
    pub protocol_version: u32,
    /// Start of the connection.
    pub since: f64,
    /// Number of shares received from the peer.
    pub shares_received: u64,
    /// Number of shares sent to the peer.
    pub shares_sent: u64,
    /// Round-trip time in seconds, the fastest of three; measured on request, at most once in ten seconds. Null before
    /// the first measurement, and if the peer did not answer within three seconds.
    pub latency: Option<f64>,
}

/// Banned addresses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bans {
    /// Number of bans.
    pub total: usize,
    /// Bans, longest first.
    pub bans: Vec<Ban>,
}

/// One banned address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Ban {
    /// IP address; for IPv6 the first of its /64, all of which is banned.
    pub address: String,
    /// End of the ban.
    pub until: f64,
    /// Number of offences that still count.
    pub score: u32,
    /// Reason of the ban.
    pub reason: String,
    /// True if the operator set the ban.
    pub by_operator: bool,
}

/// Connected peers.
#[utoipa::path(get, path = "/api/v1/peers", tag = "network", responses((status = 200, description = "The peers", body = Peers)))]
pub(super) async fn peers(state: State<Sources>) -> Json<Peers> {
    if let Some(p2p) = &state.p2p {
        p2p.refresh_latencies();
    }
    let snapshot = super::snapshot(&state);
    Json(Peers::of(&snapshot.peers))
}

/// Banned addresses, with duration and reason.
#[utoipa::path(get, path = "/api/v1/bans", tag = "network", responses((status = 200, description = "The bans", body = Bans)))]
pub(super) async fn bans(state: State<Sources>) -> Json<Bans> {
    let snapshot = super::snapshot(&state);
    Json(Bans::of(&snapshot.peers.banned))
}

impl Peers {
    /// Returns the peers as of `status`.
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
            sub_version: Printable::new(&peer.sub_version).to_string(),
            protocol_version: peer.protocol_version,
            since: peer.since,
            shares_received: peer.shares_received,
            shares_sent: peer.shares_sent,
            latency: peer.latency,
        }
    }
}

impl Bans {
    /// Returns the first `LIMIT_MAX` of `bans`.
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
