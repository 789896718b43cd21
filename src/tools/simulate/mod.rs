//! A pool of many nodes in one process, with clock and network drawn from a seed: shows how rules and code behave when
//! nodes are far apart, cut off or attacked.
//!
//! ```text
//!  miner ──share found──▶ node ──Command──▶ world ──arrival, timeout──▶ node ...
//!                          │ Sharechain, Swarm and Peers: those of the real node
//!  forge ──real shares─────┘                 ▲ network: latency, bandwidth, loss, partitions
//! ```
//!
//! Shares are real and checked in full; only proofs of work are cheap, because on the simulated network nearly every
//! hash is good enough. The times of shares are drawn at random instead, one every share period in all.

mod agent;
mod attack;
mod conduct;
mod exchange;
mod miner;
mod network;
mod node;
mod pool;
mod report;
mod runs;
mod scenario;
mod succession;
pub mod theory;
mod transition;
mod world;

pub use report::{Outcome, Point, plot};
pub use scenario::{Scenario, Settings};

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Interval of progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Configuration of a simulation.
#[derive(Debug, Clone)]
pub struct Config {
    /// Scenarios, run one after another.
    pub scenarios: Vec<Scenario>,
    /// Settings of each run.
    pub settings: Settings,
    /// File for the plot of orphan rates, if they are among the scenarios.
    pub plot: Option<PathBuf>,
}

/// Callback for progress: current phase, shares found, and their total.
pub type Progress<'a> = dyn FnMut(&str, usize, usize) + 'a;

/// Runs the scenarios and writes their results to `out`; progress goes to standard error if `is_watched`. Returns false
/// if a check failed.
///
/// # Errors
/// The results cannot be written.
pub fn run(config: &Config, out: &mut dyn Write, is_watched: bool) -> Result<bool> {
    let mut holds = true;
    for scenario in &config.scenarios {
        let begin = Instant::now();
        let mut reported = begin;
        let mut progress = |what: &str, done: usize, of: usize| {
            if is_watched && reported.elapsed() >= PROGRESS_INTERVAL {
                reported = Instant::now();
                eprint!("\r\x1b[K{scenario}: {what}, {done} of {of} shares");
            }
        };
        let (outcome, points) = scenario.run(&config.settings, &mut progress);
        if is_watched {
            eprint!("\r\x1b[K");
        }
        holds &= outcome.broken.is_empty();
        writeln!(out, "{outcome}  in {:.1} s\n", begin.elapsed().as_secs_f64())?;
        if let Some(path) = config.plot.as_ref().filter(|_| !points.is_empty()) {
            let title = format!(
                "Orphans among shares, {} nodes, {} shares at each latency",
                config.settings.nodes, config.settings.shares
            );
            std::fs::write(path, plot(&points, &title)).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(holds)
}
