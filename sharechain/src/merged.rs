//! Merged mining: work of other chains, and the one commitment to all of it in a parent block's coinbase (protocol
//! section 9.8).
//!
//! Each chain has a slot in a merkle tree, derived from its number, so that a proof of work cannot stand for two blocks
//! of one chain. The coinbase holds the tree's root; a chain's proof is the branch from its block's hash to that root.
//!
//! From share version 36 on, a merged chain's coinbase can pay the window's miners, and shares prove that it does: the
//! folder's files derive and check it (protocol-v36 section 8).

mod coinbase;
mod first_seen;
mod payee;
mod script_kinds;
mod verify;

pub use coinbase::{MergedOutputs, canonical_coinbase, canonical_script};
pub use first_seen::{FIRST_SEEN_BYTES_MAX, FirstSeen};
pub use payee::{MergedKey, MergedWeights, ShareKey, converted, key_of};
pub use verify::{MergedCoinbaseError, verify};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::merkle::{self, Digest};
use crate::share::Target;

/// Number of Dogecoin, the only merged chain whose payouts shares prove.
pub const DOGECOIN: u32 = 98;

/// First bytes of the commitment in a coinbase script.
pub const COMMITMENT_HEAD: [u8; 4] = [0xfa, 0xbe, 0x6d, 0x6d];

/// Bytes of a commitment: head, root, tree size, and a nonce of 0.
pub const COMMITMENT_BYTES: usize = 4 + 32 + 4 + 4;

/// Maximum depth of the tree accepted by the daemons of merged chains.
const LEVELS_MAX: u32 = 30;

/// Target for the parent block's proof of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergedTarget {
    /// The chain's own.
    Own(Target),
    /// The same as the share's: every share is a block (`"target": "p2pool"`, protocol section 9.8).
    Share,
}

impl MergedTarget {
    /// Target for a share-to-be with the target `share`.
    pub fn of(self, share: Target) -> Target {
        match self {
            Self::Own(target) => target,
            Self::Share => share,
        }
    }
}

/// Next block of a merged chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedBlock {
    /// Name of the chain, for display.
    pub chain: Arc<str>,
    /// Number of the chain.
    pub chain_id: u32,
    /// Hash of the block, a raw digest.
    pub hash: Digest,
    /// Target for the parent block's proof of work.
    pub target: MergedTarget,
    /// Hash of its parent in its own chain, a raw digest; zeros if its daemon does not give it.
    pub previous_block: Digest,
    /// Height in its own chain.
    pub height: u32,
    /// What its coinbase pays, in the chain's base units; `None` if its daemon does not give it.
    pub value: Option<u64>,
    /// Payee of its coinbase, for display: an address, or the daemon's wallet.
    pub payee: Arc<str>,
}

impl MergedBlock {
    /// Returns the hash as daemons write it: big-endian hex.
    pub fn hash_in_hex(&self) -> String {
        let mut digits = self.hash;
        digits.reverse();
        hex::encode(digits)
    }
}

/// Position of a block's hash in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Slot, from 0.
    pub index: u32,
    /// Siblings on the path to the root.
    pub branch: Vec<Digest>,
}

/// Reasons why chains cannot be mined together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MergedError {
    /// Two chains with the same number.
    #[error("two merged chains have the chain number {0}: each can be mined once")]
    SameChain(u32),
    /// No tree that daemons accept has a separate slot for each chain.
    #[error("these merged chains' numbers have no slots of their own in a tree of {LEVELS_MAX} levels: leave one out")]
    NoSlots,
}

/// Snapshot of the next blocks of any number of merged chains. Plain data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<MergedBlock>", into = "Vec<MergedBlock>")]
pub struct MergedWork {
    blocks: Vec<MergedBlock>,
    levels: u32,
    places: Vec<Place>,
    root: Digest,
}

impl MergedWork {
    /// Creates the work for all of `blocks`.
    ///
    /// # Errors
    /// [`MergedError`].
    pub fn new(blocks: Vec<MergedBlock>) -> Result<Self, MergedError> {
        let mut ids = BTreeSet::new();
        if let Some(twice) = blocks.iter().find(|block| !ids.insert(block.chain_id)) {
            return Err(MergedError::SameChain(twice.chain_id));
        }
        let slots = |levels: u32| -> Option<Vec<u32>> {
            let slots: Vec<u32> = blocks.iter().map(|block| slot(block.chain_id, levels)).collect();
            let distinct: BTreeSet<u32> = slots.iter().copied().collect();
            (distinct.len() == slots.len()).then_some(slots)
        };
        let found = (0..=LEVELS_MAX).find_map(|levels| Some((levels, slots(levels)?)));
        let (levels, slots) = found.ok_or(MergedError::NoSlots)?;
        let leaves = slots.iter().copied().zip(blocks.iter().map(|block| block.hash)).collect();
        let (root, places) = climb(leaves, &slots, levels);
        Ok(Self { blocks, levels, places, root })
    }

    /// Blocks, in the order given.
    pub fn blocks(&self) -> &[MergedBlock] {
        &self.blocks
    }

    /// Position in the tree of the block at `index` of [`blocks`](Self::blocks).
    pub fn place(&self, index: usize) -> Option<&Place> {
        self.places.get(index)
    }

    /// Proof of work (`CAuxPow`) of the block at `index`, for its daemon: the parent's `coinbase` without witness, the
    /// merkle branch from it to the root in the parent's `header`, and the branch from the block to the commitment.
    /// `None` if there is no such block.
    ///
    /// The field for the parent block's hash is filled as the reference does, though verifiers ignore it (protocol
    /// section 9.8).
    pub fn proof(&self, index: usize, coinbase: &[u8], branch: &[Digest], header: &[u8; 80]) -> Option<Vec<u8>> {
        let place = self.places.get(index)?;
        let mut proof = Vec::with_capacity(coinbase.len() + 32 * (2 + branch.len() + place.branch.len()) + 80);
        proof.extend_from_slice(coinbase);
        proof.extend_from_slice(&Sha256::digest(Sha256::digest(header)));
        // The coinbase is the first transaction.
        push_link(&mut proof, branch, 0);
        push_link(&mut proof, &place.branch, place.index);
        proof.extend_from_slice(header);
        Some(proof)
    }

    /// Commitment in the parent's coinbase script, once and directly after the height; `None` without chains.
    pub fn commitment(&self) -> Option<[u8; COMMITMENT_BYTES]> {
        if self.blocks.is_empty() {
            return None;
        }
        let mut commitment = [0; COMMITMENT_BYTES];
        commitment[..4].copy_from_slice(&COMMITMENT_HEAD);
        commitment[4..36].copy_from_slice(&self.root);
        commitment[4..36].reverse();
        commitment[36..40].copy_from_slice(&(1_u32 << self.levels).to_le_bytes());
        Some(commitment)
    }
}

impl TryFrom<Vec<MergedBlock>> for MergedWork {
    type Error = MergedError;

    fn try_from(blocks: Vec<MergedBlock>) -> Result<Self, MergedError> {
        Self::new(blocks)
    }
}

impl From<MergedWork> for Vec<MergedBlock> {
    fn from(work: MergedWork) -> Self {
        work.blocks
    }
}

/// Appends a merkle link: its length as one byte, since no tree has more than 32 levels, the siblings, and the position.
fn push_link(proof: &mut Vec<u8>, branch: &[Digest], index: u32) {
    proof.push(u8::try_from(branch.len()).expect("a tree of 2^32 leaves at most"));
    branch.iter().for_each(|sibling| proof.extend_from_slice(sibling));
    proof.extend_from_slice(&index.to_le_bytes());
}

/// Slot of a chain in a tree of `levels`: a fixed step of a linear congruential generator, seeded with the commitment's
/// nonce, which is 0.
fn slot(chain_id: u32, levels: u32) -> u32 {
    const FACTOR: u32 = 1_103_515_245;
    const STEP: u32 = 12_345;
    // Sizes are powers of two, so reducing modulo 2^32 first changes nothing.
    let number = STEP.wrapping_mul(FACTOR).wrapping_add(STEP).wrapping_add(chain_id.wrapping_mul(FACTOR));
    number & ((1 << levels) - 1)
}

/// Returns the root of a tree whose empty leaves are 0, and the path to it from each of `slots`. The cost depends on
/// the used slots, not on the tree's size.
fn climb(leaves: BTreeMap<u32, Digest>, slots: &[u32], levels: u32) -> (Digest, Vec<Place>) {
    let mut places: Vec<Place> = slots.iter().map(|slot| Place { index: *slot, branch: Vec::new() }).collect();
    let (mut level, mut empty) = (leaves, [0; 32]);
    for height in 0..levels {
        let at = |level: &BTreeMap<u32, Digest>, index: u32| level.get(&index).copied().unwrap_or(empty);
        for place in &mut places {
            place.branch.push(at(&level, (place.index >> height) ^ 1));
        }
        let parents: BTreeSet<u32> = level.keys().map(|index| index >> 1).collect();
        level = parents
            .into_iter()
            .map(|parent| (parent, merkle::node(&at(&level, parent << 1), &at(&level, parent << 1 | 1))))
            .collect();
        empty = merkle::node(&empty, &empty);
    }
    (level.get(&0).copied().unwrap_or(empty), places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(chain_id: u32) -> MergedBlock {
        let mut hash = [7; 32];
        hash[..4].copy_from_slice(&chain_id.to_le_bytes());
        MergedBlock {
            chain: format!("chain {chain_id}").into(),
            chain_id,
            hash,
            target: MergedTarget::Own(Target::MAX_256),
            previous_block: [1; 32],
            height: 7,
            value: Some(100),
            payee: "an address".into(),
        }
    }

    fn root_of(place: &Place, hash: Digest) -> Digest {
        place.branch.iter().enumerate().fold(hash, |below, (height, sibling)| {
            if place.index >> height & 1 == 0 { merkle::node(&below, sibling) } else { merkle::node(sibling, &below) }
        })
    }

    proptest! {
        #[test]
        fn every_block_leads_to_the_root_that_the_coinbase_holds(ids in proptest::collection::btree_set(any::<u32>(), 1..20)) {
            let Ok(work) = MergedWork::new(ids.iter().copied().map(block).collect()) else { return Ok(()) };
            let commitment = work.commitment().unwrap();
            let mut root: Digest = commitment[4..36].try_into().unwrap();
            root.reverse();
            let mut seen = BTreeSet::new();
            for (index, block) in work.blocks().iter().enumerate() {
                let place = work.place(index).unwrap();
                prop_assert_eq!(root_of(place, block.hash), root);
                prop_assert!(seen.insert(place.index), "one slot is one chain's");
            }
            let written = serde_json::to_string(&work).unwrap();
            prop_assert_eq!(serde_json::from_str::<MergedWork>(&written).unwrap(), work);
        }
    }

    #[test]
    fn one_chain_cannot_be_mined_twice() {
        assert_eq!(MergedWork::new(vec![block(5), block(98), block(5)]), Err(MergedError::SameChain(5)));
    }

    #[test]
    fn numbers_that_collide_in_every_tree_are_refused_at_once() {
        assert_eq!(MergedWork::new(vec![block(1), block(1 + (1 << 31))]), Err(MergedError::NoSlots));
    }

    #[test]
    fn without_chains_a_coinbase_holds_nothing_of_them() {
        assert_eq!(MergedWork::default().commitment(), None);
        assert_eq!(MergedWork::new(Vec::new()), Ok(MergedWork::default()));
    }
}
