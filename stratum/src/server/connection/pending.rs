//! Output buffer of a connection.

use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use tracing::trace;

use crate::mining::work::Work;
use crate::v1::session::Session;

/// Capacity in pieces that is kept while idle.
const KEPT_PIECES_MAX: usize = 8;

/// Maximum number of pieces per `writev`.
const PIECES_MAX: usize = 64;

/// Output queue. The pieces are shared between connections; only the list is a connection's own.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pieces: VecDeque<Bytes>,
    pub(super) len: usize,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn take_from<W: Work>(&mut self, session: &mut Session<W>) {
        while let Some(piece) = session.poll_line() {
            trace!(piece = %String::from_utf8_lossy(&piece), "sent");
            self.len += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Writes once, as many bytes as the socket takes.
    pub(super) fn poll_write(
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
