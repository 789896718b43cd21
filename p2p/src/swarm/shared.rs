//! State that connections share: memory, rate limits of their networks, and known proofs of work.

use sharechain::share::Share;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Now, PeerId, Swarm};
use crate::budget::Budget;
use crate::limits::SourceRates;
use crate::peer::{Close, Shared};
use crate::proofs::Proofs;
use crate::sources::Sources;
use crate::transactions::ALL_REMEMBERED_BYTES_MAX;

/// Maximum size of unfinished messages over all connections, in bytes.
pub const UNFINISHED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Proofs kept beyond three chain lengths: all shares kept of a chain, and those that untrusted peers send beside it.
const PROOFS_EXTRA: usize = 1000;

#[derive(Debug)]
pub(super) struct Common {
    pub(super) unfinished: Arc<Budget>,
    pub(super) remembered: Arc<Budget>,
    proofs: Arc<Proofs>,
    sources: Sources,
}

impl Common {
    pub(super) fn new(chain_length: u32) -> Self {
        let proofs_max = 3 * usize::try_from(chain_length).unwrap_or_default() + PROOFS_EXTRA;
        Self {
            unfinished: Budget::of_bytes_and_time(UNFINISHED_BYTES_MAX),
            remembered: Budget::of_bytes(ALL_REMEMBERED_BYTES_MAX),
            proofs: Arc::new(Proofs::new(proofs_max)),
            sources: Sources::default(),
        }
    }
}

impl Swarm {
    /// Returns the state that this connection shares with others, for its [`Peer`](crate::peer::Peer).
    pub fn shared(&self, peer: PeerId) -> Shared {
        let rates = self.connections.get(&peer).map(|connection| connection.limits.shared().to_vec());
        Shared {
            peer,
            unfinished: self.common.unfinished.clone(),
            remembered: self.common.remembered.clone(),
            rates: rates.unwrap_or_default(),
            proofs: self.common.proofs.clone(),
            hasher: None,
        }
    }

    /// Known proofs of work, to add those of shares that did not come from peers.
    pub fn proofs(&self) -> &Arc<Proofs> {
        &self.common.proofs
    }

    /// Rate limits that a new connection shares with others of its network. Nodes that we dial have none: we decide how
    /// often, a minute apart at least, and their neighbours must not be able to use up what is theirs.
    pub(super) fn rates_of(&mut self, address: SocketAddr, is_incoming: bool, now: Now) -> Vec<SourceRates> {
        if is_incoming && !self.bans.is_whitelisted(address.ip()) {
            self.common.sources.rates_of(address.ip(), now.instant)
        } else {
            Vec::new()
        }
    }

    /// Closes the connections that take most of a memory budget until it is kept. None of them misbehaved.
    pub(super) fn relieve_memory(&mut self, now: Now) {
        let budgets = [(&self.common.unfinished, "unfinished messages"), (&self.common.remembered, "transactions")];
        for (budget, what) in budgets.map(|(budget, what)| (Arc::clone(budget), what)) {
            while let Some((peer, bytes)) = budget.take_excess(now.instant) {
                let reason =
                    format!("takes {bytes} bytes for {what}, most of all peers, and together they take too much");
                self.disconnect(peer, Close::Quiet(reason), now);
            }
        }
    }

    /// Handles a verified share.
    pub fn handle_accepted(&mut self, share: &Share) {
        self.common.proofs.note(share);
        for peer in self.relay.note_verified(share.hash()) {
            self.download.note_verified(peer);
        }
    }
}
