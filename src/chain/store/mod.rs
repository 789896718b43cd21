//! Shares on disk, so that a restart goes on where the last run ended.
//!
//! Segments of about a megabyte (a longer share has one of its own) in the folder `shares` are only ever appended to; one in which nothing is wanted any more
//! is deleted, and what is wanted in a mostly dead one is copied to the end first. So whatever instant the program or the
//! power dies, what was synced is there, and what was half written costs itself.
//!
//! ```text
//!  own shares ──▶ StoreQueue ──first──▶┐
//!  owner ───────▶ StoreWriter ──queue──▶ thread: Store ──append──▶ shares/000123-0badcafe.log
//!                                          │ sync at intervals and at the end
//!  start: Store::open ──▶ Loaded { shares, verified, problems }
//! ```
//!
//! Forgetting is not written down: a start may bring back what was forgotten in segments that were not deleted yet, at
//! most about as much as was wanted. Two processes are kept apart by the lock on the data directory, not here.

pub mod legacy;
mod load;
mod record;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

pub use load::{Loaded, StoredShare};
pub use writer::{NewShare, StoreQueue, StoreWriter};

use sharechain::share::{SHARE_BYTES_MAX, ShareHash};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;
use tracing::warn;

use record::{Piece, Record};
use segment::{HEADER_BYTES, Name};

/// A segment is closed when the next record would make it longer: short enough that copying one forward is no work, long
/// enough that a full store is some twenty files.
const SEGMENT_BYTES_MAX: u64 = 1 << 20;

/// Why the store cannot do what it is asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk does not do what it is asked.
    #[error("cannot {action} {path}: {cause}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// Written by a program that knows more than this one. Nothing was touched.
    #[error("{path} has share store format {version}, this program knows only {known}: start the newer program, or move the folder away", known = segment::VERSION)]
    Version {
        /// The file that says so.
        path: String,
        /// The version that it names.
        version: u32,
    },
    /// No message could bring a share that long.
    #[error("share {hash} has {length} bytes, more than {SHARE_BYTES_MAX}")]
    TooLong {
        /// The share.
        hash: ShareHash,
        /// Its length.
        length: usize,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.display().to_string();
    move |cause| StoreError::Disk { action, path, cause }
}

/// The share store. It blocks on the disk: keep it on a thread of its own ([`StoreWriter`]).
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    segments: BTreeMap<Name, Usage>,
    entries: HashMap<ShareHash, Entry>,
    /// The segment that is appended to; none until something is.
    current: Option<Current>,
    next_id: u64,
    next_sequence: u64,
    /// A disk that hangs until the other end is dropped.
    #[cfg(test)]
    hanging: Option<std::sync::mpsc::Receiver<()>>,
}

#[cfg(test)]
impl Store {
    /// Has the next write hang until what is returned is dropped.
    pub(in crate::chain) fn hang(&mut self) -> std::sync::mpsc::Sender<()> {
        let (release, hanging) = std::sync::mpsc::channel();
        self.hanging = Some(hanging);
        release
    }
}

/// How full a segment is, and how much of that is wanted.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    bytes: u64,
    live: u64,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RecordPosition {
    segment: Name,
    at: u64,
    length: u64,
}

/// Whether a share is verified, and where that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    InShare,
    Apart(RecordPosition),
}

#[derive(Debug)]
struct Entry {
    place: RecordPosition,
    mark: Mark,
}

#[derive(Debug)]
struct Current {
    name: Name,
    file: File,
    /// How much of it survives a power loss.
    synced: u64,
}

impl Store {
    /// Opens the share store in `data_dir`, making it if there is none, and reads all of it.
    ///
    /// Damage costs only the records that it hit, and is described in [`Loaded::problems`]: it must keep nobody from
    /// starting. A damaged segment is set aside under a new name, for a person to look at.
    ///
    /// # Errors
    /// [`StoreError::Disk`], and [`StoreError::Version`] for a store of a later program, which stays as it is.
    pub fn open(data_dir: &Path) -> Result<(Store, Loaded), StoreError> {
        load::open(data_dir.join("shares"))
    }

    /// Reads the share store in `data_dir` while another process owns it: nothing is put in order, nothing is touched. None is
    /// an empty one.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn read_only(data_dir: &Path) -> Result<Loaded, StoreError> {
        load::read_only(&data_dir.join("shares"))
    }

    /// Whether a share is kept.
    pub fn contains(&self, hash: ShareHash) -> bool {
        self.entries.contains_key(&hash)
    }

    /// Keeps a share: `bytes` are its version and contents, and `verified` says whether it passed all checks. A share that is
    /// kept already stays as it is, but for being verified now.
    ///
    /// Survives the end of the process at once, that of the machine after [`Store::sync`].
    ///
    /// # Errors
    /// [`StoreError::TooLong`], [`StoreError::Disk`].
    pub fn append_share(
        &mut self,
        hash: ShareHash,
        bytes: &[u8],
        time_seen: u32,
        verified: bool,
    ) -> Result<(), StoreError> {
        if bytes.len() > SHARE_BYTES_MAX {
            return Err(StoreError::TooLong { hash, length: bytes.len() });
        }
        if self.entries.contains_key(&hash) {
            return if verified { self.append_verified(hash) } else { Ok(()) };
        }
        let record = Record::Share { hash, sequence: self.next_sequence, time_seen, verified, bytes };
        let place = self.append(&record)?;
        self.next_sequence = self.next_sequence.saturating_add(1);
        let mark = if verified { Mark::InShare } else { Mark::None };
        self.entries.insert(hash, Entry { place, mark });
        Ok(())
    }

    /// Notes that a share passed all checks. Does nothing for one that is not kept.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub fn append_verified(&mut self, hash: ShareHash) -> Result<(), StoreError> {
        if self.entries.get(&hash).is_some_and(|entry| entry.mark == Mark::None) {
            let place = self.append(&Record::Verified(hash))?;
            if let Some(entry) = self.entries.get_mut(&hash) {
                entry.mark = Mark::Apart(place);
            }
        }
        Ok(())
    }

    /// Says that these shares are not wanted any more, and gives back the space of segments that are mostly unwanted.
    ///
    /// # Errors
    /// [`StoreError::Disk`]: they are forgotten all the same, only their space is not free yet.
    pub fn forget(&mut self, hashes: &[ShareHash]) -> Result<(), StoreError> {
        for hash in hashes {
            if let Some(entry) = self.entries.remove(hash) {
                self.release(entry.place);
                if let Mark::Apart(place) = entry.mark {
                    self.release(place);
                }
            }
        }
        self.reclaim()
    }

    /// Makes everything outlive a power loss.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub fn sync(&mut self) -> Result<(), StoreError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let length = self.segments.get(&current.name).map_or(0, |usage| usage.bytes);
        if current.synced < length {
            let path = self.folder.join(current.name.file_name());
            current.file.sync_data().map_err(failed("sync", &path))?;
            if current.synced == 0 {
                segment::sync_folder(&self.folder)?;
            }
            current.synced = length;
        }
        Ok(())
    }

    /// How many shares are kept.
    pub fn shares(&self) -> usize {
        self.entries.len()
    }

    /// How many bytes the store takes on disk, damaged copies left out.
    pub fn bytes_on_disk(&self) -> u64 {
        self.segments.values().map(|usage| usage.bytes).sum()
    }

    fn append(&mut self, record: &Record) -> Result<RecordPosition, StoreError> {
        #[cfg(test)]
        if let Some(hanging) = self.hanging.take() {
            let _ = hanging.recv();
        }
        let length = record.bytes() as u64;
        let name = self.segment_for(length)?;
        let mut bytes = Vec::new();
        record.write(name.salt, &mut bytes);

        let usage = self.segments.entry(name).or_default();
        let current = self.current.as_mut().expect("segment_for leaves one open");
        if let Err(error) = current.file.write_all(&bytes) {
            // Half a record may be there now. Cut it off, or begin anew behind what cannot be cut off.
            if current.file.set_len(usage.bytes).is_err() {
                let _ = current.file.sync_data();
                self.current = None;
            }
            return Err(failed("write", &self.folder.join(name.file_name()))(error));
        }
        let place = RecordPosition { segment: name, at: usage.bytes, length };
        usage.bytes += length;
        usage.live += length;
        Ok(place)
    }

    /// The segment that a record of `length` bytes goes to, open: the current one, or a new one if that is full.
    fn segment_for(&mut self, length: u64) -> Result<Name, StoreError> {
        if let Some(current) = &self.current {
            let used = self.segments.get(&current.name).map_or(0, |usage| usage.bytes);
            if used <= HEADER_BYTES as u64 || used + length <= SEGMENT_BYTES_MAX {
                return Ok(current.name);
            }
            // Before anything goes to the next: a later record must not outlive an earlier one.
            self.sync()?;
        }
        let name = Name { id: self.next_id, salt: fastrand::u32(..) };
        let file = segment::create(&self.folder.join(name.file_name()))?;
        self.next_id += 1;
        self.segments.insert(name, Usage { bytes: HEADER_BYTES as u64, live: 0 });
        self.current = Some(Current { name, file, synced: 0 });
        Ok(name)
    }

    fn release(&mut self, place: RecordPosition) {
        if let Some(usage) = self.segments.get_mut(&place.segment) {
            usage.live -= place.length;
        }
    }

    /// Deletes dead segments, and copies forward from mostly dead ones until at most half of the store is dead, but for
    /// two segments.
    fn reclaim(&mut self) -> Result<(), StoreError> {
        // A full segment gets nothing more, and one of a single long share may be most of the store.
        let is_full =
            |current: &Current| self.segments.get(&current.name).is_some_and(|usage| usage.bytes >= SEGMENT_BYTES_MAX);
        if self.current.as_ref().is_some_and(is_full) {
            self.sync()?;
            self.current = None;
        }
        let current = self.current.as_ref().map(|current| current.name);
        let is_dead = |(name, usage): (&Name, &Usage)| (usage.live == 0 && Some(*name) != current).then_some(*name);
        for name in self.segments.iter().filter_map(is_dead).collect::<Vec<_>>() {
            self.remove(name)?;
        }
        loop {
            let live: u64 = self.segments.values().map(|usage| usage.live).sum();
            if self.bytes_on_disk() <= 2 * live + 2 * SEGMENT_BYTES_MAX {
                return Ok(());
            }
            let current = self.current.as_ref().map(|current| current.name);
            let closed = self.segments.iter().filter(|(name, _)| Some(**name) != current);
            let emptiest = closed.min_by_key(|(_, usage)| usage.live * 1000 / usage.bytes.max(1));
            // The current segment alone cannot exceed the limit, so there is one, and more than half of it is dead.
            let Some((name, usage)) = emptiest.map(|(name, usage)| (*name, *usage)) else { return Ok(()) };
            if usage.live >= usage.bytes {
                return Ok(());
            }
            if let Some(damage) = self.copy_forward(name)? {
                warn!(file = %name, "share store: {damage}");
                self.set_aside(name)?;
            } else {
                self.remove(name)?;
            }
        }
    }

    /// Writes all that is wanted in the closed segment `name` again, at the end, and syncs it. Says so if something was
    /// not to be read; what is lost that way is forgotten.
    fn copy_forward(&mut self, name: Name) -> Result<Option<String>, StoreError> {
        let path = self.folder.join(name.file_name());
        let (bytes, mut damage) = match segment::read(&path)? {
            Ok(bytes) => (bytes, None),
            Err(reason) => (Vec::new(), Some(reason)),
        };
        for piece in segment::pieces(&bytes, name) {
            match piece {
                Piece::Damage(range) => damage = Some(format!("{} damaged bytes at {}", range.len(), range.start)),
                Piece::Record(range, record) => self.copy_record(name, range.start as u64, record)?,
            }
        }
        self.sync()?;
        self.entries.retain(|_, entry| entry.place.segment != name);
        for entry in self.entries.values_mut() {
            if matches!(entry.mark, Mark::Apart(place) if place.segment == name) {
                entry.mark = Mark::None;
            }
        }
        Ok(damage)
    }

    /// Writes the record at `at` of `segment` again, if it is wanted.
    fn copy_record(&mut self, segment: Name, at: u64, record: Record) -> Result<(), StoreError> {
        let is_here = |place: RecordPosition| place.segment == segment && place.at == at;
        match record {
            Record::Share { hash, sequence, time_seen, bytes, .. } => {
                let Some(entry) = self.entries.get(&hash) else { return Ok(()) };
                let (old, mark) = (entry.place, entry.mark);
                if is_here(old) {
                    let verified = mark != Mark::None;
                    let place = self.append(&Record::Share { hash, sequence, time_seen, verified, bytes })?;
                    self.release(old);
                    if let Mark::Apart(place) = mark {
                        self.release(place);
                    }
                    let mark = if verified { Mark::InShare } else { Mark::None };
                    self.entries.insert(hash, Entry { place, mark });
                }
            }
            Record::Verified(hash) => {
                let mark = self.entries.get(&hash).map_or(Mark::None, |entry| entry.mark);
                if let Mark::Apart(old) = mark
                    && is_here(old)
                {
                    let place = self.append(&record)?;
                    self.release(old);
                    if let Some(entry) = self.entries.get_mut(&hash) {
                        entry.mark = Mark::Apart(place);
                    }
                }
            }
        }
        Ok(())
    }

    fn remove(&mut self, name: Name) -> Result<(), StoreError> {
        let path = self.folder.join(name.file_name());
        match fs::remove_file(&path) {
            // Somebody was faster; there is nothing in it that would be missed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(failed("delete", &path))?,
        }
        self.segments.remove(&name);
        Ok(())
    }

    fn set_aside(&mut self, name: Name) -> Result<(), StoreError> {
        let path = self.folder.join(name.file_name());
        fs::rename(&path, self.folder.join(name.damaged_file_name())).map_err(failed("rename", &path))?;
        self.segments.remove(&name);
        Ok(())
    }
}
