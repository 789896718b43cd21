//! Networks whose peers send shares that are ahead of our clock. A single such peer has a wrong clock or is malicious;
//! if several networks agree, our own clock is wrong.

use std::collections::HashMap;
use std::net::IpAddr;

use super::loose::SourceNetwork;
use super::verify::{is_early, is_time_early};
use crate::share::Share;

/// Number of networks that makes a wrong clock of our own likely.
pub const EARLY_NETWORKS_MIN: usize = 3;
/// Maximum number of networks kept.
const NETWORKS_MAX: usize = 64;
/// Seconds after which a network is dropped if it sends no further early share: a pool finds some shares in that time.
const AGE_MAX: f64 = 600.0;

/// Lead of peers' shares over our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Early {
    /// Networks that sent shares which are currently more than 600 s ahead of our clock.
    pub networks: usize,
    /// Lead in seconds: the median of each network's newest share.
    pub seconds: u32,
}

impl Early {
    /// Seconds that our clock is behind the pool's, if enough networks agree.
    pub fn behind(&self) -> Option<u32> {
        (self.networks >= EARLY_NETWORKS_MIN).then_some(self.seconds)
    }
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    /// Newest timestamp, seconds since 1970.
    timestamp: u32,
    /// Time of arrival, by our clock.
    at: f64,
}

/// Sources of shares that are ahead of our clock.
#[derive(Debug, Default)]
pub struct EarlySources {
    networks: HashMap<SourceNetwork, Sent>,
}

impl EarlySources {
    /// Records the source of those `shares` that are ahead of a clock at `now`; returns false if there are none.
    pub fn note<'a>(&mut self, shares: impl IntoIterator<Item = &'a Share>, source: IpAddr, now: f64) -> bool {
        let newest = shares.into_iter().filter(|share| is_early(share, now)).map(Share::timestamp).max();
        if let Some(timestamp) = newest {
            self.note_timestamp(timestamp, SourceNetwork::of(source), now);
        }
        newest.is_some()
    }

    fn note_timestamp(&mut self, timestamp: u32, network: SourceNetwork, now: f64) {
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&network) {
            let oldest = self.networks.iter().min_by(|(_, one), (_, other)| one.at.total_cmp(&other.at));
            if let Some(oldest) = oldest.map(|(network, _)| *network) {
                self.networks.remove(&oldest);
            }
        }
        self.networks.insert(network, Sent { timestamp, at: now });
    }

    /// Returns the lead over a clock at `now`; empty once the clock was corrected.
    pub fn at(&mut self, now: f64) -> Early {
        // Entries after `now` mean that the clock was set back: they are dropped.
        self.networks.retain(|_, sent| {
            let age = now - sent.at;
            (0.0..AGE_MAX).contains(&age) && is_time_early(sent.timestamp, now)
        });
        let mut ahead: Vec<f64> = self.networks.values().map(|sent| f64::from(sent.timestamp) - now).collect();
        ahead.sort_by(f64::total_cmp);
        let median = ahead.get(ahead.len() / 2).copied().unwrap_or_default();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a difference of times, saturating"
        )]
        let seconds = median as u32;
        Early { networks: self.networks.len(), seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: f64 = 1.7e9;
    const AHEAD: u32 = 1_700_000_700;

    fn note(sources: &mut EarlySources, timestamp: u32, address: &str, now: f64) {
        sources.note_timestamp(timestamp, SourceNetwork::of(address.parse().unwrap()), now);
    }

    #[test]
    fn three_networks_say_that_our_clock_is_behind_and_two_do_not() {
        let mut sources = EarlySources::default();
        for address in ["10.0.0.1", "10.0.0.200", "::ffff:10.0.0.3", "2001:db8:1:2::1", "2001:db8:1:3::1"] {
            note(&mut sources, AHEAD, address, NOW);
        }
        assert_eq!((sources.at(NOW).networks, sources.at(NOW).behind()), (2, None));
        note(&mut sources, AHEAD + 100, "10.0.1.1", NOW);
        assert_eq!(sources.at(NOW), Early { networks: 3, seconds: 700 });
        assert_eq!(sources.at(NOW).behind(), Some(700));
    }

    #[test]
    fn a_clock_that_was_set_right_or_back_and_silence_end_it() {
        let with = |now: f64| {
            let mut sources = EarlySources::default();
            for address in ["10.0.0.1", "10.0.1.1", "10.0.2.1"] {
                note(&mut sources, AHEAD, address, NOW);
            }
            note(&mut sources, u32::MAX, "10.0.3.1", NOW);
            sources.at(now).networks
        };
        assert_eq!([NOW, NOW + 99.0, NOW + 100.0, NOW + 700.0, NOW - 1.0].map(with), [4, 4, 1, 0, 0]);
    }

    #[test]
    fn memory_is_bounded_and_the_latest_stay() {
        let mut sources = EarlySources::default();
        for number in 0..1000u32 {
            let address = IpAddr::V4((0x0a00_0000 + (number << 8)).into());
            sources.note_timestamp(AHEAD, SourceNetwork::of(address), NOW + f64::from(number) / 100.0);
        }
        assert_eq!(sources.at(NOW + 10.0).networks, NETWORKS_MAX);
        assert!(sources.networks.contains_key(&SourceNetwork::of("10.3.231.0".parse().unwrap())));
    }
}
