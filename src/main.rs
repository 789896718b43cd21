//! Reads arguments, starts logging, builds the node, waits for a signal, chooses the exit code.

use anyhow::{Context, Result, bail};
use std::fs::{self, File, OpenOptions};
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use stratum::server::Port;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing::{info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use p2pool::bitcoind::daemon;
use p2pool::config::{Config, DemoConfig, Environment, LogConfig, NodeConfig, Refused};
use p2pool::journal::Journal;
use p2pool::network::Network;
use p2pool::node::{self, Parts};
use p2pool::sharechain::{self, task};
use p2pool::tasks::Tasks;
use p2pool::work::{self, Payout};
use p2pool::{demo, metrics, share, sockets};

/// What the shell's conventions call a mistake in the arguments.
const EXIT_USAGE: u8 = 2;

/// Shares that a chain must have for the next block to pay a window: it begins at the grandparent.
const WINDOW_BEGINS: u32 = 2;

/// Pause between attempts to ask the daemon's wallet for an address.
const WALLET_PAUSE: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let config = match Config::read(std::env::args_os(), &Environment::of_process()) {
        Ok(config) => config,
        Err(Refused::Arguments(message)) => {
            // Help and version are messages, too, and go to standard output.
            let _ = message.print();
            return if message.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
        Err(Refused::Values(errors)) => {
            for error in errors {
                eprintln!("p2pool: {error}");
            }
            eprintln!("p2pool: nothing was started; `p2pool --help` explains every option");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("p2pool: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    let result = match config {
        Config::Node(config) => runtime.block_on(run_node(*config)),
        Config::InspectShare { network, share } => inspect_share(network, &share),
        Config::ReplayShares { network, shares } => replay_shares(network, shares.as_deref()),
        Config::Demo(config) => runtime.block_on(run_demo(*config)),
    };
    // Calls to the daemon may be under way on other threads; they are not waited for.
    runtime.shutdown_background();
    result
}

async fn run_node(config: NodeConfig) -> Result<()> {
    fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot create the data directory {}", config.data_dir.display()))?;
    start_logging(&config.log, LevelFilter::INFO)?;
    let _lock = lock(&config.data_dir)?;
    if config.password_is_visible {
        warn!(
            "the RPC password stands on the command line, where others on this machine can read it: P2POOL_RPC_PASSWORD, \
             @FILE, bitcoin.conf or bitcoind's cookie keep it to yourself"
        );
    }
    let metrics = metrics::install().context("cannot install the metrics")?;
    node::describe_metrics();
    let tasks = Tasks::new();
    let mut stop = pin_stop_signal(&tasks)?;
    let network = config.network;
    let journal = Journal::open(&config.data_dir).context("cannot keep found blocks")?;
    let handle = daemon::start(config.daemon.clone(), network, journal, &tasks).await?;
    let default_payout = match config.address {
        Some(payout) => payout,
        None => tokio::select! {
            payout = wallet_payout(&config.daemon, network) => payout?,
            () = &mut stop => return Ok(()),
        },
    };
    let listener = sockets::bind(config.worker_address)
        .with_context(|| format!("cannot listen for miners on {}", config.worker_address))?;
    let chain = task::Config { network, data_dir: config.data_dir.clone(), legacy: config.old_shares };
    let sharechain = node::load_sharechain(chain, &handle).await?;
    if sharechain.0.tips.borrow().as_ref().is_none_or(|tip| tip.height() < WINDOW_BEGINS) {
        warn!(
            "the share chain is empty: by P2Pool's rules a block found before its third share pays almost everything to \
             the donation address of P2Pool's author"
        );
    }
    let work = work::Config {
        network,
        default_payout,
        fee_percent: config.fee_percent,
        donation_percent: config.donation_percent,
        coinbase_texts: config.coinbase_texts,
        clock: work::unix_now,
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        network = network.name,
        address = %work.default_payout,
        fee_percent = work.fee_percent,
        data_dir = %config.data_dir.display(),
        "P2Pool starts"
    );
    let node = node::start(
        Parts {
            miners: vec![(listener, Port::default())],
            web: None,
            tls: None,
            proxies: Vec::new(),
            work,
            stratum: config.stratum,
            sharechain,
            metrics,
        },
        handle,
        &tasks,
    )?;
    info!(address = %node.worker_address, "listening for miners; pages and metrics are on the same port");
    stop.await;
    info!("stopping");
    // The last handle on the queue of blocks: the submitter ends when nobody can send one any more.
    drop(node);
    tasks.drain(node::GRACE).await;
    info!("stopped");
    Ok(())
}

fn inspect_share(network: &Network, bytes: &[u8]) -> Result<()> {
    let share = share::inspect(bytes, &sharechain::share_rules(network))?;
    println!("{share:#}");
    Ok(())
}

fn replay_shares(network: &'static Network, path: Option<&Path>) -> Result<()> {
    let out = std::io::stdout().lock();
    match path {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            sharechain::replay(network, std::io::BufReader::new(file), out)?;
        }
        None => sharechain::replay(network, std::io::stdin().lock(), out)?,
    }
    Ok(())
}

async fn run_demo(config: DemoConfig) -> Result<()> {
    // The story on standard output says what there is to say.
    start_logging(&config.log, LevelFilter::WARN)?;
    let metrics = metrics::install().context("cannot install the metrics")?;
    node::describe_metrics();
    let tasks = Tasks::new();
    let stop = pin_stop_signal(&tasks)?;
    demo::run(config, metrics, &tasks, stop).await
}

/// Ends when the node is to stop: by SIGINT or SIGTERM, or because one of its tasks panicked.
fn pin_stop_signal(tasks: &Tasks) -> Result<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let stop = tasks.stop_signal();
    Ok(Box::pin(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = stop.cancelled() => {}
        }
    }))
}

/// An address of the daemon's wallet, as soon as the daemon answers.
async fn wallet_payout(config: &daemon::Config, network: &'static Network) -> Result<Payout> {
    let mut told = String::new();
    loop {
        match daemon::wallet_address(config, network).await {
            Ok(Some(text)) => {
                return Ok(Payout::to_address(&text, network)?);
            }
            Ok(None) => bail!(
                "bitcoind has no wallet to take a payout address from: say with -a ADDRESS who is to be paid when a \
                 miner's user name is no address"
            ),
            Err(error) => {
                let error = error.to_string();
                if error != told {
                    warn!(%error, "waiting for bitcoind's wallet to give a payout address (or restart with -a ADDRESS)");
                    told = error;
                }
            }
        }
        tokio::time::sleep(WALLET_PAUSE).await;
    }
}

/// Takes the data directory for this process alone; the lock ends with the process, however it ends.
fn lock(data_dir: &Path) -> Result<File> {
    let path = data_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => bail!(
            "another p2pool runs on {}: stop it first, or give this one a --datadir of its own",
            data_dir.display()
        ),
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

fn start_logging(config: &LogConfig, quietest: LevelFilter) -> Result<()> {
    let level = if config.debug { LevelFilter::DEBUG } else { quietest };
    let terminal = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter(level);
    let file = match &config.logfile {
        None => None,
        Some(path) => {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("cannot write the log file {}", path.display()))?;
            let level = if config.debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
            Some(
                tracing_subscriber::fmt::layer()
                    .with_target(false)
                    .with_writer(Arc::new(file))
                    .with_ansi(false)
                    .with_filter(level),
            )
        }
    };
    tracing_subscriber::registry().with(terminal).with(file).try_init().context("cannot start logging")
}
