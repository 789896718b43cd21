//! Look-up of a single share by its hash, for pages and the old JSON.

use sharechain::chain::Sharechain;
use sharechain::merkle::Digest;
use sharechain::share::{Share, ShareHash};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

use crate::chain;

/// Pause between two look-ups, for the chain owner's other work.
const REST: Duration = Duration::from_millis(10);

/// Maximum number of children returned.
const CHILDREN_MAX: usize = 100;

/// Maximum number of ancestors returned.
const ANCESTORS: u32 = 8;

/// A share and its position in the chain.
#[derive(Debug, Clone)]
pub struct SharePosition {
    pub share: Arc<Share>,
    /// Its children, those with the most children of their own first; at most a hundred.
    pub children: Vec<ShareHash>,
    /// Its nearest ancestors, parent first.
    pub ancestors: Vec<ShareHash>,
    /// True if it fits its ancestors.
    pub is_verified: bool,
    /// True if it is in the best chain.
    pub in_best_chain: bool,
    /// True if miners of this node found it.
    pub is_own: bool,
    /// Time of its arrival, seconds since 1970; 0 if it was loaded from disk.
    pub first_seen: f64,
    /// Peer that sent it.
    pub source: Option<SocketAddr>,
    /// Number of shares from it down.
    pub height: u32,
    /// Its block's coinbase without witness, if requested and enough of the chain is known to build it.
    pub coinbase: Option<Vec<u8>>,
    /// Its block's other transactions, if requested and its version lists them.
    pub transactions: Vec<Digest>,
}

/// Looks up single shares, one at a time over all callers: strangers cannot block the chain's owner.
#[derive(Debug, Clone)]
pub struct Finder {
    chain: chain::Handle,
    place: Arc<Semaphore>,
}

impl Finder {
    /// Creates a finder for `chain`.
    pub fn new(chain: chain::Handle) -> Self {
        Self { chain, place: Arc::new(Semaphore::new(1)) }
    }

    /// Looks up a share by its hash; `with_block` also builds its block's coinbase, a walk over the payout window.
    pub async fn find(&self, hash: ShareHash, with_block: bool) -> Option<SharePosition> {
        let place = self.place.clone().acquire_owned().await.ok()?;
        let found = self.chain.look(move |chain| find(chain, hash, with_block)).await.flatten();
        tokio::spawn(async move {
            tokio::time::sleep(REST).await;
            drop(place);
        });
        found
    }
}

fn find(chain: &Sharechain, hash: ShareHash, with_block: bool) -> Option<SharePosition> {
    let known = chain.known(hash)?;
    let mut children = chain.all().children(Some(hash)).to_vec();
    children.sort_by_key(|child| std::cmp::Reverse(chain.all().children(Some(*child)).len()));
    children.truncate(CHILDREN_MAX);
    let best = chain.choice().best;
    Some(SharePosition {
        share: known.share.clone(),
        children,
        ancestors: chain.all().chain(hash, ANCESTORS + 1).skip(1).collect(),
        is_verified: chain.verified().contains(&hash),
        in_best_chain: best.is_some_and(|best| chain.all().is_ancestor(hash, best) == Some(true)),
        is_own: chain.own().contains(hash),
        first_seen: known.first_seen,
        source: known.source,
        height: chain.all().height(hash),
        coinbase: if with_block { chain.stripped_coinbase(hash) } else { None },
        transactions: if with_block { chain.listed_transactions(hash) } else { Vec::new() },
    })
}
