//! One HTTP connection: the memory that its answer may hold, and the pace at which its client has to take it.

use axum::body::HttpBody;
use parking_lot::Mutex;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::Client;
use super::refusals::Refused;
use super::slots::{Slot, Slots};

/// Maximum time in which a client takes `PROGRESS_BYTES` of an answer, or all that is left of it.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes that count as progress: a client that takes a byte now and then makes none.
const PROGRESS_BYTES: usize = 16 * 1024;

/// Maximum size of all large answers on their way together, in bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Size from which an answer is large. A connection holds one answer at a time: hyper calls no handler before the
/// previous answer is sent.
const LARGE_ANSWER_BYTES: usize = 64 * 1024;

/// Ends a request's connection at once when cancelled.
#[derive(Debug, Clone)]
pub(super) struct Hangup(pub(super) CancellationToken);

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Client,
    /// Ends the connection at once.
    pub(super) end: CancellationToken,
    has_asked: AtomicBool,
    /// Slots for large answers.
    answers: Slots,
    /// Slot of the large answer that is being sent.
    answer: Mutex<Option<Slot>>,
}

impl Connection {
    pub(super) fn new(client: Client, answers: Slots) -> Self {
        let (end, has_asked) = (CancellationToken::new(), AtomicBool::new(false));
        Self { client, end, has_asked, answers, answer: Mutex::new(None) }
    }

    /// Records that the head of a request has arrived.
    pub(super) fn on_request(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
    }

    /// Waits until the connection has been without any request for `patience`; for ever after the first request.
    pub(super) async fn silent_for(&self, patience: Duration) {
        sleep(patience).await;
        if self.has_asked.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    }

    /// Takes a slot for an answer that stays in memory until the client has taken it.
    pub(super) fn on_answer(&self, body: &impl HttpBody) {
        let bytes = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        if let Some(bytes) = bytes.filter(|bytes| *bytes >= LARGE_ANSWER_BYTES) {
            let slot = self.answers.enter(self.client.network(), bytes, self.end.clone());
            *self.answer.lock() = Some(slot);
        }
    }

    fn on_sent(&self) {
        drop(self.answer.lock().take());
    }
}

/// Stream that fails when the client stops taking what it is sent.
#[derive(Debug)]
pub(super) struct PacedStream<S> {
    stream: S,
    connection: Arc<Connection>,
    /// Time limit for the next progress, while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Bytes taken since the last progress.
    taken: usize,
}

impl<S> PacedStream<S> {
    pub(super) fn new(stream: S, connection: Arc<Connection>) -> Self {
        Self { stream, connection, stalled: None, taken: 0 }
    }

    fn on_progress(&mut self) {
        self.stalled = None;
        self.taken = 0;
    }

    /// Passes on the result of a write.
    fn written(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.taken += bytes;
            if self.taken >= PROGRESS_BYTES {
                self.on_progress();
            }
        }
        if written.is_pending() { self.poll_stalled(context).map(Err) } else { written }
    }

    /// Returns an error once the client has made no progress for too long.
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        stalled.as_mut().poll(context).map(|()| {
            Refused::Slow.count();
            io::Error::new(io::ErrorKind::TimedOut, "the client does not take its answer")
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, read: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when all that it has of an answer is written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_pending() {
            return self.poll_stalled(context).map(Err);
        }
        self.on_progress();
        self.connection.on_sent();
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        if shut.is_pending() { self.poll_stalled(context).map(Err) } else { shut }
    }
}
