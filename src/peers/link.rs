//! One connection to a peer: moves bytes between its socket and its [`Peer`], orders in and events out.
//!
//! A connection waits for a busy node: until its events are taken, it reads nothing more, and its peer feels that. The
//! node waits for no connection: it drops one whose orders pile up, or whose peer stops reading.

use bytes::{Buf, Bytes};
use metrics::counter;
use p2p::message::Command;
use p2p::peer::{Close, Order, Peer, PeerEvent};
use p2p::swarm::PeerId;
use p2p::transactions::Transactions;
use sharechain::share::{Share, ShareHash};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::traffic::Traffic;
use crate::chain::at_risk::AtRisk;
use crate::runtime::clock::unix_now;

/// Queue capacity for orders to one connection. The most at once is a burst of shares, one order each.
pub(super) const ORDERS_QUEUED_MAX: usize = 256;

/// Maximum number of bytes per read.
const READ_BYTES: usize = 64 * 1024;

/// Size from which a message is handled off the event loop: about ten shares. Costly proofs of work are computed off it
/// in any case ([`super::proofs::hasher`]).
const HEAVY_BYTES: usize = 16 * 1024;

/// Size from which a message is large: usual ones of any kind, a whole answer with shares among them, are shorter.
const LARGE_BYTES: usize = 4_000_000;

/// Maximum number of large messages being parsed into shares or waiting for the share chain's owner, on all connections
/// together: each may take 32 MB. Other connections leave theirs unread meanwhile.
pub(super) const LARGE_MESSAGES_MAX: usize = 2;

/// Maximum time without progress in writing to a peer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum number of one peer's batches of shares waiting for the share chain's owner: one in its hands, and the next.
const BATCHES_MAX: usize = 2;

/// Event of a connection.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// Event of the peer. The permit of a batch of shares is held until the share chain's owner has them.
    Event(PeerId, PeerEvent, Option<BatchPermit>),
    /// The connection has ended.
    Closed(PeerId, Close),
}

/// Permits for heavy messages: as many as there are cores, less one for the rest of the node; at least one.
pub(super) fn heavy_messages() -> Arc<Semaphore> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Arc::new(Semaphore::new((cores - 1).max(1)))
}

/// State shared by all connections.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// Known transactions.
    pub(super) known: Arc<Transactions>,
    /// Counts the traffic.
    pub(super) traffic: Arc<Traffic>,
    /// Queue of events. Connections wait when it is full.
    pub(super) heard: mpsc::Sender<LinkEvent>,
    /// Limits the heavy messages handled at a time: one processor is left for the rest of the node.
    pub(super) heavy: Arc<Semaphore>,
    /// Own shares that only this node has: until one is sent.
    pub(super) at_risk: Arc<AtRisk>,
    /// Limits the large messages in memory as shares: [`LARGE_MESSAGES_MAX`].
    pub(super) large: Arc<Semaphore>,
    /// Ends all connections.
    pub(super) stop: CancellationToken,
}

/// Serves a connection until either side ends it; closing `orders` ends it too.
pub(super) async fn run(id: PeerId, stream: TcpStream, peer: Peer, orders: mpsc::Receiver<Order>, context: Context) {
    let heard = context.heard.clone();
    let traffic = context.traffic.clone();
    let mut link = Link {
        id,
        peer,
        orders,
        context,
        output: Bytes::new(),
        progress: Instant::now(),
        events: VecDeque::new(),
        at_risk: Vec::new(),
        large: None,
    };
    let close = match link.drive(stream).await {
        Ok(close) | Err(close) => close,
    };
    traffic.set_remembered(id, 0);
    // The receiver is gone when the node stops.
    let _ = heard.send(LinkEvent::Closed(id, close)).await;
}

struct Link {
    id: PeerId,
    peer: Peer,
    orders: mpsc::Receiver<Order>,
    context: Context,
    /// Data being written.
    output: Bytes,
    /// Time of the last progress in writing.
    progress: Instant,
    /// Events not passed on yet.
    events: VecDeque<PeerEvent>,
    /// Own shares that only this node has, and that are being sent.
    at_risk: Vec<ShareHash>,
    /// Held for a large message until the owner has its shares.
    large: Option<OwnedSemaphorePermit>,
}

/// Permit of a batch of shares, held until the share chain's owner has taken it.
#[derive(Debug)]
pub(super) struct BatchPermit {
    _batch: OwnedSemaphorePermit,
    _large: Option<OwnedSemaphorePermit>,
}

impl Link {
    async fn drive(&mut self, mut stream: TcpStream) -> Result<Close, Close> {
        let (mut reader, mut writer) = stream.split();
        let mut input = vec![0; READ_BYTES];
        let batches = Arc::new(Semaphore::new(BATCHES_MAX));
        let (stop, heard) = (self.context.stop.clone(), self.context.heard.clone());
        loop {
            self.collect();
            let deadline = self.deadline();
            tokio::select! {
                // Output comes first: shares are worth most when they are new.
                biased;
                () = stop.cancelled() => return Ok(Close::Quiet("this node stops".to_owned())),
                written = writer.write(&self.output), if !self.output.is_empty() => {
                    let count = written.map_err(|error| lost(&error))?;
                    counter!("p2p_bytes_total", "direction" => "out").increment(count as u64);
                    self.context.traffic.add_sent(count);
                    self.output.advance(count);
                    self.progress = Instant::now();
                }
                order = self.orders.recv() => match order {
                    Some(order) => {
                        if let Order::Shares(shares) = &order {
                            self.note_at_risk(shares);
                        } else if let Order::Answer { shares, .. } = &order {
                            self.note_at_risk(shares);
                        }
                        self.peer.handle_order(order, &self.context.known, Instant::now())?;
                    }
                    None => return Ok(Close::Quiet("no longer wanted".to_owned())),
                },
                told = slot(&heard, &batches, self.events.front()), if !self.events.is_empty() => {
                    let Some((slot, permit)) = told else { return Ok(Close::Quiet("this node stops".to_owned())) };
                    let event = self.events.pop_front().expect("there is one, or no slot was waited for");
                    let large = if permit.is_some() { self.large.take() } else { None };
                    let permit = permit.map(|batch| BatchPermit { _batch: batch, _large: large });
                    slot.send(LinkEvent::Event(self.id, event, permit));
                }
                read = reader.read(&mut input), if self.events.is_empty() => {
                    let count = read.map_err(|error| lost(&error))?;
                    if count == 0 {
                        return Ok(Close::Quiet("closed by the peer".to_owned()));
                    }
                    counter!("p2p_bytes_total", "direction" => "in").increment(count as u64);
                    self.context.traffic.add_received(count);
                    let remembered = self.peer.remembered_bytes();
                    self.take(&input[..count]).await?;
                    if self.peer.remembered_bytes() != remembered {
                        self.context.traffic.set_remembered(self.id, self.peer.remembered_bytes());
                    }
                }
                () = sleep_until(deadline.into()) => self.handle_timeout()?,
            }
        }
    }

    /// Collects the output of the peer's state machine.
    fn collect(&mut self) {
        while let Some(command) = self.peer.poll_received() {
            counter!("p2p_messages_total", "direction" => "in", "command" => command.word()).increment(1);
        }
        while let Some(event) = self.peer.poll_event() {
            self.events.push_back(event);
        }
        if self.events.is_empty() {
            self.large = None;
        }
        if !self.output.is_empty() {
            return;
        }
        let is_heavy = self.peer.next_frame_bytes() >= LARGE_BYTES;
        let peer = &mut self.peer;
        let frame = if is_heavy { tokio::task::block_in_place(|| peer.poll_frame()) } else { peer.poll_frame() };
        if let Some(frame) = frame {
            counter!("p2p_messages_total", "direction" => "out", "command" => word_of(&frame)).increment(1);
            self.output = frame;
            self.progress = Instant::now();
        }
        if self.output.is_empty() && !self.at_risk.is_empty() {
            // The system has all of it now, and sends it even if this process ends.
            self.at_risk.drain(..).for_each(|hash| self.context.at_risk.is_safe(hash));
        }
    }

    fn note_at_risk(&mut self, shares: &[Arc<Share>]) {
        if self.peer.is_connected() {
            // Shares that list transactions may have to wait for these.
            let shares = shares.iter().filter(|share| !share.version().lists_transactions());
            self.at_risk.extend(shares.map(|share| share.hash()).filter(|hash| self.context.at_risk.contains(*hash)));
        }
    }

    fn deadline(&self) -> Instant {
        let write = (!self.output.is_empty()).then(|| self.progress + WRITE_TIMEOUT);
        let deadline = [write, self.peer.poll_timeout()].into_iter().flatten().min();
        // There is always a deadline for the peer's silence; the hour is a placeholder.
        deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    fn handle_timeout(&mut self) -> Result<(), Close> {
        let now = Instant::now();
        if !self.output.is_empty() && now >= self.progress + WRITE_TIMEOUT {
            return Err(Close::Quiet(format!("it read nothing for {} s", WRITE_TIMEOUT.as_secs())));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time since 1970, saturating")]
        let unix = unix_now() as u64;
        self.peer.handle_timeout(now, unix)
    }

    async fn take(&mut self, bytes: &[u8]) -> Result<(), Close> {
        let (have, left) = self.peer.unfinished();
        let now = Instant::now();
        if have + bytes.len() < HEAVY_BYTES {
            return self.peer.handle_bytes(bytes, &self.context.known, now);
        }
        if have + left >= LARGE_BYTES && bytes.len() >= left {
            self.large = self.context.large.clone().acquire_owned().await.ok();
        }
        let permit = self.context.heavy.acquire().await;
        let (peer, known) = (&mut self.peer, &self.context.known);
        let handled = tokio::task::block_in_place(|| peer.handle_bytes(bytes, known, now));
        drop(permit);
        handled
    }
}

/// Waits for room for one event, and for one more batch of shares if it has any; `None` when the receiver is gone.
async fn slot<'a>(
    heard: &'a mpsc::Sender<LinkEvent>,
    batches: &Arc<Semaphore>,
    event: Option<&PeerEvent>,
) -> Option<(mpsc::Permit<'a, LinkEvent>, Option<OwnedSemaphorePermit>)> {
    let has_shares = match event {
        Some(PeerEvent::Shares(shares) | PeerEvent::Replied { shares: Ok(shares), .. }) => !shares.is_empty(),
        _ => false,
    };
    let permit = if has_shares { Some(batches.clone().acquire_owned().await.ok()?) } else { None };
    Some((heard.reserve().await.ok()?, permit))
}

fn lost(error: &io::Error) -> Close {
    Close::Quiet(format!("connection lost: {error}"))
}

/// Command of one of our own frames, for metrics.
fn word_of(frame: &[u8]) -> &'static str {
    let word = frame.get(8..20).unwrap_or_default();
    let end = word.iter().position(|byte| *byte == 0).unwrap_or(word.len());
    let command = std::str::from_utf8(&word[..end]).ok().and_then(Command::from_word);
    command.map_or("other", Command::word)
}
