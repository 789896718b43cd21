//! Reads the Python node's share files (protocol section 12), so that a pool can move to this node with its window.

use sharechain::pack::Reader;
use sharechain::share::{SHARE_BYTES_MAX, ShareHash, ShareVersion, read_wrapped};
use std::fs;
use std::path::Path;
use thiserror::Error;

use super::failed;

/// The old node starts a new file at ten million bytes, which a share in hex may exceed by far; a longer file than this
/// was not written by it.
const FILE_BYTES_MAX: u64 = 11_000_000 + 2 * SHARE_BYTES_MAX as u64;

/// Contents of the old node's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Legacy {
    /// Shares (version and contents) in file order. Their first-seen times are unknown.
    pub shares: Vec<Box<[u8]>>,
    /// Shares that the old node had verified.
    pub verified: Vec<ShareHash>,
    /// Skipped files and lines, for the operator to read.
    pub problems: Vec<String>,
}

/// Error of reading the old node's folder.
#[derive(Debug, Error)]
pub enum LegacyError {
    /// A disk operation failed.
    #[error(transparent)]
    Store(#[from] super::StoreError),
    /// The folder is not the old node's data folder.
    #[error("{0} has no files named shares.0, shares.1 and so on")]
    NoFiles(String),
}

/// Reason for skipping a line.
#[derive(Debug, PartialEq, Eq, Error)]
enum LineError {
    #[error("not a number, a space and hex digits")]
    Form,
    #[error("unknown kind {0}")]
    Kind(String),
    #[error("{0} hex digits are no share hash")]
    Hash(usize),
    #[error("not a share: {0}")]
    Share(String),
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Share(Box<[u8]>),
    Verified(ShareHash),
    /// A kind that the old node itself ignored.
    Ancient,
}

/// Reads every share file in `folder`, without changing it.
///
/// # Errors
/// [`LegacyError`]. Bad files and lines are no error, but listed in [`Legacy::problems`].
pub fn read(folder: &Path) -> Result<Legacy, LegacyError> {
    let mut numbers: Vec<u64> = Vec::new();
    for file in fs::read_dir(folder).map_err(failed("list", folder))? {
        let name = file.map_err(failed("list", folder))?.file_name();
        // `shares.007` is not a name that the old node writes, and would be opened as `shares.7`.
        let number = name.to_str().and_then(|name| name.strip_prefix("shares.")?.parse().ok());
        numbers.extend(number.filter(|number: &u64| *name == *format!("shares.{number}")));
    }
    if numbers.is_empty() {
        return Err(LegacyError::NoFiles(folder.display().to_string()));
    }
    // As numbers: shares.10 follows shares.9.
    numbers.sort_unstable();
    let mut legacy = Legacy::default();
    for number in numbers {
        let path = folder.join(format!("shares.{number}"));
        let length = fs::metadata(&path).map_err(failed("look at", &path))?.len();
        if length > FILE_BYTES_MAX {
            legacy.problems.push(format!("{}: skipped, as {length} bytes are no share file", path.display()));
            continue;
        }
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        if let Some(problem) = legacy.take_file(&bytes) {
            legacy.problems.push(format!("{}: {problem}", path.display()));
        }
    }
    Ok(legacy)
}

impl Legacy {
    /// Reads the lines of one file; describes the skipped ones. Public for the fuzzer.
    pub fn take_file(&mut self, bytes: &[u8]) -> Option<String> {
        let mut lines = 0;
        let mut skipped = 0;
        let mut first = None;
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            lines += 1;
            match read_line(line) {
                Ok(Line::Share(bytes)) => self.shares.push(bytes),
                Ok(Line::Verified(hash)) => self.verified.push(hash),
                Ok(Line::Ancient) => {}
                Err(error) => {
                    skipped += 1;
                    first.get_or_insert((lines, error));
                }
            }
        }
        first.map(|(at, error)| format!("{skipped} of {lines} lines skipped, the first is line {at}: {error}"))
    }
}

fn read_line(line: &[u8]) -> Result<Line, LineError> {
    let text = std::str::from_utf8(line).map_err(|_| LineError::Form)?;
    let (kind, digits) = text.trim().split_once(' ').ok_or(LineError::Form)?;
    match kind {
        "0" | "1" => Ok(Line::Ancient),
        "2" => read_hash(digits).map(Line::Verified),
        "5" => read_share(digits).map(Line::Share),
        other => Err(LineError::Kind(other.chars().take(20).collect())),
    }
}

/// Parses a hash as the old node's `%x` prints it: without leading zeroes.
fn read_hash(digits: &str) -> Result<ShareHash, LineError> {
    if digits.is_empty() || digits.len() > 64 {
        return Err(LineError::Hash(digits.len()));
    }
    let mut digest = [0; 32];
    hex::decode_to_slice(format!("{digits:0>64}"), &mut digest).map_err(|_| LineError::Form)?;
    digest.reverse();
    Ok(ShareHash(digest))
}

fn read_share(digits: &str) -> Result<Box<[u8]>, LineError> {
    if digits.len() > 2 * SHARE_BYTES_MAX {
        return Err(LineError::Share(format!("{} hex digits are too many", digits.len())));
    }
    let bytes = hex::decode(digits).map_err(|_| LineError::Form)?;
    let mut reader = Reader::new(&bytes);
    let no_share = |error: &dyn std::fmt::Display| LineError::Share(error.to_string());
    let (version, _) = read_wrapped(&mut reader).map_err(|error| no_share(&error))?;
    reader.finish("share").map_err(|error| no_share(&error))?;
    ShareVersion::from_number(version).map_err(|error| no_share(&error))?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::io::Read;

    fn recorded() -> Vec<u8> {
        let packed = include_bytes!("../../../tests/vectors/data/share_store_run17.txt.gz");
        let mut bytes = Vec::new();
        GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_old_nodes_recorded_file_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("shares.0"), recorded()).unwrap();
        let legacy = read(dir.path()).unwrap();
        assert_eq!((legacy.shares.len(), legacy.verified.len()), (240, 240));
        assert_eq!(legacy.problems, [""; 0]);
        let first = "00001dc18caad8df31e86f55f005ee8d44ee2b878d6c1becc51d3995747c518c";
        assert!(legacy.verified.iter().any(|hash| hash.to_string() == first));
    }

    #[test]
    fn files_are_read_in_the_order_of_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for number in [10, 9, 0] {
            fs::write(dir.path().join(format!("shares.{number}")), format!("2 {number}\n")).unwrap();
        }
        fs::write(dir.path().join("shares.old"), "2 5").unwrap();
        let order: Vec<u8> = read(dir.path()).unwrap().verified.iter().map(|hash| hash.0[0]).collect();
        assert_eq!(order, [0, 9, 0x10]);
    }

    #[test]
    fn the_longest_share_that_the_old_node_could_receive_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |bytes: &[u8]| fs::write(dir.path().join("shares.0"), format!("5 {}\n2 7\n", hex::encode(bytes)));
        let mut share = vec![35, 0xfe];
        share.extend(u32::try_from(SHARE_BYTES_MAX - 6).unwrap().to_le_bytes());
        share.resize(SHARE_BYTES_MAX, 1);
        write(&share).unwrap();
        let legacy = read(dir.path()).unwrap();
        assert_eq!((legacy.shares.len(), legacy.verified.len(), &legacy.problems[..]), (1, 1, &[][..]));
        assert_eq!(*legacy.shares[0], *share);
        share.push(1);
        write(&share).unwrap();
        let legacy = read(dir.path()).unwrap();
        assert_eq!((legacy.shares.len(), legacy.verified.len(), legacy.problems.len()), (0, 1, 1));
    }

    #[test]
    fn bad_lines_are_skipped_and_counted() {
        let mut legacy = Legacy::default();
        let problem = legacy.take_file(b"2 ab\n\n0 zz\n7 00\nnonsense\n5 1100\n5 0100\n5 zz\n2 \xff\n2 c");
        assert_eq!(problem.as_deref(), Some("5 of 9 lines skipped, the first is line 3: unknown kind 7"));
        assert_eq!((legacy.shares.len(), legacy.verified.len()), (1, 2));
    }

    #[test]
    fn a_folder_without_share_files_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Err(LegacyError::NoFiles(_))));
    }
}
