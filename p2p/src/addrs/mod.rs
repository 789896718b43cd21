//! Peer address book: known node addresses, their age, and the choice of the next one to dial.
//!
//! The book is filled by untrusted peers, so three rules limit their influence (protocol section 3.5 has none of them):
//! each source fills only a part of the book; an address that does not answer is tried ever less often; and half of the
//! tries go to addresses that answered us before or that we have known for long.

mod entry;
mod file;
mod scope;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use self::entry::Entry;
pub use self::scope::{AddressScope, Group};
use self::scope::{canonical, may_be_sent_to, may_be_shared};

/// Maximum number of addresses in the book (protocol section 3.5).
pub const ADDRESSES_MAX: usize = 10_000;
/// Peers are asked for addresses only below this number (protocol section 3.4).
pub const ADDRESSES_WANTED: usize = 1000;
/// Maximum addresses of one group: a /16 holds few honest pool nodes.
const ADDRESSES_PER_GROUP_MAX: usize = 64;
/// Maximum addresses first announced by peers of one group: an eighth of the book, and more than we ask for.
const ADDRESSES_PER_SOURCE_MAX: usize = 1250;
/// Initial retry delay in seconds for an address that did not answer; doubled each time.
const RETRY_SECONDS: f64 = 60.0;
/// Maximum retry delay in seconds: half a day.
const RETRY_SECONDS_MAX: f64 = 43_200.0;
/// Failed tries, spread over a day, after which an address that never answered is dropped.
const TRIES_MAX: u32 = 10;
/// Maximum number of our own addresses kept: a node has few.
const OWN_MAX: usize = 64;
/// Part of the tries that go to proven addresses, if there are any.
const PROVEN_PART: f64 = 0.5;

/// Address as sent to peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownAddress {
    /// Socket address of the node.
    pub address: SocketAddr,
    /// Services of the node, opaque.
    pub services: u64,
    /// Time of the last contact or announcement, seconds since 1970.
    pub last_seen: u64,
}

/// Known addresses of other nodes.
#[derive(Debug, Clone)]
pub struct AddressBook {
    entries: HashMap<SocketAddr, Entry>,
    groups: HashMap<Group, usize>,
    sources: HashMap<Group, usize>,
    own: VecDeque<SocketAddr>,
    random: fastrand::Rng,
}

impl AddressBook {
    /// Creates an empty book.
    pub fn new(random: fastrand::Rng) -> Self {
        Self { entries: HashMap::new(), groups: HashMap::new(), sources: HashMap::new(), own: VecDeque::new(), random }
    }

    /// Number of addresses.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if the book is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True if `address` is in the book.
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.entries.contains_key(&canonical(address))
    }

    /// Records that the peer at `source` announced `address`, seen at `timestamp`. Addresses from the operator or the
    /// network's table have no source. Returns false if the address is rejected: unreachable, our own, or beyond the
    /// limit of the book or the source. Times are in seconds since 1970.
    pub fn learn(
        &mut self,
        address: SocketAddr,
        services: u64,
        timestamp: u64,
        source: Option<IpAddr>,
        now: f64,
    ) -> bool {
        let address = canonical(address);
        if !may_be_shared(address, source) || self.is_own(address) {
            return false;
        }
        #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 seconds it is later than now anyway")]
        let seen = (timestamp as f64).min(now);
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.services = services;
            entry.last_seen = entry.last_seen.max(seen);
            return true;
        }
        let source = source.map(Group::of);
        if !self.has_room(address, source) {
            return false;
        }
        let entry =
            Entry { services, first_seen: now, last_seen: seen, source, answered: false, failures: 0, retry_at: 0.0 };
        self.insert(address, entry);
        true
    }

    /// Returns the next address to dial: a good peer whose retry time has come and that `may_try` allows.
    pub fn pick(&mut self, now: f64, may_try: impl Fn(SocketAddr) -> bool) -> Option<SocketAddr> {
        let only_proven = self.random.f64() < PROVEN_PART;
        let mut best: Option<(bool, f64, SocketAddr)> = None;
        // The order of a map differs between runs, and the draws depend on it: sorted for reproducible seeded runs.
        let mut candidates: Vec<(&SocketAddr, &Entry)> =
            self.entries.iter().filter(|(_, entry)| entry.retry_at <= now).collect();
        candidates.sort_unstable_by_key(|(address, _)| **address);
        for (address, entry) in candidates {
            let rank = entry.rank(now, exponential(&mut self.random));
            // False sorts first: proven addresses, if those are wanted.
            let is_worse = only_proven && !entry.is_proven(now);
            let is_better = best.is_none_or(|(best_worse, best_rank, _)| {
                is_worse.cmp(&best_worse).then(rank.total_cmp(&best_rank)).is_lt()
            });
            if is_better && may_try(*address) {
                best = Some((is_worse, rank, *address));
            }
        }
        best.map(|(_, _, address)| address)
    }

    /// Returns up to `count` good peers for the peer at `asker` (protocol section 3.5): those that it may be able to
    /// reach and that did not fail us.
    pub fn good_peers(&mut self, count: usize, asker: IpAddr, now: f64) -> Vec<KnownAddress> {
        let mut good: Vec<(f64, &SocketAddr, &Entry)> = Vec::new();
        let mut candidates: Vec<(&SocketAddr, &Entry)> = self
            .entries
            .iter()
            .filter(|(address, entry)| entry.failures == 0 && may_be_sent_to(**address, asker))
            .collect();
        candidates.sort_unstable_by_key(|(address, _)| **address);
        for (address, entry) in candidates {
            good.push((entry.rank(now, exponential(&mut self.random)), address, entry));
        }
        good.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
        good.truncate(count);
        good.into_iter()
            .map(|(_, address, entry)| KnownAddress {
                address: *address,
                services: entry.services,
                last_seen: whole_seconds(entry.last_seen),
            })
            .collect()
    }

    /// Records a connection to `address`: it is good.
    pub fn answered(&mut self, address: SocketAddr, services: u64, now: f64) {
        let address = canonical(address);
        if self.is_own(address) {
            return;
        }
        if !self.entries.contains_key(&address) && self.has_room(address, None) {
            self.learn(address, services, whole_seconds(now), None, now);
        }
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.answered = true;
            entry.failures = 0;
            entry.retry_at = 0.0;
            entry.services = services;
            entry.last_seen = entry.last_seen.max(now);
        }
    }

    /// Records that `address` did not answer, or not as a node: it sinks, and is dropped if it never answered.
    pub fn failed(&mut self, address: SocketAddr, now: f64) {
        let address = canonical(address);
        let Some(entry) = self.entries.get_mut(&address) else { return };
        entry.failures = entry.failures.saturating_add(1);
        let doublings = i32::try_from(entry.failures - 1).unwrap_or(i32::MAX).min(30);
        entry.retry_at = now + (RETRY_SECONDS * 2_f64.powi(doublings)).min(RETRY_SECONDS_MAX);
        if entry.failures >= TRIES_MAX && !entry.answered {
            self.remove(address);
        }
    }

    /// Excludes `address` from dialling until `until`, in seconds since 1970.
    pub fn rest(&mut self, address: SocketAddr, until: f64) {
        if let Some(entry) = self.entries.get_mut(&canonical(address)) {
            entry.retry_at = entry.retry_at.max(until);
        }
    }

    /// Marks `address` as our own: it is removed and not accepted again.
    pub fn note_own(&mut self, address: SocketAddr) {
        let address = canonical(address);
        self.remove(address);
        if !self.own.contains(&address) {
            if self.own.len() == OWN_MAX {
                self.own.pop_front();
            }
            self.own.push_back(address);
        }
    }

    /// True if `address` was found to be our own.
    pub fn is_own(&self, address: SocketAddr) -> bool {
        self.own.contains(&canonical(address))
    }

    fn has_room(&mut self, address: SocketAddr, source: Option<Group>) -> bool {
        let is_group_full = !AddressScope::is_near(address.ip())
            && self.groups.get(&Group::of(address.ip())).is_some_and(|count| *count >= ADDRESSES_PER_GROUP_MAX);
        let is_source_full = source
            .is_some_and(|source| self.sources.get(&source).is_some_and(|count| *count >= ADDRESSES_PER_SOURCE_MAX));
        if is_group_full || is_source_full {
            return false;
        }
        if self.entries.len() < ADDRESSES_MAX {
            return true;
        }
        // Only an address that failed is replaced: our own experience counts more than announcements.
        let failed = self.entries.iter().filter(|(_, entry)| entry.failures > 0 && !entry.answered);
        let worst = failed.max_by_key(|(address, entry)| (entry.failures, **address)).map(|(address, _)| *address);
        worst.inspect(|worst| self.remove(*worst)).is_some()
    }

    fn insert(&mut self, address: SocketAddr, entry: Entry) {
        *self.groups.entry(Group::of(address.ip())).or_default() += 1;
        if let Some(source) = entry.source {
            *self.sources.entry(source).or_default() += 1;
        }
        self.entries.insert(address, entry);
    }

    fn remove(&mut self, address: SocketAddr) {
        let Some(entry) = self.entries.remove(&address) else { return };
        take_one(&mut self.groups, Group::of(address.ip()));
        if let Some(source) = entry.source {
            take_one(&mut self.sources, source);
        }
    }
}

fn take_one(counts: &mut HashMap<Group, usize>, group: Group) {
    if let Some(count) = counts.get_mut(&group) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&group);
        }
    }
}

/// Draws from the exponential distribution with mean 1.
pub(super) fn exponential(random: &mut fastrand::Rng) -> f64 {
    // 1 - [0, 1) is never 0.
    -(1.0 - random.f64()).ln()
}

fn whole_seconds(time: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time since 1970, saturating")]
    let seconds = time as u64;
    seconds
}

/// Returns the groups of `addresses`.
pub(super) fn groups_of(addresses: impl IntoIterator<Item = SocketAddr>) -> HashSet<Group> {
    addresses.into_iter().map(|address| Group::of(address.ip())).collect()
}

/// True for a peer at 127.0.0.1, whose address other nodes cannot use: its announcement is passed on as received
/// (protocol section 3.5).
pub(super) fn is_reference_loopback(address: IpAddr) -> bool {
    address.to_canonical() == IpAddr::V4(Ipv4Addr::LOCALHOST)
}

#[cfg(test)]
mod tests;
