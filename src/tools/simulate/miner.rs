//! Draws times and finders of shares: a Poisson process over all hash rate, as proof of work is one.

use std::time::Duration;

use fastrand::Rng;

/// Hash rate by node.
#[derive(Debug, Clone)]
pub(super) struct Miners {
    /// Cumulative hash rates up to and including each node.
    sums: Vec<f64>,
    /// Mean time between shares of the pool.
    period: Duration,
    rng: Rng,
}

impl Miners {
    /// Creates miners with hash rates `parts`, one per node, in any unit; `period` is their mean time between shares.
    pub(super) fn new(parts: &[f64], period: Duration, rng: Rng) -> Self {
        let mut miners = Self { sums: Vec::new(), period, rng };
        miners.share_out(parts);
        miners
    }

    /// Changes the hash rates to `parts`; the time between shares stays.
    pub(super) fn share_out(&mut self, parts: &[f64]) {
        let mut sum = 0.0;
        let sums = parts.iter().map(|part| {
            sum += part;
            sum
        });
        self.sums = sums.collect();
    }

    /// Draws the time until the next share, and the node that finds it.
    pub(super) fn next(&mut self) -> (Duration, usize) {
        let wait = self.period.mul_f64(-(1.0 - self.rng.f64()).ln());
        let at = self.rng.f64() * self.sums.last().copied().unwrap_or_default();
        let finder = self.sums.partition_point(|sum| *sum <= at).min(self.sums.len().saturating_sub(1));
        (wait, finder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_find_shares_by_their_part_and_the_pool_one_a_period() {
        let mut miners = Miners::new(&[1.0, 0.0, 3.0], Duration::from_secs(30), Rng::with_seed(3));
        let found: Vec<(Duration, usize)> = (0..4000).map(|_| miners.next()).collect();
        let mean = found.iter().map(|(wait, _)| wait.as_secs_f64()).sum::<f64>() / 4000.0;
        assert!((28.5..31.5).contains(&mean), "{mean}");
        let of = |node| found.iter().filter(|(_, finder)| *finder == node).count();
        assert!((900..1100).contains(&of(0)) && of(1) == 0, "{} {}", of(0), of(1));
    }
}
