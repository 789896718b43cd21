//! Reads and writes for ten thousand connections of the generator and of the bare server.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
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

/// Connects like a miner, with the address `client` to a server that trusts PROXY headers.
pub(super) async fn connect(
    address: SocketAddr,
    client: Option<Ipv4Addr>,
) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    if let Some(client) = client {
        write_all(&writer, proxy_header(client).as_bytes()).await?;
    }
    Ok((reader, writer))
}

/// Header of the PROXY protocol, version 1, that a proxy sends for `client`.
pub(super) fn proxy_header(client: Ipv4Addr) -> String {
    format!("PROXY TCP4 {client} 127.0.0.1 50000 9332\r\n")
}

/// Address of the miner with this number, in the block that is reserved for benchmarks (RFC 2544): a hundred in each
/// network, as many as may connect at once.
pub(super) fn miner_address(number: u32) -> Ipv4Addr {
    let start = Ipv4Addr::new(198, 18, 0, 1).to_bits();
    Ipv4Addr::from_bits(start + (number / 100) * 256 + number % 100)
}

/// Address of the hostile client with this number: all of them are of one network (documentation, RFC 5737).
pub(super) fn hostile_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(203, 0, 113, 1).to_bits() + number % 254)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use stratum::mining::source::Source;

    #[test]
    fn miners_and_hostile_clients_are_of_different_networks() {
        let of = |address: fn(u32) -> Ipv4Addr| {
            let mut networks = BTreeMap::<Source, u32>::new();
            (0..5000).for_each(|number| *networks.entry(Source::site(address(number).into())).or_default() += 1);
            networks
        };
        let (miners, hostile) = (of(miner_address), of(hostile_address));
        assert_eq!((miners.len(), hostile.len()), (50, 1));
        assert!(miners.values().all(|miners| *miners == 100));
        assert!(hostile.keys().all(|network| !miners.contains_key(network) && !network.is_loopback()));
    }
}
