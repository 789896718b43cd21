//! What a daemon does for blocks, real or embedded: takes them by one or more routes, and says where they stand.

use bitcoin::BlockHash;
use futures::future::BoxFuture;

use super::block::{FoundBlock, Outcome};

/// Where a block stands, as the daemon sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockPosition {
    /// In the best chain.
    InChain {
        /// Its height.
        height: u32,
        /// Blocks from it to the tip, itself included.
        confirmations: u32,
    },
    /// Known, and not in the best chain.
    Beside {
        /// Its height.
        height: u32,
    },
    /// Not known.
    Unknown,
}

/// Knows the chain.
pub trait Explorer: std::fmt::Debug + Send + Sync {
    /// Where a block stands, or why that is not known just now.
    fn place<'a>(&'a self, hash: &'a BlockHash) -> BoxFuture<'a, Result<BlockPosition, String>>;
}

/// One way for a block to reach the daemon.
pub trait Route: Send + Sync + 'static {
    /// What metrics, logs and reports call it: `rpc`, `p2p`, `embedded`.
    fn name(&self) -> &'static str;

    /// Makes one attempt, and says what is known of the block afterwards. Must end by itself: an attempt that hangs is
    /// an [`Outcome::Failed`] after a timeout of the route's own.
    fn attempt<'a>(&'a self, block: &'a FoundBlock) -> BoxFuture<'a, Outcome>;
}
