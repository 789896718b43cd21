//! Hostile clients: each kind does one thing that a server on the open internet must withstand.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Pause of a client before it reconnects.
const PAUSE: Duration = Duration::from_millis(100);

/// Useless lines per second of one client.
const LINES_PER_SECOND: u32 = 200;

/// Behaviour of a client.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Sends a request, one byte per second.
    SlowLoris,
    /// Connects, and never sends anything.
    Silent,
    /// Sends random bytes, as many as the next one.
    Garbage,
    /// Sends useless requests.
    Useless,
}

/// Running hostile clients; dropping it ends them.
#[derive(Debug)]
pub(super) struct Hostility {
    _clients: JoinSet<()>,
}

impl Hostility {
    /// Starts `count` clients against the server at `address`, as many of each kind.
    pub(super) fn start(address: SocketAddr, count: u32) -> Self {
        let kinds = [Kind::SlowLoris, Kind::Silent, Kind::Garbage, Kind::Useless];
        let mut clients = JoinSet::new();
        for kind in kinds.into_iter().cycle().take(count as usize) {
            clients.spawn(async move {
                loop {
                    // It reconnects however the connection ended.
                    let _ = kind.bother(address).await;
                    sleep(PAUSE).await;
                }
            });
        }
        Self { _clients: clients }
    }
}

impl Kind {
    async fn bother(self, address: SocketAddr) -> std::io::Result<()> {
        let (mut reader, mut writer) = TcpStream::connect(address).await?.into_split();
        let talk = async {
            match self {
                Self::SlowLoris => {
                    for byte in br#"{"id":1,"method":"mining.subscribe","params":["#.iter().cycle() {
                        writer.write_all(&[*byte]).await?;
                        sleep(Duration::from_secs(1)).await;
                    }
                }
                Self::Silent => std::future::pending().await,
                Self::Garbage | Self::Useless => {
                    let mut ticks = interval(Duration::from_secs(1) / LINES_PER_SECOND);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    loop {
                        ticks.tick().await;
                        if matches!(self, Self::Useless) {
                            writer.write_all(b"{\"id\":9,\"method\":\"mining.ping\",\"params\":[]}\n").await?;
                        } else {
                            let mut noise: [u8; 64] = std::array::from_fn(|_| fastrand::u8(..));
                            noise[63] = b'\n';
                            writer.write_all(&noise).await?;
                        }
                    }
                }
            }
            Ok(())
        };
        // Reads answers, so that a close by the server is noticed.
        let listen = async {
            let mut buffer = [0; 4096];
            while reader.read(&mut buffer).await? > 0 {}
            Ok(())
        };
        tokio::select! {
            ended = talk => ended,
            ended = listen => ended,
        }
    }
}
