//! Metrics of found blocks, by chain.

use metrics::{Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;

use super::Outcome;
use super::chain::Chain;
use super::found::{EventKind, Standing};

/// Names of a chain's metrics.
struct Names {
    submissions: &'static str,
    submission_seconds: &'static str,
    verdicts: &'static str,
    safe_seconds: &'static str,
    unsettled: &'static str,
    standings: &'static str,
    events: &'static str,
}

const PARENT: Names = Names {
    submissions: "bitcoind_block_submissions_total",
    submission_seconds: "bitcoind_block_submission_seconds",
    verdicts: "bitcoind_blocks_total",
    safe_seconds: "bitcoind_block_safe_seconds",
    unsettled: "bitcoind_blocks_unsettled",
    standings: "found_blocks",
    events: "found_events_total",
};

/// Outcomes that a verdict can have.
const VERDICTS: [&str; 3] = ["accepted", "stale", "rejected"];

impl Chain {
    fn names(&self) -> &'static Names {
        &PARENT
    }

    /// Counts an attempt of a route.
    pub(super) fn count_submission(&self, route: &'static str, outcome: &Outcome, took: Duration) {
        let names = self.names();
        histogram!(names.submission_seconds, "route" => route).record(took);
        counter!(names.submissions, "route" => route, "outcome" => outcome.word()).increment(1);
    }

    /// Counts a verdict on a block.
    pub(super) fn count_verdict(&self, outcome: &Outcome) {
        counter!(self.names().verdicts, "outcome" => outcome.word()).increment(1);
    }

    /// Records the time during which the end of the process would have lost a block.
    pub(super) fn record_safe(&self, after: Duration) {
        histogram!(self.names().safe_seconds).record(after);
    }

    /// Returns the gauge of blocks without a verdict.
    pub(super) fn unsettled(&self) -> Gauge {
        gauge!(self.names().unsettled)
    }

    /// Publishes the number of remembered blocks with that standing.
    pub(super) fn set_standing(&self, standing: Standing, count: usize) {
        #[expect(clippy::cast_precision_loss, reason = "at most BLOCKS_MAX")]
        gauge!(self.names().standings, "standing" => standing.word()).set(count as f64);
    }

    /// Counts an event of a block.
    pub(super) fn count_event(&self, kind: EventKind) {
        counter!(self.names().events, "kind" => kind.word()).increment(1);
    }

    /// Publishes zeros, so that the first block is an increase.
    fn register(&self) {
        let names = self.names();
        self.unsettled().set(0.0);
        for outcome in VERDICTS {
            counter!(names.verdicts, "outcome" => outcome).absolute(0);
        }
        for standing in Standing::ALL {
            self.set_standing(standing, 0);
        }
        for kind in EventKind::ALL {
            counter!(names.events, "kind" => kind.word()).absolute(0);
        }
    }
}

/// Describes the metrics of found blocks, and registers those of the parent chain.
pub fn describe() {
    describe_counter!("bitcoind_block_submissions_total", "Attempts to deliver a found block, by route and outcome");
    describe_counter!(
        "bitcoind_blocks_total",
        "Verdicts on found blocks, by outcome; a stale block that the chain takes later has two"
    );
    describe_histogram!(
        "bitcoind_block_safe_seconds",
        Unit::Seconds,
        "Time from a miner's submission until its block survives the end of the process: on disk, or with bitcoind"
    );
    describe_gauge!("bitcoind_blocks_unsettled", "Found blocks whose fate is not known yet");
    describe_histogram!(
        "bitcoind_block_submission_seconds",
        Unit::Seconds,
        "Time of attempts to deliver a found block, by route"
    );
    describe_gauge!("found_blocks", "Found blocks that are remembered, by where they stand");
    describe_counter!("found_events_total", "What happened to found blocks, by kind");
    Chain::default().register();
}
