//! Bounded set of the headers already credited for a job on one connection.

/// Maximum number of lines in a table (1 MB). While a job is the newest, vardiff aims at a dozen submissions for it; only
/// a miner that has fixed far too low a difficulty gets there.
const LINES_MAX: usize = 16 * 1024;

/// Maximum number of headers remembered for a job.
pub const DUPLICATES_MAX: usize = LINES_MAX * KEYS;

/// Keys per line.
const KEYS: usize = 8;

/// Headers of one job and extranonce1, by eight bytes of their hash (those that proof of work leaves non-zero).
///
/// With ten thousand connections none of this is in the processor's caches, so a look-up fetches only one cache line. A
/// full line makes the table grow; in the largest table it takes no more: one in 100,000 of the headers that come after
/// sixteen thousand others, one in twenty of those after sixty thousand. Forgetting some instead would let a miner
/// repeat its headers for ever, each credited again.
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

/// Result of remembering a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// It was new, and is known now.
    New,
    /// It was known.
    Known,
    /// It is new, and there is no room for it.
    NoRoom,
}

/// What happens to a new header if there is no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It is not remembered.
    Refuse,
    /// It replaces an older one: solutions are too good to be refused, and too rare for that to matter.
    Replace,
}

/// Set of the headers that were judged before, by hash.
pub trait Seen {
    /// True if `hash` is in the set.
    fn knows(&self, hash: &[u8; 32]) -> bool;

    /// Adds `hash` if it is new.
    fn remember(&mut self, hash: &[u8; 32], when_full: WhenFull) -> Remembered;
}

impl Seen for Duplicates {
    fn knows(&self, hash: &[u8; 32]) -> bool {
        self.contains(hash)
    }

    fn remember(&mut self, hash: &[u8; 32], when_full: WhenFull) -> Remembered {
        self.insert(hash, when_full)
    }
}

impl Duplicates {
    /// Adds `hash` if it is new.
    pub fn insert(&mut self, hash: &[u8; 32], when_full: WhenFull) -> Remembered {
        if self.lines.is_empty() {
            self.lines.push(Line::default());
        }
        let key = key_of(hash);
        let mut home = self.home(key);
        if self.lines[home].0.contains(&key) {
            return Remembered::Known;
        }
        while self.lines[home].is_full() && self.lines.len() < LINES_MAX {
            self.grow();
            home = self.home(key);
        }
        let line = &mut self.lines[home];
        if line.is_full() && when_full == WhenFull::Refuse {
            return Remembered::NoRoom;
        }
        self.len += usize::from(!line.is_full());
        line.push(key);
        Remembered::New
    }

    /// Memory taken, in bytes.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.lines.len() * size_of::<Line>()
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
        assert_eq!(duplicates.insert(&hash(1), WhenFull::Refuse), Remembered::New);
        assert_eq!(duplicates.insert(&hash(1), WhenFull::Refuse), Remembered::Known);
        assert!(duplicates.contains(&hash(1)));
        assert!(!duplicates.contains(&hash(2)));
    }

    #[test]
    fn what_is_remembered_is_never_forgotten_for_more_of_the_same() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut duplicates = Duplicates { seed: 11, ..Duplicates::default() };
        let hashes: Vec<[u8; 32]> = (0..3 * DUPLICATES_MAX).map(|_| long(random.u64(..).to_le_bytes())).collect();
        let is_new = |hash: &&[u8; 32]| duplicates.insert(hash, WhenFull::Refuse) == Remembered::New;
        let new: Vec<&[u8; 32]> = hashes.iter().filter(is_new).collect();
        assert!(new.len() <= DUPLICATES_MAX && new.len() == duplicates.len());
        assert!(duplicates.memory() <= LINES_MAX * 64 + 64);
        assert!(hashes[..1000].iter().all(|hash| duplicates.contains(hash)), "there was room for the first");
        let again = new.iter().all(|hash| duplicates.insert(hash, WhenFull::Refuse) == Remembered::Known);
        assert!(again, "none is new a second time");
    }

    #[test]
    fn memory_stays_bounded_and_the_newest_solutions_are_known() {
        // Fixed seeds: one in some thousands of random ones would exceed the bounds asserted below.
        let mut random = fastrand::Rng::with_seed(7);
        let mut duplicates = Duplicates { seed: 11, ..Duplicates::default() };
        let hashes: Vec<[u8; 32]> = (0..3 * DUPLICATES_MAX).map(|_| long(random.u64(..).to_le_bytes())).collect();
        for hash in &hashes {
            assert_eq!(duplicates.insert(hash, WhenFull::Replace), Remembered::New);
            assert_eq!(duplicates.insert(hash, WhenFull::Replace), Remembered::Known);
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
            assert_eq!(duplicates.insert(hash, WhenFull::Refuse), Remembered::New, "{index}");
            assert_eq!(duplicates.len(), index + 1);
            assert!(known[..=index].iter().all(|hash| duplicates.contains(hash)), "after {index}");
        }
        assert!(!unknown.iter().any(|hash| duplicates.contains(hash)));
        assert!(known.iter().all(|hash| duplicates.insert(hash, WhenFull::Refuse) == Remembered::Known));
        // A dozen keys take a few cache lines.
        let mut dozen = Duplicates { seed: 11, ..Duplicates::default() };
        known[..12].iter().for_each(|hash| assert_eq!(dozen.insert(hash, WhenFull::Refuse), Remembered::New));
        assert!(dozen.lines.len() <= 4, "{} lines", dozen.lines.len());
    }

    fn long(start: [u8; 8]) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&start);
        hash
    }
}
