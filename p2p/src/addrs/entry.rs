//! An entry of the book: what is known of an address, and its rank in the order of good peers.

use super::scope::Group;

/// An address is proven if it answered us, or if it has been known for this many seconds and has not failed since.
const PROVEN_SECONDS: f64 = 86_400.0;
/// Minimum age in the order of good peers (protocol section 3.5).
const AGE_MIN: f64 = 3600.0;

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) services: u64,
    /// Time when we first learned of it, seconds since 1970. Not the announced time, as in the reference, so that no
    /// peer can invent an old address.
    pub(super) first_seen: f64,
    pub(super) last_seen: f64,
    /// Group of the first source; `None` for bootstrap addresses and those from the file.
    pub(super) source: Option<Group>,
    /// True if it answered us in this run.
    pub(super) answered: bool,
    pub(super) failures: u32,
    pub(super) retry_at: f64,
}

impl Entry {
    pub(super) fn is_proven(&self, now: f64) -> bool {
        self.answered || (self.failures == 0 && now - self.first_seen > PROVEN_SECONDS)
    }

    /// Rank in the order of good peers, lowest first, for one `draw` of Exp(1) (protocol section 3.5).
    pub(super) fn rank(&self, now: f64, draw: f64) -> f64 {
        let known_for = (self.last_seen - self.first_seen).max(AGE_MIN);
        let unseen_for = (now - self.last_seen).max(AGE_MIN);
        -known_for.ln() / unseen_for.ln() * draw
    }
}
