//! Results of the benchmark, as a table or as JSON.

use serde::Serialize;
use std::fmt;
use std::io::{self, Write};

/// Results of all measures.
#[derive(Debug, Default, Serialize)]
pub(super) struct Table {
    rows: Vec<Row>,
    /// Failures towards miners that must not occur.
    pub(super) wrongs: Vec<String>,
}

/// A result.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    measure: String,
    unit: &'static str,
    node: f64,
    /// Result of the bare server.
    bare: Option<f64>,
    ratio: Option<f64>,
    target: Option<String>,
    ok: Option<bool>,
}

impl Row {
    pub(super) fn new(measure: impl Into<String>, unit: &'static str, node: f64) -> Self {
        Self { measure: measure.into(), unit, node, bare: None, ratio: None, target: None, ok: None }
    }

    /// Adds the result of the bare server.
    pub(super) fn beside(self, bare: f64) -> Self {
        Self { bare: Some(bare), ratio: Some(self.node / bare), ..self }
    }

    /// Requires a minimum ratio.
    pub(super) fn at_least(self, ratio: f64) -> Self {
        let is_met = self.ratio.is_some_and(|has| has >= ratio);
        self.must(is_met, &format!("≥ {ratio:.2}"))
    }

    /// Records whether the target is met.
    pub(super) fn must(self, is_met: bool, target: &str) -> Self {
        Self { target: Some(target.to_owned()), ok: Some(is_met), ..self }
    }
}

impl Table {
    pub(super) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Writes all results as one JSON object.
    pub(super) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<44}{:>12}{:>12}{:>8}  {:<16}{:>4}", "measure", "node", "bare", "ratio", "target", "ok")?;
        for Row { measure, unit, node, bare, ratio, target, ok } in &self.rows {
            let (node, bare) = (shown(*node), bare.map(shown).unwrap_or_default());
            let ratio = ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let ok = ok.map_or("", |ok| if ok { "yes" } else { "no" });
            let measure = if unit.is_empty() { measure.clone() } else { format!("{measure} [{unit}]") };
            writeln!(f, "{measure:<44}{node:>12}{bare:>12}{ratio:>8}  {:<16}{ok:>4}", target.as_deref().unwrap_or(""))?;
        }
        Ok(())
    }
}

/// Formats a value with its significant digits.
fn shown(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
