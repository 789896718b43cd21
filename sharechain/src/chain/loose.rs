//! Counts the memory of loose shares by source network: shares that are not known to fit their ancestors, nor is any
//! share above them. [`Sharechain::bound`](super::Sharechain::bound) enforces the limits.
//!
//! A proof of work shows that a share took effort, not that it belongs to this pool: on Bitcoin the easiest target is
//! met in a moment, and one such share may be 32 MB long. The count is updated with each share; the shares are scanned
//! only when a limit is exceeded, and again only after it grew by a sixteenth.

use std::collections::HashMap;
use std::net::IpAddr;

use super::verify::TRANSACTION_SHARES_MAX;
use crate::map::Map;
use crate::share::{SHARE_BYTES_MAX, ShareHash};

/// Maximum bytes of loose shares from one network: the longest share, and 8 MB of usual ones. A whole chain's length of
/// usual shares takes 13 MB; the chain under download does not count.
pub(super) const OF_ONE_MAX: usize = SHARE_BYTES_MAX + 8_000_000;

/// Maximum bytes of loose shares in total: two hostile networks at their limit leave room for all others, since the
/// network with the most loses its shares first.
pub(super) const LOOSE_MAX: usize = 2 * OF_ONE_MAX;

/// Average bytes for each share of a chain under download: version 33 with 1,500 transactions, of which a hundred are
/// new. Usual shares take 1.5 kB.
pub(super) const DOWNLOAD_BYTES_OF_EACH: usize = 16 * 1_500 + 32 * TRANSACTION_SHARES_MAX as usize + 4_000;

/// Source network of a peer: an IPv4 /24 or an IPv6 /48, the smallest that a host can have to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum SourceNetwork {
    V4([u8; 3]),
    V6([u8; 6]),
}

impl SourceNetwork {
    pub(super) fn of(ip: IpAddr) -> SourceNetwork {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                SourceNetwork::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                SourceNetwork::V6([a, b, c, d, e, f])
            }
        }
    }
}

/// A loose share.
#[derive(Debug, Clone, Copy)]
pub(super) struct LooseShare {
    /// Memory use.
    pub(super) bytes: usize,
    /// `None` for our own shares and those of the store, which are not counted.
    pub(super) network: Option<SourceNetwork>,
}

/// Bytes in use, and the level that triggers the next scan.
#[derive(Debug, Clone, Copy)]
struct Usage {
    bytes: usize,
    limit: usize,
    due: usize,
}

impl Usage {
    fn new(limit: usize) -> Usage {
        Usage { bytes: 0, limit, due: limit }
    }

    /// If nothing can be removed, the next scan waits until the excess has grown by a sixteenth of the limit.
    fn settle(&mut self) {
        self.due = self.limit.max(self.bytes + self.limit / 16);
    }

    fn sub(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.due = self.due.min(self.limit.max(self.bytes + self.limit / 16));
    }
}

/// All loose shares.
#[derive(Debug)]
pub(super) struct Loose {
    shares: Map<ShareHash, LooseShare>,
    networks: HashMap<SourceNetwork, Usage>,
    all: Usage,
    is_due: bool,
}

impl Default for Loose {
    fn default() -> Self {
        Self { shares: Map::default(), networks: HashMap::new(), all: Usage::new(LOOSE_MAX), is_due: false }
    }
}

impl Loose {
    pub(super) fn get(&self, hash: &ShareHash) -> Option<LooseShare> {
        self.shares.get(hash).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ShareHash, LooseShare)> + '_ {
        self.shares.iter().map(|(hash, share)| (*hash, *share))
    }

    /// Total bytes of loose shares from peers.
    pub(super) fn bytes(&self) -> usize {
        self.all.bytes
    }

    /// True if a limit may be exceeded since [`settle`](Self::settle).
    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    pub(super) fn insert(&mut self, hash: ShareHash, bytes: usize, network: Option<SourceNetwork>) {
        self.remove(&hash);
        self.shares.insert(hash, LooseShare { bytes, network });
        let Some(network) = network else { return };
        let of_one = self.networks.entry(network).or_insert_with(|| Usage::new(OF_ONE_MAX));
        for usage in [of_one, &mut self.all] {
            usage.bytes += bytes;
            self.is_due |= usage.bytes > usage.due;
        }
    }

    /// Removes a share that is gone or known to belong to the pool. Returns false if it was not loose.
    pub(super) fn remove(&mut self, hash: &ShareHash) -> bool {
        let Some(LooseShare { bytes, network }) = self.shares.remove(hash) else { return false };
        if let Some(network) = network {
            self.all.sub(bytes);
            if let Some(of_one) = self.networks.get_mut(&network) {
                of_one.sub(bytes);
                if of_one.bytes == 0 {
                    self.networks.remove(&network);
                }
            }
        }
        true
    }

    /// Call after a scan, when everything removable is removed.
    pub(super) fn settle(&mut self) {
        self.networks.values_mut().chain([&mut self.all]).for_each(Usage::settle);
        self.is_due = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: usize) -> ShareHash {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&(number as u64).to_le_bytes());
        ShareHash(digest)
    }

    fn network(text: &str) -> SourceNetwork {
        SourceNetwork::of(text.parse().unwrap())
    }

    #[test]
    fn neighbours_are_one_network_and_others_are_not() {
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.200"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("2001:db8:1::1"), network("2001:db8:1:ffff::"));
        assert_ne!(network("2001:db8:1::1"), network("2001:db8:2::1"));
    }

    #[test]
    fn a_look_is_due_when_a_bound_is_exceeded_and_then_when_there_is_a_sixteenth_more() {
        let mut loose = Loose::default();
        let one = Some(network("192.0.2.1"));
        loose.insert(hash(0), OF_ONE_MAX, one);
        // Our own shares are not counted.
        loose.insert(hash(1), LOOSE_MAX, None);
        assert!(!loose.is_due() && loose.bytes() == OF_ONE_MAX);
        loose.insert(hash(2), 1, one);
        assert!(loose.is_due());
        loose.settle();
        loose.insert(hash(3), OF_ONE_MAX / 16, one);
        assert!(!loose.is_due());
        loose.insert(hash(4), 1, one);
        assert!(loose.is_due());
        // Removals lower the threshold again.
        loose.settle();
        assert!((0..5).all(|number| loose.remove(&hash(number))));
        assert!(!loose.remove(&hash(0)));
        loose.insert(hash(5), OF_ONE_MAX + 1, one);
        assert!(loose.is_due());
        assert_eq!(loose.bytes(), OF_ONE_MAX + 1);
    }

    #[test]
    fn many_networks_together_have_a_bound_too() {
        let mut loose = Loose::default();
        for number in 0..8 {
            assert!(!loose.is_due());
            loose.insert(hash(number), LOOSE_MAX / 8, Some(network(&format!("192.0.{number}.1"))));
        }
        assert!(!loose.is_due());
        loose.insert(hash(8), 1, Some(network("192.0.8.1")));
        assert!(loose.is_due());
    }
}
