//! Shares of peers that fail only with their ancestors, on networks whose honest nodes pass such shares on: counted by
//! source, whose connections are closed above a limit, without a ban.
//!
//! Counts outlive connections. A node that we dialled is judged by its own address, so that its neighbours cannot have it
//! closed; a peer that connected to us by its network as well, so that a new address gains nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::sources::{SOURCES_MAX, SourceNetwork, networks_of};

/// Refused shares of one source within an hour above which its connections are closed. On Litecoin the pool finds 240 an
/// hour: an honest node that passes every share on stays below, even if this node refuses all of them.
pub(crate) const REFUSED_SHARES_MAX: u32 = 300;

/// Time for which refused shares count from the first on, and for which a source that exceeds the limit is left alone.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Counter that starts again an hour after its first event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HourlyCount {
    began: Instant,
    count: u32,
}

impl HourlyCount {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, count: 0 }
    }

    /// Counts one event, and returns the number within the hour.
    pub(crate) fn note(&mut self, now: Instant) -> u32 {
        if self.is_over(now) || self.count == 0 {
            *self = Self::new(now);
        }
        self.count = self.count.saturating_add(1);
        self.count
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= HOUR
    }
}

/// Source of shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    /// An IPv4 address, or an IPv6 /64.
    Host(IpAddr),
    Network(SourceNetwork),
}

/// Sources of an address, the host first, and their limits.
fn sources_of(ip: IpAddr) -> Vec<(Source, u32)> {
    let host = match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    };
    let networks = networks_of(ip);
    // Behind a near address there may be several nodes.
    let of_host = networks.first().map_or(1.0, |(_, factor)| *factor);
    let networks = networks.into_iter().map(|(network, factor)| (Source::Network(network), factor));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand")]
    let limit = |factor: f64| (f64::from(REFUSED_SHARES_MAX) * factor) as u32;
    [(Source::Host(host), of_host)]
        .into_iter()
        .chain(networks)
        .map(|(source, factor)| (source, limit(factor)))
        .collect()
}

/// Refused shares by source.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    counts: HashMap<Source, HourlyCount>,
}

impl Refusals {
    /// Counts a refused share from `ip`.
    pub(crate) fn note(&mut self, ip: IpAddr, now: Instant) {
        for (source, limit) in sources_of(ip) {
            if !self.counts.contains_key(&source) {
                self.make_room(now);
            }
            let counted = self.counts.entry(source).or_insert_with(|| HourlyCount::new(now));
            // From here on it is left alone for a whole hour; what is still on its way does not extend that.
            if counted.note(now) == limit + 1 {
                counted.began = now;
            }
        }
    }

    /// True if `ip` exceeds a limit: its own, or if the peer opened the connection (`is_incoming`) that of its network.
    pub(crate) fn is_excess(&self, ip: IpAddr, is_incoming: bool, now: Instant) -> bool {
        if self.counts.is_empty() {
            return false;
        }
        let judged = if is_incoming { usize::MAX } else { 1 };
        sources_of(ip).into_iter().take(judged).any(|(source, limit)| {
            self.counts.get(&source).is_some_and(|counted| !counted.is_over(now) && counted.count > limit)
        })
    }

    /// Forgets sources whose hour is over, or else the half with the fewest refused shares.
    fn make_room(&mut self, now: Instant) {
        if self.counts.len() < SOURCES_MAX {
            return;
        }
        self.counts.retain(|_, counted| !counted.is_over(now));
        if self.counts.len() < SOURCES_MAX {
            return;
        }
        let mut counts: Vec<_> = self.counts.iter().map(|(source, counted)| (counted.count, *source)).collect();
        let middle = counts.len() / 2;
        counts.select_nth_unstable_by_key(middle, |(count, _)| *count);
        for (_, source) in &counts[..middle] {
            self.counts.remove(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Has `count` shares of each of these addresses refused.
    fn refuse(refusals: &mut Refusals, from: &[&str], count: u32, now: Instant) {
        for from in from {
            (0..count).for_each(|_| refusals.note(ip(from), now));
        }
    }

    #[test]
    fn an_address_may_have_300_an_hour_and_is_then_left_alone_for_an_hour() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        refuse(&mut refusals, &["9.9.9.9"], 300, start);
        assert!(!refusals.is_excess(ip("9.9.9.9"), false, start) && !refusals.is_excess(ip("9.9.9.9"), true, start));
        let later = start + Duration::from_secs(3000);
        refuse(&mut refusals, &["::ffff:9.9.9.9"], 1, later);
        assert!(refusals.is_excess(ip("9.9.9.9"), false, later) && refusals.is_excess(ip("9.9.9.9"), true, later));
        // More of them do not extend it.
        refuse(&mut refusals, &["9.9.9.9"], 50, later + HOUR / 2);
        assert!(refusals.is_excess(ip("9.9.9.9"), false, later + HOUR - Duration::from_secs(1)));
        assert!(!refusals.is_excess(ip("9.9.9.9"), false, later + HOUR));
        refuse(&mut refusals, &["9.9.9.9"], 300, later + HOUR);
        assert!(!refusals.is_excess(ip("9.9.9.9"), false, later + HOUR), "they count from zero");
    }

    #[test]
    fn a_new_address_of_a_network_gains_nothing_and_a_dialled_node_does_not_suffer_from_neighbours() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        refuse(&mut refusals, &["9.9.9.1", "9.9.9.2", "9.9.9.3"], 101, now);
        for address in ["9.9.9.1", "9.9.9.77"] {
            assert!(refusals.is_excess(ip(address), true, now) && !refusals.is_excess(ip(address), false, now));
        }
        assert!(!refusals.is_excess(ip("9.9.8.1"), true, now));
        refuse(&mut refusals, &["2001:db8:1:2::1", "2001:db8:1:2::2"], 151, now);
        assert!(refusals.is_excess(ip("2001:db8:1:2:3::"), false, now), "one customer");
        assert!(!refusals.is_excess(ip("2001:db8:1:3::1"), true, now), "a site has four times as many");
        refuse(&mut refusals, &["127.0.0.1"], 2_400, now);
        assert!(!refusals.is_excess(ip("127.0.0.1"), true, now), "all nodes behind a tunnel");
        refuse(&mut refusals, &["127.0.0.2"], 1, now);
        assert!(refusals.is_excess(ip("127.0.0.1"), true, now));
    }

    #[test]
    fn sources_without_end_take_no_more_room_and_do_not_wash_a_record() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        refuse(&mut refusals, &["9.9.9.9"], 301, now);
        for number in 0..20_000_u32 {
            refusals.note(IpAddr::V4(Ipv4Addr::from(0x1000_0000 + (number << 8))), now);
            assert!(refusals.counts.len() <= SOURCES_MAX);
        }
        assert!(refusals.is_excess(ip("9.9.9.9"), false, now));
        let later = now + HOUR;
        (20_000..40_000_u32).for_each(|number| refusals.note(IpAddr::V4(Ipv4Addr::from(number << 8)), later));
        assert!(!refusals.is_excess(ip("9.9.9.9"), false, later) && refusals.counts.len() <= SOURCES_MAX);
    }
}
