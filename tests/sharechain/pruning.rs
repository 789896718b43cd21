//! Pruning removes old shares, and never the best chain.

use proptest::prelude::*;
use sharechain::chain::Sharechain;
use sharechain::share::ShareHash;
use sharechain::testkit::{Plan, START, grow, network, share_on};
use std::sync::Arc;

#[test]
fn about_two_chain_lengths_are_kept_however_long_the_chain_grows() {
    let mut chain = Sharechain::new(network(24, 35));
    let mut own = 0;
    for step in 0..200_u32 {
        let best = chain.choice().best;
        let now = f64::from(START + 10 * step);
        let share = share_on(&mut chain, best, &Plan { timestamp: START + 10 * step, ..Plan::default() });
        chain.add_own(share, false, now);
        own += 1;
        chain.think(now);
        chain.prune(now);
        chain.think(now);
        assert!(chain.all().len() <= 2 * 24 + 10);
        assert_eq!(chain.verified().len(), chain.all().len());
    }
    // Shares pruned from the chain do not count as orphaned.
    let counts = chain.own().counts();
    assert_eq!((counts.made, counts.orphan), (own, 0));
}

#[test]
fn a_stale_head_stays_five_minutes() {
    let mut chain = Sharechain::new(network(24, 35));
    let hashes = grow(&mut chain, None, 12, &Plan::default());
    // More side branches than the five best heads, which always stay; each has less work than the main chain.
    let seen = f64::from(START + 200);
    let mut sides: Vec<ShareHash> = Vec::new();
    for (nonce, parent) in (1..).zip(&hashes[..8]) {
        let share = share_on(&mut chain, Some(*parent), &Plan { nonce, timestamp: START + 300, ..Plan::default() });
        sides.push(share.hash());
        chain.add(share, None, seen);
    }
    chain.think(seen);
    assert!(chain.prune(seen + 299.0).is_empty());
    let removed = chain.prune(seen + 300.0);
    // Nine heads: the main chain's and the four best side branches stay.
    assert_eq!(removed.len(), 4);
    assert!(removed.iter().all(|hash| sides[..4].contains(hash)), "{removed:?}");
    let best = chain.choice().best;
    chain.think(seen + 300.0);
    assert_eq!(chain.choice().best, best);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn pruning_never_loses_the_best_chain(steps in prop::collection::vec((0u32..6, 1u32..120, any::<bool>()), 40..160)) {
        let mut chain = Sharechain::new(network(16, 35));
        let mut now = START;
        for (index, (back, seconds, prune)) in (0u32..).zip(steps) {
            now += seconds;
            let parent = chain.choice().best.and_then(|best| chain.all().ancestor(best, back)).filter(|it| chain.all().contains(it));
            let share = share_on(&mut chain, parent, &Plan { timestamp: now, nonce: index, ..Plan::default() });
            chain.add(Arc::clone(&share), None, f64::from(now));
            chain.think(f64::from(now));
            if prune {
                let best = chain.choice().best.unwrap();
                let kept: Vec<_> = chain.all().chain(best, 2 * 16 + 9).collect();
                chain.prune(f64::from(now));
                for share in &kept {
                    prop_assert!(chain.all().contains(share) && chain.verified().contains(share));
                }
                chain.think(f64::from(now));
                prop_assert_eq!(chain.choice().best, Some(best));
            }
        }
    }
}
