//! `Bucket`: a rate limit; `TokenBuckets`: one for each source, in a table of limited size.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::mining::source::Source;

/// Maximum number of sources tracked. Beyond, those that used least of their allowance are forgotten.
pub const SOURCES_MAX: usize = 16 * 1024;

/// Number of tokens that a bucket holds, and the rate at which it is filled again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// Number that may come at once.
    pub burst: f64,
    /// Number per second that may go on for ever.
    pub per_second: f64,
}

/// Tokens of one holder; full by default. Every call has to give the same allowance.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    /// Number that was missing at `since`.
    missing: f64,
    /// Time of that count; `None` for a bucket that was never used.
    since: Option<Instant>,
}

impl Bucket {
    /// Number of tokens left; below zero if more was spent than there was.
    pub fn left(&self, allowance: Allowance, now: Instant) -> f64 {
        allowance.burst - self.missing(allowance, now)
    }

    /// True if nothing is missing.
    pub fn is_full(&self, allowance: Allowance, now: Instant) -> bool {
        self.missing(allowance, now) <= 0.0
    }

    /// Time until there will be `tokens`; zero if there are as many now.
    pub fn wait(&self, tokens: f64, allowance: Allowance, now: Instant) -> Duration {
        let lacking = tokens - self.left(allowance, now);
        if lacking <= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(lacking / allowance.per_second).unwrap_or(Duration::MAX)
    }

    /// Takes one token; returns false if there is no whole one.
    pub fn take(&mut self, allowance: Allowance, now: Instant) -> bool {
        let has = self.left(allowance, now) >= 1.0;
        if has {
            self.spend(1.0, allowance, now);
        }
        has
    }

    /// Takes `tokens`, whether there are as many or not.
    pub fn spend(&mut self, tokens: f64, allowance: Allowance, now: Instant) {
        self.missing = self.missing(allowance, now) + tokens;
        // A clock that goes back must not fill it twice.
        self.since = self.since.max(Some(now));
    }

    /// Gives a token back.
    pub fn put_back(&mut self) {
        self.missing = (self.missing - 1.0).max(0.0);
    }

    fn missing(&self, allowance: Allowance, now: Instant) -> f64 {
        let since = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        (self.missing - since.as_secs_f64() * allowance.per_second).max(0.0)
    }
}

/// One bucket for each source.
#[derive(Debug)]
pub struct TokenBuckets {
    allowance: Allowance,
    /// Set to limit nothing that comes from this machine.
    exempts_loopback: bool,
    buckets: Mutex<HashMap<Source, Bucket>>,
}

impl TokenBuckets {
    /// Creates full buckets. With `exempts_loopback` this machine has no limit: proxies connect from there.
    pub fn new(allowance: Allowance, exempts_loopback: bool) -> Self {
        Self { allowance, exempts_loopback, buckets: Mutex::default() }
    }

    /// Takes a token of `source`; returns false if there is none left.
    pub fn take(&self, source: Source, now: Instant) -> bool {
        self.is_exempt(source) || self.with(source, now, |bucket| bucket.take(self.allowance, now))
    }

    /// Takes `tokens` of `source`, whether there are as many or not.
    pub fn spend(&self, source: Source, tokens: f64, now: Instant) {
        if !self.is_exempt(source) {
            self.with(source, now, |bucket| bucket.spend(tokens, self.allowance, now));
        }
    }

    /// Gives a token of `source` back.
    pub fn put_back(&self, source: Source) {
        // A source that is not tracked has its whole allowance.
        if let Some(bucket) = self.buckets.lock().get_mut(&source) {
            bucket.put_back();
        }
    }

    /// Returns a copy of the bucket of `source`.
    pub fn bucket(&self, source: Source) -> Bucket {
        self.buckets.lock().get(&source).copied().unwrap_or_default()
    }

    fn is_exempt(&self, source: Source) -> bool {
        self.exempts_loopback && source.is_loopback()
    }

    fn with<T>(&self, source: Source, now: Instant, change: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= SOURCES_MAX && !buckets.contains_key(&source) {
            self.make_room(&mut buckets, now);
        }
        change(buckets.entry(source).or_default())
    }

    /// Forgets sources whose bucket is full, and more with the fullest buckets until half of the table is free: those
    /// that are limited stay, and not every new source costs a look at all others.
    fn make_room(&self, buckets: &mut HashMap<Source, Bucket>, now: Instant) {
        buckets.retain(|_, bucket| !bucket.is_full(self.allowance, now));
        if buckets.len() <= SOURCES_MAX / 2 {
            return;
        }
        let left = |(source, bucket): (&Source, &Bucket)| (bucket.left(self.allowance, now), *source);
        let mut levels: Vec<(f64, Source)> = buckets.iter().map(left).collect();
        let (_, _, fullest) = levels.select_nth_unstable_by(SOURCES_MAX / 2, |one, other| one.0.total_cmp(&other.0));
        for (_, source) in fullest {
            buckets.remove(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance = Allowance { burst: 3.0, per_second: 2.0 };

    fn source(number: usize) -> Source {
        let [.., a, b, c] = number.to_be_bytes();
        Source::of([a + 1, b, c, 1].into())
    }

    #[test]
    fn a_bucket_that_is_empty_says_when_it_has_tokens_again_and_holds_no_more_than_its_burst() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        assert!(bucket.is_full(ALLOWANCE, start) && bucket.wait(3.0, ALLOWANCE, start).is_zero());
        (0..3).for_each(|_| assert!(bucket.take(ALLOWANCE, start)));
        assert_eq!(bucket.wait(1.0, ALLOWANCE, start), Duration::from_millis(500));
        assert!(!bucket.take(ALLOWANCE, start + Duration::from_millis(499)));
        assert!(bucket.take(ALLOWANCE, start + Duration::from_millis(500)));
        bucket.spend(9.0, ALLOWANCE, start + Duration::from_millis(500));
        assert_eq!(bucket.wait(1.0, ALLOWANCE, start + Duration::from_millis(500)), Duration::from_secs(5));
        let later = start + Duration::from_secs(60);
        assert!(bucket.is_full(ALLOWANCE, later));
        assert_eq!((bucket.left(ALLOWANCE, later), bucket.wait(4.0, ALLOWANCE, later).as_millis()), (3.0, 500));
        let never = Allowance { burst: 1.0, per_second: 0.0 };
        assert_eq!(bucket.wait(2.0, never, later), Duration::MAX);
    }

    #[test]
    fn a_clock_that_goes_back_fills_no_bucket() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let later = start + Duration::from_secs(10);
        (0..3).for_each(|_| assert!(bucket.take(ALLOWANCE, later)));
        assert!(!bucket.take(ALLOWANCE, start));
        bucket.spend(1.0, ALLOWANCE, start);
        assert!(!bucket.take(ALLOWANCE, later));
    }

    #[test]
    fn one_source_spends_its_own_allowance_only_and_gets_it_back_in_time() {
        let (buckets, now) = (TokenBuckets::new(ALLOWANCE, true), Instant::now());
        let taken = |source, now| (0..10).take_while(|_| buckets.take(source, now)).count();
        assert_eq!(taken(source(1), now), 3);
        assert_eq!(taken(source(2), now), 3);
        assert_eq!(taken(source(1), now + Duration::from_secs(1)), 2);
        buckets.put_back(source(1));
        assert_eq!(taken(source(1), now + Duration::from_secs(1)), 1);
        assert_eq!(taken(source(1), now + Duration::from_secs(60)), 3);
    }

    #[test]
    fn this_machine_is_exempt_only_if_wanted() {
        let (local, now) = (Source::of([127, 0, 0, 1].into()), Instant::now());
        let taken = |exempts| {
            let buckets = TokenBuckets::new(ALLOWANCE, exempts);
            (0..10).filter(|_| buckets.take(local, now)).count()
        };
        assert_eq!((taken(true), taken(false)), (10, 3));
    }

    #[test]
    fn any_number_of_sources_takes_a_bounded_table_and_frees_none_that_is_limited() {
        let (buckets, now) = (TokenBuckets::new(ALLOWANCE, true), Instant::now());
        while buckets.take(source(0), now) {}
        for number in 1..4 * SOURCES_MAX {
            assert!(buckets.take(source(number), now));
            assert!(buckets.buckets.lock().len() <= SOURCES_MAX);
        }
        assert!(!buckets.take(source(0), now));
        assert!(buckets.buckets.lock().len() > SOURCES_MAX / 2, "no more is forgotten than needed");
        let later = now + Duration::from_secs(60);
        for number in 0..SOURCES_MAX {
            assert!(buckets.take(source(4 * SOURCES_MAX + number), later), "full buckets make room");
        }
    }
}
