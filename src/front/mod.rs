//! Owns the worker ports: accepts, tells protocols apart by their first bytes, and hands each connection on.

pub mod getwork;
mod proxy;
mod tls;

pub use tls::{Tls, TlsError, TlsFiles};

use bytes::BytesMut;
use ipnet::IpNet;
use std::io::{self, Cursor};
use std::net::SocketAddr;
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

/// How long a connection may take over its first bytes.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a client may take over TLS's greeting: two round trips, and a slow device's arithmetic.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that may be without a first byte at a time: strangers that connect and say nothing hold no more. A farm that
/// comes back at once, while this machine has other things to do, must not meet this bound; each takes some 2 kB.
const SILENT_CONNECTIONS_MAX: usize = 8 * 1024;

/// How long a stopping node waits for the first bytes of those that connected before: a polling miner's may be a block.
const LAST_BYTES: Duration = Duration::from_millis(100);

/// The ports that miners and readers connect to.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where miners connect, and how each port serves them; the main one first.
    pub miners: Vec<(SocketAddr, PortPolicy)>,
    /// Where pages and metrics are instead of on those ports.
    pub web: Option<SocketAddr>,
    /// A folder of pages that somebody else made.
    pub web_static: Option<PathBuf>,
    /// The certificate that TLS is spoken with.
    pub tls: Option<TlsFiles>,
    /// Who may say whose connection it passes on.
    pub proxies: Vec<IpNet>,
}

/// Whom connections are handed to.
#[derive(Debug)]
pub struct Front<W: Work> {
    /// Speaks Stratum; none on a port of pages alone.
    pub stratum: Option<Arc<Server<W>>>,
    /// Speaks HTTP.
    pub http: Http,
    /// Whether that includes the pages that everyone may read.
    pub has_pages: bool,
    /// Speaks TLS, if the operator gave a certificate.
    pub tls: Option<Tls>,
    /// Who may say in a PROXY header whose connection it passes on.
    pub proxies: Vec<IpNet>,
    /// How miners are served on this port.
    pub session: Arc<session::Config>,
}

/// Why a connection is closed before anyone served it.
#[derive(Debug, Error)]
enum Closed {
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("neither Stratum nor HTTP")]
    Unknown,
    #[error("said nothing")]
    Silent,
    #[error("TLS is not spoken here")]
    NoTls,
    #[error("no miners on this port")]
    NoMiners,
}

/// Accepts until `stop`, then waits until all connections have ended.
pub async fn run<W: Work>(port: Port, front: Arc<Front<W>>, stop: CancellationToken) {
    let (who, what) = match (&front.stratum, front.has_pages) {
        (Some(_), true) => ("miners", "listening for miners; pages and metrics are on the same port"),
        (Some(_), false) => ("miners", "listening for miners"),
        (None, _) => ("readers of pages", "pages and metrics are here"),
    };
    let listener = tokio::select! {
        () = stop.cancelled() => return,
        listener = port.listener(who) => listener,
    };
    if let Ok(address) = listener.local_addr() {
        info!(%address, "{what}");
    }
    // One for each processor, as far as the system goes along.
    let count = available_parallelism().map_or(1, NonZero::get);
    let listeners = match sockets::share(listener, count) {
        Ok(listeners) => listeners,
        Err(error) => return error!(%error, "the port is lost"),
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
    /// Serves a connection until it ends; `silent` is its place among those of which it is not clear yet what they speak.
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
            Ok(Ok((client, told))) => self.attend(stream, read, client, told).await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Closed::Silent),
        };
        if let Err(error) = ended {
            debug!(%peer, %error, "connection closed");
        }
    }

    /// Reads until it is clear who speaks what.
    async fn greet(
        &self,
        stream: &mut TcpStream,
        read: &mut BytesMut,
        peer: SocketAddr,
    ) -> Result<(SocketAddr, PortProtocol), Closed> {
        let client =
            if proxy::is_trusted(&self.proxies, peer.ip()) { proxy::client(stream, read, peer).await? } else { peer };
        Ok((sockets::canonical(client), tell_protocol(stream, read).await?))
    }

    async fn attend(
        &self,
        stream: TcpStream,
        read: BytesMut,
        client: SocketAddr,
        told: PortProtocol,
    ) -> Result<(), Closed> {
        match told {
            PortProtocol::Stratum => self.stratum(stream, read, client).await?,
            PortProtocol::Http => {
                let (reader, writer) = stream.into_split();
                self.http.serve(tokio::io::join(Cursor::new(read).chain(reader), writer), client.ip()).await;
            }
            // In a box of its own: what TLS needs is many times what other connections hold.
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
            let told = tell_protocol(&mut stream, &mut read).await?;
            Ok::<_, Closed>((stream, read, told))
        };
        let (stream, read, told) = timeout(TLS_TIMEOUT, greeting).await.map_err(|_| Closed::Silent)??;
        match told {
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

/// Reads until the protocol is clear.
async fn tell_protocol<S: AsyncRead + Unpin>(stream: &mut S, read: &mut BytesMut) -> Result<PortProtocol, Closed> {
    /// White space before a first brace that is still read.
    const WHITESPACE_MAX: usize = 64;
    loop {
        match read.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(byte) => return told_by(*byte).ok_or(Closed::Unknown),
            None if read.len() > WHITESPACE_MAX => return Err(Closed::Unknown),
            None => {}
        }
        if stream.read_buf(read).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

fn told_by(first: u8) -> Option<PortProtocol> {
    match first {
        b'{' | b'[' => Some(PortProtocol::Stratum),
        // bfgminer tries TLS first, even on a stratum+tcp address; closed at once, it comes back in plain text.
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
        assert_eq!(told_by(b'{'), Some(PortProtocol::Stratum));
        assert_eq!(told_by(b'G'), Some(PortProtocol::Http));
        assert_eq!(told_by(0x16), Some(PortProtocol::Tls));
        assert_eq!(told_by(b'<'), None);
    }
}
