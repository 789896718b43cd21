//! `NextShare`: requirements and payouts of the next share as plain data, for creating work.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::merged_window::MergedWindowWeights;
use super::retarget::Requirements;
use super::verify::canonical_refs;
use crate::merkle::Digest;
use crate::share::{Additions, ShareHash, ShareVersion, StaleInfo, Target, TransactionRefs, Weights};

/// Requirements of the next share, and the payouts of its block if that has the target `block_target`.
///
/// All data of the pool that work depends on, without locks or functions, so that it can be sent to the creator of the
/// work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextShare {
    /// Share to build on; `None` on a fresh network.
    pub previous: Option<ShareHash>,
    /// Version of the next share.
    pub version: ShareVersion,
    /// Version that the next share votes for.
    pub desired_version: u64,
    /// True if it carries segwit data.
    pub has_segwit: bool,
    /// Stale info to announce for our earlier shares.
    pub stale_info: StaleInfo,
    /// Fields that follow from its parent.
    pub requirements: Requirements,
    /// Block target of the weights.
    pub block_target: Target,
    /// Payout weights of its block.
    pub weights: Arc<Weights>,
    /// Transactions listed by earlier shares, from the parent down; empty if the version lists none.
    pub listed_before: Arc<[Box<[Digest]>]>,
    /// What its fields of version 36 follow from; `None` before that version.
    pub additions: Option<NextAdditions>,
    /// The pool's hashes per second over the last hour; `None` while the chain is shorter than that.
    pub pool_rate: Option<f64>,
}

/// What the next share's fields of version 36 follow from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextAdditions {
    /// Its `merged_payout_hash`.
    pub payout_hash: Option<Digest>,
    /// Weights on the merged chain.
    pub merged: Arc<MergedWindowWeights>,
}

impl NextShare {
    /// Lists the block's other transactions, given their full hashes (protocol section 5.3); `None` from version 34 on.
    pub fn transactions(&self, hashes: impl FnOnce() -> Vec<Digest>) -> Option<TransactionRefs> {
        self.version
            .lists_transactions()
            .then(|| canonical_refs(self.listed_before.iter().map(|listed| &**listed), &hashes()))
    }

    /// Its fields of version 36, without anything of merged chains; `None` before that version.
    pub fn additions(&self) -> Option<Box<Additions>> {
        let additions = self.additions.as_ref()?;
        Some(Box::new(Additions { merged_payout_hash: additions.payout_hash, ..Additions::default() }))
    }

    /// Returns its timestamp for the wanted time `desired`, in seconds since 1970; `None` if no share can follow any
    /// more.
    pub fn timestamp(&self, desired: u32) -> Option<u32> {
        self.requirements.timestamp(self.version, desired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Sharechain;
    use crate::share::Bits;
    use crate::testkit::{self, Plan};

    /// A chain of 40 shares, after each of which `then` is called.
    fn grown(version: u64, then: impl Fn(&mut Sharechain)) -> Sharechain {
        let mut chain = Sharechain::new(testkit::network_of_work(24, version, 500));
        let mut parent = None;
        for number in 0..40 {
            let timestamp = testkit::START + 10 * number;
            let plan = Plan { payee: number % 5, timestamp, donation: 99, ..Plan::default() };
            let share = testkit::share_on(&mut chain, parent, &plan);
            parent = Some(share.hash());
            chain.add(share, None, f64::from(timestamp));
            chain.think(f64::from(timestamp));
            then(&mut chain);
        }
        chain
    }

    #[test]
    fn it_is_the_same_whether_the_chain_was_prepared_for_it_or_not() {
        for version in [35, 36] {
            let mut plain = grown(version, |_| ());
            let mut prepared = grown(version, |chain| {
                chain.tip();
                chain.prepare();
            });
            let target = Bits(0x1d00_ffff).target();
            assert_eq!(prepared.tip().next_share(target), plain.tip().next_share(target));
        }
    }

    #[test]
    fn a_block_of_another_target_has_the_weights_of_the_tip_where_they_fade() {
        let tip = grown(36, |_| ()).tip();
        let [one, other] = [0x1d00_ffff, 0x1c00_ffff].map(|bits| tip.next_share(Bits(bits).target()).unwrap());
        assert_ne!(one.block_target, other.block_target);
        assert!(Arc::ptr_eq(&one.weights, &other.weights), "nothing is summed again");
        let merged = |next: &NextShare| Arc::clone(&next.additions.as_ref().unwrap().merged);
        assert!(Arc::ptr_eq(&merged(&one), &merged(&other)));
    }

    #[test]
    fn it_says_the_same_after_it_was_written_and_read() {
        for version in [33, 35] {
            let network = testkit::network_of_work(24, version, 500);
            let mut chain = Sharechain::new(network);
            let mut parent = None;
            for number in 0..30 {
                let plan = Plan {
                    payee: number % 5,
                    timestamp: testkit::START + 10 * number,
                    transactions: vec![[7; 32], [8; 32]],
                    ..Plan::default()
                };
                let share = testkit::share_on(&mut chain, parent, &plan);
                parent = Some(share.hash());
                chain.add(share, None, f64::from(plan.timestamp));
                chain.think(f64::from(plan.timestamp));
            }
            let next = chain.tip().next_share(Bits(0x1d00_ffff).target()).unwrap();
            assert!(next.previous.is_some() && next.weights.by_payee.len() > 1);
            assert_eq!(next.version.lists_transactions(), !next.listed_before.is_empty());
            let read: NextShare = serde_json::from_str(&serde_json::to_string(&next).unwrap()).unwrap();
            assert_eq!(read, next);
            for payee in read.weights.by_payee.keys() {
                let (known, _) = next.weights.by_payee.get_key_value(payee).unwrap();
                assert_eq!(payee.script(read.version), known.script(next.version), "scripts are read as well");
            }
        }
    }
}
