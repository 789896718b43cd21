//! Owns the worker port: accepts, tells protocols apart by their first bytes, and hands each connection on.

use bytes::BytesMut;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io::{self, Cursor};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use stratum::Work;
use stratum::server::Server;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::http::Http;

/// How long a connection may take over its first byte.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(3);

/// Connections that may be without a first byte at a time: strangers that connect and say nothing hold no more.
const SILENT_CONNECTIONS_MAX: usize = 1024;

/// Connections that the kernel may hold for us while we are busy: a farm that comes back all at once.
const BACKLOG: i32 = 4096;

/// Pause after an error of `accept`, such as having no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Dead connections are told by the kernel after 45 s of silence and three probes 15 s apart.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(45)).with_interval(Duration::from_secs(15)).with_retries(3);

/// Opens the port. An unspecified IPv6 address takes IPv4 connections, too; where there is no IPv6, IPv4 alone.
///
/// # Errors
/// The address is in use, or not this machine's.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match bind_to(address) {
        Err(_) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !has_ipv6() => {
            bind_to((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        other => other,
    }
}

fn has_ipv6() -> bool {
    Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).is_ok()
        && std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn bind_to(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Whom connections are handed to.
#[derive(Debug)]
pub struct Front<W: Work> {
    /// Speaks Stratum.
    pub stratum: Server<W>,
    /// Speaks HTTP.
    pub http: Http,
}

/// Accepts until `stop`, then waits until all connections have ended.
pub async fn run<W: Work>(listener: TcpListener, front: Arc<Front<W>>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let silent = Arc::new(Semaphore::new(SILENT_CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = silent.clone().try_acquire_owned() else {
            debug!(%peer, "too many connections that say nothing");
            continue;
        };
        if let Err(error) = prepare(&stream) {
            debug!(%peer, %error, "connection lost at once");
            continue;
        }
        let (front, stop) = (front.clone(), stop.clone());
        connections.spawn(async move {
            let mut stream = stream;
            let mut read = BytesMut::new();
            let protocol = tokio::select! {
                () = stop.cancelled() => return,
                told = timeout(FIRST_BYTE_TIMEOUT, tell_protocol(&mut stream, &mut read)) => told,
            };
            drop(permit);
            match protocol {
                Ok(Ok(Some(Told::Stratum))) => front.stratum.serve(stream, read, canonical(peer.ip())).await,
                Ok(Ok(Some(Told::Http))) => {
                    let (reader, writer) = stream.into_split();
                    front.http.serve(tokio::io::join(Cursor::new(read).chain(reader), writer)).await;
                }
                Ok(Ok(Some(Told::Tls))) => debug!(%peer, "closed: TLS is not spoken here"),
                Ok(Ok(None)) => debug!(%peer, "closed: neither Stratum nor HTTP"),
                Ok(Err(error)) => debug!(%peer, %error, "closed before its first byte"),
                Err(_) => debug!(%peer, "closed: said nothing"),
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE)
}

/// An IPv4 address that came in by way of an IPv6 socket, as itself.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Stratum,
    Http,
    Tls,
}

/// Reads until the protocol is clear; `None` for one that is not spoken here.
async fn tell_protocol(stream: &mut TcpStream, read: &mut BytesMut) -> io::Result<Option<Told>> {
    /// White space before a first brace that is still read.
    const WHITESPACE_MAX: usize = 64;
    loop {
        if stream.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match read.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(byte) => return Ok(told_by(*byte)),
            None if read.len() > WHITESPACE_MAX => return Ok(None),
            None => {}
        }
    }
}

fn told_by(first: u8) -> Option<Told> {
    match first {
        b'{' | b'[' => Some(Told::Stratum),
        // bfgminer tries TLS first, even on a stratum+tcp address; closed at once, it comes back in plain text.
        0x16 => Some(Told::Tls),
        b'A'..=b'Z' => Some(Told::Http),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells_the_protocol() {
        assert_eq!(told_by(b'{'), Some(Told::Stratum));
        assert_eq!(told_by(b'G'), Some(Told::Http));
        assert_eq!(told_by(0x16), Some(Told::Tls));
        assert_eq!(told_by(b'<'), None);
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error_and_any_port_works() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let taken = first.local_addr().unwrap();
        assert_eq!(bind(taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(bind("[::]:0".parse().unwrap()).is_ok(), "with or without IPv6");
    }
}
