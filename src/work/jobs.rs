//! `JobCache`: jobs of one snapshot of work, made once for all miners with the same payout.
//!
//! A stranger may ask for as many payouts as he likes, so the cache is bounded. What goes first is what was asked for
//! least: a farm's job, which thousands of devices share, is worth keeping; a job of one miner is as well made again.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use stratum::Difficulty;

use super::{MergedEntry, Payout};

/// Parts of a cache, each with a lock of its own.
const SHARDS: usize = 32;

/// Bounds of a cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Maximum number of jobs.
    pub(super) entries: usize,
    /// Maximum memory of all, in bytes.
    pub(super) bytes: usize,
}

/// Properties by which jobs differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct JobKey {
    address: Arc<str>,
    /// Miners with one address may be paid at different ones of the merged chain (protocol-v36 trap 12).
    merged: Option<Arc<MergedEntry>>,
    /// Bits of the requested share difficulty, rounded.
    wish: Option<u64>,
    generation: u32,
}

impl JobKey {
    pub(super) fn new(payout: &Payout, generation: u32) -> Self {
        let wish = rounded(payout.share_difficulty).map(|wish| wish.get().to_bits());
        Self { address: payout.address.clone(), merged: payout.merged.clone(), wish, generation }
    }
}

/// Share difficulty for which jobs are made if a miner asks for `wish`: at most 16 % easier, so that twenty thousand
/// wishes make a few jobs.
pub(super) fn rounded(wish: Option<Difficulty>) -> Option<Difficulty> {
    wish.map(Difficulty::to_step_below)
}

/// Jobs by key; `V` is what was made of a job, cheap to clone.
#[derive(Debug)]
pub(super) struct JobCache<V> {
    shards: [Mutex<Shard<V>>; SHARDS],
    /// Random, so that a stranger cannot choose the shard of a job.
    hasher: RandomState,
    bounds: Bounds,
}

#[derive(Debug)]
struct Shard<V> {
    entries: HashMap<JobKey, Entry<V>>,
    bytes: usize,
    /// Number of jobs made.
    made: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    uses: u64,
    /// Number of the job in order of making.
    number: u64,
}

impl<V: Clone> JobCache<V> {
    pub(super) fn new(bounds: Bounds) -> Self {
        let shard = || Mutex::new(Shard { entries: HashMap::new(), bytes: 0, made: 0 });
        let bounds = Bounds { entries: bounds.entries / SHARDS, bytes: bounds.bytes / SHARDS };
        Self { shards: std::array::from_fn(|_| shard()), hasher: RandomState::new(), bounds }
    }

    /// Returns the value of `key`, made by `make` together with its size in bytes unless it is there.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) fn get_or_make<E>(&self, key: JobKey, make: impl FnOnce() -> Result<(V, usize), E>) -> Result<V, E> {
        let index = self.hasher.hash_one(&key) % SHARDS as u64;
        // Held for the microseconds of making the job: concurrent callers want the same one.
        let mut shard = self.shards[usize::try_from(index).expect("a small number")].lock();
        if let Some(entry) = shard.entries.get_mut(&key) {
            entry.uses += 1;
            return Ok(entry.value.clone());
        }
        let (value, bytes) = make()?;
        while shard.entries.len() >= self.bounds.entries || shard.bytes + bytes > self.bounds.bytes {
            if !shard.evict() {
                break;
            }
        }
        shard.made += 1;
        let entry = Entry { value: value.clone(), bytes, uses: 1, number: shard.made };
        shard.bytes += bytes;
        shard.entries.insert(key, entry);
        Ok(value)
    }

    /// Number of jobs, and their memory in bytes.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let shards = self.shards.iter().map(Mutex::lock);
        shards.fold((0, 0), |(count, bytes), shard| (count + shard.entries.len(), bytes + shard.bytes))
    }
}

impl<V> Shard<V> {
    /// Drops the oldest of the jobs that were asked for least; returns false if there is none.
    fn evict(&mut self) -> bool {
        let least = self.entries.iter().min_by_key(|(_, entry)| (entry.uses, entry.number));
        let Some(key) = least.map(|(key, _)| key.clone()) else { return false };
        if let Some(entry) = self.entries.remove(&key) {
            self.bytes -= entry.bytes;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const BOUNDS: Bounds = Bounds { entries: 32 * SHARDS, bytes: 3200 * SHARDS };

    fn key(number: usize) -> JobKey {
        JobKey { address: number.to_string().into(), merged: None, wish: None, generation: 0 }
    }

    fn get(cache: &JobCache<usize>, number: usize, bytes: usize) -> bool {
        let mut is_made = false;
        let made = cache.get_or_make(key(number), || {
            is_made = true;
            Ok::<_, Infallible>((number, bytes))
        });
        assert_eq!(made, Ok(number));
        is_made
    }

    #[test]
    fn a_job_that_many_share_outlives_any_number_that_few_ask_for() {
        let cache = JobCache::new(BOUNDS);
        assert!(get(&cache, 0, 100) && !get(&cache, 0, 100));
        for number in 1..20_000 {
            assert!(get(&cache, number, 100));
            let (count, bytes) = cache.size();
            assert!(count <= BOUNDS.entries && bytes <= BOUNDS.bytes);
        }
        assert!(!get(&cache, 0, 100), "it was there all the time");
        assert!(get(&cache, 1, 100), "it was the oldest of those asked for once");
    }

    #[test]
    fn large_jobs_are_bounded_by_their_memory() {
        let cache = JobCache::new(BOUNDS);
        for number in 0..1000 {
            assert!(get(&cache, number, 1500));
        }
        let (count, bytes) = cache.size();
        assert!(count <= 2 * SHARDS && bytes <= BOUNDS.bytes);
        assert!(get(&cache, 1000, 10_000), "what is larger than a shard is handed out all the same");
    }
}
