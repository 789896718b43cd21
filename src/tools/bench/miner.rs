//! A miner of the generator: says hello, finds real submissions for its job, and understands what it is told.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;
use stratum::mining::midstate::Midstate;
use stratum::{Difficulty, Target};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::bare::{ACCEPTED, write_all};
use super::child::Child;

/// Bytes read at a time: a whole job, so that a generator of ten thousand miners is no slower than it must be.
const READ_BYTES: usize = 64 * 1024;

/// How long a miner waits for its first job.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What of an incomplete line is kept: enough to tell what it is, whatever follows.
const HEAD_BYTES_MAX: usize = 512;

/// What of its end.
const TAIL_BYTES: usize = 16;

thread_local! {
    /// Where all miners of a thread read into.
    static READ_BUFFER: RefCell<Box<[u8; READ_BYTES]>> = RefCell::new(Box::new([0; READ_BYTES]));
}

/// Waits for bytes, and gives them to `take`.
///
/// # Errors
/// The connection is over.
pub(super) async fn read(reader: &mut OwnedReadHalf, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    poll_fn(|context| {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(&mut buffer[..]);
            ready!(Pin::new(&mut *reader).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            take(read.filled());
            Poll::Ready(Ok(()))
        })
    })
    .await
}

/// Connects as a miner does.
pub(super) async fn connect(address: SocketAddr) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream.into_split())
}

/// A miner with its first job.
#[derive(Debug)]
pub(super) struct Miner {
    pub(super) reader: OwnedReadHalf,
    pub(super) writer: OwnedWriteHalf,
    /// The job's line.
    pub(super) job: String,
    pub(super) grinder: Grinder,
}

impl Miner {
    /// Joins the node as the worker `name`.
    pub(super) async fn join(node: &Child, name: &str) -> Result<Self> {
        Self::join_at(node.address, name).await
    }

    /// The same, of a node at `address`.
    pub(super) async fn join_at(address: SocketAddr, name: &str) -> Result<Self> {
        timeout(JOIN_TIMEOUT, Self::greet(address, name)).await.context("no job came")?
    }

    async fn greet(address: SocketAddr, name: &str) -> Result<Self> {
        let (mut reader, writer) = connect(address).await.context("cannot connect")?;
        let hello = format!(
            "{{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[\"bench/1\"]}}\n\
             {{\"id\":2,\"method\":\"mining.authorize\",\"params\":[\"{name}\",\"x\"]}}\n"
        );
        write_all(&writer, hello.as_bytes()).await?;
        let mut seen = Vec::new();
        let (mut extranonce1, mut target) = (None, None);
        let mut done = 0;
        loop {
            read(&mut reader, |bytes| seen.extend_from_slice(bytes)).await?;
            while let Some(length) = memchr::memchr(b'\n', &seen[done..]) {
                let line = std::str::from_utf8(&seen[done..done + length])?;
                done += length + 1;
                let value: Value = serde_json::from_str(line)?;
                ensure!(value["error"].is_null(), "refused: {line}");
                match value["method"].as_str() {
                    None if value["id"] == 1 => extranonce1 = value["result"][1].as_str().map(str::to_owned),
                    Some("mining.set_difficulty") => {
                        target = value["params"][0].as_f64().and_then(Difficulty::new).map(Difficulty::target);
                    }
                    Some("mining.notify") => {
                        let extranonce1 = extranonce1.context("a job before an extranonce1")?;
                        let target = target.context("a job before a difficulty")?;
                        let job = Job::read(&value["params"]).context("a job of an unknown form")?;
                        return Ok(Self {
                            reader,
                            writer,
                            job: line.to_owned(),
                            grinder: Grinder::new(name, &job, &extranonce1, target)?,
                        });
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The fields of `mining.notify`, as text.
struct Job<'a> {
    id: &'a str,
    previous: &'a str,
    coinbase: [&'a str; 2],
    branch: Vec<&'a str>,
    version: &'a str,
    bits: &'a str,
    time: &'a str,
}

impl<'a> Job<'a> {
    fn read(params: &'a Value) -> Option<Self> {
        let text = |index: usize| params[index].as_str();
        Some(Self {
            id: text(0)?,
            previous: text(1)?,
            coinbase: [text(2)?, text(3)?],
            branch: params[4].as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?,
            version: text(5)?,
            bits: text(6)?,
            time: text(7)?,
        })
    }
}

/// What a device does with the miner's part of the extranonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extranonce2 {
    /// It stays with one for as long as there are nonces, as devices do: these are four billion.
    Kept,
    /// It takes another one for each submission, so that no two have a coinbase in common.
    Fresh,
}

/// Finds submissions that are worth something: of the coinbase and of the header, what stays is hashed once.
#[derive(Debug)]
pub(super) struct Grinder {
    /// Of a line: what is before the extranonce2, and from there to the nonce.
    text: [String; 2],
    /// The coinbase before the extranonce2, and behind it.
    coinbase: (Midstate, Vec<u8>),
    branch: Vec<[u8; 32]>,
    /// The header before the merkle root, and from there to the nonce.
    fields: [Vec<u8>; 2],
    target: Target,
    extranonce2: u32,
    /// The header before the nonce.
    header: Midstate,
    nonce: u32,
}

impl Grinder {
    fn new(name: &str, job: &Job<'_>, extranonce1: &str, target: Target) -> Result<Self> {
        let head = hex::decode([job.coinbase[0], extranonce1].concat())?;
        let number = |digits: &str| u32::from_str_radix(digits, 16).map(u32::to_le_bytes);
        let mut previous = hex::decode(job.previous)?;
        previous.chunks_exact_mut(4).for_each(<[u8]>::reverse);
        ensure!(previous.len() == 32, "the job's previous block is none");
        let mut grinder = Self {
            text: [
                format!(r#"{{"id":4,"method":"mining.submit","params":["{name}","{}",""#, job.id),
                format!(r#"","{}",""#, job.time),
            ],
            coinbase: (Midstate::new(&head), hex::decode(job.coinbase[1])?),
            branch: job.branch.iter().map(|digits| Ok(digits_of(digits)?)).collect::<Result<_>>()?,
            fields: [[&number(job.version)?[..], &previous].concat(), [number(job.time)?, number(job.bits)?].concat()],
            target,
            extranonce2: 0,
            header: Midstate::new(&[]),
            nonce: 0,
        };
        grinder.begin(0);
        Ok(grinder)
    }

    /// Goes on with this extranonce2.
    fn begin(&mut self, extranonce2: u32) {
        self.extranonce2 = extranonce2;
        self.nonce = 0;
        let (head, tail) = &self.coinbase;
        let mut coinbase = head.clone();
        coinbase.update(&extranonce2.to_be_bytes());
        coinbase.update(tail);
        let root = self.branch.iter().fold(coinbase.finish_double(), |root, sibling| {
            let mut pair = Midstate::new(&root);
            pair.update(sibling);
            pair.finish_double()
        });
        self.header = Midstate::new(&self.fields[0]);
        self.header.update(&root);
        self.header.update(&self.fields[1]);
    }

    /// So many more submissions, rendered, one line after the other, all of one length.
    pub(super) fn lines(&mut self, count: usize, extranonce2: Extranonce2) -> Lines {
        let bytes_each = self.text[0].len() + 8 + self.text[1].len() + 8 + 4;
        let mut bytes = Vec::with_capacity(count * bytes_each);
        for _ in 0..count {
            if extranonce2 == Extranonce2::Fresh {
                self.begin(self.extranonce2 + 1);
            }
            let nonce = self.next_nonce();
            let Self { text: [before, between], extranonce2, .. } = self;
            // Writing to memory does not fail.
            let _ = writeln!(bytes, "{before}{extranonce2:08x}{between}{nonce:08x}\"]}}");
        }
        Lines { bytes: bytes.into(), bytes_each, next: 0 }
    }

    fn next_nonce(&mut self) -> u32 {
        loop {
            let nonce = self.nonce;
            self.nonce += 1;
            let mut header = self.header.clone();
            header.update(&nonce.to_le_bytes());
            if self.target.is_met_by(&header.finish_double()) {
                return nonce;
            }
        }
    }
}

/// The 32 bytes of a hash.
fn digits_of(digits: &str) -> Result<[u8; 32], hex::FromHexError> {
    let mut hash = [0; 32];
    hex::decode_to_slice(digits, &mut hash).map(|()| hash)
}

/// Submissions to be sent, each once.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines {
    bytes: Arc<[u8]>,
    bytes_each: usize,
    next: usize,
}

impl Lines {
    /// The next ones, at most so many; none when all are taken.
    pub(super) fn take(&mut self, count: usize) -> &[u8] {
        let end = (self.next + count).min(self.bytes.len() / self.bytes_each);
        let taken = &self.bytes[self.next * self.bytes_each..end * self.bytes_each];
        self.next = end;
        taken
    }

    /// Bytes of a line.
    pub(super) fn bytes_each(&self) -> usize {
        self.bytes_each
    }

    /// Whether all are taken.
    pub(super) fn is_spent(&self) -> bool {
        self.next * self.bytes_each >= self.bytes.len()
    }

    /// Starts over: for a server that does not mind.
    pub(super) fn rewind(&mut self) {
        self.next = 0;
    }
}

/// What a server said in one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServerLine {
    /// A submission was accepted.
    Accepted,
    /// It was not: what the server said.
    Rejected(String),
    /// A job, and whether the old ones are to be dropped.
    Job { clean: bool },
    /// Something else.
    Other,
}

/// Understands what a server says, however it is cut.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    /// Of the line that is not complete.
    partial: Vec<u8>,
}

impl LineReader {
    /// Tells `each` what the whole lines among `bytes` say.
    pub(super) fn hear(&mut self, mut bytes: &[u8], mut each: impl FnMut(ServerLine)) {
        while let Some(length) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(length + 1);
            bytes = rest;
            if self.partial.is_empty() {
                each(understand(line));
            } else {
                self.keep(line);
                each(understand(&self.partial));
                self.partial.clear();
            }
        }
        self.keep(bytes);
    }

    /// Jobs are kilobytes, and ten thousand miners get them at once: only both ends are kept.
    fn keep(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES_MAX)]);
        if bytes.len() > HEAD_BYTES_MAX {
            self.partial.extend_from_slice(&bytes[bytes.len() - TAIL_BYTES.min(bytes.len() - HEAD_BYTES_MAX)..]);
        }
        if self.partial.len() > 2 * HEAD_BYTES_MAX {
            self.partial.drain(HEAD_BYTES_MAX..self.partial.len() - TAIL_BYTES);
        }
    }
}

fn understand(line: &[u8]) -> ServerLine {
    const JOB: &[u8] = br#"{"id":null,"method":"mining.notify""#;
    if line == ACCEPTED {
        ServerLine::Accepted
    } else if line.starts_with(JOB) {
        ServerLine::Job { clean: line.ends_with(b"true]}\n") }
    } else if memchr::memmem::find(line, b"\"error\":[").is_some() {
        ServerLine::Rejected(String::from_utf8_lossy(line).trim_end().to_owned())
    } else {
        ServerLine::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood_however_they_are_cut() {
        let job =
            [br#"{"id":null,"method":"mining.notify","params":["#.as_slice(), &[b'0'; 20_000], b"true]}\n"].concat();
        let refusal = b"{\"id\":4,\"result\":null,\"error\":[21,\"no\",null]}\n";
        let said = [ACCEPTED, &job, refusal, ACCEPTED].concat();
        let mut whole = Vec::new();
        LineReader::default().hear(&said, |heard| whole.push(heard));
        assert_eq!(whole[..2], [ServerLine::Accepted, ServerLine::Job { clean: true }]);
        assert!(matches!(whole[2], ServerLine::Rejected(_)));
        assert_eq!(whole.len(), 4);
        for size in [1, 7, 600, 5000] {
            let (mut ear, mut heard) = (LineReader::default(), Vec::new());
            said.chunks(size).for_each(|chunk| ear.hear(chunk, |one| heard.push(one)));
            assert_eq!(heard, whole, "in pieces of {size}");
        }
    }
}
