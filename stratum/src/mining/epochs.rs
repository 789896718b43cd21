//! How one snapshot of work relates to an earlier one: what its jobs are still worth.

/// Counters that grow when miners must be told at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epochs {
    /// Grows when what was handed out before is worth nothing any more: the parent block changed. Miners are told to drop
    /// it, and submissions for it are stale.
    pub stale: u64,
    /// Grows when what was handed out before is worth less: miners are told to drop it, but are credited for what they
    /// had under way.
    pub late: u64,
    /// Grows when new work is better, and old work as good as it was.
    pub urgent: u64,
}

impl Epochs {
    /// Whether a miner on work of these epochs is to drop it for `newer`.
    pub fn drops_for(self, newer: Self) -> bool {
        self.stale != newer.stale || self.late != newer.late
    }
}
