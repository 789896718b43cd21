//! Limits against cheap chains and against hosts whose shares are never verified: rules 2 to 4 of the download.

use sharechain::share::{Attempts, ShareHash};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ruint::aliases::U320;

use super::Download;
use super::search::Branch;
use crate::addrs::AddressScope;
use crate::peer::PeerId;

/// Received shares of a chain after which it is judged by their mean work.
pub const JUDGED_SHARES: u64 = 50;
/// A chain is not followed if its work per share is below the best's by this factor.
const WORK_FACTOR: u32 = 16;
/// Time for which a chain with too little work is not followed.
const GIVEN_UP_FOR: Duration = Duration::from_secs(3600);
/// Unverified shares allowed to a host beyond three chain lengths: short chains have many peers too.
const UNVERIFIED_EXTRA: u64 = 1000;
/// Maximum number of hosts whose unverified shares are counted.
const HOSTS_MAX: usize = 10_000;

impl Download {
    /// Records that `peer` sent `shares` unsolicited, unverified shares. Returns false if it sent too many, and its
    /// shares are to be dropped.
    pub fn note_unasked(&mut self, peer: PeerId, shares: usize) -> bool {
        let Some(address) = self.peers.get(&peer).map(|peer| peer.address) else { return false };
        if self.has_sent_too_many(address) {
            return false;
        }
        self.charge(address, shares);
        true
    }

    /// Records that a share from `peer` was verified.
    pub fn note_verified(&mut self, peer: PeerId) {
        let host = self.peers.get(&peer).map(|peer| host_of(peer.address));
        if let Some(unverified) = host.and_then(|host| self.unverified.get_mut(&host)) {
            *unverified = unverified.saturating_sub(1);
        }
    }

    /// Halves the unverified shares of each host. Call it each hour.
    pub fn forgive(&mut self) {
        self.unverified.values_mut().for_each(|unverified| *unverified /= 2);
        self.unverified.retain(|_, unverified| *unverified > 0);
    }

    pub(super) fn charge(&mut self, address: SocketAddr, shares: usize) {
        if self.unverified.len() >= HOSTS_MAX {
            self.forgive();
        }
        if self.unverified.len() < HOSTS_MAX {
            *self.unverified.entry(host_of(address)).or_default() += shares as u64;
        }
    }

    /// Rule 4.
    pub(super) fn has_sent_too_many(&self, address: SocketAddr) -> bool {
        let unverified_max = u64::from(self.chain_length) * 3 + UNVERIFIED_EXTRA;
        self.unverified.get(&host_of(address)).is_some_and(|unverified| *unverified > unverified_max)
    }

    /// Rule 2: true if shares of this work are worth following.
    pub(super) fn is_worth(&self, attempts: Attempts, shares: u64) -> bool {
        match self.best {
            Some((height, best)) if height >= self.chain_length => {
                attempts.0.saturating_mul(U320::from(WORK_FACTOR)) >= best.0.saturating_mul(U320::from(shares))
            }
            _ => true,
        }
    }

    /// Rules 2 and 3 for the chain that continues with `next`.
    pub(super) fn is_branch_worth(&mut self, next: &ShareHash, branch: &Branch, now: Instant) -> bool {
        if self.given_up.get(next).is_some_and(|at| now < *at + GIVEN_UP_FOR) {
            return false;
        }
        let is_cheap = branch.shares >= JUDGED_SHARES && !self.is_worth(branch.attempts, branch.shares);
        let is_worth = !is_cheap && branch.shares < u64::from(self.depth_max());
        if !is_worth {
            self.given_up.insert(*next, now);
        }
        is_worth
    }
}

/// Key for counting unverified shares: a host, of IPv6 all that one customer may have (a /48), or one node of several
/// on this machine or site.
fn host_of(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if AddressScope::is_near(ip) => address,
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), 0),
        IpAddr::V6(ip) => SocketAddr::new(Ipv6Addr::from_bits(ip.to_bits() >> 80 << 80).into(), 0),
    }
}
