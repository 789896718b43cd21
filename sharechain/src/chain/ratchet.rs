//! `Ratchet`: which of share versions 35 and 36 this node makes while the pool goes from one to the other
//! (protocol-v36 section 2.2). Facts about the chain in, a decision out; no chain, disk or clock.
//!
//! ```text
//!            95 % of a full window vote 36,
//!            and so do 60 % of its oldest work           2 windows later, 95 % of shares are 36
//!  voting ─────────────────────────────────▶ activated ─────────────────────────────────▶ confirmed
//!  makes 35 ◀─────────────────────────────── makes 36                                     makes 36, or 35 while
//!            less than 50 % vote 36                                                       less than 50 % vote 36
//! ```
//!
//! The machine is the fork's, with three differences. None of them changes which shares are valid: the state decides
//! only what this node makes, and which protocol version it asks of its peers.
//!
//! * After a parent of version 35 it makes 36 only if such a share is valid, in every state (protocol-v36 trap 13).
//! * Confirmation counts by `absheight`, which grows with every share of the chain. The fork counts by the number of
//!   shares in memory, which stands still once the chain is pruned: a node that starts on a long chain never confirms
//!   there (protocol-v36 trap 14).
//! * Activation needs votes of two origins, as in c2pool: otherwise a node that is alone on its chain agrees with
//!   itself.

use serde::{Deserialize, Serialize};
use std::fmt;

use crate::share::ShareVersion;

/// Version that the ratchet leads to. Every share of this node votes for it.
pub(super) const NEW_VERSION: ShareVersion = ShareVersion::V36;
/// Version before it.
pub(super) const OLD_VERSION: ShareVersion = ShareVersion::V35;

/// Percentage of a full window whose votes activate the new version, and whose versions confirm it.
const ACTIVATION_PERCENT: u64 = 95;
/// Below this percentage of votes, a full window leads back to the old version.
const DEACTIVATION_PERCENT: u64 = 50;
/// Windows after activation until the new version is confirmed.
const CONFIRMATION_WINDOWS: u64 = 2;
/// Minimum number of origins of the votes that activate.
const ORIGINS_MIN: u32 = 2;
/// Parts of a window by which the count has to grow to be saved again.
const SAVED_PARTS: u64 = 10;

/// State of a [`Ratchet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RatchetState {
    /// The old version is made, the new one voted for.
    #[default]
    Voting,
    /// The new version is made, until too few vote for it.
    Activated,
    /// The new version is made, also on an empty chain. Lasts forever.
    Confirmed,
}

impl fmt::Display for RatchetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The ratchet of one node. As JSON it is the fork's `v36_ratchet.json` and one more key; either node reads the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ratchet {
    state: RatchetState,
    /// Time of activation, seconds since 1970.
    activated_at: Option<u64>,
    /// Shares in memory at activation. Without it, the fork counts nothing.
    activated_height: Option<u64>,
    /// Time of confirmation, seconds since 1970.
    confirmed_at: Option<u64>,
    /// Shares since activation, and those that the window did not need then.
    confirm_count: u64,
    /// `absheight` of the last share in `confirm_count`. The fork has no such key: a node that reads the fork's file
    /// goes on from the first share it sees, as the fork does after a restart. With it, a restart continues exactly.
    counted_to: Option<u32>,
    /// The count as last saved.
    #[serde(skip)]
    saved_count: u64,
}

/// Facts about the share to build on, and about the newest `min(height, chain_length)` shares: the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RatchetInput {
    /// Shares from the best one down to the end of its chain; 0 without a chain.
    pub height: u32,
    /// `absheight` of the best share.
    pub absheight: u32,
    /// Shares in a full window: `CHAIN_LENGTH` of the network.
    pub chain_length: u32,
    /// Shares of the window that vote for the new version or a newer one.
    pub votes: u32,
    /// Shares of the window that have the new version or a newer one.
    pub shares: u32,
    /// Distinct origins of the window's votes, this node included: it always votes. Enough are counted up to 2.
    pub origins: u32,
    /// True if a share of the new version may follow a best share of the old one: at least 60 % of the work in the
    /// oldest tenth of a full window votes for exactly the new version (protocol-v36 section 2.1). Read only in state
    /// voting and if the best share has the old version.
    pub work_test: bool,
    /// Version of the best share; `None` without a chain.
    pub parent: Option<ShareVersion>,
}

impl RatchetInput {
    /// Shares in the window.
    fn window(&self) -> u32 {
        self.height.min(self.chain_length)
    }

    /// True if the window is full. A missing vote is none, so nothing is decided before (protocol-v36 trap 34).
    fn is_full(&self) -> bool {
        self.height >= self.chain_length
    }

    /// Percentage of `part` shares in the window, rounded down.
    fn percent(&self, part: u32) -> u64 {
        (u64::from(part) * 100).checked_div(u64::from(self.window())).unwrap_or_default()
    }

    /// True if a share of the new version may follow the best share.
    fn allows_new(&self) -> bool {
        match self.parent {
            None | Some(NEW_VERSION) => true,
            Some(OLD_VERSION) => self.is_full() && self.work_test,
            Some(_) => false,
        }
    }
}

/// Result of [`Ratchet::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RatchetDecision {
    /// Version to make after the best share.
    pub version: ShareVersion,
    /// State before, if it changed.
    pub changed_from: Option<RatchetState>,
    /// True if the ratchet is to be saved: it changed its state, or counted for a while.
    pub is_unsaved: bool,
}

impl Ratchet {
    /// Reads a saved ratchet. Unknown keys are ignored, missing ones count as in a fresh one.
    ///
    /// # Errors
    /// The text is no JSON of this kind.
    pub fn from_json(text: &str) -> serde_json::Result<Ratchet> {
        // Only an object: with all its fields optional, an empty list would do as well.
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)?;
        let mut ratchet: Ratchet = serde_json::from_value(object.into())?;
        ratchet.saved_count = ratchet.confirm_count;
        Ok(ratchet)
    }

    /// Writes the ratchet for [`from_json`](Self::from_json).
    ///
    /// # Panics
    /// Never: numbers and words only.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and words are JSON")
    }

    /// Current state.
    pub fn state(&self) -> RatchetState {
        self.state
    }

    /// Time of activation, seconds since 1970.
    pub fn activated_at(&self) -> Option<u64> {
        self.activated_at
    }

    /// Shares in memory at activation, as in the fork's file.
    pub fn activated_height(&self) -> Option<u64> {
        self.activated_height
    }

    /// Time of confirmation, seconds since 1970.
    pub fn confirmed_at(&self) -> Option<u64> {
        self.confirmed_at
    }

    /// Shares counted towards the [number](Self::confirm_needed) that confirms.
    pub fn confirm_count(&self) -> u64 {
        self.confirm_count
    }

    /// Count that confirms the new version on a network of this chain length.
    pub fn confirm_needed(chain_length: u32) -> u64 {
        CONFIRMATION_WINDOWS * u64::from(chain_length)
    }

    /// True if the new version is confirmed: peers then need its protocol version (protocol-v36 section 2.3).
    pub fn is_confirmed(&self) -> bool {
        self.state == RatchetState::Confirmed
    }

    /// Moves on by the best share at `now`, in seconds since 1970, and decides what to make after it.
    /// Call for every new best share.
    pub fn next(&mut self, input: &RatchetInput, now: u64) -> RatchetDecision {
        let before = self.state;
        let mut is_unsaved = false;
        if input.height > 0 {
            match self.state {
                RatchetState::Voting if activates(input) => self.activate(input, now),
                RatchetState::Activated if is_deserted(input) => *self = Ratchet::default(),
                RatchetState::Activated => {
                    is_unsaved = self.count(input);
                    self.confirm_if_due(input, now);
                }
                RatchetState::Voting | RatchetState::Confirmed => {}
            }
        }
        is_unsaved |= before != self.state;
        if is_unsaved {
            self.saved_count = self.confirm_count;
        }
        let changed_from = (before != self.state).then_some(before);
        RatchetDecision { version: self.version_after(input), changed_from, is_unsaved }
    }

    /// Version to make after any share, as the state is now.
    pub fn version_after(&self, input: &RatchetInput) -> ShareVersion {
        let wants_new = match self.state {
            RatchetState::Voting => false,
            // On an empty chain, activation may have been another chain's.
            RatchetState::Activated => input.height > 0,
            RatchetState::Confirmed => input.height == 0 || !is_deserted(input),
        };
        if wants_new && input.allows_new() { NEW_VERSION } else { OLD_VERSION }
    }

    fn activate(&mut self, input: &RatchetInput, now: u64) {
        *self = Ratchet {
            state: RatchetState::Activated,
            activated_at: Some(now),
            activated_height: Some(input.height.into()),
            // By shares in memory, as in the fork: `absheight` counts from the chain's first share, years ago.
            confirm_count: u64::from(input.height.saturating_sub(input.chain_length)),
            counted_to: Some(input.absheight),
            ..Ratchet::default()
        };
        self.confirm_if_due(input, now);
    }

    /// Counts the shares since the last call; true if the count is to be saved.
    fn count(&mut self, input: &RatchetInput) -> bool {
        if self.activated_height.is_none() {
            return false;
        }
        let needed = Self::confirm_needed(input.chain_length);
        let was_enough = self.confirm_count >= needed;
        match self.counted_to {
            Some(last) if input.absheight >= last => {
                // Of another chain, no more shares count than are in memory.
                let new = (input.absheight - last).min(input.height);
                self.confirm_count = self.confirm_count.saturating_add(new.into());
                self.counted_to = Some(input.absheight);
            }
            // The best share is older, and shares up to the last one were counted: none counts twice.
            Some(last) if last - input.absheight <= input.height => {}
            // The first share after a start, or a chain that begins elsewhere.
            _ => {
                self.counted_to = Some(input.absheight);
                return true;
            }
        }
        let part = (u64::from(input.chain_length) / SAVED_PARTS).max(1);
        let is_enough = self.confirm_count >= needed;
        is_enough != was_enough || self.confirm_count.saturating_sub(self.saved_count) >= part
    }

    fn confirm_if_due(&mut self, input: &RatchetInput, now: u64) {
        if self.confirm_count >= Self::confirm_needed(input.chain_length)
            && input.percent(input.shares) >= ACTIVATION_PERCENT
        {
            self.state = RatchetState::Confirmed;
            self.confirmed_at = Some(now);
        }
    }
}

impl RatchetState {
    /// Word for the state, as in the saved ratchet.
    pub fn word(self) -> &'static str {
        match self {
            RatchetState::Voting => "voting",
            RatchetState::Activated => "activated",
            RatchetState::Confirmed => "confirmed",
        }
    }
}

fn activates(input: &RatchetInput) -> bool {
    input.is_full()
        && input.percent(input.votes) >= ACTIVATION_PERCENT
        && input.work_test
        && input.origins >= ORIGINS_MIN
}

/// True if a full window does not want the new version any more.
fn is_deserted(input: &RatchetInput) -> bool {
    input.is_full() && input.percent(input.votes) < DEACTIVATION_PERCENT
}

#[cfg(test)]
mod tests;
