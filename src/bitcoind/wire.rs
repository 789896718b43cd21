//! The daemon's P2P protocol as a state machine without I/O: receives news of blocks, submits found ones, and
//! determines their fate.
//!
//! A block's fate must be queried, since the protocol has no answer to `block`: a `ping` after the block (the daemon
//! processes a peer's messages in order, so its `pong` means that the block was judged), then `getheaders` from the
//! parent, then another `ping` that marks the end of the answers.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize, deserialize_partial, serialize};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::p2p::{Address, Magic, ServiceFlags};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use thiserror::Error;

use super::responses::printable;

/// Maximum size of a payload, in bytes (protocol section 11).
pub const PAYLOAD_BYTES_MAX: usize = 32_000_000;

/// Interval of pings to the daemon.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Maximum silence of the daemon, pongs included, before the connection counts as dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(90);

/// Maximum time for the handshake.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(20);

/// Maximum number of blocks in flight. One is usual; only regtest finds more.
pub const SUBMISSIONS_MAX: usize = 64;

/// Size of a message header, in bytes: magic, command, length, checksum.
const HEADER_BYTES: usize = 24;

/// Protocol version with witness relay by wtxid, the newest.
const PROTOCOL_VERSION: u32 = 70016;

/// Event from the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The handshake is complete; with the daemon's user agent.
    Ready(String),
    /// The daemon announced a block.
    NewBlock(BlockHash),
    /// Fate of a submitted block.
    Fate(BlockHash, Fate),
}

/// Fate of a submitted block, according to the daemon's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The block is in the best chain.
    InChain,
    /// Another block has its place.
    Displaced,
    /// The best chain ends with its parent: the daemon did not accept it.
    NotTaken,
    /// The daemon's best chain does not have its parent.
    Unconnected,
}

/// Reason why the connection must be closed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// The remote side is on another chain.
    #[error("message magic {0:02x?} is another chain's")]
    Magic([u8; 4]),
    /// The payload exceeds the maximum size.
    #[error("payload of {0} bytes is longer than {PAYLOAD_BYTES_MAX}")]
    Oversized(usize),
    /// The message was corrupted.
    #[error("message `{0}` has a wrong checksum")]
    Checksum(String),
    /// A message of a kind that is needed cannot be decoded.
    #[error("message `{command}` is unreadable: {reason}")]
    Unreadable {
        /// Kind of the message.
        command: String,
        /// Cause.
        reason: String,
    },
    /// No message received for too long.
    #[error("nothing received for {} s", .0.as_secs())]
    Silent(Duration),
}

/// A submitted block, until its fate is known.
#[derive(Debug)]
struct Submission {
    hash: BlockHash,
    previous: BlockHash,
    bytes: Bytes,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not sent yet: headers after its parent are requested; this pong marks the end of them.
    Probing { nonce: u64, heard: Option<Fate> },
    /// Sent; this pong means that it was judged.
    Judging { nonce: u64 },
    /// Headers are requested; this pong marks the end of them.
    Asking { nonce: u64, heard: Option<Fate> },
}

/// One connection to the daemon.
#[derive(Debug)]
pub struct Wire {
    magic: Magic,
    input: BytesMut,
    output: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    user_agent: Option<String>,
    ready: bool,
    started: Instant,
    heard: Instant,
    pinged: Instant,
    nonce: u64,
    submissions: Vec<Submission>,
}

impl Wire {
    /// Starts a connection to `remote` at `now`, which is `unix_time` in seconds since 1970. `nonce` is random; the
    /// nonces of pings count up from it.
    pub fn new(magic: [u8; 4], remote: SocketAddr, unix_time: i64, nonce: u64, now: Instant) -> Self {
        let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
        let mut wire = Self {
            magic: Magic::from_bytes(magic),
            input: BytesMut::new(),
            output: VecDeque::new(),
            events: VecDeque::new(),
            user_agent: None,
            ready: false,
            started: now,
            heard: now,
            pinged: now,
            nonce,
            submissions: Vec::new(),
        };
        wire.send(NetworkMessage::Version(VersionMessage {
            version: PROTOCOL_VERSION,
            services,
            timestamp: unix_time,
            receiver: Address::new(&remote, ServiceFlags::NONE),
            sender: Address::new(&SocketAddr::from(([0, 0, 0, 0], 0)), services),
            nonce,
            user_agent: concat!("/P2Pool:", env!("CARGO_PKG_VERSION"), "/").to_owned(),
            start_height: 0,
            // No transactions: they come with the template.
            relay: false,
        }));
        wire
    }

    /// True if the handshake is complete.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Processes received bytes.
    ///
    /// # Errors
    /// Invalid bytes, after which the connection must be closed.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Instant) -> Result<(), WireError> {
        self.input.extend_from_slice(bytes);
        while let Some((command, payload)) = self.take_frame()? {
            self.heard = now;
            self.handle_message(&command, &payload, now)?;
        }
        Ok(())
    }

    /// Processes elapsed timeouts.
    ///
    /// # Errors
    /// The daemon was silent for too long.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), WireError> {
        let (since, limit) = self.limit();
        if now >= since + limit {
            return Err(WireError::Silent(limit));
        }
        if self.ready && now >= self.pinged + PING_INTERVAL {
            self.pinged = now;
            self.ping();
        }
        Ok(())
    }

    /// Time at which to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Instant {
        let (since, limit) = self.limit();
        let dead = since + limit;
        if self.ready { dead.min(self.pinged + PING_INTERVAL) } else { dead }
    }

    /// Returns the next bytes to send.
    pub fn poll_output(&mut self) -> Option<Vec<u8>> {
        self.output.pop_front()
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Submits a block to the daemon; [`Event::Fate`] follows. With `ask_first` the block is sent only once the daemon
    /// has shown that it has its parent. Returns false if the handshake is not complete, or too many blocks are in
    /// flight.
    pub fn submit(&mut self, hash: BlockHash, previous: BlockHash, bytes: Bytes, ask_first: bool) -> bool {
        if !self.ready || self.submissions.len() >= SUBMISSIONS_MAX {
            return false;
        }
        let stage = if ask_first {
            Stage::Probing { nonce: self.ask_for_headers(previous), heard: None }
        } else {
            self.send_raw("block", &bytes);
            Stage::Judging { nonce: self.ping() }
        };
        self.submissions.retain(|other| other.hash != hash);
        self.submissions.push(Submission { hash, previous, bytes, stage });
        true
    }

    /// Requests the best chain's headers after `previous`, and pings: the pong comes after them.
    fn ask_for_headers(&mut self, previous: BlockHash) -> u64 {
        self.send(NetworkMessage::GetHeaders(GetHeadersMessage {
            version: PROTOCOL_VERSION,
            locator_hashes: vec![previous],
            stop_hash: BlockHash::all_zeros(),
        }));
        self.ping()
    }

    fn limit(&self) -> (Instant, Duration) {
        if self.ready { (self.heard, SILENCE_MAX) } else { (self.started, HANDSHAKE_MAX) }
    }

    /// Takes the next complete message off the input; the length is checked first.
    fn take_frame(&mut self) -> Result<Option<(String, Bytes)>, WireError> {
        if self.input.len() < HEADER_BYTES {
            return Ok(None);
        }
        let header = &self.input[..HEADER_BYTES];
        let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        if word(0) != self.magic.to_bytes() {
            return Err(WireError::Magic(word(0)));
        }
        let command = String::from_utf8_lossy(&header[4..16]).trim_end_matches('\0').to_owned();
        let checksum = word(20);
        let length = usize::try_from(u32::from_le_bytes(word(16))).unwrap_or(usize::MAX);
        if length > PAYLOAD_BYTES_MAX {
            return Err(WireError::Oversized(length));
        }
        if self.input.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.input.advance(HEADER_BYTES);
        let payload = self.input.split_to(length).freeze();
        if sha256d::Hash::hash(&payload)[..4] != checksum {
            return Err(WireError::Checksum(command));
        }
        Ok(Some((command, payload)))
    }

    fn handle_message(&mut self, command: &str, payload: &[u8], now: Instant) -> Result<(), WireError> {
        let unreadable = |error: bitcoin::consensus::encode::Error| WireError::Unreadable {
            command: command.to_owned(),
            reason: error.to_string(),
        };
        match command {
            "version" => {
                let version: VersionMessage = deserialize_partial(payload).map_err(unreadable)?.0;
                self.user_agent = Some(printable(&version.user_agent));
                self.send(NetworkMessage::Verack);
            }
            "verack" => {
                if let (Some(user_agent), false) = (self.user_agent.clone(), self.ready) {
                    self.ready = true;
                    self.pinged = now;
                    self.send(NetworkMessage::SendHeaders);
                    self.events.push_back(Event::Ready(user_agent));
                }
            }
            "ping" => {
                let nonce = deserialize(payload).map_err(unreadable)?;
                self.send(NetworkMessage::Pong(nonce));
            }
            "pong" => self.handle_pong(deserialize(payload).map_err(unreadable)?),
            "inv" => {
                let inventory: Vec<Inventory> = deserialize(payload).map_err(unreadable)?;
                for block in inventory.iter().filter_map(block_of) {
                    self.events.push_back(Event::NewBlock(block));
                }
            }
            "cmpctblock" => {
                let (header, _): (Header, usize) = deserialize_partial(payload).map_err(unreadable)?;
                self.events.push_back(Event::NewBlock(header.block_hash()));
            }
            "headers" => self.handle_headers(&headers(payload).map_err(unreadable)?),
            // The daemon may request the chain from us. We have none.
            "getheaders" => self.send(NetworkMessage::Headers(Vec::new())),
            "getdata" => {
                let inventory: Vec<Inventory> = deserialize(payload).map_err(unreadable)?;
                self.handle_getdata(inventory);
            }
            _ => {}
        }
        Ok(())
    }

    fn handle_getdata(&mut self, inventory: Vec<Inventory>) {
        let mut missing = Vec::new();
        for wanted in inventory {
            let found = self.submissions.iter().find(|one| block_of(&wanted) == Some(one.hash));
            match found.map(|one| one.bytes.clone()) {
                Some(bytes) => self.send_raw("block", &bytes),
                None => missing.push(wanted),
            }
        }
        if !missing.is_empty() {
            self.send(NetworkMessage::NotFound(missing));
        }
    }

    fn handle_headers(&mut self, headers: &[Header]) {
        // Announcements come as `headers` too. They never give a wrong fate, only possibly none.
        for one in &mut self.submissions {
            let (Stage::Asking { heard, .. } | Stage::Probing { heard, .. }) = &mut one.stage else { continue };
            let said = if headers.iter().any(|header| header.block_hash() == one.hash) {
                Fate::InChain
            } else if headers.iter().any(|header| header.prev_blockhash == one.previous) {
                Fate::Displaced
            } else if headers.is_empty() {
                Fate::NotTaken
            } else {
                Fate::Unconnected
            };
            *heard = Some(match (*heard, said) {
                (Some(Fate::InChain), _) | (_, Fate::InChain) => Fate::InChain,
                (Some(Fate::Displaced), _) | (_, Fate::Displaced) => Fate::Displaced,
                (Some(Fate::NotTaken), _) => Fate::NotTaken,
                _ => said,
            });
        }
        if let Some(last) = headers.last() {
            self.events.push_back(Event::NewBlock(last.block_hash()));
        }
    }

    fn handle_pong(&mut self, pong: u64) {
        let waiting = self.submissions.iter().position(|one| match one.stage {
            Stage::Probing { nonce, .. } | Stage::Judging { nonce } | Stage::Asking { nonce, .. } => nonce == pong,
        });
        let Some(index) = waiting else { return };
        match self.submissions[index].stage {
            Stage::Probing { heard: Some(fate @ (Fate::InChain | Fate::Unconnected)), .. } => {
                let one = self.submissions.swap_remove(index);
                self.events.push_back(Event::Fate(one.hash, fate));
            }
            // The daemon has the parent, or is catching up and does not answer.
            Stage::Probing { .. } => {
                let bytes = self.submissions[index].bytes.clone();
                self.send_raw("block", &bytes);
                let nonce = self.ping();
                self.submissions[index].stage = Stage::Judging { nonce };
            }
            Stage::Judging { .. } => {
                let nonce = self.ask_for_headers(self.submissions[index].previous);
                self.submissions[index].stage = Stage::Asking { nonce, heard: None };
            }
            Stage::Asking { heard, .. } => {
                let one = self.submissions.swap_remove(index);
                // No headers at all: a daemon that is catching up does not answer.
                self.events.push_back(Event::Fate(one.hash, heard.unwrap_or(Fate::Unconnected)));
            }
        }
    }

    fn ping(&mut self) -> u64 {
        self.nonce = self.nonce.wrapping_add(1);
        self.send(NetworkMessage::Ping(self.nonce));
        self.nonce
    }

    fn send(&mut self, message: NetworkMessage) {
        self.output.push_back(serialize(&RawNetworkMessage::new(self.magic, message)));
    }

    /// Frames a payload that is serialised already.
    fn send_raw(&mut self, command: &str, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a block is far below 4 GiB");
        let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
        frame.extend_from_slice(&self.magic.to_bytes());
        frame.extend_from_slice(command.as_bytes());
        frame.resize(16, 0);
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&sha256d::Hash::hash(payload)[..4]);
        frame.extend_from_slice(payload);
        self.output.push_back(frame);
    }
}

fn block_of(inventory: &Inventory) -> Option<BlockHash> {
    match inventory {
        Inventory::Block(hash) | Inventory::CompactBlock(hash) | Inventory::WitnessBlock(hash) => Some(*hash),
        _ => None,
    }
}

/// Parses `headers`: a count, then that many headers, each followed by a transaction count of zero.
fn headers(payload: &[u8]) -> Result<Vec<Header>, bitcoin::consensus::encode::Error> {
    let (count, mut at) = deserialize_partial::<bitcoin::VarInt>(payload)?;
    let mut headers = Vec::new();
    // Bounded by the payload: a missing header ends it with an error.
    for _ in 0..count.0 {
        let (header, used) = deserialize_partial::<Header>(&payload[at..])?;
        let (_, none) = deserialize_partial::<bitcoin::VarInt>(&payload[at + used..])?;
        at += used + none;
        headers.push(header);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests;
