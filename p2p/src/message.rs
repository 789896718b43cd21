//! The share network's messages, byte for byte (protocol section 3.2), each with the most that one may hold.
//!
//! Reading is as strict as everywhere (`pack`), with one tolerance that the reference has and behaviour vectors show: a
//! `version` whose last field ends early.

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

/// An address as messages write it. IPv4 goes as `::ffff:a.b.c.d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Opaque; the reference's are 0.
    pub services: u64,
    /// IPv4 or real IPv6, never IPv4 in IPv6's clothes.
    pub address: SocketAddr,
}

/// What one node tells another about a third.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRecord {
    /// When it was last seen, seconds since 1970, by its teller's clock.
    pub timestamp: u64,
    /// Where it listens.
    pub endpoint: Endpoint,
}

/// The first message of either side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Protocol version.
    pub version: u32,
    /// Opaque; the reference's are 0.
    pub services: u64,
    /// How the sender sees the receiver.
    pub to: Endpoint,
    /// How the sender sees itself: its socket's address, not its public one.
    pub from: Endpoint,
    /// The sender's, the same on all its connections.
    pub nonce: u64,
    /// The sender's software, any bytes.
    pub sub_version: Bytes,
    /// 1 always, and ignored.
    pub mode: u32,
    /// The sender's best share.
    pub best_share: Option<ShareHash>,
}

/// A share as messages carry it: its version and its bytes, of which nothing is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedShare {
    /// Any number.
    pub version: u64,
    /// What stands behind it.
    pub contents: Bytes,
}

impl WrappedShare {
    /// That of a share.
    pub fn of(share: &Share) -> WrappedShare {
        let bytes = Bytes::from(share.to_bytes());
        let (version, contents) =
            share::read_wrapped(&mut Reader::new(&bytes)).expect("a share writes itself in the form that is read");
        WrappedShare { version, contents: bytes.slice_ref(contents) }
    }
}

/// How a request for shares ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyResult {
    /// Answered.
    Good,
    /// The answer would be longer than a payload may be.
    TooLong,
    /// 2 to 6: without meaning.
    Reserved(u8),
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// First of all, from both sides.
    Version(Version),
    /// A sign of life, without an answer.
    Ping,
    /// Asks the receiver to tell others about the sender.
    AddrMe {
        /// Where the sender listens.
        port: u16,
    },
    /// Nodes that the sender knows.
    Addrs(Vec<AddressRecord>),
    /// Asks for `addrs`.
    GetAddrs {
        /// How many.
        count: u32,
    },
    /// Shares that nobody asked for, newest first.
    Shares(Vec<WrappedShare>),
    /// Asks for shares.
    ShareReq {
        /// Comes back in the answer.
        id: [u8; 32],
        /// The shares wanted.
        hashes: Vec<ShareHash>,
        /// How many ancestors of each.
        parents: u64,
        /// Shares to stop before.
        stops: Vec<ShareHash>,
    },
    /// Answers `sharereq`.
    ShareReply {
        /// That of the request.
        id: [u8; 32],
        /// Whether it could be answered.
        result: ReplyResult,
        /// Newest first.
        shares: Vec<WrappedShare>,
    },
    /// The sender's best block header.
    BestBlock {
        /// As it is hashed.
        header: [u8; 80],
    },
    /// Transactions (wtxids) that the sender knows.
    HaveTx(Vec<Digest>),
    /// Transactions that it no longer knows.
    LosingTx(Vec<Digest>),
    /// Asks the receiver to keep transactions.
    RememberTx {
        /// Those that the receiver said it knows.
        hashes: Vec<Digest>,
        /// All others, each with its witness.
        transactions: Vec<Bytes>,
    },
    /// Asks it to keep them no longer.
    ForgetTx(Vec<Digest>),
}

/// Why a payload is not a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("message `{command}`: {problem}")]
pub struct MessageError {
    /// What it was to be.
    pub command: Command,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a payload.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// It is not in the form of its command. The reference disconnects for it, without a ban.
    #[error(transparent)]
    Form(#[from] UnpackError),
    /// It holds more of something than there is any reason for. Told before they are read, since each takes more memory
    /// than the few bytes that it might take on the wire.
    #[error("{count} {what}, where {limit} are the most")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// What they should not exceed.
        limit: usize,
    },
}

/// Bytes of a `sharereply` before its shares, their count included: id, result, and a count of up to 252.
const REPLY_HEAD_BYTES: usize = 32 + 1 + 1;

/// Beyond this size an answer gets no further share: the other side asks again for what is below. Usual shares take less
/// than 2 MB a thousand, so that only unusually long ones come one by one.
const REPLY_BYTES_ENOUGH: usize = 8_000_000;

/// How many of `shares` one `shares` message takes, from the first on: as many as a payload holds, and no more than
/// [`SHARES_MAX`]. None where the first alone is too long to be sent.
pub fn shares_that_fit(shares: &[Arc<Share>]) -> usize {
    // The count takes one byte, as there are fewer than 253.
    count_within(&shares[..shares.len().min(SHARES_MAX)], 1, PAYLOAD_BYTES_MAX)
}

/// How many of `shares` one `sharereply` takes, from the first on. None where the first alone is too long to be sent.
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

/// The frame of a `shares` with these, written once and not by way of a payload: it may be long.
pub fn shares_frame(prefix: [u8; 8], shares: &[Arc<Share>]) -> Bytes {
    frame_of_shares(prefix, Command::Shares, shares, |_| {})
}

/// The frame of a good `sharereply`, as [`shares_frame`].
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
    /// The message that `payload` is; none for a command that is not ours, which is to be ignored.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(command: &str, payload: Bytes) -> Result<Option<Message>, MessageError> {
        match Command::from_word(command) {
            Some(command) => Message::parse_as(command, &payload).map(Some),
            None => Ok(None),
        }
    }

    /// As [`Message::parse`], of a command that is ours.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse_as(command: Command, payload: &Bytes) -> Result<Message, MessageError> {
        let mut reader = Reader::new(payload);
        Message::read(command, &mut reader, payload)
            .and_then(|message| reader.finish(command.word()).map(|()| message).map_err(Problem::Form))
            .map_err(|problem| MessageError { command, problem })
    }

    /// What it is.
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

    /// Its payload.
    pub fn to_payload(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        self.write(&mut writer);
        writer.into_bytes()
    }

    /// Its bytes on the wire of the network with this prefix. The payload must not be longer than [`PAYLOAD_BYTES_MAX`].
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

/// The reference reads what there is of a big number at the end of a payload, if it is a byte or more.
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
    // Trap 4: big-endian here alone.
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
