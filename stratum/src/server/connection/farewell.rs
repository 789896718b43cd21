//! The end of a connection: what was under way is judged, what is to be sent goes out, and the socket is closed.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tracing::trace;

use super::end::End;
use super::pending::Pending;
use super::read::poll_read;
use super::{Connection, LINES_PER_TURN_MAX};
use crate::mining::work::Work;
use crate::server::now;
use crate::v1::line::LineTooLong;

/// How long a connection that is being closed may take to read what it still should.
const FAREWELL: Duration = Duration::from_millis(500);

/// How long a miner is still listened to once its connection is being closed. What it sent before it knew of that is judged:
/// it may be a block. Long enough for a slow device behind a slow line.
const LINGER: Duration = Duration::from_secs(2);

/// The same where the miner does not read, or the server stops. What finishes shares waits no longer then.
const LINGER_SHORT: Duration = Duration::from_millis(150);

/// Lines without credit that are still judged once a connection is being closed, lest that be a way around the limits.
const LAST_USELESS_LINES_MAX: u32 = 256;

/// What a connection that is being closed may still say.
struct LastLines {
    useless_left: u32,
    /// Whether no more bytes will come.
    has_ended: bool,
}

impl<W, S> Connection<'_, W, S>
where
    W: Work,
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Judges what the miner had sent before it could know of the end, sends what is still to be sent, if the miner takes it,
    /// and closes: first our direction, and the miner's once it has closed it, too, or some time has passed.
    pub(super) async fn farewell(&mut self, end: &End) {
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
                now = crate::server::now();
                if Instant::now() >= deadline {
                    return false;
                }
            }
        }
        true
    }
}
