//! Proofs of work of shares: those of peers are computed behind miners' submissions, and those of shares that did not come
//! from peers are known already.

use p2p::proofs::{Hasher, Proofs};
use p2p::swarm::PeerId;
use sharechain::chain::Sharechain;
use sharechain::coin::{Network, Pow};
use sharechain::merkle::Digest;
use std::net::Ipv4Addr;
use std::sync::Arc;
use stratum::mining::source::Source;
use stratum::server::hashing::{Hashers, Submitter};
use tokio::task::block_in_place;

use crate::chain;

/// Adds the proofs of all shares that were loaded, so that no peer can have them computed again.
pub(super) async fn note_loaded(chain: chain::Handle, proofs: Arc<Proofs>) {
    let note = move |chain: &Sharechain| {
        chain.all().iter().filter_map(|hash| chain.share(hash)).for_each(|share| proofs.note(share));
    };
    // If the chain has ended, so does this node.
    let _ = chain.look(note).await;
}

/// Returns what computes the proofs of work of a peer's shares on `network`; `None` where they are cheap.
pub(super) fn hasher(hashers: &Arc<Hashers>, peer: PeerId, network: &Network) -> Option<Arc<dyn Hasher>> {
    match network.parent.pow {
        Pow::Sha256d => None,
        pow @ Pow::Scrypt => {
            // All peers are one source: each waits for one hash at a time, so they take turns as it is.
            let submitter = Submitter { source: Source::of(Ipv4Addr::UNSPECIFIED.into()), number: peer.0 };
            Some(Arc::new(BehindMiners { hashers: hashers.clone(), submitter, pow: pow.function() }))
        }
    }
}

/// Has proofs of work computed by the hashing threads, behind miners' submissions. Other tasks go on meanwhile.
#[derive(Debug)]
struct BehindMiners {
    hashers: Arc<Hashers>,
    submitter: Submitter,
    pow: fn(&[u8; 80]) -> Digest,
}

impl Hasher for BehindMiners {
    fn hash(&self, header: &[u8; 80]) -> Digest {
        block_in_place(|| self.hashers.hash_share(self.submitter, header, self.pow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sharechain::coin::{BITCOIN_REGTEST, LITECOIN_REGTEST};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_peers_costly_proofs_are_computed_by_the_hashing_threads_and_cheap_ones_on_the_spot() {
        let hashers = Arc::<Hashers>::default();
        assert!(hasher(&hashers, PeerId(1), &BITCOIN_REGTEST).is_none());
        let hasher = hasher(&hashers, PeerId(1), &LITECOIN_REGTEST).expect("scrypt is costly");
        // In a task, as a connection is: the runtime's other tasks go on.
        let hash = tokio::spawn(async move { hasher.hash(&[7; 80]) }).await.expect("it does not panic");
        assert_eq!(hash, Pow::Scrypt.function()(&[7; 80]));
    }
}
