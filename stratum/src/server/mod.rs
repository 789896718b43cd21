//! The tokio half: admits connections, drives a [`Session`](crate::Session) on each, keeps metrics, drains on stop.
//!
//! It opens no port: the caller accepts a connection and passes the stream, with the bytes read to detect its protocol.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the driver owns sockets and the clock")]

pub mod admission;
pub mod hashing;
pub mod metrics;

mod connection;
mod fanout;
mod gatekeeper;
mod wake_filter;

pub use gatekeeper::{Check, Gatekeeper, PortService};

use bytes::BytesMut;
use ipnet::IpNet;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, info_span, warn};

use crate::mining::extranonce::Extranonces;
use crate::mining::memory::Memory;
use crate::mining::solution::{Now, Solution};
use crate::mining::tally::Tallies;
use crate::mining::vardiff;
use crate::mining::work::Work;
use crate::v1::session::{self, JobTooBig};
use admission::{Admission, Kind, Limits, Place};
use fanout::Fanout;
use hashing::Hashers;
use metrics::Meters;

/// Maximum number of workers listed as having too small a device.
const SMALL_DEVICES_MAX: usize = 10_000;

/// Maximum number of distinct requests not understood that are logged, each once.
const NOT_UNDERSTOOD_MAX: usize = 256;

/// Settings of the server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Settings of each session.
    pub session: session::Config,
    /// Limits on all connections together.
    pub limits: Limits,
    /// Time without progress in writing to a miner after which its connection is closed.
    pub write_timeout: Duration,
    /// Bytes queued for one connection above which no more is read from it: a miner that does not read its answers gets
    /// no new ones. A job may be queued on top.
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

/// Settings of one port that differ from the server's, for instance for rented hash rate or small devices.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PortPolicy {
    /// Initial difficulty, in the unit of the coin's miners; `None` for the server's.
    pub start: Option<f64>,
    /// Minimum difficulty in the same unit, unless the worker name requests less; `None` for the server's.
    pub min: Option<f64>,
}

impl PortPolicy {
    /// Applies to the session settings `config`.
    pub fn session(self, config: session::Config) -> session::Config {
        let wish = |number: Option<f64>| number.and_then(|number| config.difficulty_scale.read(number));
        let min = wish(self.min).unwrap_or(config.vardiff.min);
        let start = wish(self.start).unwrap_or(config.vardiff.start);
        let start = if start.get() < min.get() { min } else { start };
        session::Config { vardiff: vardiff::Config { min, start, ..config.vardiff }, ..config }
    }
}

/// State shared by all connections.
#[derive(Debug)]
pub struct Server<W: Work> {
    config: Config,
    admission: Arc<Admission>,
    /// Connections being served.
    miners: AtomicUsize,
    extranonces: Extranonces,
    work: watch::Receiver<Option<Arc<W>>>,
    solutions: mpsc::Sender<Solution<W::Ticket>>,
    tallies: Arc<Tallies>,
    stop: CancellationToken,
    seeds: AtomicU64,
    /// Service of connections whose port has no other.
    service: PortService,
    memory: Arc<Memory<W::Ticket>>,
    hashers: Arc<Hashers>,
    meters: Arc<Meters>,
    fanout: Fanout,
    small_devices: Mutex<HashMap<Arc<str>, JobTooBig>>,
    not_understood: Mutex<HashSet<Box<str>>>,
}

impl<W: Work> Server<W> {
    /// Creates a server that takes its work from `work` (on `None` miners are disconnected, so that they fail over to
    /// their next pool), sends solutions to `solutions`, waiting while it is full, and adds tallies to `tallies`. It
    /// stops when `stop` is cancelled.
    pub fn new(
        config: Config,
        work: watch::Receiver<Option<Arc<W>>>,
        solutions: mpsc::Sender<Solution<W::Ticket>>,
        tallies: Arc<Tallies>,
        stop: CancellationToken,
    ) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // A restart continues with unused values: 2^32 of them last for a day at 50,000 a second.
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are what changes")]
        let first = (since_1970.as_millis() as u32).wrapping_mul(50);
        Self {
            config,
            admission: Admission::new(config.limits, Vec::new(), stop.clone()),
            miners: AtomicUsize::new(0),
            extranonces: Extranonces::starting_at(first),
            work,
            solutions,
            tallies,
            stop,
            seeds: AtomicU64::new(fastrand::u64(..)),
            service: PortService::new(config.session, None),
            memory: Arc::new(Memory::new(config.limits.exempts_loopback)),
            hashers: Arc::default(),
            meters: Arc::default(),
            fanout: Fanout::default(),
            small_devices: Mutex::default(),
            not_understood: Mutex::default(),
        }
    }

    /// Workers whose device most likely cannot hold the jobs it gets, for display.
    pub fn small_devices(&self) -> Vec<JobTooBig> {
        self.small_devices.lock().values().cloned().collect()
    }

    /// Logs a warning once for each kind of device, and adds the worker to the list.
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

    /// Logs each request that was not understood once.
    fn note_not_understood(&self, what: Box<str>, user_agent: &str) {
        metrics::not_understood();
        let mut known = self.not_understood.lock();
        if known.len() < NOT_UNDERSTOOD_MAX && !known.contains(&what) {
            info!(%what, user_agent, "request not understood");
            known.insert(what);
        }
    }

    /// Metrics, for other judges of submissions and for publishing.
    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// Never limits or closes connections from the networks `trusted` for others.
    #[must_use]
    pub fn trusting(mut self, trusted: Vec<IpNet>) -> Self {
        self.admission = Admission::new(self.config.limits, trusted, self.stop.clone());
        self
    }

    /// Has costly proofs of work computed by `hashers`, which others use as well.
    #[must_use]
    pub fn hashing_with(self, hashers: Arc<Hashers>) -> Self {
        Self { hashers, ..self }
    }

    /// Hashing threads, for other judges of submissions.
    pub fn hashers(&self) -> &Arc<Hashers> {
        &self.hashers
    }

    /// Admission to this server, for all that accept connections at its ports.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Number of connections being served.
    pub fn connections(&self) -> usize {
        self.miners.load(Ordering::Relaxed)
    }

    /// Pool of extranonces, for other makers of coinbases on the same jobs.
    pub fn extranonces(&self) -> &Extranonces {
        &self.extranonces
    }

    /// Serves one connection until it ends. `read` has the bytes read so far, `address` is the peer's.
    pub async fn serve<S>(&self, stream: S, read: BytesMut, address: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        match self.admission.enter(address) {
            Ok(place) => self.serve_with(&self.service, stream, read, &place).await,
            Err(full) => debug!(%address, reason = %full, "connection refused"),
        }
    }

    /// Serves an admitted connection as `service` says for its port.
    pub async fn serve_with<S>(&self, service: &PortService, stream: S, read: BytesMut, place: &Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        place.becomes(Kind::Stratum);
        let _served = Served::new(&self.miners);
        let number = self.seeds.fetch_add(1, Ordering::Relaxed);
        // Entered only for log lines, not at every wake-up: that takes a twentieth of a submission's time.
        let span = info_span!("miner", address = %place.address());
        let end = connection::run(self, service, stream, read, number, span, place).await;
        metrics::closed(end.word());
    }
}

/// A connection being served, in the count of them.
struct Served<'a>(&'a AtomicUsize);

impl<'a> Served<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        metrics::connections(count.fetch_add(1, Ordering::Relaxed) + 1);
        Self(count)
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        metrics::connections(self.0.fetch_sub(1, Ordering::Relaxed) - 1);
    }
}

/// Reads both clocks.
fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // The runtime's clock is the system's, except in tests.
    Now { instant: tokio::time::Instant::now().into_std(), unix: u32::try_from(unix).unwrap_or(u32::MAX) }
}
