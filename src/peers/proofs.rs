//! Proofs of work of shares that did not come from peers.

use p2p::proofs::Proofs;
use sharechain::chain::Sharechain;
use std::sync::Arc;

use crate::chain;

/// Adds the proofs of all shares that were loaded, so that no peer can have them computed again.
pub(super) async fn note_loaded(chain: chain::Handle, proofs: Arc<Proofs>) {
    let note = move |chain: &Sharechain| {
        chain.all().iter().filter_map(|hash| chain.share(hash)).for_each(|share| proofs.note(share));
    };
    // If the chain has ended, so does this node.
    let _ = chain.look(note).await;
}
