//! Recent shares that list their blocks' transactions: versions before 34.

use sharechain::chain::Tip;
use sharechain::merkle::Digest;
use sharechain::share::{Share, ShareVersion};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// Number of shares whose transactions are kept: blocks are made of them, and later shares refer to them.
const SHARES_MAX: usize = 100;

/// The latest shares that list transactions, oldest first.
#[derive(Debug, Default)]
pub(super) struct RecentLists {
    shares: VecDeque<Arc<Share>>,
}

impl RecentLists {
    /// Adds a verified share, if it lists transactions.
    pub(super) fn note(&mut self, share: &Arc<Share>) {
        if share.version().lists_transactions() {
            self.shares.push_back(share.clone());
            if self.shares.len() > SHARES_MAX {
                self.shares.pop_front();
            }
        }
    }

    /// Transactions that the shares list.
    pub(super) fn transactions(&self) -> HashSet<Digest> {
        let listed = self.shares.iter().filter_map(|share| share.info().transactions.as_ref());
        listed.flat_map(|listed| listed.new_hashes.iter()).copied().collect()
    }

    /// True if shares of the network may list transactions: the best one does, or one less than a hundred below it;
    /// without shares, unless peers need a protocol version that only newer shares need.
    pub(super) fn are_in_use(&self, tip: Option<&Tip>, minimum_protocol: u32) -> bool {
        let Some(best) = tip.and_then(Tip::best) else {
            return ShareVersion::may_list_transactions(minimum_protocol);
        };
        let is_near = |listing: &Arc<Share>| (best.absheight().wrapping_sub(listing.absheight()) as usize) < SHARES_MAX;
        best.version().lists_transactions() || self.shares.back().is_some_and(is_near)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sharechain::chain::Sharechain;
    use sharechain::share::ShareHash;
    use sharechain::testkit::{self, Plan, START};

    /// A chain on top of shares of `version`, each of which was noted.
    fn grown(version: u64, count: u32) -> (Sharechain, Option<ShareHash>, RecentLists) {
        let mut chain = Sharechain::new(testkit::network(200, version));
        let mut lists = RecentLists::default();
        let mut top = None;
        for number in 0..count {
            let plan =
                Plan { timestamp: START + 10 * number, transactions: vec![[7; 32]], nonce: number, ..Plan::default() };
            top = testkit::grow(&mut chain, top, 1, &plan).pop();
            lists.note(chain.share(top.unwrap()).unwrap());
        }
        (chain, top, lists)
    }

    #[test]
    fn transactions_are_in_use_where_the_best_share_lists_them_or_nothing_is_known() {
        let (mut old, top, lists) = grown(33, 3);
        assert!(lists.are_in_use(Some(&old.tip_at(top)), 3500));
        assert_eq!(lists.transactions(), HashSet::from([[7; 32]]));
        let (mut new, top, lists) = grown(35, 3);
        assert!(!lists.are_in_use(Some(&new.tip_at(top)), 3200));
        assert!(lists.transactions().is_empty());
        assert!(lists.are_in_use(None, 3301) && !lists.are_in_use(None, 3500));
        assert!(lists.are_in_use(Some(&new.tip_at(None)), 3301));
    }

    #[test]
    fn after_a_change_of_version_they_are_in_use_for_another_hundred_shares() {
        let (_, _, lists) = grown(33, 3);
        let (mut new, top, _) = grown(35, 110);
        let at = |height: u32| new.all().ancestor(top.unwrap(), 110 - height);
        let (near, far) = (at(102), at(103));
        assert!(lists.are_in_use(Some(&new.tip_at(near)), 3500));
        assert!(!lists.are_in_use(Some(&new.tip_at(far)), 3500));
    }
}
