//! Own shares that exist only in this process's memory: neither written to the store nor sent to a peer. The time until
//! either is measured, as a crash before that loses the share.

use metrics::{describe_histogram, histogram};
use parking_lot::Mutex;
use sharechain::share::ShareHash;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Maximum number of shares; with a failing disk and no peers it would grow without end.
const SHARES_MAX: usize = 1024;

/// Shares at risk, each with the time at which its submission was judged.
#[derive(Debug, Default)]
pub struct AtRisk {
    since: Mutex<HashMap<ShareHash, Instant>>,
    /// Number of shares, readable without the lock: nearly always 0.
    count: AtomicUsize,
}

impl AtRisk {
    /// Adds a share that was found and acknowledged to its miner.
    pub fn add(&self, hash: ShareHash, since: Instant) {
        let mut shares = self.since.lock();
        if shares.len() < SHARES_MAX {
            shares.insert(hash, since);
        }
        self.count.store(shares.len(), Ordering::Release);
    }

    /// True if the share is at risk.
    pub fn contains(&self, hash: ShareHash) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.since.lock().contains_key(&hash)
    }

    /// Removes a share that was stored, or sent to a peer.
    pub fn is_safe(&self, hash: ShareHash) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut shares = self.since.lock();
        if let Some(since) = shares.remove(&hash) {
            histogram!("sharechain_own_share_durable_seconds").record(since.elapsed());
        }
        self.count.store(shares.len(), Ordering::Release);
    }

    /// Removes a share that the chain has dropped.
    pub fn forget(&self, hash: ShareHash) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut shares = self.since.lock();
            shares.remove(&hash);
            self.count.store(shares.len(), Ordering::Release);
        }
    }
}

/// Describes the metric of this module.
pub fn describe() {
    describe_histogram!(
        "sharechain_own_share_durable_seconds",
        metrics::Unit::Seconds,
        "From the verdict on an own share until it is in the store or sent to a peer, whichever is first"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_at_risk_until_it_is_safe_and_only_so_many_are_remembered() {
        let hash = |number: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            ShareHash(hash)
        };
        let shares = AtRisk::default();
        assert!(!shares.contains(hash(0)));
        for number in 0..SHARES_MAX + 5 {
            shares.add(hash(number), Instant::now());
        }
        assert!(shares.contains(hash(0)) && !shares.contains(hash(SHARES_MAX)));
        for number in 0..SHARES_MAX {
            if number % 2 == 0 { shares.is_safe(hash(number)) } else { shares.forget(hash(number)) }
        }
        assert_eq!(shares.since.lock().len(), 0);
        shares.add(hash(SHARES_MAX), Instant::now());
        assert!(shares.contains(hash(SHARES_MAX)));
    }
}
