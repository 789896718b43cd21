//! The ratchet's place in the share chain: it moves on with the best share, and sets the minimum protocol version.

use super::ratchet::{NEW_VERSION, Ratchet, RatchetState};
use super::view::KnownShare;
use super::{Event, Sharechain, Tally, votes};
use crate::share::ShareHash;

/// Best share, if any, and its height.
pub(super) type BestAt = (Option<ShareHash>, u32);

/// Counts one share for the ratchet.
pub(super) fn tally_of(known: &KnownShare) -> Tally {
    let is_vote = known.share.data().desired_version >= NEW_VERSION.number();
    Tally {
        votes: is_vote.into(),
        votes_of_peers: (is_vote && known.source.is_some()).into(),
        shares: (known.share.version().number() >= NEW_VERSION.number()).into(),
    }
}

impl Sharechain {
    /// Decides between share versions 35 and 36; `None` on networks without that choice.
    pub fn ratchet(&self) -> Option<&Ratchet> {
        self.ratchet.as_ref()
    }

    /// Continues with a saved ratchet from the next choice on. Ignored on networks without one.
    pub fn set_ratchet(&mut self, saved: Ratchet) {
        if let Some(ratchet) = &mut self.ratchet {
            *ratchet = saved;
            self.ratchet_turned_at = None;
        }
    }

    /// Moves the ratchet on if there is a new best share, or another number of shares below it: its decision depends on
    /// nothing else.
    pub(super) fn turn_ratchet(&mut self, now: f64) {
        let Some(mut ratchet) = self.ratchet else { return };
        let best = self.choice.best.and_then(|best| self.share(best).cloned());
        let at = (self.choice.best, best.as_ref().map_or(0, |best| self.all.height(best.hash())));
        if self.ratchet_turned_at.replace(at) == Some(at) {
            return;
        }
        let input = votes::ratchet_input(&self.view(), &ratchet, best.as_deref());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time since 1970, saturating")]
        let decision = ratchet.next(&input, now as u64);
        self.ratchet = Some(ratchet);
        match (decision.changed_from, ratchet.state()) {
            (Some(_), RatchetState::Confirmed) => self.settle_minimum_protocol(),
            (Some(_), RatchetState::Voting) => self.reset_minimum_protocol(),
            _ => {}
        }
        if decision.is_unsaved {
            self.events.push_back(Event::Ratchet { ratchet, changed_from: decision.changed_from });
        }
    }

    /// Lets peers of old protocol versions back in, after the way back to the old share version.
    fn reset_minimum_protocol(&mut self) {
        let initial = self.network.minimum_protocol_version;
        if self.minimum_protocol > initial {
            self.minimum_protocol = initial;
            self.events.push_back(Event::MinimumProtocol(initial));
        }
    }
}

#[cfg(test)]
mod tests;
