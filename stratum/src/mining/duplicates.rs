//! Bounded set of the headers already credited for a job on one connection.

/// Maximum number of lines in a table (64 kB). While a job is the newest, vardiff aims at a dozen submissions for it.
const LINES_MAX: usize = 1024;

/// Maximum number of headers remembered for a job.
pub const DUPLICATES_MAX: usize = LINES_MAX * KEYS;

/// Keys per line.
const KEYS: usize = 8;

/// Headers of one job and extranonce1, by eight bytes of their hash (those that proof of work leaves non-zero).
///
/// With ten thousand connections none of this is in the processor's caches, so a look-up fetches only one cache line. A
/// full line makes the table grow; in the largest table its oldest key is evicted: one in 100,000 of the headers that a
/// thousand others followed, one in twenty of those that four thousand followed.
#[derive(Debug)]
pub struct Duplicates {
    /// Empty, or a power of two of lines.
    lines: Vec<Line>,
    /// Random, so that a miner cannot choose the lines of its submissions.
    seed: u64,
    len: usize,
}

/// One cache line: keys, newest first, then zeros.
#[derive(Debug, Clone, Default)]
#[repr(align(64))]
struct Line([u64; KEYS]);

impl Line {
    fn is_full(&self) -> bool {
        self.0[KEYS - 1] != 0
    }

    /// Inserts `key` at the front; evicts the oldest key if the line is full.
    fn push(&mut self, key: u64) {
        self.0.rotate_right(1);
        self.0[0] = key;
    }
}

impl Default for Duplicates {
    fn default() -> Self {
        Self { lines: Vec::new(), seed: fastrand::u64(..) | 1, len: 0 }
    }
}

/// Set of the headers that were judged before, by hash.
pub trait Seen {
    /// True if `hash` is in the set.
    fn knows(&self, hash: &[u8; 32]) -> bool;

    /// Adds `hash`; returns true if it was new.
    fn remember(&mut self, hash: &[u8; 32]) -> bool;
}

impl Seen for Duplicates {
    fn knows(&self, hash: &[u8; 32]) -> bool {
        self.contains(hash)
    }

    fn remember(&mut self, hash: &[u8; 32]) -> bool {
        self.insert(hash)
    }
}

impl Duplicates {
    /// Adds `hash`; returns true if it was new.
    pub fn insert(&mut self, hash: &[u8; 32]) -> bool {
        if self.lines.is_empty() {
            self.lines.push(Line::default());
        }
        let key = key_of(hash);
        let mut home = self.home(key);
        if self.lines[home].0.contains(&key) {
            return false;
        }
        while self.lines[home].is_full() && self.lines.len() < LINES_MAX {
            self.grow();
            home = self.home(key);
        }
        let line = &mut self.lines[home];
        self.len += usize::from(!line.is_full());
        line.push(key);
        true
    }

    /// Number of headers remembered.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if no header is remembered.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True if `hash` is remembered.
    pub fn contains(&self, hash: &[u8; 32]) -> bool {
        let key = key_of(hash);
        !self.lines.is_empty() && self.lines[self.home(key)].0.contains(&key)
    }

    /// Index of the line of `key`.
    fn home(&self, key: u64) -> usize {
        let product = u128::from(self.seed) * u128::from(key ^ self.seed);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "both halves are mixed, and as many bits kept as are wanted"
        )]
        let mixed = (product as u64 ^ (product >> 64) as u64) as usize;
        mixed & (self.lines.len() - 1)
    }

    /// Doubles the table; the keys of each line are split between two lines, so they fit.
    fn grow(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        self.lines = vec![Line::default(); 2 * lines.len()];
        for line in lines {
            // Oldest first, so that the newest ends up at the front again.
            for key in line.0.into_iter().rev().filter(|key| *key != 0) {
                let home = self.home(key);
                self.lines[home].push(key);
            }
        }
    }
}

/// Key of `hash`; never zero, which marks a free place. Two hashes collide with probability 2^-64.
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
    fn memory_stays_bounded_and_the_newest_are_known() {
        // Fixed seeds: one in some thousands of random ones would exceed the bounds asserted below.
        let mut random = fastrand::Rng::with_seed(7);
        let mut duplicates = Duplicates { seed: 11, ..Duplicates::default() };
        let hashes: Vec<[u8; 32]> = (0..3 * DUPLICATES_MAX).map(|_| long(random.u64(..).to_le_bytes())).collect();
        for hash in &hashes {
            assert!(duplicates.insert(hash));
            assert!(!duplicates.insert(hash));
        }
        assert_eq!(duplicates.lines.len(), LINES_MAX);
        assert_eq!(duplicates.lines.iter().flat_map(|line| line.0).filter(|key| *key != 0).count(), duplicates.len());
        assert!(duplicates.len() > DUPLICATES_MAX * 9 / 10, "{} are remembered", duplicates.len());
        // Only keys that eight others of their line followed are gone.
        assert!(hashes[hashes.len() - 500..].iter().all(|hash| duplicates.contains(hash)));
        let kept = hashes[..DUPLICATES_MAX].iter().filter(|hash| duplicates.contains(hash)).count();
        assert!(kept < DUPLICATES_MAX / 100, "{kept} of the oldest are remembered");
    }

    #[test]
    fn nothing_is_forgotten_or_made_up_while_there_is_room() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut duplicates = Duplicates { seed: 11, ..Duplicates::default() };
        let hashes: Vec<[u8; 32]> = (0..1500).map(|_| random.u64(..).to_le_bytes()).map(long).collect();
        let (known, unknown) = hashes.split_at(1000);
        for (index, hash) in known.iter().enumerate() {
            assert!(duplicates.insert(hash), "{index} is new");
            assert_eq!(duplicates.len(), index + 1);
            assert!(known[..=index].iter().all(|hash| duplicates.contains(hash)), "after {index}");
        }
        assert!(!unknown.iter().any(|hash| duplicates.contains(hash)));
        assert!(known.iter().all(|hash| !duplicates.insert(hash)));
        // A dozen keys take a few cache lines.
        let mut dozen = Duplicates { seed: 11, ..Duplicates::default() };
        known[..12].iter().for_each(|hash| assert!(dozen.insert(hash)));
        assert!(dozen.lines.len() <= 4, "{} lines", dozen.lines.len());
    }

    fn long(start: [u8; 8]) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&start);
        hash
    }
}
