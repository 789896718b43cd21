//! Chooses a session's difficulty so that a miner submits about once per interval.
//!
//! With `n` submissions a rate is known to one part in `√n`: so it moves at once when far out, and otherwise only when
//! a full window shows it to be off by more than a factor of two. It moves to a power of two, which is at most `√2` off,
//! so a steady miner stays where it is.

use std::time::{Duration, Instant};

use crate::difficulty::Difficulty;

/// Submissions after which a rate far too high is acted upon at once.
const RAMP_SUBMISSIONS: f64 = 8.0;

/// How many times too many submissions count as far too high.
const RAMP_RATIO: f64 = 4.0;

/// Most that one step may raise the difficulty by: eight lucky submissions must not lock a miner out.
const RAISE_MAX: f64 = 4096.0;

/// Submissions that make a full window: known to 18 %.
const WINDOW_SUBMISSIONS: f64 = 32.0;

/// Longest window, in intervals.
const WINDOW_INTERVALS: u32 = 40;

/// Intervals without a submission that mean the difficulty is far too high: chance has it once in 3,000 windows.
const SILENT_INTERVALS: u32 = 8;

/// So many more intervals for each submission that there was mean it still, and chance has it as rarely.
const SILENT_INTERVALS_EACH: f64 = 2.6;

/// How to choose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Wanted time between submissions.
    pub interval: Duration,
    /// Where a connection starts.
    pub start: Difficulty,
    /// Never easier than this.
    pub min: Difficulty,
    /// Never harder than this.
    pub max: Difficulty,
}

/// The difficulty of one session, and what it was judged by.
#[derive(Debug, Clone)]
pub struct Vardiff {
    config: Config,
    current: Difficulty,
    fixed: bool,
    /// Start of the window.
    since: Instant,
    /// Difficulty credited in the window.
    credited: f64,
    /// Silent periods in a row.
    silent: i32,
}

impl Vardiff {
    /// Starts at `config.start`.
    pub fn new(config: Config, now: Instant) -> Self {
        Self { config, current: config.start, fixed: false, since: now, credited: 0.0, silent: 0 }
    }

    /// The difficulty to hand out next.
    pub fn current(&self) -> Difficulty {
        self.current
    }

    /// Stays at `difficulty` from now on, because the miner asked for it.
    pub fn fix(&mut self, difficulty: Difficulty) {
        self.current = difficulty;
        self.fixed = true;
    }

    /// Counts an accepted submission of a job that required `difficulty`.
    pub fn record(&mut self, difficulty: Difficulty) {
        self.credited += difficulty.get();
        self.silent = 0;
    }

    /// When [`Self::retarget`] wants to be asked although nothing was submitted.
    pub fn deadline(&self) -> Option<Instant> {
        let intervals = self.too_few_after().min(f64::from(WINDOW_INTERVALS));
        (!self.fixed).then(|| self.since + self.config.interval.mul_f64(intervals))
    }

    /// Intervals after which the submissions of this window are far too few.
    fn too_few_after(&self) -> f64 {
        f64::from(SILENT_INTERVALS) + SILENT_INTERVALS_EACH * self.credited / self.current.get()
    }

    /// A new difficulty, if one is due. `ceiling` is the hardest that makes sense for the current job.
    pub fn retarget(&mut self, ceiling: Difficulty, now: Instant) -> Option<Difficulty> {
        if self.fixed {
            return None;
        }
        let intervals = now.saturating_duration_since(self.since).as_secs_f64() / self.config.interval.as_secs_f64();
        let submissions = self.credited / self.current.get();
        let far_too_fast = submissions >= RAMP_SUBMISSIONS && submissions > RAMP_RATIO * intervals;
        let far_too_slow = intervals >= self.too_few_after();
        let window_full = submissions >= WINDOW_SUBMISSIONS || intervals >= f64::from(WINDOW_INTERVALS);
        let factor = if far_too_fast {
            // The first submissions may come in a burst, all at one instant.
            (submissions / intervals.max(submissions / RAISE_MAX)).min(RAISE_MAX)
        } else if far_too_slow && submissions == 0.0 {
            // Each silent period in a row says that it is further out.
            self.silent = (self.silent + 1).min(4);
            f64::powi(16.0, -self.silent)
        } else if far_too_slow || window_full {
            submissions / intervals
        } else {
            return None;
        };
        self.since = now;
        self.credited = 0.0;
        if (0.5..=2.0).contains(&factor) {
            return None;
        }
        let wanted = Difficulty::new(self.current.get() * factor)?.to_power_of_two();
        let max = if self.config.max < ceiling { self.config.max } else { ceiling };
        let wanted = if wanted > max { max } else { wanted };
        let wanted = if wanted < self.config.min { self.config.min } else { wanted };
        if wanted == self.current {
            return None;
        }
        self.current = wanted;
        Some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difficulty(value: f64) -> Difficulty {
        Difficulty::new(value).unwrap()
    }

    fn config(start: f64) -> Config {
        Config {
            interval: Duration::from_secs(3),
            start: difficulty(start),
            min: difficulty(1e-6),
            max: difficulty(1e15),
        }
    }

    /// Runs a miner of `hash_rate` for `duration`, ticking every tenth of a second; returns the changes with their times.
    fn simulate(vardiff: &mut Vardiff, hash_rate: f64, duration: Duration, seed: u64) -> Vec<(Duration, f64)> {
        let mut random = fastrand::Rng::with_seed(seed);
        let start = vardiff.since;
        let mut changes = Vec::new();
        let mut at = Duration::ZERO;
        let mut next = exponential(&mut random, vardiff.current(), hash_rate);
        while at < duration {
            at += Duration::from_millis(100);
            while next <= at.as_secs_f64() {
                vardiff.record(vardiff.current());
                if let Some(changed) = vardiff.retarget(difficulty(1e15), start + at) {
                    changes.push((at, changed.get()));
                }
                next += exponential(&mut random, vardiff.current(), hash_rate);
            }
            if let Some(changed) = vardiff.retarget(difficulty(1e15), start + at) {
                changes.push((at, changed.get()));
                next = at.as_secs_f64() + exponential(&mut random, vardiff.current(), hash_rate);
            }
        }
        changes
    }

    fn exponential(random: &mut fastrand::Rng, difficulty: Difficulty, hash_rate: f64) -> f64 {
        -(1.0 - random.f64()).ln() * difficulty.average_hashes() / hash_rate
    }

    #[test]
    fn any_miner_is_near_its_difficulty_after_three_minutes() {
        let mut far = 0;
        for exponent in 6..16 {
            for seed in 0..50 {
                let hash_rate = f64::powi(10.0, exponent);
                let mut vardiff = Vardiff::new(config(1024.0), Instant::now());
                let changes = simulate(&mut vardiff, hash_rate, Duration::from_secs(180), seed);
                let wanted = Difficulty::from_average_hashes(hash_rate * 3.0).unwrap().get();
                let ratio = vardiff.current().get() / wanted;
                far += u32::from(!(0.4..=2.5).contains(&ratio));
                assert!(
                    (0.125..=8.0).contains(&ratio),
                    "{hash_rate} H/s, seed {seed}: {} is {ratio} times {wanted}: {changes:?}",
                    vardiff.current()
                );
            }
        }
        // Eight submissions, which end a ramp, are themselves off by a factor of two now and then.
        assert!(far <= 25, "{far} of 500 miners are off by more than a factor of 2.5");
    }

    #[test]
    fn a_steady_miner_at_the_right_difficulty_is_left_alone_for_an_hour() {
        let mut moves = 0;
        for seed in 0..20 {
            let mut vardiff = Vardiff::new(config(1024.0), Instant::now());
            let hash_rate = difficulty(1024.0).average_hashes() / 3.0;
            moves += simulate(&mut vardiff, hash_rate, Duration::from_secs(3600), seed).len();
        }
        assert!(moves <= 4, "{moves} moves in 20 hours");
    }

    #[test]
    fn a_fixed_difficulty_never_moves() {
        let mut vardiff = Vardiff::new(config(1024.0), Instant::now());
        vardiff.fix(difficulty(5.0));
        assert_eq!(simulate(&mut vardiff, 1e15, Duration::from_secs(60), 1), []);
        assert_eq!(vardiff.current(), difficulty(5.0));
        assert_eq!(vardiff.deadline(), None);
    }

    #[test]
    fn it_never_leaves_its_bounds() {
        let bounds = Config { min: difficulty(100.0), max: difficulty(3000.0), ..config(1024.0) };
        let mut low = Vardiff::new(bounds, Instant::now());
        simulate(&mut low, 1.0, Duration::from_secs(300), 1);
        assert_eq!(low.current(), difficulty(100.0));
        let mut high = Vardiff::new(bounds, Instant::now());
        simulate(&mut high, 1e15, Duration::from_secs(5), 1);
        assert_eq!(high.current(), difficulty(3000.0));
        let mut capped = Vardiff::new(bounds, high.since);
        for _ in 0..100 {
            capped.record(difficulty(1024.0));
        }
        assert_eq!(capped.retarget(difficulty(1500.0), capped.since), Some(difficulty(1500.0)));
    }
}
