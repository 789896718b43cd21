//! Positions of found blocks in a merged chain.

use bitcoin::BlockHash;
use futures::future::BoxFuture;

use super::daemon::Daemon;
use crate::blocks::{BlockPosition, Explorer};

impl Explorer for Daemon {
    fn place<'a>(&'a self, hash: &'a BlockHash) -> BoxFuture<'a, Result<BlockPosition, String>> {
        Box::pin(async move { self.position(hash).await.map_err(|error| error.to_string()) })
    }
}
