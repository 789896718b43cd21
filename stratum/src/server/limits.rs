//! Limits on connections, in total and per address.

use dashmap::DashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;

use super::metrics;

/// Limits on the connections accepted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Maximum number in total.
    pub connections_max: usize,
    /// Maximum number per address; loopback is exempt, since a proxy may connect from there.
    pub connections_per_address_max: usize,
    /// New connections per second from one network (a /24 of IPv4 or a /64 of IPv6); loopback is exempt. One second's
    /// worth may come at once.
    pub connections_per_second_max: f64,
}

impl Default for Limits {
    /// The checklist's values; the limit of open files is left to the caller.
    fn default() -> Self {
        Self { connections_max: 50_000, connections_per_address_max: 4096, connections_per_second_max: 200.0 }
    }
}

/// Maximum number of networks tracked; beyond, the longest idle ones are evicted.
const NETWORKS_MAX: usize = 16 * 1024;

/// Limit that a connection exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Full {
    /// Connections of the whole server.
    #[error("{0} connections are open already")]
    Server(usize),
    /// Connections of the address.
    #[error("{0} connections from this address are open already")]
    Address(usize),
    /// New connections of the network that contains the address.
    #[error("more than a second's worth of connections from this network came at once")]
    Network,
}

impl Full {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Server(_) => "server_full",
            Self::Address(_) => "address_full",
            Self::Network => "network_too_fast",
        }
    }
}

/// Counts of open connections, shared by its clones.
#[derive(Debug, Clone)]
pub(super) struct Registry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    connections: AtomicUsize,
    by_address: DashMap<IpAddr, usize>,
    /// New connections left to each network, and the time of that count.
    by_network: DashMap<IpAddr, (f64, Instant)>,
}

impl Registry {
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared {
            limits,
            connections: AtomicUsize::new(0),
            by_address: DashMap::new(),
            by_network: DashMap::new(),
        }))
    }

    pub(super) fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }

    pub(super) fn admit(&self, address: IpAddr, now: Instant) -> Result<Permit, Full> {
        let shared = &*self.0;
        if !address.is_loopback() && !shared.has_allowance(network_of(address), now) {
            return Err(Full::Network);
        }
        let before = shared.connections.fetch_add(1, Ordering::Relaxed);
        if before >= shared.limits.connections_max {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Server(before));
        }
        let mut count = shared.by_address.entry(address).or_insert(0);
        if *count >= shared.limits.connections_per_address_max && !address.is_loopback() {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Address(*count));
        }
        *count += 1;
        metrics::connections(before + 1);
        Ok(Permit { registry: self.clone(), address })
    }
}

impl Shared {
    /// Takes one connection off the allowance of `network`.
    fn has_allowance(&self, network: IpAddr, now: Instant) -> bool {
        let per_second = self.limits.connections_per_second_max;
        if self.by_network.len() >= NETWORKS_MAX {
            // After a quiet second the allowance is full again, so the entry can go.
            self.by_network.retain(|_, (_, since)| now.saturating_duration_since(*since) < Duration::from_secs(1));
        }
        let mut entry = self.by_network.entry(network).or_insert((per_second, now));
        let (left, since) = *entry;
        let left = (left + now.saturating_duration_since(since).as_secs_f64() * per_second).min(per_second);
        let has = left >= 1.0;
        *entry = (if has { left - 1.0 } else { left }, now);
        has
    }
}

/// The /24 or /64 that contains `address`.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

/// An accepted connection; dropping it frees its place.
#[derive(Debug)]
pub(super) struct Permit {
    registry: Registry,
    address: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let shared = &*self.registry.0;
        if let Some(mut count) = shared.by_address.get_mut(&self.address) {
            *count -= 1;
        }
        shared.by_address.remove_if(&self.address, |_, count| *count == 0);
        metrics::connections(shared.connections.fetch_sub(1, Ordering::Relaxed) - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(connections_max: usize, connections_per_address_max: usize) -> Registry {
        Registry::new(Limits { connections_max, connections_per_address_max, ..Limits::default() })
    }

    #[test]
    fn a_full_server_refuses_and_a_closed_connection_makes_room() {
        let registry = registry(2, 10);
        let first = registry.admit([10, 0, 0, 1].into(), Instant::now()).unwrap();
        let _second = registry.admit([10, 0, 0, 2].into(), Instant::now()).unwrap();
        assert_eq!(registry.admit([10, 0, 0, 3].into(), Instant::now()).unwrap_err(), Full::Server(2));
        drop(first);
        assert!(registry.admit([10, 0, 0, 3].into(), Instant::now()).is_ok());
    }

    #[test]
    fn one_address_cannot_take_all_but_loopback_may() {
        let registry = registry(10, 1);
        let _held = registry.admit([10, 0, 0, 1].into(), Instant::now()).unwrap();
        assert_eq!(registry.admit([10, 0, 0, 1].into(), Instant::now()).unwrap_err(), Full::Address(1));
        let _local = registry.admit([127, 0, 0, 1].into(), Instant::now()).unwrap();
        assert!(registry.admit([127, 0, 0, 1].into(), Instant::now()).is_ok());
        assert_eq!(registry.connections(), 2);
    }

    #[test]
    fn one_network_cannot_come_all_at_once_but_loopback_may() {
        let limits = Limits { connections_per_second_max: 2.0, ..Limits::default() };
        let (registry, now) = (Registry::new(limits), Instant::now());
        let admit = |last: u8, now| registry.admit([10, 0, 0, last].into(), now).map(|_| ());
        assert_eq!([admit(1, now), admit(2, now), admit(3, now)], [Ok(()), Ok(()), Err(Full::Network)]);
        assert!(registry.admit([10, 0, 1, 1].into(), now).is_ok(), "another network");
        assert_eq!(admit(4, now + Duration::from_millis(500)), Ok(()));
        assert!((0..9).all(|_| registry.admit([127, 0, 0, 1].into(), now).is_ok()));
    }

    #[test]
    fn addresses_that_left_are_forgotten() {
        let registry = registry(10, 10);
        drop(registry.admit([10, 0, 0, 1].into(), Instant::now()).unwrap());
        assert!(registry.0.by_address.is_empty());
        assert_eq!(registry.connections(), 0);
    }
}
