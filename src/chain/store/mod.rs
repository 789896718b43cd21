//! Shares on disk, so that a restart continues where the last run ended.
//!
//! Segments of about a megabyte (a longer share has one of its own) in the folder `shares` are append-only; one without
//! wanted records is deleted, and the wanted records of a mostly dead one are copied to the end first. So a crash or
//! power loss at any moment keeps what was synced, and a half-written record costs only itself.
//!
//! ```text
//!  own shares ──▶ StoreQueue ──first──▶┐
//!  owner ───────▶ StoreWriter ──queue──▶ thread: Store ──append──▶ shares/000123-0badcafe.log
//!                                          │ sync at intervals and at the end
//!  start: Store::open ──▶ Loaded { shares, verified, problems }
//! ```
//!
//! Forgetting is not written down: a start may bring back forgotten shares from segments not deleted yet, at most about
//! as much as was wanted. The lock on the data directory, not this module, keeps two processes apart.

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

/// Maximum size of a segment before the next starts: short enough that copying one forward is cheap, long enough that a
/// full store has some twenty files.
const SEGMENT_BYTES_MAX: u64 = 1 << 20;

/// Error of a store operation.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A disk operation failed.
    #[error("cannot {action} {path}: {cause}")]
    Disk {
        /// Operation that failed.
        action: &'static str,
        /// File or folder.
        path: String,
        cause: io::Error,
    },
    /// Written by a newer program. Nothing was changed.
    #[error("{path} has share store format {version}, this program knows only {known}: start the newer program, or move the folder away", known = segment::VERSION)]
    Version {
        /// File concerned.
        path: String,
        /// Version in that file.
        version: u32,
    },
    /// The share is too long for any message.
    #[error("share {hash} has {length} bytes, more than {SHARE_BYTES_MAX}")]
    TooLong {
        hash: ShareHash,
        /// Its length, in bytes.
        length: usize,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.display().to_string();
    move |cause| StoreError::Disk { action, path, cause }
}

/// The share store. Its calls block on the disk: keep it on a thread of its own ([`StoreWriter`]).
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    segments: BTreeMap<Name, Usage>,
    entries: HashMap<ShareHash, Entry>,
    /// Segment being appended to; `None` before the first append.
    current: Option<Current>,
    next_id: u64,
    next_sequence: u64,
    /// Makes writes hang until the other end is dropped.
    #[cfg(test)]
    hanging: Option<std::sync::mpsc::Receiver<()>>,
}

#[cfg(test)]
impl Store {
    /// Makes the next write hang until the returned sender is dropped.
    pub(in crate::chain) fn hang(&mut self) -> std::sync::mpsc::Sender<()> {
        let (release, hanging) = std::sync::mpsc::channel();
        self.hanging = Some(hanging);
        release
    }
}

/// Size of a segment, and the part of it that is wanted.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    bytes: u64,
    live: u64,
}

/// Position of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RecordPosition {
    segment: Name,
    at: u64,
    length: u64,
}

/// Verification mark of a share, and its position.
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
    /// Bytes of it that survive a power loss.
    synced: u64,
}

impl Store {
    /// Opens the share store in `data_dir`, creating it if missing, and reads all of it.
    ///
    /// Damage costs only the records it hit, is described in [`Loaded::problems`], and never prevents a start. A
    /// damaged segment is set aside under a new name for inspection.
    ///
    /// # Errors
    /// [`StoreError::Disk`], and [`StoreError::Version`] for a store of a newer program, which is left unchanged.
    pub fn open(data_dir: &Path) -> Result<(Store, Loaded), StoreError> {
        load::open(data_dir.join("shares"))
    }

    /// Reads the share store in `data_dir` while another process owns it, without repairing or changing anything. A
    /// missing store reads as an empty one.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn read_only(data_dir: &Path) -> Result<Loaded, StoreError> {
        load::read_only(&data_dir.join("shares"))
    }

    /// True if the share is stored.
    pub fn contains(&self, hash: ShareHash) -> bool {
        self.entries.contains_key(&hash)
    }

    /// Stores a share: `bytes` are its version and contents, and `verified` says that it passed all checks. A share
    /// that is stored already only gets its mark.
    ///
    /// Survives the end of the process at once, and a power loss after [`Store::sync`].
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

    /// Appends shares, and writes them to the disk.
    ///
    /// # Errors
    /// [`StoreError::TooLong`], [`StoreError::Disk`].
    pub fn append_all(&mut self, shares: &[NewShare]) -> Result<(), StoreError> {
        for share in shares {
            self.append_share(share.hash, &share.bytes, share.time_seen, share.verified)?;
        }
        self.sync()
    }

    /// Marks a share as verified. Does nothing for one that is not stored.
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

    /// Marks shares as unwanted, and frees the space of segments that are mostly unwanted.
    ///
    /// # Errors
    /// [`StoreError::Disk`]: they are forgotten anyway, only their space is not free yet.
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

    /// Makes everything survive a power loss.
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

    /// Number of stored shares.
    pub fn shares(&self) -> usize {
        self.entries.len()
    }

    /// Size of the store on disk in bytes, without damaged copies.
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
            // Half a record may be there now. Truncate it, or start a new segment if that fails.
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

    /// Returns the open segment for a record of `length` bytes: the current one, or a new one if that is full.
    fn segment_for(&mut self, length: u64) -> Result<Name, StoreError> {
        if let Some(current) = &self.current {
            let used = self.segments.get(&current.name).map_or(0, |usage| usage.bytes);
            if used <= HEADER_BYTES as u64 || used + length <= SEGMENT_BYTES_MAX {
                return Ok(current.name);
            }
            // Before anything goes into the next: a later record must not outlive an earlier one.
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

    /// Deletes dead segments, and copies forward from mostly dead ones until at most half of the store, two segments
    /// not counted, is dead.
    fn reclaim(&mut self) -> Result<(), StoreError> {
        // A full segment gets no more records, and one of a single long share may be most of the store.
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

    /// Copies the wanted records of the closed segment `name` to the end, and syncs. Describes unreadable spots; shares
    /// lost that way are forgotten.
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

    /// Copies the record at `at` of `segment`, if it is wanted.
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
            // Deleted by another process; it had nothing that would be missed.
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
