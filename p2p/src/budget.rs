//! Memory that all peers take together. Beyond its limit a connection is closed to make room: the one that takes most,
//! never the one that happens to need more next.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::peer_id::PeerId;

/// Measure by which the holder to close is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// The most bytes.
    Bytes,
    /// The most bytes multiplied by the time for which they are held: of two equal ones the slower.
    BytesAndTime,
}

/// Memory budget of all connections. Each connection reports what it holds; the swarm enforces the limit.
///
/// A connection reads no further before the swarm knows of an excess, so all together exceed the limit by one read each
/// at most.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    measure: Measure,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    holdings: BTreeMap<PeerId, Holding>,
}

#[derive(Debug, Clone, Copy)]
struct Holding {
    bytes: usize,
    since: Instant,
}

impl Budget {
    /// Creates a budget of `limit` bytes whose largest holder is closed first.
    pub fn of_bytes(limit: usize) -> Arc<Budget> {
        Arc::new(Budget { limit, measure: Measure::Bytes, state: Mutex::default() })
    }

    /// Creates a budget of `limit` bytes whose largest and slowest holder is closed first.
    pub fn of_bytes_and_time(limit: usize) -> Arc<Budget> {
        Arc::new(Budget { limit, measure: Measure::BytesAndTime, state: Mutex::default() })
    }

    /// Bytes currently in use.
    pub fn used(&self) -> usize {
        self.state.lock().used
    }

    /// Opens the account of a connection, which ends with the returned value.
    pub(crate) fn open(self: &Arc<Budget>, peer: PeerId, now: Instant) -> Account {
        self.state.lock().holdings.insert(peer, Holding { bytes: 0, since: now });
        Account { budget: Arc::clone(self), peer }
    }

    /// Returns the connection to close now, and the bytes that it holds; `None` once the rest is within the limit.
    pub(crate) fn take_excess(&self, now: Instant) -> Option<(PeerId, usize)> {
        let mut state = self.state.lock();
        if state.used <= self.limit {
            return None;
        }
        let worst = state.holdings.iter().max_by_key(|(peer, holding)| (self.weight(holding, now), **peer));
        let peer = worst.map(|(peer, _)| *peer)?;
        Some((peer, state.remove(peer)))
    }

    fn weight(&self, holding: &Holding, now: Instant) -> u128 {
        let time = match self.measure {
            Measure::Bytes => 1,
            // Within the first second, size alone decides.
            Measure::BytesAndTime => now.saturating_duration_since(holding.since).as_millis() + 1_000,
        };
        holding.bytes as u128 * time
    }
}

impl State {
    fn remove(&mut self, peer: PeerId) -> usize {
        let bytes = self.holdings.remove(&peer).map_or(0, |holding| holding.bytes);
        self.used -= bytes;
        bytes
    }
}

/// One connection's part of a [`Budget`].
#[derive(Debug)]
pub(crate) struct Account {
    budget: Arc<Budget>,
    peer: PeerId,
}

impl Account {
    /// Sets the bytes that the connection holds, the first of them since `since`. Returns false if these exceed the
    /// limit: the swarm then has to close a connection, not necessarily this one.
    pub(crate) fn set(&self, bytes: usize, since: Instant) -> bool {
        let state = &mut *self.budget.state.lock();
        // It is gone if the connection is being closed to make room.
        let Some(holding) = state.holdings.get_mut(&self.peer) else { return true };
        state.used = state.used - holding.bytes + bytes;
        *holding = Holding { bytes, since };
        bytes == 0 || state.used <= self.budget.limit
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.budget.state.lock().remove(self.peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn accounts(budget: &Arc<Budget>, count: u64, now: Instant) -> Vec<Account> {
        (0..count).map(|number| budget.open(PeerId(number), now)).collect()
    }

    #[test]
    fn what_is_held_counts_until_it_is_given_back() {
        let (budget, now) = (Budget::of_bytes(100), Instant::now());
        let accounts = accounts(&budget, 2, now);
        assert!(accounts[0].set(60, now) && accounts[1].set(40, now));
        assert_eq!((budget.used(), budget.take_excess(now)), (100, None));
        assert!(accounts[0].set(10, now) && accounts[0].set(0, now));
        assert_eq!(budget.used(), 40);
        drop(accounts);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_largest_holder_goes_first_and_not_the_one_that_needed_more() {
        let (budget, now) = (Budget::of_bytes(100), Instant::now());
        let accounts = accounts(&budget, 3, now);
        assert!(accounts[0].set(20, now) && accounts[1].set(70, now));
        assert!(!accounts[2].set(30, now));
        assert_eq!(budget.take_excess(now), Some((PeerId(1), 70)));
        assert_eq!((budget.used(), budget.take_excess(now)), (50, None));
        // It is being closed, and counts no more whatever it still does.
        assert!(accounts[1].set(90, now));
        assert_eq!(budget.used(), 50);
    }

    #[test]
    fn of_two_equal_holders_the_slower_goes_first_and_a_great_one_before_an_old_one() {
        let start = Instant::now();
        let now = start + Duration::from_secs(60);
        let budget = Budget::of_bytes_and_time(100);
        let accounts = accounts(&budget, 3, start);
        accounts[0].set(40, start);
        accounts[1].set(40, now);
        assert!(!accounts[2].set(30, now));
        assert_eq!(budget.take_excess(now), Some((PeerId(0), 40)));
        drop(accounts);
        let accounts = [budget.open(PeerId(7), start), budget.open(PeerId(8), start)];
        accounts[0].set(1, start);
        accounts[1].set(100, now);
        assert_eq!(budget.take_excess(now), Some((PeerId(8), 100)));
    }
}
