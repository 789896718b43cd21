//! One view of one source: bins of equal width that move with time, as in the reference (protocol section 13.3).

use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Key of sources with one value, and of the count of samples where missing keys count as 0.
pub const ONLY: &str = "null";

/// Conversion of samples to a bin's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Amounts of work or bytes: their sum over the bin's width.
    Rate,
    /// Measurements: their mean.
    Gauge,
    /// Measurements, where a key missing from a sample was 0.
    GaugeOrZero,
}

/// Form in which a source's samples are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Conversion of samples to values.
    pub kind: Kind,
    /// True for several values by key, false for a single one.
    pub is_multi: bool,
    /// Maximum number of keys in a bin: those with the largest values.
    pub keep: usize,
}

/// Range and resolution of a view.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Name in paths.
    pub name: &'static str,
    /// Number of bins.
    pub bins: usize,
    /// Width of a bin in seconds.
    pub width: f64,
}

/// The reference's views.
pub const SPANS: [Span; 5] = [
    Span { name: "last_hour", bins: 150, width: 24.0 },
    Span { name: "last_day", bins: 300, width: 288.0 },
    Span { name: "last_week", bins: 300, width: 2016.0 },
    Span { name: "last_month", bins: 300, width: 8640.0 },
    Span { name: "last_year", bins: 300, width: 105_192.0 },
];

/// Sum and number of samples, by key.
pub(super) type Sums = BTreeMap<Arc<str>, (f64, f64)>;

/// The bins of one view, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    span: Span,
    pub(super) last_bin_end: f64,
    pub(super) bins: VecDeque<Sums>,
}

/// Value of a bin.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Unknown.
    Unknown,
    /// Value of a source with one value.
    One(f64),
    /// Values by key.
    Many(BTreeMap<Arc<str>, f64>),
}

impl Value {
    /// Sum over some keys, in the form of a source with one value.
    #[must_use]
    pub fn total_of(&self, keys: &[&str]) -> Value {
        match self {
            Value::Many(values) if !values.is_empty() => {
                Value::One(keys.iter().filter_map(|key| values.get(*key)).fold(0.0, |sum, value| sum + value))
            }
            Value::Many(_) | Value::Unknown => Value::Unknown,
            Value::One(value) => Value::One(*value),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Unknown => serializer.serialize_none(),
            Value::One(value) => serializer.serialize_f64(*value),
            Value::Many(values) => values.serialize(serializer),
        }
    }
}

/// Bin of a drawn graph; in JSON `[center, value, width, default]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bin {
    /// Middle of its time, seconds since 1970.
    pub center: f64,
    pub value: Value,
    /// Seconds covered; fewer for the newest bin.
    pub width: f64,
    /// Value of a missing key: 0, or `None` where it is unknown.
    pub default: Option<u8>,
}

impl Serialize for Bin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.center, &self.value, self.width, self.default).serialize(serializer)
    }
}

impl View {
    /// Creates a view without samples.
    pub fn new(span: Span) -> Self {
        Self { span, last_bin_end: 0.0, bins: (0..span.bins).map(|_| Sums::new()).collect() }
    }

    /// Restores a stored view; `None` if it does not fit this span.
    pub fn kept(span: Span, last_bin_end: f64, bins: Vec<Sums>) -> Option<Self> {
        let is_right = bins.len() == span.bins && last_bin_end.is_finite() && last_bin_end >= 0.0;
        is_right.then(|| Self { span, last_bin_end, bins: bins.into() })
    }

    /// True if nothing was ever sampled.
    pub fn is_empty(&self) -> bool {
        self.bins.iter().all(BTreeMap::is_empty)
    }

    /// Adds a sample of the time `t`, seconds since 1970. Samples older than the view are dropped.
    pub(super) fn add(&mut self, shape: Shape, t: f64, sample: &[(Arc<str>, f64)]) {
        self.advance(t);
        let back = ((self.last_bin_end - self.span.width - t) / self.span.width).ceil().max(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and saturating")]
        let Some(bin) = self.bins.get_mut(back as usize) else { return };
        for (key, value) in sample {
            let sums = bin.entry(key.clone()).or_default();
            *sums = (sums.0 + value, sums.1 + 1.0);
        }
        if shape.is_multi && shape.kind == Kind::GaugeOrZero && !sample.iter().any(|(key, _)| &**key == ONLY) {
            bin.entry(ONLY.into()).or_default().1 += 1.0;
        }
        while bin.len() > shape.keep {
            let size = |sums: &(f64, f64)| if shape.kind == Kind::Rate { sums.0 } else { sums.0 / sums.1 };
            let others = bin.iter().filter(|(key, _)| &***key != ONLY);
            let Some(least) = others.min_by(|one, other| size(one.1).total_cmp(&size(other.1))) else { return };
            let least = least.0.clone();
            bin.remove(&least);
        }
    }

    /// Moves the bins so that the newest one covers `t`.
    fn advance(&mut self, t: f64) {
        let shift = ((t - self.last_bin_end) / self.span.width).ceil().max(0.0);
        self.last_bin_end += shift * self.span.width;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and saturating")]
        let shift = (shift as usize).min(self.span.bins);
        for _ in 0..shift {
            self.bins.pop_back();
            self.bins.push_front(Sums::new());
        }
    }

    /// Draws the bins at the time `t`, newest first.
    pub fn draw(&self, shape: Shape, t: f64) -> Vec<Bin> {
        let mut now = self.clone();
        now.advance(t);
        let default = (shape.kind != Kind::Gauge).then_some(0);
        let mut right = now.last_bin_end;
        let mut drawn = Vec::with_capacity(now.bins.len());
        for sums in now.bins {
            let left = right - now.span.width;
            let end = right.min(t);
            let width = end - left;
            let values = values(shape.kind, &sums, width);
            let value = match values {
                None => Value::Unknown,
                Some(values) if shape.is_multi => Value::Many(values),
                Some(values) => match (values.get(ONLY), default) {
                    (Some(value), _) => Value::One(*value),
                    (None, Some(_)) => Value::One(0.0),
                    (None, None) => Value::Unknown,
                },
            };
            drawn.push(Bin { center: f64::midpoint(left, end), value, width, default });
            right = left;
        }
        drawn
    }
}

fn values(kind: Kind, sums: &Sums, width: f64) -> Option<BTreeMap<Arc<str>, f64>> {
    let of = |divide: &dyn Fn(f64, f64) -> f64| {
        Some(sums.iter().map(|(key, (sum, count))| (key.clone(), divide(*sum, *count))).collect())
    };
    match kind {
        // The newest bin may have width 0.
        Kind::Rate => of(&|sum, _| if width > 0.0 { sum / width } else { 0.0 }),
        Kind::Gauge => of(&|sum, count| sum / count),
        Kind::GaugeOrZero => {
            let samples = sums.values().map(|(_, count)| *count).fold(0.0, f64::max);
            if samples > 0.0 { of(&|sum, _| sum / samples) } else { None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Shape = Shape { kind: Kind::Rate, is_multi: false, keep: 20 };

    fn key(name: &str, value: f64) -> (Arc<str>, f64) {
        (name.into(), value)
    }

    #[test]
    fn a_rate_is_the_sum_over_the_width_and_the_newest_bin_is_as_wide_as_time_has_come() {
        let mut view = View::new(SPANS[0]);
        // The bin from 1795233000 to 1795233024 and the first half of the next.
        view.add(ONE, 1_795_233_010.0, &[key(ONLY, 240.0)]);
        view.add(ONE, 1_795_233_030.0, &[key(ONLY, 60.0)]);
        let drawn = view.draw(ONE, 1_795_233_036.0);
        assert_eq!(drawn.len(), 150);
        assert_eq!(drawn[0], Bin { center: 1_795_233_030.0, value: Value::One(5.0), width: 12.0, default: Some(0) });
        assert_eq!(drawn[1], Bin { center: 1_795_233_012.0, value: Value::One(10.0), width: 24.0, default: Some(0) });
        assert_eq!(drawn[2].value, Value::One(0.0));
        assert_eq!(serde_json::to_string(&drawn[1]).unwrap(), "[1795233012.0,10.0,24.0,0]");
    }

    #[test]
    fn what_a_sample_lacks_counts_as_nothing_where_that_is_so_and_is_unknown_elsewhere() {
        let shape = Shape { kind: Kind::GaugeOrZero, is_multi: true, keep: 20 };
        let mut view = View::new(SPANS[0]);
        view.add(shape, 24.0, &[key("good", 10.0), key("orphan", 2.0)]);
        view.add(shape, 24.0, &[key("good", 20.0)]);
        let drawn = view.draw(shape, 30.0);
        assert_eq!(drawn[0].value, Value::Unknown);
        let wanted = BTreeMap::from([key("good", 15.0), key(ONLY, 0.0), key("orphan", 1.0)]);
        assert_eq!(drawn[1].value, Value::Many(wanted));
        let peers = Shape { kind: Kind::Gauge, ..shape };
        let mut view = View::new(SPANS[0]);
        view.add(peers, 24.0, &[key("incoming", 4.0)]);
        view.add(peers, 24.0, &[key("incoming", 2.0), key("outgoing", 5.0)]);
        assert_eq!(
            view.draw(peers, 24.0)[0].value,
            Value::Many(BTreeMap::from([key("incoming", 3.0), key("outgoing", 5.0)]))
        );
        assert_eq!(view.draw(peers, 24.0)[0].default, None);
    }

    #[test]
    fn only_the_largest_keys_are_kept_and_old_bins_leave() {
        let shape = Shape { kind: Kind::Rate, is_multi: true, keep: 2 };
        let mut view = View::new(SPANS[0]);
        view.add(shape, 24.0, &[key("a", 1.0), key("b", 3.0), key("c", 2.0)]);
        let drawn = view.draw(shape, 24.0);
        assert_eq!(drawn[0].value, Value::Many(BTreeMap::from([key("b", 0.125), key("c", 2.0 / 24.0)])));
        view.add(shape, 24.0 * 151.0, &[key("d", 24.0)]);
        // Too old to be kept.
        view.add(shape, 23.0, &[key("a", 1.0)]);
        let drawn = view.draw(shape, 24.0 * 151.0);
        assert_eq!(drawn[0].value, Value::Many(BTreeMap::from([key("d", 1.0)])));
        assert!(drawn[1..].iter().all(|bin| bin.value == Value::Many(BTreeMap::new())));
    }
}
