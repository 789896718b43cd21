//! The command line: subcommands, and the help around them.

use clap::{Args, Parser, Subcommand};

use super::ask::{AskArgs, BanArgs, BlocksArgs, TopArgs, UnbanArgs};
use super::bench::BenchArgs;
use super::check::ConfigArgs;
use super::node::NodeArgs;
use super::options::Given;
use super::tools::{ImportArgs, MineArgs, ShareArgs, SimulateArgs};
use crate::tools::demo;

const ABOUT: &str = "P2Pool: Bitcoin's decentralised mining pool. Runs beside your bitcoind, gives your miners work, and \
                     gets the blocks that they find accepted.";

const AFTER_HELP: &str = "\
Every option can also be given in the environment, as P2POOL_ and its name in capitals (P2POOL_WORKER_PORT=9332), and in a
TOML file (--config FILE); p2pool config check shows what comes of it. @FILE stands for the words in FILE.

bitcoind's user and password: as arguments (others on this machine can read them in the process list), in P2POOL_RPC_USER
and P2POOL_RPC_PASSWORD, in a file of options, in bitcoin.conf, or in bitcoind's cookie, which needs nothing at all.

Miners connect to stratum+tcp://THIS-HOST:9332 with ADDRESS[.worker][/share difficulty][+submission difficulty] as user
name; the password does not matter.

Try it without any bitcoind: p2pool demo";

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
    /// Shows the whole pool at work on a private chain inside this process: no bitcoind, no miner, nothing to set up.
    Demo(Given<demo::Config>),
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
    /// Looks at the node's configuration.
    Config(ConfigArgs),
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
pub(super) struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}
