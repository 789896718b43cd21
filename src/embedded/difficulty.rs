//! Difficulty of the next block: regtest's fixed target, or one that follows the hash rate block by block.
//!
//! The demo needs a block about every ten seconds from a laptop, even when a machine a million times as fast joins or
//! leaves. Bitcoin's rule (every 2016 blocks, by header times) is far too slow for that, so this chain *offers* bits
//! for each tip's child, based on its own clock, and accepts any bits that it offered.

use bitcoin::{CompactTarget, Target};
use std::collections::VecDeque;
use std::time::Duration;

/// Rule for the bits of blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Difficulty {
    /// Regtest's limit: every other hash solves a block.
    Regtest,
    /// Blocks `spacing` apart on average.
    Adaptive {
        /// Expected hash rate of all miners before the first block, in hashes per second.
        hash_rate: f64,
        /// Mean time between blocks.
        spacing: Duration,
    },
}

/// Regtest's easiest target: about two hashes a block.
pub(super) const LIMIT_BITS: u32 = 0x207f_ffff;
/// Bounds of the expected hashes per block: the limit's two, and a number that no demo reaches.
const HASHES_MIN: f64 = 2.0;
const HASHES_MAX: f64 = 1e48;
/// Blocks in the estimate: enough for a spread of a third, few enough to adapt within minutes.
const BLOCKS_REMEMBERED: usize = 8;
/// Weight of the configured hash rate before the first block, in blocks. It fades with each block.
const PRIOR_BLOCKS: f64 = 2.0;
/// Factor by which the first block is easier, so that a newcomer sees one within seconds.
const FIRST_BLOCK_EASIER: f64 = 4.0;
/// Maximum factor between estimates of two successive blocks, so that a lucky streak does not stall the chain.
const CHANGE_MAX: f64 = 4.0;
/// Spacings without a block before the offer is eased, which happen one time in seven; see [`easing`].
const EASE_AFTER_SPACINGS: u32 = 2;
/// Maximum number of easings, which reach any target: the sixth multiplies it by 2^63.
const EASINGS_MAX: u32 = 6;
/// Blocks within [`BURST_EXPOSURE`] that show that a big miner has joined, so that the past misleads: at a steady rate
/// as unlikely as two easings (one in six hundred).
const BURST_BLOCKS: usize = 4;
const BURST_EXPOSURE: f64 = 0.5;
/// Easing ends long waits early, and an estimate from few blocks is high on average: two errors that nearly cancel.
/// This is the rest, by the simulation below.
const EASING_CORRECTION: f64 = 1.03;

/// Factor of easing after `easings` waits of two spacings each: 2, 8, 128, 32 768, … Each further wait squares the
/// evidence that a big miner has left, so the steps grow: a millionfold loss costs 100 seconds, not 400.
fn easing(easings: u32) -> f64 {
    let doublings = (1_u64 << easings.min(EASINGS_MAX)) - 1;
    2_f64.powi(i32::try_from(doublings).expect("at most 63"))
}

/// Hash rate as estimated by the chain, and the resulting offers.
#[derive(Debug)]
pub(super) struct Pace {
    difficulty: Difficulty,
    /// For each recent block, the number of blocks expected of one hash per second: the integral over its time of
    /// seconds divided by the hashes then expected per block.
    exposures: VecDeque<f64>,
    /// Configured hash rate, in hashes per second.
    rate_expected: f64,
    /// Last estimate of the hash rate, in hashes per second.
    rate: f64,
    /// Remaining weight of the configured hash rate, in blocks; full before the first.
    prior: f64,
}

impl Pace {
    pub(super) fn new(difficulty: Difficulty) -> Self {
        let rate = match difficulty {
            Difficulty::Regtest => 1.0,
            Difficulty::Adaptive { hash_rate, .. } if hash_rate.is_finite() => hash_rate.clamp(1.0, HASHES_MAX),
            Difficulty::Adaptive { .. } => 1.0,
        };
        Self { difficulty, exposures: VecDeque::new(), rate_expected: rate, rate, prior: PRIOR_BLOCKS }
    }

    /// Bits to offer for the child of a tip that is `waited` old.
    pub(super) fn bits(&self, waited: Duration) -> CompactTarget {
        match self.difficulty {
            Difficulty::Regtest => CompactTarget::from_consensus(LIMIT_BITS),
            Difficulty::Adaptive { spacing, .. } => bits_of(self.hashes(spacing) / easing(easings(waited, spacing))),
        }
    }

    /// Time from the tip until the offer changes next, for a tip that is `waited` old.
    pub(super) fn next_easing(&self, waited: Duration) -> Option<Duration> {
        let Difficulty::Adaptive { spacing, .. } = self.difficulty else { return None };
        let past = easings(waited, spacing);
        (past < EASINGS_MAX).then(|| spacing * EASE_AFTER_SPACINGS * (past + 1))
    }

    /// Records that the tip got a child when it was `waited` old.
    pub(super) fn observe(&mut self, waited: Duration) {
        let Difficulty::Adaptive { spacing, .. } = self.difficulty else { return };
        let step = (spacing * EASE_AFTER_SPACINGS).as_secs_f64();
        let past = easings(waited, spacing);
        let hashes = self.hashes(spacing);
        let exposure_at = |easings, seconds: f64| seconds * easing(easings) / hashes.max(HASHES_MIN);
        let last = (waited.as_secs_f64() - step * f64::from(past)).max(0.0);
        let exposure = (0..past).map(|one| exposure_at(one, step)).sum::<f64>() + exposure_at(past, last);
        self.prior = (self.prior - PRIOR_BLOCKS / BLOCKS_REMEMBERED as f64).max(0.0);
        if past >= 2 {
            // At a steady rate one block in four hundred takes so long: the rate has changed, and the past misleads.
            self.prior = 0.0;
            self.exposures.clear();
            self.exposures.push_back(exposure);
            self.rate = (1.0 / exposure.max(f64::MIN_POSITIVE)).min(HASHES_MAX);
            return;
        }
        if self.exposures.len() == BLOCKS_REMEMBERED {
            self.exposures.pop_front();
        }
        self.exposures.push_back(exposure);
        let newest: f64 = self.exposures.iter().rev().take(BURST_BLOCKS).sum();
        if self.exposures.len() > BURST_BLOCKS && newest * self.rate < BURST_EXPOSURE {
            self.prior = 0.0;
            self.exposures.drain(..self.exposures.len() - BURST_BLOCKS);
        }
        // Gamma prior, Poisson arrivals: posterior mean (prior blocks + blocks) / (prior exposure + exposure).
        let blocks = self.exposures.len() as f64;
        let seen: f64 = self.exposures.iter().sum();
        let estimate = (self.prior + blocks) / (self.prior / self.rate_expected + seen).max(f64::MIN_POSITIVE);
        self.rate = estimate.clamp(self.rate / CHANGE_MAX, self.rate * CHANGE_MAX).min(HASHES_MAX);
    }

    /// Expected hashes per block, before easing.
    fn hashes(&self, spacing: Duration) -> f64 {
        let first = if self.prior < PRIOR_BLOCKS { EASING_CORRECTION } else { 1.0 / FIRST_BLOCK_EASIER };
        (self.rate * spacing.as_secs_f64() * first).clamp(HASHES_MIN, HASHES_MAX)
    }
}

fn easings(waited: Duration, spacing: Duration) -> u32 {
    let step = (spacing * EASE_AFTER_SPACINGS).as_nanos().max(1);
    u32::try_from(waited.as_nanos() / step).unwrap_or(u32::MAX).min(EASINGS_MAX)
}

/// Compact target that one hash in `hashes` meets.
fn bits_of(hashes: f64) -> CompactTarget {
    let difficulty = stratum::Difficulty::from_average_hashes(hashes.clamp(HASHES_MIN, HASHES_MAX));
    let target = difficulty.expect("a positive number of hashes").target();
    let limit = Target::from_compact(CompactTarget::from_consensus(LIMIT_BITS));
    Target::from_le_bytes(target.to_le_bytes()).min(limit).to_compact_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACING: Duration = Duration::from_secs(10);

    /// Expected number of hashes for a block with this target.
    fn hashes_of(bits: CompactTarget) -> f64 {
        let raw = bits.to_consensus();
        let exponent = i32::try_from(raw >> 24).expect("eight bits");
        let target = f64::from(raw & 0x007f_ffff) * 2_f64.powi(8 * (exponent - 3));
        if target > 0.0 { 2_f64.powi(256) / target } else { f64::INFINITY }
    }

    fn pace(hash_rate: f64) -> Pace {
        Pace::new(Difficulty::Adaptive { hash_rate, spacing: SPACING })
    }

    /// Lets a miner of `rate` hashes per second find the next block, in simulated time; returns the time taken, plus
    /// the 20 milliseconds that a real miner needs to learn of a new block.
    fn mine(pace: &mut Pace, rate: f64, random: &mut fastrand::Rng) -> Duration {
        let mut left = -(1.0 - random.f64()).ln();
        let mut waited = Duration::ZERO;
        loop {
            let per_second = rate / hashes_of(pace.bits(waited));
            let next = pace.next_easing(waited);
            let found = left / per_second;
            match next {
                Some(next) if (next - waited).as_secs_f64() < found => {
                    left -= (next - waited).as_secs_f64() * per_second;
                    waited = next;
                }
                _ => break waited += Duration::from_secs_f64(found.min(1e9)),
            }
        }
        waited += Duration::from_millis(20);
        pace.observe(waited);
        waited
    }

    #[test]
    fn bits_say_what_the_hash_rate_asks_for() {
        for hashes in [2.0, 3.0, 1000.0, 65536.0, 1.5e7, 4.3e9, 1e15, 7e21] {
            let back = hashes_of(bits_of(hashes));
            assert!((back / hashes - 1.0).abs() < 1e-4, "{hashes} became {back}");
        }
        assert_eq!(bits_of(0.1).to_consensus(), LIMIT_BITS);
        assert_eq!(bits_of(2.0).to_consensus(), LIMIT_BITS);
    }

    #[test]
    fn at_a_steady_rate_blocks_come_ten_seconds_apart() {
        for seed in 0..5 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut pace = pace(3e6);
            (0..20).for_each(|_| {
                mine(&mut pace, 3e6, &mut random);
            });
            let total: Duration = (0..2000).map(|_| mine(&mut pace, 3e6, &mut random)).sum();
            let mean = total.as_secs_f64() / 2000.0;
            assert!((9.0..11.0).contains(&mean), "seed {seed}: mean spacing {mean:.2} s");
        }
    }

    #[test]
    fn the_first_block_comes_within_seconds() {
        let total: f64 =
            (0..500).map(|seed| mine(&mut pace(3e6), 3e6, &mut fastrand::Rng::with_seed(seed)).as_secs_f64()).sum();
        assert!((2.0..3.0).contains(&(total / 500.0)), "mean {:.2} s", total / 500.0);
    }

    #[test]
    fn a_wrong_prior_is_put_right_within_minutes() {
        for factor in [1e-4, 0.01, 100.0, 1e6] {
            let mut random = fastrand::Rng::with_seed(7);
            let mut pace = pace(3e6 * factor);
            let settling: Duration = (0..30).map(|_| mine(&mut pace, 3e6, &mut random)).sum();
            assert!(settling < Duration::from_secs(700), "prior off by {factor}: 30 blocks took {settling:?}");
            let error = (pace.rate / 3e6).log2().abs();
            assert!(error < 2.5, "prior off by {factor}: rate {:.3e}", pace.rate);
        }
    }

    #[test]
    fn a_miner_a_million_times_as_big_may_come_and_leave() {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut pace = pace(3e6);
            (0..20).for_each(|_| {
                mine(&mut pace, 3e6, &mut random);
            });
            // After a few dozen blocks the flood ends, as its hash rate is known.
            (0..40).for_each(|_| {
                mine(&mut pace, 3e12, &mut random);
            });
            let settled: Duration = (0..20).map(|_| mine(&mut pace, 3e12, &mut random)).sum();
            assert!(settled > Duration::from_secs(60), "seed {seed}: 20 blocks in {settled:?}, still a flood");
            // It leaves: the next block comes within two minutes, and those after it at the old pace.
            let drought = mine(&mut pace, 3e6, &mut random);
            assert!(drought < Duration::from_secs(120), "seed {seed}: {drought:?} without a block");
            let after: Duration = (0..40).map(|_| mine(&mut pace, 3e6, &mut random)).sum();
            assert!(after < Duration::from_secs(900), "seed {seed}: 40 blocks took {after:?}");
        }
    }

    #[test]
    fn regtest_never_changes() {
        let mut pace = Pace::new(Difficulty::Regtest);
        pace.observe(Duration::from_millis(1));
        assert_eq!(pace.bits(Duration::from_secs(1000)).to_consensus(), LIMIT_BITS);
        assert_eq!(pace.next_easing(Duration::ZERO), None);
    }
}
