//! The tokio half: admits connections, drives a [`Session`](crate::Session) over each, counts, drains.
//!
//! It owns no port: whoever accepts hands over the stream and the bytes that were read of it to tell protocols apart.

pub mod limits;
pub mod metrics;

mod connection;

use bytes::BytesMut;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span};

use crate::difficulty::Difficulty;
use crate::extranonce::Extranonces;
use crate::session::{Credit, Now, Solution};
use crate::vardiff;
use crate::work::Work;
use limits::{Limits, Registry};

/// How the server behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Of each session.
    pub session: crate::session::Config,
    /// Of all connections together.
    pub limits: Limits,
    /// How long a connection may leave what we send unread before it is closed.
    pub write_timeout: Duration,
}

/// What is different for the miners of one port: an operator may have one for rented hash rate and one for small devices.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Terms {
    /// The difficulty that they start at, if not the usual.
    pub start: Option<Difficulty>,
    /// The least difficulty that they get unless their names ask for less.
    pub min: Option<Difficulty>,
}

impl Terms {
    /// How difficulty is chosen on this port, where the others choose it by `config`.
    pub fn vardiff(self, config: vardiff::Config) -> vardiff::Config {
        let min = self.min.unwrap_or(config.min);
        let start = self.start.unwrap_or(config.start);
        vardiff::Config { min, start: if start.get() < min.get() { min } else { start }, ..config }
    }
}

/// What all connections share.
#[derive(Debug)]
pub struct Server<W: Work> {
    config: Config,
    registry: Registry,
    extranonces: Extranonces,
    work: watch::Receiver<Option<Arc<W>>>,
    solutions: mpsc::Sender<Solution<W::Ticket>>,
    credits: mpsc::Sender<Credit>,
    stop: CancellationToken,
    seeds: AtomicU64,
}

impl<W: Work> Server<W> {
    /// A server that takes its work from `work` (`None` means that there is nothing to mine: miners are sent away so
    /// that they fail over to their next pool), waits on `solutions` until they are taken, and drops what does not fit
    /// into `credits`. It winds down when `stop` is cancelled.
    pub fn new(
        config: Config,
        work: watch::Receiver<Option<Arc<W>>>,
        solutions: mpsc::Sender<Solution<W::Ticket>>,
        credits: mpsc::Sender<Credit>,
        stop: CancellationToken,
    ) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // A restart continues where no earlier run can have been: 2^32 values last for a day at 50,000 a second.
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are what changes")]
        let first = (since_1970.as_millis() as u32).wrapping_mul(50);
        Self {
            config,
            registry: Registry::new(config.limits),
            extranonces: Extranonces::starting_at(first),
            work,
            solutions,
            credits,
            stop,
            seeds: AtomicU64::new(fastrand::u64(..)),
        }
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.registry.connections()
    }

    /// Where extranonces come from, for others who make coinbases on the same jobs.
    pub fn extranonces(&self) -> &Extranonces {
        &self.extranonces
    }

    /// Serves one connection on `terms` until it ends. `read` is what was read of it already, `address` where it comes
    /// from.
    pub async fn serve<S>(&self, stream: S, read: BytesMut, address: IpAddr, terms: Terms)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let permit = match self.registry.admit(address) {
            Ok(permit) => permit,
            Err(full) => {
                debug!(%address, reason = %full, "connection refused");
                metrics::refused(full.word());
                return;
            }
        };
        let number = self.seeds.fetch_add(1, Ordering::Relaxed);
        let end = connection::run(self, stream, read, terms, number).instrument(info_span!("miner", %address)).await;
        drop(permit);
        metrics::closed(end.word());
    }
}

/// The clocks, read.
fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Now { instant: Instant::now(), unix: u32::try_from(unix).unwrap_or(u32::MAX) }
}
