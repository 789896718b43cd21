//! Limit on new connections per second from one network.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::limits::Network;

/// Maximum number of networks tracked. Those whose allowance is full again are dropped first; if none is, new ones are
/// not limited: so many networks at once are no single source, and the other limits hold.
const NETWORKS_MAX: usize = 16 * 1024;

/// Time after which any allowance is full again.
const REFILL: Duration = Duration::from_secs(1);

/// Connections left to each network.
#[derive(Debug)]
pub(super) struct Speed {
    per_second: f64,
    /// Connections left, and the time of that count.
    left: HashMap<Network, (f64, Instant)>,
    swept: Option<Instant>,
}

impl Speed {
    pub(super) fn new(per_second: f64) -> Self {
        Self { per_second, left: HashMap::new(), swept: None }
    }

    /// Takes one connection off the allowance of `network`; false if none is left.
    pub(super) fn take(&mut self, network: Network, now: Instant) -> bool {
        if self.left.len() >= NETWORKS_MAX && !self.left.contains_key(&network) {
            self.sweep(now);
            if self.left.len() >= NETWORKS_MAX {
                return true;
            }
        }
        let (left, since) = self.left.entry(network).or_insert((self.per_second.max(1.0), now));
        let earned = now.saturating_duration_since(*since).as_secs_f64() * self.per_second;
        *left = (*left + earned).min(self.per_second.max(1.0));
        *since = now;
        let has = *left >= 1.0;
        if has {
            *left -= 1.0;
        }
        has
    }

    /// Drops the networks whose allowance is full again, at most once per refill: it looks at all of them.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < REFILL) {
            return;
        }
        self.swept = Some(now);
        self.left.retain(|_, (_, since)| now.saturating_duration_since(*since) < REFILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn network(number: u32) -> Network {
        Network::near(Ipv4Addr::from_bits(number << 8).into())
    }

    #[test]
    fn a_network_gets_a_seconds_worth_at_once_and_then_its_rate() {
        let (mut speed, now) = (Speed::new(2.0), Instant::now());
        assert_eq!([0; 3].map(|_| speed.take(network(1), now)), [true, true, false]);
        assert!(speed.take(network(2), now), "another network");
        let later = now + Duration::from_millis(500);
        assert_eq!([0; 2].map(|_| speed.take(network(1), later)), [true, false]);
    }

    #[test]
    fn a_rate_below_one_still_lets_one_in() {
        let (mut speed, now) = (Speed::new(0.1), Instant::now());
        assert_eq!([0; 2].map(|_| speed.take(network(1), now)), [true, false]);
        assert!(speed.take(network(1), now + Duration::from_secs(11)));
    }

    #[test]
    fn the_number_of_networks_tracked_is_bounded() {
        let (mut speed, now) = (Speed::new(1.0), Instant::now());
        for number in 0..2 * 16 * 1024 {
            assert!(speed.take(network(number), now));
        }
        assert_eq!(speed.left.len(), NETWORKS_MAX);
        assert!(!speed.take(network(1), now), "those tracked are limited still");
        assert!(speed.take(network(1 << 20), now + 2 * REFILL));
        assert_eq!(speed.left.len(), 1, "those with a full allowance went");
    }
}
