//! Table of the merged address first seen for each parent script (protocol-v36 section 8.2, step 2), as explicit
//! state: what a share adds to it goes with the share.
//!
//! The reference fills one table for the life of its process and never drops anything. Here a pair of parent script and
//! merged script lives as long as any known share teaches it, and of a script's pairs the one taught for the longest
//! time without a gap is the answer. The answers are the same as long as the first teacher's pair is repeated by any
//! known share, which is the rule: a miner's shares all teach one pair. They differ once all shares of the first pair
//! are forgotten, as they do in the reference when it is restarted. Only windows with a share that has no entry of its
//! own depend on it (protocol-v36 trap 8).

use super::DOGECOIN;
use super::script_kinds::{self, Kind};
use crate::map::Map;
use crate::script::Script;
use crate::share::ShareHash;

/// Maximum bytes of the table: more than all shares from strangers may take (80 MB), which cost little work, so that
/// those alone displace nothing. A table full of usual shares, two chains' lengths and forks, takes 20 MB.
pub const FIRST_SEEN_BYTES_MAX: usize = 128_000_000;

/// Above the maximum, a sixteenth more than the excess is removed, so that the search does not run for every share.
const MORE: usize = 16;

/// Memory of one lesson besides its scripts' bytes, rounded up: its place in both maps, with two rows of their own.
const LESSON_BYTES: usize = 512;

/// Teaching of one share.
#[derive(Debug, Clone)]
struct Lesson {
    parent: Script,
    merged: Script,
}

impl Lesson {
    fn bytes(&self) -> usize {
        LESSON_BYTES + self.parent.as_bytes().len() + self.merged.as_bytes().len()
    }
}

/// Merged script taught for some parent script.
#[derive(Debug, Clone)]
struct Taught {
    merged: Script,
    /// Known shares that teach it.
    shares: u32,
}

/// The table. Bounded in bytes by [`FIRST_SEEN_BYTES_MAX`].
///
/// A share teaches at most one pair, whatever the length of its list: its first entry for Dogecoin that is not empty.
/// Further entries of that chain could not change the answer, and other chains are never looked up.
#[derive(Debug, Clone, Default)]
pub struct FirstSeen {
    /// Pairs by parent script, the first seen first.
    rows: Map<Script, Vec<Taught>>,
    lessons: Map<ShareHash, Lesson>,
    bytes: usize,
    generation: u64,
}

impl FirstSeen {
    /// Learns from a share of version 36 or later with the payee `script` and these `merged_addresses` (chain, script).
    /// Call it for each share that enters the chain, valid or not and on any fork, in the order of arrival, and
    /// [`remove`](Self::remove) when it leaves. A share that is already known changes nothing.
    pub fn add<'a>(
        &mut self,
        share: ShareHash,
        script: &[u8],
        merged_addresses: impl IntoIterator<Item = (u32, &'a [u8])>,
    ) {
        let entry = merged_addresses.into_iter().find(|(chain, merged)| *chain == DOGECOIN && !merged.is_empty());
        let Some((_, merged)) = entry.filter(|_| !self.lessons.contains_key(&share)) else { return };
        let lesson = self.lesson(script, merged);
        self.bytes += lesson.bytes();
        if let Some(normalised) = normalised(script) {
            self.teach(normalised[..].into(), lesson.merged.clone());
        }
        self.teach(lesson.parent.clone(), lesson.merged.clone());
        self.lessons.insert(share, lesson);
        if self.bytes > FIRST_SEEN_BYTES_MAX {
            self.shrink(FIRST_SEEN_BYTES_MAX - FIRST_SEEN_BYTES_MAX / MORE);
        }
    }

    /// Forgets what `share` taught, if anything.
    pub fn remove(&mut self, share: &ShareHash) {
        let Some(lesson) = self.lessons.remove(share) else { return };
        self.bytes -= lesson.bytes();
        if let Some(normalised) = normalised(lesson.parent.as_bytes()) {
            self.forget(&normalised, &lesson.merged);
        }
        self.forget(lesson.parent.as_bytes(), &lesson.merged);
    }

    /// Returns the merged script first seen for `script` on the merged chain `chain`, else the one first seen for its
    /// form on that chain (P2PKH for P2WPKH).
    pub fn find(&self, chain: u32, script: &[u8]) -> Option<&Script> {
        if chain != DOGECOIN {
            return None;
        }
        let row = self.rows.get(script).or_else(|| self.rows.get(&normalised(script)?[..]))?;
        row.first().map(|taught| &taught.merged)
    }

    /// Number that changes whenever any answer of [`find`](Self::find) does: weights computed with such an answer, or
    /// with the lack of one, hold for one generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Memory use in bytes, rounded up.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Creates a lesson that shares the bytes of an equal one's scripts.
    fn lesson(&self, parent: &[u8], merged: &[u8]) -> Lesson {
        let known = self.rows.get_key_value(parent);
        let same = known.and_then(|(_, row)| row.iter().find(|taught| taught.merged.as_bytes() == merged));
        Lesson {
            parent: known.map_or_else(|| parent.into(), |(script, _)| script.clone()),
            merged: same.map_or_else(|| merged.into(), |taught| taught.merged.clone()),
        }
    }

    fn teach(&mut self, key: Script, merged: Script) {
        let row = self.rows.entry(key).or_insert_with(|| Vec::with_capacity(1));
        if let Some(taught) = row.iter_mut().find(|taught| taught.merged == merged) {
            taught.shares += 1;
            return;
        }
        if row.is_empty() {
            self.generation += 1;
        }
        row.push(Taught { merged, shares: 1 });
    }

    fn forget(&mut self, key: &[u8], merged: &Script) {
        let Some(row) = self.rows.get_mut(key) else { return };
        let Some(at) = row.iter().position(|taught| taught.merged == *merged) else { return };
        row[at].shares -= 1;
        if row[at].shares > 0 {
            return;
        }
        row.remove(at);
        if at == 0 {
            self.generation += 1;
        }
        if row.is_empty() {
            self.rows.remove(key);
        }
    }

    /// Forgets the lessons with the longest scripts, until `goal` bytes are left: those of real miners have 25 bytes.
    fn shrink(&mut self, goal: usize) {
        let mut longest: Vec<(usize, ShareHash)> =
            self.lessons.iter().map(|(share, lesson)| (lesson.bytes(), *share)).collect();
        longest.sort_unstable();
        while self.bytes > goal
            && let Some((_, share)) = longest.pop()
        {
            self.remove(&share);
        }
    }
}

/// Second script under which a pair is kept, if it differs from the first.
fn normalised(script: &[u8]) -> Option<[u8; 25]> {
    match script_kinds::of(script)? {
        Kind::P2wpkh(hash) => Some(script_kinds::p2pkh(hash)),
        Kind::P2pkh | Kind::P2sh => None,
    }
}

#[cfg(test)]
mod tests;
