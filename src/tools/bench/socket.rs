//! Reads and writes for ten thousand connections of the generator and of the bare server.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Maximum number of bytes per read: a whole job, so that a generator of ten thousand miners is not slowed down.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    /// Read buffer of all miners of a thread.
    static READ_BUFFER: RefCell<Box<[u8; READ_BYTES]>> = RefCell::new(Box::new([0; READ_BYTES]));
}

/// Waits for bytes, and passes them to `take`.
///
/// # Errors
/// The connection has ended.
pub(super) async fn read(reader: &mut OwnedReadHalf, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    poll_fn(|context| {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(&mut buffer[..]);
            ready!(Pin::new(&mut *reader).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            take(read.filled());
            Poll::Ready(Ok(()))
        })
    })
    .await
}

/// Connects like a miner.
pub(super) async fn connect(address: SocketAddr) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream.into_split())
}

/// Writes through a shared handle.
pub(super) async fn write_all(writer: &OwnedWriteHalf, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match writer.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => writer.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
