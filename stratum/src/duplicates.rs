//! Remembers the headers already credited on a connection, bounded.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher};

/// Headers that a session remembers. At one in three seconds that is half a day's; a flood of easy ones is cut down by
/// vardiff long before it could push out what is still on a known job.
pub const DUPLICATES_MAX: usize = 16 * 1024;

/// The headers of one extranonce1, told apart by eight bytes of their hash: those that are *not* zero by proof of work.
#[derive(Debug, Default)]
pub struct Duplicates {
    known: HashSet<u64, Seed>,
    order: VecDeque<u64>,
}

/// Makes hashes of what is a hash already: nearly for nothing, but not so that a miner could choose where its submissions
/// come to lie.
#[derive(Debug)]
struct Seed(u64);

impl Default for Seed {
    fn default() -> Self {
        Self(fastrand::u64(..) | 1)
    }
}

impl BuildHasher for Seed {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(self.0)
    }
}

struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0) * u128::from(value ^ self.0);
        #[expect(clippy::cast_possible_truncation, reason = "both halves are wanted")]
        let halves = (product as u64, (product >> 64) as u64);
        self.0 = halves.0 ^ halves.1;
    }
}

impl Duplicates {
    /// Remembers `hash`; says whether it was new.
    pub fn insert(&mut self, hash: &[u8; 32]) -> bool {
        let key = u64::from_le_bytes(hash[..8].try_into().expect("eight bytes of thirty-two"));
        if !self.known.insert(key) {
            return false;
        }
        if self.order.len() == DUPLICATES_MAX {
            let oldest = self.order.pop_front().expect("it is full");
            self.known.remove(&oldest);
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
        self.known.contains(&u64::from_le_bytes(hash[..8].try_into().expect("eight bytes of thirty-two")))
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
        assert_eq!(duplicates.known.len(), DUPLICATES_MAX);
        assert_eq!(duplicates.order.len(), DUPLICATES_MAX);
        assert!(!duplicates.contains(&hash(9)));
        assert!(duplicates.contains(&hash(10)));
    }
}
