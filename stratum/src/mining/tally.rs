//! Counts of each worker on each connection: written where the events happen, read by any thread.
//!
//! A [`Tally`] has one writer, a session or a getwork server under its lock. So counting needs no locked instruction,
//! message or shared reference count; under load, these cost a submission as much as parsing its line. Nothing is lost,
//! however late it is read. A reader may see one number newer than the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mining::difficulty::Difficulty;
use crate::printable::Printable;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Protocol by which a miner gets work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Stratum, over a persistent connection.
    Stratum,
    /// Polling; all requests under one name count as one connection.
    Getwork,
}

/// A connection, as seen by the rest of the program.
#[derive(Debug)]
pub struct Client {
    /// Protocol of the connection.
    pub protocol: Protocol,
    /// Time at which it was opened.
    pub since: Instant,
    user_agent: Mutex<Printable>,
    difficulty: Number,
}

impl Client {
    /// Creates the record of a new connection, with no user agent yet.
    pub fn new(protocol: Protocol, now: Instant) -> Arc<Self> {
        Arc::new(Self { protocol, since: now, user_agent: Mutex::default(), difficulty: Number::default() })
    }

    /// User agent of the miner; empty if it sent none.
    pub fn user_agent(&self) -> Printable {
        self.user_agent.lock().clone()
    }

    /// Difficulty last sent to the miner; 0 before the first.
    pub fn difficulty(&self) -> f64 {
        self.difficulty.get()
    }

    pub(crate) fn is_called(&self, user_agent: Printable) {
        *self.user_agent.lock() = user_agent;
    }

    pub(crate) fn difficulty_sent(&self, difficulty: Difficulty) {
        self.difficulty.set(difficulty.get());
    }
}

/// Work to credit to a worker's account.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Credit {
    /// Difficulty that was required, not the one achieved.
    pub difficulty: Difficulty,
    /// Difficulty of the hash itself, for statistics of best hashes only.
    pub achieved: f64,
    /// Set when it was for work that had been dropped; it counts as hash rate all the same.
    pub is_late: bool,
    /// Set when the job paid the operator, see [`Offer::is_fee`](crate::mining::job::Offer::is_fee).
    pub is_fee: bool,
}

/// Counts of one worker on one connection.
#[derive(Debug)]
pub struct Tally {
    /// Name of the worker in statistics.
    pub worker: Printable,
    /// Payout of the worker, as displayed.
    pub payee: Arc<str>,
    /// Connection of the worker.
    pub client: Arc<Client>,
    accepted: AtomicU64,
    late: AtomicU64,
    refused: AtomicU64,
    hashes: Number,
    late_hashes: Number,
    fee_hashes: Number,
    difficulty: Number,
    best: Number,
    /// Milliseconds from the start of the connection to the last submission.
    seen: AtomicU64,
    /// Refusals by reason that have not been taken yet.
    reasons: Mutex<Vec<(&'static str, u64)>>,
    is_over: AtomicBool,
}

/// Equality is identity.
impl PartialEq for Tally {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// Snapshot of the numbers of a [`Tally`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Credited submissions for the newest work.
    pub accepted: u64,
    /// Credited submissions for work that had been dropped.
    pub late: u64,
    /// Refused submissions.
    pub refused: u64,
    /// Credited hashes, late ones included.
    pub hashes: f64,
    /// The part of `hashes` for work that had been dropped.
    pub late_hashes: f64,
    /// The part of `hashes` that paid the operator's fee.
    pub fee_hashes: f64,
    /// Difficulty required of the last credited submission; 0 before the first.
    pub difficulty: f64,
    /// Difficulty of the best hash; 0 before the first.
    pub best: f64,
}

impl Tally {
    /// Creates a tally and its only writer.
    pub fn new(worker: Printable, payee: Arc<str>, client: Arc<Client>) -> (Arc<Self>, Writer) {
        let tally = Arc::new(Self {
            worker,
            payee,
            client,
            accepted: AtomicU64::new(0),
            late: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            hashes: Number::default(),
            late_hashes: Number::default(),
            fee_hashes: Number::default(),
            difficulty: Number::default(),
            best: Number::default(),
            seen: AtomicU64::new(0),
            reasons: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        (tally.clone(), Writer(tally))
    }

    /// Reads the numbers counted so far.
    pub fn totals(&self) -> Totals {
        Totals {
            accepted: self.accepted.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            hashes: self.hashes.get(),
            late_hashes: self.late_hashes.get(),
            fee_hashes: self.fee_hashes.get(),
            difficulty: self.difficulty.get(),
            best: self.best.get(),
        }
    }

    /// Time of the last submission; `None` before the first.
    pub fn seen(&self) -> Option<Instant> {
        match self.seen.load(Ordering::Relaxed) {
            0 => None,
            milliseconds => Some(self.client.since + Duration::from_millis(milliseconds)),
        }
    }

    /// Takes the refusals by reason since the last call; for a single reader.
    pub fn take_reasons(&self) -> Vec<(&'static str, u64)> {
        std::mem::take(&mut self.reasons.lock())
    }

    /// True if the connection has ended: numbers read after that are final.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

/// Writer of a [`Tally`], exactly one for each; dropping it marks the tally as over.
#[derive(Debug)]
pub struct Writer(Arc<Tally>);

impl Writer {
    /// Returns the tally that it writes to.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.0
    }

    /// Counts a submission that met its difficulty.
    pub fn credit(&mut self, credit: &Credit, now: Instant) {
        let tally = &*self.0;
        let hashes = credit.difficulty.average_hashes();
        tally.hashes.add(hashes);
        if credit.is_late {
            tally.late_hashes.add(hashes);
            add(&tally.late, 1);
        } else {
            add(&tally.accepted, 1);
        }
        if credit.is_fee {
            tally.fee_hashes.add(hashes);
        }
        tally.difficulty.set(credit.difficulty.get());
        tally.best.set(tally.best.get().max(credit.achieved));
        self.is_seen(now);
    }

    /// Counts a submission that earned nothing; `reason` is from a fixed set.
    pub fn refuse(&mut self, reason: &'static str, now: Instant) {
        {
            let mut reasons = self.0.reasons.lock();
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => reasons.push((reason, 1)),
            }
        }
        add(&self.0.refused, 1);
        self.is_seen(now);
    }

    fn is_seen(&self, now: Instant) {
        let milliseconds = now.saturating_duration_since(self.0.client.since).as_millis();
        self.0.seen.store(u64::try_from(milliseconds).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
    }
}

/// Adds to a counter that has no other writer.
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

/// A floating-point number that one thread writes and others read.
#[derive(Debug, Default)]
struct Number(AtomicU64);

impl Number {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, number: f64) {
        self.0.store(number.to_bits(), Ordering::Relaxed);
    }

    fn add(&self, more: f64) {
        self.set(self.get() + more);
    }
}

/// Collection of new tallies, until the aggregator takes them.
#[derive(Debug, Default)]
pub struct Tallies(Mutex<Vec<Arc<Tally>>>);

impl Tallies {
    /// Adds a tally.
    pub fn add(&self, tally: Arc<Tally>) {
        self.0.lock().push(tally);
    }

    /// Takes the tallies added since the last call. To be called regularly: they are kept until then.
    pub fn take(&self) -> Vec<Arc<Tally>> {
        std::mem::take(&mut self.0.lock())
    }
}

#[cfg(all(test, feature = "loom"))]
mod models {
    use super::*;

    #[test]
    fn model_what_is_read_after_the_end_is_final() {
        loom::model(|| {
            let start = Instant::now();
            let (tally, mut writer) = Tally::new("a".into(), "a".into(), Client::new(Protocol::Stratum, start));
            let difficulty = Difficulty::new(1.0).expect("positive");
            let counting = loom::thread::spawn(move || {
                writer.credit(&Credit { difficulty, achieved: 2.0, is_late: false, is_fee: false }, start);
                writer.refuse("stale", start);
            });
            let is_over = tally.is_over();
            let (totals, reasons) = (tally.totals(), tally.take_reasons());
            assert!(totals.accepted <= 1 && totals.refused <= 1);
            if is_over {
                assert_eq!((totals.accepted, totals.refused, totals.best), (1, 1, 2.0));
                assert_eq!(reasons, [("stale", 1)]);
            }
            counting.join().expect("it does not panic");
            let left = tally.take_reasons();
            assert_eq!([reasons, left].concat(), [("stale", 1)], "each is taken once");
            assert!(tally.is_over());
        });
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_can_be_read_from_elsewhere() {
        let start = Instant::now();
        let client = Client::new(Protocol::Stratum, start);
        let (tally, mut writer) = Tally::new("a.rig".into(), "a".into(), client);
        assert_eq!((tally.totals(), tally.seen()), (Totals::default(), None));
        let difficulty = Difficulty::new(4.0).unwrap();
        let credit = Credit { difficulty, achieved: 7.0, is_late: false, is_fee: false };
        writer.credit(&credit, start);
        writer.credit(&Credit { achieved: 5.0, is_late: true, ..credit }, start);
        writer.credit(&Credit { is_fee: true, ..credit }, start + Duration::from_secs(2));
        let hashes = difficulty.average_hashes();
        let expected = Totals {
            accepted: 2,
            late: 1,
            refused: 0,
            hashes: 3.0 * hashes,
            late_hashes: hashes,
            fee_hashes: hashes,
            difficulty: 4.0,
            best: 7.0,
        };
        let read = tally.clone();
        assert_eq!(std::thread::spawn(move || read.totals()).join().unwrap(), expected);
        assert_eq!(tally.seen(), Some(start + Duration::from_secs(2)));
    }

    #[test]
    fn reasons_are_taken_once_and_their_number_stays() {
        let start = Instant::now();
        let (tally, mut writer) = Tally::new("a".into(), "a".into(), Client::new(Protocol::Getwork, start));
        for reason in ["duplicate", "stale", "duplicate"] {
            writer.refuse(reason, start);
        }
        assert_eq!(tally.take_reasons(), [("duplicate", 2), ("stale", 1)]);
        assert_eq!(tally.take_reasons(), []);
        assert_eq!(tally.totals().refused, 3);
        assert!(tally.seen().is_some(), "refusals are a sign of life");
    }

    #[test]
    fn a_tally_is_over_with_its_writer() {
        let (tally, writer) = Tally::new("a".into(), "a".into(), Client::new(Protocol::Stratum, Instant::now()));
        assert!(!tally.is_over());
        drop(writer);
        assert!(tally.is_over());
    }
}
