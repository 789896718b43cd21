//! `TokenBuckets`: a rate limit for each source, in a table of limited size.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Instant;

use crate::mining::source::Source;

/// Maximum number of sources tracked. Beyond, those that used least of their allowance are forgotten.
pub const SOURCES_MAX: usize = 16 * 1024;

/// Allowance of every source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// Number that may come at once.
    pub burst: f64,
    /// Number per second that may go on for ever.
    pub per_second: f64,
}

/// One token bucket for each source.
#[derive(Debug)]
pub struct TokenBuckets {
    allowance: Allowance,
    /// Set to limit nothing that comes from this machine.
    exempts_loopback: bool,
    buckets: Mutex<HashMap<Source, Bucket>>,
}

/// Tokens left, and the time of that count.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    since: Instant,
}

impl TokenBuckets {
    /// Creates full buckets. With `exempts_loopback` this machine has no limit: proxies connect from there.
    pub fn new(allowance: Allowance, exempts_loopback: bool) -> Self {
        Self { allowance, exempts_loopback, buckets: Mutex::default() }
    }

    /// Takes a token of `source`; returns false if there is none left.
    pub fn take(&self, source: Source, now: Instant) -> bool {
        if self.is_exempt(source) {
            return true;
        }
        let mut buckets = self.buckets.lock();
        if buckets.len() >= SOURCES_MAX && !buckets.contains_key(&source) {
            self.make_room(&mut buckets, now);
        }
        let full = Bucket { left: self.allowance.burst, since: now };
        let bucket = buckets.entry(source).or_insert(full);
        *bucket = Bucket { left: self.left(bucket, now), since: now };
        let has = bucket.left >= 1.0;
        bucket.left -= f64::from(u8::from(has));
        has
    }

    /// Gives a token of `source` back.
    pub fn put_back(&self, source: Source) {
        // A source that is not tracked has its whole allowance.
        if let Some(bucket) = self.buckets.lock().get_mut(&source) {
            bucket.left = (bucket.left + 1.0).min(self.allowance.burst);
        }
    }

    fn is_exempt(&self, source: Source) -> bool {
        self.exempts_loopback && source.is_loopback()
    }

    fn left(&self, bucket: &Bucket, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(bucket.since).as_secs_f64();
        (bucket.left + seconds * self.allowance.per_second).min(self.allowance.burst)
    }

    /// Forgets sources whose bucket is full, or else the half with the fullest buckets: those that are limited stay.
    fn make_room(&self, buckets: &mut HashMap<Source, Bucket>, now: Instant) {
        buckets.retain(|_, bucket| self.left(bucket, now) < self.allowance.burst);
        if buckets.len() < SOURCES_MAX {
            return;
        }
        let mut levels: Vec<(f64, Source)> =
            buckets.iter().map(|(source, bucket)| (self.left(bucket, now), *source)).collect();
        let (_, _, fullest) = levels.select_nth_unstable_by(SOURCES_MAX / 2, |one, other| one.0.total_cmp(&other.0));
        for (_, source) in fullest {
            buckets.remove(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const ALLOWANCE: Allowance = Allowance { burst: 3.0, per_second: 2.0 };

    fn source(number: usize) -> Source {
        let [.., a, b, c] = number.to_be_bytes();
        Source::of([a + 1, b, c, 1].into())
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
        let later = now + Duration::from_secs(60);
        for number in 0..SOURCES_MAX {
            assert!(buckets.take(source(4 * SOURCES_MAX + number), later), "full buckets make room");
        }
    }
}
