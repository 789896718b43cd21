//! Facts that follow from an address alone: its group, its scope, and the peers that can use it.

use std::net::{IpAddr, SocketAddr};

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

pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// True if a node can be at `address`, from the view of the peer at `source`: one on the internet knows nothing of our
/// local network, and one in that network nothing of this machine.
pub(super) fn may_be_shared(address: SocketAddr, source: Option<IpAddr>) -> bool {
    let Some(reach) = AddressScope::of(address.ip()) else { return false };
    address.port() != 0 && source.is_none_or(|source| AddressScope::of(source).is_some_and(|source| reach >= source))
}

pub(super) fn may_be_sent_to(address: SocketAddr, asker: IpAddr) -> bool {
    may_be_shared(address, Some(asker))
}
