//! Server-sent events.

mod newest;

use axum::extract::{Extension, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{MergedBlock, Sources};
use crate::chain::ChainEvent;
use crate::view::http::Client;
use crate::view::http::connection::Hangup;
use crate::view::http::slots::{Slot, Slots};
use crate::view::snapshot::Snapshot;
use crate::view::snapshot::difficulty::bdiff;
use newest::NewestMerged;

/// Maximum number of subscribers.
const LISTENERS_MAX: usize = 512;

/// Interval of keep-alives on an idle stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Slots for subscribers. Clones share them.
#[derive(Debug, Clone)]
pub struct Listeners(Slots);

impl Default for Listeners {
    fn default() -> Self {
        Self(Slots::new(LISTENERS_MAX))
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
    /// Difficulty of the share, in the unit of the coin's miners.
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

/// Server-sent events: `share`, `tip`, `block`, `merged_block`, `peer`, `rates`, and `missed` for a subscriber that was
/// too slow. The data of each is JSON. While there are too many subscribers, a new one ends the oldest stream of the
/// network that has most.
#[utoipa::path(get, path = "/api/v1/events", tag = "node",
    responses((status = 200, description = "Events for as long as the connection lasts", content((NewShare = "text/event-stream"), (NewTip = "text/event-stream"), (NewRates = "text/event-stream"), (NewPeers = "text/event-stream"), (MergedBlock = "text/event-stream"), (Missed = "text/event-stream")))))]
pub(super) async fn events(
    State(sources): State<Sources>,
    Extension(client): Extension<Client>,
    Extension(Hangup(hangup)): Extension<Hangup>,
) -> Response {
    let mut snapshot = sources.snapshot.clone();
    snapshot.mark_changed();
    let listener = Listener {
        chain: sources.chain.events.subscribe(),
        snapshot,
        merged: NewestMerged::of(sources.merged_found.clone()),
        peers: None,
        next: Vec::new(),
        stop: sources.stop.clone(),
        _slot: sources.listeners.0.enter(client.network(), 1, hangup),
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
    merged: NewestMerged,
    /// Latest numbers of peers sent: incoming, outgoing, banned.
    peers: Option<(usize, usize, usize)>,
    /// Events to send, newest first.
    next: Vec<Event>,
    stop: CancellationToken,
    _slot: Slot,
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
                record = self.merged.next() => {
                    let block = MergedBlock::of(&record, &self.snapshot.borrow());
                    self.send("merged_block", &block);
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
                    difficulty: self.snapshot.borrow().scale.show(bdiff(share.target())),
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
    use crate::view::http::testing::{connect, sources};
    use crate::view::http::{Http, pages};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_new_reader_of_events_ends_the_oldest_stream_of_the_network_that_has_most() {
        let folder = tempfile::tempdir().unwrap();
        let mut sources = sources(folder.path());
        // A stream ends with its sources.
        let (_snapshots, snapshot) = watch::channel(sources.snapshot.borrow().clone());
        sources.snapshot = snapshot;
        let http = Http::new(pages(sources), CancellationToken::new());
        let subscribe = async |address: [u8; 4]| {
            let (mut client, serving) = connect(&http, address);
            client.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut head = [0; 12];
            client.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 200");
            (client, serving)
        };
        let honest = subscribe([192, 0, 2, 1]).await;
        let mut held = Vec::new();
        for _ in 1..LISTENERS_MAX {
            held.push(subscribe([198, 51, 100, 1]).await);
        }
        let newcomer = subscribe([203, 0, 113, 1]).await;
        held.remove(0).1.await.unwrap();
        let others = held.iter().chain([&honest, &newcomer]);
        assert_eq!(others.filter(|(_, serving)| serving.is_finished()).count(), 0);
    }
}
