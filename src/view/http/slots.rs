//! Slots that strangers hold, such as event streams and large answers on their way. They are bounded in total. When they
//! run out, the newcomer gets one all the same, and the network that holds most loses its oldest: strangers who take all
//! slots take them from each other.

use parking_lot::Mutex;
use std::sync::Arc;
use stratum::mining::fair_map::FairMap;
use stratum::mining::source::Source;
use tokio_util::sync::CancellationToken;

/// Table of slots. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Slots(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    /// Maximum weight of all slots together.
    weight_max: usize,
    /// Number of the next slot.
    next: u64,
    /// By number, what is cancelled when the slot is given to another holder.
    held: FairMap<u64, CancellationToken>,
}

/// One slot, freed when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    table: Slots,
    number: u64,
}

impl Slots {
    /// Creates a table whose slots weigh `weight_max` together at most.
    pub(super) fn new(weight_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Table { weight_max, next: 0, held: FairMap::default() })))
    }

    /// Takes a slot of this weight for `network`, from other holders if need be. `evict` is cancelled when the slot is
    /// taken away again.
    pub(super) fn enter(&self, network: Source, weight: usize, evict: CancellationToken) -> Slot {
        let mut table = self.0.lock();
        let number = table.next;
        table.next += 1;
        table.held.insert(network, number, evict, weight);
        while table.held.weight() > table.weight_max
            && let Some(evicted) = table.held.evict_other(&number)
        {
            evicted.cancel();
        }
        Slot { table: self.clone(), number }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // An evicted slot is no longer there.
        self.table.0.lock().held.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u8) -> Source {
        Source::of([10, 0, number, 1].into())
    }

    /// Takes slots of weight 1.
    fn enter(slots: &Slots, network: Source, count: usize) -> Vec<(Slot, CancellationToken)> {
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
        assert!(slots.0.lock().held.is_empty());
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
