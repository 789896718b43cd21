//! Hostile clients: each kind does one thing that a server on the open internet must withstand.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::child::Child;
use super::socket::{hostile_address, proxy_header};

/// Pause of a client before it reconnects.
const PAUSE: Duration = Duration::from_millis(100);

/// Useless lines or requests per second of one client.
const LINES_PER_SECOND: u32 = 200;

/// Behaviour of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attack {
    /// Sends a request, one byte per second.
    SlowLoris,
    /// Connects, and never sends anything.
    Silent,
    /// Sends random bytes, as many as [`Self::Useless`].
    Garbage,
    /// Sends useless requests.
    Useless,
    /// Announces the body of an HTTP request, and sends it one byte per second.
    SlowPost,
    /// Asks for pages, and never reads them.
    SlowReader,
    /// Polls for work of a new difficulty each time.
    Difficulties,
}

impl Attack {
    /// Kinds that are mixed in the measure `hostile`.
    pub(super) const MIXED: [Self; 4] = [Self::SlowLoris, Self::Silent, Self::Garbage, Self::Useless];

    /// All kinds.
    pub(super) const ALL: &'static [Self] = &[
        Self::SlowLoris,
        Self::Silent,
        Self::Garbage,
        Self::Useless,
        Self::SlowPost,
        Self::SlowReader,
        Self::Difficulties,
    ];
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SlowLoris => "slow lines",
            Self::Silent => "silent connections",
            Self::Garbage => "noise",
            Self::Useless => "useless requests",
            Self::SlowPost => "slow bodies",
            Self::SlowReader => "slow readers",
            Self::Difficulties => "getwork difficulties",
        })
    }
}

/// Running hostile clients; dropping it ends them.
#[derive(Debug)]
pub(super) struct Hostility {
    _clients: JoinSet<()>,
}

impl Hostility {
    /// Starts `count` clients against `server`, as many of each of `attacks`. To a node that trusts PROXY headers, they
    /// are of one network, other than the miners'.
    pub(super) fn start(server: &Child, count: u32, attacks: &[Attack]) -> Self {
        let (address, has_header) = (server.address, server.trusts_proxy());
        let mut clients = JoinSet::new();
        for (number, attack) in (0..count).zip(attacks.iter().copied().cycle()) {
            clients.spawn(async move {
                loop {
                    // It reconnects however the connection ended.
                    let _ = attack.bother(address, number, has_header).await;
                    sleep(PAUSE).await;
                }
            });
        }
        Self { _clients: clients }
    }
}

impl Attack {
    async fn bother(self, address: SocketAddr, number: u32, has_header: bool) -> std::io::Result<()> {
        let (mut reader, mut writer) = connect(address, number).await?.into_split();
        if has_header {
            writer.write_all(proxy_header(hostile_address(number)).as_bytes()).await?;
        }
        // Reads answers, so that a close by the server is noticed.
        let listen = async {
            let mut buffer = [0; 4096];
            while self != Self::SlowReader && reader.read(&mut buffer).await? > 0 {}
            if self == Self::SlowReader { std::future::pending().await } else { Ok(()) }
        };
        tokio::select! {
            ended = self.talk(&mut writer) => ended,
            ended = listen => ended,
        }
    }

    async fn talk(self, writer: &mut OwnedWriteHalf) -> std::io::Result<()> {
        match self {
            Self::SlowLoris => dribble(writer, br#"{"id":1,"method":"mining.subscribe","params":["#).await,
            Self::SlowPost => {
                writer.write_all(b"POST / HTTP/1.1\r\nHost: pool\r\nContent-Length: 100000\r\n\r\n").await?;
                dribble(writer, b" ").await
            }
            Self::Silent => std::future::pending().await,
            Self::Garbage | Self::Useless | Self::SlowReader | Self::Difficulties => {
                let mut ticks = interval(Duration::from_secs(1) / LINES_PER_SECOND);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    writer.write_all(&self.next_message()).await?;
                }
            }
        }
    }

    fn next_message(self) -> Vec<u8> {
        match self {
            Self::Useless => b"{\"id\":9,\"method\":\"mining.ping\",\"params\":[]}\n".to_vec(),
            Self::SlowReader => b"GET / HTTP/1.1\r\nHost: pool\r\n\r\n".to_vec(),
            Self::Difficulties => {
                let user = format!("x+{}", 1.0 + fastrand::f64());
                let login = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("{user}:x"));
                let body = r#"{"id":1,"method":"getwork","params":[]}"#;
                let length = body.len();
                format!(
                    "POST / HTTP/1.1\r\nHost: pool\r\nAuthorization: Basic {login}\r\nContent-Length: {length}\r\n\r\n{body}"
                )
                .into_bytes()
            }
            _ => {
                let mut noise: [u8; 64] = std::array::from_fn(|_| fastrand::u8(..));
                noise[63] = b'\n';
                noise.to_vec()
            }
        }
    }
}

/// Connects from one of several addresses of this machine: a single one runs out of ports.
async fn connect(address: SocketAddr, number: u32) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let [.., host] = number.to_be_bytes();
    socket.bind((Ipv4Addr::new(127, 0, 1, host.max(1)), 0).into())?;
    socket.connect(address).await
}

/// Sends one byte of `text` per second, again and again.
async fn dribble(writer: &mut OwnedWriteHalf, text: &[u8]) -> std::io::Result<()> {
    for byte in text.iter().cycle() {
        writer.write_all(&[*byte]).await?;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
