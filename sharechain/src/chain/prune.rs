//! Removes shares that no payout and no choice will need again (protocol section 8.4).

use super::Sharechain;
use crate::share::ShareHash;

/// Maximum number of shares cut from one branch in one call.
const ROUNDS_MAX: usize = 1000;
/// Number of best heads that stay, whatever their age.
const HEADS_KEPT: usize = 5;
/// Minimum age of a removed head, in seconds since it was first seen.
const HEAD_AGE_MIN: f64 = 300.0;
/// Seconds that an unverified head stays after its chain last grew downwards: it may be under download.
const DOWNLOAD_AGE_MIN: f64 = 120.0;
/// Shares beyond twice a chain's length before a tail is cut.
pub(super) const TAIL_SPARE: u32 = 10;

impl Sharechain {
    /// Removes stale heads, and shares below twice a chain's length, and returns them. Call every few seconds, and
    /// choose again afterwards. `now` is in seconds since 1970.
    pub fn prune(&mut self, now: f64) -> Vec<ShareHash> {
        let mut removed = Vec::new();
        if !self.choice.heads.is_empty() {
            self.prune_heads(now, &mut removed);
        }
        self.prune_tails(&mut removed);
        removed
    }

    fn prune_heads(&mut self, now: f64, removed: &mut Vec<ShareHash>) {
        for _ in 0..ROUNDS_MAX {
            let stale: Vec<ShareHash> =
                self.all.heads().iter().copied().filter(|head| self.is_stale_head(*head, now)).collect();
            if stale.is_empty() {
                return;
            }
            for head in stale {
                if self.forget(head) {
                    removed.push(head);
                }
            }
        }
    }

    fn is_stale_head(&self, head: ShareHash, now: f64) -> bool {
        if self.choice.heads.iter().rev().take(HEADS_KEPT).any(|kept| kept.hash == head) {
            return false;
        }
        let seen = |hash: &ShareHash| self.known.get(hash).map_or(0.0, |known| known.first_seen);
        if seen(&head) > now - HEAD_AGE_MIN {
            return false;
        }
        let tail = self.all.last(head);
        self.verified.contains(&head)
            || !self.all.children(tail).iter().any(|share| seen(share) > now - DOWNLOAD_AGE_MIN)
    }

    fn prune_tails(&mut self, removed: &mut Vec<ShareHash>) {
        let enough = 2 * self.network.chain_length + TAIL_SPARE;
        for _ in 0..ROUNDS_MAX {
            let mut surplus = Vec::new();
            for (tail, heads) in self.all.tails() {
                if heads.iter().all(|head| self.all.height(*head) >= enough) {
                    surplus.extend_from_slice(self.all.children(tail));
                }
            }
            if surplus.is_empty() {
                return;
            }
            for share in surplus {
                if self.forget(share) {
                    removed.push(share);
                }
            }
        }
    }
}
