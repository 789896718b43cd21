//! Judges submissions: pure, and the same for every protocol.
//!
//! A protocol finds the job of a submission and rebuilds the header ([`Solved`]); names and accounts are its concern.
//! This module decides on the value of the header: nothing, a credit or a solution; each header once, and for late or
//! stale work as well. A submission refused for another reason is still checked ([`salvage`]): no block is lost to a
//! refused name, time or version.

use crate::mining::difficulty::{Difficulty, Scale, Target};
use crate::mining::duplicates::{Remembered, Seen, WhenFull};
use crate::mining::epochs::Epochs;
use crate::mining::error::StratumError;
use crate::mining::submission::Solved;
use crate::mining::tally::Credit;

/// Criteria for judging a submission, beside its header.
#[derive(Debug, Clone, Copy)]
pub struct Basis {
    /// Target that a solution must meet.
    pub solution_target: Target,
    /// Difficulty that the job required of the miner.
    pub required: Difficulty,
    /// Difficulty to credit; `None` if the hash meets no difficulty that the miner may use.
    pub credited: Option<Difficulty>,
    /// Epochs of the job.
    pub epochs: Epochs,
    /// Epochs of the newest work.
    pub newest: Epochs,
    /// Set when the job pays the operator.
    pub is_fee: bool,
}

/// Result of judging a submission.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// Answer to the miner.
    pub verdict: Verdict,
    /// Credit to the worker's account; there may be one although the answer is a refusal.
    pub credit: Option<Credit>,
    /// Set when it solves its job and was not seen before: to be passed on before it is answered.
    pub is_solution: bool,
}

/// Answer to a submission.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Valid, and in time.
    Accepted,
    /// Valid, but its job builds on a block that is no longer the best.
    Stale,
    /// The same header was judged before.
    Duplicate,
    /// Valid, but the job has had too many submissions.
    JobFull,
    /// The hash does not meet the required difficulty.
    LowDifficulty {
        /// Difficulty of the hash.
        achieved: f64,
        /// Difficulty that was required.
        required: Difficulty,
    },
}

impl Judgement {
    /// Judgement of a header that was judged before.
    pub(crate) const DUPLICATE: Self = Self { verdict: Verdict::Duplicate, credit: None, is_solution: false };
}

impl Verdict {
    /// Converts to Stratum's answer, with difficulties on `scale`; `job` returns the id of the job.
    ///
    /// # Errors
    /// Every verdict except [`Verdict::Accepted`].
    pub fn answer(self, scale: Scale, job: impl FnOnce() -> String) -> Result<(), StratumError> {
        match self {
            Verdict::Accepted => Ok(()),
            Verdict::Stale => Err(StratumError::Stale(job())),
            Verdict::Duplicate => Err(StratumError::Duplicate),
            Verdict::JobFull => Err(StratumError::JobFull(job())),
            Verdict::LowDifficulty { achieved, required } => {
                let (achieved, required) = (scale.show(achieved), scale.show(required.get()));
                Err(StratumError::LowDifficulty { achieved: format!("{achieved:.6}"), required: required.to_string() })
            }
        }
    }
}

/// Judges a header. Only valid ones are added to `seen`, so that noise cannot evict them.
pub fn judge(solved: &Solved, basis: &Basis, seen: &mut impl Seen) -> Judgement {
    let is_solution = basis.solution_target.is_met_by(&solved.pow_hash);
    let remembered = match basis.credited {
        _ if is_solution => seen.remember(&solved.hash, WhenFull::Replace),
        Some(_) => seen.remember(&solved.hash, WhenFull::Refuse),
        None if seen.knows(&solved.hash) => Remembered::Known,
        None => Remembered::New,
    };
    match remembered {
        Remembered::New => {}
        Remembered::Known => return Judgement::DUPLICATE,
        Remembered::NoRoom => return Judgement { verdict: Verdict::JobFull, credit: None, is_solution: false },
    }
    let achieved = Target::from_le_bytes(solved.pow_hash).difficulty();
    let Some(difficulty) = basis.credited else {
        let verdict = Verdict::LowDifficulty { achieved, required: basis.required };
        return Judgement { verdict, credit: None, is_solution };
    };
    let is_late = basis.epochs.drops_for(basis.newest);
    let credit = Credit { difficulty, achieved, is_late, is_fee: basis.is_fee };
    let is_stale = basis.epochs.stale != basis.newest.stale;
    let verdict = if is_stale { Verdict::Stale } else { Verdict::Accepted };
    Judgement { verdict, credit: Some(credit), is_solution }
}

/// Returns a header that was refused for a reason other than its hash, if it is a solution and was not seen before.
pub fn salvage(solved: Solved, solution_target: Target, seen: &mut impl Seen) -> Option<Solved> {
    let is_solution = solution_target.is_met_by(&solved.pow_hash);
    (is_solution && seen.remember(&solved.hash, WhenFull::Replace) == Remembered::New).then_some(solved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mining::duplicates::Duplicates;

    fn solved(number: u8) -> Solved {
        // The last byte is the most significant.
        let mut hash = [0; 32];
        hash[..2].copy_from_slice(&[number, 1]);
        hash[28] = number;
        Solved { header: [0; 80], hash, pow_hash: hash }
    }

    fn target(number: u8) -> Target {
        let mut bytes = [0xff; 32];
        bytes[28..].copy_from_slice(&[number, 0, 0, 0]);
        Target::from_le_bytes(bytes)
    }

    fn basis(credited: bool) -> Basis {
        let one = Difficulty::new(1.0).unwrap();
        Basis {
            solution_target: target(10),
            required: one,
            credited: credited.then_some(one),
            epochs: Epochs::default(),
            newest: Epochs::default(),
            is_fee: true,
        }
    }

    fn verdict(number: u8, basis: &Basis, seen: &mut Duplicates) -> (Verdict, bool, bool) {
        let Judgement { verdict, credit, is_solution } = judge(&solved(number), basis, seen);
        (verdict, credit.is_some(), is_solution)
    }

    #[test]
    fn a_header_counts_once_and_only_what_is_worth_something_is_remembered() {
        let mut seen = Duplicates::default();
        assert_eq!(verdict(20, &basis(true), &mut seen), (Verdict::Accepted, true, false));
        assert_eq!(verdict(20, &basis(true), &mut seen), (Verdict::Duplicate, false, false));
        assert_eq!(verdict(20, &basis(false), &mut seen), (Verdict::Duplicate, false, false));
        for _ in 0..2 {
            let (verdict, is_credited, is_solution) = verdict(30, &basis(false), &mut seen);
            assert!(matches!(verdict, Verdict::LowDifficulty { .. }) && !is_credited && !is_solution);
        }
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn a_solution_is_passed_on_once_whatever_the_miner_is_answered() {
        let mut seen = Duplicates::default();
        let (low, is_credited, is_solution) = verdict(9, &basis(false), &mut seen);
        assert!(matches!(low, Verdict::LowDifficulty { .. }) && !is_credited && is_solution);
        assert_eq!(verdict(9, &basis(true), &mut seen), (Verdict::Duplicate, false, false));
        let stale = Basis { newest: Epochs { stale: 1, ..Epochs::default() }, ..basis(true) };
        assert_eq!(verdict(8, &stale, &mut seen), (Verdict::Stale, true, true));
        assert_eq!(salvage(solved(8), target(10), &mut seen), None, "it was passed on");
        assert_eq!(salvage(solved(7), target(10), &mut seen), Some(solved(7)));
        assert_eq!(salvage(solved(7), target(10), &mut seen), None);
        assert_eq!(salvage(solved(11), target(10), &mut seen), None, "it is none");
    }

    #[test]
    fn a_job_that_takes_no_more_still_gives_its_solutions() {
        let mut seen = Duplicates::default();
        let mut random = fastrand::Rng::with_seed(7);
        let mut judged = |hash_end: u8| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&random.u64(..).to_le_bytes());
            hash[28] = hash_end;
            judge(&Solved { header: [0; 80], hash, pow_hash: hash }, &basis(true), &mut seen)
        };
        let full = (0..1_000_000).map(|_| judged(20)).find(|judgement| judgement.verdict != Verdict::Accepted).unwrap();
        assert_eq!((full.verdict, full.credit, full.is_solution), (Verdict::JobFull, None, false));
        assert!((0..1000).all(|_| judged(9).is_solution));
    }

    #[test]
    fn late_work_is_credited_as_late_and_accepted() {
        let mut seen = Duplicates::default();
        let late = Basis { newest: Epochs { late: 1, ..Epochs::default() }, ..basis(true) };
        let judgement = judge(&solved(20), &late, &mut seen);
        assert_eq!(judgement.verdict, Verdict::Accepted);
        assert!(judgement.credit.is_some_and(|credit| credit.is_late && credit.is_fee));
    }
}
