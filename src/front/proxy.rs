//! PROXY protocol, versions 1 and 2 (haproxy.org): a trusted proxy names the client of each connection.

use bytes::{Buf, BytesMut};
use ipnet::IpNet;
use ppp::{HeaderResult, PartialResult, v1, v2};
use std::io;
use std::net::{IpAddr, SocketAddr};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Start of a header of version 1.
const TEXT: &[u8] = b"PROXY ";

/// Start of a header of version 2.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Maximum length of a header, in bytes. Version 1 has at most 107; version 2 may carry names of certificates.
const HEADER_BYTES_MAX: usize = 2 * 1024;

/// Reason for refusing a header.
#[derive(Debug, Error)]
pub(super) enum ProxyError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("malformed PROXY header: {0}")]
    Malformed(String),
    #[error("PROXY header longer than {HEADER_BYTES_MAX} bytes")]
    TooLong,
}

/// True if `address` is a trusted proxy.
pub(super) fn is_trusted(proxies: &[IpNet], address: IpAddr) -> bool {
    proxies.iter().any(|network| network.contains(&address))
}

/// Reads the header at the start of `stream`, if any, and returns the client's address: that of `proxy` without a
/// header, or if the header names none (health checks). Bytes after the header stay in `read`.
pub(super) async fn client<S>(stream: &mut S, read: &mut BytesMut, proxy: SocketAddr) -> Result<SocketAddr, ProxyError>
where
    S: AsyncRead + Unpin,
{
    loop {
        if may_begin(read) {
            // A partial line of version 1 would be refused as malformed.
            let is_whole_line = read.windows(2).any(|end| end == b"\r\n");
            if read.starts_with(BINARY) || (read.starts_with(TEXT) && is_whole_line) {
                let header = HeaderResult::parse(read);
                if header.is_complete() || is_whole_line && read.starts_with(TEXT) {
                    let (length, client) = understand(header)?;
                    read.advance(length);
                    return Ok(client.unwrap_or(proxy));
                }
            }
        } else if !read.is_empty() {
            return Ok(proxy);
        }
        if read.len() > HEADER_BYTES_MAX {
            return Err(ProxyError::TooLong);
        }
        if stream.read_buf(read).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// True if `read` is, or may become, the start of a header.
fn may_begin(read: &[u8]) -> bool {
    !read.is_empty()
        && [TEXT, BINARY].iter().any(|beginning| {
            let length = beginning.len().min(read.len());
            beginning[..length] == read[..length]
        })
}

/// Length of a complete header, and the client in it, if any.
fn understand(header: HeaderResult<'_>) -> Result<(usize, Option<SocketAddr>), ProxyError> {
    match header {
        HeaderResult::V1(Ok(header)) => {
            let client = match header.addresses {
                v1::Addresses::Tcp4(tcp) => Some((tcp.source_address, tcp.source_port).into()),
                v1::Addresses::Tcp6(tcp) => Some((tcp.source_address, tcp.source_port).into()),
                v1::Addresses::Unknown => None,
            };
            Ok((header.header.len(), client))
        }
        HeaderResult::V2(Ok(header)) => {
            let client = match (header.command, header.addresses) {
                // The proxy's own connection, a health check.
                (v2::Command::Local, _) => None,
                (_, v2::Addresses::IPv4(tcp)) => Some((tcp.source_address, tcp.source_port).into()),
                (_, v2::Addresses::IPv6(tcp)) => Some((tcp.source_address, tcp.source_port).into()),
                (_, v2::Addresses::Unix(_) | v2::Addresses::Unspecified) => None,
            };
            Ok((header.len(), client))
        }
        HeaderResult::V1(Err(error)) => Err(ProxyError::Malformed(error.to_string())),
        HeaderResult::V2(Err(error)) => Err(ProxyError::Malformed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1:4000";

    /// Sends `bytes`; returns the client's address, and the bytes after the header.
    async fn told(bytes: &[u8]) -> Result<(SocketAddr, Vec<u8>), ProxyError> {
        let mut read = BytesMut::new();
        // One byte at a time, as the slowest proxy would.
        let mut stream = tokio_test_io(bytes);
        let client = client(&mut stream, &mut read, PROXY.parse().unwrap()).await?;
        let mut left = read.to_vec();
        stream.read_to_end(&mut left).await.unwrap();
        Ok((client, left))
    }

    fn tokio_test_io(bytes: &[u8]) -> impl AsyncRead + Unpin {
        bytes
            .iter()
            .map(|byte| std::io::Cursor::new(vec![*byte]))
            .fold(Box::new(tokio::io::empty()) as Box<dyn AsyncRead + Unpin + Send>, |before, byte| {
                Box::new(before.chain(byte))
            })
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_what_follows() {
        let text = b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 9332\r\n{\"id\":1}";
        assert_eq!(told(text).await.unwrap(), ("192.0.2.7:51234".parse().unwrap(), b"{\"id\":1}".to_vec()));
        let text = b"PROXY TCP6 2001:db8::7 2001:db8::1 51234 9332\r\nGET";
        assert_eq!(told(text).await.unwrap(), ("[2001:db8::7]:51234".parse().unwrap(), b"GET".to_vec()));
        let mut binary = BINARY.to_vec();
        // Version 2, PROXY; TCP over IPv4; twelve bytes of addresses.
        binary.extend([0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0xc8, 0x22, 0x24, 0x74]);
        binary.extend(b"{");
        assert_eq!(told(&binary).await.unwrap(), ("192.0.2.7:51234".parse().unwrap(), b"{".to_vec()));
    }

    #[tokio::test]
    async fn without_a_header_or_with_an_empty_one_it_is_the_proxys_own() {
        let own: SocketAddr = PROXY.parse().unwrap();
        assert_eq!(told(b"{\"id\":1}").await.unwrap(), (own, b"{\"id\":1}".to_vec()));
        assert_eq!(told(b"POST / HTTP/1.1").await.unwrap(), (own, b"POST / HTTP/1.1".to_vec()));
        assert_eq!(told(b"\r\n{").await.unwrap().0, own);
        assert_eq!(told(b"PROXY UNKNOWN\r\n{").await.unwrap(), (own, b"{".to_vec()));
        let local = [BINARY, &[0x20, 0, 0, 0], b"{"].concat();
        assert_eq!(told(&local).await.unwrap(), (own, b"{".to_vec()));
    }

    #[tokio::test]
    async fn what_is_no_header_after_all_is_refused() {
        assert!(matches!(told(b"PROXY TCP4 nonsense\r\n").await, Err(ProxyError::Malformed(_))));
        assert!(matches!(told(b"PROXY TCP4 192.0.2.7").await, Err(ProxyError::Io(_))));
        let long = [BINARY, &[0x21, 0x11, 0xff, 0xff], &[0; 4096]].concat();
        assert!(matches!(told(&long).await, Err(ProxyError::TooLong)));
    }

    #[test]
    fn only_listed_networks_are_trusted() {
        let proxies = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        assert!(is_trusted(&proxies, "10.1.2.3".parse().unwrap()));
        assert!(is_trusted(&proxies, "2001:db8::5".parse().unwrap()));
        assert!(!is_trusted(&proxies, "11.0.0.1".parse().unwrap()));
    }
}
