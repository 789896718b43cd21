//! Connections in all and per address.

use dashmap::DashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use thiserror::Error;

use super::metrics;

/// How many connections are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub connections_max: usize,
    /// From one address; loopback is exempt, since a proxy may sit there.
    pub connections_per_address_max: usize,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Full {
    /// The server as a whole.
    #[error("{0} connections are open already")]
    Server(usize),
    /// The address.
    #[error("{0} connections from this address are open already")]
    Address(usize),
}

impl Full {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Server(_) => "server_full",
            Self::Address(_) => "address_full",
        }
    }
}

/// Who is connected. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Registry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    connections: AtomicUsize,
    by_address: DashMap<IpAddr, usize>,
}

impl Registry {
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared { limits, connections: AtomicUsize::new(0), by_address: DashMap::new() }))
    }

    pub(super) fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }

    pub(super) fn admit(&self, address: IpAddr) -> Result<Permit, Full> {
        let shared = &*self.0;
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

/// A connection that counts; dropping it makes room.
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
        Registry::new(Limits { connections_max, connections_per_address_max })
    }

    #[test]
    fn a_full_server_refuses_and_a_closed_connection_makes_room() {
        let registry = registry(2, 10);
        let first = registry.admit([10, 0, 0, 1].into()).unwrap();
        let _second = registry.admit([10, 0, 0, 2].into()).unwrap();
        assert_eq!(registry.admit([10, 0, 0, 3].into()).unwrap_err(), Full::Server(2));
        drop(first);
        assert!(registry.admit([10, 0, 0, 3].into()).is_ok());
    }

    #[test]
    fn one_address_cannot_take_all_but_loopback_may() {
        let registry = registry(10, 1);
        let _held = registry.admit([10, 0, 0, 1].into()).unwrap();
        assert_eq!(registry.admit([10, 0, 0, 1].into()).unwrap_err(), Full::Address(1));
        let _local = registry.admit([127, 0, 0, 1].into()).unwrap();
        assert!(registry.admit([127, 0, 0, 1].into()).is_ok());
        assert_eq!(registry.connections(), 2);
    }

    #[test]
    fn addresses_that_left_are_forgotten() {
        let registry = registry(10, 10);
        drop(registry.admit([10, 0, 0, 1].into()).unwrap());
        assert!(registry.0.by_address.is_empty());
        assert_eq!(registry.connections(), 0);
    }
}
