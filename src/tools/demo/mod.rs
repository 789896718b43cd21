//! The demonstration: the whole node on the embedded chain, a small CPU miner, and a story of the events.

mod merged;
mod miners;
mod story;

use anyhow::{Context, Result, bail};
use metrics_exporter_prometheus::PrometheusHandle;
use sharechain::coin::{BITCOIN_REGTEST, DEMO, Network, Parent, Pow};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;
use stratum::Difficulty;
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use crate::blocks::BlockReport;
use crate::blocks::announce;
use crate::blocks::found::FoundBlocks;
use crate::blocks::journal::Journal;
use crate::chain::ChainEvent;
use crate::embedded::{self, Rules};
use crate::front::MinerPort;
use crate::merged as merged_mining;
use crate::node::{self, Parts, Ports};
use crate::runtime::clock;
use crate::runtime::data_dir::DataDir;
use crate::runtime::disk::DiskHealth;
use crate::runtime::log::{self, Tail};
use crate::runtime::sockets;
use crate::runtime::sockets::Port;
use crate::runtime::tasks::Tasks;
use crate::tools::mine::{self, MinerEvent};
use crate::work;
use crate::work::target::of_difficulty;
use merged::MergedChains;
use miners::{Account, MINERS, payout, start_miners};
use story::{Chapter, Story};

/// Configuration of a demonstration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Network whose addresses and proof of work the demo has.
    pub coin: &'static Network,
    /// Logging.
    pub log: log::Config,
    /// Number of blocks after which to stop.
    pub blocks: Option<u64>,
    /// Starts the demo's miners.
    pub miner: bool,
    /// Mines merged chains, too.
    pub merged: bool,
    /// Port for miners.
    pub worker_port: MinerPort,
    /// Folder of found blocks; `None` for a temporary one.
    pub data_dir: Option<PathBuf>,
    /// Percentage of work that pays the node itself.
    pub fee_percent: f64,
    /// Limits and options of the miners' connections.
    pub stratum: stratum::server::Config,
}

impl Default for Config {
    /// On Bitcoin's own private chain.
    fn default() -> Self {
        Self::on(&BITCOIN_REGTEST)
    }
}

impl Config {
    /// A miner, and others on this machine alone; all is thrown away at the end.
    pub fn on(coin: &'static Network) -> Self {
        let mut stratum = node::serving(&demo_of(coin));
        // Several submissions a second of the miners together show a newcomer that something happens.
        stratum.session.vardiff.interval = Duration::from_millis(750);
        stratum.limits.connections_max = 1000;
        stratum.limits.connections_per_address_max = 100;
        Self {
            coin,
            log: log::Config::default(),
            blocks: None,
            miner: true,
            merged: false,
            worker_port: MinerPort::at((Ipv4Addr::LOCALHOST, DEMO.worker_port).into()),
            data_dir: None,
            fee_percent: 0.0,
            stratum,
        }
    }
}

/// Duration of measuring the machine's hash rate.
const MEASURE: Duration = Duration::from_millis(400);

/// Target time between blocks.
const BLOCK_SPACING: Duration = Duration::from_secs(10);

/// Target time between shares. At least two seconds, for a share's time is at least a second after its parent's.
const SHARE_SPACING: Duration = Duration::from_millis(2500);

/// Intervals of the status line on a terminal, and in a pipe.
const STATUS_ON_TERMINAL: Duration = Duration::from_secs(1);
const STATUS_IN_PIPE: Duration = Duration::from_secs(10);

/// Maximum time that a merged chain's block waits for the node's record of it.
const RECORD_MAX: Duration = Duration::from_secs(1);

/// Maximum wait at the end for events of the last block.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Queue capacity for the miners' events.
const MINER_EVENTS_MAX: usize = 1024;

/// Speed of this machine, and how much of it the miners use.
struct Machine {
    /// Hashes per second of one thread.
    per_thread: f64,
    /// Number of threads that the miners use together.
    busy: usize,
}

impl Machine {
    /// Measures for a moment.
    async fn measure(pow: Pow) -> Result<Self> {
        let cores = available_parallelism().map_or(1, std::num::NonZero::get);
        let per_thread = tokio::task::spawn_blocking(move || mine::measure(pow, MEASURE)).await?;
        // The miners use half of the machine, if it has that many cores.
        Ok(Self { per_thread, busy: (cores / 2).clamp(1, MINERS.len()) })
    }

    /// Hash rate of the miners together.
    fn hash_rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "there are three of them")]
        let busy = self.busy as f64;
        self.per_thread * busy
    }

    /// Hash rate of each miner, which works for a part of a thread's time.
    fn pace(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "there are three of them")]
        let part = self.busy as f64 / MINERS.len() as f64;
        self.per_thread * part
    }
}

/// Runs the demonstration until `stop`, or for the requested number of blocks.
///
/// # Errors
/// The worker port is taken, or the disk refuses.
pub async fn run(
    config: Config,
    log: Tail,
    disk: DiskHealth,
    metrics: PrometheusHandle,
    tasks: &Tasks,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let coin = config.coin;
    let accounts = MINERS.map(|(name, user_name)| Account::new(name, user_name, coin));
    let mut story = Story::new(accounts.iter().flat_map(Account::names), &coin.parent);
    story.print(&Chapter::Measuring);
    let machine = Machine::measure(coin.parent.pow).await?;
    let hash_rate = machine.hash_rate();
    let network = network_for(coin, hash_rate);

    // Dropped at the end, together with the folder.
    let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
    let data_dir = open_data_dir(config.data_dir.as_deref().unwrap_or(temporary.path()), network)?;
    let journal = Journal::open(Arc::default(), &data_dir, disk.clone()).context("cannot keep found blocks")?;
    let (worker_address, access) = (config.worker_port.address, config.worker_port.access()?);
    let (listener, address) = listen(worker_address)?;
    let (daemon, _chain) = embedded::start(&chain_of(network, hash_rate), journal, tasks);
    let sharechain = node::load_sharechain(network, &data_dir, None, &daemon, &disk, tasks).await?;
    let (reports, shares) = (daemon.reports.subscribe(), sharechain.0.events.subscribe());
    let merged = if config.merged { MergedChains::start(coin, hash_rate)? } else { MergedChains::default() };
    let stratum = serving(config.stratum, coin.parent.pow, &machine);
    let floor = of_difficulty(config.worker_port.policy.session(stratum.session).vardiff.min);
    let merged_handle =
        merged_mining::start(&merged.config(), floor, &data_dir, &disk, tasks).context("cannot mine merged chains")?;
    // This chain has no other miners: no network.
    let parts = Parts {
        data_dir,
        disk,
        start_pool: true,
        ports: Ports {
            miners: vec![(Port::Open(listener), access)],
            web: None,
            tls: None,
            proxies: Vec::new(),
            trusted: Vec::new(),
            web_users: None,
            web_open: Vec::new(),
        },
        web_static: None,
        web_hosts: Vec::new(),
        work: work_of(network, config.fee_percent),
        stratum,
        merged: merged_handle,
        sharechain,
        p2p: None,
        announce: announce::Config::default(),
        log,
        metrics,
    };
    let node = node::start(parts, daemon, tasks);

    let (events_sender, events) = mpsc::channel(MINER_EVENTS_MAX);
    story.print(&Chapter::Listening { address, hash_rate, block_spacing: BLOCK_SPACING, share_spacing: SHARE_SPACING });
    story.print(&Chapter::Merged { names: &merged.names() });
    let miners = if config.miner {
        start_miners(address, &accounts, coin, machine.pace(), &events_sender)
    } else {
        story.print(&Chapter::WaitingForMiners { address, example: &payout("you", coin).address });
        Vec::new()
    };
    drop(events_sender);
    let mut heard = StorySources { events, reports, shares, merged };
    let ended = follow(&mut story, &node, &mut heard, config.blocks, stop).await;
    // Stopped before their pool, or they would log its loss.
    for miner in miners {
        miner.abort();
        let _ = miner.await;
    }
    story.print(&Chapter::End { rates: &node.rates.borrow().clone() });
    drop(node);
    tasks.drain(node::GRACE).await;
    heard.merged.stop().await;
    ended
}

/// Opens the folder of found blocks.
fn open_data_dir(folder: &Path, network: &Network) -> Result<DataDir> {
    let data_dir = DataDir::open(folder, network)?;
    if !data_dir.is_ours() {
        bail!("another demo runs on {}: give this one a --datadir of its own", data_dir.path().display());
    }
    Ok(data_dir)
}

/// Opens the port for miners.
fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listener = sockets::bind(address)
        .with_context(|| format!("cannot listen for miners on {address}: choose another port with -w"))?;
    let address = listener.local_addr().context("cannot tell where miners connect")?;
    Ok((listener, address))
}

/// The demo's network with what people and miners see of `coin`: addresses, proof of work, unit of difficulty, merged
/// chain, and its newest share version from the first share on.
fn demo_of(coin: &Network) -> Network {
    let parent = Parent {
        address_version: coin.parent.address_version,
        address_p2sh_version: coin.parent.address_p2sh_version,
        address_p2sh_version_old: coin.parent.address_p2sh_version_old,
        human_readable_part: coin.parent.human_readable_part,
        pow: coin.parent.pow,
        dumb_scrypt_diff: coin.parent.dumb_scrypt_diff,
        ..DEMO.parent
    };
    // Each coin has its own, so that none takes another's shares from a kept folder.
    let mut identifier = DEMO.identifier;
    for (byte, (one, other)) in identifier.iter_mut().zip(coin.identifier.iter().zip(BITCOIN_REGTEST.identifier)) {
        *byte ^= one ^ other;
    }
    let newest_version = coin.newest_version.max(DEMO.newest_version);
    let merged_chain = coin.merged_chain;
    Network { parent, identifier, merged_chain, newest_version, start_version: newest_version, ..DEMO }
}

/// The demo's network on `coin`, with a share difficulty for this machine. Created once per process.
fn network_for(coin: &Network, hash_rate: f64) -> &'static Network {
    let hashes = hash_rate * SHARE_SPACING.as_secs_f64();
    let easiest = Difficulty::from_average_hashes(hashes)
        .map_or(DEMO.max_target, |difficulty| of_difficulty(difficulty).to_u256());
    Box::leak(Box::new(Network { max_target: easiest, ..demo_of(coin) }))
}

/// Configuration of the private chain below `network`.
fn chain_of(network: &Network, hash_rate: f64) -> embedded::Config {
    let difficulty = embedded::Difficulty::Adaptive { hash_rate, spacing: BLOCK_SPACING };
    let rules = Rules { pow: network.parent.pow, difficulty, halving_interval: 210_000 };
    embedded::Config { rules, known_rules: network.known_rules }
}

/// Configuration of work that pays the node itself where a name is no address.
fn work_of(network: &'static Network, fee_percent: f64) -> work::Config {
    work::Config {
        network,
        default_payout: payout("node", network),
        fee_percent,
        donation_percent: 0.0,
        coinbase_texts: vec!["P2Pool demo".to_owned()],
        merged_pause: merged_mining::PAUSE,
        clock: clock::unix_second,
    }
}

/// Adjusts the settings of miners' connections to our own miners' pace, so that they are right for them from the start;
/// vardiff adapts to others as everywhere.
fn serving(mut stratum: stratum::server::Config, pow: Pow, machine: &Machine) -> stratum::server::Config {
    let vardiff = &mut stratum.session.vardiff;
    if pow == Pow::Scrypt {
        // A processor needs minutes for what suits the slowest device of SHA-256d.
        vardiff.min = Difficulty::from_average_hashes(1.0).unwrap_or(vardiff.min);
    }
    let wanted = Difficulty::from_average_hashes(machine.pace() * vardiff.interval.as_secs_f64());
    vardiff.start = wanted.map_or(vardiff.start, Difficulty::to_power_of_two);
    stratum
}

/// Sources of the story.
struct StorySources {
    events: mpsc::Receiver<MinerEvent>,
    reports: broadcast::Receiver<BlockReport>,
    shares: broadcast::Receiver<ChainEvent>,
    merged: MergedChains,
}

/// Narrates events until the end.
async fn follow(
    story: &mut Story,
    node: &node::Node,
    heard: &mut StorySources,
    blocks_wanted: Option<u64>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let mut stop = std::pin::pin!(stop);
    let interval = if story.is_on_terminal() { STATUS_ON_TERMINAL } else { STATUS_IN_PIPE };
    let mut status = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            Some(event) = heard.events.recv() => match event {
                MinerEvent::Job { difficulty } => {
                    let height = node.work.borrow().as_ref().map(|work| work.template().height);
                    story.job(height, difficulty);
                }
                MinerEvent::Accepted => story.accepted(),
                MinerEvent::Refused(reason) => story.refused(&reason),
            },
            share = heard.shares.recv() => match share {
                Ok(event) => add_share(story, &event),
                // Missed events; the totals on the status line are the node's own.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            report = heard.reports.recv() => match report {
                // Only the final report: the embedded chain is the only route.
                Ok(report) if report.route.is_none() => {
                    let rates = node.rates.borrow().clone();
                    story.block(&report, &rates);
                    if blocks_wanted.is_some_and(|wanted| story.blocks() >= wanted) {
                        let _ = tokio::time::timeout(LAST_WORDS, complete(story, node, &mut heard.shares)).await;
                        return Ok(());
                    }
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            () = heard.merged.changed() => add_merged_blocks(story, node, &mut heard.merged).await,
            _ = status.tick() => {
                let rates = node.rates.borrow().clone();
                story.print(&Chapter::Status { rates: &rates });
            }
        }
    }
}

/// Narrates new blocks of merged chains. The node's record of one comes a moment after it, and has the finder.
async fn add_merged_blocks(story: &mut Story, node: &node::Node, merged: &mut MergedChains) {
    let mut found = node.merged.found.clone();
    for block in merged.news() {
        let of_block = |found: &FoundBlocks| found.blocks.iter().find(|record| record.hash == block.hash).cloned();
        let _ = tokio::time::timeout(RECORD_MAX, found.wait_for(|found| of_block(found).is_some())).await;
        let record = of_block(&found.borrow());
        story.merged_block(&block, record.as_ref().map(|record| record.finding.finder.as_str()));
    }
}

fn add_share(story: &mut Story, event: &ChainEvent) {
    match event {
        ChainEvent::Accepted { share, .. } => story.share(share),
        ChainEvent::Late(_) => story.late_share(),
        ChainEvent::Refused { .. } | ChainEvent::TipChanged { .. } | ChainEvent::Block { .. } => {}
    }
}

/// Narrates shares until the last block's is among them and the statistics include its submission: a block is on the
/// chain before either.
async fn complete(story: &mut Story, node: &node::Node, shares: &mut broadcast::Receiver<ChainEvent>) {
    let mut rates = node.rates.clone();
    while !story.is_complete(&rates.borrow()) {
        tokio::select! {
            share = shares.recv() => match share {
                Ok(event) => add_share(story, &event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            changed = rates.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sharechain::coin::{ALL, LITECOIN};

    #[test]
    fn on_bitcoins_private_chain_it_is_the_demos_own_network() {
        assert_eq!(demo_of(&BITCOIN_REGTEST), DEMO);
    }

    #[test]
    fn a_coin_lends_its_addresses_and_its_proof_of_work_and_no_two_demos_share_an_identifier() {
        let demo = demo_of(&LITECOIN);
        assert_eq!((demo.parent.pow, demo.parent.dumb_scrypt_diff), (Pow::Scrypt, 65_536));
        assert!(payout("alice", &LITECOIN).address.starts_with("ltc1q"));
        let version = |coin| (demo_of(coin).start_version, demo_of(coin).newest_version);
        assert_eq!((version(&LITECOIN), version(&BITCOIN_REGTEST)), ((36, 36), (35, 35)));
        let identifiers: std::collections::BTreeSet<_> = ALL.iter().map(|coin| demo_of(coin).identifier).collect();
        assert_eq!(identifiers.len(), ALL.len());
        for coin in ALL {
            assert_eq!(payout("alice", coin).address, payout("alice", &demo_of(coin)).address, "{}", coin.name);
        }
    }
}
