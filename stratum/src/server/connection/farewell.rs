//! Closing of a connection: lines in flight are judged, queued output is sent, and the socket is closed.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tracing::trace;

use super::end::End;
use super::hashes::Hashed;
use super::pending::Pending;
use super::read::poll_read;
use super::{Connection, LINES_PER_TURN_MAX, shown};
use crate::mining::work::Work;
use crate::server::now;
use crate::v1::line::LineTooLong;

/// Maximum time for a miner to read the rest of its output while its connection is being closed.
const FAREWELL: Duration = Duration::from_millis(500);

/// Maximum time to go on reading from a miner while its connection is being closed. Submissions sent before it noticed
/// are judged: one may be a block. Long enough for a slow device behind a slow line.
const LINGER: Duration = Duration::from_secs(2);

/// The same if the miner does not read, its place is needed, or the server stops: finishing shares waits no longer in that case.
const LINGER_SHORT: Duration = Duration::from_millis(150);

/// Useless lines still judged while a connection is being closed: limited, so that closing is no way around the limits.
const LAST_USELESS_LINES_MAX: u32 = 256;

/// Input that is still read while a connection is being closed.
struct LastLines {
    useless_left: u32,
    /// Set at the end of the input.
    has_ended: bool,
}

impl<W, S> Connection<'_, W, S>
where
    W: Work,
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Judges lines sent before the miner could notice the end, sends queued output if the miner reads it, and closes:
    /// our direction first, then the miner's once it has closed it, or after a timeout.
    pub(super) async fn farewell(&mut self, end: &End) {
        let started = Instant::now();
        let mut last = LastLines {
            // A miner without a job has no submissions to wait for.
            useless_left: if self.session.has_jobs() { LAST_USELESS_LINES_MAX } else { 0 },
            has_ended: matches!(end, End::Eof),
        };
        // Lines that have arrived already are answered first.
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
        let mut is_short = matches!(end, End::Stopped | End::Blocked | End::Evicted);
        // Our direction: nothing is written after the shutdown has begun.
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
                        // The miner is gone, but lines that it sent before may still be unread.
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
                // First, so that a miner that never stops sending cannot prevent the timeout.
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

    /// Handles lines that have arrived at a connection that is being closed, until `deadline`; returns true if there
    /// may be more to judge.
    async fn judge_last_lines(&mut self, last: &mut LastLines, deadline: Instant) -> bool {
        let may_have_more = self.handle_last_lines(last, deadline).await;
        // One may be a block: waits for all of them, which takes as long as the queue of the hashing threads allows.
        self.finish_hashes(last).await;
        may_have_more
    }

    async fn handle_last_lines(&mut self, last: &mut LastLines, deadline: Instant) -> bool {
        let mut now = now();
        for turn in 1_usize.. {
            if self.session.is_waiting_for_hashes() {
                self.finish_hashes(last).await;
            }
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
            trace!(parent: &*span, line = %shown(line), "received while closing");
            if !session.handle_last_line(line, now) {
                last.useless_left -= 1;
            }
            while let Some(event) = self.session.poll_event() {
                self.act_on(event, now.instant).await;
            }
            if turn.is_multiple_of(LINES_PER_TURN_MAX) {
                tokio::task::yield_now().await;
                now = crate::server::now();
                if Instant::now() >= deadline {
                    return false;
                }
            }
        }
        true
    }

    /// Waits for the proofs of work of all submissions that have come, and judges them.
    async fn finish_hashes(&mut self, last: &mut LastLines) {
        while let Some(hashes) = &mut self.hashes
            && let Some(Hashed { number, pow_hash, received }) = hashes.next().await
        {
            if !self.session.handle_last_hash(number, pow_hash) {
                last.useless_left = last.useless_left.saturating_sub(1);
            }
            while let Some(event) = self.session.poll_event() {
                self.act_on(event, received).await;
            }
        }
    }
}
