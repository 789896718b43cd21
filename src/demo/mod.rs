//! The demonstration: the whole node on the embedded chain, a small CPU miner, and the story of what happens.

mod hasher;
mod miner;
mod story;

use anyhow::{Context, Result};
use bitcoin::hashes::Hash;
use bitcoin::{Address, ScriptBuf, WPubkeyHash};
use metrics_exporter_prometheus::PrometheusHandle;
use std::fs;
use std::net::SocketAddr;
use std::thread::available_parallelism;
use std::time::Duration;
use stratum::Difficulty;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::bitcoind::embedded::{self, Rules};
use crate::config::DemoConfig;
use crate::journal::Journal;
use crate::listen;
use crate::network::DEMO;
use crate::node::{self, Parts};
use crate::tasks::Tasks;
use crate::work::{self, Payout};
use miner::MinerEvent;
use story::{Chapter, Story};

/// How long the machine's hash rate is measured for.
const MEASURE: Duration = Duration::from_millis(400);

/// Wanted time between blocks.
const SPACING: Duration = Duration::from_secs(10);

/// How often the status line is told anew on a terminal, and into a pipe.
const STATUS_ON_TERMINAL: Duration = Duration::from_secs(1);
const STATUS_IN_PIPE: Duration = Duration::from_secs(10);

/// What the miner tells of itself and the story has not told yet.
const MINER_EVENTS_MAX: usize = 1024;

/// Runs the demonstration until `stop`, or until it has shown as many blocks as it was asked for.
///
/// # Errors
/// The worker port is taken, or nothing can be written.
pub async fn run(
    config: DemoConfig,
    metrics: PrometheusHandle,
    tasks: &Tasks,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let threads = available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1));
    let mut story = Story::new();
    story.tell(&Chapter::Measuring);
    let per_thread = tokio::task::spawn_blocking(|| hasher::measure(MEASURE)).await?;
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 cores")]
    let hash_rate = per_thread * threads as f64;

    // Dropped at the end, and the folder with it.
    let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
    let data_dir = config.data_dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    fs::create_dir_all(&data_dir).with_context(|| format!("cannot create {}", data_dir.display()))?;
    let journal = Journal::open(&data_dir).context("cannot keep found blocks")?;
    let listener = listen::bind(config.worker_address).with_context(|| {
        format!("cannot listen for miners on {}: choose another port with -w", config.worker_address)
    })?;
    let difficulty = embedded::Difficulty::Adaptive { hash_rate, spacing: SPACING };
    let chain = embedded::Config { rules: Rules { difficulty, halving_interval: 210_000 } };
    let (daemon, _chain) = embedded::start(&chain, journal, tasks);
    let reports = daemon.reports.subscribe();
    let work = work::Config {
        network: &DEMO,
        default_payout: payout("p2pool demo node"),
        fee_percent: 0.0,
        coinbase_texts: work::coinbase_script_of_texts(&["P2Pool demo".to_owned()])?,
    };
    let mut stratum = config.stratum;
    let vardiff = &mut stratum.session.vardiff;
    // Right for our own miner from the start; others are found out about as everywhere.
    let wanted = Difficulty::from_average_hashes(hash_rate * vardiff.interval.as_secs_f64());
    vardiff.start = wanted.map_or(vardiff.start, Difficulty::to_power_of_two);
    let node = node::start(Parts { listener, work, stratum, metrics }, daemon, tasks)?;

    let address = payout("p2pool demo miner").address;
    let (events_sender, events) = mpsc::channel(MINER_EVENTS_MAX);
    story.tell(&Chapter::Listening { address: node.worker_address, hash_rate, spacing: SPACING });
    let miner =
        config.miner.then(|| start_miner(node.worker_address, format!("{address}.cpu"), threads, events_sender));
    if miner.is_none() {
        story.tell(&Chapter::WaitingForMiners { address: node.worker_address, example: &address });
    }
    let told = tell(&mut story, &node, events, reports, config.blocks, stop).await;
    if let Some(miner) = miner {
        miner.abort();
    }
    story.tell(&Chapter::End { rates: &node.rates.borrow().clone() });
    drop(node);
    tasks.drain(node::GRACE).await;
    told
}

/// Our own miner, which comes back when its connection ends, as miners do.
fn start_miner(pool: SocketAddr, name: String, threads: usize, events: mpsc::Sender<MinerEvent>) -> JoinHandle<()> {
    const PAUSE: Duration = Duration::from_secs(1);
    tokio::spawn(async move {
        loop {
            if let Err(error) = miner::run(pool, name.clone(), threads, events.clone()).await {
                tracing::warn!(%error, "the demo's miner lost its pool");
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
}

/// Tells what happens, until the end.
async fn tell(
    story: &mut Story,
    node: &node::Node,
    mut events: mpsc::Receiver<MinerEvent>,
    mut reports: tokio::sync::broadcast::Receiver<crate::block::BlockReport>,
    blocks_wanted: Option<u64>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let mut stop = std::pin::pin!(stop);
    let interval = if story.is_on_terminal() { STATUS_ON_TERMINAL } else { STATUS_IN_PIPE };
    let mut status = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            Some(event) = events.recv() => match event {
                MinerEvent::Job { difficulty, .. } => {
                    let height = node.work.borrow().as_ref().map(|work| work.template().height);
                    story.job(height, difficulty);
                }
                MinerEvent::Accepted => story.accepted(),
                MinerEvent::Refused(reason) => story.refused(&reason),
            },
            report = reports.recv() => {
                use tokio::sync::broadcast::error::RecvError;
                match report {
                    // The final word only: the embedded chain is the only route.
                    Ok(report) if report.route.is_none() => {
                        let rates = node.rates.borrow().clone();
                        story.block(&report, &rates);
                        if blocks_wanted.is_some_and(|wanted| story.blocks() >= wanted) {
                            return Ok(());
                        }
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Ok(()),
                }
            }
            _ = status.tick() => {
                let rates = node.rates.borrow().clone();
                story.tell(&Chapter::Status { rates: &rates });
            }
        }
    }
}

/// An address of the demo network that belongs to nobody, made from a name.
fn payout(name: &str) -> Payout {
    let script = ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(name.as_bytes()));
    let address = Address::from_script(&script, bitcoin::Network::Regtest).expect("it was made from a key's hash");
    Payout { script, address: address.to_string().into(), share_difficulty: None }
}
