//! The only reader of arguments, environment and configuration file: gives one valid `Config`, or all that is wrong with
//! what was given.
//!
//! An option is a row that sets a field of a part's own configuration (`options`), or a field of a tool's arguments. What is
//! given goes through three layers (`layers`), and every value through the check of its option (`values`).

use bitcoin::BlockHash;
use clap::{CommandFactory, FromArgMatches};
use sharechain::coin::Network;
use std::ffi::OsString;
use std::path::PathBuf;

mod announcing;
mod argument_files;
mod ask;
mod bench;
mod check;
mod cli;
mod daemon;
mod demo;
mod environment;
mod file;
mod front;
mod layers;
mod log;
mod miners;
mod node;
mod options;
mod peers;
mod places;
mod problems;
mod tools;
mod values;

pub use environment::Environment;
pub use problems::ConfigError;

use crate::tools::{bench as benchmark, demo as demonstration, import, mine, simulate, top};
use crate::view::control::Request;
use crate::view::control::client as control;
use check::ConfigCommand;
use cli::{Cli, Command};
use layers::{Asked, Given};
use options::Part;
use problems::Problems;

/// What this run is to do.
#[derive(Debug)]
pub enum Config {
    /// Serve miners on a daemon's chain.
    Node(Box<crate::node::Config>),
    /// Show the pool at work.
    Demo(Box<demonstration::Config>),
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
        node: Box<crate::node::Config>,
        /// Print JSON.
        json: bool,
    },
    /// Show what a node would run with.
    Check {
        /// The report.
        text: String,
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
    Bench(benchmark::Config),
    /// Be the server that is measured.
    BenchServe(benchmark::Served),
    /// Be the server that it is compared with.
    BenchBare,
    /// Mine on a pool.
    Mine(mine::Config),
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum Refused {
    /// The arguments are not of the command line's form, or ask for help or version.
    Arguments(clap::Error),
    /// Values that are wrong, all of them.
    Values(Vec<ConfigError>),
    /// The same, which `p2pool config check` was to find.
    Check(Vec<ConfigError>),
}

/// The command line, for the documentation that is made from it.
pub fn command() -> clap::Command {
    environment::name_variables(Cli::command())
}

impl Config {
    /// Reads `arguments`, the program's name first.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn read(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> Result<Self, Refused> {
        let arguments = argument_files::expand(arguments).map_err(|error| Refused::Values(vec![error]))?;
        let asked = Asked::of(command(), arguments)?;
        let config = asked.read(environment).and_then(Self::of);
        config.map_err(|refused| match refused {
            Refused::Values(errors) if asked.is(&["config", "check"]) => Refused::Check(errors),
            other => other,
        })
    }

    fn of(mut given: Given) -> Result<Self, Refused> {
        let cli = match Cli::from_arg_matches(&given.matches) {
            Ok(cli) => cli,
            Err(error) if given.problems.found.is_empty() => return Err(Refused::Arguments(error)),
            // A wrong value is missing.
            Err(_) => return Err(Refused::Values(given.problems.found)),
        };
        let config = match cli.command {
            Some(Command::Config(arguments)) => {
                let ConfigCommand::Check(check) = arguments.command;
                let node = check.node.node(&mut given.problems);
                node.map(|mut node| Self::Check { text: check::report(&given, &mut node, check.json) })
            }
            Some(command) => Self::of_subcommand(command, &mut given.problems),
            None => cli.node.node(&mut given.problems).map(|node| Self::Node(Box::new(node))),
        };
        match config {
            Some(config) if given.problems.found.is_empty() => Ok(config),
            _ => Err(Refused::Values(given.problems.found)),
        }
    }

    fn of_subcommand(command: Command, problems: &mut Problems) -> Option<Self> {
        match command {
            Command::Demo(given) => {
                let mut demo = demonstration::Config::base();
                given.apply(&mut demo, problems);
                demo::check(&demo, problems);
                Some(Self::Demo(Box::new(demo)))
            }
            Command::Doctor(arguments) => {
                let node = arguments.node.node(problems)?;
                Some(Self::Doctor { node: Box::new(node), json: arguments.json })
            }
            Command::Status(ask) => ask.config(Request::Status, problems),
            Command::Top(arguments) => arguments.config(problems),
            Command::Payouts(ask) => ask.config(Request::Payouts, problems),
            Command::Blocks(arguments) => arguments.config(problems),
            Command::Peers(ask) => ask.config(Request::Peers, problems),
            Command::Bans(ask) => ask.config(Request::Bans, problems),
            Command::Ban(arguments) => arguments.config(problems),
            Command::Unban(arguments) => arguments.config(problems),
            Command::Import(arguments) => arguments.config(problems),
            Command::Share(arguments) => arguments.config(problems),
            Command::Simulate(arguments) => Some(Self::Simulate(arguments.config())),
            Command::Bench(arguments) => Some(arguments.config()),
            Command::Mine(arguments) => Some(Self::Mine(arguments.config())),
            Command::Config(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
