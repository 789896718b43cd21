//! Rate limits of peers: token buckets, one set for each connection and one for each network that connections come from.
//! The latter outlive connections, so that a peer gains nothing by connecting again.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;

/// Kinds of limited data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Messages, except [`Kind::Gossip`].
    Messages,
    /// Messages that a peer passes on for others, or because of what others sent.
    Gossip,
    /// Bytes, except answers to our requests.
    Bytes,
    /// Unsolicited shares.
    Shares,
    /// Shares requested by the peer.
    Served,
    /// Proof-of-work hashes, of shares and of block headers.
    Work,
    /// Address records received; more are ignored.
    Addresses,
    /// Address records requested.
    Asked,
    /// Addresses that enter the book.
    Stored,
    /// Addresses that are relayed.
    Forwarded,
    /// Requests for addresses that are answered.
    Answered,
}

const KINDS: usize = Kind::Answered as usize + 1;

/// Rate limit for one kind of data.
#[derive(Debug, Clone, Copy)]
struct Rate {
    what: &'static str,
    /// Sustained rate.
    per_second: u32,
    /// Burst after a pause.
    burst: u32,
}

impl Kind {
    fn rate(self) -> Rate {
        let (what, per_second, burst) = match self {
            // A busy reference node sent up to 40 in one second with a share every half second; five minutes of that
            // may have queued up behind a suspended machine.
            Kind::Messages => ("messages", 200, 10_000),
            Kind::Gossip => ("messages passed on", 200, 10_000),
            // A node that forwards transactions sends up to 4 MB with a new template, every few seconds at worst.
            Kind::Bytes => ("bytes", 2_000_000, 80_000_000),
            // At most five for each new best share.
            Kind::Shares => ("shares", 100, 3_000),
            // A new node requests two chain lengths, 17,280, as fast as we answer.
            Kind::Served => ("requested shares", 500, 60_000),
            // A third of a millisecond each on Litecoin. We may request two chain lengths of one peer, and of the next
            // when that turns out to be worthless.
            Kind::Work => ("proofs of work", 100, 60_000),
            // Received ones are relayed four times on average, so few peers can make many.
            Kind::Addresses => ("addresses", 50, 5_000),
            Kind::Asked => ("requested addresses", 50, 5_000),
            // An honest peer sends one in ten seconds.
            Kind::Stored => ("addresses stored", 1, 1_000),
            Kind::Forwarded => ("addresses relayed", 1, 100),
            Kind::Answered => ("requests for addresses", 1, 10),
        };
        Rate { what, per_second, burst }
    }

    /// True if no honest peer exceeds the limit. Gossip grows with what others send, and proofs of work with what we
    /// request.
    fn is_offence(self) -> bool {
        !matches!(self, Kind::Gossip | Kind::Work)
    }

    const ALL: [Kind; KINDS] = [
        Kind::Messages,
        Kind::Gossip,
        Kind::Bytes,
        Kind::Shares,
        Kind::Served,
        Kind::Work,
        Kind::Addresses,
        Kind::Asked,
        Kind::Stored,
        Kind::Forwarded,
        Kind::Answered,
    ];
}

/// A limit that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Excess {
    /// Kind of data.
    pub(crate) what: &'static str,
    /// Sustained maximum.
    pub(crate) per_second: u32,
    pub(crate) cause: Cause,
}

/// Cause of an excess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The peer misbehaves.
    Misbehaviour,
    /// The peer, which may behave.
    Peer,
    /// All that connected from its network lately.
    Network,
}

/// One bucket for each kind. `stratum` has buckets of one kind, which this library may not import.
#[derive(Debug)]
struct Buckets {
    /// Amounts above what was refilled: 0 is a full bucket, the burst an empty one, and more an overdrawn one.
    spent: [f64; KINDS],
    at: Instant,
    /// Rates and bursts are multiplied by it.
    factor: f64,
}

impl Buckets {
    fn new(factor: f64, now: Instant) -> Buckets {
        Buckets { spent: [0.0; KINDS], at: now, factor }
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        for (spent, kind) in self.spent.iter_mut().zip(Kind::ALL) {
            *spent = (*spent - seconds * f64::from(kind.rate().per_second) * self.factor).max(0.0);
        }
    }

    /// Takes `amount` out if that is allowed; otherwise returns false. What is refused is not counted: a flood would
    /// lock the others of its network out for as long as it has tried.
    fn take(&mut self, kind: Kind, amount: f64, now: Instant) -> bool {
        self.refill(now);
        let spent = &mut self.spent[kind as usize];
        let is_allowed = *spent + amount <= f64::from(kind.rate().burst) * self.factor;
        if is_allowed {
            *spent += amount;
        }
        is_allowed
    }

    /// Takes `amount` out, below zero if necessary, or puts it back if it is negative.
    fn count(&mut self, kind: Kind, amount: f64, now: Instant) {
        self.refill(now);
        let spent = &mut self.spent[kind as usize];
        *spent = (*spent + amount).max(0.0);
    }

    /// Spent part of the emptiest bucket.
    fn debt(&mut self, now: Instant) -> f64 {
        self.refill(now);
        let parts = self.spent.iter().zip(Kind::ALL).map(|(spent, kind)| spent / f64::from(kind.rate().burst));
        parts.fold(0.0, f64::max) / self.factor
    }
}

/// Rate limits of a network that connections come from. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct SourceRates(Arc<Mutex<Buckets>>);

impl SourceRates {
    /// Creates the limits of one peer, `factor` times as high.
    pub(crate) fn new(factor: f64, now: Instant) -> SourceRates {
        SourceRates(Arc::new(Mutex::new(Buckets::new(factor, now))))
    }

    /// True if a connection has them.
    pub(crate) fn are_in_use(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Spent part of the emptiest bucket.
    pub(crate) fn debt(&self, now: Instant) -> f64 {
        self.0.lock().debt(now)
    }
}

/// Rate limits of one connection: its own, and those that it shares with others of its network.
#[derive(Debug)]
pub(crate) struct Limits {
    own: Buckets,
    shared: Vec<SourceRates>,
}

impl Limits {
    pub(crate) fn new(shared: Vec<SourceRates>, now: Instant) -> Limits {
        Limits { own: Buckets::new(1.0, now), shared }
    }

    /// Limits that it shares with others.
    pub(crate) fn shared(&self) -> &[SourceRates] {
        &self.shared
    }

    /// Counts `amount`.
    ///
    /// # Errors
    /// It is too much.
    pub(crate) fn take(&mut self, kind: Kind, amount: usize, now: Instant) -> Result<(), Excess> {
        // Amounts are lengths in memory, far below 2^53.
        let amount = amount as f64;
        let Rate { what, per_second, .. } = kind.rate();
        let excess = |cause| Err(Excess { what, per_second, cause });
        if !self.own.take(kind, amount, now) {
            return excess(if kind.is_offence() { Cause::Misbehaviour } else { Cause::Peer });
        }
        if !self.shared.iter().all(|shared| shared.0.lock().take(kind, amount, now)) {
            return excess(Cause::Network);
        }
        Ok(())
    }

    /// Counts `amount` without a limit; a negative one is a refund.
    pub(crate) fn count(&mut self, kind: Kind, amount: f64, now: Instant) {
        self.own.count(kind, amount, now);
        self.shared.iter().for_each(|shared| shared.0.lock().count(kind, amount, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn alone(now: Instant) -> Limits {
        Limits::new(Vec::new(), now)
    }

    fn too_many_shares(cause: Cause) -> Result<(), Excess> {
        Err(Excess { what: "shares", per_second: 100, cause })
    }

    #[test]
    fn a_burst_is_taken_and_then_only_the_rate() {
        let start = Instant::now();
        let mut limits = alone(start);
        assert_eq!(limits.take(Kind::Shares, 3_000, start), Ok(()));
        assert_eq!(limits.take(Kind::Shares, 1, start), too_many_shares(Cause::Misbehaviour));
        let mut limits = alone(start);
        assert_eq!(limits.take(Kind::Shares, 3_000, start), Ok(()));
        for second in 1..1_000 {
            assert_eq!(limits.take(Kind::Shares, 100, start + Duration::from_secs(second)), Ok(()));
        }
        assert!(limits.take(Kind::Shares, 101, start + Duration::from_secs(1_000)).is_err());
    }

    #[test]
    fn a_request_is_counted_by_what_was_answered_to_the_last() {
        let start = Instant::now();
        let mut limits = alone(start);
        assert_eq!(limits.take(Kind::Served, 1, start), Ok(()));
        limits.count(Kind::Served, 60_000.0, start);
        assert!(limits.take(Kind::Served, 1, start).is_err());
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let start = Instant::now();
        let mut limits = alone(start + Duration::from_secs(10));
        assert_eq!(limits.take(Kind::Shares, 3_000, start), Ok(()));
        assert!(limits.take(Kind::Shares, 1, start + Duration::from_secs(10)).is_err());
    }

    #[test]
    fn connecting_again_gains_nothing_and_neighbours_of_a_flooder_are_not_blamed() {
        let start = Instant::now();
        let rates = SourceRates::new(1.0, start);
        let mut flooder = Limits::new(vec![rates.clone()], start);
        assert_eq!(flooder.take(Kind::Shares, 2_900, start), Ok(()));
        drop(flooder);
        let mut again = Limits::new(vec![rates.clone()], start);
        assert_eq!(again.take(Kind::Shares, 100, start), Ok(()));
        assert_eq!(again.take(Kind::Shares, 1, start), too_many_shares(Cause::Network));
        let mut neighbour = Limits::new(vec![rates], start);
        assert_eq!(neighbour.take(Kind::Shares, 1, start), too_many_shares(Cause::Network));
        assert_eq!(neighbour.take(Kind::Messages, 1, start), Ok(()));
        // However often the flooder tries meanwhile.
        (0..1_000).for_each(|_| assert!(again.take(Kind::Shares, 100, start).is_err()));
        assert_eq!(neighbour.take(Kind::Shares, 1, start + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn what_others_may_have_caused_is_no_offence() {
        for kind in Kind::ALL {
            let mut limits = alone(Instant::now());
            let cause = limits.take(kind, usize::MAX, limits.own.at).unwrap_err().cause;
            assert_eq!(cause == Cause::Peer, [Kind::Gossip, Kind::Work].contains(&kind), "{kind:?}");
        }
    }

    #[test]
    fn kinds_are_numbered_as_they_are_listed() {
        assert!(Kind::ALL.into_iter().enumerate().all(|(number, kind)| kind as usize == number));
    }
}
