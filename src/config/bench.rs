//! The command line of `p2pool bench`.

use clap::{Args, Subcommand};
use std::time::Duration;

use super::Config;
use super::values::{seconds, whole};
use crate::tools::bench::{self, Measure};

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

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
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
struct ServedArgs {
    /// Payees of the pool: each is an output of every coinbase.
    #[arg(long, value_name = "COUNT", default_value = "300", value_parser = whole::<u32>(1..=2000))]
    payees: u32,
    /// Transactions of the block template, which fill a block.
    #[arg(long, value_name = "COUNT", default_value = "2000", value_parser = whole::<u32>(1..=8000))]
    transactions: u32,
}

#[derive(Debug, Args)]
struct BenchStratumArgs {
    /// What to measure, without spaces [default: all of it].
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<Measure>,
    /// Connections that submit as fast as they are answered.
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = whole::<u32>(1..=5000))]
    submitters: u32,
    /// Connections of joining, memory, latency and big-jobs.
    #[arg(long, value_name = "COUNT", default_value = "10000", value_parser = whole::<u32>(1..=60_000))]
    connections: u32,
    /// Connections of small-jobs.
    #[arg(long, value_name = "COUNT", default_value = "3000", value_parser = whole::<u32>(1..=30_000))]
    listeners: u32,
    /// Addresses that miners are paid at: each has jobs of its own.
    #[arg(long, value_name = "COUNT", default_value = "500", value_parser = whole::<u32>(1..=60_000))]
    addresses: u32,
    /// Submissions a second of latency.
    #[arg(long, value_name = "COUNT", default_value = "5000", value_parser = whole::<u32>(1..=100_000))]
    rate: u32,
    /// New connections a second.
    #[arg(long, value_name = "COUNT", default_value = "2000", value_parser = whole::<u32>(1..=100_000))]
    joining: u32,
    /// Seconds of each timed phase.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds(0.1..=3600.0),
          allow_negative_numbers = true)]
    seconds: Duration,
    /// How often node and bare server take turns.
    #[arg(long, value_name = "COUNT", default_value = "10", value_parser = whole::<u32>(1..=100))]
    rounds: u32,
    /// Seconds of hold; from 600 on it is judged whether memory grows.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds(1.0..=86_400.0),
          allow_negative_numbers = true)]
    hold: Duration,
    /// Connections of hold.
    #[arg(long, value_name = "COUNT", default_value = "15000", value_parser = whole::<u32>(1..=60_000))]
    held: u32,
    /// How many of them a second leave and are replaced by others.
    #[arg(long, value_name = "COUNT", default_value = "50", value_parser = whole::<u32>(0..=2000))]
    churn: u32,
    /// Clients of hostile: a quarter each sends a byte a second, says nothing, sends noise, sends useless lines.
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = whole::<u32>(0..=5000))]
    hostile: u32,
    #[command(flatten)]
    served: ServedArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl BenchArgs {
    pub(super) fn config(self) -> Config {
        match self.command {
            BenchCommand::Stratum(arguments) => Config::Bench(arguments.config()),
            BenchCommand::Serve(served) => Config::BenchServe(served.served()),
            BenchCommand::Bare => Config::BenchBare,
        }
    }
}

impl ServedArgs {
    fn served(&self) -> bench::Served {
        bench::Served { payees: self.payees, transactions: self.transactions }
    }
}

impl BenchStratumArgs {
    fn config(self) -> bench::Config {
        bench::Config {
            measures: if self.only.is_empty() { Measure::ALL.to_vec() } else { self.only },
            submitters: self.submitters,
            connections: self.connections,
            listeners: self.listeners,
            addresses: self.addresses,
            rate: self.rate,
            joining: self.joining,
            phase: self.seconds,
            rounds: self.rounds,
            hold: self.hold,
            held: self.held,
            churn: self.churn,
            hostile: self.hostile,
            served: self.served.served(),
            json: self.json,
        }
    }
}
