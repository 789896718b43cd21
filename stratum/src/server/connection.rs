//! Drives one `Session` over one socket: the only file that knows both.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info};

use super::{Server, Terms, metrics, now};
use crate::line::{LineTooLong, Lines};
use crate::session::{Disconnect, Event, Session};
use crate::work::Work;

/// Bytes waiting to be sent above which nothing more is read: a miner that does not read its answers gets no new ones.
const PENDING_BYTES_MAX: usize = 256 * 1024;

/// Bytes asked of the socket at a time: dozens of submissions, while an idle connection holds little.
const READ_BYTES: usize = 4 * 1024;

/// Pieces given to one `writev`.
const PIECES_MAX: usize = 64;

/// How long a connection that is being closed may take to read what it still should.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why a connection ended.
#[derive(Debug, Error)]
pub(super) enum End {
    #[error("the miner closed it")]
    Eof,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Line(#[from] LineTooLong),
    #[error("{0}")]
    Session(#[from] Disconnect),
    #[error("there is nothing to mine")]
    NoWork,
    #[error("the miner did not read what we sent")]
    Blocked,
    #[error("no extranonce is free")]
    Extranonce,
    #[error("the server is stopping")]
    Stopped,
}

impl End {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Eof => "eof",
            Self::Io(_) => "io",
            Self::Line(_) => "line_too_long",
            Self::Session(Disconnect::Malformed(_)) => "malformed",
            Self::Session(Disconnect::HandshakeTimeout) => "handshake_timeout",
            Self::Session(Disconnect::NoWork(_)) | Self::NoWork => "no_work",
            Self::Blocked => "blocked",
            Self::Extranonce => "extranonce",
            Self::Stopped => "stopped",
        }
    }
}

/// Serves `stream` until it ends.
pub(super) async fn run<W, S>(server: &Server<W>, stream: S, read: BytesMut, terms: Terms, seed: u64) -> End
where
    W: Work,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut work = server.work.clone();
    let Some(snapshot) = work.borrow_and_update().clone() else { return End::NoWork };
    let Some(extranonce1) = server.extranonces.lease() else { return End::Extranonce };
    metrics::opened();
    let mut config = server.config.session;
    config.vardiff = terms.vardiff(config.vardiff);
    let session = Session::new(config, extranonce1, snapshot, seed, now());
    let mut connection =
        Connection { server, stream, lines: Lines::starting_with(read), session, pending: Pending::default() };
    let end = match connection.drive(&mut work).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    connection.farewell().await;
    let worker = connection.session.worker().map_or("", |name| name);
    match end {
        End::Eof | End::Stopped => debug!(worker, "miner disconnected"),
        _ => info!(worker, user_agent = connection.session.user_agent(), reason = %end, "miner disconnected"),
    }
    end
}

struct Connection<'a, W: Work, S> {
    server: &'a Server<W>,
    stream: S,
    lines: Lines,
    session: Session<W>,
    pending: Pending,
}

enum Never {}

impl<W, S> Connection<'_, W, S>
where
    W: Work,
    S: AsyncRead + AsyncWrite + Unpin,
{
    async fn drive(&mut self, work: &mut tokio::sync::watch::Receiver<Option<Arc<W>>>) -> Result<Never, End> {
        let mut blocked_since = Instant::now();
        loop {
            self.handle_lines().await?;
            if self.pending.is_empty() {
                blocked_since = Instant::now();
            }
            let deadline = if self.pending.is_empty() {
                Instant::from_std(self.session.poll_timeout())
            } else {
                blocked_since + self.server.config.write_timeout
            };
            let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
            tokio::select! {
                biased;
                () = self.server.stop.cancelled() => return Err(End::Stopped),
                written = self.pending.write_to(&mut writer), if !self.pending.is_empty() => {
                    metrics::bytes_sent(written?);
                    blocked_since = Instant::now();
                }
                // New work waits until the old is sent: whoever reads slowly gets the newest job next, and none between.
                changed = work.changed(), if self.pending.is_empty() => {
                    let snapshot = work.borrow_and_update().clone();
                    let (Ok(()), Some(snapshot)) = (changed, snapshot) else { return Err(End::NoWork) };
                    self.session.handle_work(snapshot, now())?;
                    metrics::job_sent();
                }
                count = read_more(&mut reader, &mut self.lines), if self.pending.len < PENDING_BYTES_MAX => {
                    if count? == 0 {
                        return Err(End::Eof);
                    }
                }
                () = sleep_until(deadline) => {
                    if !self.pending.is_empty() {
                        return Err(End::Blocked);
                    }
                    self.session.handle_timeout(now())?;
                }
            }
            self.pending.take_from(&mut self.session);
        }
    }

    /// Handles every whole line that has arrived, as long as the answers fit.
    async fn handle_lines(&mut self) -> Result<(), End> {
        while self.pending.len < PENDING_BYTES_MAX {
            let Some(line) = self.lines.next(self.session.line_bytes_max())? else { return Ok(()) };
            let now = now();
            let handled = self.session.handle_line(&line, now);
            self.pending.take_from(&mut self.session);
            while let Some(event) = self.session.poll_event() {
                self.act_on(event, now.instant).await;
            }
            handled?;
        }
        Ok(())
    }

    async fn act_on(&self, event: Event<W::Ticket>, since: std::time::Instant) {
        match event {
            Event::Solution(solution) => {
                metrics::solution();
                // Waits when the node is behind: a solution is never dropped. The node outlives its connections.
                let _ = self.server.solutions.send(solution).await;
            }
            Event::Credited(credit) => {
                let (hashes, late) = (credit.difficulty.average_hashes(), credit.late);
                let sent = self.server.credits.try_send(credit);
                metrics::credited(hashes, late, matches!(sent, Err(TrySendError::Full(_))));
            }
            Event::Verdict(verdict) => metrics::verdict(verdict, since.elapsed()),
            Event::Authorized(result) => metrics::authorized(result),
        }
    }

    /// Sends what is still to be sent, if the miner takes it, and closes.
    async fn farewell(&mut self) {
        self.pending.take_from(&mut self.session);
        let last_words = async {
            while !self.pending.is_empty() {
                self.pending.write_to(&mut self.stream).await?;
            }
            self.stream.shutdown().await
        };
        // It is gone either way.
        let _ = timeout(FAREWELL, last_words).await;
    }
}

async fn read_more(reader: &mut (impl AsyncRead + Unpin), lines: &mut Lines) -> io::Result<usize> {
    let buffer = lines.buffer();
    buffer.reserve(READ_BYTES);
    reader.read_buf(buffer).await
}

/// What is to be sent. The pieces are shared between connections; only the list is a connection's own.
#[derive(Debug, Default)]
struct Pending {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn take_from<W: Work>(&mut self, session: &mut Session<W>) {
        while let Some(piece) = session.poll_line() {
            self.len += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Writes once, as much as the socket takes. Safe to cancel: nothing is forgotten before it was written.
    async fn write_to(&mut self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<usize> {
        let written = {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            writer.write_vectored(&slices[..count]).await?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.len -= written;
        let mut rest = written;
        while rest > 0 {
            let first = self.pieces.front_mut().expect("what was written was there");
            let taken = rest.min(first.len());
            first.advance(taken);
            rest -= taken;
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
        Ok(written)
    }
}
