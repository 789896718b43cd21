//! Networks that peers connect from, and their rate limits, which outlive connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::addrs::AddressScope;
use crate::limits::SourceRates;

/// Maximum number of networks with limits of their own: a megabyte. Beyond it, those that used least are forgotten.
pub(crate) const SOURCES_MAX: usize = 8_192;

/// Limits of an IPv6 site compared with those of one peer: its networks may belong to several.
const SITE_FACTOR: f64 = 4.0;

/// Limits of this machine and of a local network compared with those of one peer: behind 127.0.0.1 are all peers that
/// come through Tor or a tunnel, and in a local network all nodes of a farm.
const NEAR_FACTOR: f64 = 8.0;

/// A network that one peer may have to itself: as `Source` of `stratum`, which this library may not import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SourceNetwork {
    /// This machine.
    Machine,
    /// An IPv4 /24.
    V4([u8; 3]),
    /// An IPv6 /64, the smallest network of one customer.
    V6([u8; 8]),
    /// An IPv6 /48, the largest.
    V6Site([u8; 6]),
}

/// Networks of an address, and their limits as multiples of those of one peer.
pub(crate) fn networks_of(ip: IpAddr) -> Vec<(SourceNetwork, f64)> {
    let factor = if AddressScope::is_near(ip) { NEAR_FACTOR } else { 1.0 };
    match ip.to_canonical() {
        ip if ip.is_loopback() => vec![(SourceNetwork::Machine, factor)],
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            vec![(SourceNetwork::V4([a, b, c]), factor)]
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h, ..] = ip.octets();
            let site = (SourceNetwork::V6Site([a, b, c, d, e, f]), factor.max(SITE_FACTOR));
            vec![(SourceNetwork::V6([a, b, c, d, e, f, g, h]), factor), site]
        }
    }
}

/// Rate limits by network.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    rates: HashMap<SourceNetwork, SourceRates>,
}

impl Sources {
    /// Returns the limits that a connection from `ip` shares with others.
    pub(crate) fn rates_of(&mut self, ip: IpAddr, now: Instant) -> Vec<SourceRates> {
        let networks = networks_of(ip).into_iter();
        networks.map(|(network, factor)| self.rates(network, factor, now)).collect()
    }

    fn rates(&mut self, network: SourceNetwork, factor: f64, now: Instant) -> SourceRates {
        if let Some(rates) = self.rates.get(&network) {
            return rates.clone();
        }
        self.make_room(now);
        let rates = SourceRates::new(factor, now);
        self.rates.insert(network, rates.clone());
        rates
    }

    /// Forgets networks without connections: those that used nothing lately, or else the half that used
    /// least.
    fn make_room(&mut self, now: Instant) {
        if self.rates.len() < SOURCES_MAX {
            return;
        }
        self.rates.retain(|_, rates| rates.are_in_use() || rates.debt(now) > 0.0);
        if self.rates.len() < SOURCES_MAX {
            return;
        }
        let unused = self.rates.iter().filter(|(_, rates)| !rates.are_in_use());
        let mut unused: Vec<_> = unused.map(|(network, rates)| (rates.debt(now), *network)).collect();
        // Half of them at once, so that not every newcomer costs a look at all.
        let count = unused.len().div_ceil(2);
        if count > 0 {
            unused.select_nth_unstable_by(count - 1, |(one, _), (other, _)| one.total_cmp(other));
            for (_, network) in &unused[..count] {
                self.rates.remove(network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Cause, Kind, Limits};
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Limits of a new connection from an address.
    fn connect(sources: &mut Sources, from: &str, now: Instant) -> Limits {
        Limits::new(sources.rates_of(ip(from), now), now)
    }

    /// Number of shares that connections from these addresses get through, each a thousand, one after the other.
    fn shares_through(from: &[&str]) -> usize {
        let (mut sources, now) = (Sources::default(), Instant::now());
        let mut send = |from: &&&str| connect(&mut sources, from, now).take(Kind::Shares, 1_000, now).is_ok();
        1_000 * from.iter().filter(|from| send(from)).count()
    }

    #[test]
    fn a_network_shares_the_limits_of_one_peer_and_a_site_and_this_machine_of_some() {
        assert_eq!(shares_through(&["9.9.9.1", "9.9.9.2", "9.9.9.3", "::ffff:9.9.9.4", "9.9.9.5"]), 3_000);
        assert_eq!(shares_through(&["9.9.9.1", "9.9.8.2", "9.9.7.3", "9.9.6.4", "9.9.5.5"]), 5_000);
        assert_eq!(shares_through(&["2001:db8:1:2::1"; 9]), 3_000);
        let of_site: Vec<String> = (0..99).map(|number| format!("2001:db8:1:{number}::1")).collect();
        assert_eq!(shares_through(&of_site.iter().map(String::as_str).collect::<Vec<_>>()), 12_000);
        assert_eq!(shares_through(&["127.0.0.1", "::1", "127.9.9.9"].repeat(20)), 24_000);
        assert_eq!(shares_through(&["192.168.7.1", "192.168.7.2"].repeat(20)), 24_000);
    }

    #[test]
    fn networks_without_end_take_no_more_room_and_do_not_wash_a_flooders_record() {
        let (mut sources, now) = (Sources::default(), Instant::now());
        let _ = connect(&mut sources, "9.9.9.9", now).take(Kind::Shares, 3_000, now);
        for number in 0..20_000_u32 {
            let address = IpAddr::V4(Ipv4Addr::from(0x1000_0000 + (number << 8)));
            let mut limits = Limits::new(sources.rates_of(address, now), now);
            // Each uses a little, so that none is without a record.
            limits.take(Kind::Shares, 10, now).unwrap();
            assert!(sources.rates.len() <= SOURCES_MAX);
        }
        let again = connect(&mut sources, "9.9.9.9", now).take(Kind::Shares, 1, now);
        assert_eq!(again.map_err(|excess| excess.cause), Err(Cause::Network));
        // When there is no room and all records are old, they go.
        let fill = (20_000..40_000_u32).map(|number| IpAddr::V4(Ipv4Addr::from(0x1000_0000 + (number << 8))));
        for address in fill {
            if sources.rates.len() < SOURCES_MAX {
                Limits::new(sources.rates_of(address, now), now).take(Kind::Shares, 10, now).unwrap();
            }
        }
        let later = now + Duration::from_secs(3_600);
        connect(&mut sources, "8.8.8.8", later).take(Kind::Shares, 1, later).unwrap();
        assert_eq!(sources.rates.len(), 1);
    }
}
