//! Found blocks on disk, so that a block survives a crash between "found" and "accepted".
//!
//! One file per block in `found_blocks` in its chain's folder, named `HEIGHT-HASH.STATE`. It holds a line of JSON, the block in wire format,
//! and a checksum over both. The state is in the name, so that a change of state is one rename:
//!
//! | state | at the next start |
//! | --- | --- |
//! | `block` | submitted again: its outcome is unknown |
//! | `stale` | submitted again: a reorganisation may still replace its competitor |
//! | `rejected` | submitted once more over RPC, whose answer decides |
//! | `accepted` | kept until its coinbase can be spent |

use bitcoin::BlockHash;
use bitcoin::hashes::{Hash, sha256d};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use thiserror::Error;

use crate::blocks::chain::folders_in;
use crate::blocks::{Chain, Finding, FoundBlock, Outcome};
use crate::runtime::data_dir::DataDir;
use crate::runtime::disk::{DiskHealth, Part};
use crate::template::{BLOCK_WEIGHT_MAX, EXTENSION_BYTES_MAX};

/// Name of the folder, in that of the chain.
const FOLDER: &str = "found_blocks";

/// The only format so far.
const VERSION: u32 = 1;

/// Maximum size of a file, in bytes: a block with an extension block, and a header.
const FILE_BYTES_MAX: u64 = BLOCK_WEIGHT_MAX + EXTENSION_BYTES_MAX as u64 + 1_000_000;

/// Maximum number of blocks read at a time: each may be megabytes.
const KEPT_MAX: usize = 200;

/// Number of rejected files kept for inspection, and of damaged ones.
const LOOKED_AT_MAX: usize = 20;

/// Number of accepted files that a merged chain may have, and of stale ones: its daemon may ask for almost no work.
const MERGED_FINISHED_MAX: usize = 1000;

const CHECKSUM_BYTES: usize = 32;

/// Written but not yet renamed: `write` was interrupted, perhaps after the last byte.
const UNWRITTEN: &str = "tmp";
/// To be submitted.
const UNFINISHED: &str = "block";
/// In the best chain.
const ACCEPTED: &str = "accepted";
/// A competitor of its height was first.
const STALE: &str = "stale";
/// It breaks a consensus rule.
const REJECTED: &str = "rejected";
/// Unreadable; kept for inspection.
const DAMAGED: &str = "damaged";

/// Handle to the folder of a chain's found blocks. Clones share it.
#[derive(Debug, Clone)]
pub struct Journal {
    chain: Arc<Chain>,
    data_dir: DataDir,
    folder: PathBuf,
    disk: DiskHealth,
}

/// One block's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    path: PathBuf,
}

/// Journal files that a restart has to handle.
#[derive(Debug, Default)]
pub struct Unfinished {
    /// Blocks without a verdict, and stale ones; the latter without their bytes.
    pub blocks: Vec<(FoundBlock, Entry)>,
    /// Blocks that an earlier run or an earlier version holds for rejected, without their bytes: each is read when its
    /// turn comes.
    pub rejected: Vec<(FoundBlock, Entry)>,
    /// Unreadable files, set aside under a new name, with the reason.
    pub damaged: Vec<(PathBuf, DamageError)>,
}

/// A block's file in any state.
#[derive(Debug)]
pub struct Kept {
    pub block: FoundBlock,
    /// Verdict, if there is one. The reason of a rejection is in the log only.
    pub outcome: Option<Outcome>,
    /// Modification time of the file.
    pub modified: SystemTime,
}

/// A failed disk operation.
#[derive(Debug, Error)]
#[error("cannot {action} {path}: {cause}")]
pub struct JournalError {
    action: &'static str,
    path: String,
    cause: io::Error,
}

/// Reason why a file cannot be decoded.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum DamageError {
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Too short or too long.
    #[error("length of {0} bytes is out of range")]
    Length(u64),
    /// Torn, or changed since.
    #[error("checksum is wrong")]
    Checksum,
    #[error("invalid header: {0}")]
    Header(String),
    /// Written by a later version.
    #[error("unknown format {0}")]
    Version(u32),
    /// Name and content disagree.
    #[error("file name does not match the hash of its block, {0}")]
    Hash(BlockHash),
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
    hash: BlockHash,
    height: u32,
    previous_block: BlockHash,
    #[serde(flatten)]
    finding: Finding,
}

impl Journal {
    /// Opens the journal of `chain` in `data_dir`, creating its folder if there is none.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn open(chain: Arc<Chain>, data_dir: &DataDir, disk: DiskHealth) -> Result<Self, JournalError> {
        let folder = chain.folder(data_dir.path()).join(FOLDER);
        fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        let disk = disk.for_chain(chain.name().cloned());
        Ok(Self { chain, data_dir: data_dir.clone(), folder, disk })
    }

    /// The chain whose blocks it keeps.
    pub fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// Reports whether the latest write succeeded: `None`, or the error.
    pub fn report(&self, trouble: Option<String>) {
        self.disk.report(Part::Journal, trouble);
    }

    /// True once this process may write to it; until then, another process does.
    pub fn is_ours(&self) -> bool {
        self.data_dir.is_ours()
    }

    /// Waits until this process may write to it.
    pub async fn ours(&self) {
        self.data_dir.ours().await;
    }

    /// Writes `block`, so that a restart of the process finds it. Only [`Entry::sync`] protects it from a power cut.
    ///
    /// # Errors
    /// The disk is full, or unavailable.
    pub fn write(&self, block: &FoundBlock) -> Result<Entry, JournalError> {
        let path = self.folder.join(format!("{:07}-{}.{UNFINISHED}", block.height, block.hash));
        let unwritten = path.with_extension(UNWRITTEN);
        let mut file = File::create(&unwritten).map_err(failed("create", &unwritten))?;
        file.write_all(&encode(block)).map_err(failed("write", &unwritten))?;
        fs::rename(&unwritten, &path).map_err(failed("rename", &unwritten))?;
        if self.chain.name().is_some() {
            // An earlier proof of the same block, if any; this one may be accepted.
            let _ = fs::remove_file(path.with_extension(REJECTED));
        }
        Ok(Entry { path })
    }

    /// Returns the blocks that were unfinished when the last process ended. Unreadable files are set aside: they must
    /// not prevent a start.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn unfinished(&self) -> Result<Unfinished, JournalError> {
        let mut found = Unfinished::default();
        for path in self.paths()? {
            let state = path.extension().and_then(|state| state.to_str()).unwrap_or_default();
            let is_rejected = state == REJECTED;
            if ![UNFINISHED, UNWRITTEN, STALE].contains(&state) && !is_rejected {
                continue;
            }
            let without_bytes = |block| FoundBlock { bytes: Bytes::new(), ..block };
            match load(&path) {
                Ok(block) if is_rejected => found.rejected.push((without_bytes(block), Entry { path })),
                Ok(block) if state == STALE => found.blocks.push((without_bytes(block), Entry { path })),
                Ok(block) => {
                    // Complete, though its rename was interrupted.
                    let whole = path.with_extension(UNFINISHED);
                    if state == UNWRITTEN {
                        fs::rename(&path, &whole).map_err(failed("rename", &path))?;
                    }
                    found.blocks.retain(|(other, _)| other.hash != block.hash);
                    found.blocks.push((block, Entry { path: whole }));
                }
                // Left as it is for inspection.
                Err(_) if is_rejected => {}
                Err(damage) => {
                    let aside = path.with_extension(DAMAGED);
                    let _ = fs::rename(&path, &aside);
                    found.damaged.push((aside, damage));
                }
            }
        }
        Ok(found)
    }
}

impl Journal {
    /// Returns every readable block, highest first; `KEPT_MAX` at most.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn kept(&self) -> Result<Vec<Kept>, JournalError> {
        let mut paths = self.paths()?;
        paths.reverse();
        let kept = paths.into_iter().filter_map(|path| {
            let outcome = match path.extension()?.to_str()? {
                UNFINISHED => None,
                ACCEPTED => Some(Outcome::Accepted),
                STALE => Some(Outcome::Stale),
                REJECTED => Some(Outcome::Rejected("see the log of that time".to_owned())),
                _ => return None,
            };
            let modified = fs::metadata(&path).and_then(|data| data.modified()).ok()?;
            Some(Kept { block: load(&path).ok()?, outcome, modified })
        });
        Ok(kept.take(KEPT_MAX).collect())
    }

    /// Reads the block with that hash, whatever its state.
    ///
    /// # Errors
    /// The folder cannot be listed, or its file is damaged.
    pub fn find(&self, hash: &BlockHash) -> Result<Option<(FoundBlock, Entry)>, FindError> {
        find_in(&self.folder, hash)
    }

    /// Removes the file of an accepted or stale block. Others stay.
    ///
    /// # Errors
    /// A disk operation failed.
    pub fn forget(&self, hash: &BlockHash) -> Result<(), JournalError> {
        let ending = format!("-{hash}");
        for path in self.paths()? {
            let is_finished = path.extension().is_some_and(|state| state == ACCEPTED || state == STALE);
            let is_its = path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.ends_with(&ending));
            if is_finished && is_its {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Removes the oldest rejected and damaged files beyond `LOOKED_AT_MAX` of either: each may be megabytes. Those of a
    /// merged chain that are accepted or stale are limited, too.
    ///
    /// # Errors
    /// A disk operation failed.
    pub fn prune(&self) -> Result<(), JournalError> {
        let finished_max = if self.chain.name().is_some() { MERGED_FINISHED_MAX } else { usize::MAX };
        let limits =
            [(REJECTED, LOOKED_AT_MAX), (DAMAGED, LOOKED_AT_MAX), (ACCEPTED, finished_max), (STALE, finished_max)];
        for (state, files_max) in limits.into_iter().filter(|(_, files_max)| *files_max < usize::MAX) {
            let of_state = |path: &PathBuf| path.extension().is_some_and(|extension| extension == state);
            let mut paths: Vec<(SystemTime, PathBuf)> = (self.paths()?.into_iter().filter(of_state))
                .filter_map(|path| Some((fs::metadata(&path).and_then(|data| data.modified()).ok()?, path)))
                .collect();
            paths.sort();
            let beyond = paths.len().saturating_sub(files_max);
            for (_, path) in &paths[..beyond] {
                fs::remove_file(path).map_err(failed("remove", path))?;
            }
        }
        Ok(())
    }

    /// Returns every file, lowest block first.
    fn paths(&self) -> Result<Vec<PathBuf>, JournalError> {
        paths_in(&self.folder)
    }
}

/// Reads a found block of any chain from a data directory; no node has to run.
///
/// # Errors
/// The block is in no journal, and one cannot be listed or has a damaged file of it.
pub fn read(data_dir: &Path, hash: &BlockHash) -> Result<Option<FoundBlock>, FindError> {
    let mut failed = None;
    for folder in folders_in(data_dir) {
        match find_in(&folder.join(FOLDER), hash) {
            Ok(Some((block, _))) => return Ok(Some(block)),
            Ok(None) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Reason why a block cannot be read.
#[derive(Debug, Error)]
pub enum FindError {
    #[error(transparent)]
    Disk(#[from] JournalError),
    /// Its file exists, but cannot be decoded.
    #[error("{path}: {reason}")]
    Damaged { path: String, reason: DamageError },
}

fn paths_in(folder: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let listing = fs::read_dir(folder).map_err(failed("list", folder))?;
    let mut paths: Vec<PathBuf> = listing.filter_map(|file| Some(file.ok()?.path())).collect();
    paths.sort();
    Ok(paths)
}

fn find_in(folder: &Path, hash: &BlockHash) -> Result<Option<(FoundBlock, Entry)>, FindError> {
    let ending = format!("-{hash}");
    let mut damaged = None;
    for path in paths_in(folder)? {
        let is_its = path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.ends_with(&ending));
        if !is_its {
            continue;
        }
        match load(&path) {
            Ok(block) => return Ok(Some((block, Entry { path }))),
            Err(reason) => damaged = Some(FindError::Damaged { path: path.display().to_string(), reason }),
        }
    }
    damaged.map_or(Ok(None), Err)
}

impl Entry {
    /// Syncs the file and its folder to disk. Slow: run it beside the submission, never before it.
    ///
    /// # Errors
    /// A disk operation failed.
    pub fn sync(&self) -> Result<(), JournalError> {
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all()).map_err(failed("sync", path));
        sync(&self.path)?;
        self.path.parent().map_or(Ok(()), sync)
    }

    /// Records `outcome` in the file's name.
    ///
    /// # Errors
    /// The file is missing, or cannot be renamed.
    pub fn mark(&mut self, outcome: &Outcome) -> Result<(), JournalError> {
        let renamed = self.path.with_extension(outcome.word());
        fs::rename(&self.path, &renamed).map_err(failed("rename", &self.path))?;
        self.path = renamed;
        Ok(())
    }

    /// Reads the block again.
    ///
    /// # Errors
    /// The file is missing or damaged.
    pub fn load(&self) -> Result<FoundBlock, DamageError> {
        load(&self.path)
    }
}

#[cfg(test)]
impl Journal {
    /// Opens the journal in a folder that no other process uses.
    pub(crate) fn of_test(folder: &Path) -> Self {
        let data_dir = DataDir::open(folder, &sharechain::coin::BITCOIN_REGTEST).unwrap();
        assert!(data_dir.is_ours());
        Self::open(Arc::default(), &data_dir, DiskHealth::new()).unwrap()
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError + use<> {
    let path = path.display().to_string();
    move |cause| JournalError { action, path, cause }
}

fn encode(block: &FoundBlock) -> Vec<u8> {
    let header = Header {
        version: VERSION,
        hash: block.hash,
        height: block.height,
        previous_block: block.previous_block,
        finding: block.finding.clone(),
    };
    let mut bytes = serde_json::to_vec(&header).expect("plain strings and numbers always become JSON");
    bytes.push(b'\n');
    bytes.extend_from_slice(&block.bytes);
    let checksum = sha256d::Hash::hash(&bytes);
    bytes.extend_from_slice(checksum.as_byte_array());
    bytes
}

fn load(path: &Path) -> Result<FoundBlock, DamageError> {
    let length = fs::metadata(path).map_err(|error| DamageError::Unreadable(error.to_string()))?.len();
    if length > FILE_BYTES_MAX {
        return Err(DamageError::Length(length));
    }
    let bytes = fs::read(path).map_err(|error| DamageError::Unreadable(error.to_string()))?;
    let block = decode(bytes)?;
    let named = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if named.ends_with(&block.hash.to_string()) { Ok(block) } else { Err(DamageError::Hash(block.hash)) }
}

fn decode(bytes: Vec<u8>) -> Result<FoundBlock, DamageError> {
    let bytes = Bytes::from(bytes);
    let Some(end) = bytes.len().checked_sub(CHECKSUM_BYTES) else {
        return Err(DamageError::Length(bytes.len() as u64));
    };
    if sha256d::Hash::hash(&bytes[..end]).as_byte_array()[..] != bytes[end..] {
        return Err(DamageError::Checksum);
    }
    let line = bytes[..end].iter().position(|byte| *byte == b'\n').unwrap_or(end);
    let header: Header =
        serde_json::from_slice(&bytes[..line]).map_err(|error| DamageError::Header(error.to_string()))?;
    if header.version != VERSION {
        return Err(DamageError::Version(header.version));
    }
    Ok(FoundBlock {
        hash: header.hash,
        previous_block: header.previous_block,
        height: header.height,
        bytes: bytes.slice((line + 1).min(end)..end),
        finding: header.finding,
        judged_at: None,
    })
}

#[cfg(test)]
mod tests;
