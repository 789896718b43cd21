//! Data of the chain for peers: requested shares, stops for our own requests, and blocks among shares.

use bitcoin::hashes::{Hash, sha256d};
use std::collections::HashSet;
use std::sync::Arc;

use super::verify::coinbase_of_solved;
use super::{Sharechain, Window, verify, votes};
use crate::merkle::Digest;
use crate::share::{GenerationError, Share, ShareHash};

/// Maximum shares in one answer, without the requested shares themselves (protocol section 3.7).
const ANSWER_MAX: u64 = 1000;
/// Maximum hashes of one request that are read; each may add a share beyond [`ANSWER_MAX`].
const ASKED_MAX: usize = 1000;
/// Maximum stops of one request that are read: a hundred times as many as any node sends.
const STOPS_READ_MAX: usize = 10_000;
/// Maximum stops in our own requests.
const STOPS_MAX: usize = 100;
/// Distance of a second stop below each head: the peer may not have the head itself.
const STOP_BACK: u32 = 10;
/// A block on a parent at least this many blocks below the best one is useless.
const STALE_BLOCKS: i64 = -5;

impl Sharechain {
    /// Returns each of `hashes` and up to `parents` of its ancestors, newest first, ending before the first of `stops`;
    /// unknown hashes add nothing (protocol section 3.7), nor do shares that are not known to belong to the pool: a peer
    /// would blame this node for what another one sent (trap 42). At most 2,000 shares for any request.
    pub fn ancestry(&self, hashes: &[ShareHash], parents: u64, stops: &[ShareHash]) -> Vec<Arc<Share>> {
        let hashes = &hashes[..hashes.len().min(ASKED_MAX)];
        if hashes.is_empty() {
            return Vec::new();
        }
        let parents = parents.min(ANSWER_MAX / hashes.len() as u64);
        let count = u32::try_from(parents).unwrap_or(u32::MAX).saturating_add(1);
        let stops: HashSet<ShareHash> = stops.iter().take(STOPS_READ_MAX).copied().collect();
        let of_each =
            |hash: &ShareHash| self.view().chain(*hash, count).take_while(|share| !stops.contains(&share.hash()));
        // Below a share that belongs to the pool, all shares do.
        hashes.iter().filter(|hash| self.loose.get(hash).is_none()).flat_map(of_each).cloned().collect()
    }

    /// Stops for our own requests: heads, the best first, and a share ten below each. At most 100.
    pub fn stops(&self) -> Vec<ShareHash> {
        let best_first = self.choice.heads.iter().rev().map(|head| head.hash);
        let verified = self.verified.heads().iter().copied();
        let heads =
            self.choice.best.into_iter().chain(best_first).chain(verified).chain(self.all.heads().iter().copied());
        let mut named = HashSet::new();
        let mut stops = Vec::new();
        for head in heads {
            let back = self.all.height(head).saturating_sub(1).min(STOP_BACK);
            for stop in [Some(head), self.all.ancestor(head, back)].into_iter().flatten() {
                if stops.len() == STOPS_MAX {
                    return stops;
                }
                if named.insert(stop) {
                    stops.push(stop);
                }
            }
        }
        stops
    }

    /// Derives a share's coinbase as included in its block, as the share's check does, and the hashes of the block's
    /// other transactions if its version lists them. `None` if the share or too much of its chain is missing.
    pub fn solution_of(&mut self, hash: ShareHash) -> Option<Result<Solution, GenerationError>> {
        let share = self.share(hash).cloned()?;
        let transactions = match &share.info().transactions {
            Some(refs) => Some(verify::resolve(&self.view(), &share, refs).ok()?.into()),
            None => None,
        };
        let mut windows = std::mem::take(&mut self.windows);
        let coinbase = coinbase_of_solved(&self.view(), &mut windows.payouts, &share);
        self.windows = windows;
        Some(coinbase.map(|coinbase| Solution { coinbase: coinbase.into(), transactions }))
    }

    /// Derives the coinbase of a share without witness. `None` if the share or too much of its chain is missing: then
    /// the result would not be what the share commits to.
    pub fn stripped_coinbase(&self, hash: ShareHash) -> Option<Vec<u8>> {
        let share = self.share(hash)?;
        let coinbase = verify::stripped_coinbase(&self.view(), &mut Window::default(), share).ok()?;
        let txid: Digest = sha256d::Hash::hash(&coinbase).to_byte_array();
        (txid == *share.gentx_hash()).then_some(coinbase)
    }

    /// Full hashes of the other transactions in a share's block; empty from version 34 on, which does not list them.
    pub fn listed_transactions(&self, hash: ShareHash) -> Vec<Digest> {
        let listed = self.share(hash).and_then(|share| {
            let refs = share.info().transactions.as_ref()?;
            verify::resolve(&self.view(), share, refs).ok()
        });
        listed.unwrap_or_default()
    }

    /// True if a share's block builds on one of the latest blocks, so that it may still enter the parent chain.
    pub fn may_be_block(&self, hash: ShareHash) -> bool {
        self.share(hash).is_some_and(|share| {
            self.facts.relative_height(share.contents().min_header.previous_block.as_ref()) > STALE_BLOCKS
        })
    }

    /// Raises the minimum protocol version by the votes of a loaded chain: call once, after the first choice (protocol
    /// section 5.5). Later, checks of shares raise it, and the ratchet when it confirms a version.
    pub fn settle_minimum_protocol(&mut self) {
        let Some(best) = self.choice.best.and_then(|best| self.share(best).cloned()) else { return };
        let needed = best.version().rules().minimum_protocol;
        let is_long = self.all.height(best.hash()) > self.network.chain_length;
        if self.minimum_protocol < needed
            && is_long
            && votes::may_raise_protocol(&self.view(), best.version())
            && votes::window(&self.view(), &best).is_some_and(|votes| votes.settle(best.version()))
        {
            self.minimum_protocol = needed;
            self.events.push_back(super::Event::MinimumProtocol(needed));
        }
    }
}

/// Data for building a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solution {
    /// Coinbase, with witness if the share has segwit data.
    pub coinbase: Arc<[u8]>,
    /// Other transactions, by full hash.
    pub transactions: Option<Arc<[Digest]>>,
}
