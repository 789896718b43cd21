//! Pending requests for shares, in both directions (protocol section 3.7).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Close, RequestId};
use crate::message::REPLY_SHARES_MAX;

/// Time limit for the start of a peer's answer.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum pending requests of a peer. Honest peers have at most a few.
const ASKED_MAX: usize = 64;

#[derive(Debug)]
struct Pending {
    request: RequestId,
    deadline: Instant,
    shares_max: usize,
}

/// Pending requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pending: HashMap<[u8; 32], Pending>,
    asked: usize,
}

impl Requests {
    /// Records a request that is sent.
    pub(super) fn sent(&mut self, id: [u8; 32], request: RequestId, hashes: usize, parents: u64, now: Instant) {
        let shares_max = shares_max(hashes, parents);
        self.pending.insert(id, Pending { request, deadline: now + REPLY_TIMEOUT, shares_max });
    }

    /// Returns the request answered by `id` and the maximum number of its shares; `None` if no request has this id.
    pub(super) fn replied(&mut self, id: &[u8; 32]) -> Option<(RequestId, usize)> {
        self.pending.remove(id).map(|pending| (pending.request, pending.shares_max))
    }

    /// True while an answer is pending.
    pub(super) fn are_open(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Deadline of the oldest request.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.deadline).min()
    }

    /// Records a request of the peer.
    pub(super) fn asked(&mut self) -> Result<(), Close> {
        self.asked += 1;
        if self.asked > ASKED_MAX {
            return Err(Close::Quiet(format!("{ASKED_MAX} share requests without waiting for an answer")));
        }
        Ok(())
    }

    /// Records that one was answered.
    pub(super) fn answered(&mut self) {
        self.asked = self.asked.saturating_sub(1);
    }
}

/// Maximum number of shares in the reference's answer.
fn shares_max(hashes: usize, parents: u64) -> usize {
    let parents = usize::try_from(parents).unwrap_or(usize::MAX).min(REPLY_SHARES_MAX / hashes.max(1));
    hashes.saturating_mul(parents + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_with_no_more_than_the_reference_would() {
        assert_eq!(shares_max(1, 0), 1);
        assert_eq!(shares_max(1, 499), 500);
        assert_eq!(shares_max(1, u64::MAX), 1_001);
        assert_eq!(shares_max(3, 999), 1_002);
        assert_eq!(shares_max(2_000, 10), 2_000);
    }
}
