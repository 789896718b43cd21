//! `p2pool bench stratum`: speed of serving miners, compared with the limit of the machine.
//!
//! ```text
//!  generator ──starts──▶ p2pool bench serve    the real front over a forged chain and a full template
//!      │     ──starts──▶ p2pool bench bare     answers every line, writes given bytes: the physical limit
//!      └──── the same load to both ──▶ table
//! ```
//!
//! Servers are processes of their own, to measure their CPU time and memory alone. Node and bare server take turns,
//! several times in a measure, so that other work on the machine slows both alike.

mod bare;
mod child;
mod crowd;
mod hostile;
mod miner;
mod scrypt;
mod serve;
mod socket;
mod submit;
mod table;

pub use bare::run as run_bare;
pub use serve::{Served, run as run_serve};

use anyhow::{Result, bail};
use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::time::Duration;

use child::{Child, Kind};
use table::Table;

/// Difficulty of submissions: eight or nine hashes find one, so that a generator finds them as fast as they are judged.
const SUBMISSION_DIFFICULTY: &str = "2e-9";

/// The same with scrypt: every hash is good enough, for a generator cannot find as many as are judged.
const SCRYPT_SUBMISSION_DIFFICULTY: &str = "1e-10";

/// Number of payout addresses of miners in the measure with small jobs; the pool has as many payees.
const SMALL_PAYEES: u32 = 1;

/// Maximum number of failures listed one by one.
const WRONGS_TOLD_MAX: usize = 5;

/// Settings of the generator.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Measures to take; by default [`Measure::ALL`].
    pub measures: Vec<Measure>,
    /// Number of connections that submit as fast as they can.
    pub submitters: u32,
    /// Number of connections that are held, submit at [`Self::rate`], and wait for a job of many payees.
    pub connections: u32,
    /// Number of connections that wait for a job of one payee.
    pub listeners: u32,
    /// Number of payout addresses of the miners on [`Self::connections`]: each has its own jobs.
    pub addresses: u32,
    /// Submissions per second over all connections when answers are timed.
    pub rate: u32,
    /// New connections per second.
    pub joining: u32,
    /// Duration of each timed phase; there are [`Self::rounds`] of them for the node and as many for the bare server.
    pub phase: Duration,
    /// Number of turns of node and bare server.
    pub rounds: u32,
    /// Duration of the measure of held connections.
    pub hold: Duration,
    /// Number of held connections.
    pub held: u32,
    /// Number of held connections replaced per second.
    pub churn: u32,
    /// Number of hostile clients.
    pub hostile: u32,
    /// Pool and template.
    pub served: Served,
    /// Prints JSON.
    pub json: bool,
}

/// A measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Submissions one at a time.
    Single,
    /// Submissions with sixteen in flight.
    Pipelined,
    /// Both again, beside hostile clients.
    Hostile,
    /// Submissions one at a time, beside each kind of hostile clients.
    Attacks,
    /// A new block for connections of one payee.
    SmallJobs,
    /// New connections.
    Joining,
    /// Memory of an idle connection.
    Memory,
    /// Answers at a steady rate.
    Latency,
    /// A new block for connections of many payees.
    BigJobs,
    /// Connections held for a long time.
    Hold,
}

impl Measure {
    /// All measures, in the order in which they are taken.
    pub const ALL: [Self; 10] = [
        Self::Single,
        Self::Pipelined,
        Self::Hostile,
        Self::Attacks,
        Self::SmallJobs,
        Self::Joining,
        Self::Memory,
        Self::Latency,
        Self::BigJobs,
        Self::Hold,
    ];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Pipelined => "pipelined",
            Self::Hostile => "hostile",
            Self::Attacks => "attacks",
            Self::SmallJobs => "small-jobs",
            Self::Joining => "joining",
            Self::Memory => "memory",
            Self::Latency => "latency",
            Self::BigJobs => "big-jobs",
            Self::Hold => "hold",
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Measure {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|measure| measure.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|measure| measure.name()).collect();
            format!("`{name}` is not one of {}", known.join(", "))
        })
    }
}

/// Takes the measures, and writes the table to `out`; progress goes to standard error.
///
/// # Errors
/// A server cannot be started, or service failed: a valid submission rejected, a job missed, a connection lost.
pub async fn run(config: &Config, out: &mut (dyn Write + Send)) -> Result<()> {
    let mut table = Table::default();
    if config.served.scrypt {
        scrypt::measure(config, &mut table).await?;
    }
    let wants = |measures: &[Measure]| {
        !config.served.scrypt && measures.iter().any(|measure| config.measures.contains(measure))
    };
    if wants(&[Measure::Single, Measure::Pipelined, Measure::Hostile]) {
        submit::measure(config, &mut table).await?;
    }
    if wants(&[Measure::Attacks]) {
        submit::measure_attacks(config, &mut table).await?;
    }
    if wants(&[Measure::SmallJobs]) {
        crowd::measure_small_jobs(config, &mut table).await?;
    }
    if wants(&[Measure::Joining, Measure::Memory, Measure::Latency, Measure::BigJobs]) {
        crowd::measure(config, &mut table).await?;
    }
    if wants(&[Measure::Hold]) {
        crowd::measure_hold(config, &mut table).await?;
    }
    if config.json {
        table.write_json(out)?
    } else {
        write!(out, "{table}")?
    }
    if !table.wrongs.is_empty() {
        let first: Vec<&str> = table.wrongs.iter().take(WRONGS_TOLD_MAX).map(String::as_str).collect();
        bail!("miners were served wrongly {} times: {}", table.wrongs.len(), first.join("; "));
    }
    Ok(())
}

impl Config {
    fn wants(&self, measure: Measure) -> bool {
        self.measures.contains(&measure)
    }

    /// Difficulty that miners ask for.
    fn difficulty(&self) -> &'static str {
        if self.served.scrypt { SCRYPT_SUBMISSION_DIFFICULTY } else { SUBMISSION_DIFFICULTY }
    }

    /// Starts a node of this pool, and a bare server.
    async fn start(&self, payees: u32) -> Result<(Child, Child)> {
        let served = Served { payees, ..self.served };
        Ok((Child::start(Kind::Node(served)).await?, Child::start(Kind::Bare).await?))
    }
}

/// Nanoseconds of the clock that all processes of a machine share.
fn clock_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Prints the current step to standard error.
fn report(what: impl fmt::Display) {
    eprintln!("bench: {what}");
}
