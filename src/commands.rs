//! Reads arguments, starts logging, runs the command until a signal, and returns the exit code. The binary only calls
//! this: what it would hold itself, every generic function in it included, is compiled after everything else.

use anyhow::{Context, Result, bail};
use bitcoin::BlockHash;
use bitcoin::hex::DisplayHex;
use sharechain::coin::Network;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::blocks::journal;
use crate::config::{Config, ConfigError, Environment, Refused};
use crate::node::{self, service};
use crate::runtime::access::Access;
use crate::runtime::data_dir::DataDir;
use crate::runtime::disk::DiskHealth;
use crate::runtime::log::{self, LogFile, Logging, Sink, Tail, Terminal};
use crate::runtime::tasks::Tasks;
use crate::runtime::{clock, metrics, sockets};
use crate::tools::{bench, demo, doctor, import, mine, simulate, top};
use crate::view::control::client as control;

/// Exit code for wrong arguments, as is the convention of shells.
const EXIT_USAGE: u8 = 2;

/// Runs the program with the arguments and the environment of this process.
pub fn main() -> ExitCode {
    let config = match Config::read(std::env::args_os(), &Environment::of_process()) {
        Ok(config) => config,
        Err(Refused::Arguments(message)) => {
            // Includes help and version, which go to standard output.
            let _ = message.print();
            return if message.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
        Err(Refused::Values(errors)) => {
            let hint = "p2pool: invalid options; see `p2pool --help`\n";
            log::print_last(lines(&errors) + hint);
            return ExitCode::from(EXIT_USAGE);
        }
        Err(Refused::Check(errors)) => {
            log::print_last(lines(&errors));
            return ExitCode::FAILURE;
        }
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::print_last(format!("p2pool: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(|error| format!("p2pool: {error}\n")).collect()
}

fn run(config: Config) -> Result<()> {
    // Before any thread or file.
    match &config {
        Config::Node(node) => node.access.apply(),
        Config::Import(import) => import.access.apply(),
        Config::Demo(_) => Access::Owner.apply(),
        _ => {}
    }
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    let result = match config {
        Config::Node(config) => runtime.block_on(run_node(*config)),
        Config::Control(config) => runtime.block_on(run_control(&config)),
        Config::ExportBlock { data_dir, hash } => export_block(&data_dir, &hash),
        Config::Top(config) => runtime.block_on(top::run(&config)),
        Config::Doctor { node, json } => runtime.block_on(run_doctor(&node, json)),
        Config::Check { text } => print_configuration(&text),
        Config::Import(config) => run_import(&config),
        Config::InspectShare { network, share } => inspect_share(network, &share),
        Config::ReplayShares { network, shares } => replay_shares(network, shares.as_deref()),
        Config::Simulate(config) => simulate(&config),
        Config::Bench(config) => runtime.block_on(run_bench(&config)),
        Config::BenchServe(served) => runtime.block_on(run_bench_serve(served)),
        Config::BenchBare => runtime.block_on(bench::run_bare()),
        Config::Mine(config) => runtime.block_on(run_mine(&config)),
        Config::Demo(config) => runtime.block_on(run_demo(*config)),
    };
    // Calls to the daemon may be running on other threads; do not wait for them.
    runtime.shutdown_background();
    result
}

async fn run_node(config: node::Config) -> Result<()> {
    let data_dir = DataDir::open_for(config.access, &config.data_dir, config.network)?;
    let disk = DiskHealth::new();
    let logging = start_logging(&config.log, LevelFilter::INFO, &disk)?;
    let metrics = metrics::install().context("cannot install the metrics")?;
    node::describe_metrics();
    let tasks = Tasks::new();
    let stop = pin_stop_signal(&tasks)?;
    service::run(config, data_dir, logging.tail(), disk, metrics, &tasks, stop).await
}

async fn run_control(config: &control::Config) -> Result<()> {
    let now = clock::unix_now();
    let text = control::run(config, now).await?;
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the answer")
}

fn export_block(data_dir: &Path, hash: &BlockHash) -> Result<()> {
    let Some(block) = journal::read(data_dir, hash)? else {
        bail!(
            "no bytes of block {hash} in {}: they are removed once the block is mature or lost by as many blocks; get them \
             from its chain's daemon (getblock {hash} 0)",
            data_dir.display()
        );
    };
    let text = format!("{}\n", block.bytes.to_lower_hex_string());
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the block")
}

async fn run_doctor(config: &node::Config, json: bool) -> Result<()> {
    let report = doctor::run(config).await;
    let text = if json { format!("{:#}\n", serde_json::to_value(&report)?) } else { report.to_text() };
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the report")?;
    if !report.ok {
        bail!("some checks failed");
    }
    Ok(())
}

fn print_configuration(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the configuration")
}

fn run_import(config: &import::Config) -> Result<()> {
    let now = clock::unix_now();
    let report = import::run(config, now)?;
    std::io::stdout().write_all(report.as_bytes()).context("cannot print the report")
}

fn inspect_share(network: &Network, bytes: &[u8]) -> Result<()> {
    let share = sharechain::share::inspect(bytes, &sharechain::chain::share_rules(network))?;
    println!("{share:#}");
    Ok(())
}

fn replay_shares(network: &'static Network, path: Option<&Path>) -> Result<()> {
    let out = std::io::stdout().lock();
    match path {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            sharechain::chain::replay(network, std::io::BufReader::new(file), out)?;
        }
        None => sharechain::chain::replay(network, std::io::stdin().lock(), out)?,
    }
    Ok(())
}

fn simulate(config: &simulate::Config) -> Result<()> {
    if !simulate::run(config, &mut std::io::stdout().lock(), std::io::stderr().is_terminal())? {
        bail!("some checks failed");
    }
    Ok(())
}

async fn run_bench(config: &bench::Config) -> Result<()> {
    sockets::raise_file_limit()?;
    bench::run(config, &mut std::io::stdout()).await
}

async fn run_bench_serve(served: bench::Served) -> Result<()> {
    // Logs like a real node; the output is discarded.
    let _logging = start_logging(
        &log::Config { debug: false, logfile: Some("/dev/null".into()), size_max: 0, files_kept: 0 },
        LevelFilter::WARN,
        &DiskHealth::new(),
    )?;
    bench::run_serve(served, metrics::install().context("cannot install the metrics")?).await
}

async fn run_mine(config: &mine::Config) -> Result<()> {
    let config_of_log = log::Config { debug: false, logfile: None, size_max: 0, files_kept: 0 };
    let _logging = start_logging(&config_of_log, LevelFilter::INFO, &DiskHealth::new())?;
    mine::mine(config, pin_stop_signal(&Tasks::new())?).await;
    Ok(())
}

async fn run_demo(config: demo::Config) -> Result<()> {
    // The demo reports its events on standard output.
    let disk = DiskHealth::new();
    let logging = start_logging(&config.log, LevelFilter::WARN, &disk)?;
    let metrics = metrics::install().context("cannot install the metrics")?;
    node::describe_metrics();
    let tasks = Tasks::new();
    let stop = pin_stop_signal(&tasks)?;
    demo::run(config, logging.tail(), disk, metrics, &tasks, stop).await
}

/// Completes on SIGINT or SIGTERM, or when a task panicked.
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

/// Starts logging. Dropping the returned value writes the last lines.
fn start_logging(config: &log::Config, quietest: LevelFilter, disk: &DiskHealth) -> Result<Logging> {
    let mut sinks = Vec::new();
    let level = if config.debug { LevelFilter::DEBUG } else { quietest };
    let terminal = Terminal::open().and_then(|terminal| Sink::start("terminal", terminal, None));
    let terminal = terminal.context("cannot log to the terminal")?;
    sinks.push(terminal.clone());
    let terminal = log::layer(terminal, std::io::stderr().is_terminal()).with_filter(level);
    let file = match &config.logfile {
        None => None,
        Some(path) => {
            let file = LogFile::open(path, config.size_max, config.files_kept)
                .and_then(|file| Sink::start("file", file, Some(disk.clone())))
                .with_context(|| format!("cannot write the log file {}", path.display()))?;
            sinks.push(file.clone());
            reopen_on_signal(file.clone())?;
            let level = if config.debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
            Some(log::layer(file, false).with_filter(level))
        }
    };
    let tail = Tail::default();
    let remembered = log::layer(tail.clone(), false).with_filter(LevelFilter::INFO);
    tracing_subscriber::registry()
        // Without its own level it would enable every `trace!` of a hot path, for nothing.
        .with(metrics::LogCounter.with_filter(LevelFilter::WARN))
        .with(terminal)
        .with(file)
        .with(remembered)
        .try_init()
        .context("cannot start logging")?;
    let logging = Logging::new(tail, sinks);
    logging.log_panics();
    Ok(logging)
}

/// Reopens the log file on SIGUSR1, as the Python node does, and on SIGHUP.
fn reopen_on_signal(file: Sink) -> Result<()> {
    let mut user = signal(SignalKind::user_defined1()).context("cannot listen for SIGUSR1")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    tokio::spawn(async move {
        loop {
            let came = tokio::select! {
                came = user.recv() => came,
                came = hangup.recv() => came,
            };
            if came.is_none() {
                return;
            }
            file.reopen();
        }
    });
    Ok(())
}
