//! `Source`: the network that a request comes from. Limits and memory are shared out among sources.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Network of a client: the /24 of an IPv4 address, the /64 of an IPv6 address. The holder of one address of such
/// a network can usually have all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl Source {
    /// Returns the source of requests from `address`. All loopback addresses are one source.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self(Ipv4Addr::new(a, b, c, 0).into())
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
        }
    }

    /// True for this machine, from where a proxy may connect.
    pub fn is_loopback(self) -> bool {
        self.0.is_loopback()
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
    fn only_this_machine_is_loopback() {
        assert!(["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"].iter().all(|local| source(local).is_loopback()));
        assert_eq!(source("::1"), source("127.0.0.2"));
        assert!(["0.0.0.0", "::", "192.0.2.1"].iter().all(|other| !source(other).is_loopback()));
    }
}
