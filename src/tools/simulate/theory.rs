//! Theoretical expectations, to compare measurements with.

use std::ops::RangeInclusive;

/// Probability that a share is lost if all other hash rate receives it `delay` later: another was found meanwhile.
/// `delay` and `period` (between shares) are in seconds.
pub fn fork_rate(delay: f64, period: f64) -> f64 {
    1.0 - (-delay / period).exp()
}

/// Part of shares that do not enter the chain. `delays` are the seconds after which hash rate received shares that did:
/// equally weighted samples in any order, including the finder's own zeros.
///
/// The chain grows by one share in the time from a share to the first that builds on it. Only hash rate that has
/// received a share can build on it, so the probability that none was found after `s` seconds is `exp(-∫H/T)` up to
/// `s`, `H` being the part that has received it. The mean of that time is the integral of this; all shares beyond one
/// in that time are lost. If all receive it after exactly `d`, this gives `d / (T + d)`.
pub fn orphan_rate(delays: &mut [f64], period: f64) -> f64 {
    if delays.is_empty() {
        return 0.0;
    }
    delays.sort_by(f64::total_cmp);
    let count = whole(delays.len());
    // Between two samples H is constant, so both integrals have a closed form.
    let (mut mean, mut before, mut hazard) = (0.0, 0.0, 0.0_f64);
    for (heard, delay) in delays.iter().enumerate() {
        let rate = whole(heard) / count / period;
        let step = delay - before;
        let next = hazard + rate * step;
        mean += if rate > 0.0 { ((-hazard).exp() - (-next).exp()) / rate } else { step };
        (before, hazard) = (*delay, next);
    }
    mean += (-hazard).exp() * period;
    1.0 - period / mean
}

/// Part of the chain's shares that a miner with the part `alpha` of the hash rate gets by withholding, if the part
/// `gamma` of the others builds on its share when two are equally long (Eyal and Sirer 2014, equation 8).
pub fn withholding_revenue(alpha: f64, gamma: f64) -> f64 {
    let gain = alpha * (1.0 - alpha).powi(2) * (4.0 * alpha + gamma * (1.0 - 2.0 * alpha)) - alpha.powi(3);
    gain / (1.0 - alpha * (1.0 + (2.0 - alpha) * alpha))
}

/// Confidence interval (95 %) of a probability of which `hits` in `trials` were counted (Wilson 1927).
pub fn interval(hits: usize, trials: usize) -> RangeInclusive<f64> {
    const Z: f64 = 1.96;
    if trials == 0 {
        return 0.0..=1.0;
    }
    let (trials, rate) = (whole(trials), whole(hits) / whole(trials));
    let middle = rate + Z * Z / (2.0 * trials);
    let half = Z * (rate * (1.0 - rate) / trials + Z * Z / (4.0 * trials * trials)).sqrt();
    let scale = 1.0 + Z * Z / trials;
    ((middle - half) / scale).max(0.0)..=((middle + half) / scale).min(1.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a simulation are far below 2^53")]
pub(super) fn whole(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_delays_lose_a_delay_of_each_period_and_delay() {
        for delay in [0.0, 1.0, 10.0, 60.0] {
            let expected = delay / (30.0 + delay);
            assert!((orphan_rate(&mut [delay; 50], 30.0) - expected).abs() < 1e-9);
        }
        // Short delays: both formulas approach delay divided by period.
        assert!((fork_rate(0.3, 30.0) - 0.01).abs() < 1e-4 && (orphan_rate(&mut [0.3], 30.0) - 0.01).abs() < 1e-3);
    }

    #[test]
    fn whoever_has_all_hash_rate_loses_nothing() {
        assert_eq!(orphan_rate(&mut [0.0; 10], 30.0), 0.0);
        // Half at once, half after an hour: shares are lost while the halves are apart.
        let rate = orphan_rate(&mut [0.0, 3600.0], 30.0);
        assert!((rate - 0.5).abs() < 1e-3, "{rate}");
    }

    #[test]
    fn withholding_pays_from_a_third_on_and_earlier_if_others_build_on_it() {
        assert!(withholding_revenue(0.30, 0.0) < 0.30);
        assert!((withholding_revenue(1.0 / 3.0, 0.0) - 1.0 / 3.0).abs() < 1e-9);
        assert!((withholding_revenue(0.25, 0.5) - 0.25).abs() < 1e-9);
        assert!(withholding_revenue(0.10, 1.0) > 0.10);
    }

    #[test]
    fn an_interval_holds_what_was_counted_and_narrows_with_trials() {
        let (few, many) = (interval(3, 10), interval(300, 1000));
        assert!(few.contains(&0.3) && many.contains(&0.3));
        assert!(many.end() - many.start() < (few.end() - few.start()) / 5.0);
        assert_eq!(*interval(0, 10).start(), 0.0);
    }
}
