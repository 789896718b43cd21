//! Messages of the share network, byte for byte (protocol section 3.2), each with its size limits.
//!
//! Parsing is as strict as in `pack`, with one tolerance of the reference that behaviour vectors show: a `version`
//! whose last field ends early.

use bytes::Bytes;
use sharechain::merkle::Digest;
use sharechain::pack::{Reader, UnpackError, Writer};
use sharechain::share::{self, Share, ShareHash};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use thiserror::Error;

pub use super::command::{
    ADDRESSES_MAX, Command, PAYLOAD_BYTES_MAX, REPLY_SHARES_MAX, REQUEST_HASHES_MAX, SHARES_MAX, SMALL_BYTES_MAX,
    TRANSACTION_HASHES_MAX,
};
use super::frame;
use super::transactions;

/// Address as encoded in messages. IPv4 is encoded as `::ffff:a.b.c.d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Opaque service bits; the reference sends 0.
    pub services: u64,
    /// IPv4 or real IPv6, never IPv4 mapped to IPv6.
    pub address: SocketAddr,
}

/// Announcement of a node by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRecord {
    /// Time of last contact, seconds since 1970, by the announcer's clock.
    pub timestamp: u64,
    /// Listening address of the node.
    pub endpoint: Endpoint,
}

/// First message of either side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Protocol version.
    pub version: u32,
    /// Opaque service bits; the reference sends 0.
    pub services: u64,
    /// Receiver's address as the sender sees it.
    pub to: Endpoint,
    /// Sender's own address: that of its socket, not its public one.
    pub from: Endpoint,
    /// Nonce of the sender, the same on all its connections.
    pub nonce: u64,
    /// Name of the sender's software, any bytes.
    pub sub_version: Bytes,
    /// Always 1, and ignored.
    pub mode: u32,
    /// Best share of the sender.
    pub best_share: Option<ShareHash>,
}

/// Share as carried in messages: version and contents, both unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedShare {
    /// Share version, any number.
    pub version: u64,
    /// Serialised contents.
    pub contents: Bytes,
}

impl WrappedShare {
    /// Wraps a share.
    pub fn of(share: &Share) -> WrappedShare {
        let bytes = Bytes::from(share.to_bytes());
        let (version, contents) =
            share::read_wrapped(&mut Reader::new(&bytes)).expect("a share writes itself in the form that is read");
        WrappedShare { version, contents: bytes.slice_ref(contents) }
    }
}

/// Result of a share request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyResult {
    /// The request was answered.
    Good,
    /// The answer would exceed the maximum payload.
    TooLong,
    /// 2 to 6: reserved.
    Reserved(u8),
}

/// A protocol message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// First message of both sides.
    Version(Version),
    /// Keep-alive, without an answer.
    Ping,
    /// Asks the receiver to announce the sender to others.
    AddrMe {
        /// Listening port of the sender.
        port: u16,
    },
    /// Nodes known to the sender.
    Addrs(Vec<AddressRecord>),
    /// Asks for `addrs`.
    GetAddrs {
        /// Number of records wanted.
        count: u32,
    },
    /// Unsolicited shares, newest first.
    Shares(Vec<WrappedShare>),
    /// Requests shares.
    ShareReq {
        /// Identifier, repeated in the answer.
        id: [u8; 32],
        /// Wanted shares.
        hashes: Vec<ShareHash>,
        /// Number of ancestors of each.
        parents: u64,
        /// Shares to stop before.
        stops: Vec<ShareHash>,
    },
    /// Answers `sharereq`.
    ShareReply {
        /// Identifier of the request.
        id: [u8; 32],
        /// Result of the request.
        result: ReplyResult,
        /// Shares, newest first.
        shares: Vec<WrappedShare>,
    },
    /// Best block header known to the sender.
    BestBlock {
        /// Serialised header.
        header: [u8; 80],
    },
    /// Transactions (wtxids) that the sender knows.
    HaveTx(Vec<Digest>),
    /// Transactions that it no longer knows.
    LosingTx(Vec<Digest>),
    /// Asks the receiver to remember transactions.
    RememberTx {
        /// Transactions that the receiver announced as known.
        hashes: Vec<Digest>,
        /// All others, each with its witness.
        transactions: Vec<Bytes>,
    },
    /// Asks it to drop remembered transactions.
    ForgetTx(Vec<Digest>),
}

/// Reasons why a payload cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("message `{command}`: {problem}")]
pub struct MessageError {
    /// Command of the message.
    pub command: Command,
    /// Cause of the error.
    pub problem: Problem,
}

/// Causes of a message error.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// The payload is not in the format of its command. The reference disconnects for it, without a ban.
    #[error(transparent)]
    Form(#[from] UnpackError),
    /// Too many elements of one kind. Reported before they are parsed, since each takes more memory than its few bytes
    /// on the wire.
    #[error("{count} {what}, maximum is {limit}")]
    TooMany {
        /// Kind of element.
        what: &'static str,
        /// Number of elements.
        count: usize,
        /// Maximum number.
        limit: usize,
    },
}

/// Bytes of a `sharereply` before its shares, their count included: id, result, and a count of up to 252.
const REPLY_HEAD_BYTES: usize = 32 + 1 + 1;

/// Size beyond which an answer gets no further share: the peer requests the rest. A thousand usual shares take less
/// than 2 MB, so only unusually long ones are sent one by one.
const REPLY_BYTES_ENOUGH: usize = 8_000_000;

/// Number of leading `shares` that fit in one `shares` message: as many as a payload holds, and at most [`SHARES_MAX`].
/// 0 if the first alone is too long.
pub fn shares_that_fit(shares: &[Arc<Share>]) -> usize {
    // The count takes one byte, as there are fewer than 253.
    count_within(&shares[..shares.len().min(SHARES_MAX)], 1, PAYLOAD_BYTES_MAX)
}

/// Number of leading `shares` that fit in one `sharereply`. 0 if the first alone is too long.
pub fn replies_that_fit(shares: &[Arc<Share>]) -> usize {
    match count_within(shares, REPLY_HEAD_BYTES + 2, REPLY_BYTES_ENOUGH) {
        0 => count_within(&shares[..shares.len().min(1)], REPLY_HEAD_BYTES, PAYLOAD_BYTES_MAX),
        count => count,
    }
}

fn count_within(shares: &[Arc<Share>], head: usize, limit: usize) -> usize {
    let mut bytes = head;
    let fits = |share: &&Arc<Share>| {
        bytes += share.wire_bytes();
        bytes <= limit
    };
    shares.iter().take_while(fits).count()
}

/// Encodes the frame of a `shares` message without an intermediate payload: it may be long.
pub fn shares_frame(prefix: [u8; 8], shares: &[Arc<Share>]) -> Bytes {
    frame_of_shares(prefix, Command::Shares, shares, |_| {})
}

/// Encodes the frame of a good `sharereply`, like [`shares_frame`].
pub fn reply_frame(prefix: [u8; 8], id: [u8; 32], shares: &[Arc<Share>]) -> Bytes {
    frame_of_shares(prefix, Command::ShareReply, shares, |writer| {
        writer.bytes(&id);
        writer.varint(0);
    })
}

fn frame_of_shares(prefix: [u8; 8], command: Command, shares: &[Arc<Share>], head: impl Fn(&mut Writer)) -> Bytes {
    let length = REPLY_HEAD_BYTES + 8 + shares.iter().map(|share| share.wire_bytes()).sum::<usize>();
    frame::encode_with(prefix, command.word(), length, |writer| {
        head(writer);
        writer.count(shares.len());
        shares.iter().for_each(|share| share.write(writer));
    })
}

impl Message {
    /// Parses a message; `None` for an unknown command, which is to be ignored.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(command: &str, payload: Bytes) -> Result<Option<Message>, MessageError> {
        match Command::from_word(command) {
            Some(command) => Message::parse_as(command, &payload).map(Some),
            None => Ok(None),
        }
    }

    /// Like [`Message::parse`], for a known command.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse_as(command: Command, payload: &Bytes) -> Result<Message, MessageError> {
        let mut reader = Reader::new(payload);
        Message::read(command, &mut reader, payload)
            .and_then(|message| reader.finish(command.word()).map(|()| message).map_err(Problem::Form))
            .map_err(|problem| MessageError { command, problem })
    }

    /// Returns the message's command.
    pub fn command(&self) -> Command {
        match self {
            Message::Version(_) => Command::Version,
            Message::Ping => Command::Ping,
            Message::AddrMe { .. } => Command::AddrMe,
            Message::Addrs(_) => Command::Addrs,
            Message::GetAddrs { .. } => Command::GetAddrs,
            Message::Shares(_) => Command::Shares,
            Message::ShareReq { .. } => Command::ShareReq,
            Message::ShareReply { .. } => Command::ShareReply,
            Message::BestBlock { .. } => Command::BestBlock,
            Message::HaveTx(_) => Command::HaveTx,
            Message::LosingTx(_) => Command::LosingTx,
            Message::RememberTx { .. } => Command::RememberTx,
            Message::ForgetTx(_) => Command::ForgetTx,
        }
    }

    /// Serialises the payload.
    pub fn to_payload(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        self.write(&mut writer);
        writer.into_bytes()
    }

    /// Encodes the message as a frame with this prefix. The payload must not be longer than [`PAYLOAD_BYTES_MAX`].
    pub fn to_frame(&self, prefix: [u8; 8]) -> Bytes {
        frame::encode(prefix, self.command().word(), &self.to_payload())
    }

    fn read(command: Command, reader: &mut Reader, payload: &Bytes) -> Result<Message, Problem> {
        Ok(match command {
            Command::Version => Message::Version(read_version(reader, payload)?),
            Command::Ping => Message::Ping,
            Command::AddrMe => Message::AddrMe { port: reader.u16("addrme.port")? },
            Command::Addrs => {
                let count = reader.count("addrs", 34)?;
                Message::Addrs((0..count).map(|_| read_address(reader)).collect::<Result<_, _>>()?)
            }
            Command::GetAddrs => Message::GetAddrs { count: reader.u32("getaddrs.count")? },
            Command::Shares => Message::Shares(read_shares(reader, payload, SHARES_MAX)?),
            Command::ShareReq => Message::ShareReq {
                id: reader.array("sharereq.id")?,
                hashes: read_share_hashes(reader, "sharereq.hashes")?,
                parents: reader.varint("sharereq.parents")?,
                stops: read_share_hashes(reader, "sharereq.stops")?,
            },
            Command::ShareReply => Message::ShareReply {
                id: reader.array("sharereply.id")?,
                result: read_result(reader)?,
                shares: read_shares(reader, payload, REPLY_SHARES_MAX + REQUEST_HASHES_MAX)?,
            },
            Command::BestBlock => Message::BestBlock { header: reader.array("bestblock.header")? },
            Command::HaveTx => Message::HaveTx(reader.hashes("have_tx.tx_hashes")?.into()),
            Command::LosingTx => Message::LosingTx(reader.hashes("losing_tx.tx_hashes")?.into()),
            Command::RememberTx => {
                let hashes = reader.hashes("remember_tx.tx_hashes")?.into();
                let count = reader.count("remember_tx.txs", transactions::TRANSACTION_BYTES_MIN)?;
                check_count("transactions", count, TRANSACTION_HASHES_MAX)?;
                let read = |_| transactions::read(reader).map(|raw| payload.slice_ref(raw));
                Message::RememberTx { hashes, transactions: (0..count).map(read).collect::<Result<_, _>>()? }
            }
            Command::ForgetTx => Message::ForgetTx(reader.hashes("forget_tx.tx_hashes")?.into()),
        })
    }

    fn write(&self, writer: &mut Writer) {
        match self {
            Message::Version(version) => write_version(writer, version),
            Message::Ping => {}
            Message::AddrMe { port } => writer.u16(*port),
            Message::Addrs(records) => {
                writer.count(records.len());
                for record in records {
                    writer.u64(record.timestamp);
                    write_endpoint(writer, &record.endpoint);
                }
            }
            Message::GetAddrs { count } => writer.u32(*count),
            Message::Shares(shares) => write_shares(writer, shares),
            Message::ShareReq { id, hashes, parents, stops } => {
                writer.bytes(id);
                write_share_hashes(writer, hashes);
                writer.varint(*parents);
                write_share_hashes(writer, stops);
            }
            Message::ShareReply { id, result, shares } => {
                writer.bytes(id);
                writer.varint(match result {
                    ReplyResult::Good => 0,
                    ReplyResult::TooLong => 1,
                    ReplyResult::Reserved(code) => u64::from(*code),
                });
                write_shares(writer, shares);
            }
            Message::BestBlock { header } => writer.bytes(header),
            Message::HaveTx(hashes) | Message::LosingTx(hashes) | Message::ForgetTx(hashes) => writer.hashes(hashes),
            Message::RememberTx { hashes, transactions } => {
                writer.hashes(hashes);
                writer.count(transactions.len());
                for raw in transactions {
                    writer.bytes(raw);
                }
            }
        }
    }
}

fn read_version(reader: &mut Reader, payload: &Bytes) -> Result<Version, UnpackError> {
    Ok(Version {
        version: reader.u32("version.version")?,
        services: reader.u64("version.services")?,
        to: read_endpoint(reader)?,
        from: read_endpoint(reader)?,
        nonce: reader.u64("version.nonce")?,
        sub_version: payload.slice_ref(reader.varstr("version.sub_version")?),
        mode: reader.u32("version.mode")?,
        best_share: read_last_hash(reader)?,
    })
}

/// The reference reads a truncated big number at the end of a payload, if it has at least one byte.
fn read_last_hash(reader: &mut Reader) -> Result<Option<ShareHash>, UnpackError> {
    let field = "version.best_share_hash";
    let mut hash = [0; 32];
    let count = reader.left().clamp(1, 32);
    hash[..count].copy_from_slice(reader.bytes(field, count)?);
    Ok((hash != [0; 32]).then_some(ShareHash(hash)))
}

fn write_version(writer: &mut Writer, version: &Version) {
    writer.u32(version.version);
    writer.u64(version.services);
    write_endpoint(writer, &version.to);
    write_endpoint(writer, &version.from);
    writer.u64(version.nonce);
    writer.varstr(&version.sub_version);
    writer.u32(version.mode);
    writer.hash_or_none(version.best_share.as_ref().map(|hash| &hash.0));
}

fn read_address(reader: &mut Reader) -> Result<AddressRecord, UnpackError> {
    Ok(AddressRecord { timestamp: reader.u64("addrs.timestamp")?, endpoint: read_endpoint(reader)? })
}

fn read_endpoint(reader: &mut Reader) -> Result<Endpoint, UnpackError> {
    let services = reader.u64("address.services")?;
    let ip = IpAddr::V6(Ipv6Addr::from(reader.array::<16>("address.address")?)).to_canonical();
    // Trap 4: big-endian only here.
    let port = reader.u16_big_endian("address.port")?;
    Ok(Endpoint { services, address: SocketAddr::new(ip, port) })
}

fn write_endpoint(writer: &mut Writer, endpoint: &Endpoint) {
    writer.u64(endpoint.services);
    let ip = match endpoint.address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    writer.bytes(&ip.octets());
    writer.u16_big_endian(endpoint.address.port());
}

fn read_share_hashes(reader: &mut Reader, field: &'static str) -> Result<Vec<ShareHash>, UnpackError> {
    let count = reader.count(field, 32)?;
    (0..count).map(|_| reader.array(field).map(ShareHash)).collect()
}

fn write_share_hashes(writer: &mut Writer, hashes: &[ShareHash]) {
    writer.count(hashes.len());
    for hash in hashes {
        writer.bytes(&hash.0);
    }
}

fn read_shares(reader: &mut Reader, payload: &Bytes, limit: usize) -> Result<Vec<WrappedShare>, Problem> {
    let count = reader.count("shares", 2)?;
    check_count("shares", count, limit)?;
    let read = |_| {
        let (version, contents) = share::read_wrapped(reader)?;
        Ok(WrappedShare { version, contents: payload.slice_ref(contents) })
    };
    (0..count).map(read).collect()
}

fn check_count(what: &'static str, count: usize, limit: usize) -> Result<(), Problem> {
    if count > limit { Err(Problem::TooMany { what, count, limit }) } else { Ok(()) }
}

fn write_shares(writer: &mut Writer, shares: &[WrappedShare]) {
    writer.count(shares.len());
    for share in shares {
        writer.varint(share.version);
        writer.varstr(&share.contents);
    }
}

fn read_result(reader: &mut Reader) -> Result<ReplyResult, UnpackError> {
    let field = "sharereply.result";
    let at = reader.at();
    match reader.varint(field)? {
        0 => Ok(ReplyResult::Good),
        1 => Ok(ReplyResult::TooLong),
        value => match u8::try_from(value) {
            Ok(code @ 2..=6) => Ok(ReplyResult::Reserved(code)),
            _ => Err(UnpackError::Impossible { field, at, value }),
        },
    }
}
