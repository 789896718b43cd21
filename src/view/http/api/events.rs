//! What happens, as it happens: server-sent events.

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

/// Listeners at a time.
const LISTENERS_MAX: usize = 512;

/// How often a listener that nothing happens for hears that the node is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Places for listeners. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Listeners(Arc<AtomicUsize>);

/// One listener's place.
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

/// `share`, and `block` when it solves its block: a share was verified.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewShare {
    /// The share.
    hash: String,
    /// Its parent.
    parent: Option<String>,
    /// Its height above the chain's first share.
    height: u32,
    /// When it says that it was made.
    time: u32,
    /// Whom it pays.
    payee: String,
    /// Its difficulty.
    difficulty: f64,
    /// Whether this node's miners found it.
    is_own: bool,
    /// Whether it solves its block.
    is_block: bool,
}

/// `tip`: there is another share to build on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewTip {
    /// The share.
    hash: String,
    /// Its height above the chain's first share.
    height: u32,
}

/// `rates`: there are new figures; every other path's answer may have changed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewRates {
    /// When they were made.
    time: f64,
    /// Hashes per second of the pool.
    pool_hash_rate: Option<f64>,
    /// Hashes per second of this node's miners.
    local_hash_rate: f64,
    /// Workers with a submission in the last ten minutes.
    workers: usize,
    /// Shares from the best one down.
    shares: u32,
}

/// `peer`: a node came or went.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewPeers {
    /// Connections that others opened.
    incoming: usize,
    /// Connections that this node opened.
    outgoing: usize,
    /// Addresses that are kept away.
    banned: usize,
}

/// `missed`: the listener was too slow.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Missed {
    /// Events that it missed.
    count: u64,
}

/// What happens, as server-sent events: `share`, `tip`, `block`, `peer`, `rates`, and `missed` for a listener that was too
/// slow for all of them. Each one's data is JSON.
#[utoipa::path(get, path = "/api/v1/events", tag = "node",
    responses((status = 200, description = "Events for as long as the connection lasts", content((NewShare = "text/event-stream"), (NewTip = "text/event-stream"), (NewRates = "text/event-stream"), (NewPeers = "text/event-stream"), (Missed = "text/event-stream"))),
        (status = 503, description = "Too many listen", body = Problem)))]
pub(super) async fn events(State(sources): State<Sources>) -> Response {
    let Some(place) = sources.listeners.enter() else {
        let detail = format!("{LISTENERS_MAX} listen already: try again later");
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

/// One who listens. Nobody waits for it.
#[derive(Debug)]
struct Listener {
    chain: broadcast::Receiver<ChainEvent>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    /// What it was told last of peers: incoming, outgoing, banned.
    peers: Option<(usize, usize, usize)>,
    /// To be told next, last first.
    next: Vec<Event>,
    stop: CancellationToken,
    _place: ListenerSlot,
}

impl Listener {
    /// What happens next; none when the node stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.next.pop() {
                return Some(event);
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                event = self.chain.recv() => match event {
                    Ok(event) => self.note(&event),
                    Err(RecvError::Lagged(count)) => self.tell("missed", &Missed { count }),
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

    fn tell(&mut self, kind: &str, data: &impl Serialize) {
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
                self.tell("share", &data);
                if data.is_block {
                    self.tell("block", &data);
                }
            }
            ChainEvent::TipChanged { newest_first, .. } => {
                if let Some(tip) = newest_first.first() {
                    self.tell("tip", &NewTip { hash: tip.hash().to_string(), height: tip.absheight() });
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
            self.tell("peer", &NewPeers { incoming, outgoing, banned });
        }
        self.tell(
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
