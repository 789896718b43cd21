//! Every `stratum_*` metric, its help text and labels.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;

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
    describe_counter!("stratum_credits_dropped_total", "Credits that statistics were too slow to take");
    describe_counter!("stratum_jobs_sent_total", "Jobs sent to miners because of new work");
    describe_counter!("stratum_bytes_sent_total", "Bytes sent to miners");
    describe_histogram!(
        "stratum_submission_seconds",
        metrics::Unit::Seconds,
        "From reading a line to having its answer ready to send"
    );
    gauge!("stratum_connections").set(0.0);
    for verdict in ["accepted", "stale", "duplicate", "low_difficulty", "job_not_found"] {
        counter!("stratum_submissions_total", "verdict" => verdict).absolute(0);
    }
    counter!("stratum_credits_dropped_total").absolute(0);
    counter!("stratum_solutions_total").absolute(0);
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

/// A submission was judged, and how long that took.
pub fn verdict(verdict: &'static str, took: Duration) {
    counter!("stratum_submissions_total", "verdict" => verdict).increment(1);
    histogram!("stratum_submission_seconds").record(took);
}

/// A name was `authorized` or `refused`.
pub fn authorized(result: &'static str) {
    counter!("stratum_authorizations_total", "result" => result).increment(1);
}

/// A solution was found.
pub fn solution() {
    counter!("stratum_solutions_total").increment(1);
}

/// Work was put to a worker's account, or `dropped`.
pub fn credited(hashes: f64, late: bool, dropped: bool) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and saturating is right")]
    let hashes = hashes as u64;
    if late {
        counter!("stratum_credited_late_hashes_total").increment(hashes);
    } else {
        counter!("stratum_credited_hashes_total").increment(hashes);
    }
    if dropped {
        counter!("stratum_credits_dropped_total").increment(1);
    }
}

pub(super) fn job_sent() {
    counter!("stratum_jobs_sent_total").increment(1);
}

pub(super) fn bytes_sent(count: usize) {
    counter!("stratum_bytes_sent_total").increment(count as u64);
}
