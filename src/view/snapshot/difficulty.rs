//! Difficulties and hash counts as numbers for people.

use ruint::aliases::U320;
use sharechain::chain::ratio;
use sharechain::share::{Attempts, Target};

/// Bdiff of a target: its difficulty relative to Bitcoin's easiest, 0xffff·2^208, computed as in the reference.
pub fn bdiff(target: Target) -> f64 {
    let easiest = (U320::from(0xffff_0000_u64) << 192) + U320::from(1);
    ratio(easiest, target.0 + U320::from(1))
}

/// Converts a number of hashes to a double.
pub fn hashes(attempts: Attempts) -> f64 {
    ratio(attempts.0, U320::from(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sharechain::share::Bits;

    #[test]
    fn a_difficulty_is_the_one_that_the_reference_prints() {
        // A share of the recorded chain: its max_target, and what the node said at /difficulty.
        let target = "345014546545985216355729531756721856353823092097597548322249482304487424";
        let target = Target(target.parse().unwrap());
        assert_eq!(bdiff(target), 7.814028585434733e-05);
        assert_eq!(target.attempts().to_string(), "335615");
        let block = "23931797032512946448355080119003371062739634849393183336097152401145856";
        assert_eq!(bdiff(Target(block.parse().unwrap())), 0.001126515290698186);
        assert_eq!(bdiff(Bits(0x1d00_ffff).target()), 1.0);
    }
}
