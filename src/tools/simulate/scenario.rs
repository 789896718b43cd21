//! The scenarios by name, and how they are run.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What can be simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Honest nodes only: they agree, lose no more shares than theory expects, and have nothing against each other.
    Convergence,
    /// Nodes that start without a share while the others mine: they download the chain.
    Joining,
    /// Honest nodes at growing latencies: orphans follow the formula.
    Orphans,
    /// Two parts that do not hear of each other for a while: the heavier one's shares stay.
    Partition,
    /// Somebody with many addresses wants to be all that nodes know: they stay connected, and one that was cut off comes
    /// back.
    Eclipse,
    /// A miner keeps its shares to itself until it pays: it gains no more than theory expects.
    Withholding,
    /// Nodes that send bad shares: they are banned, and the others go on.
    Flood,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 7] = [
        Scenario::Convergence,
        Scenario::Joining,
        Scenario::Orphans,
        Scenario::Partition,
        Scenario::Eclipse,
        Scenario::Withholding,
        Scenario::Flood,
    ];

    /// The word for it on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Scenario::Convergence => "convergence",
            Scenario::Joining => "joining",
            Scenario::Orphans => "orphans",
            Scenario::Partition => "partition",
            Scenario::Eclipse => "eclipse",
            Scenario::Withholding => "withholding",
            Scenario::Flood => "flood",
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
            format!("`{text}` is no scenario: there are {words}, and all")
        })
    }
}

/// How a scenario is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Honest nodes.
    pub nodes: usize,
    /// What all luck follows from.
    pub seed: u64,
    /// Of a link, one way, in the median.
    pub latency: Duration,
    /// Shares that are found.
    pub shares: u32,
}
