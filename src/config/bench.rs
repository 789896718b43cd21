//! Arguments of `p2pool bench`.

use clap::{Args, Subcommand};
use std::time::Duration;

use super::Config;
use super::values::{seconds, whole};
use crate::tools::bench::{self, Measure};

const BENCH_HELP: &str = "\
Measures, by their names for --only:
  single       accepted submissions per second, one in flight per connection, and the server's CPU time for each
  pipelined    the same with sixteen in flight
  hostile      both again, with hostile clients connected to either server
  attacks      single, beside each kind of hostile clients alone and without it
               (miners and hostile clients have addresses of different networks)
  small-jobs   time from a new block until the last connection has its job; one payee
  joining      rate of new connections
  memory       memory per idle connection
  latency      response latency at a steady rate
  big-jobs     time from a new block until the last connection has its job; many payees and addresses
  hold         memory while connections are held for a long time

The node, the bare server and the load generator are separate processes on this machine, so ratios say more than
rates. Targets are for two cores. A missed target is no failure; a rejected valid submission, a missed job or a lost
connection is.";

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Load-test the node's Stratum server, and a bare server that only responds, as the limit of this machine. Prints
    /// a table.
    #[command(after_help = BENCH_HELP)]
    Stratum(BenchStratumArgs),
    /// The server under load; the benchmark starts it.
    #[command(hide = true)]
    Serve(ServedArgs),
    /// The bare server; the benchmark starts it.
    #[command(hide = true)]
    Bare,
}

/// Content served by the server under load.
#[derive(Debug, Args)]
struct ServedArgs {
    /// Payees of the pool, each an output of every coinbase.
    #[arg(long, value_name = "COUNT", default_value = "300", value_parser = whole::<u32>(1..=2000))]
    payees: u32,
    /// Transactions in the block template.
    #[arg(long, value_name = "COUNT", default_value = "2000", value_parser = whole::<u32>(1..=8000))]
    transactions: u32,
    /// Trust PROXY headers from this machine: clients are limited by the addresses in them.
    #[arg(long, hide = true)]
    trust_proxy: bool,
    /// Measure scrypt instead, whose proof of work is costly: submissions per second and the server's CPU time for each,
    /// beside those of the bare hash on one core, and the response latency at half that load.
    #[arg(long)]
    scrypt: bool,
}

#[derive(Debug, Args)]
struct BenchStratumArgs {
    /// Measures to run, separated by commas [default: all].
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', conflicts_with = "scrypt")]
    only: Vec<Measure>,
    /// Connections of single, pipelined, hostile and attacks; each submits as fast as it gets responses.
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = whole::<u32>(1..=5000))]
    submitters: u32,
    /// Connections of joining, memory, latency and big-jobs.
    #[arg(long, value_name = "COUNT", default_value = "10000", value_parser = whole::<u32>(1..=60_000))]
    connections: u32,
    /// Connections of small-jobs.
    #[arg(long, value_name = "COUNT", default_value = "3000", value_parser = whole::<u32>(1..=30_000))]
    listeners: u32,
    /// Payout addresses of the miners; each has its own jobs.
    #[arg(long, value_name = "COUNT", default_value = "500", value_parser = whole::<u32>(1..=60_000))]
    addresses: u32,
    /// Submissions per second of latency.
    #[arg(long, value_name = "COUNT", default_value = "5000", value_parser = whole::<u32>(1..=100_000))]
    rate: u32,
    /// New connections per second of joining.
    #[arg(long, value_name = "COUNT", default_value = "2000", value_parser = whole::<u32>(1..=100_000))]
    joining: u32,
    /// Duration of each timed phase.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds(0.1..=3600.0),
          allow_negative_numbers = true)]
    seconds: Duration,
    /// Rounds, each with a turn of the node and one of the bare server.
    #[arg(long, value_name = "COUNT", default_value = "10", value_parser = whole::<u32>(1..=100))]
    rounds: u32,
    /// Duration of hold; from 600 s on, growth of memory is checked.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds(1.0..=86_400.0),
          allow_negative_numbers = true)]
    hold: Duration,
    /// Connections of hold.
    #[arg(long, value_name = "COUNT", default_value = "15000", value_parser = whole::<u32>(1..=60_000))]
    held: u32,
    /// Connections of hold replaced by new ones, per second.
    #[arg(long, value_name = "COUNT", default_value = "50", value_parser = whole::<u32>(0..=2000))]
    churn: u32,
    /// Hostile clients: in hostile a quarter each sends one byte per second, nothing, noise, or useless lines; in attacks
    /// all do the same.
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
        let &Self { payees, transactions, trust_proxy, scrypt } = self;
        bench::Served { payees, transactions, trusts_proxy: trust_proxy, scrypt }
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
