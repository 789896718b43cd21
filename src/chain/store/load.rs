//! Reads the whole store at start and repairs what the last run's end or the disk damaged.

use sharechain::share::ShareHash;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::record::{Piece, RECORD_BYTES_MAX, Record, is_torn};
use super::segment::{self, FILE_BYTES_MAX, HEADER_BYTES, Header, Name};
use super::{Current, Entry, Mark, RecordPosition, SEGMENT_BYTES_MAX, Store, StoreError, Usage, failed};

/// Maximum number of damaged segments set aside before the oldest is deleted: a failing disk must not fill itself.
const DAMAGED_KEPT_MAX: usize = 16;

/// Contents of the store at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Shares in the order in which they were first stored.
    pub shares: Vec<StoredShare>,
    /// Those of them that passed all checks, in the same order.
    pub verified: Vec<ShareHash>,
    /// Damage found, and its treatment, for the operator to read.
    pub problems: Vec<String>,
}

/// A share as stored. Only its checksum was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredShare {
    /// Hash under which it was stored.
    pub hash: ShareHash,
    /// Version and contents.
    pub bytes: Box<[u8]>,
    /// Time at which this node first saw it, seconds since 1970.
    pub time_seen: u32,
}

#[derive(Debug, Default)]
struct Reading {
    segments: BTreeMap<Name, Usage>,
    shares: HashMap<ShareHash, LoadedShare>,
    marks: HashMap<ShareHash, RecordPosition>,
    problems: Vec<String>,
    /// Segments whose good records must be copied out.
    damaged: Vec<Name>,
    /// Set when another process owns the store: nothing may be repaired.
    is_foreign: bool,
}

#[derive(Debug)]
struct LoadedShare {
    place: RecordPosition,
    sequence: u64,
    verified: bool,
    share: StoredShare,
}

/// Maximum number of attempts to read a store whose owner deletes segments meanwhile.
const FOREIGN_READINGS_MAX: usize = 10;

/// Reads the store of another process without changing it. A half-written record does not count yet.
pub(super) fn read_only(folder: &Path) -> Result<Loaded, StoreError> {
    if !folder.exists() {
        return Ok(Loaded::default());
    }
    let mut last = Ok(Loaded::default());
    for _ in 0..FOREIGN_READINGS_MAX {
        last = read_foreign(folder);
        match &last {
            // A segment was copied forward and deleted after the folder was listed.
            Err(StoreError::Disk { cause, .. }) if cause.kind() == ErrorKind::NotFound => {}
            _ => break,
        }
    }
    last
}

fn read_foreign(folder: &Path) -> Result<Loaded, StoreError> {
    let (names, _) = segment::list(folder)?;
    let mut reading = Reading { is_foreign: true, ..Reading::default() };
    for name in &names {
        reading.read(folder, *name, names.last() == Some(name))?;
    }
    let mut loaded = Loaded { problems: reading.problems, ..Loaded::default() };
    for LoadedShare { verified, share, .. } in in_order(reading.shares) {
        if verified || reading.marks.contains_key(&share.hash) {
            loaded.verified.push(share.hash);
        }
        loaded.shares.push(share);
    }
    Ok(loaded)
}

fn in_order(shares: HashMap<ShareHash, LoadedShare>) -> Vec<LoadedShare> {
    let mut found: Vec<LoadedShare> = shares.into_values().collect();
    // The hash orders equals, which only a forged file has: a copy keeps its place.
    found.sort_unstable_by_key(|found| (found.sequence, found.share.hash));
    found
}

pub(super) fn open(folder: PathBuf) -> Result<(Store, Loaded), StoreError> {
    fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
    let (names, set_aside) = segment::list(&folder)?;
    let mut reading = Reading::default();
    let mut newest_is_sound = false;
    for name in &names {
        newest_is_sound = reading.read(&folder, *name, names.last() == Some(name))?;
    }
    reading.give_up_oldest(&folder, &set_aside);

    let last_id = names.iter().chain(&set_aside).map(|name| name.id).max();
    let last_sequence = reading.shares.values().map(|found| found.sequence).max();
    let mut store = Store {
        folder,
        segments: reading.segments,
        entries: HashMap::with_capacity(reading.shares.len()),
        current: None,
        next_id: last_id.map_or(0, |id| id + 1),
        next_sequence: last_sequence.map_or(0, |sequence| sequence.saturating_add(1)),
        #[cfg(test)]
        hanging: None,
    };
    let mut loaded = Loaded { problems: reading.problems, ..Loaded::default() };
    for LoadedShare { place, verified, share, .. } in in_order(reading.shares) {
        let mark = match reading.marks.get(&share.hash) {
            _ if verified => Mark::InShare,
            Some(place) => Mark::Apart(*place),
            None => Mark::None,
        };
        if mark != Mark::None {
            loaded.verified.push(share.hash);
        }
        store.keep(share.hash, Entry { place, mark });
        loaded.shares.push(share);
    }

    if let Some(name) = names.last().filter(|_| newest_is_sound) {
        store.go_on_with(*name)?;
    }
    // A full or read-only disk must not prevent a start; everything was read already.
    for name in reading.damaged {
        let moved = store.copy_forward(name).and_then(|_| store.set_aside(name));
        loaded.problems.extend(moved.err().map(|error| error.to_string()));
    }
    loaded.problems.extend(store.reclaim().err().map(|error| error.to_string()));
    // Data left by a killed process may not have reached the disk yet; from here on it counts as stored.
    loaded.problems.extend(store.sync().err().map(|error| error.to_string()));
    Ok((store, loaded))
}

impl Reading {
    /// Reads one segment; returns true if it can be appended to.
    fn read(&mut self, folder: &Path, name: Name, is_newest: bool) -> Result<bool, StoreError> {
        let path = folder.join(name.file_name());
        let bytes = match segment::read(&path)? {
            Ok(bytes) => bytes,
            Err(reason) => {
                self.set_aside(&path, name, &reason);
                return Ok(false);
            }
        };
        let header = Header::read(&bytes);
        if let Header::Version(version) = header {
            return Err(StoreError::Version { path: path.display().to_string(), version });
        }
        self.segments.insert(name, Usage { bytes: bytes.len() as u64, live: 0 });
        if is_newest && bytes.len() < HEADER_BYTES {
            // Its creation was interrupted. `reclaim` deletes it, as it contains nothing wanted.
            return Ok(false);
        }
        let mut damage: Vec<Range<usize>> = Vec::new();
        for piece in segment::pieces(&bytes, name) {
            match piece {
                Piece::Damage(range) => damage.push(range),
                Piece::Record(range, record) => {
                    let length = (range.end - range.start) as u64;
                    self.take(RecordPosition { segment: name, at: range.start as u64, length }, record);
                }
            }
        }
        match &damage[..] {
            [] if header == Header::Known => Ok(true),
            [tail]
                if header == Header::Known && is_newest && tail.end == bytes.len() && is_torn(&bytes[tail.clone()]) =>
            {
                // The owner of the store is writing the next record there.
                if !self.is_foreign {
                    self.cut_off(&path, name, tail)?;
                }
                Ok(true)
            }
            _ => {
                let lost: usize = damage.iter().map(ExactSizeIterator::len).sum();
                let first = damage.first().map_or(0, |range| range.start);
                self.set_aside(&path, name, &format!("{lost} bytes from {first} on are damaged"));
                Ok(false)
            }
        }
    }

    fn take(&mut self, place: RecordPosition, record: Record) {
        match record {
            Record::Verified(hash) => {
                self.marks.insert(hash, place);
            }
            Record::Share { hash, sequence, time_seen, verified, bytes } => {
                let share = StoredShare { hash, bytes: bytes.into(), time_seen };
                let found = LoadedShare { place, sequence, verified, share };
                match self.shares.get_mut(&hash) {
                    // A copy made before its original could be deleted, or a share stored again after it was forgotten:
                    // the later one is in use. A mark in the other goes when its segment goes.
                    Some(old) if old.sequence > sequence => {}
                    Some(old) => *old = found,
                    None => {
                        self.shares.insert(hash, found);
                    }
                }
            }
        }
    }

    /// Truncates a record left incomplete by a stop in the middle of a write: it is unreadable.
    fn cut_off(&mut self, path: &Path, name: Name, tail: &Range<usize>) -> Result<(), StoreError> {
        let file = segment::reopen(path)?;
        file.set_len(tail.start as u64).and_then(|()| file.sync_all()).map_err(failed("shorten", path))?;
        self.segments.insert(name, Usage { bytes: tail.start as u64, live: 0 });
        self.problems.push(format!(
            "{}: cut off {} bytes at the end, which the last run did not finish writing",
            path.display(),
            tail.len()
        ));
        Ok(())
    }

    fn set_aside(&mut self, path: &Path, name: Name, reason: &str) {
        if self.is_foreign {
            self.problems.push(format!("{}: {reason}", path.display()));
            return;
        }
        self.segments.entry(name).or_default();
        self.damaged.push(name);
        self.problems.push(format!("{}: {reason}; set aside as {}", path.display(), name.damaged_file_name()));
    }

    fn give_up_oldest(&mut self, folder: &Path, set_aside: &[Name]) {
        let excess = (set_aside.len() + self.damaged.len()).saturating_sub(DAMAGED_KEPT_MAX);
        for name in set_aside.iter().take(excess) {
            let path = folder.join(name.damaged_file_name());
            match fs::remove_file(&path) {
                Ok(()) => self.problems.push(format!(
                    "{}: deleted, as there are more than {DAMAGED_KEPT_MAX} damaged files",
                    path.display()
                )),
                Err(error) => self.problems.push(format!("cannot delete {}: {error}", path.display())),
            }
        }
    }
}

impl Store {
    fn keep(&mut self, hash: ShareHash, entry: Entry) {
        let mark = match entry.mark {
            Mark::Apart(place) => Some(place),
            Mark::None | Mark::InShare => None,
        };
        for place in [Some(entry.place), mark].into_iter().flatten() {
            self.segments.entry(place.segment).or_default().live += place.length;
        }
        self.entries.insert(hash, entry);
    }

    /// Continues a sound segment of the last run, if it has room.
    fn go_on_with(&mut self, name: Name) -> Result<(), StoreError> {
        if self.segments.get(&name).is_some_and(|usage| usage.bytes < SEGMENT_BYTES_MAX) {
            let file = segment::reopen(&self.folder.join(name.file_name()))?;
            self.current = Some(Current { name, file, synced: 0 });
        }
        Ok(())
    }
}

// A sound segment is never taken for a foreign file: the longest one is a single record in a segment of its own.
const _: () = assert!(FILE_BYTES_MAX > SEGMENT_BYTES_MAX + RECORD_BYTES_MAX as u64);
