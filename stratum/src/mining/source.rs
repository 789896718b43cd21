//! `Source`: the network that a request comes from. Limits and memory are shared out among sources.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Network that one stranger may hold: the first bits of an address, the rest zero, and their number. Shown as
/// `192.0.2.0/24`. All addresses of this machine are one source, whatever network is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    start: IpAddr,
    bits: u8,
}

impl Source {
    /// Returns the source of requests from `address`: its /24 of IPv4, or its /64 of IPv6, the smallest network that is
    /// given to one customer. The holder of one address of such a network can usually have all of them.
    pub fn of(address: IpAddr) -> Self {
        Self::first_bits(address, 24, 64)
    }

    /// Returns the largest network that may be one customer's: a /24 of IPv4, or a /48 of IPv6, which providers give to
    /// anyone who asks for one.
    pub fn site(address: IpAddr) -> Self {
        Self::first_bits(address, 24, 48)
    }

    /// Returns the holder of a single address: the address itself, or the /64 of IPv6 of which it may take any.
    pub fn host(address: IpAddr) -> Self {
        Self::first_bits(address, 32, 64)
    }

    fn first_bits(address: IpAddr, of_v4: u8, of_v6: u8) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self { start: Ipv4Addr::new(127, 0, 0, 0).into(), bits: 8 },
            IpAddr::V4(address) => {
                let kept = u32::MAX << (32 - u32::from(of_v4));
                Self { start: Ipv4Addr::from_bits(address.to_bits() & kept).into(), bits: of_v4 }
            }
            IpAddr::V6(address) => {
                let kept = u128::MAX << (128 - u32::from(of_v6));
                Self { start: Ipv6Addr::from_bits(address.to_bits() & kept).into(), bits: of_v6 }
            }
        }
    }

    /// True for this machine, from where a proxy may connect.
    pub fn is_loopback(self) -> bool {
        self.start.is_loopback()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.start, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str) -> Source {
        Source::of(address.parse().unwrap())
    }

    #[test]
    fn addresses_of_one_network_are_one_source() {
        assert_eq!(source("192.0.2.1"), source("192.0.2.255"));
        assert_ne!(source("192.0.2.1"), source("192.0.3.1"));
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.0.2.9"), source("192.0.2.1"));
    }

    #[test]
    fn networks_are_the_sizes_that_are_given_to_one_holder() {
        let shown = |source: fn(IpAddr) -> Source, address: &str| source(address.parse().unwrap()).to_string();
        assert_eq!(shown(Source::of, "192.0.2.7"), "192.0.2.0/24");
        assert_eq!(shown(Source::site, "192.0.2.7"), "192.0.2.0/24");
        assert_eq!(shown(Source::host, "192.0.2.7"), "192.0.2.7/32");
        assert_eq!(shown(Source::host, "::ffff:192.0.2.7"), "192.0.2.7/32");
        assert_eq!(shown(Source::of, "2001:db8:1:2:3::4"), "2001:db8:1:2::/64");
        assert_eq!(shown(Source::site, "2001:db8:1:2:3::4"), "2001:db8:1::/48");
        assert_eq!(shown(Source::host, "2001:db8:1:2:3::4"), "2001:db8:1:2::/64");
    }

    #[test]
    fn only_this_machine_is_loopback() {
        assert!(["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"].iter().all(|local| source(local).is_loopback()));
        assert_eq!(source("::1"), source("127.0.0.2"));
        assert_eq!(source("::1"), Source::host("127.0.0.3".parse().unwrap()));
        assert!(["0.0.0.0", "::", "192.0.2.1"].iter().all(|other| !source(other).is_loopback()));
    }
}
