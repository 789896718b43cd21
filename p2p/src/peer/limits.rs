//! Rate limits of a peer: token buckets.

use std::time::Instant;

use super::Offence;

/// Rate limit for one kind of data.
#[derive(Debug, Clone, Copy)]
struct Rate {
    what: &'static str,
    /// Sustained rate.
    per_second: u32,
    /// Burst after a pause.
    burst: u32,
}

/// All messages. A busy reference node sent up to 40 in one second with a share every half second; five minutes of that
/// may have queued up behind a suspended machine.
const MESSAGES: Rate = Rate { what: "messages", per_second: 200, burst: 10_000 };

/// Bytes, except answers to our requests. A node that forwards transactions sends up to 4 MB with a new template, every
/// few seconds at worst.
const BYTES: Rate = Rate { what: "bytes", per_second: 2_000_000, burst: 80_000_000 };

/// Unsolicited shares: at most five for each new best share. Each costs a proof-of-work hash, which takes a third of a
/// millisecond on Litecoin.
const SHARES: Rate = Rate { what: "shares", per_second: 100, burst: 3_000 };

/// Shares requested by the peer. A new node requests two chain lengths, 17,280, as fast as we answer.
const SERVED: Rate = Rate { what: "requested shares", per_second: 500, burst: 60_000 };

/// Address records received and requested. Received ones are relayed four times on average, so few peers can make many.
const ADDRESSES: Rate = Rate { what: "addresses", per_second: 50, burst: 5_000 };

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    left: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Bucket {
        Bucket { rate, left: f64::from(rate.burst), at: now }
    }

    /// Takes `amount` out, below zero if necessary.
    fn pour(&mut self, amount: f64, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(self.rate.per_second);
        self.at = self.at.max(now);
        self.left = (self.left + gained).min(f64::from(self.rate.burst)) - amount;
    }

    fn take(&mut self, amount: usize, now: Instant) -> Result<(), Offence> {
        // Amounts are lengths in memory, far below 2^53.
        self.pour(amount as f64, now);
        if self.left < 0.0 {
            return Err(Offence::TooFast { what: self.rate.what, per_second: self.rate.per_second });
        }
        Ok(())
    }
}

/// Rate limits of one peer.
#[derive(Debug)]
pub(super) struct Limits {
    messages: Bucket,
    bytes: Bucket,
    shares: Bucket,
    served: Bucket,
    addresses: Bucket,
}

impl Limits {
    pub(super) fn new(now: Instant) -> Limits {
        let bucket = |rate| Bucket::new(rate, now);
        Limits {
            messages: bucket(MESSAGES),
            bytes: bucket(BYTES),
            shares: bucket(SHARES),
            served: bucket(SERVED),
            addresses: bucket(ADDRESSES),
        }
    }

    pub(super) fn message(&mut self, now: Instant) -> Result<(), Offence> {
        self.messages.take(1, now)
    }

    pub(super) fn bytes(&mut self, count: usize, now: Instant) -> Result<(), Offence> {
        self.bytes.take(count, now)
    }

    /// Refunds bytes that turned out to be wanted.
    pub(super) fn bytes_wanted(&mut self, count: usize, now: Instant) {
        self.bytes.pour(-(count as f64), now);
    }

    pub(super) fn shares(&mut self, count: usize, now: Instant) -> Result<(), Offence> {
        self.shares.take(count, now)
    }

    /// Counts a request for this number of hashes. The answer's shares are counted when it is sent.
    pub(super) fn asked(&mut self, hashes: usize, now: Instant) -> Result<(), Offence> {
        self.served.take(hashes, now)
    }

    pub(super) fn served(&mut self, shares: usize, now: Instant) {
        self.served.pour(shares as f64, now);
    }

    pub(super) fn addresses(&mut self, count: usize, now: Instant) -> Result<(), Offence> {
        self.addresses.take(count, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_is_taken_and_then_only_the_rate() {
        let start = Instant::now();
        let mut limits = Limits::new(start);
        assert_eq!(limits.shares(3_000, start), Ok(()));
        assert_eq!(limits.shares(1, start), Err(Offence::TooFast { what: "shares", per_second: 100 }));
        let mut limits = Limits::new(start);
        assert_eq!(limits.shares(3_000, start), Ok(()));
        for second in 1..1_000 {
            assert_eq!(limits.shares(100, start + Duration::from_secs(second)), Ok(()));
        }
        assert!(limits.shares(101, start + Duration::from_secs(1_000)).is_err());
    }

    #[test]
    fn a_request_is_counted_by_what_was_answered_to_the_last() {
        let start = Instant::now();
        let mut limits = Limits::new(start);
        assert_eq!(limits.asked(1, start), Ok(()));
        limits.served(60_000, start);
        assert!(limits.asked(1, start).is_err());
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let start = Instant::now();
        let mut limits = Limits::new(start + Duration::from_secs(10));
        assert_eq!(limits.shares(3_000, start), Ok(()));
        assert!(limits.shares(1, start + Duration::from_secs(10)).is_err());
    }
}
