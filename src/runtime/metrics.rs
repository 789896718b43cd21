//! The registry of metrics, the metrics of the process itself, and the naming rule.
//!
//! Names are `part_what_unit`, counters end in `_total`, times are in seconds; label values come from fixed sets, never
//! from worker names. Each part describes its own metrics in a `describe` function. Each has a panel or an alert in
//! `grafana/` (enforced by `tests/tidy.rs`).

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;
use stratum::server::metrics::SECONDS_BUCKETS;
use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Interval of compacting histograms when nothing scrapes them.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Interval of measuring how late the runtime wakes a task.
const DELAY_INTERVAL: Duration = Duration::from_secs(1);

/// Installs the process-wide recorder.
///
/// # Errors
/// One is installed already.
pub fn install() -> Result<PrometheusHandle, metrics::SetRecorderError<metrics_exporter_prometheus::PrometheusRecorder>>
{
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)
        .expect("the list of buckets is not empty")
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    metrics_process::Collector::default().describe();
    describe_gauge!("p2pool_build_info", "Always 1; the version is in the label");
    describe_gauge!("p2pool_network_info", "Always 1; the network that is mined on is in the label");
    describe_counter!("log_messages_total", "Warnings and errors that were logged, by level");
    describe_counter!(
        "log_dropped_lines_total",
        "Log lines that were dropped because their output failed or took none, by output"
    );
    describe_gauge!("runtime_tasks", "Tasks of the runtime that are alive: several of each connection");
    describe_histogram!(
        "runtime_delay_seconds",
        metrics::Unit::Seconds,
        "How late the runtime wakes a task that slept: what everything else waits, too"
    );
    gauge!("p2pool_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for level in ["warn", "error"] {
        counter!("log_messages_total", "level" => level).absolute(0);
    }
    for sink in ["terminal", "file"] {
        counter!("log_dropped_lines_total", "sink" => sink).absolute(0);
    }
    Ok(handle)
}

/// Publishes the name of the network.
pub fn set_network(name: &'static str) {
    gauge!("p2pool_network_info", "network" => name).set(1.0);
}

/// Renders the text that Prometheus scrapes.
pub fn render(handle: &PrometheusHandle) -> String {
    metrics_process::Collector::default().collect();
    handle.render()
}

/// Compacts histograms and measures the runtime, until `stop`.
pub async fn upkeep(handle: PrometheusHandle, stop: CancellationToken) {
    let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut woken = Instant::now() + DELAY_INTERVAL;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = upkeep.tick() => handle.run_upkeep(),
            () = tokio::time::sleep_until(woken) => {
                let now = Instant::now();
                histogram!("runtime_delay_seconds").record(now - woken);
                #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 tasks")]
                gauge!("runtime_tasks").set(Handle::current().metrics().num_alive_tasks() as f64);
                woken = now + DELAY_INTERVAL;
            }
        }
    }
}

/// Counts warnings and errors in the log, for boards.
#[derive(Debug, Clone, Copy)]
pub struct LogCounter;

impl<S: Subscriber> Layer<S> for LogCounter {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            _ => return,
        };
        counter!("log_messages_total", "level" => level).increment(1);
    }
}
