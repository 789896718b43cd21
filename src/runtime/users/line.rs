//! Line of passwords to check: one at a time, in turns by network, and slowly for networks that guess.
//!
//! - A network has one check at a time; its next ones wait, those with the same password for the same answer.
//! - All networks together have one check at a time, in the order in which their turns came. Networks that gave a right
//!   password before have a slot of their own: strangers never delay them.
//! - After [`GUESSES`] wrong passwords a network waits [`GUESS_INTERVAL`] before each further check.
//! - What one network may have waiting is bounded by what is left to others.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::table::{Claim, Digest, Table};

/// Wrong passwords of a network before it is slowed down: a farm whose devices have some old ones.
pub(super) const GUESSES: u32 = 20;

/// Time after which a network may guess once more.
pub(super) const GUESS_INTERVAL: Duration = Duration::from_secs(5);

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
    networks: HashMap<IpAddr, Entry>,
    swept: Option<Instant>,
}

/// What waits from a network.
#[derive(Debug)]
struct Entry {
    network: Arc<Network>,
    places: usize,
    /// Checks in the line, each shared by those that wait for it.
    checks: HashMap<Digest, Arc<OnceCell<bool>>>,
}

/// State of a network.
#[derive(Debug)]
struct Network {
    /// One permit: the turn to have a check made.
    turn: Arc<Semaphore>,
    guesses: Mutex<Guesses>,
    /// Set once a password was right.
    is_known: AtomicBool,
}

impl Network {
    fn new() -> Self {
        let guesses = Guesses { left: f64::from(GUESSES), at: Instant::now() };
        Self { turn: Arc::new(Semaphore::new(1)), guesses: Mutex::new(guesses), is_known: AtomicBool::new(false) }
    }

    /// Waits until the network may guess. The caller has its turn.
    async fn may_guess(&self) {
        loop {
            let wait = self.guesses.lock().wait(Instant::now());
            if wait.is_zero() {
                return;
            }
            sleep(wait).await;
        }
    }
}

/// Budget of wrong passwords.
#[derive(Debug)]
struct Guesses {
    left: f64,
    at: Instant,
}

impl Guesses {
    fn refill(&mut self, now: Instant) {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() / GUESS_INTERVAL.as_secs_f64();
        self.left = (self.left + earned).min(f64::from(GUESSES));
        self.at = now;
    }

    /// Time until there is a whole guess.
    fn wait(&mut self, now: Instant) -> Duration {
        self.refill(now);
        // A little longer than a rounded-down sleep, so that one sleep is enough.
        let missing = (1.0 - self.left).max(0.0);
        if missing > 0.0 { GUESS_INTERVAL.mul_f64(missing) + Duration::from_millis(1) } else { Duration::ZERO }
    }

    fn spend(&mut self, now: Instant) {
        self.refill(now);
        self.left -= 1.0;
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left >= f64::from(GUESSES)
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
        state.networks.get(&network_of(source)).map_or(f64::from(GUESSES), |entry| entry.network.guesses.lock().left)
    }

    /// Has `claim` checked, when it is its turn; `None` if too many wait already.
    pub(super) async fn check(&self, table: Arc<Table>, claim: Claim, source: IpAddr) -> Option<bool> {
        let place = self.enter(network_of(source), claim.digest)?;
        // If the one that makes the check goes away, another one that waits for it makes it.
        Some(*place.check.get_or_init(|| make(self.slots, place.network.clone(), table, claim)).await)
    }

    /// Takes a place in the line, if there is one for `network`.
    fn enter(&self, address: IpAddr, digest: Digest) -> Option<Place<'_>> {
        let mut state = self.state.lock();
        if !state.networks.contains_key(&address) {
            state.make_room(Instant::now());
            if state.networks.len() >= NETWORKS_MAX {
                return None;
            }
        }
        let free = PLACES_MAX - state.places;
        let new = || Entry { network: Arc::new(Network::new()), places: 0, checks: HashMap::new() };
        let entry = state.networks.entry(address).or_insert_with(new);
        if entry.places >= free {
            return None;
        }
        entry.places += 1;
        let check = entry.checks.entry(digest).or_default().clone();
        let network = entry.network.clone();
        state.places += 1;
        Some(Place { line: self, address, digest, check, network })
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
            let Network { guesses, is_known, .. } = &*entry.network;
            entry.is_busy() || is_known.load(Ordering::Relaxed) || !guesses.lock().is_full(now)
        });
        if self.networks.len() >= NETWORKS_MAX {
            self.networks.retain(|_, entry| entry.is_busy());
        }
    }
}

impl Entry {
    /// True if a check waits, or runs although nothing waits for it any more.
    fn is_busy(&self) -> bool {
        self.places > 0 || Arc::strong_count(&self.network) > 1
    }
}

/// Place in the line; dropping it frees it.
struct Place<'a> {
    line: &'a Line,
    address: IpAddr,
    digest: Digest,
    check: Arc<OnceCell<bool>>,
    network: Arc<Network>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.line.state.lock();
        state.places -= 1;
        let Some(entry) = state.networks.get_mut(&self.address) else { return };
        entry.places -= 1;
        // The map's and this one: nothing else waits for this check. Copies are made under the lock alone.
        if Arc::strong_count(&self.check) <= 2 {
            entry.checks.remove(&self.digest);
        }
    }
}

/// Makes a check when it is the turn of its network and there is a slot.
async fn make(slots: &'static Slots, network: Arc<Network>, table: Arc<Table>, claim: Claim) -> bool {
    let turn = network.turn.clone().acquire_owned().await.expect("turns are never closed");
    network.may_guess().await;
    let slot = if network.is_known.load(Ordering::Relaxed) { &slots.known } else { &slots.strangers };
    let slot = slot.acquire().await.expect("slots are never closed");
    // The same may have been asked from elsewhere, or by a connection that is gone.
    if let Some(is_right) = table.answer(&claim) {
        return is_right;
    }
    // The check has turn and slot to its end: who goes away early gains nothing.
    let checking = spawn_blocking(move || {
        let is_right = table.check(&claim);
        if is_right {
            network.is_known.store(true, Ordering::Relaxed);
        } else {
            network.guesses.lock().spend(Instant::now());
        }
        drop((turn, slot));
        is_right
    });
    // Fails only when the runtime ends.
    checking.await.unwrap_or(false)
}

/// The network that contains `address`: a /24, or what one customer of a provider may have, a /48.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> IpAddr {
        let [.., a, b, c] = number.to_be_bytes();
        [a, b, c, 0].into()
    }

    #[test]
    fn one_network_takes_half_of_the_places_at_most_and_others_find_room() {
        let line = Line::new(&SLOTS);
        let take = |number: usize, count: usize| {
            let places = (0..count).map_while(|index| {
                let mut digest = [0; 32];
                digest[..8].copy_from_slice(&index.to_le_bytes());
                line.enter(address(number), digest)
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
    fn a_network_that_has_spent_its_guesses_earns_one_in_each_interval() {
        let start = Instant::now();
        let mut guesses = Guesses { left: f64::from(GUESSES), at: start };
        for _ in 0..GUESSES {
            assert!(guesses.wait(start).is_zero());
            guesses.spend(start);
        }
        for number in 0..3 {
            let now = start + number * (GUESS_INTERVAL + Duration::from_millis(1));
            let wait = guesses.wait(now);
            assert!(wait >= GUESS_INTERVAL - Duration::from_millis(5), "{number}: {wait:?}");
            assert!(guesses.wait(now + wait).is_zero(), "one wait is enough");
            guesses.spend(now + wait);
        }
        let later = start + 2 * GUESSES * GUESS_INTERVAL;
        assert!(guesses.is_full(later) && guesses.left <= f64::from(GUESSES));
    }

    #[test]
    fn networks_that_owe_nothing_are_forgotten_first_and_memory_is_bounded() {
        let line = Line::new(&SLOTS);
        let in_debt = line.enter(address(0), [0; 32]).unwrap();
        (0..GUESSES).for_each(|_| in_debt.network.guesses.lock().spend(Instant::now()));
        drop(in_debt);
        for number in 1..NETWORKS_MAX {
            assert!(line.enter(address(number), [0; 32]).is_some());
        }
        let held = line.enter(address(1), [0; 32]);
        assert_eq!(line.state.lock().networks.len(), NETWORKS_MAX);
        assert!(line.enter(address(NETWORKS_MAX), [0; 32]).is_some());
        let left = |number| line.state.lock().networks.contains_key(&address(number));
        assert!(left(0) && left(1) && !left(2));
        drop(held);
    }

    #[test]
    fn addresses_of_one_customer_are_one_network() {
        let network = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.7"), "192.0.2.0");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.0");
        assert_eq!(network("2001:db8:1:2::7"), "2001:db8:1::");
    }
}
