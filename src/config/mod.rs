//! Reads arguments, environment and configuration file into one valid `Config`, or all errors in them. No other module
//! reads any of these.
//!
//! An option is a row that sets a field of a part's own configuration (`options`), or a field of a tool's arguments.
//! Values come from three layers (`layers`), and are checked by their options (`values`).

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
mod merged;
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

/// Command to run, with its configuration.
#[derive(Debug)]
pub enum Config {
    /// Run a node.
    Node(Box<crate::node::Config>),
    /// Run the demo.
    Demo(Box<demonstration::Config>),
    /// Query or control a running node.
    Control(control::Config),
    /// Print a found block in hex.
    ExportBlock {
        /// Data directory of the network.
        data_dir: PathBuf,
        /// Hash of the block.
        hash: BlockHash,
    },
    /// Monitor a running node.
    Top(top::Config),
    /// Diagnose the setup of a node.
    Doctor {
        /// Configuration of the node.
        node: Box<crate::node::Config>,
        /// Set to print JSON.
        json: bool,
    },
    /// Print the effective configuration of a node.
    Check {
        /// Report to print.
        text: String,
    },
    /// Import an old node's data.
    Import(import::Config),
    /// Decode one share.
    InspectShare {
        /// Network of the share.
        network: &'static Network,
        /// Serialised type and contents.
        share: Vec<u8>,
    },
    /// Verify a chain of shares.
    ReplayShares {
        /// Network of the shares.
        network: &'static Network,
        /// File of shares; `None` for standard input.
        shares: Option<PathBuf>,
    },
    /// Simulate a pool.
    Simulate(simulate::Config),
    /// Run the benchmarks.
    Bench(benchmark::Config),
    /// Run the server under load.
    BenchServe(benchmark::Served),
    /// Run the bare server, for comparison.
    BenchBare,
    /// Mine on a pool.
    Mine(mine::Config),
}

/// Reason why there is no configuration.
#[derive(Debug)]
pub enum Refused {
    /// Malformed arguments, or a request for help or version.
    Arguments(clap::Error),
    /// All wrong values.
    Values(Vec<ConfigError>),
    /// All wrong values, as found by `p2pool config check`.
    Check(Vec<ConfigError>),
}

/// Returns the command line, also for the documentation generated from it.
pub fn command() -> clap::Command {
    environment::name_variables(Cli::command())
}

impl Config {
    /// Reads `arguments`, starting with the program's name.
    ///
    /// # Errors
    /// Every error in the arguments, the environment and the file.
    pub fn read(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> Result<Self, Refused> {
        let typed: Vec<OsString> = arguments.into_iter().collect();
        let arguments = argument_files::expand(typed.clone()).map_err(|error| Refused::Values(vec![error]))?;
        let asked = Asked::of(command(), typed, arguments)?;
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
            // clap reports a wrong value, which was left out, as missing.
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
            Command::Merged(ask) => ask.config(Request::Merged, problems),
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
