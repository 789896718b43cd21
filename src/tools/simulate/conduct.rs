//! What a node does with share versions 35 and 36: as this program, as c2pool, or as an operator who goes back.

use sharechain::chain::{Ratchet, Sharechain};
use sharechain::merkle::Digest;
use sharechain::share::{Share, ShareHash, ShareInfo, ShareVersion};
use sharechain::testkit::{self, Plan, START};
use std::sync::Arc;

/// Seconds between blocks of the parent chain.
const BLOCK_PERIOD: u64 = 600;

/// Kind of behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Policy {
    /// That of this program.
    #[default]
    Strict,
    /// That of c2pool: the info of shares is not compared with what their ancestors require, and that of its own shares
    /// of version 36 is wrong (protocol-v36 traps 20 and 21).
    Lax,
    /// Makes version 35 and votes for it, whatever its peers do.
    Back,
}

/// Behaviour of a node, and its traces.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    pub(super) policy: Policy,
    /// Version that its shares vote for, if not what the chain decides.
    pub(super) voted: Option<u64>,
    /// True if the parent chain has blocks, one each of its periods. By them branches are compared that part below the
    /// shares in memory.
    pub(super) has_blocks: bool,
    /// Its shares that strict nodes refuse.
    forged: Vec<ShareHash>,
}

impl Conduct {
    /// Version that its shares vote for, if not what the chain decides.
    pub(super) fn vote(&self) -> Option<u64> {
        if self.policy == Policy::Back { Some(ShareVersion::V35.number()) } else { self.voted }
    }

    /// Block of the parent chain that shares build on at a time, in seconds since 1970.
    pub(super) fn parent_block(&self, unix: u64) -> Option<Digest> {
        self.has_blocks.then(|| block_at(height_at(unix)))
    }

    /// Learns the parent chain's newest block.
    pub(super) fn note_block(&self, chain: &mut Sharechain, unix: u64) {
        let height = height_at(unix);
        let facts = chain.facts_mut();
        if self.has_blocks && facts.best_height < height {
            facts
                .heights
                .extend((facts.best_height.max(height_at(START.into()))..=height).map(|it| (block_at(it), it)));
            facts.best_height = height;
        }
    }

    /// True if shares are taken without a check of their info.
    pub(super) fn is_lax(&self) -> bool {
        self.policy == Policy::Lax
    }

    /// Its shares that strict nodes refuse, oldest first.
    pub(super) fn forged(&self) -> &[ShareHash] {
        &self.forged
    }

    /// Sets the ratchet of a node that does not make what the chain decides.
    pub(super) fn steer(&self, chain: &mut Sharechain) {
        let best = chain.choice().best.and_then(|best| chain.share(best));
        let is_at_36 = best.is_some_and(|best| best.version() == ShareVersion::V36);
        match self.policy {
            Policy::Strict => {}
            // To its chain, no peer sent the shares that it took unchecked: the ratchet does not move on by itself.
            Policy::Lax if is_at_36 => {
                chain.set_ratchet(Ratchet::from_json(r#"{"state": "activated"}"#).unwrap_or_default());
            }
            Policy::Lax | Policy::Back => chain.set_ratchet(Ratchet::default()),
        }
    }

    /// Finds the next share on the best one.
    pub(super) fn find(&mut self, chain: &mut Sharechain, plan: &Plan) -> Arc<Share> {
        let tip = chain.tip();
        let mut info = testkit::info(chain, &tip, plan);
        let is_forged = self.is_lax() && forge(&mut info);
        let share = testkit::find(chain, &tip, plan, info);
        if is_forged {
            self.forged.push(share.hash());
        }
        share
    }
}

/// Height of the parent chain at a time, in seconds since 1970.
fn height_at(unix: u64) -> u32 {
    u32::try_from(unix / BLOCK_PERIOD).unwrap_or(u32::MAX)
}

/// Hash of the block at a height.
fn block_at(height: u32) -> Digest {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&height.to_le_bytes());
    hash
}

/// Changes the info of a share of version 36 so that only lax nodes accept the share; false for other versions.
fn forge(info: &mut ShareInfo) -> bool {
    let Some(additions) = &mut info.additions else { return false };
    // Every second one commits to no payouts, if there are any; the others claim a wrong height.
    if info.share_data.nonce.is_multiple_of(2) && additions.merged_payout_hash.is_some() {
        additions.merged_payout_hash = None;
    } else {
        info.absheight += 1;
    }
    true
}
