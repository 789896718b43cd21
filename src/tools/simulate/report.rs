//! Results of a run: lines of text, and the plot of orphan rate against latency as an SVG.

use std::fmt::{self, Write};
use std::time::Duration;

use super::scenario::{Scenario, Settings};
use super::theory::{interval, whole};

/// Result of a scenario.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub scenario: Scenario,
    /// Settings of the run.
    pub settings: Settings,
    /// Measurements, with their names.
    pub facts: Vec<(&'static str, String)>,
    /// Failed checks: empty if all is well.
    pub broken: Vec<String>,
}

impl Outcome {
    pub(super) fn new(scenario: Scenario, settings: &Settings) -> Self {
        Self { scenario, settings: settings.clone(), facts: Vec::new(), broken: Vec::new() }
    }

    /// Adds a measurement.
    pub(super) fn fact(&mut self, name: &'static str, value: impl fmt::Display) {
        self.facts.push((name, value.to_string()));
    }

    /// Adds a failed check unless `holds`.
    pub(super) fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(what());
        }
    }

    /// Returns the command that repeats exactly this run.
    pub fn replay(&self) -> String {
        let Settings { nodes, seed, latency, shares } = &self.settings;
        let latency = latency.as_millis();
        format!("p2pool simulate {} --nodes {nodes} --seed {seed} --latency {latency} --shares {shares}", self.scenario)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.broken.is_empty() { "holds" } else { "BROKEN" };
        writeln!(f, "{verdict}: {}", self.replay())?;
        let width = self.facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in &self.facts {
            writeln!(f, "  {name:width$}  {value}")?;
        }
        for broken in &self.broken {
            writeln!(f, "  BROKEN: {broken}")?;
        }
        Ok(())
    }
}

/// Orphans at one latency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// One-way latency of a link, median.
    pub latency: Duration,
    /// Mean time until hash rate received a share.
    pub delay: Duration,
    /// Shares found.
    pub found: usize,
    /// Number of lost shares among them.
    pub orphans: usize,
    /// Expected part lost to forks, by [`fork_rate`](super::theory::fork_rate).
    pub forks: f64,
    /// Expected part by [`orphan_rate`](super::theory::orphan_rate).
    pub expected: f64,
}

impl Point {
    /// Measured part of shares that were lost.
    pub fn rate(&self) -> f64 {
        whole(self.orphans) / whole(self.found.max(1))
    }

    /// Combines two runs.
    pub(super) fn plus(&self, other: &Point) -> Point {
        let found = self.found + other.found;
        let part = whole(self.found) / whole(found.max(1));
        let mean = |one: f64, other: f64| one * part + other * (1.0 - part);
        Point {
            latency: self.latency,
            delay: Duration::from_secs_f64(mean(self.delay.as_secs_f64(), other.delay.as_secs_f64())),
            found,
            orphans: self.orphans + other.orphans,
            forks: mean(self.forks, other.forks),
            expected: mean(self.expected, other.expected),
        }
    }

    pub(super) fn line(&self) -> String {
        let within = interval(self.orphans, self.found);
        format!(
            "{:>6} of {:>6}: {:>6.2} % ({:.2} to {:.2}); expected {:.2} %, 1 - exp(-d/T) {:.2} %, d = {:.2} s",
            self.orphans,
            self.found,
            100.0 * self.rate(),
            100.0 * within.start(),
            100.0 * within.end(),
            100.0 * self.expected,
            100.0 * self.forks,
            self.delay.as_secs_f64(),
        )
    }
}

/// A logarithmic axis: its range, and its position in the picture.
struct Axis {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let part = (value.clamp(self.from, self.to) / self.from).ln() / (self.to / self.from).ln();
        self.start + part * (self.end - self.start)
    }
}

/// Plots orphan rate against latency as an SVG. `title` describes the simulation.
pub fn plot(points: &[Point], title: &str) -> String {
    let x = Axis { from: 0.04, to: 12.5, start: 70.0, end: 700.0 };
    let y = Axis { from: 0.001, to: 1.0, start: 370.0, end: 50.0 };
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 430\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"720\" height=\"430\" fill=\"#fff\"/>\n",
    );
    // Writing to a string does not fail.
    let _ = writeln!(svg, "<text x=\"385\" y=\"28\" text-anchor=\"middle\" font-size=\"15\">{title}</text>");
    for (value, label) in [
        (0.05, "50 ms"),
        (0.1, "100 ms"),
        (0.2, "200 ms"),
        (0.5, "500 ms"),
        (1.0, "1 s"),
        (2.0, "2 s"),
        (5.0, "5 s"),
        (10.0, "10 s"),
    ] {
        let at = x.place(value);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {} V{}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"388\" text-anchor=\"middle\">{label}</text>",
            y.start, y.end
        );
    }
    for (value, label) in
        [(0.001, "0.1 %"), (0.003, "0.3 %"), (0.01, "1 %"), (0.03, "3 %"), (0.1, "10 %"), (0.3, "30 %"), (1.0, "100 %")]
    {
        let at = y.place(value);
        let _ = writeln!(
            svg,
            "<path d=\"M{} {at:.1} H{}\" stroke=\"#ddd\"/><text x=\"64\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            x.start,
            x.end,
            at + 4.0
        );
    }
    let mut line = |of: fn(&Point) -> f64, style: &str| {
        let corners: Vec<String> = points
            .iter()
            .map(|point| format!("{:.1} {:.1}", x.place(point.latency.as_secs_f64()), y.place(of(point))))
            .collect();
        if !corners.is_empty() {
            let _ = writeln!(svg, "<path d=\"M{}\" fill=\"none\" {style}/>", corners.join(" L"));
        }
    };
    line(|point| point.expected, "stroke=\"#0645ad\" stroke-width=\"1.5\"");
    line(|point| point.forks, "stroke=\"#888\" stroke-width=\"1.5\" stroke-dasharray=\"6 4\"");
    for point in points {
        let within = interval(point.orphans, point.found);
        let at = x.place(point.latency.as_secs_f64());
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {:.1} V{:.1}\" stroke=\"#c00\" stroke-width=\"2\"/><circle cx=\"{at:.1}\" cy=\"{:.1}\" \
             r=\"4\" fill=\"#c00\"/>",
            y.place(*within.start()),
            y.place(*within.end()),
            y.place(point.rate())
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"385\" y=\"414\" text-anchor=\"middle\">latency of a link, one way</text>\n\
         <circle cx=\"90\" cy=\"66\" r=\"4\" fill=\"#c00\"/><text x=\"112\" y=\"70\">orphans measured, with 95 % intervals</text>\n\
         <path d=\"M80 86 H104\" stroke=\"#0645ad\" stroke-width=\"1.5\"/><text x=\"112\" y=\"90\">expected by when hash rate \
         hears of a share; d / (T + d) if all hear after d</text>\n\
         <path d=\"M80 106 H104\" stroke=\"#888\" stroke-width=\"1.5\" stroke-dasharray=\"6 4\"/><text x=\"112\" y=\"110\">1 - \
         exp(-d / T), d being the mean delay and T = 30 s</text>\n</svg>"
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_shows_each_point_inside_its_frame() {
        let point = |millis, orphans| Point {
            latency: Duration::from_millis(millis),
            delay: Duration::from_millis(2 * millis),
            found: 1000,
            orphans,
            forks: 0.01,
            expected: 0.01,
        };
        let svg = plot(&[point(50, 0), point(1000, 60), point(10_000, 400)], "title");
        assert_eq!(svg.matches("r=\"4\" fill=\"#c00\"").count(), 3 + 1);
        assert!(svg.contains("cy=\"370.0\"") && svg.ends_with("</svg>\n"), "no orphan is on the lower edge");
    }
}
