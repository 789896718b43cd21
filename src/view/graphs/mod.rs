//! Graphs over an hour, a day, a week, a month and a year, as the reference draws them (protocol section 13.3), and its
//! log of the last day. Kept in the data directory in its format, so that they survive restarts and a move from it.
//!
//! ```text
//!  figures, rates, traffic ── every 5 s ──▶ Graphs ──▶ http
//!  own shares ── good, dead, and orphaned when that is known ──▶┘ ⇅ graph_db, stats
//! ```

pub mod file;
mod log;
mod sample;
mod view;

pub use log::Record;
pub use view::{Bin, Kind, ONLY, SPANS, Shape, Span, Value, View};

use crate::peers::Traffic;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::chain::{self, ChainEvent};
use crate::rates::Rates;
use crate::runtime::clock::unix_now;
use crate::runtime::data_dir::DataDir;
use crate::runtime::disk::{DiskHealth, Part};
use crate::view::snapshot::Snapshot;
use log::Log;
use sample::{OwnShares, Sampler};

/// Interval of samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Interval of writing the graphs to disk.
const WRITE_INTERVAL: Duration = Duration::from_secs(100);

/// Maximum number of miners in a bin: the busiest. The reference keeps ten thousand, too many for a year of bins.
const MINERS_KEPT: usize = 256;

/// Maximum number of keys in a bin of other sources.
const KEPT: usize = 20;

/// Description of a source of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// Name in paths and files.
    pub name: &'static str,
    /// Form in which its samples are kept.
    pub shape: Shape,
    /// Meaning and unit of its values.
    pub what: &'static str,
}

const fn describe(name: &'static str, kind: Kind, is_multi: bool, keep: usize, what: &'static str) -> Description {
    Description { name, shape: Shape { kind, is_multi, keep }, what }
}

/// The reference's sources.
pub const DESCRIPTIONS: [Description; 13] = [
    describe("local_hash_rate", Kind::Rate, false, KEPT, "hashes/s of this node's miners"),
    describe("local_dead_hash_rate", Kind::Rate, false, KEPT, "hashes/s of these that came too late"),
    describe("local_share_hash_rates", Kind::Rate, true, KEPT, "hashes/s of this node's shares, by outcome"),
    describe("pool_rates", Kind::GaugeOrZero, true, KEPT, "hashes/s of the pool, by outcome"),
    describe("current_payout", Kind::Gauge, false, KEPT, "coins for the node's address if a block were found"),
    describe("current_payouts", Kind::Gauge, true, MINERS_KEPT, "coins for each miner if a block were found"),
    describe("peers", Kind::Gauge, true, KEPT, "peers, by who opened the connection"),
    describe("miner_hash_rates", Kind::Rate, true, MINERS_KEPT, "hashes/s of each worker"),
    describe("miner_dead_hash_rates", Kind::Rate, true, MINERS_KEPT, "hashes/s of each worker that came too late"),
    describe(
        "desired_version_rates",
        Kind::GaugeOrZero,
        true,
        KEPT,
        "hashes/s of the pool, by share version voted for",
    ),
    describe("traffic_rate", Kind::Rate, true, KEPT, "bytes/s between this node and its peers"),
    describe("getwork_latency", Kind::Gauge, false, KEPT, "seconds until bitcoind gave a template"),
    describe("memory_usage", Kind::Gauge, false, KEPT, "bytes of memory of this process"),
];

/// A source with its views.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    description: &'static Description,
    views: [View; SPANS.len()],
}

impl Source {
    fn new(description: &'static Description) -> Self {
        Self { description, views: SPANS.map(View::new) }
    }

    pub fn name(&self) -> &'static str {
        self.description.name
    }

    /// True if there are no samples.
    pub fn is_empty(&self) -> bool {
        self.views.iter().all(View::is_empty)
    }

    fn add(&mut self, t: f64, sample: &[(Arc<str>, f64)]) {
        for view in &mut self.views {
            view.add(self.description.shape, t, sample);
        }
    }

    /// Draws the view of this name at the time `t`, newest bin first; `None` if there is no such view.
    pub fn draw(&self, view: &str, t: f64) -> Option<Vec<Bin>> {
        let index = SPANS.iter().position(|span| span.name == view)?;
        Some(self.views[index].draw(self.description.shape, t))
    }
}

/// All sources, in the order of [`DESCRIPTIONS`].
pub type Sources = Vec<Arc<Source>>;

/// Creates all sources, without samples.
pub fn sources() -> Sources {
    DESCRIPTIONS.iter().map(|description| Arc::new(Source::new(description))).collect()
}

/// Handle to the graphs. Clones share them.
#[derive(Debug, Clone)]
pub struct Graphs(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    sources: Sources,
    log: Log,
}

impl Default for Graphs {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { sources: sources(), log: Log::default() })))
    }
}

impl Graphs {
    /// Bins of a source's view now, newest first; `None` if there is no such source or view.
    pub fn draw(&self, source: &str, view: &str) -> Option<Vec<Bin>> {
        let found = self.0.lock().sources.iter().find(|found| found.name() == source).cloned()?;
        found.draw(view, unix_now())
    }

    /// Records of the last day, oldest first.
    pub fn log(&self) -> Vec<Arc<Record>> {
        self.0.lock().log.records()
    }

    /// Adds a sample. Copies the source first if a reader holds it.
    fn add(&self, source: &str, t: f64, sample: &[(Arc<str>, f64)]) {
        let mut state = self.0.lock();
        if let Some(found) = state.sources.iter_mut().find(|found| found.name() == source) {
            Arc::make_mut(found).add(t, sample);
        }
    }

    /// Loads the files in `dir`, if any.
    fn load(&self, dir: &Path) {
        let path = dir.join(file::NAME);
        let read = path.exists().then(|| file::read(&path));
        let log = Log::read(dir);
        let mut state = self.0.lock();
        match read {
            Some(Ok(sources)) => state.sources = sources,
            Some(Err(error)) => warn!(%error, "graphs start empty"),
            None => {}
        }
        match log {
            Ok(log) => state.log = log,
            Err(error) => warn!(%error, "the log of the last day starts empty"),
        }
    }

    fn write(&self, dir: &Path, disk: &DiskHealth) {
        let (sources, log) = {
            let state = self.0.lock();
            (state.sources.clone(), state.log.clone())
        };
        let result = file::write(&sources, dir).and_then(|()| log.write(dir));
        if let Err(error) = &result {
            warn!(%error, dir = %dir.display(), "cannot write graphs");
        }
        disk.report(Part::Graphs, result.err().map(|error| format!("cannot write in {}: {error}", dir.display())));
    }
}

/// Inputs of the graphs.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Snapshot of the node.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Miners' rates.
    pub rates: watch::Receiver<Arc<Rates>>,
    /// Share chain, for the outcome of our shares.
    pub chain: chain::Handle,
    /// Traffic with peers.
    pub traffic: Arc<Traffic>,
}

/// Takes samples for `graphs` until `stop`, and saves them once the data directory is ours.
pub async fn run(graphs: Graphs, inputs: Inputs, (data_dir, disk): (DataDir, DiskHealth), stop: CancellationToken) {
    let mut events = inputs.chain.events.subscribe();
    let mut own = OwnShares::default();
    let mut sampler = Sampler::new(&inputs, unix_now());
    let mut samples = tokio::time::interval(SAMPLE_INTERVAL);
    samples.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut writes = tokio::time::interval_at(tokio::time::Instant::now() + WRITE_INTERVAL, WRITE_INTERVAL);
    writes.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut waiting = std::pin::pin!(data_dir.ours());
    let mut is_loaded = false;
    let write = || {
        let (graphs, dir, disk) = (graphs.clone(), data_dir.path().to_owned(), disk.clone());
        tokio::task::spawn_blocking(move || graphs.write(&dir, &disk))
    };
    let mut writing = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            // The files of another process are read when it ends.
            () = &mut waiting, if !is_loaded => {
                is_loaded = true;
                let (graphs, dir) = (graphs.clone(), data_dir.path().to_owned());
                let loading = tokio::task::spawn_blocking(move || graphs.load(&dir));
                loading.await.expect("reading graphs does not panic");
                info!(file = file::NAME, "saving graphs from now on");
            }
            _ = samples.tick() => {
                sampler.sample(&graphs, &inputs, unix_now());
                own.settle(&graphs, &inputs.chain, unix_now()).await;
            }
            event = events.recv() => match event {
                Ok(ChainEvent::Accepted { share, is_own: true }) => own.found(&graphs, &share, false, unix_now()),
                Ok(ChainEvent::Late(share)) => own.found(&graphs, &share, true, unix_now()),
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => break,
            },
            // In the background: a disk may hang.
            _ = writes.tick(), if is_loaded && writing.is_none() => writing = Some(write()),
            () = async { finish(&mut writing).await }, if writing.is_some() => {}
        }
    }
    sampler.sample(&graphs, &inputs, unix_now());
    finish(&mut writing).await;
    if is_loaded {
        finish(&mut Some(write())).await;
    }
}

/// Waits for the current write, if any.
async fn finish(writing: &mut Option<JoinHandle<()>>) {
    if let Some(written) = writing {
        written.await.expect("writing graphs does not panic");
        *writing = None;
    }
}
