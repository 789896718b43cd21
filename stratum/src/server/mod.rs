//! The tokio half: admits connections, drives a [`Session`](crate::Session) over each, counts, drains.
//!
//! It owns no port: whoever accepts hands over the stream and the bytes that were read of it to tell protocols apart.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the driver owns sockets and the clock")]

pub mod limits;
pub mod metrics;

mod connection;
mod fanout;
mod wake_filter;

use bytes::BytesMut;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, info_span, warn};

use crate::mining::difficulty::Difficulty;
use crate::mining::extranonce::Extranonces;
use crate::mining::memory::Memory;
use crate::mining::solution::{Now, Solution};
use crate::mining::tally::Tallies;
use crate::mining::vardiff;
use crate::mining::work::Work;
use crate::v1::session::{self, JobTooBig};
use fanout::Fanout;
use limits::{Limits, Registry};
use metrics::Meters;

/// Workers whose device is known to be too small, for their owners' pages.
const SMALL_DEVICES_MAX: usize = 10_000;

/// Requests that were not understood and are each told to the operator once.
const NOT_UNDERSTOOD_MAX: usize = 256;

/// How the server behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Of each session.
    pub session: session::Config,
    /// Of all connections together.
    pub limits: Limits,
    /// How long a connection may leave what we send unread before it is closed.
    pub write_timeout: Duration,
    /// Bytes waiting to be sent to one connection above which nothing more is read of it: a miner that does not read its
    /// answers gets no new ones. A job in the making may come on top.
    pub pending_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            session: session::Config::default(),
            limits: Limits::default(),
            write_timeout: Duration::from_secs(60),
            pending_bytes_max: 256 * 1024,
        }
    }
}

/// What is different for the miners of one port: an operator may have one for rented hash rate and one for small devices.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PortPolicy {
    /// The difficulty that they start at, if not the usual.
    pub start: Option<Difficulty>,
    /// The least difficulty that they get unless their names ask for less.
    pub min: Option<Difficulty>,
}

impl PortPolicy {
    /// The configuration of this port's sessions, where that of the others is `config`.
    pub fn session(self, config: session::Config) -> session::Config {
        session::Config { vardiff: self.vardiff(config.vardiff), ..config }
    }

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
    tallies: Arc<Tallies>,
    stop: CancellationToken,
    seeds: AtomicU64,
    session_config: Arc<session::Config>,
    memory: Arc<Memory<W::Ticket>>,
    meters: Arc<Meters>,
    fanout: Fanout,
    small_devices: Mutex<HashMap<Arc<str>, JobTooBig>>,
    not_understood: Mutex<HashSet<Box<str>>>,
}

impl<W: Work> Server<W> {
    /// A server that takes its work from `work` (`None` means that there is nothing to mine: miners are sent away so
    /// that they fail over to their next pool), waits on `solutions` until they are taken, and leaves what workers do at
    /// `tallies`. It winds down when `stop` is cancelled.
    pub fn new(
        config: Config,
        work: watch::Receiver<Option<Arc<W>>>,
        solutions: mpsc::Sender<Solution<W::Ticket>>,
        tallies: Arc<Tallies>,
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
            tallies,
            stop,
            seeds: AtomicU64::new(fastrand::u64(..)),
            session_config: Arc::new(config.session),
            memory: Arc::default(),
            meters: Arc::default(),
            fanout: Fanout::default(),
            small_devices: Mutex::default(),
            not_understood: Mutex::default(),
        }
    }

    /// The workers whose device most likely cannot hold the jobs that it gets, for those who look after them.
    pub fn small_devices(&self) -> Vec<JobTooBig> {
        self.small_devices.lock().values().cloned().collect()
    }

    /// Warns the operator once for each kind of device, and keeps the worker in mind.
    fn note_small_device(&self, too_big: JobTooBig) {
        metrics::job_too_big(too_big.device);
        let mut known = self.small_devices.lock();
        if known.values().any(|before| before.device == too_big.device) {
            debug!(worker = %too_big.worker, user_agent = too_big.user_agent, "{too_big}");
        } else {
            warn!(worker = %too_big.worker, user_agent = too_big.user_agent, "{too_big}");
        }
        if known.len() < SMALL_DEVICES_MAX {
            known.insert(too_big.worker.clone(), too_big);
        }
    }

    /// Tells the operator of each request that was not understood, once.
    fn note_not_understood(&self, what: Box<str>, user_agent: &str) {
        metrics::not_understood();
        let mut known = self.not_understood.lock();
        if known.len() < NOT_UNDERSTOOD_MAX && !known.contains(&what) {
            info!(%what, user_agent, "a miner asks for what is not known here");
            known.insert(what);
        }
    }

    /// What is counted, for others who judge submissions, and to be published.
    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.registry.connections()
    }

    /// Where extranonces come from, for others who make coinbases on the same jobs.
    pub fn extranonces(&self) -> &Extranonces {
        &self.extranonces
    }

    /// Serves one connection until it ends. `read` is what was read of it already, `address` where it comes from.
    pub async fn serve<S>(&self, stream: S, read: BytesMut, address: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        self.serve_with(&self.session_config, stream, read, address).await;
    }

    /// Serves one connection as [`Self::serve`] does, but with sessions of another configuration: that of its port.
    pub async fn serve_with<S>(&self, config: &Arc<session::Config>, stream: S, read: BytesMut, address: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let permit = match self.registry.admit(address, Instant::now()) {
            Ok(permit) => permit,
            Err(full) => {
                debug!(%address, reason = %full, "connection refused");
                metrics::refused(full.word());
                return;
            }
        };
        let number = self.seeds.fetch_add(1, Ordering::Relaxed);
        // Entered where something is said, not at every wake-up: that costs a submission a twentieth of its time.
        let span = info_span!("miner", %address);
        let end = connection::run(self, config, stream, read, number, span).await;
        drop(permit);
        metrics::closed(end.word());
    }
}

/// The clocks, read.
fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // The runtime's clock is the system's, but for tests.
    Now { instant: tokio::time::Instant::now().into_std(), unix: u32::try_from(unix).unwrap_or(u32::MAX) }
}
