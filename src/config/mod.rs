//! The only reader of arguments and environment, and the only home of defaults: gives one valid `Config`, or all that is
//! wrong with what was given.

use bitcoin::BlockHash;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};
use ipnet::IpNet;
use sharechain::coin::{self, Network};
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

mod announcing;
mod arguments;
mod demonstration;
mod front;
mod miners;

use crate::bitcoind::credentials::{Login, Password};
use crate::bitcoind::daemon;
use crate::node;
use crate::peers::{self, Host};
use crate::runtime::log;
use crate::tools::bench::{self, Measure};
use crate::tools::demo;
use crate::tools::import;
use crate::tools::mine;
use crate::tools::simulate::{self, Scenario};
use crate::tools::top;
use crate::view::control::client as control;
use crate::view::control::{BAN_HOURS_MAX, Request};
use crate::work::{self, Payout};
use arguments::{
    AskArgs, BanArgs, BenchCommand, BenchStratumArgs, BlocksArgs, BlocksCommand, Cli, Command, DoctorArgs, LogArgs,
    MineArgs, RunArgs, ServedArgs, ShareCommand, SimulateArgs, TopArgs,
};

/// Argument files within argument files: deeper is a file that names itself.
const ARGUMENT_FILES_MAX: usize = 16;

/// Peers that may be allowed to connect: each may hold memory for what it asked us to remember.
const PEERS_MAX: usize = 1000;

/// What this run is to do.
#[derive(Debug)]
pub enum Config {
    /// Serve miners on a daemon's chain.
    Node(Box<node::Config>),
    /// Show the pool at work.
    Demo(Box<demo::Config>),
    /// Ask a running node, or tell it something.
    Control(control::Config),
    /// Print a found block's bytes in hex.
    ExportBlock {
        /// The network's own folder.
        data_dir: PathBuf,
        /// The block.
        hash: BlockHash,
    },
    /// Show a running node, live.
    Top(top::Config),
    /// Look at what a node needs.
    Doctor {
        /// The node.
        node: Box<node::Config>,
        /// Print JSON.
        json: bool,
    },
    /// Take over an old node's data.
    Import(import::Config),
    /// Decode one share.
    InspectShare {
        /// Its network.
        network: &'static Network,
        /// Type and contents.
        share: Vec<u8>,
    },
    /// Check a chain of shares.
    ReplayShares {
        /// Their network.
        network: &'static Network,
        /// Where they are; `None` for standard input.
        shares: Option<PathBuf>,
    },
    /// Simulate a pool.
    Simulate(simulate::Config),
    /// Measure how fast miners are served.
    Bench(bench::Config),
    /// Be the server that is measured.
    BenchServe(bench::Served),
    /// Be the server that it is compared with.
    BenchBare,
    /// Mine on a pool.
    Mine(mine::Config),
}

/// One thing wrong with what was given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{option}: {problem}")]
pub struct ConfigError {
    option: &'static str,
    problem: String,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum Refused {
    /// The arguments are not of the command line's form, or ask for help or version.
    Arguments(clap::Error),
    /// Values that are wrong, all of them.
    Values(Vec<ConfigError>),
}

/// What is read of the environment beside options.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    rpc_user: Option<String>,
    rpc_password: Option<String>,
}

impl Environment {
    /// This process's.
    pub fn of_process() -> Self {
        let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self { rpc_user: read("P2POOL_RPC_USER"), rpc_password: read("P2POOL_RPC_PASSWORD") }
    }
}

/// The command line, for the documentation that is made from it.
pub fn command() -> clap::Command {
    Cli::command()
}

impl Config {
    /// Reads `arguments`, the program's name first.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn read(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> Result<Self, Refused> {
        let mut problems = Problems::default();
        let arguments = expand_files(arguments, &mut problems);
        if !problems.0.is_empty() {
            return Err(Refused::Values(problems.0));
        }
        let matches = Cli::command().try_get_matches_from(arguments).map_err(Refused::Arguments)?;
        refuse_misplaced(&matches, &mut problems);
        let cli = Cli::from_arg_matches(&matches).map_err(Refused::Arguments)?;
        let config = match cli.command {
            Some(Command::Demo(arguments)) => {
                demonstration::demo(*arguments, &mut problems).map(|demo| Self::Demo(Box::new(demo)))
            }
            Some(Command::Share(arguments)) => share(arguments.command, &mut problems),
            Some(Command::Status(ask)) => control(&ask, Some(Request::Status), &mut problems),
            Some(Command::Top(arguments)) => top(&arguments, &mut problems),
            Some(Command::Payouts(ask)) => control(&ask, Some(Request::Payouts), &mut problems),
            Some(Command::Blocks(BlocksArgs { command: None, ask })) => {
                control(&ask, Some(Request::Blocks), &mut problems)
            }
            Some(Command::Blocks(BlocksArgs { command: Some(command), .. })) => of_block(command, &mut problems),
            Some(Command::Doctor(arguments)) => {
                let DoctorArgs { run, json } = *arguments;
                node(run, environment, &mut problems).map(|node| Self::Doctor { node: Box::new(node), json })
            }
            Some(Command::Import(arguments)) => {
                let network = named_network(&arguments.net, arguments.testnet, &mut problems);
                network.map(|network| {
                    let data_dir = arguments.datadir.join(network.name);
                    Self::Import(import::Config { network, data_dir, from: arguments.from })
                })
            }
            Some(Command::Peers(ask)) => control(&ask, Some(Request::Peers), &mut problems),
            Some(Command::Bans(ask)) => control(&ask, Some(Request::Bans), &mut problems),
            Some(Command::Ban(arguments)) => {
                let request = ban(&arguments, &mut problems);
                control(&arguments.ask, request, &mut problems)
            }
            Some(Command::Unban(arguments)) => {
                let request = problems.take("ADDRESS|all", unban(&arguments.address));
                control(&arguments.ask, request, &mut problems)
            }
            Some(Command::Simulate(arguments)) => simulate(arguments, &mut problems).map(Self::Simulate),
            Some(Command::Bench(arguments)) => match arguments.command {
                BenchCommand::Stratum(arguments) => bench(&arguments, &mut problems).map(Self::Bench),
                BenchCommand::Serve(arguments) => Some(Self::BenchServe(served(&arguments))),
                BenchCommand::Bare => Some(Self::BenchBare),
            },
            Some(Command::Mine(arguments)) => mine(&arguments, &mut problems).map(Self::Mine),
            None => node(cli.run, environment, &mut problems).map(|node| Self::Node(Box::new(node))),
        };
        match config {
            Some(config) if problems.0.is_empty() => Ok(config),
            _ => Err(Refused::Values(problems.0)),
        }
    }
}

/// Collects what is wrong, so that it is told all at once.
#[derive(Debug, Default)]
struct Problems(Vec<ConfigError>);

impl Problems {
    fn add(&mut self, option: &'static str, problem: impl Into<String>) {
        self.0.push(ConfigError { option, problem: problem.into() });
    }

    fn take<T>(&mut self, option: &'static str, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.add(option, problem)).ok()
    }
}

/// Puts the words of `FILE` where `@FILE` stands: P2Pool's way of keeping a password out of the process list. Every line is
/// split at white space; there is no quoting and there are no comments.
fn expand_files(arguments: impl IntoIterator<Item = OsString>, problems: &mut Problems) -> Vec<OsString> {
    let mut expanded = Vec::new();
    for argument in arguments {
        expand(argument, 0, &mut expanded, problems);
    }
    expanded
}

fn expand(argument: OsString, depth: usize, expanded: &mut Vec<OsString>, problems: &mut Problems) {
    let Some(path) = argument.to_str().and_then(|text| text.strip_prefix('@')).map(str::to_owned) else {
        return expanded.push(argument);
    };
    if depth == ARGUMENT_FILES_MAX {
        return problems.add("@FILE", format!("`{path}` is nested more than {ARGUMENT_FILES_MAX} deep"));
    }
    match fs::read_to_string(&path) {
        Ok(text) => text.split_whitespace().for_each(|word| expand(word.into(), depth + 1, expanded, problems)),
        Err(error) => problems.add("@FILE", format!("cannot read `{path}`: {error}")),
    }
}

/// A subcommand has options of its own: one that stands before its name would be silently ignored.
fn refuse_misplaced(matches: &clap::ArgMatches, problems: &mut Problems) {
    let Some((subcommand, _)) = matches.subcommand() else { return };
    for id in matches.ids() {
        let is_argument = matches.try_get_raw(id.as_str()).is_ok();
        if is_argument && matches.value_source(id.as_str()) == Some(ValueSource::CommandLine) {
            let name = if id == "credentials" {
                "[USER] PASSWORD".to_owned()
            } else {
                format!("--{}", id.as_str().replace('_', "-"))
            };
            problems.add("subcommand", format!("`{name}` does not go with `{subcommand}`, or must stand after it"));
        }
    }
}

fn log(arguments: &LogArgs, logfile: Option<PathBuf>, problems: &mut Problems) -> Option<log::Config> {
    let megabytes = problems.take("--log-size", number(&arguments.log_size, 0.0..=1e6))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 10^12")]
    let size_max = (megabytes * 1e6) as u64;
    Some(log::Config { debug: arguments.debug, logfile, size_max, files_kept: arguments.log_files })
}

fn control(ask: &AskArgs, request: Option<Request>, problems: &mut Problems) -> Option<Config> {
    let network = named_network(&ask.net, ask.testnet, problems)?;
    Some(Config::Control(control::Config {
        data_dir: ask.datadir.join(network.name),
        request: request?,
        json: ask.json,
    }))
}

fn of_block(command: BlocksCommand, problems: &mut Problems) -> Option<Config> {
    match command {
        BlocksCommand::Resubmit { hash, ask } => {
            let hash = problems.take("HASH", block_hash(&hash));
            control(&ask, hash.map(|hash| Request::Resubmit { hash }), problems)
        }
        BlocksCommand::Export { hash, net, testnet, datadir } => {
            let hash = problems.take("HASH", block_hash(&hash));
            let network = named_network(&net, testnet, problems)?;
            Some(Config::ExportBlock { data_dir: datadir.join(network.name), hash: hash? })
        }
    }
}

fn block_hash(text: &str) -> Result<BlockHash, String> {
    text.parse().map_err(|_| format!("`{text}` is no block hash: 64 hex digits, as `p2pool blocks` lists them"))
}

fn top(arguments: &TopArgs, problems: &mut Problems) -> Option<Config> {
    let interval = problems.take("--interval", number(&arguments.interval, 0.2..=3600.0));
    let network = named_network(&arguments.ask.net, arguments.ask.testnet, problems)?;
    Some(Config::Top(top::Config {
        data_dir: arguments.ask.datadir.join(network.name),
        interval: Duration::from_secs_f64(interval?),
        json: arguments.ask.json,
        once: arguments.once,
    }))
}

fn ban(arguments: &BanArgs, problems: &mut Problems) -> Option<Request> {
    let address = problems.take("ADDRESS", ip_address(&arguments.address));
    let hours = problems.take("--hours", number(&arguments.hours, 0.0..=BAN_HOURS_MAX));
    Some(Request::Ban { address: address?, hours: hours?, reason: arguments.reason.clone() })
}

fn unban(text: &str) -> Result<Request, String> {
    if text == "all" { Ok(Request::UnbanAll) } else { ip_address(text).map(|address| Request::Unban { address }) }
}

/// An address, with or without the port that lists show.
fn ip_address(text: &str) -> Result<IpAddr, String> {
    text.parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()))
        .map(|address| address.to_canonical())
        .map_err(|_| format!("`{text}` is no IP address"))
}

fn share(command: ShareCommand, problems: &mut Problems) -> Option<Config> {
    match command {
        ShareCommand::Inspect { net, share } => {
            let network = named_network(&net, false, problems);
            let share = problems.take("HEX|FILE", share_bytes(&share));
            Some(Config::InspectShare { network: network?, share: share? })
        }
        ShareCommand::Replay { net, shares } => {
            let network = named_network(&net, false, problems)?;
            let shares = (shares.as_os_str() != "-").then_some(shares);
            Some(Config::ReplayShares { network, shares })
        }
    }
}

fn simulate(arguments: SimulateArgs, problems: &mut Problems) -> Option<simulate::Config> {
    let scenarios = match arguments.scenario.as_str() {
        "all" => Some(Scenario::ALL.to_vec()),
        name => problems.take("SCENARIO", name.parse().map(|scenario| vec![scenario])),
    };
    Some(simulate::Config {
        scenarios: scenarios?,
        settings: simulate::Settings {
            nodes: usize::from(arguments.nodes),
            seed: arguments.seed,
            latency: Duration::from_millis(arguments.latency),
            shares: arguments.shares,
        },
        plot: arguments.plot,
    })
}

fn bench(arguments: &BenchStratumArgs, problems: &mut Problems) -> Option<bench::Config> {
    let phase = problems.take("--seconds", number(&arguments.seconds, 0.1..=3600.0));
    let hold = problems.take("--hold", number(&arguments.hold, 1.0..=86_400.0));
    Some(bench::Config {
        measures: if arguments.only.is_empty() { Measure::ALL.to_vec() } else { arguments.only.clone() },
        submitters: arguments.submitters,
        connections: arguments.connections,
        listeners: arguments.listeners,
        addresses: arguments.addresses,
        rate: arguments.rate,
        joining: arguments.joining,
        phase: Duration::from_secs_f64(phase?),
        rounds: arguments.rounds,
        hold: Duration::from_secs_f64(hold?),
        held: arguments.held,
        churn: arguments.churn,
        hostile: arguments.hostile,
        served: served(&arguments.served),
        json: arguments.json,
    })
}

fn mine(arguments: &MineArgs, problems: &mut Problems) -> Option<mine::Config> {
    let pool = problems.take("URL", pool_address(&arguments.url));
    let pace = match &arguments.pace {
        Some(text) => problems.take("--pace", number(text, 1.0..=1e15)),
        None => Some(f64::INFINITY),
    };
    Some(mine::Config {
        pool: pool?,
        user: arguments.user.clone(),
        password: arguments.password.clone(),
        threads: arguments.threads,
        pace: pace?,
    })
}

/// Host and port of a pool's URL.
fn pool_address(url: &str) -> Result<String, String> {
    let address = url.strip_prefix("stratum+tcp://").unwrap_or(url).trim_end_matches('/');
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(1..)) => Ok(address.to_owned()),
        _ => Err(format!("`{url}` is not like stratum+tcp://HOST:PORT")),
    }
}

fn served(arguments: &ServedArgs) -> bench::Served {
    bench::Served { payees: arguments.payees, transactions: arguments.transactions }
}

/// Hex as given, or the hex in the file of that name.
fn share_bytes(text: &str) -> Result<Vec<u8>, String> {
    if let Ok(bytes) = hex::decode(text) {
        return Ok(bytes);
    }
    let file =
        fs::read_to_string(text).map_err(|error| format!("`{text}` is neither hex nor a readable file: {error}"))?;
    hex::decode(file.trim()).map_err(|error| format!("the file `{text}` holds no hex: {error}"))
}

fn node(arguments: RunArgs, environment: &Environment, problems: &mut Problems) -> Option<node::Config> {
    let network = named_network(&arguments.net, arguments.testnet, problems);
    let address = match (&arguments.address, network) {
        (Some(text), Some(network)) => problems.take("--address", payout(text, network)).map(Some),
        _ => Some(None),
    };
    let fee_percent = problems.take("--fee", number(&arguments.fee, 0.0..=100.0));
    let donation_percent = problems.take("--give-author", number(&arguments.give_author, 0.0..=100.0));
    let coinbase_texts = problems.take(
        "--coinbtext",
        work::check_texts(&arguments.coinbtext)
            .map(|()| arguments.coinbtext.clone())
            .map_err(|error| error.to_string()),
    );
    let front = front::front(&arguments, network, problems);
    let stratum = miners::stratum(&arguments.load, &arguments.miners, network, problems);
    let rpc_port = optional_port("--bitcoind-rpc-port", arguments.bitcoind_rpc_port.as_deref(), problems);
    let p2p_port = optional_port("--bitcoind-p2p-port", arguments.bitcoind_p2p_port.as_deref(), problems);
    let gone_after = problems.take("--bitcoind-timeout", number(&arguments.bitcoind_timeout, 1.0..=86_400.0));
    let login = problems.take("[USER] PASSWORD", login(&arguments.credentials, environment));
    let data_dir = network.map(|network| arguments.datadir.join(network.name));
    let p2p = p2p_config(&arguments, network, problems);
    let announce = announcing::announce(&arguments.announce, network, problems);
    let (network, data_dir) = (network?, data_dir?);
    let logfile = arguments.log.logfile.clone().unwrap_or_else(|| data_dir.join("log"));
    let log = log(&arguments.log, Some(logfile), problems);
    Some(node::Config {
        log: log?,
        network,
        data_dir,
        address: address?,
        fee_percent: fee_percent?,
        old_shares: arguments.old_shares,
        donation_percent: donation_percent?,
        coinbase_texts: coinbase_texts?,
        front: front?,
        stratum: stratum?,
        p2p: p2p?,
        announce: announce?,
        start_pool: arguments.start_pool,
        password_is_visible: !arguments.credentials.is_empty(),
        daemon: daemon::Config {
            address: arguments.bitcoind_address,
            rpc_port: rpc_port?,
            p2p_port: p2p_port?,
            credentials: login?,
            config_path: arguments.bitcoind_config_path,
            allow_obsolete: arguments.allow_obsolete_bitcoind,
            gone_after: Duration::from_secs_f64(gone_after?),
        },
    })
}

/// How the node takes part in the pool's network. Everything is looked at, whatever is wrong before it.
fn p2p_config(
    arguments: &RunArgs,
    network: Option<&'static Network>,
    problems: &mut Problems,
) -> Option<peers::Config> {
    // Of another network's port only the form is looked at: that network is refused already.
    let default_port = network.map_or(1, |network| network.p2p_port);
    let listen = match &arguments.p2pool_port {
        Some(text) => problems.take("--p2pool-port", listen_address(text)),
        None => Some((Ipv6Addr::UNSPECIFIED, default_port).into()),
    };
    let nodes = hosts("--p2pool-node", &arguments.p2pool_node, default_port, problems);
    let bootstrap = network.filter(|_| !arguments.no_bootstrap).map_or(&[][..], |network| network.bootstrap_addresses);
    let bootstrap = bootstrap.iter().filter_map(|text| Host::parse(text, default_port)).collect();
    let incoming_max = problems.take("--max-conns", count_from_0(&arguments.max_conns, PEERS_MAX));
    let outgoing = problems.take("--outgoing-conns", count_from_0(&arguments.outgoing_conns, peers::OUTGOING_MAX));
    // Peers are told the port that they can reach, which is the one listened on unless somebody says otherwise.
    let external_port = listen.map_or(default_port, |listen| listen.port());
    let external = hosts("--external-ip", arguments.external_ip.as_slice(), external_port, problems);
    let mut whitelist = Vec::new();
    for text in &arguments.whitelist {
        whitelist.extend(problems.take("--whitelist", ip_network(text)));
    }
    Some(peers::Config {
        network: network?,
        listen: listen?,
        nodes,
        bootstrap,
        incoming_max: incoming_max?,
        outgoing: outgoing?,
        upnp: !arguments.disable_upnp,
        advertise: !arguments.disable_advertise,
        external: external.into_iter().next(),
        whitelist,
    })
}

fn hosts(option: &'static str, texts: &[String], default_port: u16, problems: &mut Problems) -> Vec<Host> {
    let wrong = |text: &str| format!("`{text}` is not HOST[:PORT], such as pool.example or 192.0.2.1:9333");
    let parse = |text: &String| Host::parse(text, default_port).ok_or_else(|| wrong(text));
    texts.iter().filter_map(|text| problems.take(option, parse(text))).collect()
}

/// The network of that name, or the one in that file.
fn named_network(name: &str, testnet: bool, problems: &mut Problems) -> Option<&'static Network> {
    let full = if testnet { format!("{name}_testnet") } else { name.to_owned() };
    if let Some(network) = coin::by_name(&full) {
        return Some(network);
    }
    let is_file = Path::new(name).extension().is_some_and(|extension| extension == "toml");
    if !is_file || testnet {
        let known: Vec<&str> = coin::ALL.iter().map(|network| network.name).collect();
        let known = known.join(", ");
        problems.add("--net", format!("no network `{full}`; there are {known}, and files whose names end in .toml"));
        return None;
    }
    let text = match fs::read_to_string(name) {
        Ok(text) => text,
        Err(error) => {
            problems.add("--net", format!("cannot read `{name}`: {error}"));
            return None;
        }
    };
    match coin::from_toml(&text) {
        // Read once in the life of the process, like the tables that it stands for.
        Ok(network) => Some(Box::leak(Box::new(network))),
        Err(errors) => {
            errors.iter().for_each(|error| problems.add("--net", format!("{name}: {error}")));
            None
        }
    }
}

fn payout(text: &str, network: &Network) -> Result<Payout, String> {
    Payout::to_address(text, network).map_err(|error| error.to_string())
}

/// An address stands for itself alone.
fn ip_network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse()
        .ok()
        .or_else(address)
        .ok_or_else(|| format!("`{text}` is no address or network, such as 192.0.2.1 or 192.0.2.0/24"))
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let problem = || format!("`{text}` is not [ADDRESS:]PORT, such as 9332 or 127.0.0.1:9332");
    match text.rsplit_once(':') {
        None => Ok((Ipv6Addr::UNSPECIFIED, text.parse().map_err(|_| problem())?).into()),
        Some((host, port)) => {
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let host: IpAddr =
                if host == "localhost" { [127, 0, 0, 1].into() } else { host.parse().map_err(|_| problem())? };
            Ok((host, port.parse().map_err(|_| problem())?).into())
        }
    }
}

fn optional_port(option: &'static str, text: Option<&str>, problems: &mut Problems) -> Option<Option<u16>> {
    let Some(text) = text else { return Some(None) };
    let port = text.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("`{text}` is not a port"));
    problems.take(option, port.map(Some))
}

fn number(text: &str, range: std::ops::RangeInclusive<f64>) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|value| range.contains(value))
        .ok_or_else(|| format!("`{text}` is not a number from {} to {}", range.start(), range.end()))
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|value| *value > 0).ok_or_else(|| format!("`{text}` is not a whole number above 0"))
}

fn count_from_0(text: &str, max: usize) -> Result<usize, String> {
    let count = text.parse().ok().filter(|value| *value <= max);
    count.ok_or_else(|| format!("`{text}` is not a whole number from 0 to {max}"))
}

fn whole_number(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|value| *value > 0).ok_or_else(|| format!("`{text}` is not a whole number above 0"))
}

fn login(credentials: &[String], environment: &Environment) -> Result<Option<Login>, String> {
    let login = |user: &str, password: &str| Some(Login { user: user.to_owned(), password: Password::new(password) });
    match credentials {
        [] => match (&environment.rpc_user, &environment.rpc_password) {
            (user, Some(password)) => Ok(login(user.as_deref().unwrap_or_default(), password)),
            (Some(_), None) => Err("P2POOL_RPC_USER is set, but P2POOL_RPC_PASSWORD is not".to_owned()),
            (None, None) => Ok(None),
        },
        [password] => Ok(login("", password)),
        [user, password] => Ok(login(user, password)),
        more => Err(format!("{} words where at most a user and a password can stand: `{}` …", more.len(), more[0])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stratum::server::PortPolicy;

    const ADDRESS: &str = "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn";

    fn read(arguments: &[&str]) -> Result<Config, Refused> {
        read_with(arguments, &Environment::default())
    }

    fn read_with(arguments: &[&str], environment: &Environment) -> Result<Config, Refused> {
        Config::read(std::iter::once("p2pool").chain(arguments.iter().copied()).map(OsString::from), environment)
    }

    fn node(arguments: &[&str]) -> node::Config {
        match read(arguments) {
            Ok(Config::Node(node)) => *node,
            other => panic!("{other:?}"),
        }
    }

    fn problems(arguments: &[&str]) -> String {
        match read(arguments) {
            Err(Refused::Values(errors)) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_pool_to_mine_on_is_a_url_or_host_and_port() {
        let mine = |url: &str| match read(&["mine", url, "-u", ADDRESS, "--pace", "1e6"]) {
            Ok(Config::Mine(config)) => Ok((config.pool, config.pace)),
            Err(Refused::Values(errors)) => Err(errors[0].to_string()),
            other => panic!("{other:?}"),
        };
        for url in ["stratum+tcp://pool.example:9332", "pool.example:9332", "stratum+tcp://pool.example:9332/"] {
            assert_eq!(mine(url), Ok(("pool.example:9332".to_owned(), 1e6)));
        }
        assert_eq!(mine("[::1]:9332"), Ok(("[::1]:9332".to_owned(), 1e6)));
        for url in ["pool.example", ":9332", "pool.example:0", "pool.example:70000", "http://pool.example/9332"] {
            let error = mine(url).unwrap_err();
            assert!(error.contains(url), "{error}");
        }
        assert!(problems(&["mine", "here:1", "-u", "me", "--pace", "0"]).contains("--pace"));
    }

    #[test]
    fn without_arguments_it_is_a_bitcoin_node_with_the_defaults_of_old() {
        let node = node(&[]);
        assert_eq!(node.network.name, "bitcoin");
        assert_eq!(node.front.miners, [("[::]:9332".parse().unwrap(), PortPolicy::default())]);
        assert_eq!(node.data_dir, PathBuf::from("data/bitcoin"));
        assert_eq!(node.log.logfile, Some("data/bitcoin/log".into()));
        assert_eq!(node.stratum.session.vardiff.interval, Duration::from_secs(3));
        assert_eq!(node.daemon.address, "127.0.0.1");
        assert_eq!(node.daemon.gone_after, Duration::from_secs(60));
        assert!(node.daemon.credentials.is_none());
    }

    #[test]
    fn one_word_is_the_password_and_two_are_user_and_password() {
        let login = |arguments: &[&str]| {
            let login = node(arguments).daemon.credentials.unwrap();
            (login.user, login.password.expose().to_owned())
        };
        assert_eq!(login(&["secret"]), (String::new(), "secret".to_owned()));
        assert_eq!(login(&["alice", "secret"]), ("alice".to_owned(), "secret".to_owned()));
        assert!(problems(&["a", "b", "c"]).contains("3 words"));
    }

    #[test]
    fn a_subcommand_wins_over_a_password_spelled_like_it() {
        assert!(matches!(read(&["demo"]), Ok(Config::Demo(_))));
        assert!(problems(&["alice", "demo"]).contains("`[USER] PASSWORD` does not go with `demo`"));
        assert!(problems(&["--fee", "1", "demo"]).contains("`--fee` does not go with `demo`"));
    }

    #[test]
    fn a_running_node_is_asked_by_its_data_directory_and_network() {
        let asked = |arguments: &[&str]| match read(arguments) {
            Ok(Config::Control(control)) => control,
            other => panic!("{other:?}"),
        };
        let peers = asked(&["peers", "--datadir", "there", "--net", "litecoin", "--json"]);
        let wanted = control::Config { data_dir: "there/litecoin".into(), request: Request::Peers, json: true };
        assert_eq!(peers, wanted);
        let address = "192.0.2.1".parse().unwrap();
        let ban = asked(&["ban", "192.0.2.1:9333", "--hours", "0.5", "--reason", "spam"]);
        assert_eq!(ban.request, Request::Ban { address, hours: 0.5, reason: "spam".into() });
        assert_eq!(ban.data_dir, PathBuf::from("data/bitcoin"));
        assert_eq!(asked(&["unban", "192.0.2.1"]).request, Request::Unban { address });
        assert_eq!(asked(&["unban", "all"]).request, Request::UnbanAll);
        assert!(problems(&["ban", "somebody", "--hours", "-1"]).contains("`somebody` is no IP address"));
        assert!(problems(&["ban", "somebody", "--hours", "-1"]).contains("--hours: `-1`"));
        assert!(problems(&["unban", "some"]).contains("`some` is no IP address"));
    }

    #[test]
    fn the_environment_gives_credentials_and_arguments_win() {
        let environment = Environment { rpc_user: Some("bob".into()), rpc_password: Some("hidden".into()) };
        let user = |arguments: &[&str]| match read_with(arguments, &environment) {
            Ok(Config::Node(node)) => node.daemon.credentials.unwrap().user,
            other => panic!("{other:?}"),
        };
        assert_eq!(user(&[]), "bob");
        assert_eq!(user(&["alice", "secret"]), "alice");
        let half = Environment { rpc_user: Some("bob".into()), rpc_password: None };
        assert!(read_with(&[], &half).is_err());
    }

    #[test]
    fn every_wrong_value_is_named_at_once() {
        let text = problems(&[
            "--net",
            "dogecoin",
            "--fee",
            "101",
            "-w",
            "x",
            "--bitcoind-rpc-port",
            "0",
            "--share-rate",
            "nan",
            "--coinbtext",
            &"x".repeat(80),
            "--max-workers",
            "-1",
            "--p2pool-port",
            "x:1",
            "-n",
            "a b",
            "-n",
            "host:0",
            "--max-conns",
            "many",
            "--outgoing-conns",
            "11",
            "--external-ip",
            "1.2.3",
            "--whitelist",
            "10.0.0.0/33",
        ]);
        for part in [
            "--net: no network `dogecoin`",
            "--fee: `101`",
            "--worker-port: `x`",
            "--bitcoind-rpc-port: `0`",
            "--share-rate: `nan`",
            "--coinbtext: text",
            "--max-workers: `-1`",
            "--p2pool-port: `x:1`",
            "--p2pool-node: `a b`",
            "--p2pool-node: `host:0`",
            "--max-conns: `many`",
            "--outgoing-conns: `11` is not a whole number from 0 to 10",
            "--external-ip: `1.2.3`",
            "--whitelist: `10.0.0.0/33`",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }

    #[test]
    fn an_address_must_be_payable_on_the_network() {
        assert_eq!(&*node(&["--testnet", "-a", ADDRESS]).address.unwrap().address, ADDRESS);
        assert!(problems(&["-a", ADDRESS]).contains("another network"));
        assert!(problems(&["-a", "myself"]).contains("`myself` is not an address"));
    }

    #[test]
    fn worker_ports_with_and_without_address() {
        for (text, address) in [
            ("1234", "[::]:1234"),
            ("127.0.0.1:1234", "127.0.0.1:1234"),
            ("[::1]:1234", "[::1]:1234"),
            ("localhost:1234", "127.0.0.1:1234"),
        ] {
            assert_eq!(listen_address(text), Ok(address.parse().unwrap()), "{text}");
        }
        for text in ["", "65536", "1.2.3:5", "host.example:1", ":1"] {
            assert!(listen_address(text).unwrap_err().contains(&format!("`{text}`")), "{text}");
        }
    }

    #[test]
    fn the_pools_network_has_the_defaults_of_old_and_takes_what_it_is_told() {
        let default = node(&[]).p2p;
        assert_eq!(default.listen, "[::]:9333".parse().unwrap());
        assert_eq!((default.incoming_max, default.outgoing), (40, 6));
        assert!(default.upnp && default.advertise && default.nodes.is_empty() && default.external.is_none());
        assert_eq!(default.bootstrap.len(), coin::BITCOIN.bootstrap_addresses.len(), "all of them can be read");
        assert_eq!(default.bootstrap[0].to_string(), "ml.toom.im:9333");
        assert!(node(&["--no-bootstrap"]).p2p.bootstrap.is_empty());
        let text = "--p2pool-port 127.0.0.1:5 -n one.example -n [::1]:6 --external-ip 192.0.2.1 --whitelist 10.0.0.0/8 \
                    --disable-upnp --disable-advertise --max-conns 0 --outgoing-conns 10 --start-pool";
        let told = node(&text.split_whitespace().collect::<Vec<_>>());
        assert!(told.start_pool);
        let told = told.p2p;
        assert_eq!(told.listen, "127.0.0.1:5".parse().unwrap());
        assert_eq!(told.nodes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["one.example:9333", "[::1]:6"]);
        assert_eq!(told.external.map(|host| host.to_string()).as_deref(), Some("192.0.2.1:5"));
        assert!(told.whitelist[0].contains(&"10.1.2.3".parse::<IpAddr>().unwrap()));
        assert!(!told.upnp && !told.advertise);
        assert_eq!((told.incoming_max, told.outgoing), (0, 10));
    }

    #[test]
    fn argument_files_are_read_word_by_word_and_may_nest() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        let outer = folder.path().join("outer");
        fs::write(&inner, "alice\nsecret\n").unwrap();
        fs::write(&outer, format!("--testnet\n--fee 1.5 @{}\n", inner.display())).unwrap();
        let node = node(&[&format!("@{}", outer.display())]);
        assert_eq!(node.network.name, "bitcoin_testnet");
        assert!((node.fee_percent - 1.5).abs() < f64::EPSILON);
        assert_eq!(node.daemon.credentials.unwrap().user, "alice");
        assert!(problems(&["@/no/such/file"]).contains("`/no/such/file`"));
        let looped = folder.path().join("looped");
        fs::write(&looped, format!("@{}", looped.display())).unwrap();
        assert!(problems(&[&format!("@{}", looped.display())]).contains("nested more than"));
    }

    #[test]
    fn every_option_can_come_from_the_environment() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let Some(long) = argument.get_long() else { continue };
                if ["help", "version"].contains(&long) {
                    continue;
                }
                let name = format!("P2POOL_{}", long.replace('-', "_").to_uppercase());
                assert_eq!(argument.get_env().and_then(|env| env.to_str()), Some(name.as_str()), "--{long}");
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
