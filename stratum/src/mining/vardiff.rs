//! Chooses a session's difficulty so that a miner submits about once per interval.
//!
//! Submissions are a Poisson process, so two numbers are sufficient to estimate a hash rate: the count of submissions,
//! and the *exposure*, the sum of time over difficulty. Their quotient is the most likely rate, whatever the
//! difficulties in between, with a relative error of `1/√n` after `n` submissions.
//!
//! A new miner is in *search*: the difficulty falls fast while it is silent, jumps when it floods, and is held at four
//! times the wanted rate of submissions until two dozen of them give its hash rate. Then it is *settled*: changed only
//! when certainly off by more than a factor of two, and to a power of two, at most `√2` off, so that a steady miner
//! keeps its difficulty. A settled miner that falls silent is searched for again, with more patience.

use std::time::{Duration, Instant};

use crate::mining::difficulty::Difficulty;

/// Rate of submissions during a search, relative to the wanted rate: shortens the search.
const SEARCH_SPEED: f64 = 4.0;

/// Submissions that end a search: they give the rate to 20 %.
const SEARCH_SUBMISSIONS: f64 = 24.0;

/// Intervals that end a search, if there was any submission.
const SEARCH_INTERVALS: f64 = 10.0;

/// Submissions after which a flood is detected.
const FLOOD_SUBMISSIONS: f64 = 8.0;

/// Excess over the wanted rate that is a flood.
const FLOOD_RATIO: f64 = 8.0;

/// Submissions of a settled miner within [`BURST_WINDOW`] that show it has become faster, if also [`BURST_RATIO`] times
/// the wanted rate: by chance once in years.
const BURST_SUBMISSIONS: f64 = 20.0;

/// Excess over the wanted rate that is a burst.
const BURST_RATIO: f64 = 3.0;

/// Window in which bursts are detected.
const BURST_WINDOW: Duration = Duration::from_secs(10);

/// Minimum duration of a burst for estimating the new rate from it, in seconds.
const BURST_KNOWN_S: f64 = 2.0;

/// Maximum factor of one raise: eight lucky submissions must not lock a miner out.
const RAISE_MAX: f64 = 4096.0;

/// Maximum number of submissions in the estimate of a settled miner, good for 9 %; older ones decay.
const MEMORY_SUBMISSIONS: f64 = 128.0;

/// Standard deviations by which a settled miner must be off by more than a factor of two; by mere chance once in days.
const CERTAINTY: f64 = 3.0;

/// Submissions missed in a row by a settled miner before it counts as idle; by chance once in 160,000 times.
const IDLE_SUBMISSIONS: f64 = 12.0;

/// Weight of a remembered miner's rate, in submissions.
const REMEMBERED_SUBMISSIONS: f64 = 16.0;

/// A suggested difficulty harder than suitable is kept while the miner still submits once in this many intervals.
const WISH_INTERVALS: f64 = 20.0;

/// Maximum deadline, in seconds.
const LONGEST_S: f64 = 86_400.0;

/// Settings of vardiff.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Wanted time between submissions.
    pub interval: Duration,
    /// Initial difficulty of a connection.
    pub start: Difficulty,
    /// Minimum difficulty.
    pub min: Difficulty,
    /// Maximum difficulty.
    pub max: Difficulty,
}

/// Steps that lower the difficulty of a silent miner.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Search {
    /// Intervals of silence before each step down.
    patience: f64,
    /// Divisor of each step.
    step: f64,
    began: Instant,
}

/// Difficulty of one session, and the estimate behind it.
#[derive(Debug, Clone)]
pub struct Vardiff {
    interval_s: f64,
    min: Difficulty,
    max: Difficulty,
    current: Difficulty,
    /// Value of `current` before bounds and suggestions apply.
    aim: f64,
    fixed: bool,
    /// Difficulty suggested by the miner, kept while it can meet it.
    wish: Option<Difficulty>,
    /// Lower bound of a search before the first submission.
    slowest: f64,
    search: Option<Search>,
    /// Submissions at about the current difficulty.
    count: f64,
    /// Sum of time over difficulty, in seconds.
    exposure: f64,
    /// Time up to which `exposure` is summed.
    seen: Instant,
    /// Time of the last submission, or of the last step before there is one.
    heard: Instant,
    /// Submissions since the start of the burst window.
    burst: f64,
    burst_since: Instant,
}

impl Vardiff {
    /// Starts a search at `config.start`.
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            interval_s: config.interval.as_secs_f64(),
            min: config.min,
            max: config.max,
            current: config.start,
            aim: config.start.get(),
            fixed: false,
            wish: None,
            slowest: 0.0,
            search: Some(Search { patience: 1.0, step: 16.0, began: now }),
            count: 0.0,
            exposure: 0.0,
            seen: now,
            heard: now,
            burst: 0.0,
            burst_since: now,
        }
    }

    /// Difficulty of the next job.
    pub fn current(&self) -> Difficulty {
        self.current
    }

    /// Difficulty at which a later connection of the same miner should start; `None` before it is settled.
    pub fn settled(&self) -> Option<Difficulty> {
        (self.search.is_none() && !self.fixed).then_some(self.current)
    }

    /// Restarts the search once the kind of device is known and it begins to work: at `start`, and not below `slowest`
    /// before the first submission.
    pub fn begin(&mut self, start: Difficulty, slowest: Difficulty, now: Instant) {
        if !self.fixed {
            self.slowest = slowest.get();
            self.aim = start.get();
            self.restart(Search { patience: 1.0, step: 16.0, began: now }, now);
            self.apply(None);
        }
    }

    /// Restarts at the difficulty that an earlier connection of this miner had settled at.
    pub fn remember(&mut self, settled: Difficulty, now: Instant) {
        if !self.fixed {
            self.aim = settled.get();
            self.apply(None);
            self.search = None;
            self.count = REMEMBERED_SUBMISSIONS;
            self.exposure = REMEMBERED_SUBMISSIONS * self.interval_s / self.current.get();
            (self.seen, self.heard) = (now, now);
        }
    }

    /// Fixes the difficulty at the miner's request, within the bounds.
    pub fn fix(&mut self, difficulty: Difficulty) {
        self.fixed = true;
        self.current = clamp(difficulty, self.min, self.max);
    }

    /// Brings `difficulty` within the bounds.
    pub fn bounded(&self, difficulty: Difficulty) -> Difficulty {
        clamp(difficulty, self.min, self.max)
    }

    /// Maximum difficulty.
    pub fn hardest(&self) -> Difficulty {
        self.max
    }

    /// The minimum.
    pub fn min(&self) -> Difficulty {
        self.min
    }

    /// Raises the minimum (BIP 310's `minimum-difficulty`), within the bounds.
    pub fn raise_min(&mut self, min: Difficulty) {
        self.min = clamp(min, self.min, self.max);
        self.current = clamp(self.current, self.min, self.max);
    }

    /// Applies the difficulty that the miner suggests and keeps it as long as it can meet it: firmware suggests a
    /// factory setting, so a miner that would hardly ever submit is not held to it.
    pub fn suggest(&mut self, wish: Difficulty, now: Instant) {
        if !self.fixed {
            self.wish = Some(wish);
            self.aim = self.aim.min(wish.get());
            self.slowest = 0.0;
            self.heard = now;
            self.current = clamp(wish, self.min, self.max);
        }
    }

    /// Counts an accepted submission of a job that required `difficulty`.
    pub fn record(&mut self, difficulty: Difficulty, now: Instant) {
        // Submissions for earlier, easier jobs count for less; a harder one counts as one.
        let worth = (difficulty.get() / self.current.get()).min(1.0);
        self.count += worth;
        self.heard = now;
        if now.saturating_duration_since(self.burst_since) > BURST_WINDOW {
            self.burst = 0.0;
            self.burst_since = now;
        }
        self.burst += worth;
    }

    /// Time by which [`Self::retarget`] must be called even without a submission.
    pub fn deadline(&self) -> Option<Instant> {
        if self.fixed {
            return None;
        }
        if self.count == 0.0 && self.aim <= self.bottom() {
            return None;
        }
        let (since, seconds) = match self.search {
            Some(search) if self.count == 0.0 => (self.heard, search.patience * self.interval_s),
            // Often enough for the steps of a search.
            Some(_) => (self.seen, self.interval_s),
            None => (self.heard, IDLE_SUBMISSIONS / self.rate_when_heard()),
        };
        // Slightly late, so that rounding does not make it too early.
        Some(since + Duration::from_secs_f64(seconds.clamp(0.0, LONGEST_S) + 0.001))
    }

    /// Returns a new difficulty if one is due. `ceiling` is the hardest that makes sense for the current job.
    pub fn retarget(&mut self, ceiling: Difficulty, now: Instant) -> Option<Difficulty> {
        if self.fixed {
            return None;
        }
        self.exposure += now.saturating_duration_since(self.seen).as_secs_f64() / self.current.get();
        self.seen = now;
        let before = self.current;
        match self.search {
            Some(search) => self.continue_search(search, now),
            None => self.watch(now),
        }
        self.apply(Some(ceiling));
        (self.current != before).then_some(self.current)
    }

    /// Most likely rate, in difficulty per second.
    fn rate(&self) -> f64 {
        self.count / self.exposure
    }

    /// Estimated submissions per second at the current difficulty, as of the last one.
    fn rate_when_heard(&self) -> f64 {
        let silent_s = self.seen.saturating_duration_since(self.heard).as_secs_f64();
        let exposure_s = self.exposure * self.current.get() - silent_s;
        self.count / exposure_s.max(self.interval_s / FLOOD_SUBMISSIONS)
    }

    /// Lower bound of a search.
    fn bottom(&self) -> f64 {
        self.min.get().max(self.slowest)
    }

    fn continue_search(&mut self, search: Search, now: Instant) {
        let current = self.current.get();
        let seconds = now.saturating_duration_since(search.began).as_secs_f64();
        let wanted_s = self.interval_s / SEARCH_SPEED;
        // Excess over the wanted rate, by the estimate.
        let excess = self.rate() * wanted_s / current;
        if self.count == 0.0 {
            let silent_s = now.saturating_duration_since(self.heard).as_secs_f64();
            if silent_s >= search.patience * self.interval_s && self.aim > self.bottom() {
                self.aim_at(self.aim / search.step);
                self.search = Some(Search { began: now, ..search });
                self.heard = now;
            }
        } else if self.count >= FLOOD_SUBMISSIONS && excess > FLOOD_RATIO {
            // The first submissions may come in a burst, all at the same instant.
            self.aim_at(current * excess.min(RAISE_MAX));
            self.restart(Search { began: now, ..search }, now);
        } else if self.count >= SEARCH_SUBMISSIONS || seconds >= SEARCH_INTERVALS * self.interval_s {
            self.aim_at(self.rate() * self.interval_s);
            self.search = None;
        } else if seconds >= 2.0 * self.interval_s && excess < 0.5 && self.aim > self.bottom() {
            // So slow that an estimate would take a minute: the exposure so far is kept.
            self.aim_at((self.rate() * wanted_s).max(current / search.step).max(self.bottom()));
        }
    }

    /// Checks on a settled miner.
    fn watch(&mut self, now: Instant) {
        let current = self.current.get();
        let expected = self.exposure * current / self.interval_s;
        let factor = self.count / expected;
        let silent_s = now.saturating_duration_since(self.heard).as_secs_f64();
        let burst_s = now.saturating_duration_since(self.burst_since).as_secs_f64();
        let burst_factor = self.burst * self.interval_s / burst_s;
        if self.burst >= BURST_SUBMISSIONS && burst_factor > BURST_RATIO * factor.max(1.0) {
            if burst_s < BURST_KNOWN_S {
                self.aim_at(current * (burst_factor / SEARCH_SPEED).min(RAISE_MAX));
                self.restart(Search { patience: 1.0, step: 16.0, began: now }, now);
            } else {
                self.aim_at(current * burst_factor);
                (self.count, self.exposure) = (self.burst, burst_s / current);
            }
        } else if silent_s >= LONGEST_S || silent_s * self.rate_when_heard() >= IDLE_SUBMISSIONS {
            // It may have left, or return at full speed.
            self.aim_at(current / 4.0);
            self.restart(Search { patience: 10.0, step: 4.0, began: now }, now);
        } else if factor > 2.0 && self.count.sqrt() * factor.ln() >= CERTAINTY
            || factor < 0.5 && expected.sqrt() * (1.0 - factor) >= CERTAINTY
        {
            self.aim_at(current * factor);
            self.forget(SEARCH_SUBMISSIONS);
        }
        if self.count.max(expected) > MEMORY_SUBMISSIONS {
            self.forget(MEMORY_SUBMISSIONS / 2.0);
        }
    }

    /// Sets the aim to the power of two nearest to `difficulty`.
    fn aim_at(&mut self, difficulty: f64) {
        if difficulty <= self.bottom() {
            self.aim = self.bottom();
        } else if let Some(difficulty) = Difficulty::new(difficulty) {
            self.aim = difficulty.to_power_of_two().get();
        }
    }

    /// Limits the weight of the estimate to `submissions`.
    fn forget(&mut self, submissions: f64) {
        let part = submissions / self.count.max(self.exposure * self.current.get() / self.interval_s);
        if part < 1.0 {
            self.count *= part;
            self.exposure *= part;
        }
    }

    fn restart(&mut self, search: Search, now: Instant) {
        self.search = Some(search);
        (self.count, self.exposure) = (0.0, 0.0);
        (self.seen, self.heard) = (now, now);
        self.burst = 0.0;
        self.burst_since = now;
    }

    /// Sets the current difficulty to the aim, within all bounds.
    fn apply(&mut self, ceiling: Option<Difficulty>) {
        let Some(aim) = Difficulty::new(self.aim) else { return };
        let max = ceiling.map_or(self.max, |ceiling| if ceiling < self.max { ceiling } else { self.max });
        let wanted = match self.wish {
            Some(wish) if aim < wish && aim.get() * WISH_INTERVALS >= wish.get() => wish,
            _ => aim,
        };
        let wanted = clamp(wanted, self.min, max);
        if wanted != self.current {
            self.current = wanted;
            (self.burst, self.burst_since) = (0.0, self.seen);
        }
    }
}

fn clamp(difficulty: Difficulty, min: Difficulty, max: Difficulty) -> Difficulty {
    let raised = if difficulty < min { min } else { difficulty };
    if raised > max { max } else { raised }
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

    fn no_ceiling() -> Difficulty {
        difficulty(1e15)
    }

    /// Submits `count` times, evenly over `duration`; returns the resulting difficulty.
    fn submit(vardiff: &mut Vardiff, from: Instant, duration: Duration, count: u32) -> f64 {
        for number in 1..=count {
            let now = from + duration * number / count;
            vardiff.record(vardiff.current(), now);
            vardiff.retarget(no_ceiling(), now);
        }
        vardiff.current().get()
    }

    #[test]
    fn a_fixed_difficulty_never_moves_and_obeys_the_bounds() {
        let start = Instant::now();
        let mut vardiff = Vardiff::new(config(1024.0), start);
        vardiff.fix(difficulty(5.0));
        assert_eq!(submit(&mut vardiff, start, Duration::from_secs(1), 1000), 5.0);
        assert_eq!(vardiff.deadline(), None);
        vardiff.fix(difficulty(1e-9));
        assert_eq!(vardiff.current(), difficulty(1e-6));
    }

    #[test]
    fn silence_lowers_a_new_miner_fast_and_a_settled_one_with_patience() {
        let start = Instant::now();
        let mut vardiff = Vardiff::new(config(1024.0), start);
        assert_eq!(vardiff.retarget(no_ceiling(), start + Duration::from_secs(2)), None);
        assert_eq!(vardiff.retarget(no_ceiling(), start + Duration::from_secs(3)), Some(difficulty(64.0)));
        vardiff.remember(difficulty(1024.0), start);
        assert_eq!(vardiff.settled(), Some(difficulty(1024.0)));
        assert_eq!(vardiff.retarget(no_ceiling(), start + Duration::from_secs(35)), None);
        let idle = vardiff.deadline().unwrap();
        assert_eq!(vardiff.retarget(no_ceiling(), idle), Some(difficulty(256.0)));
        assert_eq!(vardiff.retarget(no_ceiling(), idle + Duration::from_secs(29)), None);
        assert_eq!(vardiff.retarget(no_ceiling(), idle + Duration::from_secs(31)), Some(difficulty(64.0)));
    }

    #[test]
    fn it_never_leaves_its_bounds() {
        let bounds = Config { min: difficulty(100.0), max: difficulty(3000.0), ..config(1024.0) };
        let start = Instant::now();
        let mut low = Vardiff::new(bounds, start);
        let mut now = start;
        while let Some(deadline) = low.deadline() {
            assert!(deadline > now, "time goes on");
            now = deadline;
            low.retarget(no_ceiling(), now);
        }
        assert_eq!(low.current(), difficulty(100.0));
        let mut high = Vardiff::new(bounds, start);
        assert_eq!(submit(&mut high, start, Duration::from_millis(10), 8), 3000.0);
        let mut capped = Vardiff::new(bounds, start);
        (0..8).for_each(|_| capped.record(difficulty(1024.0), start));
        assert_eq!(capped.retarget(difficulty(1500.0), start), Some(difficulty(1500.0)));
    }

    #[test]
    fn a_wished_minimum_holds_and_a_suggestion_as_long_as_the_miner_can() {
        let start = Instant::now();
        let mut vardiff = Vardiff::new(config(16.0), start);
        vardiff.raise_min(difficulty(50.0));
        assert_eq!(vardiff.current(), difficulty(50.0));
        let mut vardiff = Vardiff::new(config(16.0), start);
        vardiff.suggest(difficulty(1000.0), start);
        assert_eq!(vardiff.current(), difficulty(1000.0));
        // Twice too slow: left alone. A thousand times: changed.
        let half = submit(&mut vardiff, start, Duration::from_secs(300), 50);
        assert_eq!(half, 1000.0);
        let mut slow = Vardiff::new(config(16.0), start);
        slow.suggest(difficulty(1000.0), start);
        let mut now = start;
        for _ in 0..4 {
            now += Duration::from_secs(4);
            slow.retarget(no_ceiling(), now);
        }
        assert!(slow.current().get() < 1.0, "{}", slow.current());
    }

    #[test]
    fn a_known_device_is_not_searched_for_below_what_it_can_be() {
        let start = Instant::now();
        let mut vardiff = Vardiff::new(config(16.0), start);
        vardiff.begin(difficulty(262_144.0), difficulty(64.0), start);
        while let Some(deadline) = vardiff.deadline() {
            vardiff.retarget(no_ceiling(), deadline);
        }
        assert_eq!(vardiff.current(), difficulty(64.0));
    }

    #[test]
    fn a_flood_is_stopped_at_once() {
        let start = Instant::now();
        let mut vardiff = Vardiff::new(config(1.0), start);
        vardiff.remember(difficulty(1.0), start);
        let after = submit(&mut vardiff, start, Duration::from_secs(3), 3000);
        assert!(after >= 256.0, "{after}");
    }
}
