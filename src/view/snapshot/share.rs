//! One share, asked for by its hash: what pages and the old JSON tell of it.

use sharechain::chain::Sharechain;
use sharechain::merkle::Digest;
use sharechain::share::{Share, ShareHash};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

use crate::chain;

/// The chain's owner does other things for so long between two shares that somebody asks for.
const REST: Duration = Duration::from_millis(10);

/// Children that are told of.
const CHILDREN_MAX: usize = 100;

/// Ancestors that are told of.
const ANCESTORS: u32 = 8;

/// A share and where it stands.
#[derive(Debug, Clone)]
pub struct SharePosition {
    /// The share.
    pub share: Arc<Share>,
    /// Its children, those with the most children of their own first; at most a hundred.
    pub children: Vec<ShareHash>,
    /// Its nearest ancestors, the parent first.
    pub ancestors: Vec<ShareHash>,
    /// Whether it fits its ancestors.
    pub is_verified: bool,
    /// Whether it is in the chain that is built on.
    pub in_best_chain: bool,
    /// Whether miners of this node found it.
    pub is_own: bool,
    /// When it came first, seconds since 1970; 0 if it was loaded from disk.
    pub first_seen: f64,
    /// The peer that sent it.
    pub source: Option<SocketAddr>,
    /// Shares from it down.
    pub height: u32,
    /// Its block's coinbase without witness, if that was asked for and enough of the chain is here to make it again.
    pub coinbase: Option<Vec<u8>>,
    /// Its block's other transactions, if that was asked for and its version lists them.
    pub transactions: Vec<Digest>,
}

/// Looks for single shares, one at a time for all who ask: strangers cannot keep the chain's owner from its work.
#[derive(Debug, Clone)]
pub struct Finder {
    chain: chain::Handle,
    place: Arc<Semaphore>,
}

impl Finder {
    /// Looks in `chain`.
    pub fn new(chain: chain::Handle) -> Self {
        Self { chain, place: Arc::new(Semaphore::new(1)) }
    }

    /// The share of this hash, if there is one; `with_block` also makes its block's coinbase again, a walk over the payout
    /// window.
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
