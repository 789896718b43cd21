//! `graph_db`: the graphs in the reference's format (protocol section 13.3), so that each node reads the other's.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use stratum::Printable;
use thiserror::Error;

use super::view::{ONLY, SPANS, Sums, View};
use super::{Source, Sources, sources};
use crate::runtime::files;

/// File name in the data directory.
pub const NAME: &str = "graph_db";

/// Maximum size of a file that is read, in bytes: ten times what a node of many miners writes in a year.
const BYTES_MAX: u64 = 256 << 20;

/// Maximum length of a key that is read, in bytes: a user name.
const KEY_BYTES_MAX: usize = 256;

/// Error of reading a file.
#[derive(Debug, Error)]
pub enum FileError {
    /// A disk operation failed.
    #[error("cannot read {path}: {cause}")]
    Disk { path: String, cause: io::Error },
    /// The file is too big to be a graph_db.
    #[error("{path} has {bytes} bytes, more than the {BYTES_MAX} of any graph_db")]
    TooBig {
        path: String,
        /// Its size in bytes.
        bytes: u64,
    },
    /// The file is not JSON, or not of this kind.
    #[error("{path} is no graph_db: {cause}")]
    Json { path: String, cause: serde_json::Error },
}

#[derive(Serialize)]
struct Written<'a> {
    last_bin_end: f64,
    bin_width: f64,
    bins: Vec<&'a Sums>,
}

#[derive(Deserialize)]
struct Kept {
    last_bin_end: f64,
    bin_width: f64,
    bins: Vec<KeptBin>,
}

/// A bin in the current format, or in that of versions before 2012: the sum or the sums, and the total count.
#[derive(Deserialize)]
#[serde(untagged)]
enum KeptBin {
    ByKey(BTreeMap<String, (f64, f64)>),
    One(f64, f64),
    Many(BTreeMap<String, f64>, f64),
}

impl KeptBin {
    fn sums(self, keep: usize) -> Sums {
        let by_key: Vec<(String, (f64, f64))> = match self {
            KeptBin::ByKey(sums) => sums.into_iter().collect(),
            KeptBin::One(sum, count) => vec![(ONLY.to_owned(), (sum, count))],
            KeptBin::Many(sums, count) => sums.into_iter().map(|(key, sum)| (key, (sum, count))).collect(),
        };
        let is_good = |key: &str, sum: f64, count: f64| {
            key.len() <= KEY_BYTES_MAX && sum.is_finite() && count.is_finite() && (count > 0.0 || key == ONLY)
        };
        let good = by_key.into_iter().filter(|(key, (sum, count))| is_good(key, *sum, *count));
        // Earlier versions and the old node wrote miners' names as they came.
        good.take(keep).map(|(key, sums)| (Printable::new(&key).shared().clone(), sums)).collect()
    }
}

/// Content of the file: views of other widths and unknown sources are ignored.
type Stored = BTreeMap<String, BTreeMap<String, serde_json::Value>>;

/// Reads a `graph_db` of this node or an old one. Sources and views that it lacks, or has in another shape, stay empty.
///
/// # Errors
/// The file cannot be read, or is not a `graph_db`.
pub fn read(path: &Path) -> Result<Sources, FileError> {
    let shown = || path.display().to_string();
    let disk = |cause| FileError::Disk { path: shown(), cause };
    let file = File::open(path).map_err(disk)?;
    let bytes = file.metadata().map_err(disk)?.len();
    if bytes > BYTES_MAX {
        return Err(FileError::TooBig { path: shown(), bytes });
    }
    let mut text = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut text).map_err(disk)?;
    let mut stored: Stored = serde_json::from_slice(&text).map_err(|cause| FileError::Json { path: shown(), cause })?;
    let mut read = sources();
    for source in &mut read {
        let Some(mut views) = stored.remove(source.name()) else { continue };
        let source = Arc::make_mut(source);
        for (span, view) in SPANS.iter().zip(&mut source.views) {
            let kept = views.remove(span.name).and_then(|kept| serde_json::from_value::<Kept>(kept).ok());
            #[expect(clippy::float_cmp, reason = "written as it is compared")]
            let kept = kept.filter(|kept| kept.bin_width == span.width && kept.bins.len() == span.bins);
            let Some(kept) = kept else { continue };
            let bins = kept.bins.into_iter().map(|bin| bin.sums(source.description.shape.keep)).collect();
            if let Some(kept) = View::kept(*span, kept.last_bin_end, bins) {
                *view = kept;
            }
        }
    }
    Ok(read)
}

/// Writes `sources` into the folder `dir`, atomically.
///
/// # Errors
/// The disk refuses.
pub fn write(sources: &[Arc<Source>], dir: &Path) -> io::Result<()> {
    let written: BTreeMap<&str, BTreeMap<&str, Written<'_>>> = sources
        .iter()
        .map(|source| {
            let views = SPANS.iter().zip(&source.views).map(|(span, view)| {
                let bins = view.bins.iter().collect();
                (span.name, Written { last_bin_end: view.last_bin_end, bin_width: span.width, bins })
            });
            (source.name(), views.collect())
        })
        .collect();
    files::replace(&dir.join(NAME), |file| Ok(serde_json::to_writer(file, &written)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::graphs::view::{Bin, Value};

    fn source<'a>(sources: &'a [Arc<Source>], name: &str) -> &'a Source {
        sources.iter().find(|source| source.name() == name).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = sources();
        for (number, source) in kept.iter_mut().enumerate() {
            let value = f64::from(u32::try_from(number).unwrap()) + 0.5;
            Arc::make_mut(source).add(1_795_233_010.0, &[(ONLY.into(), value)]);
        }
        write(&kept, dir.path()).unwrap();
        assert_eq!(read(&dir.path().join(NAME)).unwrap(), kept);
    }

    #[test]
    fn an_old_nodes_graphs_are_taken_over_and_what_does_not_fit_is_left_out() {
        let bins = |first: &str, count: usize| format!("[{first}{}]", ", {}".repeat(count - 1));
        let hour = bins(r#"{"null": [48.0, 3]}"#, 150);
        let oldest = bins("[240.0, 5]", 150).replace("{}", "[0, 0]");
        let peers = bins(r#"{"incoming": [8, 2], "outgoing": [6, 2]}"#, 300);
        let text = format!(
            r#"{{"local_hash_rate": {{"last_hour": {{"last_bin_end": 1795233024, "bin_width": 24, "bins": {hour}}},
                 "last_day": {{"last_bin_end": 1795233024, "bin_width": 999, "bins": {peers}}}}},
                 "local_dead_hash_rate": {{"last_hour": {{"last_bin_end": 1795233024, "bin_width": 24, "bins": {oldest}}}}},
                 "peers": {{"last_day": {{"last_bin_end": 1795233024, "bin_width": 288.0, "bins": {peers}}}, "last_week": 3}},
                 "no_more": {{"last_hour": []}}}}"#
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        std::fs::write(&path, text).unwrap();
        let read = read(&path).unwrap();
        let drawn = |name, span| source(&read, name).draw(span, 1_795_233_024.0).unwrap();
        let first = Bin { center: 1_795_233_012.0, value: Value::One(2.0), width: 24.0, default: Some(0) };
        assert_eq!(drawn("local_hash_rate", "last_hour")[0], first);
        assert_eq!(drawn("local_dead_hash_rate", "last_hour")[0].value, Value::One(10.0));
        assert_eq!(drawn("local_hash_rate", "last_day")[0].value, Value::One(0.0));
        let wanted = BTreeMap::from([("incoming".into(), 4.0), ("outgoing".into(), 3.0)]);
        assert_eq!(drawn("peers", "last_day")[0].value, Value::Many(wanted));
    }

    #[test]
    fn a_file_that_is_something_else_is_refused_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        for text in ["", "[]", "{\"a\": 3}", "\u{0}\u{1}", "{\"peers\": {\"last_day\": "] {
            std::fs::write(&path, text).unwrap();
            assert!(read(&path).unwrap_err().to_string().contains("graph_db"), "{text:?}");
        }
        assert!(matches!(read(&dir.path().join("absent")), Err(FileError::Disk { .. })));
    }
}
