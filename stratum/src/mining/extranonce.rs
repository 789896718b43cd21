//! Leases extranonce1 values that are unique among live connections.

use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;

/// Size of extranonce1, chosen by the pool, in bytes.
pub const EXTRANONCE1_SIZE: usize = 4;

/// Size of extranonce2, chosen by the miner, in bytes. Devices take 4 to 8; both together fill P2Pool's 8-byte nonce.
pub const EXTRANONCE2_SIZE: usize = 4;

/// Pool of extranonce1 values, shared by its clones.
#[derive(Debug, Clone)]
pub struct Extranonces(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    next: u32,
    live: HashSet<u32>,
}

impl Extranonces {
    /// Starts counting at `first`; a value derived from the clock keeps a restarted server from leasing values that
    /// miners still use.
    pub fn starting_at(first: u32) -> Self {
        Self(Arc::new(Mutex::new(State { next: first, live: HashSet::new() })))
    }

    /// Leases a value that no other live connection has; `None` if all 2^32 are in use. A value that was given back comes
    /// last, after all others: jobs made with it may still be submitted.
    pub fn lease(&self) -> Option<Lease> {
        let mut state = self.0.lock();
        if state.live.len() > u32::MAX as usize {
            return None;
        }
        while state.live.contains(&state.next) {
            state.next = state.next.wrapping_add(1);
        }
        let value = state.next;
        state.next = value.wrapping_add(1);
        state.live.insert(value);
        Some(Lease { value, pool: self.clone() })
    }
}

/// An extranonce1 in use; dropping it returns the value to the pool.
#[derive(Debug)]
pub struct Lease {
    value: u32,
    pool: Extranonces,
}

impl Lease {
    /// Bytes of the value as in the coinbase.
    pub fn bytes(&self) -> [u8; EXTRANONCE1_SIZE] {
        self.value.to_be_bytes()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.0.lock().live.remove(&self.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_values_differ_and_are_not_reused_at_once() {
        let pool = Extranonces::starting_at(u32::MAX - 1);
        let first = pool.lease().unwrap();
        let second = pool.lease().unwrap();
        let third = pool.lease().unwrap();
        assert_eq!([first.bytes(), second.bytes(), third.bytes()], [[255, 255, 255, 254], [255; 4], [0; 4]]);
        drop(first);
        assert_eq!(pool.lease().unwrap().bytes(), [0, 0, 0, 1]);
    }

    /// So at a thousand connections a second, seven weeks after the last job made with it was handed out; a job lives for
    /// ten minutes.
    #[test]
    fn a_value_given_back_is_leased_again_only_after_all_others() {
        let pool = Extranonces::starting_at(7);
        let [given_back, held] = [(); 2].map(|()| pool.lease().unwrap());
        let value = given_back.value;
        drop(given_back);
        assert!((0..100_000).all(|_| pool.lease().unwrap().value != value));
        assert_eq!(pool.0.lock().next, 9 + 100_000, "one after the other, whatever is given back meanwhile");
        pool.0.lock().next = value.wrapping_sub(1);
        let last: Vec<u32> = (0..3).map(|_| pool.lease().unwrap().value).collect();
        assert_eq!(last, [value - 1, value, held.value + 1]);
    }

    #[test]
    fn a_value_in_use_is_skipped_after_the_counter_wraps() {
        let pool = Extranonces::starting_at(5);
        let held = pool.lease().unwrap();
        pool.0.lock().next = 5;
        assert_ne!(pool.lease().unwrap().bytes(), held.bytes());
    }
}
