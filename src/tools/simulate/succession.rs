//! Succession of share versions 35 and 36 along a chain, checked share by share without the ratchet (protocol-v36
//! sections 2.1 and 2.2).

use sharechain::share::{Attempts, Share, ShareVersion};
use std::sync::Arc;

use ShareVersion::{V35, V36};

/// Checks a chain, oldest share first, from the share on that has a window of `length` shares below it. Shares that are
/// `free` may have version 35 at any time. Returns what is wrong.
pub(super) fn broken_rules(chain: &[Arc<Share>], length: usize, free: impl Fn(&Share) -> bool) -> Vec<String> {
    let mut broken = Vec::new();
    let mut has_crossed = false;
    for (number, share) in chain.iter().enumerate().skip(length) {
        let (below, parent) = (&chain[..number], &chain[number - 1]);
        let votes = votes(below, length);
        let has = |percent: usize| votes * 100 >= percent * length;
        let may_follow = parent.version() == V36 || has_work(below, length);
        let has_to_stay = parent.version() == V36 && has(50);
        match share.version() {
            V36 => {
                if !may_follow {
                    broken.push(format!("share {number} follows 35 without 60 % of the work"));
                }
                if !has(if has_crossed { 50 } else { 95 }) {
                    broken.push(format!("share {number} has version 36 with {votes} votes of {length}"));
                }
                has_crossed = true;
            }
            V35 if (may_follow && has(95) || has_to_stay) && !free(share) => {
                broken.push(format!("share {number} has version 35 in spite of {votes} votes of {length}"));
            }
            V35 => {}
            other => broken.push(format!("share {number} has version {other}")),
        }
    }
    broken
}

/// Votes for version 36 in the window below a share.
fn votes(below: &[Arc<Share>], length: usize) -> usize {
    let window = below.iter().rev().take(length);
    window.filter(|share| share.data().desired_version >= V36.number()).count()
}

/// True if 60 % of the work in the oldest tenth of the window votes for version 36.
fn has_work(below: &[Arc<Share>], length: usize) -> bool {
    let tenth = || below.iter().rev().skip(length * 9 / 10).take(length / 10);
    let sum = |of_36: bool| {
        let counted = tenth().filter(|share| !of_36 || share.data().desired_version == V36.number());
        counted.fold(Attempts::default().0, |sum, share| sum + share.attempts().0)
    };
    let (of_36, all) = (sum(true), sum(false));
    // Sums rather than products: nothing can overflow, and the numbers need no other type.
    let times = |number, factor: u32| (0..factor).fold(Attempts::default().0, |sum, _| sum + number);
    times(of_36, 5) >= times(all, 3)
}
