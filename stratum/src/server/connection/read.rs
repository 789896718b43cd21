//! Reads from a socket into a buffer shared by all connections of a thread.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

use crate::v1::line::Lines;

/// Bytes per read of a socket: a hundred submissions.
const READ_BYTES: usize = 16 * 1024;

thread_local! {
    /// Read buffer of the thread, used by its connections in turn: a connection that waits for input needs none.
    static READ_BUFFER: RefCell<Box<[u8; READ_BYTES]>> = RefCell::new(Box::new([0; READ_BYTES]));
}

/// Reads once; returns zero bytes at the end of the input.
pub(super) fn poll_read<S: AsyncRead + Unpin>(
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
