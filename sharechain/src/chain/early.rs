//! Networks whose peers send shares that are ahead of our clock. One such peer has a wrong clock or is up to something;
//! where several networks agree, the wrong clock is ours.

use std::collections::HashMap;
use std::net::IpAddr;

use super::loose::SourceNetwork;
use super::verify::{is_early, is_time_early};
use crate::share::Share;

/// So many networks make it likely that our clock is wrong.
pub const EARLY_NETWORKS_MIN: usize = 3;
/// Networks that are remembered.
const NETWORKS_MAX: usize = 64;
/// A network is forgotten so many seconds after its last share that was ahead: a pool finds some in that time.
const AGE_MAX: f64 = 600.0;

/// Lead of peers' shares over our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Early {
    /// Networks that sent shares which are more than 600 s ahead of our clock at this moment.
    pub networks: usize,
    /// Seconds that these are ahead: the median of each network's newest.
    pub seconds: u32,
}

impl Early {
    /// Seconds that our clock is behind that of the pool, if enough networks agree.
    pub fn behind(&self) -> Option<u32> {
        (self.networks >= EARLY_NETWORKS_MIN).then_some(self.seconds)
    }
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    /// The newest timestamp, seconds since 1970.
    timestamp: u32,
    /// When it came, by our clock.
    at: f64,
}

/// Remembers who sent shares that are ahead of our clock.
#[derive(Debug, Default)]
pub struct EarlySources {
    networks: HashMap<SourceNetwork, Sent>,
}

impl EarlySources {
    /// Notes those of `shares` that are ahead of a clock that shows `now`, and their sender; false if there are none.
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

    /// Returns the evidence that holds by a clock that shows `now`: none once it was set right.
    pub fn at(&mut self, now: f64) -> Early {
        // Of a clock that was set back, nothing is known any more.
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
