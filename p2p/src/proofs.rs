//! Proofs of work computed lately: a share that comes again, from another peer or the same, is not hashed again.

use parking_lot::Mutex;
use sharechain::merkle::Digest;
use sharechain::share::{Share, ShareHash};
use std::collections::{HashMap, VecDeque};
use std::fmt;

/// Computes proofs of work in the place of the network's function: where they are costly, a driver lets others go first.
pub trait Hasher: fmt::Debug + Send + Sync {
    /// Returns the proof-of-work hash of `header`.
    fn hash(&self, header: &[u8; 80]) -> Digest;
}

/// Proof-of-work hashes by the hash that identifies their header. Only shares that met their target are kept, so
/// replacing the entries costs an attacker as many shares. Shared by all connections.
#[derive(Debug)]
pub struct Proofs {
    kept_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<ShareHash, Digest>,
    /// Oldest first.
    order: VecDeque<ShareHash>,
}

impl Proofs {
    /// Creates an empty set of at most `kept_max` proofs.
    pub(crate) fn new(kept_max: usize) -> Proofs {
        Proofs { kept_max, state: Mutex::default() }
    }

    /// Returns the proof-of-work hash of a share's header, if it is known.
    pub(crate) fn find(&self, hash: &ShareHash) -> Option<Digest> {
        self.state.lock().known.get(hash).copied()
    }

    /// Records the proof of a share.
    pub fn note(&self, share: &Share) {
        let mut state = self.state.lock();
        if state.known.insert(share.hash(), *share.pow_hash()).is_some() {
            return;
        }
        state.order.push_back(share.hash());
        if state.order.len() > self.kept_max {
            let oldest = state.order.pop_front();
            oldest.map(|oldest| state.known.remove(&oldest));
        }
    }

    /// Number of proofs.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.state.lock().known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_shares::{USUAL, chain};

    #[test]
    fn as_many_proofs_are_kept_as_were_promised_and_the_oldest_goes_first() {
        let proofs = Proofs::new(3);
        let shares = chain(5, 0, USUAL);
        for share in shares.iter().chain(&shares[4..]) {
            proofs.note(share);
        }
        assert_eq!(proofs.len(), 3);
        assert!(proofs.find(&shares[1].hash()).is_none());
        assert!(shares[2..].iter().all(|share| proofs.find(&share.hash()) == Some(*share.pow_hash())));
    }
}
