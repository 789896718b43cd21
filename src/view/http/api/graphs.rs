//! Graphs over an hour up to a year.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

use super::{Answer, Problem, Sources, is_worker_of};
use crate::view::graphs::{Bin, ONLY, SPANS, Value};

/// Default number of lines of a graph.
const SERIES_DEFAULT: usize = 20;

/// Satoshis in a coin.
const SATOSHIS: f64 = 1e8;

/// Sources with title, unit (`""` for a count), and a flag that is set if the lines add up to a total.
const SHOWN: [(&str, &str, &str, bool); 13] = [
    ("pool_rates", "Hash rate of the pool", "H/s", true),
    ("local_hash_rate", "Hash rate of this node", "H/s", false),
    ("miner_hash_rates", "Hash rate by worker", "H/s", true),
    ("local_share_hash_rates", "Hash rate of this node, estimated from its shares", "H/s", true),
    ("current_payout", "Expected payout of this node", "satoshi", false),
    ("current_payouts", "Expected payouts of this node's miners", "satoshi", true),
    ("local_dead_hash_rate", "Late hash rate of this node", "H/s", false),
    ("miner_dead_hash_rates", "Late hash rate by worker", "H/s", true),
    ("desired_version_rates", "Hash rate by desired share version", "H/s", true),
    ("peers", "Peers", "", true),
    ("traffic_rate", "Traffic with peers", "B/s", false),
    ("getwork_latency", "Time of bitcoind for a template", "s", false),
    ("memory_usage", "Memory", "B", false),
];

/// Available graphs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Graphs {
    /// Measured quantities.
    sources: Vec<Source>,
    /// Time ranges and their resolution.
    views: Vec<View>,
}

/// A measured quantity.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Source {
    /// Name in paths.
    source: &'static str,
    /// Title for display.
    title: &'static str,
    /// `H/s`, `B/s`, `B`, `s`, `satoshi`, or empty for a count.
    unit: &'static str,
    /// True if its lines add up to a total.
    is_stacked: bool,
}

/// A time range.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct View {
    /// Name in paths.
    view: &'static str,
    /// Length of the range, in seconds.
    seconds: f64,
    /// Time between two values, in seconds.
    bin_seconds: f64,
}

/// Values over time, oldest first.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Graph {
    /// Measured quantity.
    source: String,
    /// Time range.
    view: String,
    /// `H/s`, `B/s`, `B`, `s`, `satoshi`, or empty for a count.
    unit: &'static str,
    /// Time between two values, in seconds.
    bin_seconds: f64,
    /// Midpoint of the time of each value.
    times: Vec<f64>,
    /// Lines, those with the largest values first.
    series: Vec<Series>,
    /// Number of smaller lines left out.
    omitted: usize,
}

/// One line.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Series {
    /// Label of the line; empty if it is the only one.
    name: String,
    /// One value per time; null where nothing was measured.
    values: Vec<Option<f64>>,
}

/// Query parameters that select lines.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Lines {
    limit: Option<usize>,
    address: Option<String>,
}

/// Available graphs.
#[utoipa::path(get, path = "/api/v1/graphs", tag = "graphs", responses((status = 200, description = "Sources and views", body = Graphs)))]
pub(super) async fn graphs() -> Json<Graphs> {
    let sources = SHOWN.iter().map(|&(source, title, unit, is_stacked)| Source { source, title, unit, is_stacked });
    #[expect(clippy::cast_precision_loss, reason = "some hundred bins")]
    let views = SPANS.iter().map(|span| View {
        view: span.name,
        seconds: span.bins as f64 * span.width,
        bin_seconds: span.width,
    });
    Json(Graphs { sources: sources.collect(), views: views.collect() })
}

/// One graph.
#[utoipa::path(get, path = "/api/v1/graphs/{source}/{view}", tag = "graphs",
    params(("source" = String, Path, description = "As in `/api/v1/graphs`"), ("view" = String, Path, description = "As in `/api/v1/graphs`"),
        ("limit" = Option<usize>, Query, description = "Maximum number of lines"),
        ("address" = Option<String>, Query, description = "For lines by worker: only the sum over this address's workers")),
    responses((status = 200, description = "The graph", body = Graph), (status = 400, description = "Not a limit", body = Problem),
        (status = 404, description = "No such source or view", body = Problem)))]
pub(super) async fn graph(
    state: State<Sources>,
    Path((source, view)): Path<(String, String)>,
    query: Result<Query<Lines>, QueryRejection>,
) -> Answer<Graph> {
    let Query(lines) = query.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let missing = || Problem::not_found(format!("there is no graph {source}/{view}; /api/v1/graphs lists them"));
    let &(_, _, unit, _) = SHOWN.iter().find(|shown| shown.0 == source).ok_or_else(missing)?;
    let span = SPANS.iter().find(|span| span.name == view).ok_or_else(missing)?;
    let bins = state.graphs.draw(&source, &view).ok_or_else(missing)?;
    let (series, omitted) = series(&bins, &lines, if unit == "satoshi" { SATOSHIS } else { 1.0 });
    let times = bins.iter().rev().map(|bin| bin.center).collect();
    Ok(Json(Graph {
        source: source.clone(),
        view: view.clone(),
        unit,
        bin_seconds: span.width,
        times,
        series,
        omitted,
    }))
}

/// Returns the lines of `bins`, and the number of lines left out.
fn series(bins: &[Bin], lines: &Lines, factor: f64) -> (Vec<Series>, usize) {
    let mut totals: BTreeMap<&Arc<str>, f64> = BTreeMap::new();
    for bin in bins {
        if let Value::Many(values) = &bin.value {
            for (key, value) in values.iter().filter(|(key, _)| &***key != ONLY) {
                *totals.entry(key).or_default() += value;
            }
        }
    }
    let is_one = totals.is_empty() && bins.iter().all(|bin| !matches!(bin.value, Value::Many(_)));
    if let Some(address) = &lines.address {
        let theirs: Vec<&Arc<str>> = totals.into_keys().filter(|name| is_worker_of(name, address)).collect();
        let sum = |bin: &Bin| theirs.iter().filter_map(|key| value_of(bin, key)).reduce(|sum, value| sum + value);
        let values = bins.iter().rev().map(|bin| sum(bin).map(|value| value * factor)).collect();
        return (vec![Series { name: address.clone(), values }], 0);
    }
    if is_one {
        let one = |bin: &Bin| if let Value::One(value) = bin.value { Some(value * factor) } else { None };
        return (vec![Series { name: String::new(), values: bins.iter().rev().map(one).collect() }], 0);
    }
    let mut ranked: Vec<(&Arc<str>, f64)> = totals.into_iter().collect();
    ranked.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let kept = ranked.len().min(lines.limit.unwrap_or(SERIES_DEFAULT));
    let series = ranked[..kept].iter().map(|(key, _)| Series {
        name: key.to_string(),
        values: bins.iter().rev().map(|bin| value_of(bin, key).map(|value| value * factor)).collect(),
    });
    (series.collect(), ranked.len() - kept)
}

/// Returns a bin's value of a key.
fn value_of(bin: &Bin, key: &str) -> Option<f64> {
    let Value::Many(values) = &bin.value else { return None };
    values.get(key).copied().or(bin.default.map(f64::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::graphs::DESCRIPTIONS;

    #[test]
    fn every_source_is_shown() {
        let mut shown: Vec<&str> = SHOWN.iter().map(|shown| shown.0).collect();
        let mut there: Vec<&str> = DESCRIPTIONS.iter().map(|description| description.name).collect();
        shown.sort_unstable();
        there.sort_unstable();
        assert_eq!(shown, there);
    }

    fn bin(center: f64, values: &[(&str, f64)]) -> Bin {
        let values: BTreeMap<Arc<str>, f64> = values.iter().map(|(key, value)| (Arc::from(*key), *value)).collect();
        let value = if values.is_empty() { Value::Unknown } else { Value::Many(values) };
        Bin { center, value, width: 1.0, default: None }
    }

    fn lines_of(drawn: &[Series]) -> Vec<(&str, Vec<Option<f64>>)> {
        drawn.iter().map(|series| (series.name.as_str(), series.values.clone())).collect()
    }

    #[test]
    fn lines_are_oldest_first_the_largest_first_and_no_more_than_wanted() {
        let bins = [
            bin(3.0, &[("a.x", 5.0), (ONLY, 1.0)]),
            bin(2.0, &[]),
            bin(1.0, &[("a.x", 1.0), ("b", 2.0), ("a.y", 1.0)]),
        ];
        let (drawn, omitted) = series(&bins, &Lines { limit: Some(2), address: None }, 10.0);
        assert_eq!(
            lines_of(&drawn),
            [("a.x", vec![Some(10.0), None, Some(50.0)]), ("b", vec![Some(20.0), None, None])]
        );
        assert_eq!(omitted, 1);
        let (drawn, _) = series(&bins, &Lines { limit: None, address: Some("a".into()) }, 1.0);
        assert_eq!(lines_of(&drawn), [("a", vec![Some(2.0), None, Some(5.0)])]);
    }

    #[test]
    fn a_source_of_one_value_has_one_line_without_a_name() {
        let bins = [Bin { center: 2.0, value: Value::One(7.0), width: 1.0, default: None }, bin(1.0, &[])];
        let (drawn, omitted) = series(&bins, &Lines::default(), 1.0);
        assert_eq!((lines_of(&drawn), omitted), (vec![("", vec![None, Some(7.0)])], 0));
    }
}
