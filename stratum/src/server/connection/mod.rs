//! Drives one `Session` over one socket: the only file that depends on both.

mod end;
mod farewell;
mod hashes;
mod pending;
mod read;
mod wake_ups;

use bytes::BytesMut;
use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{Span, debug, info, trace};

use super::admission::Place;
use super::gatekeeper::{Check, PortService};
use super::hashing::Submitter;
use super::{Server, metrics, now};
use crate::mining::source::Source;
use crate::mining::work::{Refusal, Work};
use crate::v1::line::Lines;
use crate::v1::session::{Event, Session};
use end::End;
use hashes::{Hashed, Hashes};
use pending::Pending;
use read::poll_read;
use wake_ups::{WakeUp, WakeUps};

/// Maximum number of lines handled before other connections get their turn.
const LINES_PER_TURN_MAX: usize = 128;

/// One in this many waits polls the rare wake-ups first, which a busy socket would starve.
const WAITS_PER_LOOK: u32 = 64;

/// Serves `stream` until it ends.
pub(super) async fn run<W, S>(
    server: &Server<W>,
    service: &PortService,
    stream: S,
    read: BytesMut,
    seed: u64,
    span: Span,
    place: &Place,
) -> End
where
    W: Work,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut work = server.work.clone();
    let Some(snapshot) = work.borrow_and_update().clone() else { return End::NoWork };
    let Some(extranonce1) = server.extranonces.lease() else { return End::Extranonce };
    metrics::opened();
    let session = Session::new(service.session.clone(), server.memory.clone(), extranonce1, snapshot, seed, now());
    let session = session.with_address(place.address());
    let mut connection = Connection {
        server,
        service,
        check: None,
        hashes: None,
        submitter: Submitter { source: Source::of(place.address()), number: seed },
        stream,
        lines: Lines::starting_with(read),
        session,
        pending: Pending::default(),
        blocked_since: Instant::now(),
        unsent_job: None,
        waits: 0,
        span,
        place,
        is_credited: false,
    };
    let end = match connection.drive(&mut work).await {
        Ok(never) => match never {},
        // A stopping node makes no more work, either.
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
    service: &'a PortService,
    /// Check of the miner's credentials, while one runs.
    check: Option<Check<'a>>,
    /// Proofs of work being computed; `None` before the first.
    hashes: Option<Hashes>,
    /// This connection among those whose hashes take turns.
    submitter: Submitter,
    stream: S,
    lines: Lines,
    session: Session<W>,
    pending: Pending,
    /// Time at which the socket last took bytes of `pending`; meaningless while that is empty.
    blocked_since: Instant,
    /// Newest job, while a part of it is pending.
    unsent_job: Option<UnsentJob>,
    waits: u32,
    /// Log span of the miner.
    span: Span,
    place: &'a Place,
    /// Set by the first credited submission.
    is_credited: bool,
}

enum Never {}

/// A job whose line is still being sent.
struct UnsentJob {
    /// Time at which it could be sent.
    ready: Instant,
    /// Time at which its work was made, if known.
    made: Option<std::time::Instant>,
}

impl<W, S> Connection<'_, W, S>
where
    W: Work,
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Fulfils the contract of [`Session`] until the connection ends: lines, events, answers, work; then waits.
    async fn drive(&mut self, work: &mut watch::Receiver<Option<Arc<W>>>) -> Result<Never, End> {
        let place = self.place;
        let ended = pin!(place.ended().cancelled());
        let alarm = pin!(sleep_until(self.deadline()));
        let mut wake_ups = WakeUps::new(ended, work.clone(), alarm);
        loop {
            let has_more = self.handle_lines().await?;
            self.send_now().await?;
            // New work waits until the old is sent: a slow reader gets the newest job next, and none in between.
            if self.pending.is_empty() && work.has_changed().map_err(|_| End::NoWork)? {
                let snapshot = work.borrow_and_update().clone().ok_or(End::NoWork)?;
                self.handle_work(snapshot).await?;
                continue;
            }
            wake_ups.ring_by(self.deadline());
            match self.wait(&mut wake_ups, has_more).await? {
                WakeUp::Alarm => self.handle_timeout().await?,
                WakeUp::Checked(result) => self.handle_checked(result).await?,
                WakeUp::Hashed(hashed) => self.handle_hashed(hashed).await?,
                WakeUp::NoWork => return Err(End::NoWork),
                WakeUp::Ended if self.place.is_evicted() => return Err(End::Evicted),
                WakeUp::Ended => return Err(End::Stopped),
                // The next turn handles it.
                WakeUp::Socket | WakeUp::Turn | WakeUp::Work => {}
            }
        }
    }

    /// Deadline of the session, or of a miner that does not read.
    fn deadline(&self) -> Instant {
        if self.pending.is_empty() {
            Instant::from_std(self.session.poll_timeout())
        } else {
            self.blocked_since + self.server.config.write_timeout
        }
    }

    /// Waits for the socket first, by far the most frequent wake-up, then for the rare ones. If more lines are
    /// buffered, yields to other connections instead.
    async fn wait<T>(&mut self, wake_ups: &mut WakeUps<'_, '_, T>, has_more: bool) -> Result<WakeUp, End>
    where
        T: Send + Sync + 'static,
    {
        let has_room = self.pending.len < self.server.config.pending_bytes_max;
        let can_read = !has_more && has_room && self.takes_lines();
        self.waits = self.waits.wrapping_add(1);
        let looks_first = self.waits.is_multiple_of(WAITS_PER_LOOK);
        let any = poll_fn(|context| {
            if looks_first && let Poll::Ready(wake_up) = wake_ups.poll(context) {
                return Poll::Ready(Ok(wake_up));
            }
            if let Poll::Ready(result) = self.poll_check(context) {
                return Poll::Ready(Ok(WakeUp::Checked(result)));
            }
            if let Some(hashes) = &mut self.hashes
                && let Poll::Ready(hashed) = hashes.poll(context)
            {
                return Poll::Ready(Ok(WakeUp::Hashed(hashed)));
            }
            match self.poll_io(can_read, context) {
                Poll::Ready(done) => Poll::Ready(done.map(|()| WakeUp::Socket)),
                Poll::Pending => wake_ups.poll(context).map(Ok),
            }
        });
        tokio::select! {
            biased;
            wake_up = any => wake_up,
            () = tokio::task::yield_now(), if has_more => Ok(WakeUp::Turn),
        }
    }

    /// Polls the check of credentials, if one runs.
    fn poll_check(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        let Some(check) = &mut self.check else { return Poll::Pending };
        let result = check.as_mut().poll(context);
        if result.is_ready() {
            self.check = None;
        }
        result
    }

    /// Writes what is pending, or else reads.
    fn poll_io(&mut self, can_read: bool, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        if !self.pending.is_empty()
            && let Poll::Ready(written) = self.pending.poll_write(Pin::new(&mut self.stream), context)
        {
            return Poll::Ready(written.map(|count| self.on_written(count)).map_err(End::from));
        }
        if !can_read {
            return Poll::Pending;
        }
        poll_read(&mut self.stream, &mut self.lines, context).map(|read| match read? {
            0 => Err(End::Eof),
            _ => Ok(()),
        })
    }

    /// Sends the session's output as far as possible without waiting: nearly always all of it.
    async fn send_now(&mut self) -> Result<(), End> {
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
        // A connection that was blocked before, and still is, keeps its start of blocking.
        if was_sent || written > 0 {
            self.on_written(written);
        }
        Ok(())
    }

    /// Records that the socket took `count` bytes.
    fn on_written(&mut self, count: usize) {
        self.server.meters.bytes_sent(count);
        // Output sent in one go, as nearly all answers are, needs no clock.
        if !self.pending.is_empty() {
            self.blocked_since = Instant::now();
        } else if let Some(job) = self.unsent_job.take() {
            self.on_job_sent(&job, Instant::now());
        }
    }

    fn on_job_sent(&self, job: &UnsentJob, at: Instant) {
        self.server.meters.job_took(at - job.ready);
        if let Some(made) = job.made
            && let Some(reached) = self.server.fanout.sent(made, at.into_std())
        {
            self.server.meters.reached(&reached);
        }
    }

    /// Passes new work to the session; everything before it has been sent.
    async fn handle_work(&mut self, work: Arc<W>) -> Result<(), End> {
        let job = UnsentJob { ready: Instant::now(), made: work.made() };
        self.session.handle_work(work, now())?;
        // Work no better than the miner's current job waits for the next refresh.
        if self.session.queued_bytes() > 0 {
            self.unsent_job = Some(job);
            self.server.meters.job_sent();
        }
        self.act_on_events().await;
        Ok(())
    }

    /// Handles the timeout if the deadline has passed; the alarm may ring early.
    async fn handle_timeout(&mut self) -> Result<(), End> {
        if Instant::now() < self.deadline() {
            return Ok(());
        }
        if !self.pending.is_empty() {
            return Err(End::Blocked);
        }
        self.session.handle_timeout(now())?;
        self.act_on_events().await;
        Ok(())
    }

    /// Passes the result of a check to the session.
    async fn handle_checked(&mut self, result: Result<(), Refusal>) -> Result<(), End> {
        let handled = self.session.handle_credentials(result, now());
        self.act_on_events().await;
        Ok(handled?)
    }

    /// Passes a hash to the session, and those that have come meanwhile: their answers are sent together.
    async fn handle_hashed(&mut self, hashed: Hashed) -> Result<(), End> {
        let mut next = Some(hashed);
        while let Some(Hashed { number, pow_hash, received }) = next {
            let handled = self.session.handle_hash(number, pow_hash, now());
            while let Some(event) = self.session.poll_event() {
                self.act_on(event, received).await;
            }
            handled?;
            next = self.hashes.as_mut().and_then(Hashes::try_next);
        }
        Ok(())
    }

    /// True if the session takes the next line.
    fn takes_lines(&self) -> bool {
        !self.session.is_waiting_for_check() && !self.session.is_waiting_for_hashes()
    }

    /// Processes events of timeouts, new work and checks; those of lines are processed line by line.
    async fn act_on_events(&mut self) {
        let at = std::time::Instant::now();
        while let Some(event) = self.session.poll_event() {
            self.act_on(event, at).await;
        }
    }

    /// Handles whole lines that have arrived, as long as the answers fit; returns true if there may be more.
    async fn handle_lines(&mut self) -> Result<bool, End> {
        // One time for all of them: they have arrived already.
        let now = now();
        for _ in 0..LINES_PER_TURN_MAX {
            if self.pending.len + self.session.queued_bytes() >= self.server.config.pending_bytes_max {
                return Ok(false);
            }
            if !self.takes_lines() {
                return Ok(false);
            }
            let Self { lines, session, span, .. } = &mut *self;
            let Some(line) = lines.next(session.line_bytes_max())? else { return Ok(false) };
            trace!(parent: &*span, line = %shown(line), "received");
            let handled = session.handle_line(line, now);
            // Before the answer is sent: a solution must not be lost with this connection.
            while let Some(event) = self.session.poll_event() {
                self.act_on(event, now.instant).await;
            }
            handled?;
        }
        Ok(true)
    }

    async fn act_on(&mut self, event: Event<W::Ticket>, since: std::time::Instant) {
        match event {
            Event::Solution(solution) => {
                metrics::solution();
                // Waits when the node is behind: a solution is never dropped. The node outlives its connections.
                let _ = self.server.solutions.send(*solution).await;
            }
            Event::Judged { verdict, credit } => {
                if credit.is_some() && !self.is_credited {
                    self.is_credited = true;
                    self.place.credit();
                }
                self.server.meters.judged(verdict, credit.as_ref(), since.elapsed());
            }
            Event::Joined(tally) => self.server.tallies.add(tally),
            // Without a gatekeeper no session asks.
            Event::Credentials(credentials) => {
                let gatekeeper = self.service.gatekeeper.as_deref();
                self.check = gatekeeper.map(|gatekeeper| gatekeeper.check(credentials, self.place.address()));
            }
            Event::Hash(request) => {
                let hashes = self.hashes.get_or_insert_with(Hashes::new);
                hashes.request(&self.server.hashers, self.submitter, &request, since);
            }
            Event::Authorized(result) => metrics::authorized(result),
            Event::JobTooBig(too_big) => self.span.in_scope(|| self.server.note_small_device(*too_big)),
            Event::NotUnderstood(what) => {
                self.span.in_scope(|| self.server.note_not_understood(what, self.session.user_agent()));
            }
            Event::Resumed => metrics::resumed(),
        }
    }
}

/// Line for the log. One with a password is not shown.
fn shown(line: &[u8]) -> Cow<'_, str> {
    let has_password = memchr::memmem::find(line, b"mining.authorize").is_some();
    if has_password { Cow::Borrowed("mining.authorize") } else { String::from_utf8_lossy(line) }
}
