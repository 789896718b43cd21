//! `PoolView`: display data of a pool - its chain's shape, payouts, recent shares, votes - as plain data.
//!
//! ```text
//!  Sharechain ── look (bounded, on its owner's side) ──▶ Looked ── view (elsewhere) ──▶ PoolView
//! ```

mod announcements;
mod look;
mod versions;

pub use announcements::Announcement;
pub use look::{Carried, Looked, NextBlock, look};
pub use versions::{MergedPayee, Versions, VoteCount};

use std::collections::BTreeMap;
use std::sync::Arc;

use ruint::aliases::U320;
use serde::{Deserialize, Serialize};

use super::score::ratio;
use super::stats::{OwnCounts, PayeeStales, StaleCounts, payouts, stales_by_payee};
use crate::share::{Attempts, Payee, Share, ShareHash, ShareVersion, StaleInfo, Target, height_of, whole_payee};

/// Number of shares over which the reference computes its rates.
pub const STRETCH: u32 = 720;

/// Generations of shares in the drawing.
pub const DRAWN_GENERATIONS: u32 = 300;

/// Maximum number of shares in the drawing, forks included.
pub const DRAWN_MAX: usize = 900;

/// State of a pool as shown by its share chain. Plain data, bounded, without locks or functions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolView {
    /// Share to build on.
    pub best: Option<ShareHash>,
    /// Version of `best`, whose rules say how a block is paid now; `None` without shares.
    pub version: Option<ShareVersion>,
    /// Length of the chain from `best` down.
    pub height: u32,
    /// Height of `best` above the chain's first share.
    pub absolute_height: u32,
    /// Easiest target allowed for `best`.
    pub max_target: Option<Target>,
    /// Shares in memory.
    pub shares: usize,
    /// Shares in memory that fit their ancestors.
    pub verified: usize,
    /// Shares without children.
    pub heads: Vec<ShareHash>,
    /// Verified shares without verified children.
    pub verified_heads: Vec<ShareHash>,
    /// Lowest share of each chain.
    pub tails: Vec<ShareHash>,
    /// Lowest share of each verified chain.
    pub verified_tails: Vec<ShareHash>,
    /// Shares found by this node's miners since it started.
    pub own: Vec<ShareHash>,
    /// Outcome of these shares.
    pub own_counts: OwnCounts,
    /// Those of them in the chain's last hour.
    pub own_in_hour: OwnInHour,
    /// Target of each payee's last own share in the chain.
    pub own_targets: Vec<PayeeTarget>,
    /// The last hour's shares, as far as present; `None` for fewer than two.
    pub hour: Option<Measured>,
    /// The last [`STRETCH`] shares, as far as present.
    pub stretch: Option<Measured>,
    /// Work by share version voted for, over the last hour.
    pub votes: BTreeMap<u64, U320>,
    /// Work of the chain, in blocks.
    pub blocks_expected: f64,
    /// Shares of the chain that solved their blocks, newest first.
    pub blocks: Vec<SolvedBlock>,
    /// The last [`DRAWN_GENERATIONS`] generations with their forks, newest first.
    pub recent: Vec<RecentShare>,
    /// Each payee's part of the work of the last [`STRETCH`] shares.
    pub users: Vec<PayeePart>,
    /// Shares found and lost by each payee of the whole chain, over all shares kept.
    pub stales: Vec<PayeeLoss>,
    /// Each payee's amount if a block were found now, including the donation address, without the finder's part. Empty
    /// if no block is being mined.
    pub payouts: Vec<PayeeAmount>,
    /// Share versions of the newest shares, their votes, and the ratchet.
    pub versions: Versions,
    /// Where the payees of `payouts` are paid on the network's merged chain, as far as it can pay them.
    pub merged_payees: Vec<MergedPayee>,
    /// Messages of the authorities that the newest shares carry, the newest first.
    pub announcements: Vec<Announcement>,
}

/// A stretch of the best chain, from its end down.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Number of shares.
    pub shares: u32,
    /// Hashes per second of the shares in the chain.
    pub rate: f64,
    /// Part of the work that was lost, 0 to 1, as announced by miners.
    pub stale_proportion: f64,
    /// Work by announced fate, without the newest share's.
    pub counts: StaleCounts,
    /// Duration in seconds.
    pub seconds: u32,
}

/// Our shares in the chain's last hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnInHour {
    /// Number of shares.
    pub shares: u32,
    /// Shares that announce an orphan.
    pub orphan: u32,
    /// Shares that announce one that was dead on arrival.
    pub dead: u32,
    /// Work of the shares, without the hour's oldest.
    pub work: Attempts,
}

/// Target of one of a payee's shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayeeTarget {
    /// Address with its scripts.
    #[serde(with = "whole_payee")]
    pub payee: Payee,
    /// Target of the share.
    pub target: Target,
}

/// A payee's part of the pool's work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PayeePart {
    /// Address with its scripts.
    #[serde(with = "whole_payee")]
    pub payee: Payee,
    /// Part of the work, 0 to 1.
    pub part: f64,
}

/// A payee's lost shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayeeLoss {
    /// Address with its scripts.
    #[serde(with = "whole_payee")]
    pub payee: Payee,
    /// Lost and total shares, as announced.
    pub stales: PayeeStales,
}

/// A payee's amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayeeAmount {
    /// Address with its scripts.
    #[serde(with = "whole_payee")]
    pub payee: Payee,
    /// Amount in base units (satoshis).
    pub amount: u64,
}

/// Share that solved its block, by the target claimed in its header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SolvedBlock {
    /// Time of the share as claimed, seconds since 1970.
    pub time: u32,
    /// Hash of the share, which is also its block's.
    pub hash: ShareHash,
    /// Height of the block, from the start of its coinbase.
    pub height: Option<u32>,
    /// Payee of the share.
    #[serde(with = "whole_payee")]
    pub payee: Payee,
    /// True if miners of this node found it.
    pub is_own: bool,
}

/// Share in the drawing of the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct RecentShare {
    /// Hash of the share.
    pub hash: ShareHash,
    /// Hash of its parent.
    pub parent: Option<ShareHash>,
    /// Height above the chain's first share.
    pub height: u32,
    /// Time of the share as claimed, seconds since 1970.
    pub time: u32,
    /// Time of first arrival, seconds since 1970; 0 if it was loaded from disk.
    pub seen: f64,
    /// Payee of the share.
    #[serde(with = "whole_payee")]
    pub payee: Payee,
    /// Target of the share.
    pub target: Target,
    /// Announcement of the miner's lost share.
    pub stale_info: StaleInfo,
    /// True if it fits its ancestors.
    pub is_verified: bool,
    /// True if it is in the best chain.
    pub in_best_chain: bool,
    /// True if miners of this node found it.
    pub is_own: bool,
    /// True if it solves its block.
    pub is_block: bool,
}

impl Looked {
    /// Computes the view, and returns the state for the next snapshot. Walks the whole best chain: better done outside
    /// the chain's owner.
    pub fn view(mut self) -> (PoolView, Carried) {
        let Carried { chain, messages, .. } = &mut self.carried;
        let announcements = messages.update(chain.iter());
        let payouts = self.payouts();
        let view = PoolView {
            versions: Versions::count(self.carried.chain.iter(), self.network.chain_length, self.ratchet),
            merged_payees: self.merged_payees(&payouts),
            announcements,
            own_in_hour: self.own_in_hour(),
            own_targets: self.own_targets(),
            blocks_expected: self.carried.counted().map(blocks_worth).sum(),
            blocks: self.blocks(),
            users: self.users(),
            stales: self.stales(),
            payouts,
            best: self.carried.chain.front().map(|best| best.hash()),
            version: self.carried.chain.front().map(|best| best.version()),
            height: self.height,
            absolute_height: self.carried.chain.front().map_or(0, |best| best.absheight()),
            max_target: self.carried.chain.front().map(|best| best.max_target()),
            shares: self.shares,
            verified: self.verified,
            heads: self.heads,
            verified_heads: self.verified_heads,
            tails: self.tails,
            verified_tails: self.verified_tails,
            own: self.own.into_iter().collect(),
            own_counts: self.own_counts,
            hour: self.hour,
            stretch: self.stretch,
            votes: self.votes,
            recent: self.recent,
        };
        (view, self.carried)
    }

    fn is_own(&self, share: &Share) -> bool {
        self.own.contains(&share.hash())
    }

    fn own_in_hour(&self) -> OwnInHour {
        let Some(measured) = self.hour else { return OwnInHour::default() };
        let count = usize::try_from(measured.shares).unwrap_or(usize::MAX);
        let mut hour = OwnInHour::default();
        for (index, share) in self.carried.chain.iter().take(count).enumerate() {
            if !self.is_own(share) {
                continue;
            }
            hour.shares += 1;
            hour.orphan += u32::from(share.data().stale_info == StaleInfo::ORPHAN);
            hour.dead += u32::from(share.data().stale_info == StaleInfo::DOA);
            // The oldest share's work was done before the measured time.
            if index + 1 < count {
                hour.work = hour.work + share.attempts();
            }
        }
        hour
    }

    fn own_targets(&self) -> Vec<PayeeTarget> {
        let mut last = BTreeMap::new();
        for share in self.carried.counted().rev().filter(|share| self.is_own(share)) {
            last.insert(share.payee().clone(), share.target());
        }
        last.into_iter().map(|(payee, target)| PayeeTarget { payee, target }).collect()
    }

    fn blocks(&self) -> Vec<SolvedBlock> {
        let solved = self.carried.counted().filter(|share| share.is_block());
        solved
            .map(|share| SolvedBlock {
                time: share.timestamp(),
                hash: share.hash(),
                height: height_of(&share.data().coinbase),
                payee: share.payee().clone(),
                is_own: self.is_own(share),
            })
            .collect()
    }

    fn users(&self) -> Vec<PayeePart> {
        let (weights, total) = (&self.users.by_payee, self.users.total);
        weights.iter().map(|(payee, weight)| PayeePart { payee: payee.clone(), part: ratio(*weight, total) }).collect()
    }

    fn stales(&self) -> Vec<PayeeLoss> {
        // All that the chain keeps, up to two chain lengths, except the oldest share: as the reference counts.
        let shares = self.carried.chain.iter().take(self.carried.chain.len().saturating_sub(1));
        stales_by_payee(shares).into_iter().map(|(payee, stales)| PayeeLoss { payee, stales }).collect()
    }

    fn merged_payees(&self, payouts: &[PayeeAmount]) -> Vec<MergedPayee> {
        let Some(chain) = self.network.paid_merged_chain() else { return Vec::new() };
        versions::merged_payees(chain, self.carried.counted(), payouts.iter().map(|paid| &paid.payee))
    }

    fn payouts(&self) -> Vec<PayeeAmount> {
        let Some((weights, value)) = &self.paid else { return Vec::new() };
        let amounts = payouts(weights, *value, self.donation.clone());
        amounts.into_iter().map(|(payee, amount)| PayeeAmount { payee, amount }).collect()
    }
}

/// Work of the share, in blocks.
fn blocks_worth(share: &Arc<Share>) -> f64 {
    ratio(share.attempts().0, share.block_target().attempts().0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Sharechain;
    use crate::share::Bits;
    use crate::testkit::{self, Plan, grow, network};

    #[test]
    fn it_is_the_same_after_it_was_written_and_read() {
        let mut chain = Sharechain::new(testkit::network_of_work(24, 35, 500));
        let mut parent = None;
        for number in 0..30 {
            let now = testkit::START + 10 * number;
            let plan = Plan { payee: number % 5, timestamp: now, ..Plan::default() };
            let share = testkit::share_on(&mut chain, parent, &plan);
            parent = Some(share.hash());
            if number == 20 {
                chain.add_own(share, false, f64::from(now));
            } else {
                chain.add(share, None, f64::from(now));
            }
            chain.think(f64::from(now));
        }
        let block = NextBlock { target: Bits(0x1d00_ffff).target(), value: 1_000_000 };
        let (view, _) = look(&chain, Carried::default(), Some(block)).view();
        assert_eq!((view.best, view.own_in_hour.shares), (parent, 1));
        assert_eq!(view.payouts.iter().map(|paid| paid.amount).sum::<u64>(), block.value);
        assert_eq!(view.payouts.len(), 6, "five miners and the donation");
        assert!(view.users.len() == 5 && view.recent.len() == 30 && !view.votes.is_empty());
        let read: PoolView = serde_json::from_str(&serde_json::to_string(&view).unwrap()).unwrap();
        assert_eq!(read, view);
    }

    #[test]
    fn lost_shares_are_counted_down_to_the_oldest_that_the_chain_keeps() {
        let mut chain = Sharechain::new(network(20, 35));
        let mut tip = None;
        let mut mine = |chain: &mut Sharechain, payee: u32, count: u32, stale_info: StaleInfo| {
            tip = grow(chain, tip, count, &Plan { payee, stale_info, ..Plan::default() }).last().copied();
            chain.share(tip.unwrap()).unwrap().payee().clone()
        };
        // Only shares more than a chain length down: the very oldest is not counted, as in the reference.
        let one = mine(&mut chain, 1, 7, StaleInfo::NONE);
        mine(&mut chain, 1, 2, StaleInfo::DOA);
        mine(&mut chain, 1, 1, StaleInfo::ORPHAN);
        let two = mine(&mut chain, 2, 24, StaleInfo::NONE);
        mine(&mut chain, 2, 1, StaleInfo(7));
        let stales = |view: &PoolView| {
            let of = |payee: &Payee| {
                let loss = view.stales.iter().find(|loss| loss.payee == *payee)?;
                Some((loss.stales.stale, loss.stales.total))
            };
            (of(&one), of(&two))
        };
        let (view, carried) = look(&chain, Carried::default(), None).view();
        assert_eq!((carried.chain.len(), carried.counted().count()), (35, 20));
        assert_eq!(stales(&view), (Some((3, 12)), Some((1, 26))));

        // Shares that the chain drops are not counted any more: it keeps two chain lengths and nine shares more.
        mine(&mut chain, 3, 22, StaleInfo::NONE);
        assert_eq!(chain.prune(0.0).len(), 8);
        let (view, carried) = look(&chain, carried, None).view();
        assert_eq!(carried.chain.len(), 49);
        assert_eq!(stales(&view), (Some((1, 2)), Some((1, 26))));
    }
}
