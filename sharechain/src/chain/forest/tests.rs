//! The forest agrees with a map that is walked step by step, and a long chain has short ways through it.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

fn hash(number: u64) -> ShareHash {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    ShareHash(digest)
}

/// The forest as a map from share to parent, walked step by step.
#[derive(Debug, Default)]
struct Naive(HashMap<ShareHash, (Option<ShareHash>, Work)>);

impl Naive {
    fn walk(&self, from: ShareHash) -> (Vec<ShareHash>, Option<ShareHash>) {
        let mut chain = Vec::new();
        let mut at = Some(from);
        while let Some((previous, _)) = at.and_then(|at| self.0.get(&at)) {
            chain.extend(at);
            at = *previous;
        }
        (chain, at)
    }

    fn has_child(&self, hash: ShareHash) -> bool {
        self.0.values().any(|(previous, _)| *previous == Some(hash))
    }
}

fn agree(forest: &Forest, naive: &Naive) {
    assert_eq!(forest.len(), naive.0.len());
    let heads: BTreeSet<_> = naive.0.keys().copied().filter(|hash| !naive.has_child(*hash)).collect();
    assert_eq!(forest.heads(), &heads);
    for hash in naive.0.keys() {
        let (chain, last) = naive.walk(*hash);
        assert_eq!(forest.height_and_last(*hash), (u32::try_from(chain.len()).unwrap(), last));
        let work = chain.iter().fold(Work::default(), |sum, share| sum + naive.0[share].1);
        assert_eq!(forest.work(*hash), work);
        assert_eq!(forest.chain(*hash, u32::MAX).collect::<Vec<_>>(), chain);
        for (steps, share) in (0..).zip(&chain) {
            assert_eq!(forest.ancestor(*hash, steps), Some(*share));
            assert_eq!(forest.work_between(*hash, *share), work - forest.work(*share));
            assert_eq!(forest.is_ancestor(*share, *hash), Some(true));
        }
        let height = u32::try_from(chain.len()).unwrap();
        assert_eq!(forest.ancestor(*hash, height), last);
        assert_eq!(forest.ancestor(*hash, height + 1), None);
        for other in naive.0.keys().take(8) {
            let theirs = naive.walk(*other).0;
            assert_eq!(forest.fork(*hash, *other), chain.iter().copied().find(|share| theirs.contains(share)));
        }
    }
}

proptest! {
    #[test]
    fn sums_equal_naive_walks_under_random_insertion_and_removal(
        steps in prop::collection::vec((0u64..60, 0u64..60, 0u64..1000, prop::bool::weighted(0.3)), 1..160),
    ) {
        let (mut forest, mut naive) = (Forest::default(), Naive::default());
        for (number, below, work, remove) in steps {
            let share = hash(number);
            if remove {
                let removable = naive.0.get(&share).is_some_and(|(previous, _)| {
                    !naive.has_child(share) || previous.is_none_or(|previous| !naive.0.contains_key(&previous))
                });
                prop_assert_eq!(forest.remove(share).is_ok(), removable);
                if removable {
                    naive.0.remove(&share);
                }
            } else if below != number {
                // The parent is always the smaller number, so that no chain is a cycle; 0 begins a chain.
                let (share, below) = (hash(number.max(below)), number.min(below));
                let previous = (below > 0).then(|| hash(below));
                let fresh = !naive.0.contains_key(&share);
                prop_assert_eq!(forest.insert(share, previous, equal_work(work)), fresh);
                naive.0.entry(share).or_insert((previous, equal_work(work)));
            }
        }
        agree(&forest, &naive);
    }
}

#[test]
fn any_ancestor_of_a_long_chain_is_a_few_links_away() {
    let mut forest = Forest::default();
    for number in 1..=20_000 {
        forest.insert(hash(number), (number > 1).then(|| hash(number - 1)), equal_work(1));
    }
    assert!(links_down(&forest, 20_000) <= 30);
    assert_eq!(forest.ancestor(hash(20_000), 12_345), Some(hash(7_655)));
}

fn links_down(forest: &Forest, from: u64) -> usize {
    let next = |at: &&Node| forest.skip(at).or_else(|| forest.parent(at));
    std::iter::successors(forest.node_of(hash(from)), next).count() - 1
}

#[test]
fn a_chain_that_grows_downwards_has_few_seams_and_right_labels() {
    for run in [1, 7, 50, 499] {
        let (mut forest, mut naive) = (Forest::default(), Naive::default());
        let mut top = 3000_u64;
        while top > 0 {
            let low = top.saturating_sub(run);
            for number in low + 1..=top {
                let (work, previous) = (equal_work(number % 13), (number > 1).then(|| hash(number - 1)));
                forest.insert(hash(number), previous, work);
                naive.0.insert(hash(number), (previous, work));
            }
            top = low;
        }
        let seams = forest.root(forest.node_of(hash(3000)).unwrap()).seams;
        assert!(seams <= SEAMS_MAX, "{seams}");
        assert!(links_down(&forest, 3000) < 250, "{}", links_down(&forest, 3000));
        for number in (1..=3000).step_by(97) {
            let height = u32::try_from(number).unwrap();
            let work = naive.walk(hash(number)).0.iter().fold(Work::default(), |sum, share| sum + naive.0[share].1);
            assert_eq!((forest.height(hash(number)), forest.work(hash(number))), (height, work));
            assert_eq!(forest.ancestor(hash(3000), 3000 - height), Some(hash(number)));
        }
        // From the lowest up, as in pruning: the seams stay known, and shares that return below are joined again.
        (1..=100).for_each(|number| forest.remove(hash(number)).unwrap());
        for number in (1..=100).rev() {
            forest.insert(hash(number), (number > 1).then(|| hash(number - 1)), naive.0[&hash(number)].1);
        }
        assert_eq!(
            forest.work(hash(3000)),
            naive.walk(hash(3000)).0.iter().fold(Work::default(), |sum, share| { sum + naive.0[share].1 })
        );
        assert!(links_down(&forest, 3000) < 250, "{}", links_down(&forest, 3000));
    }
}
