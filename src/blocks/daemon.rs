//! Interface to the daemon, real or embedded: routes that submit blocks, and queries for a block's position.

use bitcoin::BlockHash;
use futures::future::BoxFuture;

use super::block::{FoundBlock, Outcome};

/// Position of a block relative to the daemon's best chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockPosition {
    /// In the best chain.
    InChain {
        height: u32,
        /// Blocks from it to the tip, itself included.
        confirmations: u32,
    },
    /// Known, but not in the best chain.
    Beside {
        height: u32,
    },
    Unknown,
}

/// Access to the daemon's view of the chain.
pub trait Explorer: std::fmt::Debug + Send + Sync {
    /// Looks up a block's position; an error if the daemon does not answer.
    fn place<'a>(&'a self, hash: &'a BlockHash) -> BoxFuture<'a, Result<BlockPosition, String>>;
}

/// One way to submit a block to the daemon.
pub trait Route: Send + Sync + 'static {
    /// Name in metrics, logs and reports, such as `rpc`, `p2p`, `embedded`.
    fn name(&self) -> &'static str;

    /// Makes one attempt and returns its outcome. The route enforces its own timeout: an attempt that hangs ends as
    /// [`Outcome::Failed`].
    fn attempt<'a>(&'a self, block: &'a FoundBlock) -> BoxFuture<'a, Outcome>;
}
