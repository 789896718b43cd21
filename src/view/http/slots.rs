//! Slots that strangers hold, such as event streams and large answers on their way. They are bounded in total. When they
//! run out, the newcomer gets one all the same, and the network that holds most loses its oldest: strangers who take all
//! slots take them from each other.

use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Table of slots. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Slots(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    /// Maximum weight of all slots together.
    weight_max: usize,
    weight: usize,
    /// Number of the next slot: older slots have lower ones.
    next: u64,
    networks: HashMap<IpAddr, Holding>,
}

/// Slots of one network.
#[derive(Debug, Default)]
struct Holding {
    weight: usize,
    slots: BTreeMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    weight: usize,
    /// Cancelled when the slot is given to another holder.
    evict: CancellationToken,
}

/// One slot, freed when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    table: Slots,
    network: IpAddr,
    number: u64,
}

impl Slots {
    /// Creates a table whose slots weigh `weight_max` together at most.
    pub(super) fn new(weight_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Table { weight_max, weight: 0, next: 0, networks: HashMap::new() })))
    }

    /// Takes a slot of this weight for `network`, from other holders if need be. `evict` is cancelled when the slot is
    /// taken away again.
    pub(super) fn enter(&self, network: IpAddr, weight: usize, evict: CancellationToken) -> Slot {
        let mut table = self.0.lock();
        let number = table.next;
        table.next += 1;
        table.weight += weight;
        let holding = table.networks.entry(network).or_default();
        holding.weight += weight;
        holding.slots.insert(number, Held { weight, evict });
        while table.weight > table.weight_max {
            let Some((network, oldest)) = table.next_to_go(number) else { break };
            if let Some(held) = table.remove(network, oldest) {
                held.evict.cancel();
            }
        }
        Slot { table: self.clone(), network, number }
    }
}

impl Table {
    /// Returns the oldest slot of the heaviest network, other than `newest`.
    fn next_to_go(&self, newest: u64) -> Option<(IpAddr, u64)> {
        let oldest = |holding: &Holding| holding.slots.keys().copied().find(|number| *number != newest);
        let candidates = self.networks.iter().filter_map(|(network, holding)| {
            let oldest = oldest(holding)?;
            Some((holding.weight, Reverse(oldest), *network))
        });
        candidates.max().map(|(_, Reverse(oldest), network)| (network, oldest))
    }

    fn remove(&mut self, network: IpAddr, number: u64) -> Option<Held> {
        let holding = self.networks.get_mut(&network)?;
        let held = holding.slots.remove(&number)?;
        holding.weight -= held.weight;
        self.weight -= held.weight;
        if holding.slots.is_empty() {
            self.networks.remove(&network);
        }
        Some(held)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // An evicted slot is no longer there.
        self.table.0.lock().remove(self.network, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u8) -> IpAddr {
        IpAddr::from([10, 0, number, 0])
    }

    /// Takes slots of weight 1.
    fn enter(slots: &Slots, network: IpAddr, count: usize) -> Vec<(Slot, CancellationToken)> {
        let enter = |_| {
            let evict = CancellationToken::new();
            (slots.enter(network, 1, evict.clone()), evict)
        };
        (0..count).map(enter).collect()
    }

    fn evicted(held: &[(Slot, CancellationToken)]) -> Vec<bool> {
        held.iter().map(|(_, evict)| evict.is_cancelled()).collect()
    }

    #[test]
    fn a_newcomer_takes_the_oldest_slot_of_the_network_that_holds_most() {
        let slots = Slots::new(4);
        let one = enter(&slots, network(1), 1);
        let many = enter(&slots, network(2), 3);
        let newcomer = enter(&slots, network(3), 1);
        assert_eq!((evicted(&one), evicted(&newcomer)), (vec![false], vec![false]));
        assert_eq!(evicted(&many), [true, false, false]);
        let more = enter(&slots, network(2), 1);
        assert_eq!(evicted(&many), [true, true, false], "a network pays for itself");
        assert_eq!((evicted(&one), evicted(&newcomer), evicted(&more)), (vec![false], vec![false], vec![false]));
    }

    #[test]
    fn slots_come_back_once_and_an_empty_table_forgets_its_networks() {
        let slots = Slots::new(2);
        let held = enter(&slots, network(1), 3);
        assert_eq!(evicted(&held), [true, false, false]);
        drop(held);
        assert_eq!(slots.0.lock().weight, 0);
        assert!(slots.0.lock().networks.is_empty());
        assert_eq!(evicted(&enter(&slots, network(2), 2)), [false, false]);
    }

    #[test]
    fn a_slot_that_weighs_more_than_all_together_is_the_only_one() {
        let slots = Slots::new(2);
        let small = enter(&slots, network(1), 2);
        let evict = CancellationToken::new();
        let _large = slots.enter(network(2), 5, evict.clone());
        assert_eq!((evicted(&small), evict.is_cancelled()), (vec![true, true], false));
    }
}
