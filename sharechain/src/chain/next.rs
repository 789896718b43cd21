//! `NextShare`: what the next share must carry and pay by, as plain data, for those who make work.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::retarget::Requirements;
use super::verify::canonical_refs;
use crate::merkle::Digest;
use crate::share::{ShareHash, ShareVersion, StaleInfo, Target, TransactionRefs, Weights};

/// What the next share must carry, and what its block pays by if that has the target `block_target`.
///
/// Everything of the pool that work is made of, and nothing else: without locks or functions, so that it can be sent to
/// where work is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextShare {
    /// The share to build on; none on a fresh network.
    pub previous: Option<ShareHash>,
    /// Its version.
    pub version: ShareVersion,
    /// The version that it votes for.
    pub desired_version: u64,
    /// Whether it carries segwit data.
    pub has_segwit: bool,
    /// What it should announce of our own shares before it.
    pub stale_info: StaleInfo,
    /// What follows from its parent.
    pub requirements: Requirements,
    /// The block target that the weights are for.
    pub block_target: Target,
    /// What its block pays by.
    pub weights: Arc<Weights>,
    /// Transactions that the shares before it listed, from the parent down; none where its version lists none.
    pub listed_before: Arc<[Box<[Digest]>]>,
    /// The pool's hashes a second over the last hour; none while the chain is shorter than that.
    pub pool_rate: Option<f64>,
}

impl NextShare {
    /// How it lists a block's other transactions, of these full hashes (protocol section 5.3); none from version 34 on.
    pub fn transactions(&self, hashes: impl FnOnce() -> Vec<Digest>) -> Option<TransactionRefs> {
        self.version
            .lists_transactions()
            .then(|| canonical_refs(self.listed_before.iter().map(|listed| &**listed), &hashes()))
    }

    /// The time that it bears if it would like to bear `desired`, in seconds since 1970; none if no share can follow any
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
