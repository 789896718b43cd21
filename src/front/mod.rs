//! Worker ports: accepts connections, detects the protocol by the first bytes, and dispatches to its server.

mod access;
pub mod getwork;
mod proxy;
mod tls;

pub use access::{Access, MinerPort, Networks};
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
use stratum::server::admission::{Admission, Full, Kind, Place};
use stratum::server::{PortService, Server, metrics};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info};

use crate::runtime::accept::Acceptor;
use crate::runtime::sockets::{self, Port};
use crate::view::http::Http;
use proxy::ProxyError;

/// Maximum time until the first bytes.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum time of a TLS handshake: two round trips, and the computations of a slow device.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that a stopping node waits for first bytes of open connections: a polling miner's may be a block.
const LAST_BYTES: Duration = Duration::from_millis(100);

/// Ports for miners and web clients.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Ports for miners; the main one first.
    pub miners: Vec<MinerPort>,
    /// Separate address of pages and metrics; `None` if they are on the miners' ports.
    pub web: Option<SocketAddr>,
    /// Folder with static pages supplied by the operator.
    pub web_static: Option<PathBuf>,
    /// Certificate and key for TLS.
    pub tls: Option<TlsFiles>,
    /// Networks of trusted proxies.
    pub proxies: Vec<IpNet>,
    /// Networks whose connections are neither limited nor evicted.
    pub trusted: Vec<IpNet>,
    /// File of the users that may see pages; `None` for all readers.
    pub web_users: Option<PathBuf>,
    /// Pages for all readers although others need a password.
    pub web_open: Vec<OpenPage>,
}

/// Page that may be open to all readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenPage {
    /// `/metrics`.
    Metrics,
    /// `/health`.
    Health,
}

impl Config {
    /// The port of `network` on all of this machine's addresses, for miners and readers alike.
    pub fn on(network: &Network) -> Self {
        let address = (Ipv6Addr::UNSPECIFIED, network.worker_port).into();
        Self {
            miners: vec![MinerPort::at(address)],
            web: None,
            web_static: None,
            tls: None,
            proxies: Vec::new(),
            trusted: Vec::new(),
            web_users: None,
            web_open: Vec::new(),
        }
    }
}

/// Servers for each protocol of a port.
#[derive(Debug)]
pub struct Front<W: Work> {
    /// Counts the connections of all ports.
    pub admission: Arc<Admission>,
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
    /// Networks that may connect.
    pub networks: Networks,
    /// Service of Stratum connections of this port.
    pub service: PortService,
}

/// Reason for closing a connection before it reached a server.
#[derive(Debug, Error)]
enum Closed {
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Full(#[from] Full),
    #[error("another connection needs its place")]
    Evicted,
    #[error("this port is not for the client's network")]
    Denied,
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
    let (accepting, connections) = (TaskTracker::new(), TaskTracker::new());
    for listener in listeners {
        let (front, connections) = (front.clone(), connections.clone());
        let welcome = move |stream, peer| match front.admit(peer) {
            Ok(place) => {
                connections.spawn(front.clone().serve(stream, peer, place));
            }
            Err(full) => debug!(%peer, reason = %full, "connection refused"),
        };
        accepting.spawn(Acceptor::new(listener, who).run(stop.clone(), welcome));
    }
    accepting.close();
    accepting.wait().await;
    connections.close();
    connections.wait().await;
}

impl<W: Work> Front<W> {
    /// Admits a new connection, or refuses it before anything is read.
    fn admit(&self, peer: SocketAddr) -> Result<Place, Full> {
        if proxy::is_trusted(&self.proxies, peer.ip()) {
            self.admission.enter_proxy(peer.ip())
        } else {
            self.admission.enter(peer.ip())
        }
    }

    /// Serves a connection until it ends.
    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, place: Place) {
        if let Err(error) = self.attend(stream, peer, place).await {
            debug!(%peer, %error, "connection closed");
        }
    }

    async fn attend(&self, mut stream: TcpStream, peer: SocketAddr, place: Place) -> Result<(), Closed> {
        let mut read = BytesMut::new();
        let greeting = self.greet(&mut stream, &mut read, peer, place);
        let (place, detected) = timeout(FIRST_BYTES_TIMEOUT, greeting).await.map_err(|_| Closed::Silent)??;
        match detected {
            PortProtocol::Stratum => self.stratum(stream, read, &place).await?,
            PortProtocol::Http => {
                let (reader, writer) = stream.into_split();
                self.http.serve_admitted(tokio::io::join(Cursor::new(read).chain(reader), writer), place).await;
            }
            // Boxed: TLS needs many times the memory of other connections.
            PortProtocol::Tls => Box::pin(self.attend_tls(stream, read, place)).await?,
        }
        Ok(())
    }

    /// Reads until the client's address and the protocol are known.
    async fn greet(
        &self,
        stream: &mut TcpStream,
        read: &mut BytesMut,
        peer: SocketAddr,
        mut place: Place,
    ) -> Result<(Place, PortProtocol), Closed> {
        if proxy::is_trusted(&self.proxies, peer.ip()) {
            let client = while_placed(&place, proxy::client(stream, read, peer)).await??;
            // Without a header it is the proxy's own, a health check.
            if client != peer {
                place = place.is_of(sockets::canonical(client).ip())?;
            }
        }
        if !self.networks.admits(place.address()) {
            metrics::denied();
            return Err(Closed::Denied);
        }
        let detected = while_placed(&place, detect_protocol(stream, read)).await??;
        Ok((place, detected))
    }

    async fn attend_tls(&self, stream: TcpStream, read: BytesMut, place: Place) -> Result<(), Closed> {
        let acceptor = self.tls.as_ref().ok_or(Closed::NoTls)?;
        place.becomes(Kind::Tls);
        let (reader, writer) = stream.into_split();
        let stream = tokio::io::join(Cursor::new(read).chain(reader), writer);
        let greeting = async {
            let mut stream = acceptor.accept(stream).await?;
            let mut read = BytesMut::new();
            let detected = detect_protocol(&mut stream, &mut read).await?;
            Ok::<_, Closed>((stream, read, detected))
        };
        let greeting = while_placed(&place, timeout(TLS_TIMEOUT, greeting));
        let (stream, read, detected) = greeting.await?.map_err(|_| Closed::Silent)??;
        match detected {
            PortProtocol::Stratum => self.stratum(stream, read, &place).await?,
            PortProtocol::Http => {
                let (reader, writer) = tokio::io::split(stream);
                self.http.serve_admitted(tokio::io::join(Cursor::new(read).chain(reader), writer), place).await;
            }
            PortProtocol::Tls => return Err(Closed::Unknown),
        }
        Ok(())
    }

    async fn stratum<S>(&self, stream: S, read: BytesMut, place: &Place) -> Result<(), Closed>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let server = self.stratum.as_ref().ok_or(Closed::NoMiners)?;
        server.serve_with(&self.service, stream, read, place).await;
        Ok(())
    }
}

/// Waits for `greeting`, but no longer than the connection has its place; at a stop, for some time still.
async fn while_placed<T>(place: &Place, greeting: impl Future<Output = T>) -> Result<T, Closed> {
    let ended = async {
        place.ended().cancelled().await;
        if !place.is_evicted() {
            tokio::time::sleep(LAST_BYTES).await;
        }
    };
    tokio::select! {
        biased;
        greeted = greeting => Ok(greeted),
        () = ended => Err(Closed::Evicted),
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
