//! Line of passwords to check: one at a time, in turns by network, and slowly for networks that guess.
//!
//! - A network has one check at a time; its next ones wait, those with the same password for the same answer.
//! - All networks together have one check at a time, in the order in which their turns came. Networks that gave a right
//!   password before have a slot of their own: strangers never delay them.
//! - After [`GUESSES`] wrong passwords a network waits [`GUESS_INTERVAL`] before each further check.
//! - What one network may have waiting is bounded by what is left to others.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use stratum::mining::source::Source;
use stratum::mining::token_buckets::{Allowance, Bucket};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::table::{Claim, Digest, Table};

/// Wrong passwords of a network before it is slowed down: a farm whose devices have some old ones.
pub(super) const GUESSES: u32 = 20;

/// Time after which a network may guess once more.
pub(super) const GUESS_INTERVAL: Duration = Duration::from_secs(5);

/// Allowance of wrong passwords of a network.
const GUESSING: Allowance = Allowance { burst: GUESSES as f64, per_second: 1.0 / GUESS_INTERVAL.as_secs_f64() };

/// Maximum number of checks that wait. One network has at most half of them, enough for a farm of thousands.
const PLACES_MAX: usize = 32 * 1024;

/// Maximum number of networks that are remembered.
const NETWORKS_MAX: usize = 16 * 1024;

/// Minimum time between two searches for networks to forget.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Slots of the whole process: a check keeps a processor busy that miners need.
pub(super) static SLOTS: Slots = Slots::new();

/// Slots for checks that run: one for networks that gave a right password before, one for strangers.
#[derive(Debug)]
pub(super) struct Slots {
    known: Semaphore,
    strangers: Semaphore,
}

impl Slots {
    pub(super) const fn new() -> Self {
        Self { known: Semaphore::const_new(1), strangers: Semaphore::const_new(1) }
    }
}

/// Line of checks for the slots.
#[derive(Debug)]
pub(super) struct Line {
    slots: &'static Slots,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    places: usize,
    networks: HashMap<Source, Entry>,
    swept: Option<Instant>,
}

/// What waits from a network.
#[derive(Debug)]
struct Entry {
    standing: Arc<Standing>,
    places: usize,
    /// Checks in the line, each shared by those that wait for it.
    checks: HashMap<Digest, Arc<OnceCell<bool>>>,
}

/// Standing of a network.
#[derive(Debug)]
struct Standing {
    /// One permit: the turn to have a check made.
    turn: Arc<Semaphore>,
    /// Budget of wrong passwords.
    guesses: Mutex<Bucket>,
    /// Set once a password was right.
    is_known: AtomicBool,
}

impl Standing {
    fn new() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), guesses: Mutex::default(), is_known: AtomicBool::new(false) }
    }

    /// Waits until the network may guess. The caller has its turn.
    async fn may_guess(&self) {
        loop {
            let wait = self.guesses.lock().wait(1.0, GUESSING, Instant::now());
            if wait.is_zero() {
                return;
            }
            sleep(wait).await;
        }
    }
}

impl Line {
    pub(super) fn new(slots: &'static Slots) -> Self {
        Self { slots, state: Mutex::default() }
    }

    /// Guesses that the network of `source` has left.
    #[cfg(test)]
    pub(super) fn guesses_left(&self, source: IpAddr) -> f64 {
        let state = self.state.lock();
        let guesses = state.networks.get(&Source::site(source)).map(|entry| *entry.standing.guesses.lock());
        guesses.unwrap_or_default().left(GUESSING, Instant::now())
    }

    /// Has `claim` checked, when it is its turn; `None` if too many wait already.
    pub(super) async fn check(&self, table: Arc<Table>, claim: Claim, source: IpAddr) -> Option<bool> {
        let place = self.enter(Source::site(source), claim.digest)?;
        // If the one that makes the check goes away, another one that waits for it makes it.
        Some(*place.check.get_or_init(|| make(self.slots, place.standing.clone(), table, claim)).await)
    }

    /// Takes a place in the line, if there is one for `network`.
    fn enter(&self, network: Source, digest: Digest) -> Option<Place<'_>> {
        let mut state = self.state.lock();
        if !state.networks.contains_key(&network) {
            state.make_room(Instant::now());
            if state.networks.len() >= NETWORKS_MAX {
                return None;
            }
        }
        let free = PLACES_MAX - state.places;
        let new = || Entry { standing: Arc::new(Standing::new()), places: 0, checks: HashMap::new() };
        let entry = state.networks.entry(network).or_insert_with(new);
        if entry.places >= free {
            return None;
        }
        entry.places += 1;
        let check = entry.checks.entry(digest).or_default().clone();
        let standing = entry.standing.clone();
        state.places += 1;
        Some(Place { line: self, network, digest, check, standing })
    }
}

impl State {
    /// Forgets networks that have nothing waiting if there are too many, those that owe nothing first.
    fn make_room(&mut self, now: Instant) {
        let is_recent = self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP_INTERVAL);
        if self.networks.len() < NETWORKS_MAX || is_recent {
            return;
        }
        self.swept = Some(now);
        self.networks.retain(|_, entry| {
            let Standing { guesses, is_known, .. } = &*entry.standing;
            entry.is_busy() || is_known.load(Ordering::Relaxed) || !guesses.lock().is_full(GUESSING, now)
        });
        if self.networks.len() >= NETWORKS_MAX {
            self.networks.retain(|_, entry| entry.is_busy());
        }
    }
}

impl Entry {
    /// True if a check waits, or runs although nothing waits for it any more.
    fn is_busy(&self) -> bool {
        self.places > 0 || Arc::strong_count(&self.standing) > 1
    }
}

/// Place in the line; dropping it frees it.
struct Place<'a> {
    line: &'a Line,
    network: Source,
    digest: Digest,
    check: Arc<OnceCell<bool>>,
    standing: Arc<Standing>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.line.state.lock();
        state.places -= 1;
        let Some(entry) = state.networks.get_mut(&self.network) else { return };
        entry.places -= 1;
        // The map's and this one: nothing else waits for this check. Copies are made under the lock alone.
        if Arc::strong_count(&self.check) <= 2 {
            entry.checks.remove(&self.digest);
        }
    }
}

/// Makes a check when it is the turn of its network and there is a slot.
async fn make(slots: &'static Slots, standing: Arc<Standing>, table: Arc<Table>, claim: Claim) -> bool {
    let turn = standing.turn.clone().acquire_owned().await.expect("turns are never closed");
    standing.may_guess().await;
    let slot = if standing.is_known.load(Ordering::Relaxed) { &slots.known } else { &slots.strangers };
    let slot = slot.acquire().await.expect("slots are never closed");
    // The same may have been asked from elsewhere, or by a connection that is gone.
    if let Some(is_right) = table.answer(&claim) {
        return is_right;
    }
    // The check has turn and slot to its end: who goes away early gains nothing.
    let checking = spawn_blocking(move || {
        let is_right = table.check(&claim);
        if is_right {
            standing.is_known.store(true, Ordering::Relaxed);
        } else {
            standing.guesses.lock().spend(1.0, GUESSING, Instant::now());
        }
        drop((turn, slot));
        is_right
    });
    // Fails only when the runtime ends.
    checking.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: usize) -> Source {
        let [.., a, b, c] = number.to_be_bytes();
        Source::site([a + 1, b, c, 0].into())
    }

    #[test]
    fn one_network_takes_half_of_the_places_at_most_and_others_find_room() {
        let line = Line::new(&SLOTS);
        let take = |number: usize, count: usize| {
            let places = (0..count).map_while(|index| {
                let mut digest = [0; 32];
                digest[..8].copy_from_slice(&index.to_le_bytes());
                line.enter(network(number), digest)
            });
            places.collect::<Vec<_>>()
        };
        let greedy = take(1, PLACES_MAX);
        assert_eq!(greedy.len(), PLACES_MAX / 2);
        let farm = take(2, 5000);
        assert_eq!(farm.len(), 5000);
        let others: Vec<_> = (3..1000).map(|number| take(number, 1).len()).collect();
        assert!(others.iter().all(|count| *count == 1));
        drop((greedy, farm));
        assert_eq!(line.state.lock().places, 0);
        assert!(line.state.lock().networks.values().all(|entry| entry.checks.is_empty()));
    }

    #[test]
    fn networks_that_owe_nothing_are_forgotten_first_and_memory_is_bounded() {
        let line = Line::new(&SLOTS);
        let in_debt = line.enter(network(0), [0; 32]).unwrap();
        (0..GUESSES).for_each(|_| in_debt.standing.guesses.lock().spend(1.0, GUESSING, Instant::now()));
        drop(in_debt);
        for number in 1..NETWORKS_MAX {
            assert!(line.enter(network(number), [0; 32]).is_some());
        }
        let held = line.enter(network(1), [0; 32]);
        assert_eq!(line.state.lock().networks.len(), NETWORKS_MAX);
        assert!(line.enter(network(NETWORKS_MAX), [0; 32]).is_some());
        let left = |number| line.state.lock().networks.contains_key(&network(number));
        assert!(left(0) && left(1) && !left(2));
        drop(held);
    }
}
