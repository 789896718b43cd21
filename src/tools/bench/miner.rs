//! A miner of the load generator: subscribes, finds real submissions for its job, and parses the server's messages.

use anyhow::{Context, Result};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use stratum::Target;
use stratum::mining::midstate::Midstate;
use stratum::v1::client::{Client, ClientEvent, ReceivedJob};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::socket::{connect, read, write_all};

/// The node's answer to an accepted submission, byte for byte.
pub(super) const ACCEPTED: &[u8] = b"{\"id\":4,\"result\":true,\"error\":null}\n";

/// Maximum size of a line, in bytes: a job whose coinbase pays thousands fits.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Timeout of a miner's first job.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes kept of an incomplete line's start: enough to recognise it.
const HEAD_BYTES_MAX: usize = 512;

/// Bytes kept of its end.
const TAIL_BYTES: usize = 16;

/// A miner with its first job.
#[derive(Debug)]
pub(super) struct Miner {
    pub(super) reader: OwnedReadHalf,
    pub(super) writer: OwnedWriteHalf,
    /// Line of the job.
    pub(super) job: String,
    pub(super) grinder: Grinder,
}

impl Miner {
    /// Connects to the node at `address` as the worker `name`, with the address `client` if the node trusts PROXY
    /// headers.
    pub(super) async fn join(address: SocketAddr, client: Option<Ipv4Addr>, name: &str) -> Result<Self> {
        timeout(JOIN_TIMEOUT, Self::greet(address, client, name)).await.context("no job came")?
    }

    async fn greet(address: SocketAddr, client: Option<Ipv4Addr>, name: &str) -> Result<Self> {
        let (mut reader, writer) = connect(address, client).await.context("cannot connect")?;
        let mut client = Client::default();
        let hello = [client.subscribe("bench/1"), client.authorize(name, "x")].concat();
        write_all(&writer, hello.as_bytes()).await?;
        let mut lines = stratum::v1::line::Lines::default();
        loop {
            read(&mut reader, |bytes| lines.extend(bytes)).await.context("closed before the first job")?;
            while let Some(line) = lines.next(LINE_BYTES_MAX)? {
                if let Some(ClientEvent::Job(job)) = client.handle_line(line)? {
                    let line = String::from_utf8(line.to_vec())?;
                    return Ok(Self { reader, writer, job: line, grinder: Grinder::new(name, *job) });
                }
            }
        }
    }
}

/// A device's use of its part of the extranonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extranonce2 {
    /// Keeps one while it has nonces, like devices: four billion.
    Kept,
    /// Takes another one for each submission, so that no two share a coinbase.
    Fresh,
}

/// Finds valid submissions: constant parts of coinbase and header are hashed once.
#[derive(Debug)]
pub(super) struct Grinder {
    /// Line before the extranonce2, and from there to the nonce.
    text: [String; 2],
    job: ReceivedJob,
    target: Target,
    extranonce2: u32,
    /// Midstate of the header before the nonce.
    header: Midstate,
    nonce: u32,
}

impl Grinder {
    fn new(name: &str, job: ReceivedJob) -> Self {
        let mut grinder = Self {
            text: [
                format!(r#"{{"id":4,"method":"mining.submit","params":["{name}","{}",""#, job.name),
                format!(r#"","{:08x}",""#, job.time),
            ],
            target: job.target(),
            job,
            extranonce2: 0,
            header: Midstate::new(&[]),
            nonce: 0,
        };
        grinder.begin(0);
        grinder
    }

    /// Switches to this extranonce2.
    fn begin(&mut self, extranonce2: u32) {
        self.extranonce2 = extranonce2;
        self.nonce = 0;
        let header = self.job.header(&extranonce2.to_be_bytes());
        self.header = Midstate::new(&header[..76]);
    }

    /// Finds `count` more submissions, as lines of equal length.
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

/// Submissions to send, each once.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines {
    bytes: Arc<[u8]>,
    bytes_each: usize,
    next: usize,
}

impl Lines {
    /// Takes up to `count` next lines; none if all are taken.
    pub(super) fn take(&mut self, count: usize) -> &[u8] {
        let end = (self.next + count).min(self.bytes.len() / self.bytes_each);
        let taken = &self.bytes[self.next * self.bytes_each..end * self.bytes_each];
        self.next = end;
        taken
    }

    /// Bytes per line.
    pub(super) fn bytes_each(&self) -> usize {
        self.bytes_each
    }

    /// True if all are taken.
    pub(super) fn is_spent(&self) -> bool {
        self.next * self.bytes_each >= self.bytes.len()
    }

    /// Starts over, for a server that accepts duplicates.
    pub(super) fn rewind(&mut self) {
        self.next = 0;
    }
}

/// Meaning of a server's line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServerLine {
    /// Submission accepted.
    Accepted,
    /// Submission rejected, with the server's line.
    Rejected(String),
    /// Job; `clean` if it replaces older ones.
    Job { clean: bool },
    /// Any other line.
    Other,
}

/// Parses a server's lines, however the stream is split.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    /// Start of the incomplete line.
    partial: Vec<u8>,
}

impl LineReader {
    /// Calls `each` for every complete line in `bytes`.
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
