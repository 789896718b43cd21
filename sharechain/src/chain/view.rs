//! Input of the rules: known shares, and known facts about the parent chain.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::forest::Forest;
use super::ratchet::Ratchet;
use super::weights::{Counting, Entry, Fading, Query, limit};
use crate::coin::Network;
use crate::map::Map;
use crate::merged::FirstSeen;
use crate::merkle::Digest;
use crate::rules::{Weighing, WindowStart};
use crate::share::{Share, ShareHash, ShareRules, ShareVersion, Target};

/// Height assumed for a block of unknown height: very deep (protocol section 8.3).
const UNKNOWN_HEIGHT: u32 = 0;
/// Assumed size and weight of a coinbase until one of its share version was seen (protocol section 4.8).
const COINBASE_BEFORE_ANY: CoinbaseSize = CoinbaseSize { size: 50_000, weight: 200_000 };

/// A share and its arrival data.
#[derive(Debug, Clone)]
pub struct KnownShare {
    /// The share itself.
    pub share: Arc<Share>,
    /// Time of first arrival, seconds since 1970; 0 for shares from the store, which thus win over later ones.
    pub first_seen: f64,
    /// Peer that sent it; `None` for our own shares and those from the store.
    pub source: Option<SocketAddr>,
    /// 0, or the number of generations since an ancestor (1: itself) took too large a reward (protocol section 5.6).
    pub naughty: u8,
}

/// A transaction from a template, for checking share versions that list their transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownTransaction {
    /// Fee in base units, if a template stated it.
    pub fee: Option<u64>,
    /// Bytes without witness, which is all that the reference counts (vectors' README).
    pub stripped_size: u32,
}

/// Size that a coinbase adds to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoinbaseSize {
    /// Bytes without witness.
    pub size: u64,
    /// Weight as the reference counts it: four times that.
    pub weight: u64,
}

/// Facts about the parent chain as plain data; the owner of the share chain keeps them up to date.
#[derive(Debug, Clone, Default)]
pub struct ParentFacts {
    /// Heights of blocks that shares build on; missing ones are requested by
    /// [`Sharechain::wanted_heights`](super::Sharechain::wanted_heights).
    pub heights: HashMap<Digest, u32>,
    /// Greatest height seen.
    pub best_height: u32,
    /// Transactions of the latest templates, by full hash.
    pub transactions: HashMap<Digest, KnownTransaction>,
}

impl ParentFacts {
    /// Height of a block, 0 if unknown.
    pub fn height(&self, block: Option<&Digest>) -> u32 {
        block.and_then(|block| self.heights.get(block).copied()).unwrap_or(UNKNOWN_HEIGHT)
    }

    /// Height of a block relative to the best block: 0 or less.
    pub fn relative_height(&self, block: Option<&Digest>) -> i64 {
        i64::from(self.height(block)) - i64::from(self.best_height)
    }
}

/// Complete input of a rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) network: &'a Network,
    pub(super) rules: &'a ShareRules,
    pub(super) all: &'a Forest,
    pub(super) known: &'a Map<ShareHash, KnownShare>,
    pub(super) facts: &'a ParentFacts,
    pub(super) coinbase_sizes: &'a HashMap<ShareVersion, CoinbaseSize>,
    pub(super) first_seen: &'a FirstSeen,
    pub(super) ratchet: Option<&'a Ratchet>,
}

impl<'a> View<'a> {
    pub(super) fn share(&self, hash: ShareHash) -> Option<&'a Arc<Share>> {
        self.known.get(&hash).map(|known| &known.share)
    }

    pub(super) fn entry(&self, hash: ShareHash) -> Option<Entry> {
        self.share(hash).map(|share| Entry::of(share))
    }

    /// Iterates from `hash` down over at most `count` shares.
    pub(super) fn chain(&self, hash: ShareHash, count: u32) -> impl Iterator<Item = &'a Arc<Share>> + use<'a> {
        let known = self.known;
        std::iter::successors(known.get(&hash), move |below| known.get(&below.share.previous()?))
            .take(usize::try_from(count).unwrap_or(usize::MAX))
            .map(|known| &known.share)
    }

    /// Payout window of a share of `version` after `previous`, for a block of this target.
    pub(super) fn window(&self, version: ShareVersion, previous: Option<&Share>, block_target: Target) -> Query {
        let height = previous.map_or(0, |previous| self.all.height(previous.hash()));
        let length = height.min(self.network.real_chain_length);
        let (start, shares_max) = match version.rules().window {
            WindowStart::Grandparent => (previous.and_then(Share::previous), length.saturating_sub(1)),
            WindowStart::Parent => (previous.map(Share::hash), length),
        };
        Query { start, shares_max, counting: self.counting(version, block_target) }
    }

    /// Counting of a window's shares, for a share of `version` and a block of this target.
    pub(super) fn counting(&self, version: ShareVersion, block_target: Target) -> Counting {
        match version.rules().weighing {
            Weighing::UpToBlocks => Counting::UpTo(limit(self.network.spread, block_target)),
            Weighing::Halving { parts } => {
                Counting::Fading(Fading::with_half_life((self.network.chain_length / parts).max(1)))
            }
        }
    }

    pub(super) fn coinbase_size(&self, version: ShareVersion) -> CoinbaseSize {
        self.coinbase_sizes.get(&version).copied().unwrap_or(COINBASE_BEFORE_ANY)
    }
}

/// Extracts the rules that `share` needs from `network`.
pub fn share_rules(network: &Network) -> ShareRules {
    ShareRules {
        identifier: network.identifier,
        max_target: network.max_target.into(),
        segwit_activation_version: network.segwit_activation_version,
        newest_version: network.newest_version,
        address_version: network.parent.address_version,
        address_p2sh_version: network.parent.address_p2sh_version,
        human_readable_part: network.parent.human_readable_part.to_owned(),
        pow: network.parent.pow.function(),
        // P2Pool's guard names the network, not its constants (section 5.1 step 5).
        no_votes_for_16_above: (network.name == "bitcoin").then_some(3_927_800),
    }
}
