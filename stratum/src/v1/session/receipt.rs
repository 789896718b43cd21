//! What a submission is judged by, as of its receipt: its verdict is the same whenever its hash is computed.

use std::time::Instant;

use crate::mining::difficulty::{Difficulty, Target};
use crate::mining::epochs::Epochs;
use crate::mining::jobs::HandedOut;
use crate::mining::judge::Basis;
use crate::mining::submission::Solved;

/// Record of a submission that passed all checks but its hash.
#[derive(Debug, Clone, Copy)]
pub(super) struct Receipt {
    /// Index of the worker to credit.
    pub(super) worker: usize,
    /// Bytes between the coinbase's head and tail.
    pub(super) extranonces: [u8; 8],
    /// Time at which it came.
    pub(super) at: Instant,
    /// Difficulty of its job.
    difficulty: Difficulty,
    /// Newest difficulty that was sent, and its target.
    announced: Option<(Difficulty, Target)>,
    solution_target: Target,
    /// The hardest target that miners were given for its job.
    ceiling: Target,
    epochs: Epochs,
    /// Epochs of the newest work.
    newest: Epochs,
    is_fee: bool,
}

impl Receipt {
    /// Records a submission for `handed_out` on a session with the minimum difficulty `min`.
    pub(super) fn new<T>(
        handed_out: &HandedOut<T>,
        announced: Option<(Difficulty, Target)>,
        min: Difficulty,
        newest: Epochs,
        worker: usize,
        extranonces: [u8; 8],
        at: Instant,
    ) -> Self {
        let &HandedOut { difficulty, epochs, is_fee, ref job, .. } = handed_out;
        let (solution_target, ceiling) = (job.solution_target, job.ceiling(min).target);
        Self { worker, extranonces, at, difficulty, announced, solution_target, ceiling, epochs, newest, is_fee }
    }

    /// Criteria for judging it, once it is hashed.
    pub(super) fn basis(&self, solved: &Solved) -> Basis {
        Basis {
            solution_target: self.solution_target,
            required: self.difficulty,
            credited: self.worth(solved),
            epochs: self.epochs,
            newest: self.newest,
            is_fee: self.is_fee,
        }
    }

    /// Difficulty to credit it with: that of its own job, or the newest if that is lower.
    ///
    /// Several firmwares apply a lower difficulty at once, not from the next job on, and must not lose by it
    /// (ESP-Miner issue 212).
    fn worth(&self, solved: &Solved) -> Option<Difficulty> {
        let (announced, announced_target) = self.announced?;
        let own = if self.difficulty == announced { announced_target } else { self.difficulty.target() };
        // The hash of a solution that must not be lost is always enough, whatever rounding does.
        let is_hardest = own < self.ceiling && self.difficulty.get() >= self.ceiling.difficulty();
        let own = if is_hardest { self.ceiling } else { own };
        if own.is_met_by(&solved.pow_hash) {
            Some(self.difficulty)
        } else {
            announced_target.is_met_by(&solved.pow_hash).then_some(announced)
        }
    }
}
