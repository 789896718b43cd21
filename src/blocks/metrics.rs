//! Metrics of found blocks, by chain.

use metrics::{Gauge, Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
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

/// Each has the label `chain` as well.
const MERGED: Names = Names {
    submissions: "merged_block_submissions_total",
    submission_seconds: "merged_block_submission_seconds",
    verdicts: "merged_blocks_total",
    safe_seconds: "merged_block_safe_seconds",
    unsettled: "merged_blocks_unsettled",
    standings: "merged_found_blocks",
    events: "merged_found_events_total",
};

/// Outcomes that a verdict can have.
const VERDICTS: [&str; 3] = ["accepted", "stale", "rejected"];

impl Chain {
    fn names(&self) -> &'static Names {
        if self.name().is_some() { &MERGED } else { &PARENT }
    }

    /// Returns these labels, after the name of a merged chain.
    fn labels<const COUNT: usize>(&self, labels: [(&'static str, &'static str); COUNT]) -> Vec<Label> {
        let chain = self.name().map(|name| Label::new("chain", name.clone()));
        let labels = labels.map(|(label, value)| Label::from_static_parts(label, value));
        chain.into_iter().chain(labels).collect()
    }

    /// Counts an attempt of a route.
    pub(super) fn count_submission(&self, route: &'static str, outcome: &Outcome, took: Duration) {
        let names = self.names();
        histogram!(names.submission_seconds, self.labels([("route", route)])).record(took);
        let labels = self.labels([("route", route), ("outcome", outcome.word())]);
        counter!(names.submissions, labels).increment(1);
    }

    /// Counts a verdict on a block.
    pub(super) fn count_verdict(&self, outcome: &Outcome) {
        counter!(self.names().verdicts, self.labels([("outcome", outcome.word())])).increment(1);
    }

    /// Records the time during which the end of the process would have lost a block.
    pub(super) fn record_safe(&self, after: Duration) {
        histogram!(self.names().safe_seconds, self.labels([])).record(after);
    }

    /// Returns the gauge of blocks without a verdict.
    pub(super) fn unsettled(&self) -> Gauge {
        gauge!(self.names().unsettled, self.labels([]))
    }

    /// Publishes the number of remembered blocks with that standing.
    pub(super) fn set_standing(&self, standing: Standing, count: usize) {
        #[expect(clippy::cast_precision_loss, reason = "at most BLOCKS_MAX")]
        gauge!(self.names().standings, self.labels([("standing", standing.word())])).set(count as f64);
    }

    /// Counts an event of a block.
    pub(super) fn count_event(&self, kind: EventKind) {
        counter!(self.names().events, self.labels([("kind", kind.word())])).increment(1);
    }

    /// Publishes zeros, so that the first block is an increase.
    pub(super) fn register(&self) {
        let names = self.names();
        self.unsettled().set(0.0);
        for outcome in VERDICTS {
            counter!(names.verdicts, self.labels([("outcome", outcome)])).absolute(0);
        }
        for standing in Standing::ALL {
            self.set_standing(standing, 0);
        }
        for kind in EventKind::ALL {
            counter!(names.events, self.labels([("kind", kind.word())])).absolute(0);
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
    describe_merged();
}

fn describe_merged() {
    describe_counter!(
        "merged_block_submissions_total",
        "Attempts to deliver a found block of a merged chain, by chain, route and outcome"
    );
    describe_histogram!(
        "merged_block_submission_seconds",
        Unit::Seconds,
        "Time of attempts to deliver a found block of a merged chain, by chain and route"
    );
    describe_counter!(
        "merged_blocks_total",
        "Verdicts on found blocks of merged chains, by chain and outcome; a stale block that the chain takes later has two"
    );
    describe_histogram!(
        "merged_block_safe_seconds",
        Unit::Seconds,
        "Time from a miner's submission until its block of a merged chain survives the end of the process: on disk, or with \
         the chain's daemon; by chain"
    );
    describe_gauge!("merged_blocks_unsettled", "Found blocks of merged chains whose fate is not known yet, by chain");
    describe_gauge!(
        "merged_found_blocks",
        "Found blocks of merged chains that are remembered, by chain and where they stand"
    );
    describe_counter!("merged_found_events_total", "What happened to found blocks of merged chains, by chain and kind");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Renders what `record` records.
    fn rendered(record: impl FnOnce()) -> String {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, record);
        recorder.handle().render()
    }

    fn record(chain: &Chain) {
        chain.register();
        chain.count_submission("rpc", &Outcome::Accepted, Duration::from_secs(1));
        chain.count_verdict(&Outcome::Stale);
        chain.record_safe(Duration::from_secs(1));
        chain.unsettled().increment(1.0);
        chain.set_standing(Standing::Mature, 2);
        chain.count_event(EventKind::Orphaned);
    }

    #[test]
    fn the_parent_chains_metrics_are_those_of_every_version() {
        let text = rendered(|| record(&Chain::default()));
        for line in [
            "bitcoind_block_submissions_total{route=\"rpc\",outcome=\"accepted\"} 1\n",
            "bitcoind_block_submission_seconds_count{route=\"rpc\"} 1\n",
            "bitcoind_blocks_total{outcome=\"accepted\"} 0\n",
            "bitcoind_blocks_total{outcome=\"stale\"} 1\n",
            "bitcoind_block_safe_seconds_count 1\n",
            "bitcoind_blocks_unsettled 1\n",
            "found_blocks{standing=\"mature\"} 2\n",
            "found_events_total{kind=\"orphaned\"} 1\n",
            "found_events_total{kind=\"found\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
        assert!(!text.contains("chain=") && !text.contains("merged_"), "{text}");
    }

    #[test]
    fn merged_chains_have_a_label_each() {
        let chains = ["dogecoin", "namecoin"].map(|name| Chain::merged(name, 240).unwrap());
        let text = rendered(|| chains.iter().for_each(record));
        for chain in ["dogecoin", "namecoin"] {
            for line in [
                format!("merged_block_submissions_total{{chain=\"{chain}\",route=\"rpc\",outcome=\"accepted\"}} 1\n"),
                format!("merged_block_submission_seconds_count{{chain=\"{chain}\",route=\"rpc\"}} 1\n"),
                format!("merged_blocks_total{{chain=\"{chain}\",outcome=\"rejected\"}} 0\n"),
                format!("merged_block_safe_seconds_count{{chain=\"{chain}\"}} 1\n"),
                format!("merged_blocks_unsettled{{chain=\"{chain}\"}} 1\n"),
                format!("merged_found_blocks{{chain=\"{chain}\",standing=\"mature\"}} 2\n"),
                format!("merged_found_events_total{{chain=\"{chain}\",kind=\"orphaned\"}} 1\n"),
            ] {
                assert!(text.contains(&line), "{line} is missing in:\n{text}");
            }
        }
        assert!(!text.contains("bitcoind_") && !text.contains("\nfound_"), "{text}");
    }
}
