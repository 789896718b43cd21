//! One connection to a peer as a state machine without I/O: handshake, keep-alive, requests, forwarding of transactions,
//! and every limit that a stranger is held to.
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

/// Names a connection, from when it is made or accepted. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct PeerId(pub u64);

/// The protocol version that we speak.
pub const PROTOCOL_VERSION: u32 = 3501;

/// How long a peer may take to say `version`.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer may send no whole message.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(100);

/// How long a message may take to come whole, however short it is...
const FRAME_TIMEOUT: Duration = Duration::from_secs(60);

/// ...and how many bytes of it must come in each second beyond that.
const FRAME_BYTES_PER_SECOND: u64 = 50_000;

/// Bytes that may wait to be sent when another message is to go out. Its peer asked for them, or 1,000 times forwarded
/// transactions, and does not read.
const OUTPUT_BYTES_MAX: usize = 8_000_000;

/// The most addresses that a peer is told at its question (section 3.5).
const ADDRESSES_ASKED_MAX: u32 = 100;

/// One connection.
#[derive(Debug)]
pub struct Peer {
    local: Local,
    rules: Arc<ShareRules>,
    remote: SocketAddr,
    direction: Direction,
    random: fastrand::Rng,
    /// A moment, and the same in seconds since 1970.
    clock: (Instant, u64),
    /// The services that the peer said; none before its `version`.
    services: Option<u64>,
    opened: Instant,
    /// When the last whole message came.
    heard: Instant,
    /// When the message under way began to come.
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
    /// What came, for whoever counts.
    received: VecDeque<Command>,
}

impl Peer {
    /// A connection between `remote` and our `local_address` that has just been made; `version` is queued at once. `seed`
    /// is a random number, and `unix` the time in seconds since 1970.
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

    /// The peer's address, IPv4 as such.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Who opened the connection.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Whether the handshake is through.
    pub fn is_connected(&self) -> bool {
        self.services.is_some()
    }

    /// Bytes that wait to be sent.
    pub fn output_bytes(&self) -> usize {
        self.output_bytes
    }

    /// Bytes that came of a message that is not whole, and bytes that it lacks. When what comes next makes a long one
    /// whole, handling it may take a second.
    pub fn unfinished(&self) -> (usize, usize) {
        let (left, have) = self.frames.progress();
        (have, left)
    }

    /// Takes bytes that came.
    ///
    /// # Errors
    /// [`Close`]: the connection is to be closed. What is queued already still counts.
    pub fn handle_bytes(&mut self, bytes: &[u8], known: &Transactions, now: Instant) -> Result<(), Close> {
        self.limits.bytes(bytes.len(), now)?;
        let mut input = bytes;
        loop {
            let is_connected = self.is_connected();
            let has_asked = self.requests.are_open() || self.measurement.is_some();
            let judge = |command: Command| match command {
                // Before the handshake only `version` is taken, and anything else only to be refused.
                _ if !is_connected => Verdict::Take(SMALL_BYTES_MAX),
                // Answers to nothing are ignored, so they need not be kept.
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

    /// Does what is due at `now`, which is `unix` seconds after 1970.
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

    /// When [`Peer::handle_timeout`] is next due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silence = self.silence_deadline().map(|(deadline, _)| deadline);
        [silence, self.measurement_deadline(), self.ping_due, self.advertise_due].into_iter().flatten().min()
    }

    /// When the peer has been silent for too long, and about what.
    fn silence_deadline(&self) -> Option<(Instant, &'static str)> {
        let handshake = || (self.opened + HANDSHAKE_TIMEOUT, "no `version` in time");
        if !self.is_connected() {
            return Some(handshake());
        }
        if let Some(began) = self.frame_began {
            let (left, have) = self.frames.progress();
            let more = Duration::from_secs((left + have) as u64 / FRAME_BYTES_PER_SECOND);
            return Some((began + FRAME_TIMEOUT + more, "a message does not come to its end"));
        }
        let idle = (self.heard + IDLE_TIMEOUT, "nothing heard for 100 s");
        let reply = self.requests.deadline().map(|deadline| (deadline, "no answer to a request for shares"));
        [Some(idle), reply].into_iter().flatten().min()
    }

    /// Bytes to send, if there are any.
    pub fn poll_frame(&mut self) -> Option<Bytes> {
        let message = self.output.pop_front()?;
        self.output_bytes -= message.charge();
        Some(message.into_frame(self.local.prefix))
    }

    /// About how many bytes [`Peer::poll_frame`] gives next: a long message takes a while to write.
    pub fn next_frame_bytes(&self) -> usize {
        self.output.front().map_or(0, Outgoing::bytes)
    }

    /// Bytes of transactions that the peer has us remember.
    pub fn remembered_bytes(&self) -> usize {
        self.forwarding.remembered_bytes()
    }

    /// What kind of message came, for each one.
    pub fn poll_received(&mut self) -> Option<Command> {
        self.received.pop_front()
    }

    /// News, if there is any.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// Does what the swarm wants. Orders before the handshake is through are ignored, but for [`Order::Close`].
    ///
    /// # Errors
    /// [`Close`]: the order said so, or the peer reads too slowly.
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

    /// Whether transactions are told on this connection, which our own best share decided when it began (section 18.1).
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
                // Answers to nothing are ignored, as the reference does.
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

    /// Checks what can be checked of shares alone. Those of obsolete versions are passed over, as the reference does.
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
            return Err(Close::Quiet("asks for no share at all".into()));
        }
        self.limits.asked(hashes.len(), now)?;
        if hashes.iter().all(|hash| hash.0 == [0; 32]) {
            // Trap 41: nobody has this share; the peer measures how long the answer takes.
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

    /// Answers with as many of `shares` as fit; the other side asks again for what is below. The reference would say that
    /// all of them together are too long.
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
        // Shares that cannot go with their transactions would cost us the connection. Who misses them asks for them, and
        // answers need none.
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
            return Err(Close::Quiet(format!("reads too slowly: {} bytes wait for it", self.output_bytes)));
        }
        self.queue(message);
        Ok(())
    }

    fn queue(&mut self, message: Outgoing) {
        self.output_bytes += message.charge();
        self.output.push_back(message);
    }
}

/// Shares from here on name no transactions, so a node that has one forwards none.
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
