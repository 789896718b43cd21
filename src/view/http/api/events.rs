//! Server-sent events.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{Problem, Sources};
use crate::chain::ChainEvent;
use crate::view::snapshot::Snapshot;
use crate::view::snapshot::difficulty::bdiff;

/// Maximum number of subscribers.
const LISTENERS_MAX: usize = 512;

/// Interval of keep-alives on an idle stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Slots for subscribers. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Listeners(Arc<AtomicUsize>);

/// Slot of one subscriber, freed when dropped.
#[derive(Debug)]
struct ListenerSlot(Arc<AtomicUsize>);

impl Listeners {
    fn enter(&self) -> Option<ListenerSlot> {
        let entered = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < LISTENERS_MAX).then_some(count + 1));
        entered.is_ok().then(|| ListenerSlot(self.0.clone()))
    }
}

impl Drop for ListenerSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `share`: a share was verified; also sent as `block` if it solves its block.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewShare {
    /// Hash of the share.
    hash: String,
    /// Hash of its parent.
    parent: Option<String>,
    /// Height above the chain's first share.
    height: u32,
    /// Timestamp of the share.
    time: u32,
    /// Address that the share pays.
    payee: String,
    /// Difficulty of the share.
    difficulty: f64,
    /// True if a miner of this node found it.
    is_own: bool,
    /// True if it solves its block.
    is_block: bool,
}

/// `tip`: the best share changed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewTip {
    /// Hash of the best share.
    hash: String,
    /// Height above the chain's first share.
    height: u32,
}

/// `rates`: a new snapshot; every other path's answer may have changed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewRates {
    /// Time of the snapshot.
    time: f64,
    /// Hash rate of the pool.
    pool_hash_rate: Option<f64>,
    /// Hash rate of this node's miners.
    local_hash_rate: f64,
    /// Workers with a submission in the last ten minutes.
    workers: usize,
    /// Number of shares in the best chain.
    shares: u32,
}

/// `peer`: a peer connected or disconnected, or the number of bans changed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewPeers {
    /// Number of incoming connections.
    incoming: usize,
    /// Number of outgoing connections.
    outgoing: usize,
    /// Number of banned addresses.
    banned: usize,
}

/// `missed`: the subscriber was too slow.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Missed {
    /// Number of missed events.
    count: u64,
}

/// Server-sent events: `share`, `tip`, `block`, `peer`, `rates`, and `missed` for a subscriber that was too slow. The
/// data of each is JSON.
#[utoipa::path(get, path = "/api/v1/events", tag = "node",
    responses((status = 200, description = "Events for as long as the connection lasts", content((NewShare = "text/event-stream"), (NewTip = "text/event-stream"), (NewRates = "text/event-stream"), (NewPeers = "text/event-stream"), (Missed = "text/event-stream"))),
        (status = 503, description = "Too many subscribers", body = Problem)))]
pub(super) async fn events(State(sources): State<Sources>) -> Response {
    let Some(place) = sources.listeners.enter() else {
        let detail = format!("limit of {LISTENERS_MAX} subscribers reached: try again later");
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    };
    let mut snapshot = sources.snapshot.clone();
    snapshot.mark_changed();
    let listener = Listener {
        chain: sources.chain.events.subscribe(),
        snapshot,
        peers: None,
        next: Vec::new(),
        stop: sources.stop.clone(),
        _place: place,
    };
    let happening = stream::unfold(listener, |mut listener| async {
        let event = listener.next().await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    Sse::new(happening).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// A subscriber. A slow one misses events.
#[derive(Debug)]
struct Listener {
    chain: broadcast::Receiver<ChainEvent>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Latest numbers of peers sent: incoming, outgoing, banned.
    peers: Option<(usize, usize, usize)>,
    /// Events to send, newest first.
    next: Vec<Event>,
    stop: CancellationToken,
    _place: ListenerSlot,
}

impl Listener {
    /// Returns the next event; `None` when the node stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.next.pop() {
                return Some(event);
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                event = self.chain.recv() => match event {
                    Ok(event) => self.note(&event),
                    Err(RecvError::Lagged(count)) => self.send("missed", &Missed { count }),
                    Err(RecvError::Closed) => return None,
                },
                changed = self.snapshot.changed() => {
                    changed.ok()?;
                    let snapshot = self.snapshot.borrow_and_update().clone();
                    self.note_figures(&snapshot);
                }
            }
        }
    }

    fn send(&mut self, kind: &str, data: &impl Serialize) {
        if let Ok(event) = Event::default().event(kind).json_data(data) {
            self.next.insert(0, event);
        }
    }

    fn note(&mut self, event: &ChainEvent) {
        match event {
            ChainEvent::Accepted { share, is_own } => {
                let data = NewShare {
                    hash: share.hash().to_string(),
                    parent: share.previous().map(|parent| parent.to_string()),
                    height: share.absheight(),
                    time: share.timestamp(),
                    payee: share.payee().as_str().to_owned(),
                    difficulty: bdiff(share.target()),
                    is_own: *is_own,
                    is_block: share.is_block(),
                };
                self.send("share", &data);
                if data.is_block {
                    self.send("block", &data);
                }
            }
            ChainEvent::TipChanged { newest_first, .. } => {
                if let Some(tip) = newest_first.first() {
                    self.send("tip", &NewTip { hash: tip.hash().to_string(), height: tip.absheight() });
                }
            }
            ChainEvent::Refused { .. } | ChainEvent::Block { .. } | ChainEvent::Late(_) => {}
        }
    }

    fn note_figures(&mut self, snapshot: &Snapshot) {
        let status = &snapshot.peers;
        let peers = (status.incoming, status.outgoing, status.banned.len());
        if self.peers.replace(peers).is_some_and(|before| before != peers) {
            let (incoming, outgoing, banned) = peers;
            self.send("peer", &NewPeers { incoming, outgoing, banned });
        }
        self.send(
            "rates",
            &NewRates {
                time: snapshot.time,
                pool_hash_rate: snapshot.pool.as_ref().map(|pool| pool.hour.hash_rate),
                local_hash_rate: snapshot.local.hash_rate,
                workers: snapshot.rates.active_workers,
                shares: snapshot.chain.height,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_for_listeners_are_bounded_and_come_back() {
        let listeners = Listeners::default();
        let mut places: Vec<ListenerSlot> = (0..LISTENERS_MAX).map(|_| listeners.enter().unwrap()).collect();
        assert!(listeners.enter().is_none());
        places.pop();
        assert!(listeners.enter().is_some());
    }
}
