//! Opens the worker port and the peer port, and sets connections up.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::runtime::data_dir::DataDir;

/// Length of the kernel's queue of new connections: a whole farm may reconnect at once.
pub(super) const BACKLOG: i32 = 4096;

/// The kernel reports a dead connection after 45 s of silence and three probes 15 s apart.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(45)).with_interval(Duration::from_secs(15)).with_retries(3);

/// Interval of tries to open a port that the previous process is just closing.
const TRY_INTERVAL: Duration = Duration::from_millis(20);

/// After a takeover, a port busy for this long belongs to another program: logged once, retried for ever.
const BUSY_IS_REPORTED_AFTER: Duration = Duration::from_secs(2);

/// A port that is open now, or as soon as the data directory is ours: the kernel must never choose between two
/// processes that would serve the same miners.
#[derive(Debug)]
pub enum Port {
    Open(TcpListener),
    /// To be opened at a takeover.
    Later(SocketAddr, DataDir),
}

impl Port {
    /// Opens the port at `address` now if `data_dir` is ours, else later.
    ///
    /// # Errors
    /// The address is in use, or does not belong to this machine.
    pub fn open(address: SocketAddr, data_dir: &DataDir) -> io::Result<Self> {
        if data_dir.is_ours() { bind(address).map(Self::Open) } else { Ok(Self::Later(address, data_dir.clone())) }
    }

    /// Waits until the port is open; `who` names the clients in log messages.
    pub async fn listener(self, who: &str) -> TcpListener {
        let (address, data_dir) = match self {
            Self::Open(listener) => return listener,
            Self::Later(address, data_dir) => (address, data_dir),
        };
        data_dir.ours().await;
        let started = Instant::now();
        let mut reported = false;
        loop {
            match bind(address) {
                Ok(listener) => {
                    if reported {
                        info!(%address, "listening for {who}");
                    }
                    return listener;
                }
                Err(error) if !reported && started.elapsed() > BUSY_IS_REPORTED_AFTER => {
                    warn!(%address, %error, "cannot listen for {who}; retrying");
                    reported = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(TRY_INTERVAL).await;
        }
    }
}

/// Opens a port. An unspecified IPv6 address accepts IPv4 too; on a machine without IPv6, IPv4 alone.
///
/// # Errors
/// The address is in use, or does not belong to this machine.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    // Exclusively first: a shareable port could be shared with another process of the same user, and the kernel must
    // never choose between two nodes.
    let address = match bind_to(address, false) {
        Err(_) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !has_ipv6() => {
            bind_to((Ipv4Addr::UNSPECIFIED, address.port()).into(), false)?.local_addr()?
        }
        other => other?.local_addr()?,
    };
    bind_to(address, true)
}

/// Opens more listeners on the port, so that `count` accept from it in all.
///
/// # Errors
/// The port was not opened by [`bind`].
pub fn share(listener: TcpListener, count: usize) -> io::Result<Vec<TcpListener>> {
    let address = listener.local_addr()?;
    let others = (1..count).map(|_| bind_to(address, true));
    std::iter::once(Ok(listener)).chain(others).collect()
}

/// Raises this process's limit of open files to the maximum, as each connection is one. Returns the new limit.
///
/// # Errors
/// The kernel refuses.
pub fn raise_file_limit() -> io::Result<Option<u64>> {
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum })?;
    Ok(limits.maximum)
}

fn has_ipv6() -> bool {
    Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).is_ok()
        && std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn bind_to(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Sets a connection up: data is sent without delay, and a dead peer is noticed.
///
/// # Errors
/// The connection is gone already.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE)
}

/// Unwraps an IPv4 address that arrived through an IPv6 socket.
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

    #[tokio::test]
    async fn a_port_is_shared_inside_this_process_and_with_nobody_else() {
        let listeners = share(bind("127.0.0.1:0".parse().unwrap()).unwrap(), 3).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        assert_eq!(bind(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let mut accepting: Vec<_> = listeners.iter().map(|listener| Box::pin(listener.accept())).collect();
        for _ in 0..20 {
            let stream = TcpStream::connect(address).await.unwrap();
            let accepted = std::future::poll_fn(|context| {
                accepting
                    .iter_mut()
                    .enumerate()
                    .find_map(|(at, accept)| match accept.as_mut().poll(context) {
                        std::task::Poll::Ready(accepted) => Some(std::task::Poll::Ready((at, accepted))),
                        std::task::Poll::Pending => None,
                    })
                    .unwrap_or(std::task::Poll::Pending)
            });
            let (at, accepted) = accepted.await;
            assert_eq!(accepted.unwrap().1, stream.local_addr().unwrap());
            accepting[at] = Box::pin(listeners[at].accept());
        }
    }

    #[test]
    fn as_many_files_may_be_open_as_the_system_lets_us() {
        let most = raise_file_limit().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, most);
    }

    #[tokio::test]
    async fn a_port_is_opened_when_the_data_directory_is_ours_and_the_port_free() {
        let folder = tempfile::tempdir().unwrap();
        let open = || DataDir::open(folder.path(), &sharechain::coin::BITCOIN_REGTEST).unwrap();
        let (first, second) = (open(), open());
        let port = Port::open("127.0.0.1:0".parse().unwrap(), &first).unwrap().listener("tests").await;
        let address = port.local_addr().unwrap();
        let waiting = tokio::spawn(Port::open(address, &second).unwrap().listener("tests"));
        tokio::spawn(second.take_over());
        drop(first);
        tokio::time::sleep(10 * TRY_INTERVAL).await;
        assert!(!waiting.is_finished(), "the first still has its port");
        drop(port);
        assert_eq!(waiting.await.unwrap().local_addr().unwrap(), address);
    }

    #[test]
    fn an_ipv4_address_behind_an_ipv6_socket_is_itself() {
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:9333".parse().unwrap();
        assert_eq!(canonical(mapped), "192.0.2.7:9333".parse().unwrap());
        let real: SocketAddr = "[2001:db8::1]:9333".parse().unwrap();
        assert_eq!(canonical(real), real);
    }
}
