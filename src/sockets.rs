//! Opens ports and sets connections up, for whoever listens: the worker port and the port for peers.

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel may hold for us while we are busy: a farm that comes back all at once.
const BACKLOG: i32 = 4096;

/// Dead connections are told by the kernel after 45 s of silence and three probes 15 s apart.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(45)).with_interval(Duration::from_secs(15)).with_retries(3);

/// Opens a port. An unspecified IPv6 address takes IPv4 connections, too; where there is no IPv6, IPv4 alone.
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

/// Sets a connection up: what is written goes out at once, and a dead one is noticed.
///
/// # Errors
/// The connection is gone already.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE)
}

/// An IPv4 address that came in by way of an IPv6 socket, as itself.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_an_error_and_any_port_works() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let taken = first.local_addr().unwrap();
        assert_eq!(bind(taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(bind("[::]:0".parse().unwrap()).is_ok(), "with or without IPv6");
    }

    #[test]
    fn an_ipv4_address_behind_an_ipv6_socket_is_itself() {
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:9333".parse().unwrap();
        assert_eq!(canonical(mapped), "192.0.2.7:9333".parse().unwrap());
        let real: SocketAddr = "[2001:db8::1]:9333".parse().unwrap();
        assert_eq!(canonical(real), real);
    }
}
