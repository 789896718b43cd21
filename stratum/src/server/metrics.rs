//! Every `stratum_*` metric, its help text and labels.

use metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;

use super::fanout::Reached;

/// Names and explains the metrics; call once, after a recorder was installed.
pub fn describe() {
    describe_gauge!("stratum_connections", "Connections of miners that are open now");
    describe_counter!("stratum_connections_opened_total", "Connections of miners that were taken");
    describe_counter!("stratum_connections_refused_total", "Connections that were not taken, by reason");
    describe_counter!("stratum_connections_closed_total", "Connections that ended, by reason");
    describe_counter!("stratum_submissions_total", "Submissions, by verdict");
    describe_counter!("stratum_authorizations_total", "Worker names, by whether they were authorised or refused");
    describe_counter!("stratum_solutions_total", "Submissions good enough for a share or a block");
    describe_counter!("stratum_credited_hashes_total", "Hashes that accepted submissions stand for");
    describe_counter!("stratum_credited_late_hashes_total", "Hashes that submissions for dropped work stand for");
    describe_counter!("stratum_credits_dropped_total", "Credits and refusals that statistics were too slow to take");
    describe_counter!("stratum_jobs_sent_total", "Jobs sent to miners because of new work");
    describe_counter!("stratum_bytes_sent_total", "Bytes sent to miners");
    describe_histogram!(
        "stratum_submission_seconds",
        metrics::Unit::Seconds,
        "From reading a line to having its answer ready to send, by whether it was accepted or refused"
    );
    describe_counter!("stratum_jobs_too_big_total", "Sessions whose device most likely cannot hold the job, by device");
    describe_counter!("stratum_sessions_resumed_total", "Sessions that miners went on with after a lost connection");
    describe_counter!("stratum_not_understood_total", "Requests for methods, or with parameters, that nobody knows");
    describe_histogram!(
        "stratum_job_seconds",
        metrics::Unit::Seconds,
        "From a connection's learning of new work to having sent the job"
    );
    describe_histogram!(
        "stratum_fanout_seconds",
        metrics::Unit::Seconds,
        "From the making of new work to having sent the job to the first and to the last connection"
    );
    gauge!("stratum_connections").set(0.0);
    for reason in ["server_full", "address_full", "network_too_fast"] {
        counter!("stratum_connections_refused_total", "reason" => reason).absolute(0);
    }
    for result in ["authorized", "refused"] {
        counter!("stratum_authorizations_total", "result" => result).absolute(0);
    }
    for verdict in VERDICTS {
        counter!("stratum_submissions_total", "verdict" => verdict).absolute(0);
    }
    counter!("stratum_credits_dropped_total").absolute(0);
    counter!("stratum_solutions_total").absolute(0);
    counter!("stratum_sessions_resumed_total").absolute(0);
    counter!("stratum_not_understood_total").absolute(0);
}

/// The verdicts that are common, each with a counter at hand.
const VERDICTS: [&str; 5] = ["accepted", "stale", "duplicate", "low_difficulty", "job_not_found"];

/// What is counted for every submission or piece of output, looked up once: a look-up costs more than many a check.
pub struct Meters {
    verdicts: [Counter; VERDICTS.len()],
    accepted_seconds: Histogram,
    refused_seconds: Histogram,
    credited: Counter,
    credited_late: Counter,
    credits_dropped: Counter,
    bytes_sent: Counter,
    jobs_sent: Counter,
    job_seconds: Histogram,
    fanout_first: Histogram,
    fanout_last: Histogram,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            verdicts: VERDICTS.map(|verdict| counter!("stratum_submissions_total", "verdict" => verdict)),
            accepted_seconds: histogram!("stratum_submission_seconds", "result" => "accepted"),
            refused_seconds: histogram!("stratum_submission_seconds", "result" => "refused"),
            credited: counter!("stratum_credited_hashes_total"),
            credited_late: counter!("stratum_credited_late_hashes_total"),
            credits_dropped: counter!("stratum_credits_dropped_total"),
            bytes_sent: counter!("stratum_bytes_sent_total"),
            jobs_sent: counter!("stratum_jobs_sent_total"),
            job_seconds: histogram!("stratum_job_seconds"),
            fanout_first: histogram!("stratum_fanout_seconds", "connection" => "first"),
            fanout_last: histogram!("stratum_fanout_seconds", "connection" => "last"),
        }
    }
}

impl Meters {
    /// A submission was judged, and how long that took.
    pub fn verdict(&self, verdict: &'static str, took: Duration) {
        match VERDICTS.iter().position(|known| *known == verdict) {
            Some(index) => self.verdicts[index].increment(1),
            None => counter!("stratum_submissions_total", "verdict" => verdict).increment(1),
        }
        if verdict == VERDICTS[0] { &self.accepted_seconds } else { &self.refused_seconds }.record(took);
    }

    /// Work was put to a worker's account, or `dropped`.
    pub fn credited(&self, hashes: f64, late: bool, dropped: bool) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and saturating is right"
        )]
        let hashes = hashes as u64;
        if late { &self.credited_late } else { &self.credited }.increment(hashes);
        if dropped {
            self.deed_dropped();
        }
    }

    /// Statistics were too slow to take what they are told of a submission.
    pub fn deed_dropped(&self) {
        self.credits_dropped.increment(1);
    }

    pub(super) fn job_sent(&self) {
        self.jobs_sent.increment(1);
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
        self.bytes_sent.increment(count as u64);
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

pub(super) fn closed(reason: &'static str) {
    counter!("stratum_connections_closed_total", "reason" => reason).increment(1);
}

/// A name was `authorized` or `refused`.
pub fn authorized(result: &'static str) {
    counter!("stratum_authorizations_total", "result" => result).increment(1);
}

/// A solution was found.
pub fn solution() {
    counter!("stratum_solutions_total").increment(1);
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
