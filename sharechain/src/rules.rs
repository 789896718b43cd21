//! Share versions, and all their differences as data. No other code depends on a version's number.
//!
//! A version is a row: [`ShareVersion::rules`] matches exhaustively, so a new version compiles only when each field of
//! [`VersionRules`] has a value for it. A new kind of value is then a `match` in the one place that reads it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A share version that this node understands (protocol section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub enum ShareVersion {
    /// `Share`: pubkey hashes, transaction lists, bounded timestamps.
    V17,
    /// `PreSegwitShare`: as 17, but a timestamp only has to follow its parent's.
    V32,
    /// `NewShare`: as 32; the version from which segwit is active on Bitcoin's main network.
    V33,
    /// `SegwitMiningShare`: textual addresses, no transaction lists.
    V34,
    /// `PaddingBugfixShare`: as 34, with witness programs padded to 20 bytes.
    V35,
    /// A version for tests, as different from the others as the rules allow.
    #[cfg(test)]
    Toy,
}

/// Contents and payout rules of one share version.
#[derive(Debug, PartialEq, Eq)]
pub struct VersionRules {
    /// Number on the wire.
    pub number: u64,
    /// Name in the reference, shown in the web interface.
    pub name: &'static str,
    /// Version that votes can switch the chain to.
    pub successor: Option<ShareVersion>,
    /// Protocol version that peers need once the chain has this version (section 5.5).
    pub minimum_protocol: u32,
    /// Encoding of the payee.
    pub payee: PayeeForm,
    /// Information on the block's transactions.
    pub transactions: BlockTransactions,
    /// Allowed timestamps.
    pub timestamps: Timestamps,
    /// Conversion of witness programs to scripts.
    pub programs: Programs,
    /// Start of the payout window.
    pub window: WindowStart,
    /// Weight of a share in the window.
    pub weighing: Weighing,
    /// Extra part of a block's finder.
    pub finder: FindersPart,
}

/// Encoding of a share's payee (section 4.2, field 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayeeForm {
    /// A bare pubkey hash of 20 bytes.
    PubkeyHash,
    /// Address as text.
    Address,
}

/// Information on the block's transactions (section 4.2, fields 16 and 17).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockTransactions {
    /// All of them are listed, so that subsidy and weight can be checked.
    Listed,
    /// Only a merkle branch.
    Unlisted,
}

/// Allowed timestamps of a share (section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timestamps {
    /// From one second to less than two share periods after the parent's.
    WithinTwoPeriods,
    /// Any time after the parent's.
    AfterParent,
}

/// Conversion of witness programs to scripts (section 4.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Programs {
    /// As an integer, as in the reference: leading zeros are lost.
    Unpadded,
    /// Padded to 20 bytes.
    Padded,
}

/// Newest share of the payout window (section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowStart {
    /// The parent's parent (trap 21); the window has one share less than the parent's height.
    Grandparent,
    /// The parent itself.
    Parent,
}

/// Weight of a share in the payout window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weighing {
    /// Full work, until the window has `SPREAD` blocks' worth of it (section 7).
    UpToBlocks,
    /// Work with a half-life that is a fraction of the chain's length; all shares of the window count.
    Halving {
        /// Chain length divided by the half-life.
        parts: u32,
    },
}

/// Extra part of the subsidy for a block's finder (section 4.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindersPart {
    /// One part in 200; the window shares the other 199.
    HalfPercent,
    /// Nothing.
    None,
}

const V17: VersionRules = VersionRules {
    number: 17,
    name: "Share",
    successor: Some(ShareVersion::V35),
    minimum_protocol: 1400,
    payee: PayeeForm::PubkeyHash,
    transactions: BlockTransactions::Listed,
    timestamps: Timestamps::WithinTwoPeriods,
    programs: Programs::Unpadded,
    window: WindowStart::Grandparent,
    weighing: Weighing::UpToBlocks,
    finder: FindersPart::HalfPercent,
};

const V32: VersionRules = VersionRules {
    number: 32,
    name: "PreSegwitShare",
    successor: Some(ShareVersion::V35),
    minimum_protocol: 1400,
    payee: PayeeForm::PubkeyHash,
    transactions: BlockTransactions::Listed,
    timestamps: Timestamps::AfterParent,
    programs: Programs::Unpadded,
    window: WindowStart::Grandparent,
    weighing: Weighing::UpToBlocks,
    finder: FindersPart::HalfPercent,
};

const V33: VersionRules = VersionRules {
    number: 33,
    name: "NewShare",
    successor: Some(ShareVersion::V35),
    minimum_protocol: 3300,
    payee: PayeeForm::PubkeyHash,
    transactions: BlockTransactions::Listed,
    timestamps: Timestamps::AfterParent,
    programs: Programs::Unpadded,
    window: WindowStart::Grandparent,
    weighing: Weighing::UpToBlocks,
    finder: FindersPart::HalfPercent,
};

const V34: VersionRules = VersionRules {
    number: 34,
    name: "SegwitMiningShare",
    successor: Some(ShareVersion::V35),
    minimum_protocol: 3300,
    payee: PayeeForm::Address,
    transactions: BlockTransactions::Unlisted,
    timestamps: Timestamps::AfterParent,
    programs: Programs::Unpadded,
    window: WindowStart::Grandparent,
    weighing: Weighing::UpToBlocks,
    finder: FindersPart::HalfPercent,
};

const V35: VersionRules = VersionRules {
    number: 35,
    name: "PaddingBugfixShare",
    successor: None,
    minimum_protocol: 3500,
    payee: PayeeForm::Address,
    transactions: BlockTransactions::Unlisted,
    timestamps: Timestamps::AfterParent,
    programs: Programs::Padded,
    window: WindowStart::Grandparent,
    weighing: Weighing::UpToBlocks,
    finder: FindersPart::HalfPercent,
};

#[cfg(test)]
const TOY: VersionRules = VersionRules {
    number: 99,
    name: "ToyShare",
    successor: None,
    minimum_protocol: 3500,
    payee: PayeeForm::Address,
    transactions: BlockTransactions::Unlisted,
    timestamps: Timestamps::AfterParent,
    programs: Programs::Padded,
    window: WindowStart::Parent,
    weighing: Weighing::Halving { parts: 4 },
    finder: FindersPart::None,
};

/// Error for a share version that this node does not accept (section 5.1 step 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// A version before 17, which no node may send any more.
    #[error("share version {0} is obsolete")]
    Obsolete(u64),
    /// A version newer than this node, or one that never existed.
    #[error("share version {0} is unknown")]
    Unknown(u64),
}

impl ShareVersion {
    /// All versions, oldest first.
    pub const ALL: &[ShareVersion] = &[
        ShareVersion::V17,
        ShareVersion::V32,
        ShareVersion::V33,
        ShareVersion::V34,
        ShareVersion::V35,
        #[cfg(test)]
        ShareVersion::Toy,
    ];

    /// Newest version: the first of new networks, and the one that payouts are checked for before mining starts.
    pub const NEWEST: ShareVersion = ShareVersion::V35;

    /// Contents and payout rules of this version.
    pub fn rules(self) -> &'static VersionRules {
        match self {
            ShareVersion::V17 => &V17,
            ShareVersion::V32 => &V32,
            ShareVersion::V33 => &V33,
            ShareVersion::V34 => &V34,
            ShareVersion::V35 => &V35,
            #[cfg(test)]
            ShareVersion::Toy => &TOY,
        }
    }

    /// Looks up a version by its number on the wire.
    ///
    /// # Errors
    /// [`VersionError`].
    pub fn from_number(number: u64) -> Result<ShareVersion, VersionError> {
        match ShareVersion::ALL.iter().find(|version| version.number() == number) {
            Some(version) => Ok(*version),
            None if number < V17.number => Err(VersionError::Obsolete(number)),
            None => Err(VersionError::Unknown(number)),
        }
    }

    /// Number on the wire.
    pub fn number(self) -> u64 {
        self.rules().number
    }

    /// True if shares of this version carry segwit data, on a network whose first segwit share version is `activation`;
    /// 0 means never (section 4.3).
    pub fn has_segwit(self, activation: u64) -> bool {
        activation > 0 && self.number() >= activation
    }

    /// True if shares list the block's transactions (fields 16 and 17).
    pub fn lists_transactions(self) -> bool {
        match self.rules().transactions {
            BlockTransactions::Listed => true,
            BlockTransactions::Unlisted => false,
        }
    }

    /// True if a chain on which peers need this protocol version may still have shares that list transactions. A minimum
    /// that only a newer version needs was settled by 95 % of the votes (section 5.5), or by the network's makers.
    pub fn may_list_transactions(minimum_protocol: u32) -> bool {
        let needed = |version: &&ShareVersion| version.rules().minimum_protocol;
        let (listing, others): (Vec<_>, Vec<_>) = ShareVersion::ALL.iter().partition(|it| it.lists_transactions());
        let of_listing = listing.iter().map(needed).max().unwrap_or_default();
        !others.iter().map(needed).any(|needed| needed > of_listing && needed <= minimum_protocol)
    }

    /// Returns the timestamp of a share with the wanted time `desired` and a parent at `previous`, in seconds (section
    /// 6). Wider than the field: after a parent in the last second that fits, the result does not fit a share.
    pub fn timestamp(self, desired: u32, previous: Option<u32>, share_period: u32) -> u64 {
        let desired = u64::from(desired);
        let Some(earliest) = previous.map(|previous| u64::from(previous) + 1) else {
            return desired;
        };
        // The lower bound is tested first, as in P2Pool's clip.
        match self.rules().timestamps {
            Timestamps::WithinTwoPeriods if desired >= earliest => {
                desired.min(earliest + (2 * u64::from(share_period)).saturating_sub(2))
            }
            Timestamps::WithinTwoPeriods | Timestamps::AfterParent => desired.max(earliest),
        }
    }
}

impl TryFrom<u64> for ShareVersion {
    type Error = VersionError;

    fn try_from(number: u64) -> Result<Self, VersionError> {
        Self::from_number(number)
    }
}

impl From<ShareVersion> for u64 {
    fn from(version: ShareVersion) -> u64 {
        version.number()
    }
}

impl fmt::Display for ShareVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.number(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Counting, Entry, Event, Query, Sharechain, VerifyError, Window};
    use crate::share::{Draft, MinHeader, Payee, Payouts, Share, ShareHash, Target, donation_payee, pack, unpack};
    use crate::testkit::{self, Plan};
    use ruint::aliases::U320;
    use std::collections::HashMap;
    use std::sync::Arc;

    #[test]
    fn numbers_lead_to_versions_and_back() {
        for version in ShareVersion::ALL {
            assert_eq!(ShareVersion::from_number(version.number()), Ok(*version));
        }
        assert_eq!(ShareVersion::from_number(16), Err(VersionError::Obsolete(16)));
        assert_eq!(ShareVersion::from_number(18), Err(VersionError::Unknown(18)));
        assert_eq!(ShareVersion::from_number(36), Err(VersionError::Unknown(36)));
    }

    #[test]
    fn timestamps_of_version_17_stay_within_two_periods_of_the_parent() {
        let stamp = |version: ShareVersion, desired| version.timestamp(desired, Some(1000), 30);
        for (desired, of_17, of_32) in [(0, 1001, 1001), (1001, 1001, 1001), (1059, 1059, 1059), (1060, 1059, 1060)] {
            assert_eq!(stamp(ShareVersion::V17, desired), of_17);
            assert_eq!(stamp(ShareVersion::V32, desired), of_32);
        }
        assert_eq!(ShareVersion::V17.timestamp(5, None, 30), 5);
    }

    #[test]
    fn transactions_are_listed_until_peers_need_a_protocol_that_only_shares_without_them_need() {
        for minimum in [1400, 3200, 3300, 3301, 3499] {
            assert!(ShareVersion::may_list_transactions(minimum), "{minimum}");
        }
        assert!(!ShareVersion::may_list_transactions(3500) && !ShareVersion::may_list_transactions(3600));
    }

    #[test]
    fn segwit_begins_with_the_version_that_the_network_says() {
        let active = |activation| ShareVersion::ALL[..5].iter().map(move |version| version.has_segwit(activation));
        assert!(active(33).eq([false, false, true, true, true]));
        assert!(active(15).eq([true; 5]));
        assert!(active(0).eq([false; 5]));
    }

    const LENGTH: u32 = 40;

    /// Adds `share` to `chain` as a peer's, and returns the resulting event.
    fn verdict(chain: &mut Sharechain, share: &Arc<Share>) -> Option<Event> {
        let now = f64::from(share.timestamp());
        chain.add(Arc::clone(share), Some("192.0.2.1:9333".parse().unwrap()), now);
        chain.think(now);
        std::iter::from_fn(|| chain.poll_event())
            .find(|event| matches!(event, Event::Verified(hash) | Event::Refused { hash, .. } if *hash == share.hash()))
    }

    /// Payouts of the toy's window for `subsidy`, computed share by share: from the newest down, each counts 1 - ln 2 /
    /// 10 of the one before.
    fn naive(chain: &[Arc<Share>], subsidy: u64) -> HashMap<Payee, u64> {
        let scale = 1_u128 << 40;
        let per_share = scale - scale * 693_147 / (1_000_000 * u128::from(LENGTH / 4));
        let (mut left, mut total) = (scale, 0);
        let mut by_payee = HashMap::<Payee, u128>::new();
        for share in chain.iter().rev().take(LENGTH as usize) {
            let weight = ((u128::try_from(share.attempts().0).unwrap() * left) >> 40) * 65_535;
            *by_payee.entry(share.payee().clone()).or_default() += weight;
            total += weight;
            left = (left * per_share) >> 40;
        }
        by_payee
            .into_iter()
            .map(|(payee, weight)| (payee, u64::try_from(u128::from(subsidy) * weight / total).unwrap()))
            .collect()
    }

    #[test]
    fn a_version_with_other_rules_mines_a_chain_that_another_node_verifies() {
        // Enough hashes per share that a tenth of them is more than none.
        let network = testkit::network_of_work(LENGTH, TOY.number, 500);
        let (mut miner, mut other) = (Sharechain::new(network), Sharechain::new(network));
        let mut chain: Vec<Arc<Share>> = Vec::new();
        for number in 0..3 * LENGTH {
            let plan = Plan { payee: number % 3, timestamp: testkit::START + 10 * number, ..Plan::default() };
            let share = testkit::share_on(&mut miner, chain.last().map(|share| share.hash()), &plan);
            assert_eq!(share.version(), ShareVersion::Toy);
            assert_eq!(unpack(&pack(share.contents()), miner.rules()).unwrap(), *share.contents());
            assert_eq!(verdict(&mut miner, &share), Some(Event::Verified(share.hash())));
            assert_eq!(verdict(&mut other, &share), Some(Event::Verified(share.hash())));
            chain.push(share);
        }
        assert_eq!(other.tip().best_hash(), chain.last().map(|share| share.hash()));

        let (tip, subsidy) = (miner.tip(), 625_000_001);
        let weights = tip.weights(Target::MAX_256);
        let payouts = Payouts::new(tip.version(), subsidy, &weights, miner.rules()).unwrap();
        let finder = Payee::from_pubkey_hash(&[0x5a; 20], miner.rules());
        let mut paid: HashMap<Payee, u64> =
            payouts.with_finder(&finder).map(|(payee, amount)| (payee.clone(), amount)).collect();
        let rest = paid.remove(&donation_payee(miner.rules())).unwrap();
        assert_eq!(paid, naive(&chain, subsidy), "the parent counts most, and the finder gets nothing extra");
        assert_eq!(rest + paid.values().sum::<u64>(), subsidy);

        // A coinbase that pays the window of another version is refused.
        let plan = Plan { timestamp: testkit::START + 10 * 3 * LENGTH, ..Plan::default() };
        let look = |hash: ShareHash| miner.share(hash).map(|share| Entry::of(share));
        let start = chain.last().and_then(|share| share.previous());
        let query = Query { start, shares_max: LENGTH - 1, counting: Counting::UpTo(U320::MAX) };
        let weights = Window::default().weights(query, &look);
        let payouts = Payouts::new(ShareVersion::Toy, plan.subsidy, &weights, miner.rules()).unwrap();
        let draft = Draft::new(testkit::info(&miner, &tip, &plan), &payouts, &[], miner.rules()).unwrap();
        let header = |nonce| MinHeader {
            version: 0x2000_0000,
            previous_block: None,
            timestamp: plan.timestamp,
            bits: plan.block_bits,
            nonce,
        };
        let mut found = (0..).map(|nonce| draft.clone().finish(header(nonce), 0, miner.rules()));
        let share = Arc::new(found.find_map(Result::ok).unwrap());
        let verdict = verdict(&mut other, &share);
        assert!(matches!(verdict, Some(Event::Refused { error: VerifyError::Coinbase { .. }, .. })), "{verdict:?}");
    }
}
