//! Hash rates by worker over a sliding window, published as a snapshot.

use metrics::{describe_gauge, gauge};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use stratum::{Credit, Deed, Refused};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, sleep};
use tokio_util::sync::CancellationToken;

/// Credits and refusals that may wait; what does not fit is dropped and counted, for no miner is to wait on statistics.
pub const DEEDS_QUEUED_MAX: usize = 65_536;

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

/// Workers and payees that did nothing in the window are shown for so long.
pub const REMEMBERED: Duration = Duration::from_secs(86_400);

/// What miners did, as a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Hashes per second over the last ten minutes, late ones included.
    pub hash_rate: f64,
    /// Of these, what came for work that had been dropped.
    pub late_hash_rate: f64,
    /// Accepted submissions for the newest work since the start.
    pub accepted: u64,
    /// Submissions since the start for work that had been dropped.
    pub late: u64,
    /// Hashes that were credited since the start, late ones included.
    pub hashes: f64,
    /// Of these, what came for work that had been dropped.
    pub late_hashes: f64,
    /// Refused submissions since the start, of workers that are known.
    pub refused: u64,
    /// Workers with a credited submission in the window.
    pub active_workers: usize,
    /// Each worker of the last day, by its name.
    pub workers: BTreeMap<Arc<str>, Done>,
    /// Each payee of the last day, by its address: the sum of its workers.
    pub payees: BTreeMap<Arc<str>, Done>,
}

/// What one worker or payee did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Done {
    /// Hashes per second over the last ten minutes, late ones included.
    pub hash_rate: f64,
    /// Of these, what came for work that had been dropped.
    pub late_hash_rate: f64,
    /// Hashes that were credited since it was seen first, late ones included.
    pub hashes: f64,
    /// Of these, what came for work that had been dropped.
    pub late_hashes: f64,
    /// Accepted submissions for the newest work.
    pub accepted: u64,
    /// Submissions for work that had been dropped: credited, and lost as shares.
    pub late: u64,
    /// Submissions that were refused, by reason: `stratum`'s words.
    pub refused: BTreeMap<&'static str, u64>,
    /// What the last credited submission had to meet; 0 before the first.
    pub difficulty: f64,
    /// The best hash's difficulty; 0 before the first.
    pub best: f64,
    /// Whom it works for; a payee's own address.
    pub payee: Arc<str>,
    /// When it submitted last, seconds since 1970.
    pub last_seen: f64,
}

/// Names and explains the metrics of this part.
pub fn describe() {
    describe_gauge!("stats_hash_rate", "Hashes per second of all miners over the last ten minutes, late ones included");
    describe_gauge!("stats_late_hash_rate", "Hashes per second that came too late, over the last ten minutes");
    describe_gauge!("stats_workers", "Workers with a submission in the last ten minutes");
}

/// How long deeds may wait to be added up. A task that slept for each would be woken for each, which costs a
/// submission more than its check.
const REST: Duration = Duration::from_millis(50);

/// Adds up `deeds` and publishes `rates` until `stop`.
pub async fn run(mut deeds: mpsc::Receiver<Deed>, rates: watch::Sender<Arc<Rates>>, stop: CancellationToken) {
    let mut ledger = Ledger::new(Instant::now());
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut waiting = Vec::new();
    let mut rest = pin!(sleep(Duration::ZERO));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            count = deeds.recv_many(&mut waiting, DEEDS_QUEUED_MAX), if rest.is_elapsed() => {
                if count == 0 {
                    return;
                }
                let now = Instant::now();
                for deed in waiting.drain(..) {
                    match deed {
                        Deed::Credited(credit) => ledger.add(&credit, now),
                        Deed::Refused(refused) => ledger.refuse(&refused, now),
                    }
                }
                rest.as_mut().reset(tokio::time::Instant::now() + REST);
            }
            () = &mut rest, if !rest.is_elapsed() => {}
            _ = ticks.tick() => {
                let snapshot = ledger.rates(Instant::now());
                gauge!("stats_hash_rate").set(snapshot.hash_rate);
                gauge!("stats_late_hash_rate").set(snapshot.late_hash_rate);
                #[expect(clippy::cast_precision_loss, reason = "at most WORKERS_MAX")]
                gauge!("stats_workers").set(snapshot.active_workers as f64);
                rates.send_replace(snapshot.into());
            }
        }
    }
}

/// What was done, by worker and by payee.
#[derive(Debug)]
struct Ledger {
    started: Instant,
    workers: HashMap<Arc<str>, Account>,
    payees: HashMap<Arc<str>, Account>,
    accepted: u64,
    late: u64,
    refused: u64,
    hashes: f64,
    late_hashes: f64,
}

/// Of one worker or payee.
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
            seen: now,
        }
    }

    fn credit(&mut self, credit: &Credit, slice: u64) {
        let hashes = credit.difficulty.average_hashes();
        self.recent.add(slice, hashes);
        self.hashes += hashes;
        if credit.late {
            self.recent_late.add(slice, hashes);
            self.late_hashes += hashes;
            self.late += 1;
        } else {
            self.accepted += 1;
        }
        self.difficulty = credit.difficulty.get();
        self.best = self.best.max(credit.achieved);
    }

    /// Forgets hashes from before the slice `oldest`.
    fn forget_before(&mut self, oldest: u64) {
        self.recent.forget_before(oldest);
        self.recent_late.forget_before(oldest);
    }

    fn done(&self, seconds: f64, last_seen: f64) -> Done {
        Done {
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
            last_seen,
        }
    }
}

impl Ledger {
    fn new(now: Instant) -> Self {
        Self {
            started: now,
            workers: HashMap::new(),
            payees: HashMap::new(),
            accepted: 0,
            late: 0,
            refused: 0,
            hashes: 0.0,
            late_hashes: 0.0,
        }
    }

    fn add(&mut self, credit: &Credit, now: Instant) {
        let slice = self.slice(now);
        let hashes = credit.difficulty.average_hashes();
        self.hashes += hashes;
        if credit.late {
            self.late_hashes += hashes;
            self.late += 1;
        } else {
            self.accepted += 1;
        }
        account(&mut self.workers, &credit.worker, &credit.payee, now).credit(credit, slice);
        account(&mut self.payees, &credit.payee, &credit.payee, now).credit(credit, slice);
    }

    fn refuse(&mut self, refused: &Refused, now: Instant) {
        let Refused { worker, payee, reason } = refused;
        self.refused += 1;
        *account(&mut self.workers, worker, payee, now).refused.entry(reason).or_default() += 1;
        *account(&mut self.payees, payee, payee, now).refused.entry(reason).or_default() += 1;
    }

    fn rates(&mut self, now: Instant) -> Rates {
        let oldest = self.slice(now).saturating_sub(WINDOW.as_secs() / SLICE.as_secs());
        // A node that has just started has not had a whole window yet.
        let seconds = (now - self.started).min(WINDOW).as_secs_f64().max(1.0);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let shown = |accounts: &mut HashMap<Arc<str>, Account>| -> BTreeMap<Arc<str>, Done> {
            // Whoever did nothing lately makes room.
            let remembered = if accounts.len() >= WORKERS_MAX { WINDOW } else { REMEMBERED };
            accounts.retain(|_, account| {
                account.forget_before(oldest);
                now.duration_since(account.seen) < remembered
            });
            let done = |(name, account): (&Arc<str>, &Account)| {
                (name.clone(), account.done(seconds, unix - now.duration_since(account.seen).as_secs_f64()))
            };
            accounts.iter().map(done).collect()
        };
        let (workers, payees) = (shown(&mut self.workers), shown(&mut self.payees));
        // Not `sum`, which makes a negative zero of no workers.
        let total = |rate: fn(&Done) -> f64| workers.values().fold(0.0, |sum, done| sum + rate(done));
        Rates {
            hash_rate: total(|done| done.hash_rate),
            late_hash_rate: total(|done| done.late_hash_rate),
            accepted: self.accepted,
            late: self.late,
            refused: self.refused,
            hashes: self.hashes,
            late_hashes: self.late_hashes,
            active_workers: workers.values().filter(|done| done.hash_rate > 0.0).count(),
            workers,
            payees,
        }
    }

    fn slice(&self, now: Instant) -> u64 {
        (now - self.started).as_secs() / SLICE.as_secs()
    }
}

/// The account of `name`, or of all others when there are too many.
fn account<'a>(
    accounts: &'a mut HashMap<Arc<str>, Account>,
    name: &Arc<str>,
    payee: &Arc<str>,
    now: Instant,
) -> &'a mut Account {
    let full = accounts.len() >= WORKERS_MAX && !accounts.contains_key(name);
    let name = if full { OTHERS.into() } else { name.clone() };
    // The operator's fee pays another for a while; the name says for whom a worker works.
    let is_known = |payee: &str| name.starts_with(payee);
    let account = accounts.entry(name.clone()).or_insert_with(|| Account::new(payee.clone(), now));
    if account.payee != *payee && !is_known(&account.payee) {
        account.payee = payee.clone();
    }
    account.seen = now;
    account
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

    /// Forgets what is older.
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
            ledger.add(&credit("a", second % 4 == 0), start + Duration::from_secs(second));
        }
        let rates = ledger.rates(start + Duration::from_secs(100));
        assert!((rates.hash_rate / hashes() - 1.0).abs() < 1e-9);
        assert!((rates.late_hash_rate / hashes() - 0.25).abs() < 1e-9);
        assert_eq!((rates.accepted, rates.late), (75, 25));
    }

    #[test]
    fn a_worker_that_stopped_has_no_rate_after_the_window_and_is_forgotten_after_a_day() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        ledger.add(&credit("a", false), start);
        ledger.add(&credit("b", false), start + WINDOW);
        let rates = ledger.rates(start + WINDOW + SLICE);
        assert_eq!((rates.workers["a"].hash_rate, rates.workers["a"].accepted), (0.0, 1));
        assert!(rates.workers["b"].hash_rate > 0.0);
        assert_eq!((rates.active_workers, rates.accepted), (1, 2));
        let rates = ledger.rates(start + REMEMBERED);
        assert_eq!(rates.workers.keys().map(|name| &**name).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn what_is_refused_is_told_by_worker_and_payee_with_the_reason() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        ledger.add(&credit("a", false), start);
        for reason in ["duplicate", "low_difficulty", "duplicate"] {
            ledger.refuse(&Refused { worker: "a".into(), payee: "payee".into(), reason }, start);
        }
        ledger.refuse(&Refused { worker: "b".into(), payee: "payee".into(), reason: "job_not_found" }, start);
        let rates = ledger.rates(start);
        assert_eq!(rates.workers["a"].refused, BTreeMap::from([("duplicate", 2), ("low_difficulty", 1)]));
        assert_eq!(rates.workers["b"].hash_rate, 0.0);
        assert_eq!(rates.payees["payee"].refused.values().sum::<u64>(), 4);
        assert_eq!((rates.refused, rates.accepted, rates.active_workers), (4, 1, 1));
        assert_eq!((rates.workers["a"].best, rates.workers["a"].difficulty), (2.0, 1.0));
    }

    #[test]
    fn the_operators_fee_does_not_make_a_worker_somebody_elses() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        let of = |payee: &str| Credit { payee: payee.into(), ..credit("theirs.rig", false) };
        for payee in ["operator", "theirs", "operator"] {
            ledger.add(&of(payee), start);
        }
        let rates = ledger.rates(start);
        assert_eq!(&*rates.workers["theirs.rig"].payee, "theirs");
        assert_eq!((rates.payees["operator"].accepted, rates.payees["theirs"].accepted), (2, 1));
    }

    #[test]
    fn names_from_strangers_do_not_grow_memory_without_bound() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        for number in 0..WORKERS_MAX + 50 {
            ledger.add(&credit(&number.to_string(), false), start);
        }
        assert_eq!(ledger.workers.len(), WORKERS_MAX + 1);
        assert!((ledger.workers[OTHERS].hashes / hashes() - 50.0).abs() < 1e-9);
    }
}
