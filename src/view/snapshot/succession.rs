//! `Succession`: the pool's way from one share version to the next, with the state of the ratchet in plain words
//! (protocol section 5.4, protocol-v36 section 2.2).

use serde::Serialize;
use sharechain::chain::pool::PoolView;
use sharechain::chain::{Ratchet, RatchetState, ratio};
use sharechain::coin::Network;
use sharechain::share::ShareVersion;

use ruint::aliases::U320;

/// Percentage of a chain length's shares that have to vote for the ratchet's version to activate it, and to have it to
/// confirm it.
pub const ACTIVATION_PERCENT: u32 = 95;

/// Percentage of the deciding work that has to vote for a version before a share of it may follow.
pub const ACCEPTANCE_PERCENT: u32 = 60;

/// Percentage of votes below which the old version is made again.
const RETURN_PERCENT: u32 = 50;

/// Succession of share versions, as this node sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Succession {
    /// Version of the best share; `None` without shares.
    pub version: Option<u64>,
    /// Version of the next share that this node makes; `None` before the first tip.
    pub next: Option<u64>,
    /// Version that votes are counted for: the ratchet's, or the one after the best share's. `None` if the network has
    /// none.
    pub target: Option<u64>,
    /// The ratchet, on networks that have one.
    pub ratchet: Option<Ratchet>,
    /// Shares that are counted: the newest, at most `chain_length`.
    pub counted: u32,
    /// Shares that have to be counted for a decision.
    pub chain_length: u32,
    /// Expected seconds between two shares.
    pub share_period: u32,
    /// Counted shares of the version `target` or a newer one.
    pub shares: u32,
    /// Counted shares that vote for `target` or a newer version.
    pub votes: u32,
    /// Part of the deciding work that votes for exactly `target`, 0 to 1; `None` while too few shares are counted.
    pub deciding: Option<f64>,
    /// Shares that are missing until the ratchet confirms its version; `None` unless it is activated.
    pub until_confirmed: Option<u64>,
    /// What will happen and when, in words; `None` if the network has no version to change to.
    pub outlook: Option<String>,
}

impl Succession {
    /// Returns the succession in `view`, for a node that makes a share of version `next`.
    pub(super) fn of(view: &PoolView, network: &Network, next: Option<ShareVersion>) -> Self {
        let versions = &view.versions;
        let newest = ShareVersion::V36.number();
        let following = || network.successor(view.version?).map(ShareVersion::number);
        let target = if versions.ratchet.is_some() { Some(newest) } else { following() };
        let work = versions.deciding.values().copied().fold(U320::ZERO, |sum, work| sum + work);
        let deciding = |target: u64| ratio(versions.deciding.get(&target).copied().unwrap_or_default(), work);
        let needed = Ratchet::confirm_needed(network.chain_length);
        let activated = versions.ratchet.filter(|ratchet| ratchet.state() == RatchetState::Activated);
        let mut succession = Self {
            version: view.version.map(ShareVersion::number),
            next: next.map(ShareVersion::number),
            target,
            ratchet: versions.ratchet,
            counted: versions.shares,
            chain_length: network.chain_length,
            share_period: network.share_period,
            shares: target.map_or(0, |target| versions.shares_from(target)),
            votes: target.map_or(0, |target| versions.votes_from(target)),
            deciding: target.filter(|_| !work.is_zero()).map(deciding),
            until_confirmed: activated.map(|ratchet| needed.saturating_sub(ratchet.confirm_count())),
            outlook: None,
        };
        succession.outlook = target.map(|target| match succession.ratchet {
            Some(ratchet) => succession.by_ratchet(ratchet.state()),
            None => succession.by_votes(target),
        });
        succession
    }

    /// Word for the state of the ratchet; `None` on networks without one.
    pub fn state(&self) -> Option<&'static str> {
        self.ratchet.map(|ratchet| ratchet.state().word())
    }

    /// Part of the counted shares that vote for the target or a newer version, 0 to 1.
    pub fn vote_part(&self) -> f64 {
        part(self.votes, self.counted)
    }

    /// Part of the counted shares that have the target's version or a newer one, 0 to 1.
    pub fn share_part(&self) -> f64 {
        part(self.shares, self.counted)
    }

    /// True if `percent` of the counted shares, rounded down as in the ratchet, vote for the target.
    fn has_votes(&self, percent: u32) -> bool {
        u64::from(self.votes) * 100 >= u64::from(percent) * u64::from(self.counted)
    }

    fn is_full(&self) -> bool {
        self.counted >= self.chain_length
    }

    fn has_deciding_votes(&self) -> bool {
        self.deciding.is_some_and(|part| part * 100.0 >= f64::from(ACCEPTANCE_PERCENT))
    }

    /// The outlook of a network without a ratchet.
    fn by_votes(&self, target: u64) -> String {
        if let Some(too_few) = self.too_few(target) {
            return too_few;
        }
        let deciding = self.deciding.unwrap_or_default();
        format!(
            "Votes for share version {target}: {} of the newest {} shares. This node changes to it when the oldest tenth \
             of them has more than {ACTIVATION_PERCENT} % by work; it has {}.",
            percent(self.vote_part()),
            self.counted,
            percent(deciding),
        )
    }

    fn by_ratchet(&self, state: RatchetState) -> String {
        let (new, old) = (ShareVersion::V36.number(), ShareVersion::V35.number());
        match state {
            RatchetState::Voting => self.while_voting(new, old),
            RatchetState::Activated => {
                let missing = self.until_confirmed.unwrap_or_default();
                let time = span(missing.saturating_mul(self.share_period.into()));
                let when = if missing > 0 {
                    format!("after {missing} more shares, in about {time}, if {ACTIVATION_PERCENT} % of the newest")
                } else {
                    format!("once {ACTIVATION_PERCENT} % of the newest")
                };
                format!(
                    "Share version {new} is activated. It is confirmed {when} {} shares have it; {} have it now. If less \
                     than {RETURN_PERCENT} % vote for it, version {old} is made again.{}",
                    self.chain_length,
                    percent(self.share_part()),
                    self.not_yet(new),
                )
            }
            RatchetState::Confirmed if self.is_full() && !self.has_votes(RETURN_PERCENT) => format!(
                "Share version {new} was confirmed, but only {} of the newest {} shares vote for it: this node makes \
                 version {old} until {RETURN_PERCENT} % do.",
                percent(self.vote_part()),
                self.counted,
            ),
            RatchetState::Confirmed => {
                format!("Share version {new} is confirmed: the change is complete.{}", self.not_yet(new))
            }
        }
    }

    fn while_voting(&self, new: u64, old: u64) -> String {
        if let Some(too_few) = self.too_few(new) {
            return too_few;
        }
        let votes = format!(
            "This node makes share version {old} and votes for {new}, as do {} of the newest {} shares.",
            percent(self.vote_part()),
            self.counted
        );
        let next = if !self.has_votes(ACTIVATION_PERCENT) {
            format!("At {ACTIVATION_PERCENT} %, it changes to version {new}.")
        } else if !self.has_deciding_votes() {
            format!(
                "That is enough; it changes when the oldest tenth of them has {ACCEPTANCE_PERCENT} % by work, too: it has \
                 {}.",
                percent(self.deciding.unwrap_or_default())
            )
        } else {
            "That is enough; it changes when a vote of another node has come in from a peer.".to_owned()
        };
        format!("{votes} {next}")
    }

    /// Outlook while the chain is too short for any decision.
    fn too_few(&self, target: u64) -> Option<String> {
        (!self.is_full()).then(|| {
            format!(
                "Nothing is decided about share version {target} before the chain has {} shares; it has {}.",
                self.chain_length, self.counted
            )
        })
    }

    /// A sentence if the next share has an older version although `new` is activated.
    fn not_yet(&self, new: u64) -> String {
        match self.next.filter(|next| *next < new) {
            Some(next) => format!(
                " This node still makes version {next}: a share of version {new} may follow when the oldest tenth of the \
                 newest {} shares votes for it with {ACCEPTANCE_PERCENT} % of its work.",
                self.chain_length
            ),
            None => String::new(),
        }
    }
}

fn part(count: u32, of: u32) -> f64 {
    if of == 0 { 0.0 } else { f64::from(count) / f64::from(of) }
}

/// Formats a part from 0 to 1 so that what is short of a threshold does not look as if it had reached it.
fn percent(part: f64) -> String {
    // Against the error of the division.
    format!("{} %", (part * 1000.0 + 1e-6).floor() / 10.0)
}

/// Formats a duration of `seconds` in its largest unit.
fn span(seconds: u64) -> String {
    const HOUR: u64 = 3600;
    match seconds {
        0..6000 => format!("{} minutes", seconds / 60),
        6000..172_800 => format!("{} hours", seconds.div_ceil(HOUR)),
        _ => format!("{} days", seconds.div_ceil(24 * HOUR)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sharechain::chain::pool::{Versions, VoteCount};
    use sharechain::coin::{BITCOIN, LITECOIN};
    use std::collections::BTreeMap;

    fn network() -> Network {
        Network { newest_version: 36, chain_length: 1000, share_period: 15, ..LITECOIN }
    }

    /// A pool of `count` shares of version 35, of which `votes` vote for 36, and with them `deciding` percent.
    fn view(state: &str, count: u32, votes: u32, deciding: u64) -> PoolView {
        let ratchet = format!(r#"{{"state": "{state}", "activated_height": 1000, "confirm_count": 400}}"#);
        let work = |work| U320::from(work);
        let versions = Versions {
            shares: count,
            by_version: BTreeMap::from([(35, count)]),
            by_vote: BTreeMap::from([
                (35, VoteCount { shares: count - votes, oldest: count }),
                (36, VoteCount { shares: votes, oldest: votes }),
            ]),
            deciding: BTreeMap::from([(35, work(100 - deciding)), (36, work(deciding))]),
            ratchet: Some(Ratchet::from_json(&ratchet).unwrap()),
            ..Versions::default()
        };
        PoolView { version: Some(ShareVersion::V35), versions, ..PoolView::default() }
    }

    fn outlook(view: &PoolView, next: ShareVersion) -> String {
        Succession::of(view, &network(), Some(next)).outlook.unwrap()
    }

    #[test]
    fn what_is_missing_for_the_next_version_is_said_step_by_step() {
        let voting = |count, votes, deciding| outlook(&view("voting", count, votes, deciding), ShareVersion::V35);
        assert!(voting(999, 999, 0).contains("before the chain has 1000 shares; it has 999."));
        let votes = voting(1000, 949, 0);
        assert!(
            votes.contains("as do 94.9 % of the newest 1000 shares. At 95 %, it changes to version 36."),
            "{votes}"
        );
        let deciding = voting(1000, 950, 59);
        assert!(deciding.ends_with("has 60 % by work, too: it has 59 %."), "{deciding}");
        assert!(voting(1000, 950, 60).ends_with("has come in from a peer."));

        let activated = outlook(&view("activated", 1000, 960, 90), ShareVersion::V36);
        assert!(activated.contains("after 1600 more shares, in about 7 hours, if 95 %"), "{activated}");
        assert!(activated.contains("0 % have it now") && !activated.contains("still makes"), "{activated}");
        let confirmed = view("confirmed", 1000, 500, 50);
        assert!(outlook(&confirmed, ShareVersion::V36).ends_with("the change is complete."));
        assert!(outlook(&confirmed, ShareVersion::V35).contains("still makes version 35"));
        let deserted = outlook(&view("confirmed", 1000, 499, 50), ShareVersion::V35);
        assert!(deserted.contains("only 49.9 % of the newest 1000 shares vote for it"), "{deserted}");
    }

    #[test]
    fn a_network_without_a_ratchet_counts_votes_for_what_follows_and_says_nothing_at_its_end() {
        let shares = |version: ShareVersion| {
            let versions = Versions {
                shares: 8640,
                by_version: BTreeMap::from([(version.number(), 8640)]),
                by_vote: BTreeMap::from([(35, VoteCount { shares: 8640, oldest: 8640 })]),
                deciding: BTreeMap::from([(35, U320::from(7))]),
                ..Versions::default()
            };
            let view = PoolView { version: Some(version), versions, ..PoolView::default() };
            Succession::of(&view, &BITCOIN, Some(version))
        };
        let last = shares(ShareVersion::V35);
        assert_eq!((last.target, last.state(), last.outlook), (None, None, None));
        let empty = Succession::of(&PoolView::default(), &BITCOIN, None);
        assert_eq!((empty.version, empty.counted, empty.outlook), (None, 0, None));
        let before = shares(ShareVersion::V34);
        assert_eq!((before.target, before.votes, before.deciding), (Some(35), 8640, Some(1.0)));
        assert!(before.outlook.is_some_and(|outlook| outlook.contains("it has 100 %")));
    }
}
