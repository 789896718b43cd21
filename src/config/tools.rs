//! Arguments of the tools: `import`, `share`, `simulate`, `mine`.

use clap::{Args, Subcommand};
use sharechain::coin::Pow;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::places::{NetworkArgs, PlaceArgs};
use super::problems::Problems;
use super::values::{number, whole};
use crate::runtime::access::Access;
use crate::tools::simulate::{self, Scenario};
use crate::tools::{import, mine};

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Data directory of the old node.
    #[arg(value_name = "DIR")]
    from: PathBuf,
    #[command(flatten)]
    place: PlaceArgs,
    /// Let the group of the user that runs the node read the imported files.
    #[arg(long)]
    datadir_group_access: bool,
}

impl ImportArgs {
    pub(super) fn config(self, problems: &mut Problems) -> Option<Config> {
        let (network, data_dir) = self.place.find(problems)?;
        let access = if self.datadir_group_access { Access::Group } else { Access::Owner };
        Some(Config::Import(import::Config { network, data_dir, from: self.from, access }))
    }
}

#[derive(Debug, Args)]
pub(super) struct ShareArgs {
    #[command(subcommand)]
    command: ShareCommand,
}

#[derive(Debug, Subcommand)]
enum ShareCommand {
    /// Decode a share and print it as JSON.
    Inspect {
        #[command(flatten)]
        network: NetworkArgs,
        /// Share in hex (type and contents), or a file that contains it.
        #[arg(value_name = "HEX|FILE", value_parser = share_bytes)]
        share: ShareBytes,
    },
    /// Verify shares on an empty chain, and print one JSON object per line.
    Replay {
        #[command(flatten)]
        network: NetworkArgs,
        /// File with one share per line, in hex (type and contents), optionally followed by a space and its time of
        /// arrival; `-` for standard input.
        #[arg(value_name = "SHARES")]
        shares: PathBuf,
    },
}

/// Serialised type and contents of a share.
#[derive(Debug, Clone)]
struct ShareBytes(Vec<u8>);

impl ShareArgs {
    pub(super) fn config(self, problems: &mut Problems) -> Option<Config> {
        match self.command {
            ShareCommand::Inspect { network, share } => {
                let network = problems.take("net", network.find(false))?;
                Some(Config::InspectShare { network, share: share.0 })
            }
            ShareCommand::Replay { network, shares } => {
                let network = problems.take("net", network.find(false))?;
                let shares = (shares.as_os_str() != "-").then_some(shares);
                Some(Config::ReplayShares { network, shares })
            }
        }
    }
}

/// Decodes hex, or the hex in the file of that name.
fn share_bytes(text: &str) -> Result<ShareBytes, String> {
    if let Ok(bytes) = hex::decode(text) {
        return Ok(ShareBytes(bytes));
    }
    let file =
        fs::read_to_string(text).map_err(|error| format!("`{text}` is neither hex nor a readable file: {error}"))?;
    hex::decode(file.trim()).map(ShareBytes).map_err(|error| format!("the file `{text}` is not hex: {error}"))
}

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// Scenario: convergence, joining, orphans, partition, eclipse, withholding, flood, transition, or all.
    #[arg(value_name = "SCENARIO", default_value = "all", value_parser = scenarios)]
    scenario: Scenarios,
    /// Number of honest nodes.
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = whole::<u16>(10..=5000))]
    nodes: u16,
    /// Seed of the random numbers; the same seed gives the same run.
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = whole::<u64>(0..=u64::MAX))]
    seed: u64,
    /// Median one-way latency of a link.
    #[arg(long, value_name = "MILLISECONDS", default_value = "100", value_parser = whole::<u64>(1..=30_000))]
    latency: u64,
    /// Number of shares to find, one every 30 s of simulated time; transition finds as many as it needs.
    #[arg(long, value_name = "COUNT", default_value = "200", value_parser = whole::<u32>(40..=100_000))]
    shares: u32,
    /// SVG file for the plot of orphan rate against latency.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// Scenarios to simulate, one after another.
#[derive(Debug, Clone)]
struct Scenarios(Vec<Scenario>);

fn scenarios(text: &str) -> Result<Scenarios, String> {
    if text == "all" { Ok(Scenarios(Scenario::ALL.to_vec())) } else { text.parse().map(|one| Scenarios(vec![one])) }
}

impl SimulateArgs {
    pub(super) fn config(self) -> simulate::Config {
        simulate::Config {
            scenarios: self.scenario.0,
            settings: simulate::Settings {
                nodes: usize::from(self.nodes),
                seed: self.seed,
                latency: Duration::from_millis(self.latency),
                shares: self.shares,
            },
            plot: self.plot,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct MineArgs {
    /// URL of the pool, such as stratum+tcp://127.0.0.1:9332.
    #[arg(value_name = "URL", value_parser = pool_address)]
    url: String,
    /// User name: a payout address, as for every miner.
    #[arg(short, long, value_name = "NAME")]
    user: String,
    /// Password, such as d=0.001 to request a difficulty.
    #[arg(short, long, value_name = "TEXT", default_value = "x")]
    password: String,
    /// Number of threads, each with its own connection.
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = whole::<u32>(1..=1024))]
    threads: u32,
    /// Maximum hash rate of all threads together, in hashes per second [default: no limit].
    #[arg(long, value_name = "HASHES", value_parser = number(1.0..=1e15), allow_negative_numbers = true)]
    pace: Option<f64>,
    /// Mine a coin whose proof of work is scrypt, such as Litecoin.
    #[arg(long)]
    scrypt: bool,
}

impl MineArgs {
    pub(super) fn config(self) -> mine::Config {
        mine::Config {
            pool: self.url,
            user: self.user,
            password: self.password,
            threads: self.threads,
            pace: self.pace.unwrap_or(f64::INFINITY),
            pow: if self.scrypt { Pow::Scrypt } else { Pow::Sha256d },
        }
    }
}

/// Returns host and port of a pool's URL.
fn pool_address(url: &str) -> Result<String, String> {
    let address = url.strip_prefix("stratum+tcp://").unwrap_or(url).trim_end_matches('/');
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(1..)) => Ok(address.to_owned()),
        _ => Err(format!("`{url}` is not stratum+tcp://HOST:PORT")),
    }
}
