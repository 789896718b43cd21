//! One share, asked for by its hash: what pages and the old JSON tell of it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::share::{Share, ShareHash};
use crate::sharechain::Sharechain;

/// Children that are told of.
const CHILDREN_MAX: usize = 100;

/// A share and where it stands.
#[derive(Debug, Clone)]
pub struct Found {
    /// The share.
    pub share: Arc<Share>,
    /// Its children, those with the most children of their own first; at most a hundred.
    pub children: Vec<ShareHash>,
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
    /// Its block's coinbase without witness, if enough of the chain is here to make it again.
    pub coinbase: Option<Vec<u8>>,
}

/// Looks for a share. Takes a walk over the payout window at most.
pub fn find(chain: &Sharechain, hash: ShareHash) -> Option<Found> {
    let known = chain.known(hash)?;
    let mut children = chain.all().children(Some(hash)).to_vec();
    children.sort_by_key(|child| std::cmp::Reverse(chain.all().children(Some(*child)).len()));
    children.truncate(CHILDREN_MAX);
    let best = chain.choice().best;
    Some(Found {
        share: known.share.clone(),
        children,
        is_verified: chain.verified().contains(&hash),
        in_best_chain: best.is_some_and(|best| chain.all().is_ancestor(hash, best) == Some(true)),
        is_own: chain.own().contains(hash),
        first_seen: known.first_seen,
        source: known.source,
        height: chain.all().height(hash),
        coinbase: chain.stripped_coinbase(hash),
    })
}
