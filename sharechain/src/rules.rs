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
    /// `MergedMiningShare`: payees by output script, weights that halve, and fields of merged chains
    /// (protocol-v36 section 3).
    V36,
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
    /// Fields beside the common ones, and the width of numbers.
    pub layout: Layout,
    /// Information on the block's transactions.
    pub transactions: BlockTransactions,
    /// Allowed timestamps.
    pub timestamps: Timestamps,
    /// Center of the range that `max_target` may move in.
    pub clamp: Clamp,
    /// Conversion of witness programs to scripts.
    pub programs: Programs,
    /// Start of the payout window.
    pub window: WindowStart,
    /// Weight of a share in the window.
    pub weighing: Weighing,
    /// Order of payees with equal amounts.
    pub order: PayeeOrder,
    /// Extra part of a block's finder.
    pub finder: FindersPart,
    /// Donation output.
    pub donation: Donation,
}

/// Encoding of a share's payee (section 4.2, field 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayeeForm {
    /// A bare pubkey hash of 20 bytes.
    PubkeyHash,
    /// Address as text.
    Address,
    /// A hash of 20 bytes and the kind of its script (protocol-v36 sections 3.1 and 3.3).
    Script,
}

/// Fields beside the common ones (protocol-v36 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// None; subsidy and abswork have a fixed width.
    Classic,
    /// Those of [`Additions`](crate::share::Additions), and data of the hash link; subsidy and abswork are varints.
    Merged,
}

/// Order of payees with equal amounts in the coinbase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayeeOrder {
    /// By address as text (trap 23).
    Text,
    /// By output script (protocol-v36 section 3.5).
    Script,
}

/// Donation output, which gets what is left of the subsidy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Donation {
    /// The first author's pubkey (section 4.8); may get nothing.
    Pubkey,
    /// A script of two keys that marks the coinbase: it gets at least one satoshi (protocol-v36 section 4.3).
    Marker,
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

/// Center of the range of a share's `max_target`: nine to eleven tenths of it (section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clamp {
    /// The parent's `max_target`.
    Steady,
    /// The same, growing with the time since the parent once that is long (protocol-v36 section 5).
    Eased,
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
    layout: Layout::Classic,
    transactions: BlockTransactions::Listed,
    timestamps: Timestamps::WithinTwoPeriods,
    clamp: Clamp::Steady,
    programs: Programs::Unpadded,
    window: WindowStart::Grandparent,
    weighing: Weighing::UpToBlocks,
    order: PayeeOrder::Text,
    finder: FindersPart::HalfPercent,
    donation: Donation::Pubkey,
};

const V32: VersionRules = VersionRules {
    number: 32,
    name: "PreSegwitShare",
    successor: Some(ShareVersion::V35),
    minimum_protocol: 1400,
    payee: PayeeForm::PubkeyHash,
    layout: Layout::Classic,
    transactions: BlockTransactions::Listed,
    timestamps: Timestamps::AfterParent,
    clamp: Clamp::Steady,
    programs: Programs::Unpadded,
    window: WindowStart::Grandparent,
    weighing: Weighing::UpToBlocks,
    order: PayeeOrder::Text,
    finder: FindersPart::HalfPercent,
    donation: Donation::Pubkey,
};

const V33: VersionRules = VersionRules {
    number: 33,
    name: "NewShare",
    successor: Some(ShareVersion::V35),
    minimum_protocol: 3300,
    payee: PayeeForm::PubkeyHash,
    layout: Layout::Classic,
    transactions: BlockTransactions::Listed,
    timestamps: Timestamps::AfterParent,
    clamp: Clamp::Steady,
    programs: Programs::Unpadded,
    window: WindowStart::Grandparent,
    weighing: Weighing::UpToBlocks,
    order: PayeeOrder::Text,
    finder: FindersPart::HalfPercent,
    donation: Donation::Pubkey,
};

const V34: VersionRules = VersionRules {
    number: 34,
    name: "SegwitMiningShare",
    successor: Some(ShareVersion::V35),
    minimum_protocol: 3300,
    payee: PayeeForm::Address,
    layout: Layout::Classic,
    transactions: BlockTransactions::Unlisted,
    timestamps: Timestamps::AfterParent,
    clamp: Clamp::Steady,
    programs: Programs::Unpadded,
    window: WindowStart::Grandparent,
    weighing: Weighing::UpToBlocks,
    order: PayeeOrder::Text,
    finder: FindersPart::HalfPercent,
    donation: Donation::Pubkey,
};

const V35: VersionRules = VersionRules {
    number: 35,
    name: "PaddingBugfixShare",
    // Only on networks that have it: see `Network::successor`.
    successor: Some(ShareVersion::V36),
    minimum_protocol: 3500,
    payee: PayeeForm::Address,
    layout: Layout::Classic,
    transactions: BlockTransactions::Unlisted,
    timestamps: Timestamps::AfterParent,
    clamp: Clamp::Steady,
    programs: Programs::Padded,
    window: WindowStart::Grandparent,
    weighing: Weighing::UpToBlocks,
    order: PayeeOrder::Text,
    finder: FindersPart::HalfPercent,
    donation: Donation::Pubkey,
};

const V36: VersionRules = VersionRules {
    number: 36,
    name: "MergedMiningShare",
    successor: None,
    minimum_protocol: 3600,
    payee: PayeeForm::Script,
    layout: Layout::Merged,
    transactions: BlockTransactions::Unlisted,
    timestamps: Timestamps::AfterParent,
    clamp: Clamp::Eased,
    programs: Programs::Padded,
    window: WindowStart::Parent,
    weighing: Weighing::Halving { parts: 4 },
    order: PayeeOrder::Script,
    finder: FindersPart::None,
    donation: Donation::Marker,
};

#[cfg(test)]
const TOY: VersionRules = VersionRules {
    number: 99,
    name: "ToyShare",
    successor: None,
    minimum_protocol: 3500,
    payee: PayeeForm::Address,
    layout: Layout::Classic,
    transactions: BlockTransactions::Unlisted,
    timestamps: Timestamps::AfterParent,
    clamp: Clamp::Eased,
    programs: Programs::Padded,
    window: WindowStart::Parent,
    weighing: Weighing::Halving { parts: 4 },
    order: PayeeOrder::Text,
    finder: FindersPart::None,
    donation: Donation::Pubkey,
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
        ShareVersion::V36,
        #[cfg(test)]
        ShareVersion::Toy,
    ];

    /// Newest version.
    pub const NEWEST: ShareVersion = ShareVersion::V36;

    /// Contents and payout rules of this version.
    pub fn rules(self) -> &'static VersionRules {
        match self {
            ShareVersion::V17 => &V17,
            ShareVersion::V32 => &V32,
            ShareVersion::V33 => &V33,
            ShareVersion::V34 => &V34,
            ShareVersion::V35 => &V35,
            ShareVersion::V36 => &V36,
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
mod tests;
