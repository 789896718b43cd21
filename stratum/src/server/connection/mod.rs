//! Drives one `Session` over one socket: the only file that knows both.

mod end;
mod farewell;
mod pending;
mod read;

use bytes::BytesMut;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::ReusableBoxFuture;
use tracing::{Span, debug, info, trace};

use super::wake_filter::WakeFilter;
use super::{Server, metrics, now};
use crate::mining::work::Work;
use crate::v1::line::Lines;
use crate::v1::session::{self, Event, Session};
use end::End;
use pending::Pending;
use read::poll_read;

/// Lines handled before others get their turn.
const LINES_PER_TURN_MAX: usize = 128;

/// Turns of a connection's loop between looks at what a busy socket would keep waiting.
const TURNS_BETWEEN_LOOKS: u32 = 64;

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
