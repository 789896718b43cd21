//! The pool's network: peers, and who is kept away.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Sources;

/// Other nodes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Peers {
    /// Connections that others opened.
    incoming: usize,
    /// Connections that this node opened.
    outgoing: usize,
    /// Connections that are being made.
    dialing: usize,
    /// Addresses of nodes that are known.
    known_addresses: usize,
    /// How far the download of the share chain is; null while nothing is missing.
    download: Option<Download>,
    /// Nodes that shares are exchanged with, those connected longest first.
    peers: Vec<Peer>,
}

/// How far the download of the share chain is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Download {
    /// Shares that are here.
    have: u32,
    /// Shares that there will be, as far as can be told.
    wanted: u32,
    /// Seconds that the rest will take.
    seconds_left: Option<f64>,
}

/// One node.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Peer {
    /// Names the connection.
    id: u64,
    /// Where it is.
    address: String,
    /// Whether it opened the connection.
    is_incoming: bool,
    /// Whether the operator wants it to be connected always.
    is_permanent: bool,
    /// Its software, as it says.
    sub_version: String,
    /// Its protocol version.
    protocol_version: u32,
    /// Since when it is connected.
    since: f64,
    /// Shares that it sent.
    shares_received: u64,
    /// Shares that it was sent.
    shares_sent: u64,
    /// Seconds of the round trip, the quickest of three; measured when somebody asks for it, at most once in ten seconds. Null
    /// before the first measurement and if the peer did not answer within three seconds.
    latency: Option<f64>,
}

/// Who is kept away.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Bans {
    /// How many there are.
    total: usize,
    /// The longest first.
    bans: Vec<Ban>,
}

/// One address that is kept away.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ban {
    /// The address; for IPv6 the first of its /64, all of which is banned.
    address: String,
    /// Until when.
    until: f64,
    /// Offences that are not forgiven yet.
    score: u32,
    /// Why.
    reason: String,
    /// Whether the operator asked for it.
    by_operator: bool,
}

/// Nodes that shares are exchanged with.
#[utoipa::path(get, path = "/api/v1/peers", tag = "network", responses((status = 200, description = "The peers", body = Peers)))]
pub(super) async fn peers(state: State<Sources>) -> Json<Peers> {
    if let Some(p2p) = &state.p2p {
        p2p.refresh_latencies();
    }
    let snapshot = super::snapshot(&state);
    let status = &snapshot.peers;
    Json(Peers {
        incoming: status.incoming,
        outgoing: status.outgoing,
        dialing: status.dialing,
        known_addresses: status.addresses,
        download: status.downloading.as_ref().map(|progress| Download {
            have: progress.have,
            wanted: progress.wanted_estimate,
            seconds_left: progress.seconds_left,
        }),
        peers: status
            .peers
            .iter()
            .map(|peer| Peer {
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
            })
            .collect(),
    })
}

/// Who is kept away, for how long and why.
#[utoipa::path(get, path = "/api/v1/bans", tag = "network", responses((status = 200, description = "The bans", body = Bans)))]
pub(super) async fn bans(state: State<Sources>) -> Json<Bans> {
    let snapshot = super::snapshot(&state);
    let banned = &snapshot.peers.banned;
    Json(Bans {
        total: banned.len(),
        bans: banned
            .iter()
            .take(super::LIMIT_MAX)
            .map(|ban| Ban {
                address: ban.address.to_string(),
                until: ban.until,
                score: ban.score,
                reason: ban.reason.clone(),
                by_operator: ban.by_operator,
            })
            .collect(),
    })
}
