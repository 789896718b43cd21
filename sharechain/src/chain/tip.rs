//! `Tip`: immutable snapshot of the best share and of the next share's requirements.

use std::sync::Arc;

use parking_lot::Mutex;

use super::merged_window::MergedWindowWeights;
use super::next::{NextAdditions, NextShare};
use super::retarget::Requirements;
use super::stats::OwnCounts;
use super::view::View;
use super::votes;
use super::weights::{Counting, Query, Snapshot, limit};
use super::windows::Windows;
use crate::merkle::Digest;
use crate::rules::Layout;
use crate::share::{Share, ShareHash, ShareVersion, StaleInfo, Target, Weights};

/// Windows cached by block target: the template's, and that of a block before a retarget.
const LIMITS_KEPT: usize = 4;
/// Seconds over which the pool's rate is measured for a share's expected payout (protocol section 9.4).
const RATE_SECONDS: u32 = 3600;

/// Best share and values derived from it. Cheap to create; shared as an `Arc`.
#[derive(Debug)]
pub struct Tip {
    best: Option<Arc<Share>>,
    height: u32,
    version: ShareVersion,
    /// For a block with the best share's block target; `None` while too little of the chain is known.
    next: Option<NextShare>,
    own: OwnCounts,
    rate: Option<f64>,
    punish: bool,
    query: Query,
    spread: u32,
    window: Snapshot,
    by_limit: Mutex<Vec<(Query, Arc<Weights>)>>,
}

impl Tip {
    pub(super) fn new(
        view: &View<'_>,
        windows: &mut Windows,
        best: Option<Arc<Share>>,
        stale_info: StaleInfo,
        own: OwnCounts,
        punish: bool,
    ) -> Tip {
        let parent = best.as_deref();
        let (version, desired_version) = votes::to_mine(view, parent);
        // The next block usually has the target of the last: then the weights are ready, and the next share will be
        // checked by the same ones.
        let block_target = parent.map_or(Target::BEYOND, Share::block_target);
        let query = view.window(version, parent, block_target);
        let weights = windows.payouts.weights(query, &|hash| view.entry(hash));
        let additions = match version.rules().layout {
            Layout::Classic => None,
            Layout::Merged => Some(NextAdditions {
                payout_hash: windows.payout_hash(view, parent),
                merged: windows.merged(view, parent),
            }),
        };
        let rate_shares = RATE_SECONDS / view.network.share_period.max(1);
        let statistics = super::Statistics { view: *view };
        let rate = parent
            .filter(|parent| view.all.height(parent.hash()) > rate_shares)
            .and_then(|parent| statistics.rate(parent.hash(), rate_shares.max(2)));
        let listed_before = match parent {
            Some(parent) if version.lists_transactions() => listed_before(view, parent.hash()),
            _ => Arc::default(),
        };
        let next = Requirements::after(view, parent).map(|requirements| NextShare {
            previous: parent.map(Share::hash),
            version,
            desired_version,
            has_segwit: version.has_segwit(view.network.segwit_activation_version),
            stale_info,
            requirements,
            block_target,
            weights,
            listed_before,
            additions,
            pool_rate: rate,
        });
        Tip {
            height: parent.map_or(0, |parent| view.all.height(parent.hash())),
            version,
            next,
            own,
            rate,
            punish,
            query,
            spread: view.network.spread,
            window: windows.payouts.snapshot(),
            by_limit: Mutex::default(),
            best,
        }
    }

    /// Share to build on; `None` on a fresh network.
    pub fn best(&self) -> Option<&Arc<Share>> {
        self.best.as_ref()
    }

    /// Hash of the share to build on.
    pub fn best_hash(&self) -> Option<ShareHash> {
        self.best.as_ref().map(|best| best.hash())
    }

    /// Length of the chain from the best share down.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Version of the next share.
    pub fn version(&self) -> ShareVersion {
        self.version
    }

    /// Requirements of the next share for a block of this target; `None` while too little of the chain is known.
    pub fn next_share(&self, block_target: Target) -> Option<NextShare> {
        let next = self.next.as_ref()?;
        Some(NextShare { block_target, weights: self.weights(block_target), ..next.clone() })
    }

    /// Payout weights of the next share for a block of this target. Computed once per target.
    pub fn weights(&self, block_target: Target) -> Arc<Weights> {
        let counting = match self.query.counting {
            Counting::UpTo(_) => Counting::UpTo(limit(self.spread, block_target)),
            fading @ Counting::Fading(_) => fading,
        };
        let query = Query { counting, ..self.query };
        let mut by_limit = self.by_limit.lock();
        if let Some((_, weights)) = by_limit.iter().find(|(known, _)| *known == query) {
            return Arc::clone(weights);
        }
        let weights = self.window.weights(query);
        if by_limit.len() == LIMITS_KEPT {
            by_limit.remove(0);
        }
        by_limit.push((query, Arc::clone(&weights)));
        weights
    }

    /// Weights on the merged chain for a block on the best share; `None` if the next share's version has none.
    pub fn merged_weights(&self) -> Option<&Arc<MergedWindowWeights>> {
        Some(&self.next.as_ref()?.additions.as_ref()?.merged)
    }

    /// Outcome of our own shares.
    pub fn own(&self) -> OwnCounts {
        self.own
    }

    /// The pool's hashes per second over the last hour; `None` while the chain is shorter than that.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// True if new work should overtake a punished head.
    pub fn punish(&self) -> bool {
        self.punish
    }
}

/// New transactions listed by the shares from `parent` down, as far as the next share may refer to them.
fn listed_before(view: &View<'_>, parent: ShareHash) -> Arc<[Box<[Digest]>]> {
    view.chain(parent, super::verify::TRANSACTION_SHARES_MAX)
        .map(|share| share.info().transactions.as_ref().map(|listed| listed.new_hashes.clone()).unwrap_or_default())
        .collect()
}
