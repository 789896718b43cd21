//! The command line, as clap reads it: every option with its name, its default and its line of help.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

use super::announcing::AnnounceArgs;
use super::miners::{LoadArgs, MinerArgs};
use crate::tools::bench::Measure;

const ABOUT: &str = "P2Pool: Bitcoin's decentralised mining pool. Runs beside your bitcoind, gives your miners work, and \
                     gets the blocks that they find accepted.";

const AFTER_HELP: &str = "\
Every option can also be given in the environment, as P2POOL_ and its name in capitals (P2POOL_WORKER_PORT=9332), and in a
file: @FILE stands for the words in FILE.

bitcoind's user and password: as arguments (others on this machine can read them in the process list), in P2POOL_RPC_USER
and P2POOL_RPC_PASSWORD, in bitcoin.conf, or in bitcoind's cookie, which needs nothing at all.

Miners connect to stratum+tcp://THIS-HOST:9332 with ADDRESS[.worker][/share difficulty][+submission difficulty] as user
name; the password does not matter.

Try it without any bitcoind: p2pool demo";

const BENCH_HELP: &str = "\
What is measured, by the names that --only knows:
  single       accepted submissions a second, one at a time on each connection, and the server's CPU time for each
  pipelined    the same with sixteen in flight
  hostile      both again beside clients that mean ill, on either server
  small-jobs   a new block: until the last connection has its job, of one payee
  joining      new connections taken
  memory       what an idle connection holds
  latency      answers at a steady rate
  big-jobs     a new block: until the last connection has its job, of many payees and addresses
  hold         connections held for long, and the memory that this comes to

Node and bare server run as processes of their own, on this machine, as the generator does: ratios say more than rates.
Targets are those for two cores. What is missed is no failure; a miner that was wronged is: a valid submission rejected, a
job missed, a connection lost.";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "p2pool",
    version,
    about = ABOUT,
    after_help = AFTER_HELP,
    max_term_width = 120,
    subcommand_precedence_over_arg = true
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows the whole pool at work on a private chain inside this process: no bitcoind, no miner, nothing to set up.
    Demo(Box<DemoArgs>),
    /// Shows how a running node is.
    Status(AskArgs),
    /// Shows a running node on one screen, live.
    Top(TopArgs),
    /// Lists what the next block would pay.
    Payouts(AskArgs),
    /// Lists the blocks that were found, and what became of them.
    Blocks(BlocksArgs),
    /// Checks all that a node needs, with the node's own options, and says of each thing what to do.
    Doctor(Box<DoctorArgs>),
    /// Takes over the data directory of a Python P2Pool node: shares, peers' addresses, payout address, graphs.
    Import(ImportArgs),
    /// Lists the peers of a running node.
    Peers(AskArgs),
    /// Lists the addresses that a running node has banned.
    Bans(AskArgs),
    /// Keeps an address away from a running node, and closes its connections.
    Ban(BanArgs),
    /// Lets a banned address connect to a running node again.
    Unban(UnbanArgs),
    /// Looks at shares: decodes one, or checks a whole chain of them.
    Share(ShareArgs),
    /// Runs many nodes of a pool in this process, on a clock and a network that follow from a seed, and checks what should
    /// hold of them.
    Simulate(SimulateArgs),
    /// Measures how fast this machine can serve miners.
    Bench(BenchArgs),
    /// Mines with this machine's processor: enough for a private chain, and to try a node out.
    Mine(MineArgs),
}

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    pub(super) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Puts miners' load on the node's Stratum server, and the same on a bare server that does no more than answer: what
    /// this machine could do at all. Prints a table.
    #[command(after_help = BENCH_HELP)]
    Stratum(BenchStratumArgs),
    /// The server under load; the benchmark starts it.
    #[command(hide = true)]
    Serve(ServedArgs),
    /// The bare server; the benchmark starts it.
    #[command(hide = true)]
    Bare,
}

/// What the server under load serves.
#[derive(Debug, Args)]
pub(super) struct ServedArgs {
    /// Payees of the pool: each is an output of every coinbase.
    #[arg(long, value_name = "COUNT", default_value = "300", env = "P2POOL_PAYEES",
          value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub(super) payees: u32,
    /// Transactions of the block template, which fill a block.
    #[arg(long, value_name = "COUNT", default_value = "2000", env = "P2POOL_TRANSACTIONS",
          value_parser = clap::value_parser!(u32).range(1..=8000))]
    pub(super) transactions: u32,
}

#[derive(Debug, Args)]
pub(super) struct BenchStratumArgs {
    /// What to measure, without spaces [default: all of it].
    #[arg(long, value_name = "NAME,...", env = "P2POOL_ONLY", value_delimiter = ',')]
    pub(super) only: Vec<Measure>,
    /// Connections that submit as fast as they are answered.
    #[arg(long, value_name = "COUNT", default_value = "100", env = "P2POOL_SUBMITTERS",
          value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub(super) submitters: u32,
    /// Connections of joining, memory, latency and big-jobs.
    #[arg(long, value_name = "COUNT", default_value = "10000", env = "P2POOL_CONNECTIONS",
          value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(super) connections: u32,
    /// Connections of small-jobs.
    #[arg(long, value_name = "COUNT", default_value = "3000", env = "P2POOL_LISTENERS",
          value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub(super) listeners: u32,
    /// Addresses that miners are paid at: each has jobs of its own.
    #[arg(long, value_name = "COUNT", default_value = "500", env = "P2POOL_ADDRESSES",
          value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(super) addresses: u32,
    /// Submissions a second of latency.
    #[arg(long, value_name = "COUNT", default_value = "5000", env = "P2POOL_RATE",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) rate: u32,
    /// New connections a second.
    #[arg(long, value_name = "COUNT", default_value = "2000", env = "P2POOL_JOINING",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) joining: u32,
    /// Seconds of each timed phase.
    #[arg(long, value_name = "SECONDS", default_value = "1", env = "P2POOL_SECONDS", allow_negative_numbers = true)]
    pub(super) seconds: String,
    /// How often node and bare server take turns.
    #[arg(long, value_name = "COUNT", default_value = "10", env = "P2POOL_ROUNDS",
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) rounds: u32,
    /// Seconds of hold; from 600 on it is judged whether memory grows.
    #[arg(long, value_name = "SECONDS", default_value = "20", env = "P2POOL_HOLD", allow_negative_numbers = true)]
    pub(super) hold: String,
    /// Connections of hold.
    #[arg(long, value_name = "COUNT", default_value = "15000", env = "P2POOL_HELD",
          value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(super) held: u32,
    /// How many of them a second leave and are replaced by others.
    #[arg(long, value_name = "COUNT", default_value = "50", env = "P2POOL_CHURN",
          value_parser = clap::value_parser!(u32).range(0..=2000))]
    pub(super) churn: u32,
    /// Clients of hostile: a quarter each sends a byte a second, says nothing, sends noise, sends useless lines.
    #[arg(long, value_name = "COUNT", default_value = "100", env = "P2POOL_HOSTILE",
          value_parser = clap::value_parser!(u32).range(0..=5000))]
    pub(super) hostile: u32,
    #[command(flatten)]
    pub(super) served: ServedArgs,
    /// Print JSON.
    #[arg(long, env = "P2POOL_JSON")]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// What to simulate: convergence, joining, orphans, partition, eclipse, withholding, flood; or all of it.
    #[arg(value_name = "SCENARIO", default_value = "all")]
    pub(super) scenario: String,
    /// Honest nodes.
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "100",
        env = "P2POOL_NODES",
        value_parser = clap::value_parser!(u16).range(10..=5000)
    )]
    pub(super) nodes: u16,
    /// What all luck follows from: the same seed gives the same run.
    #[arg(long, value_name = "NUMBER", default_value = "1", env = "P2POOL_SEED")]
    pub(super) seed: u64,
    /// Latency of a link, one way, in the median.
    #[arg(
        long,
        value_name = "MILLISECONDS",
        default_value = "100",
        env = "P2POOL_LATENCY",
        value_parser = clap::value_parser!(u64).range(1..=30_000)
    )]
    pub(super) latency: u64,
    /// Shares that are found; a share is found every 30 s of simulated time.
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "200",
        env = "P2POOL_SHARES",
        value_parser = clap::value_parser!(u32).range(40..=100_000)
    )]
    pub(super) shares: u32,
    /// Where to write the plot of orphan rate against latency, as an SVG.
    #[arg(long, value_name = "FILE", env = "P2POOL_PLOT")]
    pub(super) plot: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct MineArgs {
    /// Where to mine, such as stratum+tcp://127.0.0.1:9332.
    #[arg(value_name = "URL", env = "P2POOL_URL")]
    pub(super) url: String,
    /// The user name: an address, as for every miner.
    #[arg(short, long, value_name = "NAME", env = "P2POOL_USER")]
    pub(super) user: String,
    /// The password, such as d=0.001 for a difficulty.
    #[arg(short, long, value_name = "TEXT", default_value = "x", env = "P2POOL_PASSWORD")]
    pub(super) password: String,
    /// Threads, each with a connection of its own.
    #[arg(long, value_name = "COUNT", default_value = "1", env = "P2POOL_THREADS",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) threads: u32,
    /// Most hashes per second of all threads together [default: no limit].
    #[arg(long, value_name = "HASHES", env = "P2POOL_PACE", allow_negative_numbers = true)]
    pub(super) pace: Option<String>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct BlocksArgs {
    #[command(subcommand)]
    pub(super) command: Option<BlocksCommand>,
    #[command(flatten)]
    pub(super) ask: AskArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum BlocksCommand {
    /// Submits a block again by every route, and shows what each brings. Its bytes are kept until it is mature, or lost by 100
    /// blocks.
    Resubmit {
        /// The block's hash, as `p2pool blocks` lists it.
        #[arg(value_name = "HASH", env = "P2POOL_HASH")]
        hash: String,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Prints a block's bytes in hex, for any bitcoind: `p2pool blocks export HASH | bitcoin-cli -stdin submitblock`. Reads the
    /// data directory; the node need not run.
    Export {
        /// The block's hash, as `p2pool blocks` lists it.
        #[arg(value_name = "HASH", env = "P2POOL_HASH")]
        hash: String,
        /// The node's network: a name, or a file.
        #[arg(long, value_name = "NAME|FILE", default_value = "bitcoin", env = "P2POOL_NET")]
        net: String,
        /// Short for the network's test network.
        #[arg(long, env = "P2POOL_TESTNET")]
        testnet: bool,
        /// The running node's data directory.
        #[arg(long, value_name = "DIR", default_value = "data", env = "P2POOL_DATADIR")]
        datadir: PathBuf,
    },
}

/// Which node is asked, and how it is shown.
#[derive(Debug, Args)]
pub(super) struct AskArgs {
    /// The node's network: a name, or a file.
    #[arg(long, value_name = "NAME|FILE", default_value = "bitcoin", env = "P2POOL_NET")]
    pub(super) net: String,
    /// Short for the network's test network.
    #[arg(long, env = "P2POOL_TESTNET")]
    pub(super) testnet: bool,
    /// The running node's data directory.
    #[arg(long, value_name = "DIR", default_value = "data", env = "P2POOL_DATADIR")]
    pub(super) datadir: PathBuf,
    /// Print JSON.
    #[arg(long, env = "P2POOL_JSON")]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Time between two updates of the screen.
    #[arg(long, value_name = "SECONDS", default_value = "1", env = "P2POOL_INTERVAL", allow_negative_numbers = true)]
    pub(super) interval: String,
    /// Print it once, as text.
    #[arg(long, env = "P2POOL_ONCE")]
    pub(super) once: bool,
    #[command(flatten)]
    pub(super) ask: AskArgs,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Print JSON.
    #[arg(long, env = "P2POOL_JSON")]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The old node's data directory.
    #[arg(value_name = "DIR")]
    pub(super) from: PathBuf,
    /// The network: a name, or a file.
    #[arg(long, value_name = "NAME|FILE", default_value = "bitcoin", env = "P2POOL_NET")]
    pub(super) net: String,
    /// Short for the network's test network.
    #[arg(long, env = "P2POOL_TESTNET")]
    pub(super) testnet: bool,
    /// This node's data directory.
    #[arg(long, value_name = "DIR", default_value = "data", env = "P2POOL_DATADIR")]
    pub(super) datadir: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct BanArgs {
    /// Whom: an IPv4 address, or an IPv6 address, which stands for its /64.
    #[arg(value_name = "ADDRESS")]
    pub(super) address: String,
    /// For how long.
    #[arg(long, value_name = "N", default_value = "24", env = "P2POOL_HOURS", allow_negative_numbers = true)]
    pub(super) hours: String,
    /// Reason, shown in the list of bans.
    #[arg(long, value_name = "TEXT", default_value = "", env = "P2POOL_REASON")]
    pub(super) reason: String,
    #[command(flatten)]
    pub(super) ask: AskArgs,
}

#[derive(Debug, Args)]
pub(super) struct UnbanArgs {
    /// Whom; `all` for everybody.
    #[arg(value_name = "ADDRESS|all")]
    pub(super) address: String,
    #[command(flatten)]
    pub(super) ask: AskArgs,
}

#[derive(Debug, Args)]
pub(super) struct ShareArgs {
    #[command(subcommand)]
    pub(super) command: ShareCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ShareCommand {
    /// Prints a share decoded as JSON.
    Inspect {
        /// The share's network: a name, or a file.
        #[arg(long, value_name = "NAME|FILE", default_value = "bitcoin", env = "P2POOL_NET")]
        net: String,
        /// The share's bytes in hex (type and contents), or a file that holds them.
        #[arg(value_name = "HEX|FILE")]
        share: String,
    },
    /// Feeds shares to an empty chain with every check, and prints one JSON object a line.
    Replay {
        /// The shares' network: a name, or a file.
        #[arg(long, value_name = "NAME|FILE", default_value = "bitcoin", env = "P2POOL_NET")]
        net: String,
        /// A file with a share on each line, in hex (type and contents), and its time of arrival after a space if it is
        /// known; `-` for standard input.
        #[arg(value_name = "SHARES")]
        shares: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// Log more: what happens to each miner and peer.
    #[arg(long, env = "P2POOL_DEBUG")]
    pub(super) debug: bool,
    /// Where to log to, beside the terminal [default: log in the network's folder below the data directory].
    #[arg(long, value_name = "FILE", env = "P2POOL_LOGFILE")]
    pub(super) logfile: Option<PathBuf>,
    /// Maximum size of the log file, in MB: a full one becomes FILE.1, and so on; 0 for any size. SIGUSR1 and SIGHUP start a
    /// new file.
    #[arg(long, value_name = "MB", default_value = "100", env = "P2POOL_LOG_SIZE", allow_negative_numbers = true)]
    pub(super) log_size: String,
    /// Full log files that are kept.
    #[arg(long, value_name = "COUNT", default_value = "5", env = "P2POOL_LOG_FILES",
          value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(super) log_files: u32,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The network: bitcoin, bitcoin_testnet, bitcoin_testnet4, bitcoin_signet, bitcoin_regtest, litecoin,
    /// litecoin_testnet, litecoin_regtest; or a file with the constants of another one.
    #[arg(long, value_name = "NAME|FILE", default_value = "bitcoin", env = "P2POOL_NET")]
    pub(super) net: String,
    /// Short for the network's test network: `--net bitcoin --testnet` is `--net bitcoin_testnet`.
    #[arg(long, env = "P2POOL_TESTNET")]
    pub(super) testnet: bool,
    #[command(flatten)]
    pub(super) log: LogArgs,
    /// Who is paid for miners whose user name is no address [default: an address of bitcoind's wallet, if it has one].
    #[arg(short, long, value_name = "ADDRESS", env = "P2POOL_ADDRESS")]
    pub(super) address: Option<String>,
    /// Where found blocks and the log are kept, in a folder per network.
    #[arg(long, value_name = "DIR", default_value = "data", env = "P2POOL_DATADIR")]
    pub(super) datadir: PathBuf,
    /// The data folder of an old P2Pool node (with files shares.0, shares.1, …), whose shares are taken over at this start.
    #[arg(long, value_name = "DIR", env = "P2POOL_OLD_SHARES")]
    pub(super) old_shares: Option<PathBuf>,
    /// A text for the coinbase of your blocks; may be given several times.
    #[arg(long, value_name = "TEXT", env = "P2POOL_COINBTEXT")]
    pub(super) coinbtext: Vec<String>,
    /// Where miners connect, without an address on all of this machine's [default: the network's port, 9332 on bitcoin]; a
    /// port may have a difficulty that its miners start at, and a least one; may be given several times.
    #[arg(
        short,
        long,
        value_name = "[ADDRESS:]PORT[,start=D][,min=D]",
        env = "P2POOL_WORKER_PORT",
        value_delimiter = ';'
    )]
    pub(super) worker_port: Vec<String>,
    /// Where pages and metrics are, instead of on the worker ports.
    #[arg(long, value_name = "[ADDRESS:]PORT", env = "P2POOL_WEB_PORT")]
    pub(super) web_port: Option<String>,
    /// A folder of pages that were made for the original P2Pool, served at /static/; / leads there.
    #[arg(long, value_name = "DIR", env = "P2POOL_WEB_STATIC")]
    pub(super) web_static: Option<PathBuf>,
    /// Speak TLS too, on the same ports: a certificate with those above it, and its key, both PEM files.
    #[arg(long, value_names = ["CERT", "KEY"], num_args = 2, env = "P2POOL_WORKER_TLS", value_delimiter = ';')]
    pub(super) worker_tls: Vec<String>,
    /// Trusted proxies that send a PROXY protocol header: an address or a network; may be given several times.
    #[arg(long, value_name = "ADDRESS[/BITS]", env = "P2POOL_PROXY_PROTOCOL", value_delimiter = ',')]
    pub(super) proxy_protocol: Vec<String>,
    /// Percentage of work that pays you instead of the miner who does it.
    #[arg(short, long, value_name = "PERCENT", default_value = "0", env = "P2POOL_FEE", allow_negative_numbers = true)]
    pub(super) fee: String,
    /// Percentage of your miners' payouts that goes to the author of the original P2Pool. The original gave 0.5 by default;
    /// this one gives nothing unless you say so.
    #[arg(
        long,
        value_name = "PERCENT",
        default_value = "0",
        env = "P2POOL_GIVE_AUTHOR",
        allow_negative_numbers = true
    )]
    pub(super) give_author: String,
    #[command(flatten)]
    pub(super) load: LoadArgs,
    /// Where peers connect; without an address on all of this machine's [default: the network's port, 9333 on bitcoin].
    #[arg(long, value_name = "[ADDRESS:]PORT", env = "P2POOL_P2POOL_PORT")]
    pub(super) p2pool_port: Option<String>,
    /// A node to be connected with at all times; may be given several times.
    #[arg(short = 'n', long, value_name = "HOST[:PORT]", env = "P2POOL_P2POOL_NODE", value_delimiter = ',')]
    pub(super) p2pool_node: Vec<String>,
    /// Most peers that may connect to this node.
    #[arg(long, value_name = "COUNT", default_value = "40", env = "P2POOL_MAX_CONNS", allow_negative_numbers = true)]
    pub(super) max_conns: String,
    /// Peers that this node connects to by itself, at most 10; those of -n come on top.
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "6",
        env = "P2POOL_OUTGOING_CONNS",
        allow_negative_numbers = true
    )]
    pub(super) outgoing_conns: String,
    /// Do not ask the router (by UPnP) to let peers in.
    #[arg(long, env = "P2POOL_DISABLE_UPNP")]
    pub(super) disable_upnp: bool,
    /// Do not announce this node's address to peers.
    #[arg(long, env = "P2POOL_DISABLE_ADVERTISE")]
    pub(super) disable_advertise: bool,
    /// Address announced to peers, if connections come from another one.
    #[arg(long, value_name = "HOST[:PORT]", env = "P2POOL_EXTERNAL_IP")]
    pub(super) external_ip: Option<String>,
    /// An address, or a network such as 192.0.2.0/24, whose nodes are never banned; may be given several times.
    #[arg(long, value_name = "ADDRESS[/BITS]", env = "P2POOL_WHITELIST", value_delimiter = ',')]
    pub(super) whitelist: Vec<String>,
    /// Look for no peers but those of -n and those that are known from earlier.
    #[arg(long, env = "P2POOL_NO_BOOTSTRAP")]
    pub(super) no_bootstrap: bool,
    /// Give out work without peers and before the pool's shares are here: only for the first node of a new pool.
    #[arg(long, env = "P2POOL_START_POOL")]
    pub(super) start_pool: bool,
    /// bitcoin.conf, if it is not where bitcoind looks for it.
    #[arg(long, value_name = "FILE", env = "P2POOL_BITCOIND_CONFIG_PATH")]
    pub(super) bitcoind_config_path: Option<PathBuf>,
    /// Where bitcoind runs.
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1", env = "P2POOL_BITCOIND_ADDRESS")]
    pub(super) bitcoind_address: String,
    /// bitcoind's RPC port [default: the one in bitcoin.conf, else bitcoind's own, 8332 on bitcoin].
    #[arg(long, value_name = "PORT", env = "P2POOL_BITCOIND_RPC_PORT", allow_negative_numbers = true)]
    pub(super) bitcoind_rpc_port: Option<String>,
    /// bitcoind's P2P port [default: the one in bitcoin.conf, else bitcoind's own, 8333 on bitcoin].
    #[arg(long, value_name = "PORT", env = "P2POOL_BITCOIND_P2P_PORT", allow_negative_numbers = true)]
    pub(super) bitcoind_p2p_port: Option<String>,
    /// Seconds without an answer of bitcoind after which miners are sent away, so that they go to their next pool.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "60",
        env = "P2POOL_BITCOIND_TIMEOUT",
        allow_negative_numbers = true
    )]
    pub(super) bitcoind_timeout: String,
    /// Work with a bitcoind older than the oldest that is known to be right.
    #[arg(long, env = "P2POOL_ALLOW_OBSOLETE_BITCOIND")]
    pub(super) allow_obsolete_bitcoind: bool,
    /// bitcoind's RPC user and password, or the password alone. Others on this machine can read arguments in the process
    /// list: P2POOL_RPC_USER and P2POOL_RPC_PASSWORD, bitcoin.conf or the cookie keep them to yourself.
    #[arg(value_name = "[USER] PASSWORD", num_args = 0..)]
    pub(super) credentials: Vec<String>,
    #[command(flatten)]
    pub(super) miners: MinerArgs,
    #[command(flatten)]
    pub(super) announce: AnnounceArgs,
}

#[derive(Debug, Args)]
// Several submissions a second of the demo's miners together show a newcomer that something happens.
#[command(
    mut_arg("share_rate", |arg| arg.default_value("0.75")),
    mut_arg("max_workers", |arg| arg.default_value("1000")),
    mut_arg("max_workers_per_address", |arg| arg.default_value("100"))
)]
pub(super) struct DemoArgs {
    #[command(flatten)]
    pub(super) log: LogArgs,
    /// Stop after this many blocks, with a summary.
    #[arg(long, value_name = "N", env = "P2POOL_BLOCKS", allow_negative_numbers = true)]
    pub(super) blocks: Option<String>,
    /// Start no miner: wait for yours.
    #[arg(long, env = "P2POOL_NO_MINER")]
    pub(super) no_miner: bool,
    /// Where miners connect; the port may have a difficulty that its miners start at, and a least one.
    #[arg(
        short,
        long,
        value_name = "[ADDRESS:]PORT[,start=D][,min=D]",
        default_value = "127.0.0.1:9332",
        env = "P2POOL_WORKER_PORT"
    )]
    pub(super) worker_port: String,
    /// Where found blocks are kept [default: a temporary folder, removed at the end].
    #[arg(long, value_name = "DIR", env = "P2POOL_DATADIR")]
    pub(super) datadir: Option<PathBuf>,
    /// Percentage of work that pays the demo's node instead of the miner who does it.
    #[arg(short, long, value_name = "PERCENT", default_value = "0", env = "P2POOL_FEE", allow_negative_numbers = true)]
    pub(super) fee: String,
    #[command(flatten)]
    pub(super) load: LoadArgs,
    #[command(flatten)]
    pub(super) miners: MinerArgs,
}
