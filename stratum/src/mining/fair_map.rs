//! `FairMap`: a map whose entries have holders. What must go is taken from the holder of the most.
//!
//! Caches that strangers fill are bounded with it: a client that fills one pushes out entries of its own, never
//! those of others that hold less.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use crate::mining::source::Source;

/// Map of entries with a holder, a weight (bytes, say) and an age each. Bounds are the caller's: it calls
/// [`Self::evict`] while there is too much. Every operation takes logarithmic time.
#[derive(Debug)]
pub struct FairMap<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys by turn, oldest first.
    ages: BTreeMap<u64, K>,
    holders: HashMap<Source, Holder>,
    by_weight: BTreeSet<(usize, Source)>,
    weight: usize,
    /// Number of insertions and uses so far.
    turn: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    holder: Source,
    turn: u64,
    weight: usize,
}

/// Entries of one source.
#[derive(Debug, Default)]
struct Holder {
    turns: BTreeSet<u64>,
    weight: usize,
}

impl<K, V> Default for FairMap<K, V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            ages: BTreeMap::new(),
            holders: HashMap::new(),
            by_weight: BTreeSet::new(),
            weight: 0,
            turn: 0,
        }
    }
}

impl<K: Clone + Eq + Hash, V> FairMap<K, V> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sum of the entries' weights.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Returns the value of `key`; its age stays.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// Adds or replaces an entry, which is the newest then.
    pub fn insert(&mut self, holder: Source, key: K, value: V, weight: usize) {
        self.remove(&key);
        self.turn += 1;
        let turn = self.turn;
        self.ages.insert(turn, key.clone());
        self.entries.insert(key, Entry { value, holder, turn, weight });
        self.holders.entry(holder).or_default().turns.insert(turn);
        self.reweigh(holder, 0, weight);
    }

    /// Makes the entry of `key` the newest.
    pub fn touch(&mut self, key: &K) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.turn += 1;
        let before = std::mem::replace(&mut entry.turn, self.turn);
        if let Some(key) = self.ages.remove(&before) {
            self.ages.insert(self.turn, key);
        }
        if let Some(holder) = self.holders.get_mut(&entry.holder) {
            holder.turns.remove(&before);
            holder.turns.insert(self.turn);
        }
    }

    /// Sets the weight of the entry of `key`.
    pub fn set_weight(&mut self, key: &K, weight: usize) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let before = std::mem::replace(&mut entry.weight, weight);
        let holder = entry.holder;
        if before != weight {
            self.reweigh(holder, before, weight);
        }
    }

    /// Removes the entry of `key`.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.ages.remove(&entry.turn);
        if let Some(holder) = self.holders.get_mut(&entry.holder) {
            holder.turns.remove(&entry.turn);
        }
        self.reweigh(entry.holder, entry.weight, 0);
        Some(entry.value)
    }

    /// Removes the oldest entry of the heaviest holder.
    pub fn evict(&mut self) -> Option<V> {
        let (_, heaviest) = self.by_weight.last()?;
        let turn = *self.holders.get(heaviest)?.turns.first()?;
        self.remove_at(turn)
    }

    /// Removes the oldest entry, other than that of `kept`, of the heaviest holder that has one.
    pub fn evict_other(&mut self, kept: &K) -> Option<V> {
        let kept = self.entries.get(kept).map(|entry| entry.turn);
        let mut heaviest_first = self.by_weight.iter().rev();
        let turn = heaviest_first
            .find_map(|(_, holder)| self.holders.get(holder)?.turns.iter().copied().find(|turn| Some(*turn) != kept))?;
        self.remove_at(turn)
    }

    fn remove_at(&mut self, turn: u64) -> Option<V> {
        let key = self.ages.get(&turn)?.clone();
        self.remove(&key)
    }

    /// Removes the oldest entries, one after the other, as long as `is_old` is true of them.
    pub fn expire(&mut self, mut is_old: impl FnMut(&V) -> bool) -> Vec<V> {
        let mut expired = Vec::new();
        while let Some((_, key)) = self.ages.first_key_value()
            && self.entries.get(key).is_some_and(|entry| is_old(&entry.value))
        {
            let key = key.clone();
            expired.extend(self.remove(&key));
        }
        expired
    }

    /// Returns the newest value of `holder`.
    pub fn newest_of(&self, holder: Source) -> Option<&V> {
        let turn = self.holders.get(&holder)?.turns.last()?;
        self.get(self.ages.get(turn)?)
    }

    /// Changes the sums after one of the entries of `source` has changed its weight, and drops a holder of nothing.
    fn reweigh(&mut self, source: Source, before: usize, after: usize) {
        self.weight = self.weight - before + after;
        let Some(holder) = self.holders.get_mut(&source) else { return };
        self.by_weight.remove(&(holder.weight, source));
        holder.weight = holder.weight - before + after;
        if holder.turns.is_empty() {
            self.holders.remove(&source);
        } else {
            self.by_weight.insert((holder.weight, source));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(number: u8) -> Source {
        Source::of([10, 0, number, 1].into())
    }

    #[test]
    fn the_heaviest_holder_loses_its_oldest_first() {
        let mut map = FairMap::default();
        map.insert(source(1), "quiet", 0, 10);
        for (number, key) in ["a", "b", "c"].into_iter().enumerate() {
            map.insert(source(2), key, number, 10);
        }
        assert_eq!(map.evict(), Some(0));
        map.touch(&"b");
        assert_eq!(map.evict(), Some(2), "b was used since");
        map.set_weight(&"quiet", 30);
        assert_eq!((map.len(), map.weight()), (2, 40));
        assert_eq!(map.evict(), Some(0), "one heavy entry outweighs many");
        assert_eq!(map.get(&"b"), Some(&1));
        assert_eq!((map.evict(), map.evict()), (Some(1), None));
    }

    #[test]
    fn a_newcomer_that_is_kept_pushes_out_others_of_the_heaviest_holder_that_has_any() {
        let mut map = FairMap::default();
        for (number, key) in ["a", "b", "c"].into_iter().enumerate() {
            map.insert(source(1), key, number, 10);
        }
        map.insert(source(2), "heavy", 9, 100);
        assert_eq!(map.evict_other(&"heavy"), Some(0), "it is all that its holder has");
        assert_eq!(map.evict_other(&"b"), Some(9));
        assert_eq!(map.evict_other(&"b"), Some(2), "its neighbour, though newer");
        assert_eq!((map.evict_other(&"b"), map.len()), (None, 1));
        assert_eq!(map.evict_other(&"none"), Some(1));
    }

    #[test]
    fn what_is_old_goes_whoever_holds_it() {
        let mut map = FairMap::default();
        for number in 0..10 {
            map.insert(source(number % 3), number, number, 1);
        }
        map.expire(|number| *number < 7);
        assert_eq!((map.len(), map.newest_of(source(0)), map.newest_of(source(2))), (3, Some(&9), Some(&8)));
        map.expire(|_| true);
        assert!(map.is_empty() && map.newest_of(source(0)).is_none());
    }

    proptest! {
        #[test]
        fn sums_and_orders_agree_with_the_entries(steps in prop::collection::vec((0..7_u8, 0..20_u16, 0..4_u8, 1..9_usize), 0..200)) {
            let mut map = FairMap::default();
            for (kind, key, holder, weight) in steps {
                match kind {
                    0..=2 => map.insert(source(holder), key, (), weight),
                    3 => map.touch(&key),
                    4 => map.set_weight(&key, weight),
                    5 => drop(map.remove(&key)),
                    _ => drop(map.evict()),
                }
                prop_assert_eq!(map.weight, map.entries.values().map(|entry| entry.weight).sum::<usize>());
                prop_assert_eq!(map.ages.len(), map.entries.len());
                prop_assert_eq!(map.by_weight.len(), map.holders.len());
                for (source, holder) in &map.holders {
                    let own = map.entries.values().filter(|entry| entry.holder == *source);
                    prop_assert_eq!(holder.weight, own.clone().map(|entry| entry.weight).sum::<usize>());
                    prop_assert_eq!(holder.turns.len(), own.count());
                    prop_assert!(map.by_weight.contains(&(holder.weight, *source)));
                }
            }
        }
    }
}
