//! Limits on open connections.

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
