//! Compares our clock with the daemon's, which is in each template: one sample proves little, a minute of them does.

use std::time::{Duration, Instant};

/// Maximum difference of the clocks, in seconds.
pub const CLOCK_OFF_MAX: f64 = 60.0;
/// Minimum duration and number of samples of a difference before it counts.
const SEEN_MIN: Duration = Duration::from_secs(25);
const SAMPLES_MIN: u32 = 3;

/// Times of a template, in seconds since 1970: request and receipt by our clock, creation by the daemon's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) asked: f64,
    pub(super) came: f64,
    pub(super) daemon: u32,
}

impl Sample {
    /// Seconds by which our clock is ahead: the minimum, given the time of the answer and the daemon's whole seconds.
    fn ahead(self) -> f64 {
        let (least, most) = (self.asked - f64::from(self.daemon) - 1.0, self.came - f64::from(self.daemon));
        0.0_f64.clamp(least.min(most), most.max(least))
    }
}

/// Evaluates the samples of one connection.
#[derive(Debug, Default)]
pub(super) struct ClockCheck {
    /// Start of the current difference, number of samples since, and true if our clock is the one ahead.
    off: Option<(Instant, u32, bool)>,
}

impl ClockCheck {
    /// Adds a sample received at `now`; returns the seconds by which our clock is ahead, and true if it is off: by more
    /// than [`CLOCK_OFF_MAX`], to the same side, for long enough.
    pub(super) fn note(&mut self, sample: Sample, now: Instant) -> (f64, bool) {
        let ahead = sample.ahead();
        if ahead.abs() <= CLOCK_OFF_MAX {
            self.off = None;
            return (ahead, false);
        }
        let is_ahead = ahead > 0.0;
        let (since, samples) = match self.off {
            Some((since, samples, side)) if side == is_ahead => (since, samples.saturating_add(1)),
            _ => (now, 1),
        };
        self.off = Some((since, samples, is_ahead));
        (ahead, samples >= SAMPLES_MIN && now.saturating_duration_since(since) >= SEEN_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAEMON: u32 = 1_700_000_000;

    fn sample(ahead: f64, took: f64) -> Sample {
        let asked = f64::from(DAEMON) + ahead;
        Sample { asked, came: asked + took, daemon: DAEMON }
    }

    #[test]
    fn a_slow_answer_proves_no_difference() {
        assert_eq!(sample(0.5, 0.1).ahead(), 0.0);
        assert_eq!(sample(-90.0, 100.0).ahead(), 0.0, "our clock showed the same while the answer was made");
        assert_eq!(sample(90.0, 100.0).ahead(), 89.0);
        assert_eq!(sample(-90.0, 10.0).ahead(), -80.0);
    }

    #[test]
    fn only_a_difference_that_lasts_counts_and_one_good_answer_ends_it() {
        let start = Instant::now();
        let mut check = ClockCheck::default();
        let mut is_off =
            |ahead: f64, seconds: u64| check.note(sample(ahead, 0.1), start + Duration::from_secs(seconds)).1;
        assert!([(700.0, 0), (700.0, 1), (700.0, 2), (700.0, 24)].iter().all(|&(ahead, at)| !is_off(ahead, at)));
        assert!(is_off(700.0, 25) && is_off(62.0, 40));
        assert!(!is_off(60.0, 55), "that is near enough");
        assert!(!is_off(700.0, 70) && !is_off(700.0, 100), "seen twice");
        assert!(is_off(700.0, 101));
        assert!(!is_off(-700.0, 102) && !is_off(-700.0, 103) && is_off(-700.0, 130), "the other side starts over");
    }
}
