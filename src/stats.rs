//! Hash rates by worker over a sliding window, published as a snapshot.

use metrics::{describe_gauge, gauge};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::Credit;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, sleep};
use tokio_util::sync::CancellationToken;

/// Credits that may wait; what does not fit is dropped and counted, for no miner is to wait on statistics.
pub const CREDITS_QUEUED_MAX: usize = 65_536;

/// The window of rates: P2Pool's (protocol section 9.4).
pub const WINDOW: Duration = Duration::from_secs(600);

/// Rates are summed in slices of this length: coarse enough for thousands of workers, fine enough for a rate.
const SLICE: Duration = Duration::from_secs(10);

/// Workers that are told apart. Names come from strangers; beyond this the others count as one.
const WORKERS_MAX: usize = 10_000;

/// What those beyond [`WORKERS_MAX`] are called.
const OTHERS: &str = "(others)";

/// How often a snapshot is published.
const INTERVAL: Duration = Duration::from_secs(1);

/// What miners did, as a snapshot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rates {
    /// Hashes per second over the last ten minutes, late ones included.
    pub hash_rate: f64,
    /// Of these, what came for work that had been dropped.
    pub late_hash_rate: f64,
    /// Accepted submissions for the newest work since the start.
    pub accepted: u64,
    /// Submissions since the start for work that had been dropped.
    pub late: u64,
    /// Hashes per second of each worker in the window.
    pub workers: BTreeMap<Arc<str>, f64>,
    /// Hashes per second for each payee in the window.
    pub payees: BTreeMap<Arc<str>, f64>,
}

/// Names and explains the metrics of this part.
pub fn describe() {
    describe_gauge!("stats_hash_rate", "Hashes per second of all miners over the last ten minutes, late ones included");
    describe_gauge!("stats_late_hash_rate", "Hashes per second that came too late, over the last ten minutes");
    describe_gauge!("stats_workers", "Workers with a submission in the last ten minutes");
}

/// How long credits may wait to be added up. A task that slept for each would be woken for each, which costs a
/// submission more than its check.
const REST: Duration = Duration::from_millis(50);

/// Adds up `credits` and publishes `rates` until `stop`.
pub async fn run(mut credits: mpsc::Receiver<Credit>, rates: watch::Sender<Arc<Rates>>, stop: CancellationToken) {
    let mut ledger = Ledger::new(Instant::now());
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut waiting = Vec::new();
    let mut rest = pin!(sleep(Duration::ZERO));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            count = credits.recv_many(&mut waiting, CREDITS_QUEUED_MAX), if rest.is_elapsed() => {
                if count == 0 {
                    return;
                }
                let now = Instant::now();
                for credit in waiting.drain(..) {
                    ledger.add(credit, now);
                }
                rest.as_mut().reset(tokio::time::Instant::now() + REST);
            }
            () = &mut rest, if !rest.is_elapsed() => {}
            _ = ticks.tick() => {
                let snapshot = ledger.rates(Instant::now());
                gauge!("stats_hash_rate").set(snapshot.hash_rate);
                gauge!("stats_late_hash_rate").set(snapshot.late_hash_rate);
                #[expect(clippy::cast_precision_loss, reason = "at most WORKERS_MAX")]
                gauge!("stats_workers").set(snapshot.workers.len() as f64);
                rates.send_replace(snapshot.into());
            }
        }
    }
}

/// Hashes by worker and slice of time.
#[derive(Debug)]
struct Ledger {
    started: Instant,
    workers: HashMap<Arc<str>, Slices>,
    payees: HashMap<Arc<str>, Slices>,
    late_hashes: Slices,
    accepted: u64,
    late: u64,
}

impl Ledger {
    fn new(now: Instant) -> Self {
        Self {
            started: now,
            workers: HashMap::new(),
            payees: HashMap::new(),
            late_hashes: Slices::default(),
            accepted: 0,
            late: 0,
        }
    }

    fn add(&mut self, credit: Credit, now: Instant) {
        let slice = self.slice(now);
        let hashes = credit.difficulty.average_hashes();
        if credit.late {
            self.late += 1;
            self.late_hashes.add(slice, hashes);
        } else {
            self.accepted += 1;
        }
        add_bounded(&mut self.workers, credit.worker, slice, hashes);
        add_bounded(&mut self.payees, credit.payee, slice, hashes);
    }

    fn rates(&mut self, now: Instant) -> Rates {
        let oldest = self.slice(now).saturating_sub(WINDOW.as_secs() / SLICE.as_secs());
        self.workers.retain(|_, slices| slices.forget_before(oldest));
        self.payees.retain(|_, slices| slices.forget_before(oldest));
        self.late_hashes.forget_before(oldest);
        // A node that has just started has not had a whole window yet.
        let seconds = (now - self.started).min(WINDOW).as_secs_f64().max(1.0);
        let per_second = |sums: &HashMap<Arc<str>, Slices>| -> BTreeMap<Arc<str>, f64> {
            sums.iter().map(|(name, slices)| (name.clone(), slices.hashes() / seconds)).collect()
        };
        let workers = per_second(&self.workers);
        Rates {
            // Not `sum`, which makes a negative zero of no workers.
            hash_rate: workers.values().fold(0.0, |sum, rate| sum + rate),
            late_hash_rate: self.late_hashes.hashes() / seconds,
            accepted: self.accepted,
            late: self.late,
            workers,
            payees: per_second(&self.payees),
        }
    }

    fn slice(&self, now: Instant) -> u64 {
        (now - self.started).as_secs() / SLICE.as_secs()
    }
}

fn add_bounded(sums: &mut HashMap<Arc<str>, Slices>, name: Arc<str>, slice: u64, hashes: f64) {
    let full = sums.len() >= WORKERS_MAX && !sums.contains_key(&name);
    let name = if full { OTHERS.into() } else { name };
    sums.entry(name).or_default().add(slice, hashes);
}

#[derive(Debug, Default)]
struct Slices(VecDeque<(u64, f64)>);

impl Slices {
    fn add(&mut self, slice: u64, hashes: f64) {
        match self.0.back_mut() {
            Some((last, sum)) if *last == slice => *sum += hashes,
            _ => self.0.push_back((slice, hashes)),
        }
    }

    /// Forgets what is older; says whether anything is left.
    fn forget_before(&mut self, oldest: u64) -> bool {
        while self.0.front().is_some_and(|(slice, _)| *slice < oldest) {
            self.0.pop_front();
        }
        !self.0.is_empty()
    }

    fn hashes(&self) -> f64 {
        self.0.iter().fold(0.0, |sum, (_, hashes)| sum + hashes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stratum::Difficulty;

    fn credit(worker: &str, late: bool) -> Credit {
        Credit {
            worker: worker.into(),
            payee: "payee".into(),
            difficulty: Difficulty::new(1.0).unwrap(),
            achieved: 2.0,
            late,
        }
    }

    fn hashes() -> f64 {
        Difficulty::new(1.0).unwrap().average_hashes()
    }

    #[test]
    fn a_rate_is_what_was_credited_over_the_time_there_was() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        for second in 0..100 {
            ledger.add(credit("a", second % 4 == 0), start + Duration::from_secs(second));
        }
        let rates = ledger.rates(start + Duration::from_secs(100));
        assert!((rates.hash_rate / hashes() - 1.0).abs() < 1e-9);
        assert!((rates.late_hash_rate / hashes() - 0.25).abs() < 1e-9);
        assert_eq!((rates.accepted, rates.late), (75, 25));
    }

    #[test]
    fn a_worker_that_stopped_is_forgotten_after_the_window() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        ledger.add(credit("a", false), start);
        ledger.add(credit("b", false), start + WINDOW);
        let rates = ledger.rates(start + WINDOW + SLICE);
        assert_eq!(rates.workers.keys().map(|name| &**name).collect::<Vec<_>>(), ["b"]);
        assert_eq!(rates.accepted, 2);
    }

    #[test]
    fn names_from_strangers_do_not_grow_memory_without_bound() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        for number in 0..WORKERS_MAX + 50 {
            ledger.add(credit(&number.to_string(), false), start);
        }
        assert_eq!(ledger.workers.len(), WORKERS_MAX + 1);
        assert!((ledger.workers[OTHERS].hashes() / hashes() - 50.0).abs() < 1e-9);
    }
}
