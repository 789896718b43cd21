//! Chooses a session's difficulty so that a miner submits about once per interval.
//!
//! Submissions are a Poisson process, so all that is known of a hash rate are two numbers: how many submissions there
//! were, and how much *exposure*, the sum of time over difficulty. Their quotient is the most likely rate, whatever
//! difficulties there were in between, and with `n` submissions it is known to one part in `√n`.
//!
//! A new miner is *searched* for: the difficulty falls fast while it is silent, jumps when it floods, and is held where
//! it submits four times as often as wanted until two dozen submissions tell its rate. Then it is *settled*: moved only
//! when it is surely off by more than a factor of two, and to a power of two, which is at most `√2` off, so that a steady
//! miner stays where it is. A settled miner that falls silent is searched for again, with more patience.

use std::time::{Duration, Instant};

use crate::mining::difficulty::Difficulty;

/// In a search a miner is to submit so many times as often as wanted: it is over the sooner.
const SEARCH_SPEED: f64 = 4.0;

/// Submissions after which a search is over: they tell the rate to 20 %.
const SEARCH_SUBMISSIONS: f64 = 24.0;

/// Intervals after which a search is over, if there were submissions at all.
const SEARCH_INTERVALS: f64 = 10.0;

/// Submissions in which a flood shows.
const FLOOD_SUBMISSIONS: f64 = 8.0;

/// How many times too many submissions are a flood.
const FLOOD_RATIO: f64 = 8.0;

/// A settled miner that submits so often within [`BURST_WINDOW`] has become faster, if that is [`BURST_RATIO`] times too
/// many: chance has it once in years.
const BURST_SUBMISSIONS: f64 = 20.0;

/// How many times too many submissions are a burst.
const BURST_RATIO: f64 = 3.0;

/// How long a burst is looked for.
const BURST_WINDOW: Duration = Duration::from_secs(10);

/// How long a burst must be for the new rate to be read off it.
const BURST_KNOWN_S: f64 = 2.0;

/// Most that one step may raise the difficulty by: eight lucky submissions must not lock a miner out.
const RAISE_MAX: f64 = 4096.0;

/// Submissions that a settled miner's rate is known by, at most: to 9 %, and old ones are forgotten.
const MEMORY_SUBMISSIONS: f64 = 128.0;

/// How often a settled miner is off by more than a factor of two by mere chance must be once in days: so many standard
/// deviations.
const CERTAINTY: f64 = 3.0;

/// Submissions missed in a row by a miner that is settled; by chance once in 160,000 times.
const IDLE_SUBMISSIONS: f64 = 12.0;

/// What a remembered miner's rate counts for, in submissions.
const REMEMBERED_SUBMISSIONS: f64 = 16.0;

/// A wish for a harder difficulty than fits holds as long as the miner still submits once in so many intervals.
const WISH_INTERVALS: f64 = 20.0;

/// Longest that a miner can be waited for.
const LONGEST_S: f64 = 86_400.0;

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

/// What is done while a miner is silent.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Search {
    /// Intervals of silence before each step down.
    patience: f64,
    /// What each step divides by.
    step: f64,
    began: Instant,
}

/// The difficulty of one session, and what it was judged by.
#[derive(Debug, Clone)]
pub struct Vardiff {
    interval_s: f64,
    min: Difficulty,
    max: Difficulty,
    current: Difficulty,
    /// What `current` would be without bounds and wishes.
    aim: f64,
    fixed: bool,
    /// What the miner asked to be held at while it can.
    wish: Option<Difficulty>,
    /// A search does not go below this before there was a submission.
    slowest: f64,
    search: Option<Search>,
    /// Submissions at about the current difficulty.
    count: f64,
    /// Seconds over difficulty, summed.
    exposure: f64,
    /// Until when `exposure` is summed up.
    seen: Instant,
    /// Of the last submission, or of the last step while there is none.
    heard: Instant,
    /// Submissions since the start of the window in which bursts are looked for.
    burst: f64,
    burst_since: Instant,
}

impl Vardiff {
    /// Starts at `config.start`, and searches.
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

    /// The difficulty to hand out next.
    pub fn current(&self) -> Difficulty {
        self.current
    }

    /// What a later connection of the same miner should start at: `None` while that is not known.
    pub fn settled(&self) -> Option<Difficulty> {
        (self.search.is_none() && !self.fixed).then_some(self.current)
    }

    /// Starts over, since only now it is known what kind of device this is and from when it works: at `start`, and not
    /// below `slowest` while there was no submission.
    pub fn begin(&mut self, start: Difficulty, slowest: Difficulty, now: Instant) {
        if !self.fixed {
            self.slowest = slowest.get();
            self.aim = start.get();
            self.restart(Search { patience: 1.0, step: 16.0, began: now }, now);
            self.apply(None);
        }
    }

    /// Starts over at what an earlier connection of this miner had settled at.
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

    /// Stays at `difficulty` from now on, because the miner asked for it, as far as the bounds allow.
    pub fn fix(&mut self, difficulty: Difficulty) {
        self.fixed = true;
        self.current = clamp(difficulty, self.min, self.max);
    }

    /// Never easier than `min` from now on (BIP 310's `minimum-difficulty`), as far as the bounds allow.
    pub fn raise_min(&mut self, min: Difficulty) {
        self.min = clamp(min, self.min, self.max);
        self.current = clamp(self.current, self.min, self.max);
    }

    /// Goes to what the miner suggests, and stays there as long as it can: firmware suggests what it was told at the
    /// factory, so a miner that would hardly ever submit is not held to it.
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
        // What is still under way of easier jobs counts for less; what comes of a harder one is luck.
        let worth = (difficulty.get() / self.current.get()).min(1.0);
        self.count += worth;
        self.heard = now;
        if now.saturating_duration_since(self.burst_since) > BURST_WINDOW {
            self.burst = 0.0;
            self.burst_since = now;
        }
        self.burst += worth;
    }

    /// When [`Self::retarget`] wants to be asked although nothing was submitted.
    pub fn deadline(&self) -> Option<Instant> {
        if self.fixed {
            return None;
        }
        if self.count == 0.0 && self.aim <= self.bottom() {
            return None;
        }
        let (since, seconds) = match self.search {
            Some(search) if self.count == 0.0 => (self.heard, search.patience * self.interval_s),
            // Soon enough for what a search does now and then.
            Some(_) => (self.seen, self.interval_s),
            None => (self.heard, IDLE_SUBMISSIONS / self.rate_when_heard()),
        };
        // A little later than is computed, so that rounding does not make it too early.
        Some(since + Duration::from_secs_f64(seconds.clamp(0.0, LONGEST_S) + 0.001))
    }

    /// A new difficulty, if one is due. `ceiling` is the hardest that makes sense for the current job.
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

    /// Difficulty per second that the miner most likely does.
    fn rate(&self) -> f64 {
        self.count / self.exposure
    }

    /// Submissions a second at the current difficulty, by what was known when the last one came.
    fn rate_when_heard(&self) -> f64 {
        let silent_s = self.seen.saturating_duration_since(self.heard).as_secs_f64();
        let exposure_s = self.exposure * self.current.get() - silent_s;
        self.count / exposure_s.max(self.interval_s / FLOOD_SUBMISSIONS)
    }

    /// Easiest that a search may go to.
    fn bottom(&self) -> f64 {
        self.min.get().max(self.slowest)
    }

    fn continue_search(&mut self, search: Search, now: Instant) {
        let current = self.current.get();
        let seconds = now.saturating_duration_since(search.began).as_secs_f64();
        let wanted_s = self.interval_s / SEARCH_SPEED;
        // So many times what is wanted, were the rate what it seems.
        let excess = self.rate() * wanted_s / current;
        if self.count == 0.0 {
            let silent_s = now.saturating_duration_since(self.heard).as_secs_f64();
            if silent_s >= search.patience * self.interval_s && self.aim > self.bottom() {
                self.aim_at(self.aim / search.step);
                self.search = Some(Search { began: now, ..search });
                self.heard = now;
            }
        } else if self.count >= FLOOD_SUBMISSIONS && excess > FLOOD_RATIO {
            // The first submissions may come in a burst, all at one instant.
            self.aim_at(current * excess.min(RAISE_MAX));
            self.restart(Search { began: now, ..search }, now);
        } else if self.count >= SEARCH_SUBMISSIONS || seconds >= SEARCH_INTERVALS * self.interval_s {
            self.aim_at(self.rate() * self.interval_s);
            self.search = None;
        } else if seconds >= 2.0 * self.interval_s && excess < 0.5 && self.aim > self.bottom() {
            // So slow that it would take a minute to know the rate: what is known of it is kept.
            self.aim_at((self.rate() * wanted_s).max(current / search.step).max(self.bottom()));
        }
    }

    /// Looks after a settled miner.
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
            // It may be gone for good, or back soon as fast as ever.
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

    /// Aims at the power of two next to `difficulty`.
    fn aim_at(&mut self, difficulty: f64) {
        if difficulty <= self.bottom() {
            self.aim = self.bottom();
        } else if let Some(difficulty) = Difficulty::new(difficulty) {
            self.aim = difficulty.to_power_of_two().get();
        }
    }

    /// Keeps of what is known no more than `submissions` are worth.
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

    /// Moves to the aim, within all bounds.
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

    /// Submits `count` times, evenly over `duration`; says what became of the difficulty.
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
        // Twice as slow as wanted: it is let alone. A thousand times: it is not.
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
