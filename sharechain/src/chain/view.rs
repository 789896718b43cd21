//! What the rules may look at: the shares that are known, and what is known of the parent chain.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::forest::Forest;
use super::weights::{Counting, Entry, Fading, Query, limit};
use crate::coin::Network;
use crate::map::Map;
use crate::merkle::Digest;
use crate::rules::{Weighing, WindowStart};
use crate::share::{Share, ShareHash, ShareRules, ShareVersion, Target};

/// Height that a block of unknown height counts as: very deep (protocol section 8.3).
const UNKNOWN_HEIGHT: u32 = 0;
/// Size and weight of a coinbase as long as none of its share version was seen (protocol section 4.8).
const COINBASE_BEFORE_ANY: CoinbaseSize = CoinbaseSize { size: 50_000, weight: 200_000 };

/// A share and how it came.
#[derive(Debug, Clone)]
pub struct KnownShare {
    /// The share.
    pub share: Arc<Share>,
    /// When it came first, seconds since 1970; 0 for shares from the store, which so win over later ones.
    pub first_seen: f64,
    /// The peer that sent it; none for our own and for the store's.
    pub source: Option<SocketAddr>,
    /// 0, or how many generations ago an ancestor (1: itself) took too large a reward (protocol section 5.6).
    pub naughty: u8,
}

/// A transaction that some template had, as share versions that list their transactions are judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownTransaction {
    /// Base units, if a template said.
    pub fee: Option<u64>,
    /// Bytes without witness, which is all that the reference counts (vectors' README).
    pub stripped_size: u32,
}

/// What a coinbase adds to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoinbaseSize {
    /// Bytes without witness.
    pub size: u64,
    /// Weight as the reference counts it: four times that.
    pub weight: u64,
}

/// The parent chain, as plain data: whoever owns the share chain keeps it up to date.
#[derive(Debug, Clone, Default)]
pub struct ParentFacts {
    /// Heights of blocks that shares build on; the missing are asked for by
    /// [`Sharechain::wanted_heights`](super::Sharechain::wanted_heights).
    pub heights: HashMap<Digest, u32>,
    /// The greatest height seen.
    pub best_height: u32,
    /// Transactions of the latest templates, by the hash over all of their bytes.
    pub transactions: HashMap<Digest, KnownTransaction>,
}

impl ParentFacts {
    /// The height of a block, 0 if it is not known.
    pub fn height(&self, block: Option<&Digest>) -> u32 {
        block.and_then(|block| self.heights.get(block).copied()).unwrap_or(UNKNOWN_HEIGHT)
    }

    /// How far above the best block a block is: 0 or less.
    pub fn relative_height(&self, block: Option<&Digest>) -> i64 {
        i64::from(self.height(block)) - i64::from(self.best_height)
    }
}

/// Everything that a rule may look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) network: &'a Network,
    pub(super) rules: &'a ShareRules,
    pub(super) all: &'a Forest,
    pub(super) known: &'a Map<ShareHash, KnownShare>,
    pub(super) facts: &'a ParentFacts,
    pub(super) coinbase_sizes: &'a HashMap<ShareVersion, CoinbaseSize>,
}

impl<'a> View<'a> {
    pub(super) fn share(&self, hash: ShareHash) -> Option<&'a Arc<Share>> {
        self.known.get(&hash).map(|known| &known.share)
    }

    pub(super) fn entry(&self, hash: ShareHash) -> Option<Entry> {
        self.share(hash).map(|share| Entry::of(share))
    }

    /// From `hash` down, at most `count` shares.
    pub(super) fn chain(&self, hash: ShareHash, count: u32) -> impl Iterator<Item = &'a Arc<Share>> + use<'a> {
        let known = self.known;
        std::iter::successors(known.get(&hash), move |below| known.get(&below.share.previous()?))
            .take(usize::try_from(count).unwrap_or(usize::MAX))
            .map(|known| &known.share)
    }

    /// The payout window of a share of `version` after `previous` whose block has this target.
    pub(super) fn window(&self, version: ShareVersion, previous: Option<&Share>, block_target: Target) -> Query {
        let height = previous.map_or(0, |previous| self.all.height(previous.hash()));
        let length = height.min(self.network.real_chain_length);
        let (start, shares_max) = match version.rules().window {
            WindowStart::Grandparent => (previous.and_then(Share::previous), length.saturating_sub(1)),
            WindowStart::Parent => (previous.map(Share::hash), length),
        };
        Query { start, shares_max, counting: self.counting(version, block_target) }
    }

    /// How much the shares of a window count that pays for a share of `version` whose block has this target.
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

/// What `share` needs to know of `network`.
pub fn share_rules(network: &Network) -> ShareRules {
    ShareRules {
        identifier: network.identifier,
        max_target: network.max_target.into(),
        segwit_activation_version: network.segwit_activation_version,
        address_version: network.parent.address_version,
        address_p2sh_version: network.parent.address_p2sh_version,
        human_readable_part: network.parent.human_readable_part.to_owned(),
        pow: network.parent.pow.function(),
        // P2Pool's guard names the network, not its constants (section 5.1 step 5).
        no_votes_for_16_above: (network.name == "bitcoin").then_some(3_927_800),
    }
}
