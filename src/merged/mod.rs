//! Merged-mined chains: their daemons' next blocks in, found blocks with their proofs of work out, one task per chain.
//!
//! ```text
//! daemon ── createauxblock, getblocktemplate ──▶ Chain ──▶ watch<Arc<MergedOffers>> ──▶ work
//!        ◀── submitauxblock, submitblock ── blocks (one pipeline per chain) ◀── FoundBlock ── solution
//! ```
//!
//! Nothing here is waited for by the parent chain: a daemon that is gone, slow or wrong costs its own chain only.
//!
//! A chain's poll task (`poll`) asks its daemon and leaves a reading; one task (`assemble`) combines all readings.

mod answer;
mod assemble;
mod daemon;
mod episodes;
mod explorer;
mod gather;
mod maturity;
mod offers;
mod payouts;
mod poll;
mod probe;
mod queues;
mod reading;
mod route;
mod status;
mod template;
#[cfg(test)]
mod testing;
mod trouble;

pub use answer::{Answer, AnswerError};
pub use maturity::confirmations_mature;
pub use offers::{MergedJobs, MergedOffers, Offer, OwnBlock};
pub use payouts::NotPaid;
pub use probe::{DaemonReport, Findings, probe};
pub use queues::{MergedBlocks, NotSent, QUEUED_MAX, Sent};
pub use status::{ChainStatus, Mode, State};
pub use template::{MergedTemplate, TemplateBlock};
pub use trouble::Trouble;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use sharechain::share::Target;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;

use crate::bitcoind::credentials::Credentials;
use crate::blocks::found::{self, FoundBlocks};
use crate::blocks::journal::JournalError;
use crate::blocks::submit::Resubmitter;
use crate::blocks::{self, Chain, ChainNameError, Reports};
use crate::runtime::data_dir::DataDir;
use crate::runtime::disk::DiskHealth;
use crate::runtime::tasks::Tasks;
use assemble::{Assembler, Label};
use daemon::Daemon;
use poll::Poller;
use reading::Reading;
use route::AuxRoute;

/// Default of [`Config::pause`].
pub const PAUSE: Duration = Duration::from_secs(3);

/// Maximum number of chains: more would make every job's commitment costly to keep up to date.
pub const CHAINS_MAX: usize = 16;

/// Settings of merged mining.
#[derive(Debug, Clone)]
pub struct Config {
    /// Chains, in the order given.
    pub chains: Vec<ChainConfig>,
    /// Minimum time between two changes of miners' jobs that only merged chains caused.
    pub pause: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { chains: Vec::new(), pause: PAUSE }
    }
}

/// Settings of one merged chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainConfig {
    /// Name of the chain: of `a` to `z`, digits and `-`, unique; its folder's name, too.
    pub name: Arc<str>,
    /// Host of its daemon.
    pub host: String,
    /// RPC port of its daemon.
    pub port: u16,
    /// Path of the daemon's RPC, `/` if none was given (a wallet's is `/wallet/NAME`).
    pub path: String,
    /// User and password: given, or in a file that is read at each use.
    pub credentials: Credentials,
    /// Payee of blocks that do not pay the miners, an address of the chain; `None` leaves it to the daemon's wallet.
    pub address: Option<String>,
    /// Whose blocks they are to be.
    pub pays: Pays,
}

/// The operator's wish who is paid by a merged chain's blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pays {
    /// The miners where that is possible: on Dogecoin, once the share chain's shares are of version 36. Else one payee.
    #[default]
    MinersIfPossible,
    /// The miners, or there are no blocks.
    Miners,
    /// One payee: the address, or the daemon's wallet.
    One,
}

/// Access to one chain's kept blocks.
#[derive(Debug, Clone)]
pub struct KeptBlocks {
    /// Name of the chain.
    pub chain: Arc<str>,
    pub resubmitter: Resubmitter,
    /// Outcomes of submissions.
    pub reports: Reports,
}

/// Handle to merged mining. Clones share it.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Next blocks of all chains whose work can be used.
    pub work: watch::Receiver<Arc<MergedOffers>>,
    /// Set by what makes work: true while the next share is of a version that can say how merged blocks pay the miners.
    pub pays_miners: Arc<watch::Sender<bool>>,
    /// Where found blocks go.
    pub blocks: MergedBlocks,
    /// Blocks that are kept, by chain, in the order of the configuration.
    pub kept: Arc<[KeptBlocks]>,
    /// Condition of each chain, in the order of the configuration.
    pub status: watch::Receiver<Arc<Vec<ChainStatus>>>,
    /// Found blocks of all merged chains, latest first.
    pub found: watch::Receiver<Arc<FoundBlocks>>,
    /// Events of their found blocks; the parent chain's are sent here, too.
    pub events: broadcast::Sender<found::Event>,
}

impl Default for Handle {
    /// A handle without chains.
    fn default() -> Self {
        Self {
            work: watch::channel(Arc::default()).1,
            pays_miners: Arc::new(watch::channel(false).0),
            blocks: MergedBlocks::default(),
            kept: Arc::default(),
            status: watch::channel(Arc::default()).1,
            found: watch::channel(Arc::default()).1,
            events: broadcast::channel(found::EVENTS_KEPT_MAX).0,
        }
    }
}

/// Reason why merged mining cannot be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// A chain's name cannot be a folder's.
    #[error(transparent)]
    Name(#[from] ChainNameError),
    /// A chain's folder cannot be used.
    #[error("cannot keep found blocks of {chain}: {error}")]
    Journal {
        /// Name of the chain.
        chain: Arc<str>,
        /// Error of the disk.
        error: JournalError,
    },
}

/// Registers the metrics of this module.
pub fn describe() {
    describe_gauge!(
        "merged_up",
        "1 while a merged chain's daemon gives work, 0 before the first and while it fails, by chain"
    );
    describe_gauge!(
        "merged_left_out",
        "1 while nothing of a merged chain is mined, for its daemon or its work is of no use, by chain"
    );
    describe_gauge!(
        "merged_work_timestamp_seconds",
        "Time of the last answer of a merged chain's daemon with work, in seconds since 1970; 0 before the first; by chain"
    );
    describe_gauge!("merged_height", "Height of the merged chain's block that is mined; 0 without one; by chain");
    describe_gauge!(
        "merged_difficulty",
        "Difficulty (bdiff) of the merged chain's block that is mined; 0 without one, or if it is the share's; by chain"
    );
    describe_histogram!(
        "merged_rpc_seconds",
        Unit::Seconds,
        "Time of RPC calls to merged chains' daemons, by chain and method"
    );
    describe_counter!(
        "merged_rpc_failures_total",
        "RPC calls to merged chains' daemons that failed, by chain, method and kind of failure"
    );
}

/// Starts merged mining of the chains of `config`, and returns at once: daemons may start later. `floor` is the easiest
/// target that the miners' ports allow; chains with an easier one are mined with a warning.
///
/// # Errors
/// A chain's folder cannot be used.
pub fn start(
    config: &Config,
    floor: Target,
    data_dir: &DataDir,
    disk: &DiskHealth,
    tasks: &Tasks,
) -> Result<Handle, StartError> {
    let events = broadcast::channel(found::EVENTS_KEPT_MAX).0;
    let unread = config.chains.iter().map(|_| Reading::new(Instant::now())).collect();
    let (readings, all_readings) = watch::channel(unread);
    let readings = Arc::new(readings);
    let pays_miners = Arc::new(watch::channel(false).0);
    let (mut labels, mut queues, mut records, mut kept_blocks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (index, config) in config.chains.iter().enumerate() {
        let daemon = Daemon::new(config);
        let chain = Arc::new(Chain::merged(&config.name, maturity::UNKNOWN)?);
        let (next_block, next) = watch::channel(None);
        let news = Arc::new(Notify::new());
        let inputs = blocks::Inputs {
            chain: chain.clone(),
            data_dir: data_dir.clone(),
            disk: disk.clone(),
            routes: vec![Arc::new(AuxRoute::new(daemon.clone(), news.clone()))],
            explorer: Arc::new(daemon.clone()),
            next_block: next,
            events: events.clone(),
        };
        let kept =
            blocks::keep(tasks, inputs).map_err(|error| StartError::Journal { chain: config.name.clone(), error })?;
        let blocks::Handle { blocks, resubmitter, reports, found, .. } = kept;
        kept_blocks.push(KeptBlocks { chain: config.name.clone(), resubmitter, reports });
        queues.push((config.name.clone(), blocks));
        records.push(found);
        labels.push(Label { name: config.name.clone(), daemon: daemon.target().into(), payee: daemon.payee().clone() });
        let (pays, pays_miners) = (config.pays, pays_miners.subscribe());
        let poller = Poller { daemon, chain, index, readings: readings.clone(), next_block, news, pays, pays_miners };
        tasks.spawn("merged chain", poller.run(tasks.stop_signal()));
    }
    let (work_sender, work) = watch::channel(Arc::default());
    let (status_sender, status) = watch::channel(Arc::default());
    let assembler =
        Assembler { chains: labels, floor, readings: all_readings, work: work_sender, status: status_sender };
    tasks.spawn("merged work", assembler.run(tasks.stop_signal()));
    let (found_sender, found) = watch::channel(Arc::default());
    tasks.spawn("merged chains' blocks", gather::run(records, found_sender, tasks.stop_signal()));
    Ok(Handle { work, pays_miners, blocks: MergedBlocks::new(queues), kept: kept_blocks.into(), status, found, events })
}

#[cfg(test)]
mod tests;
