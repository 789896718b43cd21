//! Remembers the headers already credited for a job on one connection, bounded.

/// Lines of the largest table, 64 kB. While a job is the newest, vardiff lets a miner find a dozen.
const LINES_MAX: usize = 1024;

/// Most headers that are remembered of a job.
pub const DUPLICATES_MAX: usize = LINES_MAX * KEYS;

/// Keys of a line.
const KEYS: usize = 8;

/// The headers of one job and extranonce1, told apart by eight bytes of their hash: those that are *not* zero by proof of work.
///
/// Among ten thousand connections nothing of it is in the processor's caches, so a key has one line of memory where it can
/// be, and a look-up fetches that line. A full line has the table grow; in the largest table the oldest of the line goes.
/// Of headers that a thousand others followed, one in a hundred thousand is forgotten by then; of four thousand, one in twenty.
#[derive(Debug)]
pub struct Duplicates {
    /// A power of two of them, or none.
    lines: Vec<Line>,
    /// So that a miner cannot choose where its submissions come to lie.
    seed: u64,
    len: usize,
}

/// A processor's line of memory: keys, the newest first, and zeros behind them.
#[derive(Debug, Clone, Default)]
#[repr(align(64))]
struct Line([u64; KEYS]);

impl Line {
    fn is_full(&self) -> bool {
        self.0[KEYS - 1] != 0
    }

    /// Puts `key` before the others, of which the oldest goes if there is no room.
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

/// Headers that were judged before, by their hashes.
pub trait Seen {
    /// Whether `hash` was remembered.
    fn knows(&self, hash: &[u8; 32]) -> bool;

    /// Remembers `hash`; returns whether it was new.
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
    /// Remembers `hash`; says whether it was new.
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

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `hash` is remembered.
    pub fn contains(&self, hash: &[u8; 32]) -> bool {
        let key = key_of(hash);
        !self.lines.is_empty() && self.lines[self.home(key)].0.contains(&key)
    }

    /// The line where `key` is, or is to come.
    fn home(&self, key: u64) -> usize {
        let product = u128::from(self.seed) * u128::from(key ^ self.seed);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "both halves are mixed, and as many bits kept as are wanted"
        )]
        let mixed = (product as u64 ^ (product >> 64) as u64) as usize;
        mixed & (self.lines.len() - 1)
    }

    /// Doubles the table: what was in one line comes into two, and fits.
    fn grow(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        self.lines = vec![Line::default(); 2 * lines.len()];
        for line in lines {
            // The oldest first, so that the newest is before it again.
            for key in line.0.into_iter().rev().filter(|key| *key != 0) {
                let home = self.home(key);
                self.lines[home].push(key);
            }
        }
    }
}

/// Never zero, which marks a free place: one in 2^64 hashes is taken for another.
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
        // Seeds of our own: of all there are, one in some thousands would have a line that is unluckier than this asks.
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
        // Those are gone that eight others of their line followed.
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
        // A dozen takes a few lines of memory.
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
