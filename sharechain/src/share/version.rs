//! The share versions, and everything in which they differ: nobody else asks for a version's number.

use std::fmt;

/// A share version that this node understands (protocol section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}

/// What is not a version that this node understands, and whose fault that is (section 5.1 step 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// A share from before 17: nobody may send these any more.
    #[error("share version {0} is obsolete")]
    Obsolete(u64),
    /// A share that is newer than this node, or never existed.
    #[error("share version {0} is unknown")]
    Unknown(u64),
}

impl ShareVersion {
    /// All of them, oldest first.
    pub const ALL: [ShareVersion; 5] =
        [ShareVersion::V17, ShareVersion::V32, ShareVersion::V33, ShareVersion::V34, ShareVersion::V35];

    /// The version with this number on the wire.
    ///
    /// # Errors
    /// [`VersionError`].
    pub fn from_number(number: u64) -> Result<ShareVersion, VersionError> {
        match ShareVersion::ALL.iter().find(|version| version.number() == number) {
            Some(version) => Ok(*version),
            None if number < 17 => Err(VersionError::Obsolete(number)),
            None => Err(VersionError::Unknown(number)),
        }
    }

    /// Its number on the wire.
    pub fn number(self) -> u64 {
        match self {
            ShareVersion::V17 => 17,
            ShareVersion::V32 => 32,
            ShareVersion::V33 => 33,
            ShareVersion::V34 => 34,
            ShareVersion::V35 => 35,
        }
    }

    /// The reference's name, which the web interface shows.
    pub fn name(self) -> &'static str {
        match self {
            ShareVersion::V17 => "Share",
            ShareVersion::V32 => "PreSegwitShare",
            ShareVersion::V33 => "NewShare",
            ShareVersion::V34 => "SegwitMiningShare",
            ShareVersion::V35 => "PaddingBugfixShare",
        }
    }

    /// The version that a vote can switch the chain to.
    pub fn successor(self) -> Option<ShareVersion> {
        match self {
            ShareVersion::V35 => None,
            _ => Some(ShareVersion::V35),
        }
    }

    /// What a share written by a miner of this version votes for: itself.
    pub fn voting_version(self) -> u64 {
        self.number()
    }

    /// The protocol version that peers need once the chain has this version (section 5.5).
    pub fn minimum_protocol(self) -> u32 {
        match self {
            ShareVersion::V17 | ShareVersion::V32 => 1400,
            ShareVersion::V33 | ShareVersion::V34 => 3300,
            ShareVersion::V35 => 3500,
        }
    }

    /// Whether its shares carry segwit data, on a network whose segwit begins with share version `activation`; 0 means
    /// never (section 4.3).
    pub fn has_segwit(self, activation: u64) -> bool {
        activation > 0 && self.number() >= activation
    }

    /// Whether the payout is a textual address instead of a bare pubkey hash (section 4.2, field 9).
    pub fn has_textual_address(self) -> bool {
        self >= ShareVersion::V34
    }

    /// Whether it lists the block's transactions, and its subsidy and weight can be checked by them (fields 16, 17).
    pub fn lists_transactions(self) -> bool {
        self < ShareVersion::V34
    }

    /// Whether witness programs are padded to 20 bytes when they become scripts (section 4.7).
    pub fn pads_programs(self) -> bool {
        self >= ShareVersion::V35
    }

    /// The timestamp of a share that would like to bear `desired`, after a parent of `previous`; times in seconds
    /// (section 6). Wider than the field: after a parent in the last second that fits, it is one that no share can bear.
    pub fn timestamp(self, desired: u32, previous: Option<u32>, share_period: u32) -> u64 {
        let desired = u64::from(desired);
        let Some(earliest) = previous.map(|previous| u64::from(previous) + 1) else {
            return desired;
        };
        // The lower bound is tested first, as P2Pool's clip does.
        if self >= ShareVersion::V32 || desired < earliest {
            desired.max(earliest)
        } else {
            desired.min(earliest + (2 * u64::from(share_period)).saturating_sub(2))
        }
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

    #[test]
    fn numbers_lead_to_versions_and_back() {
        for version in ShareVersion::ALL {
            assert_eq!(ShareVersion::from_number(version.number()), Ok(version));
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
    fn segwit_begins_with_the_version_that_the_network_says() {
        let active = |activation| ShareVersion::ALL.map(|version| version.has_segwit(activation));
        assert_eq!(active(33), [false, false, true, true, true]);
        assert_eq!(active(15), [true; 5]);
        assert_eq!(active(0), [false; 5]);
    }
}
