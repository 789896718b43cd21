//! The windows that checks and work move along the chain together.

use std::sync::Arc;

use super::merged_window::{MergedWindow, MergedWindowWeights};
use super::view::View;
use super::votes;
use super::weights::{Counting, Entry, Query, Window};
use crate::merged::DOGECOIN;
use crate::merkle::Digest;
use crate::share::{Share, ShareHash, ShareVersion, payout_hash};
use ruint::aliases::U320;

/// Windows that end at a share's parent.
#[derive(Debug)]
pub(super) struct Windows {
    /// Payout window.
    pub(super) payouts: Window,
    /// Undecayed weights of the shares that vote for version 36, by output script.
    voters: Window,
    /// The same by payee of the merged chain.
    merged: MergedWindow,
    /// Start and length of a window, and its hash.
    latest_hash: Option<(Option<ShareHash>, u32, Option<Digest>)>,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            payouts: Window::default(),
            voters: Window::default(),
            merged: MergedWindow::new(DOGECOIN),
            latest_hash: None,
        }
    }
}

impl Windows {
    /// Sums ahead for the tip that a share on `best` will be.
    pub(super) fn prepare(&mut self, view: &View<'_>, best: &Share) {
        let (version, _) = votes::to_mine(view, Some(best));
        let shares_max = view.all.height(best.hash()).saturating_add(1).min(view.network.real_chain_length);
        self.payouts.prepare(shares_max, view.counting(version, best.block_target()));
    }

    /// `merged_payout_hash` of a share after `previous` (protocol-v36 section 6.3).
    pub(super) fn payout_hash(&mut self, view: &View<'_>, previous: Option<&Share>) -> Option<Digest> {
        let start = previous.map(Share::hash);
        let shares_max = start.map_or(0, |start| view.all.height(start)).min(view.network.real_chain_length);
        if let Some((.., hash)) = self.latest_hash.filter(|(at, count, _)| (*at, *count) == (start, shares_max)) {
            return hash;
        }
        // More than any window weighs: 65535 * 2^16 shares of 2^256 attempts.
        let counting = Counting::UpTo(U320::MAX >> 1);
        let query = Query { start, shares_max, counting };
        let version = ShareVersion::V36.number();
        let look = |hash| view.share(hash).map(|share| Entry::voting(share, version));
        let hash = payout_hash(&self.voters.weights(query, &look));
        self.latest_hash = Some((start, shares_max, hash));
        hash
    }

    /// Weights on the merged chain for a share after `previous` (protocol-v36 section 8.2).
    pub(super) fn merged(&mut self, view: &View<'_>, previous: Option<&Share>) -> Arc<MergedWindowWeights> {
        self.merged.weights(view, previous.map(Share::hash))
    }
}
