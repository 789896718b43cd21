//! Hash rates of workers over a sliding window, published as a snapshot.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::mining::tally::{Tallies, Tally, Totals};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::runtime::clock::unix_now;

/// Window of the rates: P2Pool's (protocol section 9.4).
pub const WINDOW: Duration = Duration::from_secs(600);

/// Length of the slices in which hashes are summed: coarse enough for thousands of workers, fine enough for a rate.
const SLICE: Duration = Duration::from_secs(10);

/// Maximum number of separate workers. Names are untrusted input; beyond this, further workers count as one.
const WORKERS_MAX: usize = 10_000;

/// Name of the workers beyond [`WORKERS_MAX`].
const OTHERS: &str = "(others)";

/// Interval of publication.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time for which workers and payees stay listed after their last submission.
pub const REMEMBERED: Duration = Duration::from_secs(86_400);

/// Snapshot of the rates and counts of all miners.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Hashes per second over the last ten minutes, late ones included.
    pub hash_rate: f64,
    /// The part of `hash_rate` for work that had been dropped.
    pub late_hash_rate: f64,
    /// Accepted submissions for the newest work since the start.
    pub accepted: u64,
    /// Submissions since the start for work that had been dropped.
    pub late: u64,
    /// Credited hashes since the start, late ones included.
    pub hashes: f64,
    /// The part of `hashes` for work that had been dropped.
    pub late_hashes: f64,
    /// The part of `hashes` that paid the operator's fee.
    pub fee_hashes: f64,
    /// Refused submissions since the start, of known workers.
    pub refused: u64,
    /// Workers with a credited submission in the window.
    pub active_workers: usize,
    /// Workers of the last day, by name.
    pub workers: BTreeMap<Arc<str>, WorkerRates>,
    /// Payees of the last day, by address: sums over their workers.
    pub payees: BTreeMap<Arc<str>, WorkerRates>,
    /// Live tallies of the open connections, one for each worker on each.
    #[serde(skip)]
    pub open: Arc<[Arc<Tally>]>,
}

/// Rates and counts of one worker or payee.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct WorkerRates {
    /// Hashes per second over the last ten minutes, late ones included.
    pub hash_rate: f64,
    /// The part of `hash_rate` for work that had been dropped.
    pub late_hash_rate: f64,
    /// Credited hashes since it was first seen, late ones included.
    pub hashes: f64,
    /// The part of `hashes` for work that had been dropped.
    pub late_hashes: f64,
    /// Accepted submissions for the newest work.
    pub accepted: u64,
    /// Submissions for work that had been dropped: credited, but lost as shares.
    pub late: u64,
    /// Refused submissions by reason, in the words of `stratum`.
    pub refused: BTreeMap<&'static str, u64>,
    /// Difficulty required of the last credited submission; 0 before the first.
    pub difficulty: f64,
    /// Difficulty of the best hash; 0 before the first.
    pub best: f64,
    /// Payout address; for a payee, its own.
    pub payee: Arc<str>,
    /// Open connections.
    pub connections: usize,
    /// Time of the last submission, in seconds since 1970.
    pub last_seen: f64,
}

/// Registers the metrics of this module.
pub fn describe() {
    describe_gauge!("stats_hash_rate", "Hashes per second of all miners over the last ten minutes, late ones included");
    describe_gauge!("stats_late_hash_rate", "Hashes per second that came too late, over the last ten minutes");
    describe_gauge!("stats_workers", "Workers with a submission in the last ten minutes");
    describe_counter!("stats_fee_hashes_total", "Hashes that miners did for the operator's fee, late ones included");
    counter!("stats_fee_hashes_total").absolute(0);
}

/// Aggregates `tallies` and publishes `rates` until `stop`.
pub async fn run(tallies: Arc<Tallies>, rates: watch::Sender<Arc<Rates>>, stop: CancellationToken) {
    let mut ledger = Ledger::new(Instant::now());
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // Ten thousand workers take milliseconds, too long for the connections that this thread drives.
        let new = tallies.take();
        let added_up = tokio::task::spawn_blocking(move || {
            let now = Instant::now();
            ledger.settle(new, now);
            let snapshot = ledger.rates(now);
            (ledger, snapshot)
        });
        let snapshot;
        (ledger, snapshot) = added_up.await.expect("adding up does not panic");
        gauge!("stats_hash_rate").set(snapshot.hash_rate);
        gauge!("stats_late_hash_rate").set(snapshot.late_hash_rate);
        #[expect(clippy::cast_precision_loss, reason = "at most WORKERS_MAX")]
        gauge!("stats_workers").set(snapshot.active_workers as f64);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sum of hashes, rounded down")]
        counter!("stats_fee_hashes_total").absolute(snapshot.fee_hashes as u64);
        rates.send_replace(snapshot.into());
    }
}

/// Accounts by worker and by payee.
#[derive(Debug)]
struct Ledger {
    started: Instant,
    /// Tallies of the open connections, with the totals aggregated so far. Most of ten thousand idle ones have none.
    open: Vec<(Arc<Tally>, Option<Box<Totals>>)>,
    shown: Arc<[Arc<Tally>]>,
    workers: HashMap<Arc<str>, Account>,
    payees: HashMap<Arc<str>, Account>,
    accepted: u64,
    late: u64,
    refused: u64,
    hashes: f64,
    late_hashes: f64,
    fee_hashes: f64,
}

/// Account of one worker or payee.
#[derive(Debug)]
struct Account {
    recent: Slices,
    recent_late: Slices,
    hashes: f64,
    late_hashes: f64,
    accepted: u64,
    late: u64,
    refused: BTreeMap<&'static str, u64>,
    difficulty: f64,
    best: f64,
    payee: Arc<str>,
    connections: usize,
    seen: Instant,
}

impl Account {
    fn new(payee: Arc<str>, now: Instant) -> Self {
        Self {
            recent: Slices::default(),
            recent_late: Slices::default(),
            hashes: 0.0,
            late_hashes: 0.0,
            accepted: 0,
            late: 0,
            refused: BTreeMap::new(),
            difficulty: 0.0,
            best: 0.0,
            payee,
            connections: 0,
            seen: now,
        }
    }

    /// Adds the difference between `totals` and those of the last time, `before`.
    fn add(&mut self, tally: &Tally, before: &Totals, totals: &Totals, reasons: &[(&'static str, u64)], slice: u64) {
        if self.payee != tally.payee {
            self.payee = tally.payee.clone();
        }
        let (hashes, late) = (totals.hashes - before.hashes, totals.late_hashes - before.late_hashes);
        if hashes > 0.0 {
            self.recent.add(slice, hashes);
            self.hashes += hashes;
            self.difficulty = totals.difficulty;
            self.best = self.best.max(totals.best);
        }
        if late > 0.0 {
            self.recent_late.add(slice, late);
            self.late_hashes += late;
        }
        self.accepted += totals.accepted - before.accepted;
        self.late += totals.late - before.late;
        for (reason, count) in reasons {
            *self.refused.entry(reason).or_default() += count;
        }
        self.seen = tally.seen().map_or(self.seen, |seen| seen.max(self.seen));
    }

    /// Drops hashes from before the slice `oldest`.
    fn forget_before(&mut self, oldest: u64) {
        self.recent.forget_before(oldest);
        self.recent_late.forget_before(oldest);
    }

    fn done(&self, seconds: f64, last_seen: f64) -> WorkerRates {
        WorkerRates {
            hash_rate: self.recent.sum() / seconds,
            late_hash_rate: self.recent_late.sum() / seconds,
            hashes: self.hashes,
            late_hashes: self.late_hashes,
            accepted: self.accepted,
            late: self.late,
            refused: self.refused.clone(),
            difficulty: self.difficulty,
            best: self.best,
            payee: self.payee.clone(),
            connections: self.connections,
            last_seen,
        }
    }
}

impl Ledger {
    fn new(now: Instant) -> Self {
        Self {
            started: now,
            open: Vec::new(),
            shown: Arc::default(),
            workers: HashMap::new(),
            payees: HashMap::new(),
            accepted: 0,
            late: 0,
            refused: 0,
            hashes: 0.0,
            late_hashes: 0.0,
            fee_hashes: 0.0,
        }
    }

    /// Aggregates everything since the last call, including `new` tallies.
    fn settle(&mut self, new: Vec<Arc<Tally>>, now: Instant) {
        let slice = self.slice(now);
        let known = (self.open.len(), self.workers.len(), self.payees.len());
        let mut have_changed = !new.is_empty();
        self.open.extend(new.into_iter().map(|tally| (tally, None)));
        let Self { open, workers, payees, accepted, late, refused, hashes, late_hashes, fee_hashes, .. } = self;
        open.retain_mut(|(tally, before)| {
            // Checked first: then all writes before the end are visible.
            let is_over = tally.is_over();
            let totals = tally.totals();
            if totals != Totals::default() && before.as_deref() != Some(&totals) {
                let before = before.get_or_insert_default();
                let reasons = if totals.refused > before.refused { tally.take_reasons() } else { Vec::new() };
                *accepted += totals.accepted - before.accepted;
                *late += totals.late - before.late;
                *refused += totals.refused - before.refused;
                *hashes += totals.hashes - before.hashes;
                *late_hashes += totals.late_hashes - before.late_hashes;
                *fee_hashes += totals.fee_hashes - before.fee_hashes;
                for (accounts, name) in [(&mut *workers, tally.worker.shared()), (&mut *payees, &tally.payee)] {
                    account(accounts, name, &tally.payee, now).add(tally, before, &totals, &reasons, slice);
                }
                **before = totals;
            }
            !is_over
        });
        have_changed |= (self.open.len(), self.workers.len(), self.payees.len()) != known;
        if have_changed {
            self.count_connections();
        }
    }

    /// Counts connections with any submission; those without are only in the list of open ones.
    fn count_connections(&mut self) {
        self.shown = self.open.iter().map(|(tally, _)| tally.clone()).collect();
        self.workers.values_mut().chain(self.payees.values_mut()).for_each(|account| account.connections = 0);
        for (tally, _) in &self.open {
            for (accounts, name) in [(&mut self.workers, tally.worker.shared()), (&mut self.payees, &tally.payee)] {
                if let Some(account) = accounts.get_mut(name) {
                    account.connections += 1;
                }
            }
        }
    }

    fn rates(&mut self, now: Instant) -> Rates {
        let oldest = self.slice(now).saturating_sub(WINDOW.as_secs() / SLICE.as_secs());
        // A node that has just started has not seen a whole window yet.
        let seconds = (now - self.started).min(WINDOW).as_secs_f64().max(1.0);
        let unix = unix_now();
        let shown = |accounts: &mut HashMap<Arc<str>, Account>| -> BTreeMap<Arc<str>, WorkerRates> {
            // With too many accounts, inactive ones are dropped earlier.
            let remembered = if accounts.len() >= WORKERS_MAX { WINDOW } else { REMEMBERED };
            accounts.retain(|_, account| {
                account.forget_before(oldest);
                account.connections > 0 || now.duration_since(account.seen) < remembered
            });
            let done = |(name, account): (&Arc<str>, &Account)| {
                (name.clone(), account.done(seconds, unix - now.duration_since(account.seen).as_secs_f64()))
            };
            accounts.iter().map(done).collect()
        };
        let (workers, payees) = (shown(&mut self.workers), shown(&mut self.payees));
        // Not `sum`, which returns negative zero without workers.
        let total = |rate: fn(&WorkerRates) -> f64| workers.values().fold(0.0, |sum, done| sum + rate(done));
        Rates {
            hash_rate: total(|done| done.hash_rate),
            late_hash_rate: total(|done| done.late_hash_rate),
            accepted: self.accepted,
            late: self.late,
            refused: self.refused,
            hashes: self.hashes,
            late_hashes: self.late_hashes,
            fee_hashes: self.fee_hashes,
            active_workers: workers.values().filter(|done| done.hash_rate > 0.0).count(),
            workers,
            payees,
            open: self.shown.clone(),
        }
    }

    fn slice(&self, now: Instant) -> u64 {
        (now - self.started).as_secs() / SLICE.as_secs()
    }
}

/// Account of `name`, or that of the others when there are too many.
fn account<'a>(
    accounts: &'a mut HashMap<Arc<str>, Account>,
    name: &Arc<str>,
    payee: &Arc<str>,
    now: Instant,
) -> &'a mut Account {
    let full = accounts.len() >= WORKERS_MAX && !accounts.contains_key(name);
    let name = if full { OTHERS.into() } else { name.clone() };
    accounts.entry(name).or_insert_with(|| Account::new(payee.clone(), now))
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

    /// Drops hashes from before the slice `oldest`.
    fn forget_before(&mut self, oldest: u64) {
        while self.0.front().is_some_and(|(slice, _)| *slice < oldest) {
            self.0.pop_front();
        }
    }

    fn sum(&self) -> f64 {
        self.0.iter().fold(0.0, |sum, (_, hashes)| sum + hashes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stratum::mining::tally::{Client, Protocol, Writer};
    use stratum::{Credit, Difficulty};

    /// Creates the tally of a new worker.
    fn join(worker: &str, now: Instant) -> (Arc<Tally>, Writer) {
        Tally::new(worker.into(), "payee".into(), Client::new(Protocol::Stratum, now))
    }

    fn credit(is_late: bool) -> Credit {
        Credit { difficulty: Difficulty::new(1.0).unwrap(), achieved: 2.0, is_late, is_fee: false }
    }

    fn hashes() -> f64 {
        Difficulty::new(1.0).unwrap().average_hashes()
    }

    #[test]
    fn a_rate_is_what_was_credited_over_the_time_there_was() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        let (tally, mut writer) = join("a", start);
        ledger.settle(vec![tally], start);
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            writer.credit(&credit(second % 4 == 0), now);
            ledger.settle(Vec::new(), now);
        }
        writer.credit(&Credit { is_fee: true, ..credit(false) }, start);
        let now = start + Duration::from_secs(101);
        ledger.settle(Vec::new(), now);
        let rates = ledger.rates(now);
        assert!((rates.hash_rate / hashes() - 1.0).abs() < 1e-9);
        assert!((rates.late_hash_rate / hashes() - 25.0 / 101.0).abs() < 1e-9);
        assert_eq!((rates.accepted, rates.late), (76, 25));
        assert!((rates.fee_hashes / hashes() - 1.0).abs() < 1e-9);
        assert_eq!((rates.workers["a"].best, rates.workers["a"].difficulty), (2.0, 1.0));
        assert!((rates.payees["payee"].hashes / rates.hashes - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_worker_that_stopped_has_no_rate_after_the_window_and_is_forgotten_after_a_day() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        for (worker, now) in [("a", start), ("b", start + WINDOW)] {
            let (tally, mut writer) = join(worker, now);
            writer.credit(&credit(false), now);
            drop(writer);
            ledger.settle(vec![tally], now);
        }
        let rates = ledger.rates(start + WINDOW + SLICE);
        assert_eq!((rates.workers["a"].hash_rate, rates.workers["a"].accepted), (0.0, 1));
        assert!(rates.workers["b"].hash_rate > 0.0);
        assert_eq!((rates.active_workers, rates.accepted), (1, 2));
        let rates = ledger.rates(start + REMEMBERED + SLICE);
        assert_eq!(rates.workers.keys().map(|name| &**name).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn what_is_refused_is_told_by_worker_and_payee_with_the_reason() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        let ((one, mut first), (other, mut second)) = (join("a", start), join("b", start));
        first.credit(&credit(false), start);
        first.refuse("duplicate", start);
        ledger.settle(vec![one, other], start);
        for reason in ["low_difficulty", "duplicate"] {
            first.refuse(reason, start);
        }
        second.refuse("job_not_found", start);
        ledger.settle(Vec::new(), start);
        let rates = ledger.rates(start);
        assert_eq!(rates.workers["a"].refused, BTreeMap::from([("duplicate", 2), ("low_difficulty", 1)]));
        assert_eq!(rates.workers["b"].hash_rate, 0.0);
        assert_eq!(rates.payees["payee"].refused.values().sum::<u64>(), 4);
        assert_eq!((rates.refused, rates.accepted, rates.active_workers), (4, 1, 1));
    }

    #[test]
    fn connections_are_counted_by_worker_and_what_was_done_on_a_lost_one_stays() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        let ((one, mut first), (other, second)) = (join("a", start), join("a", start));
        ledger.settle(vec![one, other], start);
        let rates = ledger.rates(start);
        assert_eq!((rates.workers.len(), rates.payees.len(), rates.open.len()), (0, 0, 2), "no submissions yet");
        first.credit(&credit(false), start);
        ledger.settle(Vec::new(), start);
        let rates = ledger.rates(start);
        assert_eq!((rates.workers["a"].connections, rates.payees["payee"].connections, rates.open.len()), (2, 2, 2));
        drop(first);
        ledger.settle(Vec::new(), start);
        let rates = ledger.rates(start + WINDOW);
        assert_eq!((rates.workers["a"].connections, rates.workers["a"].accepted, rates.open.len()), (1, 1, 1));
        let rates = ledger.rates(start + 2 * REMEMBERED);
        assert_eq!(rates.workers["a"].connections, 1, "a connected worker stays");
        drop(second);
        ledger.settle(Vec::new(), start);
        assert!(ledger.rates(start + 2 * REMEMBERED).workers.is_empty());
    }

    #[test]
    fn names_from_strangers_do_not_grow_memory_without_bound() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        for number in 0..WORKERS_MAX + 50 {
            let (tally, mut writer) = join(&number.to_string(), start);
            writer.credit(&credit(false), start);
            drop(writer);
            ledger.settle(vec![tally], start);
        }
        assert_eq!(ledger.workers.len(), WORKERS_MAX + 1);
        assert!((ledger.workers[OTHERS].hashes / hashes() - 50.0).abs() < 1e-9);
        assert_eq!(ledger.workers[OTHERS].connections, 0);
    }
}
