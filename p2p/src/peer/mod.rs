//! One connection to a peer as a state machine without I/O: handshake, keep-alive, requests, forwarding of
//! transactions, and all limits for untrusted peers.
//!
//! ```text
//!  bytes ──frame──▶ message ──▶ Peer ──▶ PeerEvent
//!  frame ◀──────── message ◀──┘   ▲───── Order
//! ```

mod close;
mod exchange;
mod forwarding;
mod handshake;
mod keepalive;
mod latency;
mod outgoing;
mod requests;
mod shares;
mod tolerance;

use bytes::Bytes;
use sharechain::share::ShareRules;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::Account;
use super::frame::{Event, Frame, Frames, Verdict};
use super::limits::{Kind, Limits};
use super::message::{Command, Message, ReplyResult, SMALL_BYTES_MAX};
use super::refusals::HourlyCount;
use super::transactions::Transactions;
use forwarding::Forwarding;
use latency::Measurement;
use outgoing::Outgoing;
use requests::Requests;

pub use close::{Close, Offence};
pub use exchange::{
    Advertise, Announcement, Direction, Hello, Local, Order, PeerEvent, RequestFailed, RequestId, Shared,
};
pub use latency::MEASUREMENT_TIMEOUT;
pub use requests::REPLY_TIMEOUT;

pub use super::peer_id::PeerId;

/// Time limit for a peer's `version`.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum silence of a peer, counted from its last complete message.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(100);

/// Base time limit for completing a message...
const FRAME_TIMEOUT: Duration = Duration::from_secs(60);

/// ...extended by a second for each of this number of its bytes.
const FRAME_BYTES_PER_SECOND: u64 = 50_000;

/// Maximum bytes in the send queue when another message is to be queued. A peer above it requested the data, or
/// transactions 1,000 times, and does not read.
const OUTPUT_BYTES_MAX: usize = 8_000_000;

/// Maximum number of addresses in one answer (section 3.5).
const ADDRESSES_ASKED_MAX: u32 = 100;

/// One connection.
#[derive(Debug)]
pub struct Peer {
    local: Local,
    rules: Arc<ShareRules>,
    remote: SocketAddr,
    direction: Direction,
    random: fastrand::Rng,
    /// An instant, and the same time in seconds since 1970.
    clock: (Instant, u64),
    /// Services in the peer's `version`; `None` before it.
    services: Option<u64>,
    opened: Instant,
    /// Time of the last complete message.
    heard: Instant,
    /// Start of the incomplete message.
    frame_began: Option<Instant>,
    ping_due: Option<Instant>,
    advertise_due: Option<Instant>,
    frames: Frames,
    unfinished: Account,
    remembered: Account,
    limits: Limits,
    /// Messages with something that cannot be read.
    unreadable: HourlyCount,
    requests: Requests,
    measurement: Option<Measurement>,
    forwarding: Forwarding,
    output: VecDeque<Outgoing>,
    output_bytes: usize,
    events: VecDeque<PeerEvent>,
    /// Received commands, for metrics.
    received: VecDeque<Command>,
}

impl Peer {
    /// Creates the state of a new connection between `remote` and our `local_address`; `version` is queued at once.
    /// `seed` is a random number, and `unix` the time in seconds since 1970.
    #[allow(clippy::too_many_arguments, reason = "all of it is known when a connection is made, and nothing else is")]
    pub fn new(
        local: Local,
        rules: Arc<ShareRules>,
        remote: SocketAddr,
        local_address: SocketAddr,
        direction: Direction,
        seed: u64,
        now: Instant,
        unix: u64,
    ) -> Peer {
        let frames = Frames::new(local.prefix);
        let shared = &local.shared;
        let unfinished = shared.unfinished.open(shared.peer, now);
        let remembered = shared.remembered.open(shared.peer, now);
        let limits = Limits::new(shared.rates.clone(), now);
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let mut peer = Peer {
            local,
            rules,
            remote,
            direction,
            random: fastrand::Rng::with_seed(seed),
            clock: (now, unix),
            services: None,
            opened: now,
            heard: now,
            frame_began: None,
            ping_due: None,
            advertise_due: None,
            frames,
            unfinished,
            remembered,
            limits,
            unreadable: HourlyCount::new(now),
            requests: Requests::default(),
            measurement: None,
            forwarding: Forwarding::default(),
            output: VecDeque::new(),
            output_bytes: 0,
            events: VecDeque::new(),
            received: VecDeque::new(),
        };
        let version = Message::Version(handshake::version_of(&peer.local, remote, local_address));
        peer.queue(Outgoing::Frame(version.to_frame(peer.local.prefix)));
        peer
    }

    /// Address of the peer, IPv4 in its own form.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Side that opened the connection.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// True if the handshake is complete.
    pub fn is_connected(&self) -> bool {
        self.services.is_some()
    }

    /// Number of bytes waiting to be sent.
    pub fn output_bytes(&self) -> usize {
        self.output_bytes
    }

    /// Returns received and missing bytes of the incomplete message. Completing a long one may take a second of
    /// processing.
    pub fn unfinished(&self) -> (usize, usize) {
        let (left, have) = self.frames.progress();
        (have, left)
    }

    /// Handles received bytes.
    ///
    /// # Errors
    /// [`Close`]: the connection is to be closed. Events queued before still count.
    pub fn handle_bytes(&mut self, bytes: &[u8], known: &Transactions, now: Instant) -> Result<(), Close> {
        self.limits.take(Kind::Bytes, bytes.len(), now)?;
        let mut input = bytes;
        while let Some(event) = self.next_event(&mut input, known)? {
            self.heard = now;
            self.frame_began = None;
            let command = match &event {
                Event::Frame(frame) => Some(frame.command),
                Event::Skipped(command) => *command,
            };
            let is_gossip = command.is_some_and(is_gossip);
            self.limits.take(if is_gossip { Kind::Gossip } else { Kind::Messages }, 1, now)?;
            if let Event::Frame(frame) = event {
                self.received.push_back(frame.command);
                self.handle_frame(&frame, known, now)?;
            }
        }
        if self.frames.is_under_way() {
            self.frame_began.get_or_insert(now);
        }
        self.report_memory(now);
        Ok(())
    }

    fn next_event(&mut self, input: &mut &[u8], known: &Transactions) -> Result<Option<Event>, Close> {
        let is_connected = self.is_connected();
        let has_asked = self.requests.are_open() || self.measurement.is_some();
        let judge = |command: Command| match command {
            // Before the handshake only `version` is accepted; anything else is read only to be refused.
            _ if !is_connected => Verdict::Take(SMALL_BYTES_MAX),
            // Answers without a request are ignored, so they are not kept.
            Command::ShareReply if !has_asked => Verdict::Skip,
            _ if is_about_transactions(command) && !known.are_listed() => Verdict::Skip,
            _ => Verdict::Take(command.bytes_max()),
        };
        Ok(self.frames.take(input, judge)?)
    }

    /// Reports the memory that this connection takes of what all share.
    fn report_memory(&mut self, now: Instant) {
        let since = self.frame_began.unwrap_or(now);
        let fits_unfinished = self.unfinished.set(self.frames.held(), since);
        let fits_remembered = self.remembered.set(self.forwarding.remembered_bytes(), now);
        if !(fits_unfinished && fits_remembered) {
            self.events.push_back(PeerEvent::OverBudget);
        }
    }

    /// Performs everything due at `now`, which is `unix` seconds after 1970.
    ///
    /// # Errors
    /// [`Close`].
    pub fn handle_timeout(&mut self, now: Instant, unix: u64) -> Result<(), Close> {
        self.clock = (now, unix);
        if let Some((deadline, reason)) = self.silence_deadline()
            && now >= deadline
        {
            return Err(Close::Quiet(reason.into()));
        }
        self.end_measurement(now);
        if self.ping_due.is_some_and(|due| now >= due) {
            self.ping(now)?;
        }
        if self.advertise_due.is_some_and(|due| now >= due) {
            self.advertise(now)?;
        }
        Ok(())
    }

    /// Returns when [`Peer::handle_timeout`] is next due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silence = self.silence_deadline().map(|(deadline, _)| deadline);
        [silence, self.measurement_deadline(), self.ping_due, self.advertise_due].into_iter().flatten().min()
    }

    /// Returns when the peer has been silent for too long, and the reason.
    fn silence_deadline(&self) -> Option<(Instant, &'static str)> {
        let handshake = || (self.opened + HANDSHAKE_TIMEOUT, "no `version` in time");
        if !self.is_connected() {
            return Some(handshake());
        }
        if let Some(began) = self.frame_began {
            let (left, have) = self.frames.progress();
            let more = Duration::from_secs((left + have) as u64 / FRAME_BYTES_PER_SECOND);
            return Some((began + FRAME_TIMEOUT + more, "message not completed in time"));
        }
        let idle = (self.heard + IDLE_TIMEOUT, "nothing heard for 100 s");
        let reply = self.requests.deadline().map(|deadline| (deadline, "no answer to a request for shares"));
        [Some(idle), reply].into_iter().flatten().min()
    }

    /// Returns the next bytes to send, if any.
    pub fn poll_frame(&mut self) -> Option<Bytes> {
        let message = self.output.pop_front()?;
        self.output_bytes -= message.charge();
        Some(message.into_frame(self.local.prefix))
    }

    /// Approximate size of the next [`Peer::poll_frame`]: a long message takes a while to encode.
    pub fn next_frame_bytes(&self) -> usize {
        self.output.front().map_or(0, Outgoing::bytes)
    }

    /// Bytes of transactions remembered for the peer.
    pub fn remembered_bytes(&self) -> usize {
        self.forwarding.remembered_bytes()
    }

    /// Returns the command of each received message, in turn.
    pub fn poll_received(&mut self) -> Option<Command> {
        self.received.pop_front()
    }

    /// Returns the next event, if any.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// Executes an order of the swarm. Before the handshake all orders except [`Order::Close`] are ignored.
    ///
    /// # Errors
    /// [`Close`]: by order, or because the peer reads too slowly.
    pub fn handle_order(&mut self, order: Order, known: &Transactions, now: Instant) -> Result<(), Close> {
        match order {
            Order::Close(close) => Err(close),
            _ if !self.is_connected() => Ok(()),
            Order::Keep => {
                self.ping(now)?;
                self.advertise(now)
            }
            Order::MeasureLatency => self.measure_latency(now),
            Order::Shares(shares) => self.send_shares(&shares, known),
            Order::Request { request, hashes, parents, stops } => {
                let mut id = [0; 32];
                self.random.fill(&mut id);
                self.requests.sent(id, request, hashes.len(), parents, now);
                self.send(&Message::ShareReq { id, hashes, parents, stops })
            }
            Order::Answer { id, shares } => {
                self.requests.answered();
                self.answer(id, shares, now)
            }
            Order::Addresses(records) => self.send(&Message::Addrs(records)),
            Order::AddressOfMe(port) => self.send(&Message::AddrMe { port }),
            Order::GetAddresses(count) => self.send(&Message::GetAddrs { count }),
            Order::BestBlock(header) => self.send(&Message::BestBlock { header }),
            Order::Template(template) if self.forwards() => {
                let messages = self.forwarding.template(&template, known);
                messages.iter().try_for_each(|message| self.send(message))
            }
            Order::Have(hashes) if self.forwarding.has_begun() && !hashes.is_empty() => {
                self.send(&Message::HaveTx(hashes.to_vec()))
            }
            Order::Losing(hashes) if self.forwarding.has_begun() && !hashes.is_empty() => {
                self.send(&Message::LosingTx(hashes.to_vec()))
            }
            Order::Template(_) | Order::Have(_) | Order::Losing(_) => Ok(()),
        }
    }

    /// True if transactions are announced here, which our best share at the start decided (section 18.1).
    fn forwards(&self) -> bool {
        self.local.best_version.is_none_or(|version| version < FIRST_VERSION_WITHOUT_TRANSACTIONS)
    }

    fn handle_frame(&mut self, frame: &Frame, known: &Transactions, now: Instant) -> Result<(), Close> {
        if !self.is_connected() && frame.command != Command::Version {
            return Err(self.close_for_order(Offence::NoVersion(frame.command)));
        }
        if !known.are_listed() {
            self.forwarding.release();
        }
        let message = match Message::parse_as(frame.command, &frame.payload) {
            Ok(message) => message,
            Err(error) => return self.skip_unreadable(error, frame, now),
        };
        match message {
            Message::Version(version) => self.handle_version(version)?,
            Message::Ping => {}
            // Addresses beyond the limit are ignored: a reference node passes on all that others send it.
            Message::AddrMe { port } if self.limits.take(Kind::Addresses, 1, now).is_ok() => {
                self.events.push_back(PeerEvent::AdvertisesPort(port));
            }
            Message::Addrs(records) if self.limits.take(Kind::Addresses, records.len(), now).is_ok() => {
                self.events.push_back(PeerEvent::Addresses(records));
            }
            Message::AddrMe { .. } | Message::Addrs(_) => {}
            Message::GetAddrs { count } => {
                let count = count.min(ADDRESSES_ASKED_MAX);
                self.limits.take(Kind::Asked, count.max(1) as usize, now)?;
                self.events.push_back(PeerEvent::WantsAddresses(count));
            }
            Message::Shares(shares) => {
                self.limits.take(Kind::Shares, shares.len(), now)?;
                let (shares, _) = self.load(&shares, now)?;
                shares.iter().try_for_each(|share| forwarding::check_share(share, known))?;
                self.events.push_back(PeerEvent::Shares(shares));
            }
            Message::ShareReq { id, hashes, parents, stops } => self.handle_request(id, hashes, parents, stops, now)?,
            Message::ShareReply { id, result, shares } => {
                if self.note_probed(&id, shares.len(), now)? {
                    return Ok(());
                }
                // Answers without a request are ignored, as in the reference.
                let Some((request, shares_max)) = self.requests.replied(&id) else { return Ok(()) };
                // They were wanted.
                self.limits.count(Kind::Bytes, -(frame.payload.len() as f64), now);
                if shares.len() > shares_max {
                    return Err(Offence::TooMany { what: "shares", count: shares.len(), limit: shares_max }.into());
                }
                let shares = match result {
                    ReplyResult::Good => Ok(self.load_answer(&shares, now)?),
                    refused => Err(RequestFailed::Refused(refused)),
                };
                self.events.push_back(PeerEvent::Replied { request, shares });
            }
            Message::BestBlock { header } => self.events.push_back(PeerEvent::BestBlock(header)),
            Message::HaveTx(hashes) => self.forwarding.handle_have(hashes),
            Message::LosingTx(hashes) => self.forwarding.handle_losing(&hashes),
            Message::RememberTx { hashes, transactions } => {
                let is_lax = self.local.has_laxer_nodes;
                let learned = self.forwarding.handle_remember(hashes, &transactions, known, now, is_lax)?;
                if !learned.is_empty() {
                    self.events.push_back(PeerEvent::TransactionsLearned(learned));
                }
            }
            Message::ForgetTx(hashes) => self.forwarding.handle_forget(&hashes, self.local.has_laxer_nodes)?,
        }
        Ok(())
    }

    fn send(&mut self, message: &Message) -> Result<(), Close> {
        self.send_later(Outgoing::Frame(message.to_frame(self.local.prefix)))
    }

    fn send_later(&mut self, message: Outgoing) -> Result<(), Close> {
        if self.output_bytes > OUTPUT_BYTES_MAX {
            return Err(Close::Quiet(format!("reads too slowly: {} bytes waiting to be sent", self.output_bytes)));
        }
        self.queue(message);
        Ok(())
    }

    fn queue(&mut self, message: Outgoing) {
        self.output_bytes += message.charge();
        self.output.push_back(message);
    }
}

/// True for messages that a peer sends because of what others sent it.
fn is_gossip(command: Command) -> bool {
    matches!(command, Command::AddrMe | Command::Addrs | Command::HaveTx | Command::LosingTx)
}

/// True for messages that are needed only where shares list transactions.
fn is_about_transactions(command: Command) -> bool {
    matches!(command, Command::HaveTx | Command::LosingTx | Command::RememberTx | Command::ForgetTx)
}

/// First share version without transactions: a node that has such a share forwards none.
const FIRST_VERSION_WITHOUT_TRANSACTIONS: u64 = 34;

#[cfg(test)]
mod tests;
