//! Segment files: their names, headers, creation and reading.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::record::Pieces;
use super::{StoreError, failed};

/// The only format so far. A later one keeps the header's first sixteen bytes, so that this program can refuse it.
pub(super) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"p2pshare";

/// Size of magic, version and their checksum.
pub(super) const HEADER_BYTES: usize = 16;

/// Suffix of a segment in use.
const SUFFIX: &str = "log";
/// Suffix of a damaged segment, kept for inspection: its good records were copied to other segments.
const DAMAGED: &str = "damaged";

/// Maximum size of a file that is read. The longest segment has a single record, of the longest share; most are far
/// shorter.
pub(super) const FILE_BYTES_MAX: u64 = 40 << 20;

/// Limit of segment numbers: at one a second it is reached in a century.
const ID_MAX: u64 = u32::MAX as u64;

/// File name of a segment: `000123-0badcafe.log`. The salt is part of the name and not of the file, where one damaged
/// sector would cost all records at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name {
    /// Increases with every new segment.
    pub(super) id: u64,
    /// Part of every record's checksum.
    pub(super) salt: u32,
}

impl Name {
    /// Parses `file_name`; also returns true for a damaged copy. `None` if the file is not ours.
    pub(super) fn parse(file_name: &OsStr) -> Option<(Name, bool)> {
        let (stem, suffix) = file_name.to_str()?.split_once('.')?;
        let (id, salt) = stem.split_once('-')?;
        let name = Name { id: id.parse().ok()?, salt: u32::from_str_radix(salt, 16).ok()? };
        // Any other spelling was not written by us, and could not be opened again by its name.
        let is_ours = name.to_string() == stem && name.id < ID_MAX && (suffix == SUFFIX || suffix == DAMAGED);
        is_ours.then_some((name, suffix == DAMAGED))
    }

    pub(super) fn file_name(self) -> String {
        format!("{self}.{SUFFIX}")
    }

    pub(super) fn damaged_file_name(self) -> String {
        format!("{self}.{DAMAGED}")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}-{:08x}", self.id, self.salt)
    }
}

/// Format of a segment, by its first bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// The format of this program.
    Known,
    /// A newer program's format.
    Version(u32),
    /// Unreadable.
    Damaged,
}

impl Header {
    pub(super) fn read(bytes: &[u8]) -> Header {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Header::Damaged };
        let version = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        match *header == header_of(version) {
            true if version == VERSION => Header::Known,
            true => Header::Version(version),
            false => Header::Damaged,
        }
    }
}

pub(super) fn header_of(version: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&version.to_le_bytes());
    let sum = crc32fast::hash(&header[..12]);
    header[12..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// Creates an empty segment.
pub(super) fn create(path: &Path) -> Result<File, StoreError> {
    let mut file = File::options().append(true).create_new(true).open(path).map_err(failed("create", path))?;
    if let Err(error) = file.write_all(&header_of(VERSION)) {
        // On a full disk this is retried again and again: leave no empty file each time.
        let _ = fs::remove_file(path);
        return Err(failed("write", path)(error));
    }
    Ok(file)
}

/// Splits a segment's bytes into records. If the header is damaged, the start of the first record may be as well.
pub(super) fn pieces(bytes: &[u8], name: Name) -> Pieces<'_> {
    let start = if Header::read(bytes) == Header::Known { HEADER_BYTES } else { 0 };
    Pieces::new(bytes, start, name.salt)
}

/// Opens an old segment for appending.
pub(super) fn reopen(path: &Path) -> Result<File, StoreError> {
    File::options().append(true).open(path).map_err(failed("open", path))
}

/// Makes the names in `folder` survive a power loss. The files' contents are synced separately.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

/// Reads a segment; the inner error is the reason if the disk fails to read it or it is too long to be ours.
pub(super) fn read(path: &Path) -> Result<Result<Vec<u8>, String>, StoreError> {
    let length = fs::metadata(path).map_err(failed("look at", path))?.len();
    if length > FILE_BYTES_MAX {
        return Ok(Err(format!("{length} bytes are no segment")));
    }
    match fs::read(path) {
        Ok(bytes) => Ok(Ok(bytes)),
        // A bad spot on the disk. Other errors (permissions, too many open files) pass, and must cost no shares.
        Err(error) if error.raw_os_error() == Some(EIO) => Ok(Err(error.to_string())),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Error number of an input/output error, the same on every Unix.
const EIO: i32 = 5;

/// Lists our files in `folder`: segments in order, and damaged copies in order.
pub(super) fn list(folder: &Path) -> Result<(Vec<Name>, Vec<Name>), StoreError> {
    let files =
        fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(failed("list", folder))?;
    let mut names: Vec<(Name, bool)> = files.iter().filter_map(|file| Name::parse(&file.file_name())).collect();
    names.sort_unstable();
    let (damaged, good): (Vec<_>, Vec<_>) = names.into_iter().partition(|(_, damaged)| *damaged);
    Ok((good.into_iter().map(|(name, _)| name).collect(), damaged.into_iter().map(|(name, _)| name).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_write_are_ours() {
        let name = Name { id: 12, salt: 0x00ba_dcaf };
        assert_eq!(Name::parse(name.file_name().as_ref()), Some((name, false)));
        assert_eq!(Name::parse(name.damaged_file_name().as_ref()), Some((name, true)));
        for other in ["12-00badcaf.log", "000012-BADCAF.log", "000012-00badcaf.tmp", "000012.log", "notes.log", "x"] {
            assert_eq!(Name::parse(other.as_ref()), None, "{other}");
        }
    }

    #[test]
    fn a_header_says_its_version_or_that_it_is_damaged() {
        assert_eq!(Header::read(&header_of(VERSION)), Header::Known);
        assert_eq!(Header::read(&header_of(7)), Header::Version(7));
        let mut bad = header_of(VERSION);
        bad[8] = 2;
        assert_eq!(Header::read(&bad), Header::Damaged);
        assert_eq!(Header::read(&header_of(VERSION)[..9]), Header::Damaged);
    }
}
