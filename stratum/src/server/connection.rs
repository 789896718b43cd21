//! Drives one `Session` over one socket: the only file that knows both.

use bytes::{Buf, Bytes, BytesMut};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::ReusableBoxFuture;
use tracing::{Span, debug, info, trace};

use super::wake_filter::WakeFilter;
use super::{Server, metrics, now};
use crate::mining::work::Work;
use crate::v1::line::{LineTooLong, Lines};
use crate::v1::session::{self, Disconnect, Event, Session};

/// Bytes asked of a socket at a time: a hundred submissions.
const READ_BYTES: usize = 16 * 1024;

/// Pieces that an idle connection keeps room for.
const KEPT_PIECES_MAX: usize = 8;

/// Pieces given to one `writev`.
const PIECES_MAX: usize = 64;

/// Lines handled before others get their turn.
const LINES_PER_TURN_MAX: usize = 128;

/// Turns of a connection's loop between looks at what a busy socket would keep waiting.
const TURNS_BETWEEN_LOOKS: u32 = 64;

/// How long a connection that is being closed may take to read what it still should.
const FAREWELL: Duration = Duration::from_millis(500);

/// How long a miner is still listened to once its connection is being closed. What it sent before it knew of that is judged:
/// it may be a block. Long enough for a slow device behind a slow line.
const LINGER: Duration = Duration::from_secs(2);

/// The same where the miner does not read, or the server stops. What finishes shares waits no longer then.
const LINGER_SHORT: Duration = Duration::from_millis(150);

/// Lines without credit that are still judged once a connection is being closed, lest that be a way around the limits.
const LAST_USELESS_LINES_MAX: u32 = 256;

thread_local! {
    /// Where all connections of a thread read into, one after the other: whoever waits for bytes holds no room for them.
    static READ_BUFFER: RefCell<Box<[u8; READ_BYTES]>> = RefCell::new(Box::new([0; READ_BYTES]));
}

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
            Self::Session(Disconnect::Flood) => "flood",
            Self::Session(Disconnect::Invalid) => "invalid",
            Self::Session(Disconnect::Refused) => "refused",
            Self::Session(Disconnect::Idle) => "idle",
            Self::Session(Disconnect::SmallDevice) => "small_device",
            Self::Blocked => "blocked",
            Self::Extranonce => "extranonce",
            Self::Stopped => "stopped",
        }
    }
}

/// Serves `stream` until it ends.
pub(super) async fn run<W, S>(
    server: &Server<W>,
    config: &Arc<session::Config>,
    stream: S,
    read: BytesMut,
    seed: u64,
    span: Span,
) -> End
where
    W: Work,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut work = server.work.clone();
    let Some(snapshot) = work.borrow_and_update().clone() else { return End::NoWork };
    let Some(extranonce1) = server.extranonces.lease() else { return End::Extranonce };
    metrics::opened();
    let session = Session::new(config.clone(), server.memory.clone(), extranonce1, snapshot, seed, now());
    let mut connection =
        Connection { server, stream, lines: Lines::starting_with(read), session, pending: Pending::default(), span };
    let end = match connection.drive(&mut work).await {
        Ok(never) => match never {},
        // A node that stops makes no more work, either.
        Err(End::NoWork) if server.stop.is_cancelled() => End::Stopped,
        Err(end) => end,
    };
    connection.farewell(&end).await;
    let Connection { session, span, .. } = connection;
    let worker = session.worker().map_or("", |name| name);
    span.in_scope(|| match end {
        End::Eof | End::Stopped => debug!(worker, "miner disconnected"),
        _ => info!(worker, user_agent = session.user_agent(), reason = %end, "miner disconnected"),
    });
    session.close(now());
    end
}

struct Connection<'a, W: Work, S> {
    server: &'a Server<W>,
    stream: S,
    lines: Lines,
    session: Session<W>,
    pending: Pending,
    /// Who it is, for messages.
    span: Span,
}

enum Never {}

/// A job on its way out.
struct JobSince {
    /// When it could be sent.
    ready: Instant,
    /// When its work was made, if that is known.
    made: Option<std::time::Instant>,
}

/// What a connection waits for beside its socket.
enum WakeUp<T> {
    Stopped,
    /// There is other work, unless nobody makes any more.
    Work(Option<T>),
    Alarm,
}

/// Waits until `receiver` has something new, and gives it back.
async fn changed<T>(mut receiver: watch::Receiver<T>) -> Option<watch::Receiver<T>> {
    receiver.changed().await.ok().map(|()| receiver)
}

/// What a socket did.
enum Io {
    Wrote(usize),
    Read(usize),
}

impl<W, S> Connection<'_, W, S>
where
    W: Work,
    S: AsyncRead + AsyncWrite + Unpin,
{
    async fn drive(&mut self, work: &mut watch::Receiver<Option<Arc<W>>>) -> Result<Never, End> {
        let server = self.server;
        let mut bell = WakeFilter::new();
        let mut stopped = pin!(server.stop.cancelled());
        let mut work_changed = ReusableBoxFuture::new(changed(work.clone()));
        let mut blocked_since = Instant::now();
        // The newest job while it is not sent yet.
        let mut job_since = None;
        // One timer for the life of the connection, set anew only when it must ring earlier: it may well ring in vain.
        let mut alarm = pin!(sleep_until(blocked_since + Duration::from_secs(86_400)));
        let mut turn = 0_u32;
        loop {
            let has_more = self.handle_lines().await?;
            self.send_now(&mut blocked_since, &mut job_since).await?;
            let is_sent = self.pending.is_empty();
            // New work waits until the old is sent: whoever reads slowly gets the newest job next, and none between.
            if is_sent && work.has_changed().map_err(|_| End::NoWork)? {
                let Some(snapshot) = work.borrow_and_update().clone() else { return Err(End::NoWork) };
                let job = JobSince { ready: Instant::now(), made: snapshot.made() };
                self.session.handle_work(snapshot, now())?;
                // Work that is no better than what the miner has may wait for the next refresh.
                if self.session.queued_bytes() > 0 {
                    job_since = Some(job);
                    server.meters.job_sent();
                }
                self.act_on_events().await;
                continue;
            }
            let deadline = if is_sent {
                Instant::from_std(self.session.poll_timeout())
            } else {
                blocked_since + server.config.write_timeout
            };
            // A socket that never rests must keep neither the clock nor the end of the server waiting.
            turn = turn.wrapping_add(1);
            if turn.is_multiple_of(TURNS_BETWEEN_LOOKS) {
                if server.stop.is_cancelled() {
                    return Err(End::Stopped);
                }
                if Instant::now() >= deadline {
                    self.ring(is_sent).await?;
                    continue;
                }
            }
            if deadline < alarm.deadline() {
                alarm.as_mut().reset(deadline);
                bell.ring();
            }
            let can_read = !has_more && self.pending.len < server.config.pending_bytes_max;
            let Self { stream, lines, pending, .. } = &mut *self;
            tokio::select! {
                biased;
                // First what nearly always is the reason to wake up.
                done = poll_fn(|context| poll_io(stream, pending, lines, can_read, context)),
                    if can_read || !is_sent => match done? {
                    Io::Wrote(count) => {
                        blocked_since = Instant::now();
                        self.wrote(count, blocked_since, &mut job_since);
                    }
                    Io::Read(0) => return Err(End::Eof),
                    Io::Read(_) => {}
                },
                rare = poll_fn(|context| bell.poll(context, |context| {
                    if stopped.as_mut().poll(context).is_ready() {
                        return Poll::Ready(WakeUp::Stopped);
                    }
                    if let Poll::Ready(receiver) = work_changed.poll(context) {
                        return Poll::Ready(WakeUp::Work(receiver));
                    }
                    alarm.as_mut().poll(context).map(|()| WakeUp::Alarm)
                })) => match rare {
                    WakeUp::Stopped => return Err(End::Stopped),
                    // Looked at on the next turn, or when the old is sent.
                    WakeUp::Work(receiver) => work_changed.set(changed(receiver.ok_or(End::NoWork)?)),
                    WakeUp::Alarm => {
                        let at = Instant::now();
                        alarm.as_mut().reset(at + Duration::from_secs(86_400));
                        if at >= deadline {
                            self.ring(is_sent).await?;
                        }
                    }
                },
                // More lines are here already; the others had their turn.
                () = tokio::task::yield_now(), if has_more => {}
            }
        }
    }

    /// Sends what the session has to say, if it goes out without waiting: as it nearly always does.
    async fn send_now(&mut self, blocked_since: &mut Instant, job_since: &mut Option<JobSince>) -> Result<(), End> {
        let was_sent = self.pending.is_empty();
        self.pending.take_from(&mut self.session);
        if self.pending.is_empty() {
            return Ok(());
        }
        let Self { stream, pending, .. } = &mut *self;
        let written = poll_fn(|context| match pending.poll_write(Pin::new(&mut *stream), context) {
            Poll::Pending => Poll::Ready(Ok(0)),
            ready => ready,
        });
        let written = written.await?;
        // What is sent at once, as answers nearly always are, needs no clock.
        if !self.pending.is_empty() && (was_sent || written > 0) || job_since.is_some() {
            *blocked_since = Instant::now();
        }
        self.wrote(written, *blocked_since, job_since);
        Ok(())
    }

    /// Does what the time demands.
    async fn ring(&mut self, is_sent: bool) -> Result<(), End> {
        if !is_sent {
            return Err(End::Blocked);
        }
        self.session.handle_timeout(now())?;
        self.act_on_events().await;
        Ok(())
    }

    /// Notes that so many bytes are on their way.
    fn wrote(&self, count: usize, at: Instant, job_since: &mut Option<JobSince>) {
        self.server.meters.bytes_sent(count);
        if self.pending.is_empty()
            && let Some(since) = job_since.take()
        {
            self.server.meters.job_took(at - since.ready);
            if let Some(made) = since.made
                && let Some(reached) = self.server.fanout.sent(made, at.into_std())
            {
                self.server.meters.reached(&reached);
            }
        }
    }

    /// Acts on what the clock or new work brought about; what lines did is acted upon as they are handled.
    async fn act_on_events(&mut self) {
        let at = std::time::Instant::now();
        while let Some(event) = self.session.poll_event() {
            self.act_on(event, at).await;
        }
    }

    /// Handles whole lines that have arrived, as long as the answers fit; says whether there may be more.
    async fn handle_lines(&mut self) -> Result<bool, End> {
        // A clock for all of them: they are there already.
        let now = now();
        for _ in 0..LINES_PER_TURN_MAX {
            if self.pending.len + self.session.queued_bytes() >= self.server.config.pending_bytes_max {
                return Ok(false);
            }
            let Self { lines, session, span, .. } = &mut *self;
            let Some(line) = lines.next(session.line_bytes_max())? else { return Ok(false) };
            trace!(parent: &*span, line = %String::from_utf8_lossy(line), "received");
            let handled = session.handle_line(line, now);
            // Before the answer is sent, for a solution must not be lost with this connection.
            while let Some(event) = self.session.poll_event() {
                self.act_on(event, now.instant).await;
            }
            handled?;
        }
        Ok(true)
    }

    async fn act_on(&self, event: Event<W::Ticket>, since: std::time::Instant) {
        match event {
            Event::Solution(solution) => {
                metrics::solution();
                // Waits when the node is behind: a solution is never dropped. The node outlives its connections.
                let _ = self.server.solutions.send(*solution).await;
            }
            Event::Judged { verdict, credit } => self.server.meters.judged(verdict, credit.as_ref(), since.elapsed()),
            Event::Joined(tally) => self.server.tallies.add(tally),
            Event::Authorized(result) => metrics::authorized(result),
            Event::JobTooBig(too_big) => self.span.in_scope(|| self.server.note_small_device(*too_big)),
            Event::NotUnderstood(what) => {
                self.span.in_scope(|| self.server.note_not_understood(what, self.session.user_agent()));
            }
            Event::Resumed => metrics::resumed(),
        }
    }

    /// Judges what the miner had sent before it could know of the end, sends what is still to be sent, if the miner takes it,
    /// and closes: first our direction, and the miner's once it has closed it, too, or some time has passed.
    async fn farewell(&mut self, end: &End) {
        let started = Instant::now();
        let mut last = LastLines {
            // Who has no job has nothing to say that matters.
            useless_left: if self.session.has_jobs() { LAST_USELESS_LINES_MAX } else { 0 },
            has_ended: matches!(end, End::Eof),
        };
        // What is here already is answered first.
        let soon = started + FAREWELL;
        while self.judge_last_lines(&mut last, soon).await && !last.has_ended && Instant::now() < soon {
            let Self { stream, lines, .. } = &mut *self;
            match poll_fn(|context| Poll::Ready(poll_read(stream, lines, context))).await {
                Poll::Ready(read) => last.has_ended = !matches!(read, Ok(1..)),
                Poll::Pending => break,
            }
        }
        if matches!(end, End::Stopped) {
            self.session.reconnect();
        }
        self.pending.take_from(&mut self.session);
        let stop = &self.server.stop;
        let mut is_short = matches!(end, End::Stopped | End::Blocked);
        // Our direction: nothing more is written once it is being closed.
        let (mut is_closing, mut is_closed) = (false, false);
        while !is_closed || (last.useless_left > 0 && !last.has_ended) {
            let linger = if is_short { LINGER_SHORT } else { LINGER };
            let deadline = started + if is_closed { linger } else { FAREWELL };
            let hears = last.useless_left > 0 && !last.has_ended;
            let Self { stream, lines, pending, .. } = &mut *self;
            let io = poll_fn(|context| {
                while !is_closing && !pending.is_empty() {
                    match pending.poll_write(Pin::new(&mut *stream), context) {
                        Poll::Ready(Ok(_)) => {}
                        // It is gone, but what it sent before may still be here.
                        Poll::Ready(Err(_)) => *pending = Pending::default(),
                        Poll::Pending => break,
                    }
                }
                is_closing |= pending.is_empty();
                if is_closing && !is_closed && Pin::new(&mut *stream).poll_shutdown(context).is_ready() {
                    is_closed = true;
                    return Poll::Ready(None);
                }
                if hears { poll_read(stream, lines, context).map(Some) } else { Poll::Pending }
            });
            tokio::select! {
                biased;
                // First, lest a miner that goes on and on is never left.
                () = sleep_until(deadline) => return,
                read = io => if let Some(read) = read {
                    last.has_ended = !matches!(read, Ok(1..));
                    self.judge_last_lines(&mut last, deadline).await;
                    if is_closing {
                        while self.session.poll_line().is_some() {}
                    } else {
                        self.pending.take_from(&mut self.session);
                    }
                },
                () = stop.cancelled(), if !is_short => is_short = true,
            }
        }
    }

    /// Handles lines that have arrived at a connection that is being closed, until `deadline`; says whether there may be more
    /// that matter.
    async fn judge_last_lines(&mut self, last: &mut LastLines, deadline: Instant) -> bool {
        let mut now = now();
        for turn in 1_usize.. {
            if last.useless_left == 0 {
                return false;
            }
            let Self { lines, session, span, .. } = &mut *self;
            let line = match lines.next(session.line_bytes_max()) {
                Ok(None) if last.has_ended => lines.rest(),
                Ok(line) => line,
                Err(LineTooLong(_)) => Some(&[][..]),
            };
            let Some(line) = line else { break };
            trace!(parent: &*span, line = %String::from_utf8_lossy(line), "received at the end");
            if !session.handle_last_line(line, now) {
                last.useless_left -= 1;
            }
            while let Some(event) = self.session.poll_event() {
                self.act_on(event, now.instant).await;
            }
            if turn.is_multiple_of(LINES_PER_TURN_MAX) {
                tokio::task::yield_now().await;
                now = super::now();
                if Instant::now() >= deadline {
                    return false;
                }
            }
        }
        true
    }
}

/// What a connection that is being closed may still say.
struct LastLines {
    useless_left: u32,
    /// Whether no more bytes will come.
    has_ended: bool,
}

/// Writes what is pending, or else reads.
fn poll_io<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    pending: &mut Pending,
    lines: &mut Lines,
    can_read: bool,
    context: &mut Context<'_>,
) -> Poll<io::Result<Io>> {
    if !pending.is_empty()
        && let Poll::Ready(written) = pending.poll_write(Pin::new(&mut *stream), context)
    {
        return Poll::Ready(written.map(Io::Wrote));
    }
    if !can_read {
        return Poll::Pending;
    }
    poll_read(stream, lines, context).map_ok(Io::Read)
}

/// Reads once; zero bytes are the end.
fn poll_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    lines: &mut Lines,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    READ_BUFFER.with_borrow_mut(|buffer| {
        let mut read = ReadBuf::new(&mut buffer[..]);
        match Pin::new(stream).poll_read(context, &mut read) {
            Poll::Ready(Ok(())) => {
                lines.extend(read.filled());
                Poll::Ready(Ok(read.filled().len()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    })
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
            trace!(piece = %String::from_utf8_lossy(&piece), "sent");
            self.len += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Writes once, as much as the socket takes.
    fn poll_write(
        &mut self,
        writer: Pin<&mut (impl AsyncWrite + ?Sized)>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let written = if let [Some(only), None] = [self.pieces.front(), self.pieces.get(1)] {
            match writer.poll_write(context, only) {
                Poll::Ready(Ok(written)) => written,
                other => return other,
            }
        } else {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            match writer.poll_write_vectored(context, &slices[..count]) {
                Poll::Ready(Ok(written)) => written,
                other => return other,
            }
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
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
        if self.pieces.is_empty() && self.pieces.capacity() > KEPT_PIECES_MAX {
            self.pieces = VecDeque::new();
        }
        Poll::Ready(Ok(written))
    }
}
