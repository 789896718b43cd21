//! Names of the scenarios, and their settings.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Scenario of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Honest nodes only: they agree, lose no more shares than theory expects, and record no offences of each other.
    Convergence,
    /// Nodes that start without a share while the others mine: they download the chain.
    Joining,
    /// Honest nodes at growing latencies: orphans follow the formula.
    Orphans,
    /// Two parts cut off from each other for a while: the heavier one's shares stay.
    Partition,
    /// An attacker with many addresses tries to be every known node: nodes stay connected, and one that was cut off
    /// comes back.
    Eclipse,
    /// A miner withholds its shares until it pays: it gains no more than theory expects.
    Withholding,
    /// Nodes that send bad shares: they are banned, and the others continue.
    Flood,
    /// Share version 36 follows 35, is left and comes back, with nodes that do not know it, lax ones and one that goes
    /// back alone: the strict nodes keep one chain by the rules, without a ban.
    Transition,
}

impl Scenario {
    /// All scenarios.
    pub const ALL: [Scenario; 8] = [
        Scenario::Convergence,
        Scenario::Joining,
        Scenario::Orphans,
        Scenario::Partition,
        Scenario::Eclipse,
        Scenario::Withholding,
        Scenario::Flood,
        Scenario::Transition,
    ];

    /// Its name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Scenario::Convergence => "convergence",
            Scenario::Joining => "joining",
            Scenario::Orphans => "orphans",
            Scenario::Partition => "partition",
            Scenario::Eclipse => "eclipse",
            Scenario::Withholding => "withholding",
            Scenario::Flood => "flood",
            Scenario::Transition => "transition",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Scenario::ALL.into_iter().find(|scenario| scenario.word() == text).ok_or_else(|| {
            let words = Scenario::ALL.map(Scenario::word).join(", ");
            format!("`{text}` is no scenario: choose one of {words}, or all")
        })
    }
}

/// Settings of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Number of honest nodes.
    pub nodes: usize,
    /// Seed of all randomness.
    pub seed: u64,
    /// One-way latency of a link, median.
    pub latency: Duration,
    /// Number of shares to find.
    pub shares: u32,
}
