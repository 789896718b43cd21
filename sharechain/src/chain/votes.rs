//! Succession of share versions: votes over a stretch of the chain (protocol sections 5.4 and 5.5).

use std::collections::BTreeMap;

use ruint::aliases::U320;

use super::error::VerifyError;
use super::ratchet::{NEW_VERSION, OLD_VERSION, Ratchet, RatchetInput, RatchetState};
use super::view::View;
use crate::coin::Network;
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

    /// True if shares of `version` carry 60 % of the votes, not rounded: the ratchet's test (protocol-v36 section 2.2).
    /// Votes that pass it also [`allow`](Self::allow) the version.
    pub(super) fn carry(&self, version: ShareVersion) -> bool {
        let all = self.0.values().copied().fold(U320::ZERO, |sum, votes| sum + votes);
        self.of(version) * U320::from(100) >= all * U320::from(60)
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

/// Ratchet of a new chain, on networks that can go from the old version to the new one.
pub(super) fn ratchet_of(network: &Network) -> Option<Ratchet> {
    let has_both = (network.start_version..=network.newest_version).contains(&OLD_VERSION.number());
    (has_both && network.successor(OLD_VERSION) == Some(NEW_VERSION)).then(Ratchet::default)
}

/// Facts for a decision of `ratchet` after `parent`. Costs O(log n), and the work of a tenth of a chain's length where
/// the test by work matters.
pub(super) fn ratchet_input(view: &View<'_>, ratchet: &Ratchet, parent: Option<&Share>) -> RatchetInput {
    let chain_length = view.network.chain_length;
    let Some(parent) = parent else { return RatchetInput { chain_length, ..RatchetInput::default() } };
    let (hash, height) = (parent.hash(), view.all.height(parent.hash()));
    let below = view.all.ancestor(hash, height.min(chain_length));
    let tally = below.map_or_else(|| view.all.work(hash), |below| view.all.work_between(hash, below)).tally;
    let needs_test = parent.version() == OLD_VERSION || ratchet.state() == RatchetState::Voting;
    RatchetInput {
        height,
        absheight: parent.absheight(),
        chain_length,
        votes: tally.votes,
        shares: tally.shares,
        // Peers' votes are one origin, whichever peer passed them on: a node that joins may get the whole chain from
        // one. The store does not know who sent a share, so its shares count for no peer.
        origins: 1 + u32::from(tally.votes_of_peers > 0),
        work_test: needs_test && window(view, parent).is_some_and(|votes| votes.carry(NEW_VERSION)),
        parent: Some(parent.version()),
    }
}

/// Version to mine after `parent` if that is the ratchet's to decide.
fn by_ratchet(view: &View<'_>, parent: Option<&Share>) -> Option<ShareVersion> {
    let ratchet = view.ratchet?;
    let is_decided = match parent {
        None => ratchet.is_confirmed(),
        Some(parent) => [OLD_VERSION, NEW_VERSION].contains(&parent.version()),
    };
    is_decided.then(|| ratchet.version_after(&ratchet_input(view, ratchet, parent)))
}

/// True if a chain of `version` may raise the minimum protocol version of peers: version 36 only once it is confirmed
/// (protocol-v36 section 2.3).
pub(super) fn may_raise_protocol(view: &View<'_>, version: ShareVersion) -> bool {
    version != NEW_VERSION || view.ratchet.is_none_or(Ratchet::is_confirmed)
}

/// Returns the version to mine after `parent`, and the version that such a share votes for.
pub(super) fn to_mine(view: &View<'_>, parent: Option<&Share>) -> (ShareVersion, u64) {
    let version = match (parent, by_ratchet(view, parent)) {
        (_, Some(version)) => version,
        // The network's tables hold share versions only.
        (None, None) => ShareVersion::from_number(view.network.start_version).unwrap_or(ShareVersion::NEWEST),
        (Some(parent), None) => match view.network.successor(parent.version()) {
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
