//! Connections of one kind that have earned nothing: who is to go first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::mining::source::Source;

/// Number of a connection, in the order of acceptance.
pub(super) type Number = u64;

/// A connection that can be closed for another.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) address: IpAddr,
    /// Time of its acceptance.
    pub(super) since: Instant,
    /// Ends the connection.
    pub(super) ended: CancellationToken,
}

/// Connections by age and by network. Every operation takes logarithmic time, except [`Self::beyond`].
#[derive(Debug, Default)]
pub(super) struct Crowd {
    members: BTreeMap<Number, Member>,
    networks: HashMap<Source, BTreeSet<Number>>,
    /// Wide networks by number of members.
    sizes: BTreeSet<(usize, Source)>,
}

impl Crowd {
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn insert(&mut self, number: Number, member: Member) {
        for network in networks_of(member.address) {
            self.networks.entry(network).or_default().insert(number);
        }
        let wide = Source::site(member.address);
        let size = self.size(wide);
        self.sizes.remove(&(size - 1, wide));
        self.sizes.insert((size, wide));
        self.members.insert(number, member);
    }

    pub(super) fn remove(&mut self, number: Number) -> Option<Member> {
        let member = self.members.remove(&number)?;
        let wide = Source::site(member.address);
        let size = self.size(wide);
        self.sizes.remove(&(size, wide));
        if size > 1 {
            self.sizes.insert((size - 1, wide));
        }
        for network in networks_of(member.address) {
            if let Some(numbers) = self.networks.get_mut(&network) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.networks.remove(&network);
                }
            }
        }
        Some(member)
    }

    /// The oldest member of all, and the time of its acceptance.
    pub(super) fn oldest(&self) -> Option<(Number, Instant)> {
        self.members.first_key_value().map(|(number, member)| (*number, member.since))
    }

    /// Size and oldest member of the wide network that has most.
    pub(super) fn largest(&self) -> Option<(usize, Number)> {
        let (size, network) = self.sizes.last()?;
        Some((*size, *self.networks.get(network)?.first()?))
    }

    /// The oldest member of a network of `address` in which more than `max` were accepted before `before`. Looks at
    /// `max` members.
    pub(super) fn beyond(&self, address: IpAddr, max: usize, before: Instant) -> Option<Number> {
        networks_of(address).into_iter().find_map(|network| {
            let numbers = self.networks.get(&network)?;
            // The list is by age: if the one behind the first `max` is old, so are these.
            let next = self.members.get(numbers.iter().nth(max)?)?;
            (next.since < before).then(|| numbers.first().copied())?
        })
    }

    fn size(&self, network: Source) -> usize {
        self.networks.get(&network).map_or(0, BTreeSet::len)
    }
}

/// The networks that `address` counts in, each once.
fn networks_of(address: IpAddr) -> impl IntoIterator<Item = Source> {
    let (near, wide) = (Source::of(address), Source::site(address));
    [Some(near), (wide != near).then_some(wide)].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn crowd(addresses: &[&str], start: Instant) -> Crowd {
        let mut crowd = Crowd::default();
        for (number, address) in (0..).zip(addresses) {
            let address = address.parse().unwrap();
            let since = start + Duration::from_secs(number);
            crowd.insert(number, Member { address, since, ended: CancellationToken::new() });
        }
        crowd
    }

    #[test]
    fn the_oldest_of_the_largest_network_goes_first() {
        let mut crowd = crowd(&["10.0.0.1", "10.0.1.1", "10.0.1.2", "10.0.0.2", "10.0.1.3"], Instant::now());
        assert_eq!(crowd.largest(), Some((3, 1)));
        assert_eq!(crowd.oldest().unwrap().0, 0);
        crowd.remove(1);
        crowd.remove(2);
        assert_eq!(crowd.largest(), Some((2, 0)));
    }

    #[test]
    fn addresses_of_one_48_count_together() {
        let crowd = crowd(&["10.0.0.1", "2001:db8:1:1::1", "2001:db8:1:2::1", "2001:db8:2:1::1"], Instant::now());
        assert_eq!(crowd.largest(), Some((2, 1)));
    }

    #[test]
    fn a_network_is_over_its_limit_when_too_many_of_it_are_old() {
        let start = Instant::now();
        let crowd = crowd(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1"], start);
        let beyond = |address: &str, max, seconds| {
            crowd.beyond(address.parse().unwrap(), max, start + Duration::from_secs(seconds))
        };
        assert_eq!(beyond("10.0.0.9", 2, 2), None, "the third is not old");
        assert_eq!(beyond("10.0.0.9", 2, 3), Some(0));
        assert_eq!(beyond("10.0.0.9", 3, 9), None);
        assert_eq!(beyond("10.0.1.9", 0, 9), Some(3));
        assert_eq!(beyond("10.0.2.9", 0, 9), None);
    }

    #[test]
    fn nothing_is_left_of_those_that_went() {
        let mut crowd = crowd(&["10.0.0.1", "2001:db8::1", "10.0.0.2"], Instant::now());
        for number in 0..3 {
            assert!(crowd.remove(number).is_some());
            assert!(crowd.remove(number).is_none());
        }
        assert!(crowd.members.is_empty() && crowd.networks.is_empty() && crowd.sizes.is_empty());
    }
}
