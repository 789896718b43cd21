//! Remembers the headers already credited on a connection, bounded.

use std::collections::{HashSet, VecDeque};

/// Headers that a session remembers. At one in three seconds that is half a day's; a flood of easy ones is cut down by
/// vardiff long before it could push out what is still on a known job.
pub const DUPLICATES_MAX: usize = 16 * 1024;

/// The headers of one extranonce1, told apart by eight bytes of their hash: those that are *not* zero by proof of work.
#[derive(Debug, Default)]
pub struct Duplicates {
    known: HashSet<u64>,
    order: VecDeque<u64>,
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
