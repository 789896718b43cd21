//! Bounds the proof of work that is computed for nothing.
//!
//! SHA-256d of a header takes less than reading its submission. Scrypt takes half a millisecond, and garbage costs its
//! sender nothing. So where proof of work is costly, a hash is paid for: with one that the miner has earned by credited
//! submissions, or else from the budget of its source, which no new connection fills up again. What a miner has earned
//! also decides whose hash is computed first.

use std::time::Instant;

use crate::mining::source::Source;
use crate::mining::token_buckets::{Allowance, TokenBuckets};

/// Budget of a source: a farm whose devices all stumble at once, and then a twentieth of a processor for scrypt.
pub const BUDGET: Allowance = Allowance { burst: 4096.0, per_second: 100.0 };

/// Hashes that a miner earns by a credited submission.
const EARNED: u8 = 2;

/// Maximum number of hashes that a miner can have earned: twice those that it may have in flight, so that a miner whose
/// work counts never depends on what its neighbours have left of the budget.
pub const EARNED_MAX: u8 = 64;

/// Hashes that one miner has earned. Neighbours of the same source cannot spend them.
#[derive(Debug, Default)]
pub struct Earned(u8);

/// Means by which a hash was paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paid {
    /// Earned by the miner's credited submissions.
    Earned,
    /// From the budget of its source: nothing is known of the miner yet, or nothing good.
    Budget,
}

/// Budgets of all sources.
#[derive(Debug)]
pub struct PowBudget(TokenBuckets);

impl PowBudget {
    /// Creates full budgets; with `exempts_loopback`, this machine has no limit.
    pub fn new(exempts_loopback: bool) -> Self {
        Self(TokenBuckets::new(BUDGET, exempts_loopback))
    }

    /// Pays for one hash; returns `None` if neither the miner nor its source can.
    pub(crate) fn pay(&self, earned: &mut Earned, source: Source, now: Instant) -> Option<Paid> {
        match earned.0.checked_sub(1) {
            Some(left) => {
                earned.0 = left;
                Some(Paid::Earned)
            }
            None => self.0.take(source, now).then_some(Paid::Budget),
        }
    }

    /// Gives a miner back what it paid for a hash that was not computed.
    pub(crate) fn refund(&self, earned: &mut Earned) {
        earned.0 = earned.0.saturating_add(1).min(EARNED_MAX);
    }

    /// Rewards a miner for a hash that was worth it.
    pub(crate) fn reward(&self, earned: &mut Earned, source: Source) {
        earned.0 = earned.0.saturating_add(EARNED).min(EARNED_MAX);
        self.0.put_back(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn source() -> Source {
        Source::of([192, 0, 2, 1].into())
    }

    #[test]
    fn garbage_is_hashed_up_to_a_bound_however_many_miners_a_source_pretends_to_have() {
        let (budget, now) = (PowBudget::new(true), Instant::now());
        let hashed = (0..10_000).filter(|_| budget.pay(&mut Earned::default(), source(), now).is_some()).count();
        assert_eq!(hashed, 4096);
        let in_a_second = now + Duration::from_secs(1);
        let hashed =
            (0..10_000).filter(|_| budget.pay(&mut Earned::default(), source(), in_a_second).is_some()).count();
        assert_eq!(hashed, 100);
    }

    #[test]
    fn a_miner_whose_work_counts_is_hashed_although_its_neighbours_have_spent_the_budget() {
        let (budget, now) = (PowBudget::new(true), Instant::now());
        let mut good = Earned::default();
        assert_eq!(budget.pay(&mut good, source(), now), Some(Paid::Budget));
        budget.reward(&mut good, source());
        while budget.pay(&mut Earned::default(), source(), now).is_some() {}
        for _ in 0..100 {
            assert_eq!(budget.pay(&mut good, source(), now), Some(Paid::Earned));
            budget.reward(&mut good, source());
            // What it gives back is spent by the others at once.
            while budget.pay(&mut Earned::default(), source(), now).is_some() {}
        }
        let useless = (0..1000).filter(|_| budget.pay(&mut good, source(), now).is_some()).count();
        assert_eq!(useless, usize::from(EARNED_MAX), "what was earned is bounded");
    }

    #[test]
    fn a_source_all_of_whose_submissions_are_good_is_never_refused_however_many_are_in_flight() {
        let (budget, now) = (PowBudget::new(true), Instant::now());
        let mut miners: Vec<Earned> = (0..100).map(|_| Earned::default()).collect();
        for round in 0..200 {
            for earned in &mut miners {
                let paid = (0..32).filter(|_| budget.pay(earned, source(), now).is_some()).count();
                assert_eq!(paid, 32, "in round {round}, all at the same time");
            }
            for earned in &mut miners {
                (0..32).for_each(|_| budget.reward(earned, source()));
            }
        }
    }
}
