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
mod limits;
mod outgoing;
mod requests;

use bytes::Bytes;
use sharechain::share::{Bits, CheckError, Share, ShareHash, ShareRules, VersionError, display_hex};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame::{Event, Frame, Frames, Verdict};
use super::message::{Command, Message, ReplyResult, SMALL_BYTES_MAX, WrappedShare, replies_that_fit};
use super::transactions::Transactions;
use forwarding::Forwarding;
use latency::Measurement;
use limits::Limits;
use outgoing::Outgoing;
use requests::Requests;

pub use close::{Close, Offence};
pub use exchange::{Advertise, Announcement, Direction, Hello, Local, Order, PeerEvent, RequestFailed, RequestId};
pub use latency::MEASUREMENT_TIMEOUT;
pub use requests::REPLY_TIMEOUT;

/// Identifier of a connection, from the dial or accept on. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct PeerId(pub u64);

/// Protocol version of this implementation.
pub const PROTOCOL_VERSION: u32 = 3501;

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
    limits: Limits,
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
        let frames = Frames::new(local.prefix, Arc::clone(&local.budget));
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
            limits: Limits::new(now),
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
        self.limits.bytes(bytes.len(), now)?;
        let mut input = bytes;
        loop {
            let is_connected = self.is_connected();
            let has_asked = self.requests.are_open() || self.measurement.is_some();
            let judge = |command: Command| match command {
                // Before the handshake only `version` is accepted; anything else is read only to be refused.
                _ if !is_connected => Verdict::Take(SMALL_BYTES_MAX),
                // Answers without a request are ignored, so they are not kept.
                Command::ShareReply if !has_asked => Verdict::Skip,
                _ => Verdict::Take(command.bytes_max()),
            };
            let Some(event) = self.frames.take(&mut input, judge)? else { break };
            self.heard = now;
            self.frame_began = None;
            self.limits.message(now)?;
            if let Event::Frame(frame) = event {
                self.received.push_back(frame.command);
                self.handle_frame(&frame, known, now)?;
            }
        }
        if self.frames.is_under_way() {
            self.frame_began.get_or_insert(now);
        }
        Ok(())
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
            return Err(Offence::NoVersion(frame.command).into());
        }
        let message = Message::parse_as(frame.command, &frame.payload)?;
        match message {
            Message::Version(version) => self.handle_version(version)?,
            Message::Ping => {}
            Message::AddrMe { port } => {
                self.limits.addresses(1, now)?;
                self.events.push_back(PeerEvent::AdvertisesPort(port));
            }
            Message::Addrs(records) => {
                self.limits.addresses(records.len(), now)?;
                self.events.push_back(PeerEvent::Addresses(records));
            }
            Message::GetAddrs { count } => {
                let count = count.min(ADDRESSES_ASKED_MAX);
                self.limits.addresses(count.max(1) as usize, now)?;
                self.events.push_back(PeerEvent::WantsAddresses(count));
            }
            Message::Shares(shares) => {
                self.limits.shares(shares.len(), now)?;
                let shares = self.load(&shares)?;
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
                self.limits.bytes_wanted(frame.payload.len(), now);
                if shares.len() > shares_max {
                    return Err(Offence::TooMany { what: "shares", count: shares.len(), limit: shares_max }.into());
                }
                let shares = match result {
                    ReplyResult::Good => Ok(self.load(&shares)?),
                    refused => Err(RequestFailed::Refused(refused)),
                };
                self.events.push_back(PeerEvent::Replied { request, shares });
            }
            Message::BestBlock { header } => self.handle_best_block(header)?,
            Message::HaveTx(hashes) => self.forwarding.handle_have(hashes),
            Message::LosingTx(hashes) => self.forwarding.handle_losing(&hashes),
            Message::RememberTx { hashes, transactions } => {
                let learned = self.forwarding.handle_remember(hashes, &transactions, known)?;
                if !learned.is_empty() {
                    self.events.push_back(PeerEvent::TransactionsLearned(learned));
                }
            }
            Message::ForgetTx(hashes) => self.forwarding.handle_forget(&hashes)?,
        }
        Ok(())
    }

    /// Checks shares as far as possible without ancestors. Those of obsolete versions are skipped, as in the reference.
    fn load(&self, shares: &[WrappedShare]) -> Result<Vec<Arc<Share>>, Close> {
        let mut loaded = Vec::with_capacity(shares.len());
        for wrapped in shares {
            match Share::from_wrapped(wrapped.version, &wrapped.contents, &self.rules) {
                Ok(share) => loaded.push(Arc::new(share)),
                Err(CheckError::Format(sharechain::share::FormatError::Version(VersionError::Obsolete(_)))) => {}
                Err(error) if error.is_misbehaviour() => return Err(Offence::Share(error).into()),
                Err(error) => return Err(quiet(&error)),
            }
        }
        Ok(loaded)
    }

    fn handle_request(
        &mut self,
        id: [u8; 32],
        hashes: Vec<ShareHash>,
        parents: u64,
        stops: Vec<ShareHash>,
        now: Instant,
    ) -> Result<(), Close> {
        if hashes.is_empty() {
            // Trap 39: the reference divides by their number, and disconnects.
            return Err(Close::Quiet("share request without hashes".into()));
        }
        self.limits.asked(hashes.len(), now)?;
        if hashes.iter().all(|hash| hash.0 == [0; 32]) {
            // Trap 41: no node has this share; the peer measures the response time.
            return self.answer(id, Vec::new(), now);
        }
        self.requests.asked()?;
        self.events.push_back(PeerEvent::Asked { id, hashes, parents, stops });
        Ok(())
    }

    fn handle_best_block(&mut self, header: [u8; 80]) -> Result<(), Close> {
        let hash = (self.rules.pow)(&header);
        let bits = Bits(u32::from_le_bytes([header[72], header[73], header[74], header[75]]));
        if !bits.target().is_met_by(&hash) {
            return Err(Offence::BestBlock { hash: display_hex(&hash) }.into());
        }
        self.events.push_back(PeerEvent::BestBlock(header));
        Ok(())
    }

    /// Answers with as many of `shares` as fit; the peer requests the rest. The reference would report that all of them
    /// together are too long.
    fn answer(&mut self, id: [u8; 32], mut shares: Vec<Arc<Share>>, now: Instant) -> Result<(), Close> {
        let count = replies_that_fit(&shares);
        if count == 0 && !shares.is_empty() {
            return self.send(&Message::ShareReply { id, result: ReplyResult::TooLong, shares: Vec::new() });
        }
        shares.truncate(count);
        self.limits.served(count, now);
        self.send_later(Outgoing::Reply { id, shares })
    }

    fn send_shares(&mut self, shares: &Announcement, known: &Transactions) -> Result<(), Close> {
        // Shares without their transactions would cost us the connection. Peers that miss them request them, and
        // answers need no transactions.
        let mut sent: Vec<&Arc<Share>> = shares.iter().filter(|share| forwarding::has_all_of(known, share)).collect();
        let around = self.forwarding.around_shares(&sent, known).or_else(|| {
            sent.retain(|share| !share.version().lists_transactions());
            self.forwarding.around_shares(&sent, known)
        });
        let (before, after) = around.map_or((None, None), |around| (around.before, around.after));
        let sent = if sent.len() == shares.len() { shares.clone() } else { sent.into_iter().cloned().collect() };
        before.iter().try_for_each(|message| self.send(message))?;
        for index in 0..sent.messages() {
            self.send_later(Outgoing::Shares { announcement: sent.clone(), index })?;
        }
        after.iter().try_for_each(|message| self.send(message))
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

/// First share version without transactions: a node that has such a share forwards none.
const FIRST_VERSION_WITHOUT_TRANSACTIONS: u64 = 34;

fn quiet(error: &impl std::fmt::Display) -> Close {
    Close::Quiet(error.to_string())
}

#[cfg(test)]
fn wrap<'a>(shares: impl IntoIterator<Item = &'a Arc<Share>>) -> Vec<WrappedShare> {
    shares.into_iter().map(|share| WrappedShare::of(share)).collect()
}

#[cfg(test)]
mod tests;
