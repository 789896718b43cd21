//! Hosts as operators name them, and their addresses: names are resolved again and again at run time, for hosts move.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::runtime::sockets;

/// Timeout of a new connection, as in the reference (protocol section 3.4).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of name resolution: resolvers that are down answer late, or never.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum number of addresses used of one host; a name with more is a joke.
const ADDRESSES_MAX: usize = 16;

/// A host name or address, with a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    name: String,
    port: u16,
}

impl Host {
    /// Parses `HOST` or `HOST:PORT`; an IPv6 address with a port is in brackets. `None` if it is neither.
    pub fn parse(text: &str, default_port: u16) -> Option<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Self { name: address.ip().to_string(), port: address.port() }).filter(|host| host.port != 0);
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Self { name: address.to_string(), port: default_port });
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().ok().filter(|port| *port != 0)?),
            None => (text, default_port),
        };
        // Host names have letters, digits, dots and hyphens (RFC 952); underscores occur.
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let fits = (1..=253).contains(&name.len()) && name.bytes().all(is_name);
        // Digits and dots that are no address are a mistyped one.
        let is_number = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        (fits && !is_number).then(|| Self { name: name.to_owned(), port })
    }

    /// Host name, or address without brackets.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Resolves it to its current addresses, IPv4 and IPv6, with its port.
    ///
    /// # Errors
    /// The name is unknown, or no resolver answers.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.name.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        let addresses = timeout(RESOLVE_TIMEOUT, lookup_host((self.name.as_str(), self.port))).await??;
        Ok(addresses.map(sockets::canonical).take(ADDRESSES_MAX).collect())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// Connects, with Nagle's algorithm off: small messages are to go out at once.
///
/// # Errors
/// The connection fails, or takes longer than [`CONNECT_TIMEOUT`].
pub(super) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
    sockets::prepare(&stream)?;
    Ok(stream)
}

/// Address at which a process of this machine that listens on `address` is reachable.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => address,
        // A listener on all addresses accepts IPv4, with or without IPv6.
        _ => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
    }
}

/// Chooses the address of a node to keep a connection to: the current one unless it failed, then the next.
pub(super) fn choose(addresses: &[SocketAddr], current: Option<SocketAddr>, has_failed: bool) -> Option<SocketAddr> {
    let index = current.and_then(|current| addresses.iter().position(|address| *address == current));
    match index {
        Some(index) if has_failed => addresses.get((index + 1) % addresses.len()).copied(),
        Some(index) => addresses.get(index).copied(),
        None => addresses.first().copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_a_port() {
        for (text, shown) in [
            ("pool.example", "pool.example:9333"),
            ("pool.example:1234", "pool.example:1234"),
            ("192.0.2.1", "192.0.2.1:9333"),
            ("192.0.2.1:1", "192.0.2.1:1"),
            ("2001:db8::1", "[2001:db8::1]:9333"),
            ("[2001:db8::1]", "[2001:db8::1]:9333"),
            ("[2001:db8::1]:1234", "[2001:db8::1]:1234"),
            ("localhost", "localhost:9333"),
        ] {
            assert_eq!(Host::parse(text, 9333).map(|host| host.to_string()).as_deref(), Some(shown), "{text}");
        }
        for text in ["", ":1", "a b", "host:0", "host:65536", "host:", "1.2.3", "1.2.3.4:0", "[::1", "http://x", "x/24"]
        {
            assert_eq!(Host::parse(text, 9333), None, "{text}");
        }
        assert_eq!(Host::parse(&"x".repeat(254), 9333), None);
    }

    #[tokio::test]
    async fn an_address_is_where_it_says_and_a_name_is_asked_for() {
        let resolved = async |text| Host::parse(text, 9333).unwrap().resolve().await;
        assert_eq!(resolved("192.0.2.1").await.unwrap(), ["192.0.2.1:9333".parse().unwrap()]);
        assert_eq!(resolved("[::1]:7").await.unwrap(), ["[::1]:7".parse().unwrap()]);
        let local = resolved("localhost:7").await.unwrap();
        assert!(local.iter().all(|address| address.ip().is_loopback() && address.port() == 7), "{local:?}");
        assert!(!local.is_empty());
        assert!(resolved("no-such-host.invalid").await.is_err());
    }
}
