//! Owns the worker port: accepts, tells protocols apart by their first bytes, and hands each connection on.

use bytes::BytesMut;
use std::io::{self, Cursor};
use std::sync::Arc;
use std::time::Duration;
use stratum::Work;
use stratum::server::Server;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::http::Http;
use crate::sockets::{self, Port};

/// How long a connection may take over its first byte.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(3);

/// Connections that may be without a first byte at a time: strangers that connect and say nothing hold no more.
const SILENT_CONNECTIONS_MAX: usize = 1024;

/// Pause after an error of `accept`, such as having no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whom connections are handed to.
#[derive(Debug)]
pub struct Front<W: Work> {
    /// Speaks Stratum.
    pub stratum: Server<W>,
    /// Speaks HTTP.
    pub http: Http,
}

/// Accepts until `stop`, then waits until all connections have ended.
pub async fn run<W: Work>(port: Port, front: Arc<Front<W>>, stop: CancellationToken) {
    let listener = tokio::select! {
        () = stop.cancelled() => return,
        listener = port.listener("miners") => listener,
    };
    if let Ok(address) = listener.local_addr() {
        info!(%address, "listening for miners; pages and metrics are on the same port");
    }
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
        if let Err(error) = sockets::prepare(&stream) {
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
                Ok(Ok(Some(Told::Stratum))) => front.stratum.serve(stream, read, sockets::canonical(peer).ip()).await,
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
}
