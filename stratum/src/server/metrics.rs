//! Every `stratum_*` metric, its help text and labels.

use metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use thread_local::ThreadLocal;

use super::fanout::Reached;
use crate::mining::tally::Credit;

/// Registers names and help texts of the metrics; to be called once a recorder is installed.
pub fn describe() {
    describe_gauge!("stratum_connections", "Connections of miners that are open now");
    describe_counter!("stratum_connections_opened_total", "Accepted connections of miners");
    describe_counter!("stratum_connections_refused_total", "Refused connections, by reason");
    describe_counter!(
        "stratum_connections_evicted_total",
        "Connections without a credited submission that were closed for others, by kind and by what was full"
    );
    describe_gauge!("stratum_uncredited_connections", "Open connections without a credited submission, by kind");
    describe_counter!("stratum_connections_closed_total", "Connections that ended, by reason");
    describe_counter!("stratum_submissions_total", "Submissions, by verdict");
    describe_counter!("stratum_authorizations_total", "Worker names, by whether they were authorised or refused");
    describe_counter!("stratum_solutions_total", "Submissions good enough for a share or a block");
    describe_counter!("stratum_credited_hashes_total", "Hashes that accepted submissions stand for");
    describe_counter!("stratum_credited_late_hashes_total", "Hashes that submissions for dropped work stand for");
    describe_counter!("stratum_jobs_sent_total", "Jobs sent to miners because of new work");
    describe_counter!("stratum_bytes_sent_total", "Bytes sent to miners");
    describe_histogram!(
        "stratum_submission_seconds",
        metrics::Unit::Seconds,
        "Time from reading a submission until its answer is ready, by result: accepted or refused"
    );
    describe_counter!("stratum_jobs_too_big_total", "Sessions whose device most likely cannot hold the job, by device");
    describe_counter!("stratum_sessions_resumed_total", "Sessions resumed after a lost connection");
    describe_counter!("stratum_not_understood_total", "Requests with unknown methods or parameters");
    describe_histogram!(
        "stratum_job_seconds",
        metrics::Unit::Seconds,
        "Time from new work at a connection until its job is sent"
    );
    describe_histogram!(
        "stratum_fanout_seconds",
        metrics::Unit::Seconds,
        "Time from new work until its job is sent to the first and to the last connection"
    );
    describe_gauge!("stratum_pow_queued", "Costly proofs of work that wait for a thread, by kind");
    describe_counter!("stratum_pow_computed_total", "Costly proofs of work that were computed, by kind");
    describe_counter!("stratum_pow_refused_total", "Costly proofs of work that found no room in the queue, by kind");
    describe_histogram!(
        "stratum_pow_wait_seconds",
        metrics::Unit::Seconds,
        "Time that a costly proof of work waits until its computation begins, by kind"
    );
    for kind in ["proven", "unproven", "share"] {
        gauge!("stratum_pow_queued", "kind" => kind).set(0.0);
        counter!("stratum_pow_computed_total", "kind" => kind).absolute(0);
        counter!("stratum_pow_refused_total", "kind" => kind).absolute(0);
    }
    gauge!("stratum_connections").set(0.0);
    for reason in ["server_full", "address_full", "network_too_fast", DENIED] {
        counter!("stratum_connections_refused_total", "reason" => reason).absolute(0);
    }
    for kind in ["silent", "tls", "http", "stratum"] {
        gauge!("stratum_uncredited_connections", "kind" => kind).set(0.0);
        for reason in ["full", "network"] {
            counter!("stratum_connections_evicted_total", "kind" => kind, "reason" => reason).absolute(0);
        }
    }
    for result in ["authorized", "refused"] {
        counter!("stratum_authorizations_total", "result" => result).absolute(0);
    }
    for verdict in VERDICTS {
        counter!("stratum_submissions_total", "verdict" => verdict).absolute(0);
    }
    counter!("stratum_solutions_total").absolute(0);
    counter!("stratum_sessions_resumed_total").absolute(0);
    counter!("stratum_not_understood_total").absolute(0);
}

/// Upper bounds of the time histograms' buckets, in seconds: from the 10 µs of a submission to the 30 s of a slow call.
pub const SECONDS_BUCKETS: [f64; 20] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Common verdicts, each with a prepared counter.
const VERDICTS: [&str; 5] = ["accepted", "stale", "duplicate", "low_difficulty", "job_not_found"];

/// Counts per submission or piece of output. Each thread has its own, since threads that share a counter wait for each
/// other's caches; [`Meters::publish`] adds them up.
pub struct Meters {
    shards: ThreadLocal<Shard>,
    published: Mutex<Sums>,
    verdicts: [Counter; VERDICTS.len()],
    accepted_seconds: Histogram,
    refused_seconds: Histogram,
    credited: Counter,
    credited_late: Counter,
    bytes_sent: Counter,
    jobs_sent: Counter,
    job_seconds: Histogram,
    fanout_first: Histogram,
    fanout_last: Histogram,
}

/// Counts of one thread, its only writer.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    verdicts: [Count; VERDICTS.len()],
    accepted: Times,
    refused: Times,
    credited: Count,
    credited_late: Count,
    bytes_sent: Count,
    jobs_sent: Count,
}

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations by bucket: their number, and their sum in nanoseconds. The last bucket has no upper bound.
#[derive(Debug, Default)]
struct Times([(Count, Count); SECONDS_BUCKETS.len() + 1]);

impl Times {
    fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        // Nearly all are in one of the first buckets.
        let bucket = SECONDS_BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(SECONDS_BUCKETS.len());
        let (count, sum) = &self.0[bucket];
        sum.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        count.add(1);
    }
}

/// Published times of all threads together.
#[derive(Debug, Default)]
struct Sums {
    accepted: [(u64, u64); SECONDS_BUCKETS.len() + 1],
    refused: [(u64, u64); SECONDS_BUCKETS.len() + 1],
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            shards: ThreadLocal::new(),
            published: Mutex::default(),
            verdicts: VERDICTS.map(|verdict| counter!("stratum_submissions_total", "verdict" => verdict)),
            accepted_seconds: histogram!("stratum_submission_seconds", "result" => "accepted"),
            refused_seconds: histogram!("stratum_submission_seconds", "result" => "refused"),
            credited: counter!("stratum_credited_hashes_total"),
            credited_late: counter!("stratum_credited_late_hashes_total"),
            bytes_sent: counter!("stratum_bytes_sent_total"),
            jobs_sent: counter!("stratum_jobs_sent_total"),
            job_seconds: histogram!("stratum_job_seconds"),
            fanout_first: histogram!("stratum_fanout_seconds", "connection" => "first"),
            fanout_last: histogram!("stratum_fanout_seconds", "connection" => "last"),
        }
    }
}

impl Meters {
    /// Passes the counts to the recorder; to be called before a scrape.
    pub fn publish(&self) {
        let sum = |count: fn(&Shard) -> &Count| self.shards.iter().map(|shard| count(shard).get()).sum();
        // Held until the end, so that an older sum cannot follow a newer one.
        let mut published = self.published.lock();
        for (index, counter) in self.verdicts.iter().enumerate() {
            counter.absolute(self.shards.iter().map(|shard| shard.verdicts[index].get()).sum());
        }
        self.credited.absolute(sum(|shard| &shard.credited));
        self.credited_late.absolute(sum(|shard| &shard.credited_late));
        self.bytes_sent.absolute(sum(|shard| &shard.bytes_sent));
        self.jobs_sent.absolute(sum(|shard| &shard.jobs_sent));
        let Sums { accepted, refused } = &mut *published;
        self.publish_times(&self.accepted_seconds, |shard| &shard.accepted, accepted);
        self.publish_times(&self.refused_seconds, |shard| &shard.refused, refused);
    }

    /// Records the durations since `published`, each as the average of its bucket: buckets and sums are the same as if
    /// each duration had been recorded.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of months, for people")]
    fn publish_times(&self, histogram: &Histogram, times: fn(&Shard) -> &Times, published: &mut [(u64, u64)]) {
        for (bucket, published) in published.iter_mut().enumerate() {
            let counted = self.shards.iter().map(|shard| &times(shard).0[bucket]);
            let (count, sum) = counted
                .fold((0, 0_u64), |(count, sum), counted| (count + counted.0.get(), sum.wrapping_add(counted.1.get())));
            let new = count - published.0;
            if new == 0 {
                continue;
            }
            let average = sum.wrapping_sub(published.1) as f64 / new as f64 / 1e9;
            // The thread may be between sum and count: the bucket is right all the same.
            let above = bucket.checked_sub(1).map_or(0.0, |below| SECONDS_BUCKETS[below].next_up());
            let average = average.max(above).min(SECONDS_BUCKETS.get(bucket).copied().unwrap_or(f64::MAX));
            histogram.record_many(average, usize::try_from(new).unwrap_or(usize::MAX));
            *published = (count, sum);
        }
    }

    fn shard(&self) -> &Shard {
        self.shards.get_or_default()
    }

    /// Counts a judged submission, and the time it took.
    pub fn judged(&self, verdict: &'static str, credit: Option<&Credit>, took: Duration) {
        let shard = self.shard();
        match VERDICTS.iter().position(|known| *known == verdict) {
            Some(index) => shard.verdicts[index].add(1),
            None => counter!("stratum_submissions_total", "verdict" => verdict).increment(1),
        }
        if verdict == VERDICTS[0] { &shard.accepted } else { &shard.refused }.add(took);
        if let Some(credit) = credit {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "positive, and saturating is right"
            )]
            let hashes = credit.difficulty.average_hashes() as u64;
            if credit.is_late { &shard.credited_late } else { &shard.credited }.add(hashes);
        }
    }

    pub(super) fn job_sent(&self) {
        self.shard().jobs_sent.add(1);
    }

    pub(super) fn job_took(&self, duration: Duration) {
        self.job_seconds.record(duration);
    }

    pub(super) fn reached(&self, reached: &Reached) {
        self.fanout_first.record(reached.first);
        if let Some(last) = reached.last {
            self.fanout_last.record(last);
        }
    }

    pub(super) fn bytes_sent(&self, count: usize) {
        self.shard().bytes_sent.add(count as u64);
    }
}

pub(super) fn connections(open: usize) {
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 connections")]
    gauge!("stratum_connections").set(open as f64);
}

pub(super) fn opened() {
    counter!("stratum_connections_opened_total").increment(1);
}

pub(super) fn refused(reason: &'static str) {
    counter!("stratum_connections_refused_total", "reason" => reason).increment(1);
}

pub(super) fn evicted(kind: &'static str, reason: &'static str) {
    counter!("stratum_connections_evicted_total", "kind" => kind, "reason" => reason).increment(1);
}

pub(super) fn uncredited(kind: &'static str, open: usize) {
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 connections")]
    gauge!("stratum_uncredited_connections", "kind" => kind).set(open as f64);
}

/// Reason of connections from networks that may not use the port.
const DENIED: &str = "denied";

/// Counts a connection from a network that may not use the port.
pub fn denied() {
    refused(DENIED);
}

pub(super) fn closed(reason: &'static str) {
    counter!("stratum_connections_closed_total", "reason" => reason).increment(1);
}

/// Counts a name that was `authorized` or `refused`.
pub fn authorized(result: &'static str) {
    counter!("stratum_authorizations_total", "result" => result).increment(1);
}

/// Counts a solution.
pub fn solution() {
    counter!("stratum_solutions_total").increment(1);
}

/// Sets the number of queued hashes of a kind.
pub(super) fn pow_queued(kind: &'static str, count: usize) {
    #[expect(clippy::cast_precision_loss, reason = "queues are shorter than 2^53")]
    gauge!("stratum_pow_queued", "kind" => kind).set(count as f64);
}

/// Counts a hash that is computed now, and the time for which it was queued.
pub(super) fn pow_begins(kind: &'static str, waited: Duration) {
    counter!("stratum_pow_computed_total", "kind" => kind).increment(1);
    histogram!("stratum_pow_wait_seconds", "kind" => kind).record(waited);
}

pub(super) fn pow_refused(kind: &'static str) {
    counter!("stratum_pow_refused_total", "kind" => kind).increment(1);
}

pub(super) fn job_too_big(device: &'static str) {
    counter!("stratum_jobs_too_big_total", "device" => device).increment(1);
}

pub(super) fn resumed() {
    counter!("stratum_sessions_resumed_total").increment(1);
}

pub(super) fn not_understood() {
    counter!("stratum_not_understood_total").increment(1);
}
