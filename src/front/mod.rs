//! Worker ports: accepts connections, detects the protocol by the first bytes, and dispatches to its server.

pub mod getwork;
mod proxy;
mod tls;

pub use tls::{Tls, TlsError, TlsFiles};

use bytes::BytesMut;
use ipnet::IpNet;
use sharechain::coin::Network;
use std::io::{self, Cursor};
use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;
use stratum::Work;
use stratum::server::{PortPolicy, Server};
use stratum::v1::session;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info};

use crate::runtime::accept::{Acceptor, WhenFull};
use crate::runtime::sockets::{self, Port};
use crate::view::http::Http;
use proxy::ProxyError;

/// Maximum time until the first bytes.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum time of a TLS handshake: two round trips, and the computations of a slow device.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of connections without a first byte, to limit idle strangers. High enough for a farm that reconnects
/// all at once to a busy machine; each takes some 2 kB.
const SILENT_CONNECTIONS_MAX: usize = 8 * 1024;

/// Time that a stopping node waits for first bytes of open connections: a polling miner's may be a block.
const LAST_BYTES: Duration = Duration::from_millis(100);

/// Ports for miners and web clients.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Ports for miners, with their settings; the main one first.
    pub miners: Vec<(SocketAddr, PortPolicy)>,
    /// Separate address of pages and metrics; `None` if they are on the miners' ports.
    pub web: Option<SocketAddr>,
    /// Folder with static pages supplied by the operator.
    pub web_static: Option<PathBuf>,
    /// Certificate and key for TLS.
    pub tls: Option<TlsFiles>,
    /// Networks of trusted proxies.
    pub proxies: Vec<IpNet>,
}

impl Config {
    /// The port of `network` on all of this machine's addresses, for miners and readers alike.
    pub fn on(network: &Network) -> Self {
        let address = (Ipv6Addr::UNSPECIFIED, network.worker_port).into();
        Self {
            miners: vec![(address, PortPolicy::default())],
            web: None,
            web_static: None,
            tls: None,
            proxies: Vec::new(),
        }
    }
}

/// Servers for each protocol of a port.
#[derive(Debug)]
pub struct Front<W: Work> {
    /// Stratum server; `None` on a port of pages alone.
    pub stratum: Option<Arc<Server<W>>>,
    /// HTTP server.
    pub http: Http,
    /// Set when the HTTP server has the public pages.
    pub has_pages: bool,
    /// TLS acceptor, if the operator configured a certificate.
    pub tls: Option<Tls>,
    /// Networks of proxies whose PROXY headers are trusted.
    pub proxies: Vec<IpNet>,
    /// Session settings of this port.
    pub session: Arc<session::Config>,
}

/// Reason for closing a connection before it reached a server.
#[derive(Debug, Error)]
enum Closed {
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("neither Stratum nor HTTP")]
    Unknown,
    #[error("no data in time")]
    Silent,
    #[error("TLS is not enabled on this port")]
    NoTls,
    #[error("no miners on this port")]
    NoMiners,
}

/// Accepts connections until `stop`, then waits for all of them to end.
pub async fn run<W: Work>(port: Port, front: Arc<Front<W>>, stop: CancellationToken) {
    let (who, what) = match (&front.stratum, front.has_pages) {
        (Some(_), true) => ("miners", "listening for miners; pages and metrics are on the same port"),
        (Some(_), false) => ("miners", "listening for miners"),
        (None, _) => ("readers of pages", "listening for pages and metrics"),
    };
    let listener = tokio::select! {
        () = stop.cancelled() => return,
        listener = port.listener(who) => listener,
    };
    if let Ok(address) = listener.local_addr() {
        info!(%address, "{what}");
    }
    // One per processor, as far as the system allows.
    let count = available_parallelism().map_or(1, NonZero::get);
    let listeners = match sockets::share(listener, count) {
        Ok(listeners) => listeners,
        Err(error) => return error!(%error, "cannot listen on the port"),
    };
    let silent = Arc::new(Semaphore::new(SILENT_CONNECTIONS_MAX));
    let (accepting, connections) = (TaskTracker::new(), TaskTracker::new());
    for listener in listeners {
        let (front, connections, stopping) = (front.clone(), connections.clone(), stop.clone());
        let welcome = move |stream, peer, permit| {
            connections.spawn(front.clone().serve(stream, peer, permit, stopping.clone()));
        };
        accepting.spawn(Acceptor::new(listener, who).run(silent.clone(), WhenFull::Close, stop.clone(), welcome));
    }
    accepting.close();
    accepting.wait().await;
    connections.close();
    connections.wait().await;
}

impl<W: Work> Front<W> {
    /// Serves a connection until it ends; `silent` is its permit to be without a detected protocol.
    async fn serve(
        self: Arc<Self>,
        mut stream: TcpStream,
        peer: SocketAddr,
        silent: OwnedSemaphorePermit,
        stop: CancellationToken,
    ) {
        let mut read = BytesMut::new();
        let last_bytes = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_BYTES).await;
        };
        let greeted = tokio::select! {
            biased;
            greeted = timeout(FIRST_BYTES_TIMEOUT, self.greet(&mut stream, &mut read, peer)) => greeted,
            () = last_bytes => return,
        };
        drop(silent);
        let ended = match greeted {
            Ok(Ok((client, detected))) => self.attend(stream, read, client, detected).await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Closed::Silent),
        };
        if let Err(error) = ended {
            debug!(%peer, %error, "connection closed");
        }
    }

    /// Reads until the client's address and the protocol are known.
    async fn greet(
        &self,
        stream: &mut TcpStream,
        read: &mut BytesMut,
        peer: SocketAddr,
    ) -> Result<(SocketAddr, PortProtocol), Closed> {
        let client =
            if proxy::is_trusted(&self.proxies, peer.ip()) { proxy::client(stream, read, peer).await? } else { peer };
        Ok((sockets::canonical(client), detect_protocol(stream, read).await?))
    }

    async fn attend(
        &self,
        stream: TcpStream,
        read: BytesMut,
        client: SocketAddr,
        detected: PortProtocol,
    ) -> Result<(), Closed> {
        match detected {
            PortProtocol::Stratum => self.stratum(stream, read, client).await?,
            PortProtocol::Http => {
                let (reader, writer) = stream.into_split();
                self.http.serve(tokio::io::join(Cursor::new(read).chain(reader), writer), client.ip()).await;
            }
            // Boxed: TLS needs many times the memory of other connections.
            PortProtocol::Tls => Box::pin(self.attend_tls(stream, read, client)).await?,
        }
        Ok(())
    }

    async fn attend_tls(&self, stream: TcpStream, read: BytesMut, client: SocketAddr) -> Result<(), Closed> {
        let acceptor = self.tls.as_ref().ok_or(Closed::NoTls)?;
        let (reader, writer) = stream.into_split();
        let stream = tokio::io::join(Cursor::new(read).chain(reader), writer);
        let greeting = async {
            let mut stream = acceptor.accept(stream).await?;
            let mut read = BytesMut::new();
            let detected = detect_protocol(&mut stream, &mut read).await?;
            Ok::<_, Closed>((stream, read, detected))
        };
        let (stream, read, detected) = timeout(TLS_TIMEOUT, greeting).await.map_err(|_| Closed::Silent)??;
        match detected {
            PortProtocol::Stratum => self.stratum(stream, read, client).await?,
            PortProtocol::Http => {
                let (reader, writer) = tokio::io::split(stream);
                self.http.serve(tokio::io::join(Cursor::new(read).chain(reader), writer), client.ip()).await;
            }
            PortProtocol::Tls => return Err(Closed::Unknown),
        }
        Ok(())
    }

    async fn stratum<S>(&self, stream: S, read: BytesMut, client: SocketAddr) -> Result<(), Closed>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let server = self.stratum.as_ref().ok_or(Closed::NoMiners)?;
        server.serve_with(&self.session, stream, read, client.ip()).await;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortProtocol {
    Stratum,
    Http,
    Tls,
}

/// Reads until the protocol is detected.
async fn detect_protocol<S: AsyncRead + Unpin>(stream: &mut S, read: &mut BytesMut) -> Result<PortProtocol, Closed> {
    /// Maximum white space before the first brace, in bytes.
    const WHITESPACE_MAX: usize = 64;
    loop {
        match read.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(byte) => return protocol_of(*byte).ok_or(Closed::Unknown),
            None if read.len() > WHITESPACE_MAX => return Err(Closed::Unknown),
            None => {}
        }
        if stream.read_buf(read).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

fn protocol_of(first: u8) -> Option<PortProtocol> {
    match first {
        b'{' | b'[' => Some(PortProtocol::Stratum),
        // bfgminer tries TLS first, even on a stratum+tcp address; closed at once, it reconnects in plain text.
        0x16 => Some(PortProtocol::Tls),
        b'A'..=b'Z' => Some(PortProtocol::Http),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells_the_protocol() {
        assert_eq!(protocol_of(b'{'), Some(PortProtocol::Stratum));
        assert_eq!(protocol_of(b'G'), Some(PortProtocol::Http));
        assert_eq!(protocol_of(0x16), Some(PortProtocol::Tls));
        assert_eq!(protocol_of(b'<'), None);
    }
}
