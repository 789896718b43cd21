//! `Tip`: an immutable snapshot of the best share and of what the next one must carry, for whoever makes work.

use std::sync::Arc;

use parking_lot::Mutex;

use super::retarget::Next;
use super::stats::OwnCounts;
use super::verify::canonical_refs;
use super::view::View;
use super::votes;
use super::weights::{Counting, Query, Snapshot, Window, limit};
use crate::merkle::Digest;
use crate::share::{Bits, Share, ShareHash, ShareVersion, StaleInfo, Target, TransactionRefs, Weights};

/// Windows kept for block targets that were asked for: the template's, and that of a block before a retarget.
const LIMITS_KEPT: usize = 4;
/// Seconds that the pool's rate is measured over, where a share's expected payout is concerned (protocol section 9.4).
const RATE_SECONDS: u32 = 3600;

/// The best share and what follows from it. Cheap to make; shared as an `Arc`.
#[derive(Debug)]
pub struct Tip {
    best: Option<Arc<Share>>,
    next: Option<Next>,
    version: ShareVersion,
    desired_version: u64,
    has_segwit: bool,
    stale_info: StaleInfo,
    own: OwnCounts,
    rate: Option<f64>,
    punish: bool,
    query: Query,
    spread: u32,
    window: Snapshot,
    by_limit: Mutex<Vec<(Query, Arc<Weights>)>>,
    listed_before: Vec<Box<[Digest]>>,
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
        window.weights(query, &|hash| view.entry(hash));
        let rate_shares = RATE_SECONDS / view.network.share_period.max(1);
        let statistics = super::Statistics { view: *view };
        let rate = parent
            .filter(|parent| view.all.height(parent.hash()) > rate_shares)
            .and_then(|parent| statistics.rate(parent.hash(), rate_shares.max(2)));
        let listed_before = match parent {
            Some(parent) if version.lists_transactions() => listed_before(view, parent.hash()),
            _ => Vec::new(),
        };
        Tip {
            next: Next::after(view, parent),
            version,
            desired_version,
            has_segwit: version.has_segwit(view.network.segwit_activation_version),
            stale_info,
            own,
            rate,
            punish,
            query,
            spread: view.network.spread,
            window: window.snapshot(),
            by_limit: Mutex::default(),
            listed_before,
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
        self.next.as_ref().map_or(0, |next| next.height)
    }

    /// What the next share must carry; none while too little of the chain is known.
    pub fn next(&self) -> Option<&Next> {
        self.next.as_ref()
    }

    /// The version of the next share.
    pub fn version(&self) -> ShareVersion {
        self.version
    }

    /// Whether the next share carries segwit data.
    pub fn has_segwit(&self) -> bool {
        self.has_segwit
    }

    /// The version that it votes for.
    pub fn desired_version(&self) -> u64 {
        self.desired_version
    }

    /// `max_bits` of the next share, and its `bits` if it would like the target `desired`.
    pub fn retarget(&self, desired: Target) -> Option<(Bits, Bits)> {
        self.next.as_ref().map(|next| next.targets(desired))
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

    /// What the next share of our own should announce of those before.
    pub fn stale_info(&self) -> StaleInfo {
        self.stale_info
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

    /// How a share before version 34 lists these transactions (protocol section 5.3); none from then on.
    pub fn transactions(&self, hashes: impl FnOnce() -> Vec<Digest>) -> Option<TransactionRefs> {
        self.version
            .lists_transactions()
            .then(|| canonical_refs(self.listed_before.iter().map(|listed| &**listed), &hashes()))
    }
}

fn listed_before(view: &View<'_>, parent: ShareHash) -> Vec<Box<[Digest]>> {
    view.chain(parent, super::verify::TRANSACTION_SHARES_MAX)
        .map(|share| share.info().transactions.as_ref().map(|listed| listed.new_hashes.clone()).unwrap_or_default())
        .collect()
}
