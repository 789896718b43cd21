//! Limits on open connections, and the networks that they count by.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Limits on the connections accepted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Maximum number in total, of any kind.
    pub connections_max: usize,
    /// Maximum number per address (per /64 of IPv6), whatever they earn.
    pub connections_per_address_max: usize,
    /// New connections per second from one network (a /24 of IPv4 or a /64 of IPv6). One second's worth may come at
    /// once.
    pub connections_per_second_max: f64,
    /// Maximum number per network (a /24 of IPv4, a /48 or a /64 of IPv6) that have earned nothing within
    /// [`Self::grace`].
    pub uncredited_per_network_max: usize,
    /// Time for which a miner's connection may be without a credited submission.
    pub grace: Duration,
    /// Maximum number of HTTP connections: pages, scrapers, miners that poll.
    pub http_max: usize,
    /// Exempts connections from this machine, where proxies may connect from.
    pub exempts_loopback: bool,
}

impl Default for Limits {
    /// The checklist's values; the limit of open files is left to the caller.
    fn default() -> Self {
        Self {
            connections_max: 50_000,
            connections_per_address_max: 50_000,
            connections_per_second_max: 200.0,
            uncredited_per_network_max: 1024,
            grace: Duration::from_secs(300),
            http_max: 4096,
            exempts_loopback: true,
        }
    }
}

/// A source network: the first bits of an address, the rest zero, and their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Network {
    bits: u8,
    start: IpAddr,
}

impl Network {
    /// The smallest network that counts as one source: a /24, or a /64, which is one site's local network.
    pub(super) fn near(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self { bits: 24, start: IpAddr::from([a, b, c, 0]) }
            }
            IpAddr::V6(address) => Self::of(address, 64),
        }
    }

    /// The largest network that counts as one source: a /24, or a /48, which is given to anyone who asks for one.
    pub(super) fn wide(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::near(address),
            IpAddr::V6(address) => Self::of(address, 48),
        }
    }

    /// The holder of a single address: itself, or the /64 of which it may take any.
    pub(super) fn host(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self { bits: 32, start: address },
            IpAddr::V6(_) => Self::near(address),
        }
    }

    fn of(address: Ipv6Addr, bits: u8) -> Self {
        let kept = u128::MAX << (128 - u32::from(bits));
        Self { bits, start: Ipv6Addr::from_bits(address.to_bits() & kept).into() }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.start, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_the_sizes_that_are_given_to_one_holder() {
        let shown = |network: fn(IpAddr) -> Network, address: &str| network(address.parse().unwrap()).to_string();
        assert_eq!(shown(Network::near, "192.0.2.7"), "192.0.2.0/24");
        assert_eq!(shown(Network::wide, "192.0.2.7"), "192.0.2.0/24");
        assert_eq!(shown(Network::host, "192.0.2.7"), "192.0.2.7/32");
        assert_eq!(shown(Network::near, "2001:db8:1:2:3::4"), "2001:db8:1:2::/64");
        assert_eq!(shown(Network::wide, "2001:db8:1:2:3::4"), "2001:db8:1::/48");
        assert_eq!(shown(Network::host, "2001:db8:1:2:3::4"), "2001:db8:1:2::/64");
    }
}
