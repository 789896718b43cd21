//! `FairQueue`: a bounded queue that serves sources in turn, and within a source its submitters in turn. A flood delays
//! and fills what is the flooder's own.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use super::Submitter;
use crate::mining::source::Source;

/// A queue for each submitter of each source.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    sources: HashMap<Source, OfSource<T>>,
    /// Sources with items, each once; the first is next.
    turns: VecDeque<Source>,
    len: usize,
    /// Maximum number of items.
    len_max: usize,
    /// Maximum number of items of one source.
    of_source_max: usize,
}

/// Items of one source; never empty.
#[derive(Debug)]
struct OfSource<T> {
    submitters: HashMap<u64, VecDeque<T>>,
    /// Submitters with items, each once; the first is next.
    turns: VecDeque<u64>,
    len: usize,
}

impl<T> FairQueue<T> {
    /// Creates an empty queue.
    pub(super) fn new(len_max: usize, of_source_max: usize) -> Self {
        Self { sources: HashMap::new(), turns: VecDeque::new(), len: 0, len_max, of_source_max }
    }

    /// Number of items.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds `item`. Returns the item that finds no room: this one if its source has its maximum, or holds as much as any
    /// other while the queue is full; otherwise the newest of the source that holds most.
    pub(super) fn push(&mut self, submitter: Submitter, item: T) -> Option<T> {
        let held = self.sources.get(&submitter.source).map_or(0, |of_source| of_source.len);
        if held >= self.of_source_max {
            return Some(item);
        }
        let mut dropped = None;
        if self.len >= self.len_max {
            let fullest = self.sources.iter().max_by_key(|(_, of_source)| of_source.len);
            match fullest.map(|(source, of_source)| (*source, of_source.len)) {
                Some((source, most)) if most > held + 1 => dropped = self.drop_newest(source),
                _ => return Some(item),
            }
        }
        let of_source = match self.sources.entry(submitter.source) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                self.turns.push_back(submitter.source);
                new.insert(OfSource { submitters: HashMap::new(), turns: VecDeque::new(), len: 0 })
            }
        };
        let queue = of_source.submitters.entry(submitter.number).or_default();
        if queue.is_empty() {
            of_source.turns.push_back(submitter.number);
        }
        queue.push_back(item);
        of_source.len += 1;
        self.len += 1;
        dropped
    }

    /// Takes the oldest item of the submitter whose turn it is, of the source whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let source = self.turns.pop_front()?;
        let of_source = self.sources.get_mut(&source)?;
        let number = of_source.turns.pop_front()?;
        let queue = of_source.submitters.get_mut(&number)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            of_source.submitters.remove(&number);
        } else {
            of_source.turns.push_back(number);
        }
        of_source.len -= 1;
        self.len -= 1;
        if of_source.len == 0 {
            self.sources.remove(&source);
        } else {
            self.turns.push_back(source);
        }
        item
    }

    /// Takes the newest item of the submitter of `source` that holds most; the source holds several.
    fn drop_newest(&mut self, source: Source) -> Option<T> {
        let of_source = self.sources.get_mut(&source)?;
        let (&number, queue) = of_source.submitters.iter_mut().max_by_key(|(_, queue)| queue.len())?;
        let item = queue.pop_back();
        if queue.is_empty() {
            of_source.submitters.remove(&number);
            of_source.turns.retain(|turn| *turn != number);
        }
        of_source.len -= 1;
        self.len -= 1;
        item
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn by(network: u8, number: u64) -> Submitter {
        Submitter { source: Source::of([192, 0, network, 1].into()), number }
    }

    fn all<T>(queue: &mut FairQueue<T>) -> Vec<T> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn sources_take_turns_and_within_one_its_submitters() {
        let mut queue = FairQueue::new(100, 100);
        for item in ["a1", "a2", "a3", "a4"] {
            assert_eq!(queue.push(by(1, 1), item), None);
        }
        queue.push(by(1, 2), "b1");
        queue.push(by(2, 3), "c1");
        queue.push(by(2, 3), "c2");
        queue.push(by(1, 2), "b2");
        assert_eq!(queue.len(), 8);
        assert_eq!(all(&mut queue), ["a1", "c1", "b1", "c2", "a2", "b2", "a3", "a4"]);
        assert_eq!((queue.len(), queue.sources.len(), queue.turns.len()), (0, 0, 0), "nothing is kept of them");
    }

    #[test]
    fn a_flood_of_one_connection_delays_no_other_by_more_than_one_hash_each() {
        let mut queue = FairQueue::new(10_000, 10_000);
        (0..1000).for_each(|number| assert_eq!(queue.push(by(1, 1), number), None));
        // A neighbour of the same network, and a stranger.
        queue.push(by(1, 2), 5001);
        queue.push(by(2, 3), 5002);
        let first: Vec<i32> = (0..4).filter_map(|_| queue.pop()).collect();
        assert!(first.contains(&5001) && first.contains(&5002), "{first:?}");
    }

    #[test]
    fn a_source_that_holds_its_maximum_pays_for_it_and_no_other() {
        let mut queue = FairQueue::new(100, 3);
        assert!((0..3).all(|item| queue.push(by(1, item), item).is_none()));
        assert_eq!(queue.push(by(1, 9), 9), Some(9));
        assert_eq!(queue.push(by(2, 9), 10), None);
        queue.pop();
        assert_eq!(queue.push(by(1, 9), 11), None);
    }

    #[test]
    fn when_all_is_full_the_source_that_holds_most_pays() {
        let mut queue = FairQueue::new(6, 100);
        (0..3).for_each(|item| assert_eq!(queue.push(by(1, 1), item), None));
        assert_eq!(queue.push(by(1, 2), 3), None);
        assert_eq!((queue.push(by(2, 3), 4), queue.push(by(2, 3), 5)), (None, None));
        assert_eq!(queue.push(by(1, 2), 6), Some(6), "it holds most itself");
        assert_eq!(queue.push(by(3, 4), 7), Some(2), "the newest of the connection that holds most of it");
        assert_eq!(queue.push(by(3, 4), 8), Some(1));
        // Now all hold two.
        assert_eq!(queue.push(by(3, 4), 9), Some(9));
        assert!(queue.push(by(4, 5), 10).is_some_and(|dropped| dropped != 10), "the newest of one with two");
        assert_eq!(queue.len(), 6);
    }

    #[test]
    fn strangers_from_any_number_of_sources_drop_nothing_of_a_source_that_holds_little() {
        let mut queue = FairQueue::new(50, 100);
        queue.push(by(0, 1), 0);
        for item in 1..1000 {
            queue.push(
                Submitter { source: Source::of([10, 0, u8::try_from(item % 200).unwrap(), 1].into()), number: 1 },
                item,
            );
        }
        assert_eq!(queue.len(), 50);
        assert_eq!(queue.pop(), Some(0));
    }
}
