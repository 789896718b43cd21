//! `Tip`: an immutable snapshot of the best share and of what the next one must carry.

use std::sync::Arc;

use parking_lot::Mutex;

use super::next::NextShare;
use super::retarget::Requirements;
use super::stats::OwnCounts;
use super::view::View;
use super::votes;
use super::weights::{Counting, Query, Snapshot, Window, limit};
use crate::merkle::Digest;
use crate::share::{Share, ShareHash, ShareVersion, StaleInfo, Target, Weights};

/// Windows kept for block targets that were asked for: the template's, and that of a block before a retarget.
const LIMITS_KEPT: usize = 4;
/// Seconds that the pool's rate is measured over, where a share's expected payout is concerned (protocol section 9.4).
const RATE_SECONDS: u32 = 3600;

/// The best share and what follows from it. Cheap to make; shared as an `Arc`.
#[derive(Debug)]
pub struct Tip {
    best: Option<Arc<Share>>,
    height: u32,
    version: ShareVersion,
    /// For blocks of the target that the best share's has; none while too little of the chain is known.
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
        window: &mut Window,
        best: Option<Arc<Share>>,
        stale_info: StaleInfo,
        own: OwnCounts,
        punish: bool,
    ) -> Tip {
        let parent = best.as_deref();
        let (version, desired_version) = votes::to_mine(view, parent);
        // Most often the next block has the target of the last: then the weights are there already, and they are those
        // that the next share will be checked by.
        let block_target = parent.map_or(Target::BEYOND, Share::block_target);
        let query = view.window(version, parent, block_target);
        let weights = window.weights(query, &|hash| view.entry(hash));
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
            window: window.snapshot(),
            by_limit: Mutex::default(),
            best,
        }
    }

    /// The share to build on; none on a fresh network.
    pub fn best(&self) -> Option<&Arc<Share>> {
        self.best.as_ref()
    }

    /// The hash of the share to build on.
    pub fn best_hash(&self) -> Option<ShareHash> {
        self.best.as_ref().map(|best| best.hash())
    }

    /// Shares from the best down.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The version of the next share.
    pub fn version(&self) -> ShareVersion {
        self.version
    }

    /// What the next share must carry if its block has this target; none while too little of the chain is known.
    pub fn next_share(&self, block_target: Target) -> Option<NextShare> {
        let next = self.next.as_ref()?;
        Some(NextShare { block_target, weights: self.weights(block_target), ..next.clone() })
    }

    /// The weights that the next share pays by, if its block has this target. Summed once for each target.
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

    /// What became of our own shares.
    pub fn own(&self) -> OwnCounts {
        self.own
    }

    /// The pool's hashes a second over the last hour; none while the chain is shorter than that.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Whether a punished head is to be overtaken.
    pub fn punish(&self) -> bool {
        self.punish
    }
}

/// What the shares from `parent` down list anew, as far as the next share may refer to it.
fn listed_before(view: &View<'_>, parent: ShareHash) -> Arc<[Box<[Digest]>]> {
    view.chain(parent, super::verify::TRANSACTION_SHARES_MAX)
        .map(|share| share.info().transactions.as_ref().map(|listed| listed.new_hashes.clone()).unwrap_or_default())
        .collect()
}
