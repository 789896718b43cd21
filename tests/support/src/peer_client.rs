//! A peer of the share network controlled by a test: sends arbitrary bytes, and reads frames.
//!
//! It knows frames and the few payloads that tests need from the protocol's description (sections 3.1 and 3.2), and
//! none of the node's code, so that a mistake there cannot hide behind the same mistake here. To it, shares are opaque
//! bytes.

use sha2::{Digest as _, Sha256};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Timeout of steps that a node takes at once, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Current protocol version of nodes.
const PROTOCOL_VERSION: u32 = 3501;

/// Size of a frame's header: prefix, command, length and checksum.
const HEADER_BYTES: usize = 28;

/// Reason why there is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerError {
    /// The connection has ended.
    Disconnected,
    /// Nothing came within the given time.
    TimedOut,
}

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Command, such as `version`, without padding.
    pub command: String,
    /// Bytes after the header.
    pub payload: Vec<u8>,
}

/// Content of `version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Protocol version.
    pub version: u32,
    /// Distinguishes nodes.
    pub nonce: u64,
    /// Name and version of its software.
    pub sub_version: String,
    /// Hash of its best share in wire order; all zero for none.
    pub best_share: [u8; 32],
}

impl Default for Hello {
    /// A current node without shares.
    fn default() -> Self {
        Self {
            version: PROTOCOL_VERSION,
            nonce: fastrand::u64(..),
            sub_version: "test-support".to_owned(),
            best_share: [0; 32],
        }
    }
}

impl Hello {
    /// Payload of `version`, between these two addresses.
    pub fn payload(&self, to: SocketAddr, from: SocketAddr) -> Vec<u8> {
        let mut payload = self.version.to_le_bytes().to_vec();
        payload.extend(0_u64.to_le_bytes());
        payload.extend(endpoint(to));
        payload.extend(endpoint(from));
        payload.extend(self.nonce.to_le_bytes());
        payload.extend(bytes_with_length(self.sub_version.as_bytes()));
        payload.extend(1_u32.to_le_bytes());
        payload.extend(self.best_share);
        payload
    }

    /// Parses the payload of `version`.
    pub fn parse(payload: &[u8]) -> Self {
        let mut reader = Reader(payload);
        let version = reader.u32();
        reader.take(8 + 26 + 26);
        let nonce = reader.u64();
        let length = reader.var_int();
        let sub_version = String::from_utf8_lossy(reader.take(length)).into_owned();
        reader.take(4);
        let best_share = reader.hash();
        Self { version, nonce, sub_version, best_share }
    }
}

/// Content of `sharereq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareRequest {
    /// Id that the reply must repeat.
    pub id: [u8; 32],
    /// Requested shares, in wire order.
    pub hashes: Vec<[u8; 32]>,
    /// Number of ancestors of each.
    pub parents: u64,
    /// Shares to stop at, in wire order.
    pub stops: Vec<[u8; 32]>,
}

impl ShareRequest {
    /// Requests one share and `parents` ancestors, with an id of its own.
    pub fn of(hash: [u8; 32], parents: u64) -> Self {
        let mut id = [0; 32];
        id.fill_with(|| fastrand::u8(..));
        Self { id, hashes: vec![hash], parents, stops: Vec::new() }
    }

    /// Payload of `sharereq`.
    pub fn payload(&self) -> Vec<u8> {
        let mut payload = self.id.to_vec();
        payload.extend(hashes_with_count(&self.hashes));
        payload.extend(var_int(self.parents));
        payload.extend(hashes_with_count(&self.stops));
        payload
    }

    /// Parses the payload of `sharereq`.
    pub fn parse(payload: &[u8]) -> Self {
        let mut reader = Reader(payload);
        let id = reader.hash();
        let hashes = (0..reader.var_int()).map(|_| reader.hash()).collect();
        let parents = reader.var_int() as u64;
        let stops = (0..reader.var_int()).map(|_| reader.hash()).collect();
        Self { id, hashes, parents, stops }
    }
}

/// A connection of the share network.
#[derive(Debug)]
pub struct PeerClient {
    stream: TcpStream,
    prefix: [u8; 8],
    received: Vec<u8>,
    disconnected: bool,
}

impl PeerClient {
    /// Connects to a node of the network with this prefix. Sends nothing.
    pub fn connect(node: SocketAddr, prefix: [u8; 8]) -> Self {
        let stream = TcpStream::connect_timeout(&node, PATIENCE)
            .unwrap_or_else(|error| panic!("no listener for peers at {node}: {error}"));
        Self::new(stream, prefix)
    }

    /// Connects from an address of this machine.
    ///
    /// # Errors
    /// The connection's.
    pub fn connect_from(source: IpAddr, node: SocketAddr, prefix: [u8; 8]) -> std::io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(node), socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect_timeout(&node.into(), PATIENCE)?;
        Ok(Self::new(socket.into(), prefix))
    }

    /// Wraps a connection that a [`PeerListener`] or a test accepted.
    pub fn new(stream: TcpStream, prefix: [u8; 8]) -> Self {
        stream.set_nodelay(true).expect("a connection has this option");
        Self { stream, prefix, received: Vec::new(), disconnected: false }
    }

    /// Address of the other end.
    pub fn remote(&self) -> SocketAddr {
        self.stream.peer_addr().expect("a connection has two ends")
    }

    /// Address of this end.
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("a connection has two ends")
    }

    /// Sends `version`.
    pub fn say_hello(&mut self, hello: &Hello) {
        let payload = hello.payload(self.remote(), self.local());
        self.send("version", &payload);
    }

    /// Sends `version`, and waits for the other's.
    pub fn shake_hands(&mut self, hello: &Hello) -> Hello {
        self.say_hello(hello);
        Hello::parse(&self.wait_for("version"))
    }

    /// Sends a message.
    pub fn send(&mut self, command: &str, payload: &[u8]) {
        self.send_bytes(&frame(self.prefix, command, payload));
    }

    /// Sends raw bytes. Returns false if the connection has ended; earlier data of the other end may still be read.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.set_write_timeout(Some(PATIENCE)).expect("longer than zero");
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends as many of these bytes as the other end reads within `timeout`, and returns their number.
    pub fn send_some(&mut self, bytes: &[u8], timeout: Duration) -> usize {
        let until = Instant::now() + timeout;
        let mut sent = 0;
        while sent < bytes.len() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.stream.set_write_timeout(Some(left)).expect("longer than zero");
            match self.stream.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(_) => break,
            }
        }
        sent
    }

    /// Returns the next message of any kind.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn next_frame(&mut self, timeout: Duration) -> Result<Frame, PeerError> {
        let until = Instant::now() + timeout;
        loop {
            if let Some(frame) = self.take_frame() {
                return Ok(frame);
            }
            if self.disconnected {
                return Err(PeerError::Disconnected);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(PeerError::TimedOut);
            }
            self.stream.set_read_timeout(Some(left)).expect("longer than zero");
            let mut chunk = [0; 65_536];
            match self.stream.read(&mut chunk) {
                Ok(0) => self.disconnected = true,
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.disconnected = true,
            }
        }
    }

    /// Waits until a message satisfies `wanted`, and drops those before it.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn try_wait_for(
        &mut self,
        timeout: Duration,
        mut wanted: impl FnMut(&Frame) -> bool,
    ) -> Result<Frame, PeerError> {
        let until = Instant::now() + timeout;
        loop {
            let frame = self.next_frame(until.saturating_duration_since(Instant::now()))?;
            if wanted(&frame) {
                return Ok(frame);
            }
        }
    }

    /// Waits for a message, and returns its payload.
    pub fn wait_for(&mut self, command: &str) -> Vec<u8> {
        self.try_wait_for(PATIENCE, |frame| frame.command == command)
            .unwrap_or_else(|error| panic!("waiting for {command:?} of {}: {error:?}", self.stream_name()))
            .payload
    }

    /// Requests shares, and returns those of the reply, still wrapped.
    pub fn ask_for_shares(&mut self, request: &ShareRequest) -> Vec<Vec<u8>> {
        self.send("sharereq", &request.payload());
        let reply = self
            .try_wait_for(PATIENCE, |frame| frame.command == "sharereply" && frame.payload.starts_with(&request.id))
            .unwrap_or_else(|error| panic!("waiting for the reply to {request:?}: {error:?}"));
        let mut reader = Reader(&reply.payload);
        reader.take(32);
        assert_eq!(reader.var_int(), 0, "the reply is not good");
        reader.shares()
    }

    /// True if the other end closes the connection within `timeout`. Drops messages until then.
    pub fn disconnected_within(&mut self, timeout: Duration) -> bool {
        self.try_wait_for(timeout, |_| false) == Err(PeerError::Disconnected)
    }

    /// True while the connection stands. Drops received messages.
    pub fn is_connected(&mut self) -> bool {
        !self.disconnected_within(Duration::from_millis(50))
    }

    /// Closes the sending half: the other end reads to the end, and may still send.
    pub fn close_writing(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    fn stream_name(&self) -> String {
        self.stream.peer_addr().map_or_else(|_| "a lost connection".to_owned(), |address| address.to_string())
    }

    /// Takes the first whole frame received. A node sends nothing else, so any error in it is a failure.
    fn take_frame(&mut self) -> Option<Frame> {
        if self.received.len() < HEADER_BYTES {
            return None;
        }
        assert_eq!(self.received[..8], self.prefix, "a frame begins with another prefix");
        let length = u32::from_le_bytes(self.received[20..24].try_into().expect("four bytes")) as usize;
        if self.received.len() < HEADER_BYTES + length {
            return None;
        }
        let rest = self.received.split_off(HEADER_BYTES + length);
        let whole = std::mem::replace(&mut self.received, rest);
        let payload = whole[HEADER_BYTES..].to_vec();
        assert_eq!(whole[24..28], sha256d(&payload)[..4], "a frame has a wrong checksum");
        let command = std::str::from_utf8(&whole[8..20]).expect("a command is ASCII").trim_end_matches('\0').to_owned();
        Some(Frame { command, payload })
    }
}

/// Accepts connections of nodes.
#[derive(Debug)]
pub struct PeerListener {
    listener: TcpListener,
    prefix: [u8; 8],
}

impl PeerListener {
    /// Listens on the loopback interface for nodes of the network with this prefix.
    pub fn bind(prefix: [u8; 8]) -> Self {
        Self::bind_to(SocketAddr::from((Ipv4Addr::LOCALHOST, crate::ports::free_port())), prefix)
    }

    /// Listens at an address.
    pub fn bind_to(address: SocketAddr, prefix: [u8; 8]) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("listening at {address}: {error}"));
        listener.set_nonblocking(true).expect("a listener has this option");
        Self { listener, prefix }
    }

    /// Listening address.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("it is bound")
    }

    /// Returns the next connection, or `None` after `timeout`.
    pub fn accept(&self, timeout: Duration) -> Option<PeerClient> {
        let until = Instant::now() + timeout;
        while Instant::now() < until {
            if let Ok((stream, _)) = self.listener.accept() {
                stream.set_nonblocking(false).expect("a connection has this option");
                return Some(PeerClient::new(stream, self.prefix));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

/// Builds a message with its header.
pub fn frame(prefix: [u8; 8], command: &str, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a test's payload is no longer than four gigabytes");
    frame_with(prefix, command, length, sha256d(payload)[..4].try_into().expect("four bytes"), payload)
}

/// Builds a message with arbitrary header fields.
pub fn frame_with(prefix: [u8; 8], command: &str, length: u32, checksum: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = prefix.to_vec();
    let mut name = [0; 12];
    name[..command.len()].copy_from_slice(command.as_bytes());
    frame.extend(name);
    frame.extend(length.to_le_bytes());
    frame.extend(checksum);
    frame.extend_from_slice(payload);
    frame
}

/// Payload of `shares`: wrapped shares as in replies.
pub fn shares_payload(shares: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = var_int(shares.len() as u64);
    payload.extend(shares.concat());
    payload
}

/// Parses the payload of `shares` into wrapped shares.
pub fn parse_shares(payload: &[u8]) -> Vec<Vec<u8>> {
    Reader(payload).shares()
}

/// Wraps a share's contents with its type.
pub fn wrap_share(kind: u64, contents: &[u8]) -> Vec<u8> {
    let mut wrapped = var_int(kind);
    wrapped.extend(bytes_with_length(contents));
    wrapped
}

/// Unwraps a share into its type and contents.
pub fn unwrap_share(wrapped: &[u8]) -> (u64, Vec<u8>) {
    let mut reader = Reader(wrapped);
    let kind = reader.var_int() as u64;
    let length = reader.var_int();
    (kind, reader.take(length).to_vec())
}

/// Payload of a `sharereply` with result 0.
pub fn reply_payload(id: [u8; 32], shares: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = id.to_vec();
    payload.push(0);
    payload.extend(shares_payload(shares));
    payload
}

/// Payload of `addrs`, of nodes seen at `timestamp` (seconds since 1970).
pub fn addresses_payload(addresses: &[SocketAddr], timestamp: u64) -> Vec<u8> {
    let mut payload = var_int(addresses.len() as u64);
    for &address in addresses {
        payload.extend(timestamp.to_le_bytes());
        payload.extend(endpoint(address));
    }
    payload
}

/// Parses the addresses of an `addrs`.
pub fn parse_addresses(payload: &[u8]) -> Vec<SocketAddr> {
    let mut reader = Reader(payload);
    let count = reader.var_int();
    (0..count)
        .map(|_| {
            reader.take(16);
            let host: [u8; 16] = reader.take(16).try_into().expect("16 bytes");
            let port = u16::from_be_bytes(reader.take(2).try_into().expect("two bytes"));
            SocketAddr::new(std::net::Ipv6Addr::from(host).to_canonical(), port)
        })
        .collect()
}

/// Hashes with their count before them: payload of `have_tx`, `losing_tx` and `forget_tx`.
pub fn hashes_with_count(hashes: &[[u8; 32]]) -> Vec<u8> {
    let mut list = var_int(hashes.len() as u64);
    list.extend(hashes.concat());
    list
}

/// Shortest encoding of a number of varying length.
pub fn var_int(number: u64) -> Vec<u8> {
    match number {
        0..0xfd => vec![number.to_le_bytes()[0]],
        0xfd..0x1_0000 => [&[0xfd], &number.to_le_bytes()[..2]].concat(),
        0x1_0000..0x1_0000_0000 => [&[0xfe], &number.to_le_bytes()[..4]].concat(),
        _ => [&[0xff], &number.to_le_bytes()[..]].concat(),
    }
}

fn bytes_with_length(bytes: &[u8]) -> Vec<u8> {
    let mut out = var_int(bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

/// Services 0, the address in 16 bytes, the port in big-endian order.
fn endpoint(address: SocketAddr) -> Vec<u8> {
    let host = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    [&[0; 8], &host.octets()[..], &address.port().to_be_bytes()].concat()
}

fn sha256d(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(bytes)).into()
}

/// Reads bytes from a node; missing ones are a failure.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count);
        self.0 = rest;
        head
    }

    fn hash(&mut self) -> [u8; 32] {
        self.take(32).try_into().expect("32 bytes")
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    fn var_int(&mut self) -> usize {
        let number = match self.take(1)[0] {
            0xfd => u64::from(u16::from_le_bytes(self.take(2).try_into().expect("two bytes"))),
            0xfe => u64::from(self.u32()),
            0xff => self.u64(),
            small => u64::from(small),
        };
        usize::try_from(number).expect("tests run on 64 bits")
    }

    fn shares(&mut self) -> Vec<Vec<u8>> {
        let count = self.var_int();
        (0..count)
            .map(|_| {
                let start = self.0;
                self.var_int();
                let length = self.var_int();
                self.take(length);
                start[..start.len() - self.0.len()].to_vec()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_of_the_main_network_is_the_one_of_the_protocols_description() {
        let prefix = [0x24, 0x72, 0xef, 0x18, 0x1e, 0xfc, 0xd3, 0x7b];
        let expected = [&prefix[..], b"ping\0\0\0\0\0\0\0\0", &[0, 0, 0, 0], &[0x5d, 0xf6, 0xe0, 0xe2]].concat();
        assert_eq!(frame(prefix, "ping", &[]), expected);
    }

    #[test]
    fn two_peers_shake_hands_and_read_back_what_the_other_wrote() {
        let prefix = *b"peerpeer";
        let listener = PeerListener::bind(prefix);
        let mut dialler = PeerClient::connect(listener.address(), prefix);
        let mut accepted = listener.accept(PATIENCE).expect("it was just dialled");
        let (one, other) = (Hello { best_share: [7; 32], ..Hello::default() }, Hello::default());
        dialler.say_hello(&one);
        assert_eq!(accepted.shake_hands(&other), one);
        assert_eq!(Hello::parse(&dialler.wait_for("version")), other);

        let request = ShareRequest { stops: vec![[2; 32]; 300], ..ShareRequest::of([1; 32], 70_000) };
        dialler.send("sharereq", &request.payload());
        assert_eq!(ShareRequest::parse(&accepted.wait_for("sharereq")), request);
        let shares = [wrap_share(35, &[9; 400]), wrap_share(17, b"x")];
        accepted.send("shares", &shares_payload(&shares));
        assert_eq!(parse_shares(&dialler.wait_for("shares")), shares);
        assert_eq!(unwrap_share(&shares[1]), (17, b"x".to_vec()));
        let addresses = ["1.2.3.4:9333", "[2001:db8::1]:19333"].map(|text| text.parse().expect("an address"));
        dialler.send("addrs", &addresses_payload(&addresses, 5));
        assert_eq!(parse_addresses(&accepted.wait_for("addrs")), addresses);
        drop(dialler);
        assert!(accepted.disconnected_within(PATIENCE));
    }
}
