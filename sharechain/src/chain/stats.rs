//! Statistics for display and for the choice of difficulty (protocol section 8.5); none affects validity.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ruint::aliases::U320;
use serde::{Deserialize, Serialize};

use super::score::true_division;
use super::view::View;
use super::votes::Votes;
use super::weights::{Counting, Query, Window};
use crate::share::{Attempts, Payee, Share, ShareHash, ShareVersion, StaleInfo, Target, Weights, donation_payee};

/// Kind of work that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Work of the shares' own targets.
    Own,
    /// Work of the easiest targets allowed for the shares.
    Min,
}

/// Work by the miners' announcements of lost shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StaleCounts {
    /// All shares, whatever they announce.
    pub good: Attempts,
    /// Shares that announce an orphan.
    pub orphan: Attempts,
    /// Shares that announce a dead share.
    pub dead: Attempts,
}

/// Shares found and lost by a payee, as announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PayeeStales {
    /// Announced as lost.
    pub stale: u32,
    /// Total found.
    pub total: u32,
}

/// Queries that walk the chain; each takes its length as an argument.
#[derive(Debug, Clone, Copy)]
pub struct Statistics<'a> {
    pub(super) view: View<'a>,
}

impl Statistics<'_> {
    /// The pool's hashes per second over `count` shares from `near` down, without the oldest's work, and the whole
    /// seconds measured; `None` for fewer than two shares.
    fn pace(&self, near: ShareHash, count: u32, measure: Measure) -> Option<(Attempts, u32)> {
        let far = self.view.all.ancestor(near, count.checked_sub(2)? + 1)?;
        let work = self.view.all.work_between(near, far);
        let (near, far) = (self.view.share(near)?.timestamp(), self.view.share(far)?.timestamp());
        let seconds = near.checked_sub(far).filter(|seconds| *seconds > 0).unwrap_or(1);
        Some((if measure == Measure::Own { work.own } else { work.min }, seconds))
    }

    /// Hashes per second, rounded down, over `count` shares from `near` down.
    pub fn attempts_per_second(&self, near: ShareHash, count: u32, measure: Measure) -> Option<U320> {
        self.pace(near, count, measure).map(|(work, seconds)| work.0 / U320::from(seconds))
    }

    /// Hashes per second over `count` shares from `near` down.
    pub fn rate(&self, near: ShareHash, count: u32) -> Option<f64> {
        self.pace(near, count, Measure::Own).map(|(work, seconds)| true_division(work, u64::from(seconds)))
    }

    /// Lost part of the pool's work over the last `count` shares, as announced by miners.
    pub fn average_stale_proportion(&self, start: ShareHash, count: u32) -> f64 {
        let stale = self.view.chain(start, count).filter(|share| share.data().stale_info != StaleInfo::NONE).count();
        let stale = u32::try_from(stale).unwrap_or(u32::MAX);
        f64::from(stale) / (f64::from(count) + f64::from(stale))
    }

    /// Work over `count - 1` shares from `start` down.
    pub fn stale_counts(&self, start: ShareHash, count: u32) -> StaleCounts {
        let mut counts = StaleCounts::default();
        for share in self.view.chain(start, count.saturating_sub(1)) {
            counts.good = counts.good + share.attempts();
            match share.data().stale_info {
                StaleInfo::ORPHAN => counts.orphan = counts.orphan + share.attempts(),
                StaleInfo::DOA => counts.dead = counts.dead + share.attempts(),
                _ => {}
            }
        }
        counts
    }

    /// Shares found and lost by each payee over `count - 1` shares from `start` down.
    pub fn stales_by_payee(&self, start: ShareHash, count: u32) -> HashMap<Payee, PayeeStales> {
        stales_by_payee(self.view.chain(start, count.saturating_sub(1)))
    }

    /// Seconds between the timestamps of the last `count` shares from `start` down; at least one.
    pub fn seconds(&self, start: ShareHash, count: u32) -> Option<u32> {
        self.pace(start, count, Measure::Own).map(|(_, seconds)| seconds)
    }

    /// Votes for share versions over `count` shares from `start` down, by work.
    pub fn votes(&self, start: ShareHash, count: u32) -> BTreeMap<u64, U320> {
        Votes::count(&self.view, start, count).0
    }

    /// Weights of a window that begins with `start` itself.
    pub fn weights_from(&self, start: ShareHash, block_target: Target) -> Arc<Weights> {
        self.weights_within(&mut Window::default(), start, block_target)
    }

    /// The same with a window that is reused between calls: the cost is then the shares in between.
    pub fn weights_within(&self, window: &mut Window, start: ShareHash, block_target: Target) -> Arc<Weights> {
        let version = self.view.share(start).map_or(ShareVersion::NEWEST, |share| share.version());
        let query = Query {
            start: Some(start),
            shares_max: self.view.all.height(start).min(self.view.network.real_chain_length),
            counting: self.view.counting(version, block_target),
        };
        window.weights(query, &|hash| self.view.entry(hash))
    }

    /// Weights of the last `count` shares from `start` down, whatever their work.
    pub fn weights_of(&self, start: ShareHash, count: u32) -> Arc<Weights> {
        let shares_max = self.view.all.height(start).min(count);
        let query = Query { start: Some(start), shares_max, counting: Counting::UpTo(U320::MAX) };
        Window::default().weights(query, &|hash| self.view.entry(hash))
    }

    /// Payee of what is left of a block's subsidy, for a share of the version of `start`.
    pub fn donation_payee(&self, start: Option<ShareHash>) -> Payee {
        let share = start.and_then(|start| self.view.share(start));
        let version = share.map_or(ShareVersion::NEWEST, |share| share.version());
        donation_payee(version, self.view.rules)
    }

    /// Each payee's amount if a block were found now, without the finder's part; the rest goes to the donation.
    pub fn expected_payouts(&self, start: ShareHash, block_target: Target, subsidy: u64) -> BTreeMap<Payee, u64> {
        payouts(&self.weights_from(start, block_target), subsidy, self.donation_payee(Some(start)))
    }
}

/// Each payee's amount of `subsidy` by `weights`; the rest goes to `donation`.
pub fn payouts(weights: &Weights, subsidy: u64, donation: Payee) -> BTreeMap<Payee, u64> {
    let mut payouts: BTreeMap<Payee, u64> = BTreeMap::new();
    let mut rest = subsidy;
    if !weights.total.is_zero() {
        for (payee, weight) in &weights.by_payee {
            let amount = mul_div(subsidy, *weight, weights.total);
            rest = rest.saturating_sub(amount);
            payouts.insert(payee.clone(), amount);
        }
    }
    *payouts.entry(donation).or_default() += rest;
    payouts
}

/// Counts found and lost shares by payee, as announced.
pub fn stales_by_payee<'a>(shares: impl Iterator<Item = &'a Arc<Share>>) -> HashMap<Payee, PayeeStales> {
    let mut stales: HashMap<Payee, PayeeStales> = HashMap::new();
    for share in shares {
        let is_stale = u32::from(share.data().stale_info != StaleInfo::NONE);
        let of = stales.entry(share.payee().clone()).or_default();
        of.stale += is_stale;
        of.total += 1 + is_stale;
    }
    stales
}

/// `subsidy * weight / total`, rounded down; `weight` is at most `total`, so the result fits.
fn mul_div(subsidy: u64, weight: U320, total: U320) -> u64 {
    type Wide = ruint::Uint<512, 8>;
    let amount: Wide = Wide::from(subsidy) * Wide::from(weight) / Wide::from(total);
    amount.saturating_to()
}

/// Our own shares: number made, and their outcome (protocol section 9.6).
#[derive(Debug, Clone, Default)]
pub struct OwnShares {
    known: HashMap<ShareHash, Own>,
    made: Tally,
    in_chain: Tally,
    announced: Tally,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    /// All shares; for announcements, those of orphans.
    all: u32,
    /// Dead on arrival.
    dead: u32,
}

#[derive(Debug, Clone, Copy)]
struct Own {
    is_dead: bool,
    announces: StaleInfo,
    in_chain: bool,
}

/// Outcome of our own shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnCounts {
    /// Shares made, including dead ones.
    pub made: u32,
    /// On time, but not in the chain.
    pub orphan: u32,
    /// Late, and not in the chain.
    pub dead: u32,
}

impl OwnShares {
    /// Counts a share that we made; `is_dead` if it was late for its work.
    pub(super) fn made(&mut self, share: &Share, is_dead: bool) {
        self.made.all += 1;
        self.made.dead += u32::from(is_dead);
        self.known.insert(share.hash(), Own { is_dead, announces: share.data().stale_info, in_chain: false });
    }

    /// Records that the best chain gained (`in_chain`) or lost a share.
    pub(super) fn moved(&mut self, hash: ShareHash, in_chain: bool) {
        let Some(own) = self.known.get_mut(&hash) else { return };
        if own.in_chain == in_chain {
            return;
        }
        own.in_chain = in_chain;
        let own = *own;
        let change = |number: &mut u32, by: bool| {
            if by && in_chain {
                *number += 1;
            } else if by {
                *number -= 1;
            }
        };
        change(&mut self.in_chain.all, true);
        change(&mut self.in_chain.dead, own.is_dead);
        change(&mut self.announced.all, own.announces == StaleInfo::ORPHAN);
        change(&mut self.announced.dead, own.announces == StaleInfo::DOA);
    }

    /// Our shares that the chain still holds.
    pub fn hashes(&self) -> Vec<ShareHash> {
        self.known.keys().copied().collect()
    }

    /// True for a share that we made and the chain still holds.
    pub fn contains(&self, hash: ShareHash) -> bool {
        self.known.contains_key(&hash)
    }

    /// Records that the chain pruned a share: its contribution to the counts stays.
    pub(super) fn pruned(&mut self, hash: ShareHash) {
        self.known.remove(&hash);
    }

    /// Outcome of our shares.
    pub fn counts(&self) -> OwnCounts {
        let lost = self.made.all.saturating_sub(self.in_chain.all);
        let dead = self.made.dead.saturating_sub(self.in_chain.dead);
        OwnCounts { made: self.made.all, orphan: lost.saturating_sub(dead), dead }
    }

    /// Stale info for our next share to announce.
    pub fn next_stale_info(&self) -> StaleInfo {
        let counts = self.counts();
        if counts.orphan > self.announced.all {
            StaleInfo::ORPHAN
        } else if counts.dead > self.announced.dead {
            StaleInfo::DOA
        } else {
            StaleInfo::NONE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(shares: &mut OwnShares, number: u8, is_dead: bool, announces: StaleInfo) -> ShareHash {
        let hash = ShareHash([number; 32]);
        shares.made.all += 1;
        shares.made.dead += u32::from(is_dead);
        shares.known.insert(hash, Own { is_dead, announces, in_chain: false });
        hash
    }

    #[test]
    fn a_share_that_the_chain_leaves_and_takes_back_is_lost_only_in_between() {
        let mut shares = OwnShares::default();
        let first = own(&mut shares, 1, false, StaleInfo::NONE);
        let late = own(&mut shares, 2, true, StaleInfo::NONE);
        shares.moved(first, true);
        assert_eq!(shares.counts(), OwnCounts { made: 2, orphan: 0, dead: 1 });
        assert_eq!(shares.next_stale_info(), StaleInfo::DOA);
        shares.moved(first, false);
        assert_eq!(shares.next_stale_info(), StaleInfo::ORPHAN);
        shares.moved(first, true);
        shares.moved(first, true);
        shares.moved(late, true);
        assert_eq!(shares.counts(), OwnCounts { made: 2, orphan: 0, dead: 0 });
        assert_eq!(shares.next_stale_info(), StaleInfo::NONE);
    }

    #[test]
    fn what_is_announced_counts_only_while_it_stands_in_the_chain() {
        let mut shares = OwnShares::default();
        own(&mut shares, 1, false, StaleInfo::NONE);
        let announcing = own(&mut shares, 2, false, StaleInfo::ORPHAN);
        shares.moved(announcing, true);
        assert_eq!(shares.next_stale_info(), StaleInfo::NONE);
        shares.moved(announcing, false);
        assert_eq!(shares.next_stale_info(), StaleInfo::ORPHAN);
        // Unknown values announce none of our shares.
        let odd = own(&mut shares, 3, false, StaleInfo(7));
        shares.moved(odd, true);
        assert_eq!(shares.next_stale_info(), StaleInfo::ORPHAN);
    }
}
