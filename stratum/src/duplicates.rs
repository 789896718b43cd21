//! Remembers the headers already credited for a job on one connection, bounded.

use std::collections::VecDeque;

/// Headers that are remembered of a job. While a job is the newest, vardiff lets a miner find a dozen; a hundred tables of
/// this size fit into a processor's caches.
pub const DUPLICATES_MAX: usize = 4 * 1024;

/// Slots of a table that holds anything at all.
const SLOTS_MIN: usize = 8;

/// The headers of one job and extranonce1, told apart by eight bytes of their hash: those that are *not* zero by proof of work.
///
/// A table of open addresses, at most half full: among ten thousand connections nothing of it is in the processor's
/// caches, and a look-up fetches one line of memory.
#[derive(Debug)]
pub struct Duplicates {
    /// Keys where their hashes point to, or in the next free slot; zero for none. A power of two of them, or none.
    slots: Vec<u64>,
    /// So that a miner cannot choose where its submissions come to lie.
    seed: u64,
    order: VecDeque<u64>,
}

impl Default for Duplicates {
    fn default() -> Self {
        Self { slots: Vec::new(), seed: fastrand::u64(..) | 1, order: VecDeque::new() }
    }
}

impl Duplicates {
    /// Remembers `hash`; says whether it was new.
    pub fn insert(&mut self, hash: &[u8; 32]) -> bool {
        if self.slots.len() < 2 * (self.order.len() + 1).min(DUPLICATES_MAX) {
            self.grow();
        }
        let key = key_of(hash);
        let slot = self.find(key);
        if self.slots[slot] == key {
            return false;
        }
        self.slots[slot] = key;
        if self.order.len() == DUPLICATES_MAX {
            let oldest = self.order.pop_front().expect("it is full");
            self.remove(oldest);
        }
        self.order.push_back(key);
        true
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether `hash` is remembered.
    pub fn contains(&self, hash: &[u8; 32]) -> bool {
        let key = key_of(hash);
        !self.slots.is_empty() && self.slots[self.find(key)] == key
    }

    /// Where `key` is, or is to come. There is always a free slot to end at.
    fn find(&self, key: u64) -> usize {
        let mut slot = self.home(key);
        while self.slots[slot] != 0 && self.slots[slot] != key {
            slot = self.after(slot);
        }
        slot
    }

    /// Where `key` is to be if nothing is in its way.
    fn home(&self, key: u64) -> usize {
        let product = u128::from(self.seed) * u128::from(key ^ self.seed);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "both halves are mixed, and as many bits kept as are wanted"
        )]
        let mixed = (product as u64 ^ (product >> 64) as u64) as usize;
        mixed & (self.slots.len() - 1)
    }

    fn after(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }

    fn grow(&mut self) {
        self.slots = vec![0; (2 * self.slots.len()).max(SLOTS_MIN)];
        for index in 0..self.order.len() {
            let key = self.order[index];
            let slot = self.find(key);
            self.slots[slot] = key;
        }
    }

    /// Takes `key` out, and moves up those behind it that it kept from their place.
    fn remove(&mut self, key: u64) {
        let mut free = self.find(key);
        self.slots[free] = 0;
        let mut slot = self.after(free);
        while self.slots[slot] != 0 {
            let moved = self.slots[slot];
            let mask = self.slots.len() - 1;
            let from_home = slot.wrapping_sub(self.home(moved)) & mask;
            let from_free = slot.wrapping_sub(free) & mask;
            if from_home >= from_free {
                self.slots[free] = moved;
                self.slots[slot] = 0;
                free = slot;
            }
            slot = self.after(slot);
        }
    }
}

/// Never zero, which marks a free slot: one in 2^64 hashes is taken for another.
fn key_of(hash: &[u8; 32]) -> u64 {
    match u64::from_le_bytes(hash[..8].try_into().expect("eight bytes of thirty-two")) {
        0 => u64::MAX,
        key => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(seed: usize) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&seed.to_le_bytes());
        hash
    }

    #[test]
    fn the_same_header_is_new_only_once() {
        let mut duplicates = Duplicates::default();
        assert!(duplicates.insert(&hash(1)));
        assert!(!duplicates.insert(&hash(1)));
        assert!(duplicates.contains(&hash(1)));
        assert!(!duplicates.contains(&hash(2)));
    }

    #[test]
    fn memory_stays_bounded_and_the_oldest_goes_first() {
        let mut duplicates = Duplicates::default();
        for seed in 0..DUPLICATES_MAX + 10 {
            assert!(duplicates.insert(&hash(seed)));
        }
        assert_eq!(duplicates.len(), DUPLICATES_MAX);
        assert_eq!(duplicates.slots.iter().filter(|slot| **slot != 0).count(), DUPLICATES_MAX);
        assert!(!duplicates.contains(&hash(9)));
        assert!(duplicates.contains(&hash(10)));
    }

    #[test]
    fn nothing_is_lost_or_made_up_while_the_oldest_go() {
        let mut duplicates = Duplicates::default();
        let mut random = fastrand::Rng::with_seed(7);
        let hashes: Vec<[u8; 32]> = (0..3 * DUPLICATES_MAX).map(|_| random.u64(..).to_le_bytes()).map(long).collect();
        for (index, hash) in hashes.iter().enumerate() {
            assert!(duplicates.insert(hash), "{index} is new");
            assert!(!duplicates.insert(hash), "{index} is known");
        }
        let (forgotten, known) = hashes.split_at(hashes.len() - DUPLICATES_MAX);
        assert!(known.iter().all(|hash| duplicates.contains(hash)));
        assert!(!forgotten.iter().any(|hash| duplicates.contains(hash)));
    }

    fn long(start: [u8; 8]) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&start);
        hash
    }
}
