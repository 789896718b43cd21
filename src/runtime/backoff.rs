//! Back-off between tries: doubles from a first delay to a longest one, with jitter, so that a dead daemon is not
//! hammered and many nodes do not return to it in step.

use std::time::Duration;

/// Delays of one series of tries.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `first` and doubles up to `longest`.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// Returns the delay before the next try: its nominal length plus or minus up to a fifth.
    pub(crate) fn delay(&mut self) -> Duration {
        let nominal = self.next;
        self.next = nominal.saturating_mul(2).min(self.longest);
        nominal.mul_f64(0.8 + 0.4 * fastrand::f64())
    }

    /// Starts over, after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_begin_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
        for nominal in [1.0, 2.0, 4.0, 8.0, 8.0] {
            let delay = backoff.delay().as_secs_f64();
            assert!((nominal * 0.79..nominal * 1.21).contains(&delay), "{delay} for {nominal}");
        }
        backoff.reset();
        assert!(backoff.delay() < Duration::from_millis(1300));
    }
}
