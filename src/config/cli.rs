//! Subcommands, and the text around the help.

use clap::{Args, Parser, Subcommand};

use super::ask::{AskArgs, BanArgs, BlocksArgs, TopArgs, UnbanArgs};
use super::bench::BenchArgs;
use super::check::ConfigArgs;
use super::node::NodeArgs;
use super::options::Given;
use super::tools::{ImportArgs, MineArgs, ShareArgs, SimulateArgs};
use crate::tools::demo;

const ABOUT: &str = "P2Pool: decentralised Bitcoin mining pool. Runs beside your bitcoind, serves work to your miners, \
                     and submits the blocks they find.";

const AFTER_HELP: &str = "\
Every option can also be set in the environment, as P2POOL_ and its name in capitals (P2POOL_WORKER_PORT=9332), or in a
TOML file (--config FILE); p2pool config check prints the result. @FILE is replaced by the words in FILE.

bitcoind's RPC user and password are taken from the arguments (visible to other users in the process list),
P2POOL_RPC_USER and P2POOL_RPC_PASSWORD, the configuration file, bitcoin.conf, or bitcoind's cookie, which needs no
setup.

Miners connect to stratum+tcp://THIS-HOST:9332 with ADDRESS[.worker][/share difficulty][+submission difficulty] as user
name; any password will do, unless the port has users (-w PORT,users=FILE). In names, difficulty 1 is 2^32 hashes on every
network; elsewhere it is the miners' unit, which is 2^16 hashes on scrypt networks.

Try it without bitcoind: p2pool demo";

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
    pub(super) node: NodeArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a demo: a complete pool on a private chain in this process, without bitcoind, miner or setup.
    Demo(Given<demo::Config>),
    /// Show the status of a running node.
    Status(AskArgs),
    /// Monitor a running node in the terminal.
    Top(TopArgs),
    /// List the payouts of the next block.
    Payouts(AskArgs),
    /// List found blocks and their states.
    Blocks(BlocksArgs),
    /// List merged chains with who is paid for their blocks, and those found.
    Merged(AskArgs),
    /// Diagnose the setup of a node, and suggest fixes. Takes the node's options.
    Doctor(Box<DoctorArgs>),
    /// Inspect the node's configuration.
    Config(ConfigArgs),
    /// Import the data directory of a Python P2Pool node: shares, peer addresses, payout address, graphs.
    Import(ImportArgs),
    /// List the peers of a running node.
    Peers(AskArgs),
    /// List the addresses banned by a running node.
    Bans(AskArgs),
    /// Ban an address from a running node, and close its connections.
    Ban(BanArgs),
    /// Lift a ban of a running node.
    Unban(UnbanArgs),
    /// Decode a share, or verify a chain of shares.
    Share(ShareArgs),
    /// Simulate a pool of many nodes in this process, with a clock and a network derived from a seed, and check its
    /// invariants.
    Simulate(SimulateArgs),
    /// Run benchmarks on this machine.
    Bench(BenchArgs),
    /// Mine with this machine's CPU, to test a node or for a private chain.
    Mine(MineArgs),
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}
