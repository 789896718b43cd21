//! Relation between two snapshots of work: the value of the earlier one's jobs.

/// Counters that grow when miners must be notified at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epochs {
    /// Grows when jobs handed out before are worthless: the parent block changed. Miners are instructed to drop them,
    /// and submissions for them are stale.
    pub stale: u64,
    /// Grows when jobs handed out before are worth less: miners are instructed to drop them, but work in progress is
    /// credited.
    pub late: u64,
    /// Grows when new work is better, and old work keeps its value.
    pub urgent: u64,
}

impl Epochs {
    /// True if a miner on work of these epochs should drop it for `newer`.
    pub fn drops_for(self, newer: Self) -> bool {
        self.stale != newer.stale || self.late != newer.late
    }
}
