//! Succession of share versions: votes over a stretch of the chain (protocol sections 5.4 and 5.5).

use std::collections::BTreeMap;

use ruint::aliases::U320;

use super::error::VerifyError;
use super::view::View;
use crate::share::{Share, ShareHash, ShareVersion};

/// Votes, weighted by work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Votes(pub BTreeMap<u64, U320>);

impl Votes {
    /// Counts the votes of `count` shares from `start` down.
    pub(super) fn count(view: &View<'_>, start: ShareHash, count: u32) -> Votes {
        let mut votes = Votes::default();
        for share in view.chain(start, count) {
            votes.add(share.data().desired_version, share.attempts().0);
        }
        votes
    }

    fn add(&mut self, version: u64, attempts: U320) {
        *self.0.entry(version).or_default() += attempts;
    }

    fn of(&self, version: ShareVersion) -> U320 {
        self.0.get(&version.number()).copied().unwrap_or_default()
    }

    /// Returns `part` hundredths of all votes, rounded down (trap 34).
    fn hundredths(&self, part: u32) -> U320 {
        self.0.values().copied().fold(U320::ZERO, |sum, votes| sum + votes) * U320::from(part) / U320::from(100)
    }

    /// True if shares of `version` may follow the version before it.
    fn allow(&self, version: ShareVersion) -> bool {
        self.of(version) >= self.hundredths(60)
    }

    /// True if we make shares of `version` although the parent has the version before it.
    fn demand(&self, version: ShareVersion) -> bool {
        self.of(version) > self.hundredths(95)
    }

    /// True if peers must speak the protocol version that `version` needs.
    pub(super) fn settle(&self, version: ShareVersion) -> bool {
        self.of(version) >= self.hundredths(95)
    }
}

/// The votes that decide after `parent`: a tenth of a chain's length, nine tenths below it. `None` if the chain is
/// shorter.
pub(super) fn window(view: &View<'_>, parent: &Share) -> Option<Votes> {
    let length = view.network.chain_length;
    if view.all.height(parent.hash()) < length {
        return None;
    }
    Some(Votes::count(view, view.all.ancestor(parent.hash(), length * 9 / 10)?, length / 10))
}

/// Checks that a share of `version` may follow `parent`.
pub(super) fn check_succession(view: &View<'_>, version: ShareVersion, parent: &Share) -> Result<(), VerifyError> {
    let before = parent.version();
    let has_history = view.all.height(parent.hash()) >= view.network.chain_length;
    if !has_history {
        // Anything but the successor passes here, even a step back (section 5.4).
        return if before.rules().successor == Some(version) {
            Err(VerifyError::SwitchWithoutHistory { before, version })
        } else {
            Ok(())
        };
    }
    if version == before {
        return Ok(());
    }
    if view.network.has_steps_back() && version.rules().successor == Some(before) {
        return Ok(());
    }
    if before.rules().successor != Some(version) {
        return Err(VerifyError::VersionJump { before, version });
    }
    match window(view, parent) {
        Some(votes) if votes.allow(version) => Ok(()),
        _ => Err(VerifyError::SwitchWithoutVotes { before, version }),
    }
}

/// Returns the version to mine after `parent`, and the version that such a share votes for.
pub(super) fn to_mine(view: &View<'_>, parent: Option<&Share>) -> (ShareVersion, u64) {
    let version = match parent {
        // The network's tables hold share versions only.
        None => ShareVersion::from_number(view.network.start_version).unwrap_or(ShareVersion::NEWEST),
        Some(parent) => match view.network.successor(parent.version()) {
            Some(next) if window(view, parent).is_some_and(|votes| votes.demand(next)) => next,
            _ => parent.version(),
        },
    };
    (version, view.network.successor(version).unwrap_or(version).number())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes(of: &[(u64, u64)]) -> Votes {
        let mut votes = Votes::default();
        for (version, attempts) in of {
            votes.add(*version, U320::from(*attempts));
        }
        votes
    }

    #[test]
    fn partial_majorities_allow_demand_and_settle_each_at_its_own_threshold() {
        let decide = |of: &[(u64, u64)]| {
            let votes = votes(of);
            (votes.allow(ShareVersion::V35), votes.settle(ShareVersion::V35), votes.demand(ShareVersion::V35))
        };
        assert_eq!(decide(&[(17, 41), (35, 59)]), (false, false, false));
        assert_eq!(decide(&[(17, 40), (35, 60)]), (true, false, false));
        assert_eq!(decide(&[(17, 5), (35, 95)]), (true, true, false));
        assert_eq!(decide(&[(17, 4), (35, 96)]), (true, true, true));
        // The threshold is rounded down: 60 % of 9 is 5.
        assert_eq!(decide(&[(17, 4), (35, 5)]), (true, false, false));
        assert_eq!(decide(&[(36, 100)]), (false, false, false));
    }
}
