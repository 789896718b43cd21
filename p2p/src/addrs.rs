//! Peer address book: known node addresses, their age, and the choice of the next one to dial.
//!
//! The book is filled by untrusted peers, so three rules limit their influence (protocol section 3.5 has none of them):
//! each source fills only a part of the book; an address that does not answer is tried ever less often; and half of the
//! tries go to addresses that answered us before or that we have known for long.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::Value;

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
/// An address is proven if it answered us, or if it has been known for this many seconds and has not failed since.
const PROVEN_SECONDS: f64 = 86_400.0;
/// Minimum age in the order of good peers (protocol section 3.5).
const AGE_MIN: f64 = 3600.0;

/// Addresses that one operator likely controls: an IPv4 /16, an IPv6 /32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// The first two bytes of an IPv4 address.
    V4([u8; 2]),
    /// The first four bytes of an IPv6 address.
    V6([u8; 4]),
}

impl Group {
    /// Returns the group of `address`. An IPv4 address in IPv6 form counts as IPv4.
    pub fn of(address: IpAddr) -> Group {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [one, two, ..] = address.octets();
                Group::V4([one, two])
            }
            IpAddr::V6(address) => {
                let [one, two, three, four, ..] = address.octets();
                Group::V6([one, two, three, four])
            }
        }
    }
}

/// Scope of an address: it is only meaningful to peers within the scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressScope {
    /// This machine.
    Machine,
    /// This local network.
    Site,
    /// The internet.
    World,
}

impl AddressScope {
    /// Returns the scope of `address`; `None` if it is not reachable by unicast.
    pub fn of(address: IpAddr) -> Option<AddressScope> {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [one, two, ..] = address.octets();
                if address.is_loopback() {
                    Some(AddressScope::Machine)
                } else if address.is_private() || address.is_link_local() || (one == 100 && two & 0xc0 == 64) {
                    // 100.64.0.0/10 is shared between a provider and its customers (RFC 6598).
                    Some(AddressScope::Site)
                } else if one == 0 || address.is_multicast() || one >= 240 {
                    None
                } else {
                    Some(AddressScope::World)
                }
            }
            IpAddr::V6(address) => {
                if address.is_loopback() {
                    Some(AddressScope::Machine)
                } else if address.is_unique_local() || address.is_unicast_link_local() {
                    Some(AddressScope::Site)
                } else if address.is_unspecified() || address.is_multicast() {
                    None
                } else {
                    Some(AddressScope::World)
                }
            }
        }
    }

    /// True if `address` is on this machine or site: those are exempt from limits against untrusted peers, which would
    /// get in the way of tests and of farms with several nodes.
    pub fn is_near(address: IpAddr) -> bool {
        matches!(AddressScope::of(address), Some(AddressScope::Machine | AddressScope::Site))
    }
}

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

#[derive(Debug, Clone)]
struct Entry {
    services: u64,
    /// Time when we first learned of it, seconds since 1970. Not the announced time, as in the reference, so that no
    /// peer can invent an old address.
    first_seen: f64,
    last_seen: f64,
    /// Group of the first source; `None` for bootstrap addresses and those from the file.
    source: Option<Group>,
    /// True if it answered us in this run.
    answered: bool,
    failures: u32,
    retry_at: f64,
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

    /// Serialises the book in the reference's format: `[[host, port], [services, first_seen, last_seen]]` each
    /// (protocol section 12). Addresses that failed and never answered are left out.
    pub fn to_json(&self) -> String {
        let worth = self.entries.iter().filter(|(_, entry)| entry.answered || entry.failures == 0);
        let mut lines: Vec<(&SocketAddr, &Entry)> = worth.collect();
        lines.sort_unstable_by_key(|(address, _)| **address);
        let values = lines.into_iter().map(|(address, entry)| {
            serde_json::json!([
                [address.ip().to_string(), address.port()],
                [entry.services, entry.first_seen, entry.last_seen]
            ])
        });
        Value::Array(values.collect()).to_string()
    }

    /// Loads a file written by this program or a reference node. Unusable entries are skipped and reported, one line
    /// each, ten at most.
    pub fn load_json(&mut self, json: &str, now: f64) -> Vec<String> {
        const PROBLEMS_MAX: usize = 10;
        let values: Vec<Value> = match serde_json::from_str(json) {
            Ok(values) => values,
            Err(error) => return vec![format!("cannot parse the address book: {error}")],
        };
        let mut problems = Vec::new();
        let mut left_out = 0_usize;
        for value in values {
            let Some((address, mut entry)) = entry_of(&value, now) else {
                left_out += 1;
                if problems.len() < PROBLEMS_MAX {
                    let text: String = value.to_string().chars().take(100).collect();
                    problems.push(format!("address skipped: {text}"));
                }
                continue;
            };
            // The file may be older than our own data.
            if let Some(known) = self.entries.get_mut(&address) {
                known.first_seen = known.first_seen.min(entry.first_seen);
                known.last_seen = known.last_seen.max(entry.last_seen);
            } else if self.entries.len() < ADDRESSES_MAX && !self.is_own(address) {
                entry.source = None;
                self.insert(address, entry);
            }
        }
        if left_out > problems.len() {
            problems.push(format!("and {} more", left_out - problems.len()));
        }
        problems
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

impl Entry {
    fn is_proven(&self, now: f64) -> bool {
        self.answered || (self.failures == 0 && now - self.first_seen > PROVEN_SECONDS)
    }

    /// Rank in the order of good peers, lowest first, for one `draw` of Exp(1) (protocol section 3.5).
    fn rank(&self, now: f64, draw: f64) -> f64 {
        let known_for = (self.last_seen - self.first_seen).max(AGE_MIN);
        let unseen_for = (now - self.last_seen).max(AGE_MIN);
        -known_for.ln() / unseen_for.ln() * draw
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

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// True if a node can be at `address`, from the view of the peer at `source`: one on the internet knows nothing of our
/// local network, and one in that network nothing of this machine.
fn may_be_shared(address: SocketAddr, source: Option<IpAddr>) -> bool {
    let Some(reach) = AddressScope::of(address.ip()) else { return false };
    address.port() != 0 && source.is_none_or(|source| AddressScope::of(source).is_some_and(|source| reach >= source))
}

fn may_be_sent_to(address: SocketAddr, asker: IpAddr) -> bool {
    may_be_shared(address, Some(asker))
}

fn whole_seconds(time: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time since 1970, saturating")]
    let seconds = time as u64;
    seconds
}

/// `[[host, port], [services, first_seen, last_seen]]`, times no later than `now`.
fn entry_of(value: &Value, now: f64) -> Option<(SocketAddr, Entry)> {
    let [address, facts] = value.as_array()?.as_slice() else { return None };
    let [host, port] = address.as_array()?.as_slice() else { return None };
    let [services, first_seen, last_seen] = facts.as_array()?.as_slice() else { return None };
    let host: IpAddr = host.as_str()?.parse().ok()?;
    let address = canonical(SocketAddr::new(host, u16::try_from(port.as_u64()?).ok()?));
    if !may_be_shared(address, None) {
        return None;
    }
    let entry = Entry {
        services: services.as_u64()?,
        first_seen: first_seen.as_f64()?.min(now),
        last_seen: last_seen.as_f64()?.min(now),
        source: None,
        answered: false,
        failures: 0,
        retry_at: 0.0,
    };
    Some((address, entry))
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: f64 = 1.7e9;
    const NOW_WHOLE: u64 = 1_700_000_000;

    fn book() -> AddressBook {
        AddressBook::new(fastrand::Rng::with_seed(7))
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn good_peers_are_ordered_by_the_formula_of_the_reference() {
        let entry = |first_seen: f64, last_seen: f64| Entry {
            services: 0,
            first_seen,
            last_seen,
            source: None,
            answered: false,
            failures: 0,
            retry_at: 0.0,
        };
        // -ln(86400) / ln(7200) x 0.5, computed by hand.
        let rank = entry(NOW - 93_600.0, NOW - 7200.0).rank(NOW, 0.5);
        assert!((rank - -0.639_88).abs() < 1e-4, "{rank}");
        // Both ages count as at least an hour.
        assert_eq!(entry(NOW, NOW).rank(NOW, 1.0), -1.0);
        // Long known and fresh comes before long known and stale.
        assert!(entry(0.0, NOW).rank(NOW, 1.0) < entry(0.0, NOW - 1e6).rank(NOW, 1.0));
    }

    #[test]
    fn a_timestamp_in_the_future_counts_as_now_and_news_only_makes_fresher() {
        let mut book = book();
        assert!(book.learn(at("9.9.9.9:9333"), 1, u64::MAX, Some(ip("8.8.8.8")), NOW));
        assert!(book.learn(at("9.9.9.9:9333"), 5, 3, Some(ip("8.8.8.8")), NOW + 9.0));
        let known = book.good_peers(5, ip("8.8.8.8"), NOW + 9.0);
        assert_eq!(known, [KnownAddress { address: at("9.9.9.9:9333"), services: 5, last_seen: NOW_WHOLE }]);
    }

    #[test]
    fn nobody_makes_up_an_old_address() {
        let mut book = book();
        book.learn(at("9.9.9.9:9333"), 0, 0, Some(ip("8.8.8.8")), NOW);
        book.learn(at("9.9.9.9:9333"), 0, NOW_WHOLE, Some(ip("8.8.8.8")), NOW);
        assert_eq!(book.entries[&at("9.9.9.9:9333")].rank(NOW, 1.0), -1.0);
    }

    #[test]
    fn addresses_where_nobody_can_be_are_not_taken() {
        let mut book = book();
        let mut learn = |address: &str, source: Option<&str>| book.learn(at(address), 0, 1, source.map(ip), NOW);
        for nowhere in ["0.0.0.0:9333", "224.1.1.1:9333", "255.255.255.255:1", "9.9.9.9:0", "[::]:1", "[ff02::1]:1"] {
            assert!(!learn(nowhere, None), "{nowhere}");
        }
        // A remote peer cannot send us to our own network, nor a neighbour to our own machine.
        assert!(!learn("192.168.0.9:9333", Some("8.8.8.8")) && !learn("[fd00::1]:9333", Some("8.8.8.8")));
        assert!(!learn("127.0.0.1:9333", Some("192.168.0.9")));
        assert!(learn("192.168.0.9:9333", Some("192.168.0.8")) && learn("127.0.0.1:9333", Some("127.0.0.1")));
        assert!(learn("[2001:db8::1]:9333", Some("8.8.8.8")) && learn("[::ffff:7.7.7.7]:9333", Some("8.8.8.8")));
        assert!(book.contains(at("7.7.7.7:9333")), "IPv4 in IPv6 form is IPv4");
        assert_eq!(book.good_peers(9, ip("8.8.8.8"), NOW).len(), 2, "and our network stays private");
    }

    #[test]
    fn one_source_fills_an_eighth_of_the_book_and_one_group_little() {
        let mut book = book();
        let numbered = |number: u32| SocketAddr::new(Ipv4Addr::from(0x0b00_0000 + number * 0x1_0003).into(), 9333);
        let told = |book: &mut AddressBook, source: &str, numbers: std::ops::Range<u32>| {
            numbers.filter(|number| book.learn(numbered(*number), 0, 1, Some(ip(source)), NOW)).count()
        };
        assert_eq!(told(&mut book, "8.8.8.8", 0..3000), ADDRESSES_PER_SOURCE_MAX);
        assert_eq!(told(&mut book, "8.8.1.1", 3000..4000), 0, "the same group");
        assert_eq!(told(&mut book, "8.9.1.1", 3000..4000), 1000);
        let of_one_group = (0..300u32).filter(|number| {
            book.learn(SocketAddr::new(Ipv4Addr::from(0x0900_0000 + number).into(), 1), 0, 1, Some(ip("8.9.1.1")), NOW)
        });
        assert_eq!(of_one_group.count(), ADDRESSES_PER_GROUP_MAX);
    }

    #[test]
    fn a_full_book_takes_nothing_new_until_an_address_fails() {
        let mut book = book();
        let numbered = |number: u32| SocketAddr::new(Ipv4Addr::from(0x0b00_0000 + number * 0x3001).into(), 9333);
        let mut taken = 0;
        for number in 0..10_050u32 {
            let source = Ipv4Addr::from(0x0100_0000 + number % 97 * 0x1_0000);
            taken += usize::from(book.learn(numbered(number), 0, 1, Some(source.into()), NOW));
        }
        assert_eq!((taken, book.len()), (ADDRESSES_MAX, ADDRESSES_MAX));
        book.failed(numbered(5), NOW);
        assert!(book.learn(at("9.9.9.9:9333"), 0, 1, Some(ip("8.8.8.8")), NOW));
        assert!(!book.contains(numbered(5)) && book.len() == ADDRESSES_MAX);
    }

    #[test]
    fn junk_cannot_starve_dialing() {
        let mut book = book();
        for number in 0..500u32 {
            let junk = SocketAddr::new(Ipv4Addr::from(0x0b00_0000 + number * 0x1_0003).into(), 9333);
            assert!(book.learn(junk, 0, NOW_WHOLE, Some(ip("8.8.8.8")), NOW));
        }
        let good = at("9.9.9.9:9333");
        book.answered(good, 0, NOW - 86_400.0);
        let mut tries = 0;
        while book.pick(NOW, |_| true) != Some(good) {
            tries += 1;
            assert!(tries < 20, "half of the tries go to those that answered");
        }
        // And each junk address is tried once a minute, then ever less often.
        let mut book = AddressBook::new(fastrand::Rng::with_seed(8));
        book.learn(at("11.1.1.1:1"), 0, NOW_WHOLE, None, NOW);
        for _ in 0..TRIES_MAX - 1 {
            let mut now = NOW;
            while book.pick(now, |_| true).is_none() {
                now += 60.0;
            }
            book.failed(at("11.1.1.1:1"), now);
        }
        assert!(book.pick(NOW + 7.0 * 3600.0, |_| true).is_none() && book.good_peers(9, ip("8.8.8.8"), NOW).is_empty());
        book.failed(at("11.1.1.1:1"), NOW);
        assert!(book.is_empty(), "an address that never answered is dropped");
    }

    #[test]
    fn our_own_address_is_forgotten_and_not_taken_again() {
        let mut book = book();
        book.learn(at("9.9.9.9:9333"), 0, 1, None, NOW);
        book.note_own(at("[::ffff:9.9.9.9]:9333"));
        assert!(book.is_empty() && !book.learn(at("9.9.9.9:9333"), 0, 1, None, NOW));
        book.answered(at("9.9.9.9:9333"), 0, NOW);
        assert!(book.is_empty() && book.learn(at("9.9.9.9:9334"), 0, 1, None, NOW));
    }

    #[test]
    fn the_file_is_the_references_and_damage_costs_single_lines() {
        // As written by the reference, after a long run on two networks.
        let json = r#"[[["1.2.3.4", 9333], [0, 1399000000.25, 1699999000]], [["5.6.7.8", 9333], [1, 1.5, 9e99]],
            [["nobody.example", 9333], [0, 1, 2]], [["1.2.3.4"], [0, 1, 2]], "x", [["0.0.0.0", 9333], [0, 1, 2]],
            [["2001:db8::7", 9338], [0, 1, 2]], [["1.2.3.5", 70000], [0, 1, 2]]]"#;
        let mut book = book();
        let problems = book.load_json(json, NOW);
        assert_eq!((book.len(), problems.len()), (3, 5), "{problems:?}");
        assert_eq!(
            book.to_json(),
            "[[[\"1.2.3.4\",9333],[0,1399000000.25,1699999000.0]],[[\"5.6.7.8\",9333],[1,1.5,1700000000.0]],\
             [[\"2001:db8::7\",9338],[0,1.0,2.0]]]"
        );
        let mut again = AddressBook::new(fastrand::Rng::with_seed(1));
        assert!(again.load_json(&book.to_json(), NOW).is_empty());
        assert_eq!(again.to_json(), book.to_json());
        assert_eq!(again.load_json("{}", NOW).len(), 1);
    }

    proptest! {
        #[test]
        fn nothing_in_an_address_file_panics(json in ".{0,200}", times in any::<[f64; 3]>()) {
            let mut book = book();
            book.load_json(&json, NOW);
            let [one, two, now] = times;
            book.load_json(&format!(r#"[[["1.2.3.4", 1], [0, {one:e}, {two:e}]]]"#), now);
            book.pick(now, |_| true);
            book.to_json();
        }

        #[test]
        fn counts_of_groups_and_sources_follow_the_entries(
            steps in proptest::collection::vec((0u8..4, any::<[u8; 2]>(), any::<u8>()), 0..200)
        ) {
            let mut book = book();
            for (step, [one, two], source) in steps {
                let address = SocketAddr::new(Ipv4Addr::new(11, one % 4, 0, two % 8).into(), 1);
                match step {
                    0 | 1 => drop(book.learn(address, 0, 1, Some(Ipv4Addr::new(8, source % 4, 0, 1).into()), NOW)),
                    2 => book.failed(address, NOW),
                    _ => book.remove(address),
                }
            }
            let mut groups = HashMap::new();
            for address in book.entries.keys() {
                *groups.entry(Group::of(address.ip())).or_insert(0) += 1;
            }
            let sources: usize = book.sources.values().sum();
            prop_assert_eq!(&book.groups, &groups);
            prop_assert_eq!(sources, book.entries.len());
        }
    }
}
