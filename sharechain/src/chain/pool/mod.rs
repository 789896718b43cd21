//! `PoolView`: what people look at of a pool - its chain's shape, payouts, recent shares, votes - as plain data.
//!
//! ```text
//!  Sharechain ── look (bounded, on its owner's side) ──▶ Looked ── view (elsewhere) ──▶ PoolView
//! ```

mod look;

pub use look::{Carried, Looked, NextBlock, look};

use std::collections::BTreeMap;
use std::sync::Arc;

use ruint::aliases::U320;
use serde::{Deserialize, Serialize};

use super::score::ratio;
use super::stats::{OwnCounts, PayeeStales, StaleCounts, payouts, stales_by_payee};
use crate::share::{Attempts, Payee, Share, ShareHash, StaleInfo, Target, height_of, whole_payee};

/// Shares that the reference looks back over for its rates.
pub const STRETCH: u32 = 720;

/// Generations of shares in the drawing.
pub const DRAWN_GENERATIONS: u32 = 300;

/// Shares in the drawing at most, those of all forks included.
pub const DRAWN_MAX: usize = 900;

/// A pool as its share chain shows it. Plain data, bounded, without locks or functions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolView {
    /// The share to build on.
    pub best: Option<ShareHash>,
    /// Shares from it down.
    pub height: u32,
    /// Its height above the chain's first share.
    pub absolute_height: u32,
    /// The easiest target that it could have had.
    pub max_target: Option<Target>,
    /// Shares in memory.
    pub shares: usize,
    /// Of these, shares that fit their ancestors.
    pub verified: usize,
    /// Shares without children.
    pub heads: Vec<ShareHash>,
    /// The same among the verified.
    pub verified_heads: Vec<ShareHash>,
    /// The lowest share of each chain.
    pub tails: Vec<ShareHash>,
    /// The same among the verified.
    pub verified_tails: Vec<ShareHash>,
    /// Shares that this node's miners found since it started.
    pub own: Vec<ShareHash>,
    /// What became of these.
    pub own_counts: OwnCounts,
    /// Those of them that are among the last hour's of the chain.
    pub own_in_hour: OwnInHour,
    /// The target of the last own share of each payee that the chain has.
    pub own_targets: Vec<PayeeTarget>,
    /// The last hour's shares, as far as there are; none for fewer than two.
    pub hour: Option<Measured>,
    /// The last [`STRETCH`] shares, as far as there are.
    pub stretch: Option<Measured>,
    /// Work by share version voted for, over the last hour.
    pub votes: BTreeMap<u64, U320>,
    /// What the chain's work was worth in blocks.
    pub blocks_expected: f64,
    /// Shares of the chain that solved their blocks, the newest first.
    pub blocks: Vec<SolvedBlock>,
    /// The last [`DRAWN_GENERATIONS`] generations with their forks, the newest first.
    pub recent: Vec<RecentShare>,
    /// Each payee's part of the work of the last [`STRETCH`] shares.
    pub users: Vec<PayeePart>,
    /// What each payee of the whole chain found and lost, over all shares that are kept.
    pub stales: Vec<PayeeLoss>,
    /// What each payee would get if a block were found now, the donation address among them, without the finder's own part.
    /// Empty where no block is mined on.
    pub payouts: Vec<PayeeAmount>,
}

/// A stretch of the best chain, from its end down.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Shares in it.
    pub shares: u32,
    /// Hashes a second that made it into the chain.
    pub rate: f64,
    /// The part that was lost, 0 to 1, as far as miners said.
    pub stale_proportion: f64,
    /// Its work, the newest share's left out, by what miners said of the shares they lost.
    pub counts: StaleCounts,
    /// Seconds that it took.
    pub seconds: u32,
}

/// Our shares among the last hour's of the chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnInHour {
    /// In the chain.
    pub shares: u32,
    /// Of these, those that announce an orphan.
    pub orphan: u32,
    /// Of these, those that announce one that was dead on arrival.
    pub dead: u32,
    /// Their work, the hour's oldest share left out.
    pub work: Attempts,
}

/// A payee and the target of one of its shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayeeTarget {
    /// Who.
    #[serde(with = "whole_payee")]
    pub payee: Payee,
    /// The target.
    pub target: Target,
}

/// A payee and its part of the pool's work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PayeePart {
    /// Who.
    #[serde(with = "whole_payee")]
    pub payee: Payee,
    /// From 0 to 1.
    pub part: f64,
}

/// A payee and what it lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayeeLoss {
    /// Who.
    #[serde(with = "whole_payee")]
    pub payee: Payee,
    /// Of how many shares, as far as it said.
    pub stales: PayeeStales,
}

/// A payee and an amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayeeAmount {
    /// Who.
    #[serde(with = "whole_payee")]
    pub payee: Payee,
    /// In base units (satoshis).
    pub amount: u64,
}

/// A share that solved its block, by the target that its header claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SolvedBlock {
    /// When the share says that it was made, seconds since 1970.
    pub time: u32,
    /// The share, which has its block's hash.
    pub hash: ShareHash,
    /// The block's height, as its coinbase begins.
    pub height: Option<u32>,
    /// Whom the share pays.
    #[serde(with = "whole_payee")]
    pub payee: Payee,
    /// Whether miners of this node found it.
    pub is_own: bool,
}

/// A share as a drawing of the chain needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct RecentShare {
    /// The share.
    pub hash: ShareHash,
    /// Its parent.
    pub parent: Option<ShareHash>,
    /// Its height above the chain's first share.
    pub height: u32,
    /// When it says that it was made, seconds since 1970.
    pub time: u32,
    /// When it came first, seconds since 1970; 0 if it was loaded from disk.
    pub seen: f64,
    /// Whom it pays.
    #[serde(with = "whole_payee")]
    pub payee: Payee,
    /// Its target.
    pub target: Target,
    /// What its miner announced of a share lost before.
    pub stale_info: StaleInfo,
    /// Whether it fits its ancestors.
    pub is_verified: bool,
    /// Whether it is in the chain that is built on.
    pub in_best_chain: bool,
    /// Whether miners of this node found it.
    pub is_own: bool,
    /// Whether it solves its block.
    pub is_block: bool,
}

impl Looked {
    /// What people are shown, and what the next look goes on from. Walks the whole best chain, so that it is better done
    /// away from the chain's owner.
    pub fn view(self) -> (PoolView, Carried) {
        let view = PoolView {
            own_in_hour: self.own_in_hour(),
            own_targets: self.own_targets(),
            blocks_expected: self.carried.counted().map(blocks_worth).sum(),
            blocks: self.blocks(),
            users: self.users(),
            stales: self.stales(),
            payouts: self.payouts(),
            best: self.carried.chain.front().map(|best| best.hash()),
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
            // The oldest share's work was done before the time that is measured.
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
        // All that the chain keeps, up to two chain lengths, without the oldest: as the reference counts.
        let shares = self.carried.chain.iter().take(self.carried.chain.len().saturating_sub(1));
        stales_by_payee(shares).into_iter().map(|(payee, stales)| PayeeLoss { payee, stales }).collect()
    }

    fn payouts(&self) -> Vec<PayeeAmount> {
        let Some((weights, value)) = &self.paid else { return Vec::new() };
        let amounts = payouts(weights, *value, self.donation.clone());
        amounts.into_iter().map(|(payee, amount)| PayeeAmount { payee, amount }).collect()
    }
}

/// How many blocks the share's work is worth.
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
        // Of these only what is more than a chain length down: the very oldest is not counted, as the reference has it.
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

        // What the chain forgets is not counted any more: it keeps two chain lengths and nine shares more.
        mine(&mut chain, 3, 22, StaleInfo::NONE);
        assert_eq!(chain.prune(0.0).len(), 8);
        let (view, carried) = look(&chain, carried, None).view();
        assert_eq!(carried.chain.len(), 49);
        assert_eq!(stales(&view), (Some((1, 2)), Some((1, 26))));
    }
}
