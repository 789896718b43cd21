//! Looks up the heights of the parent chain's blocks that shares refer to.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use sharechain::merkle::Digest;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::rpc::Rpc;
use crate::template::Template;

/// Maximum number of heights remembered: the blocks of some months.
const HEIGHTS_MAX: usize = 32 * 1024;

/// Capacity of the request queue.
const QUEUE_MAX: usize = 1024;

/// Handles for users of the heights.
#[derive(Debug, Clone)]
pub struct Heights {
    /// Requests for a block's height.
    pub wanted: mpsc::Sender<Digest>,
    /// Heights by block hash (raw digests). Blocks unknown to the daemon are absent.
    pub known: watch::Receiver<Arc<HashMap<Digest, u32>>>,
}

/// Task that answers from templates alone, or from the daemon as well.
#[derive(Debug)]
pub struct HeightWatcher {
    rpc: Option<Rpc>,
    templates: watch::Receiver<Option<Arc<Template>>>,
    wanted: mpsc::Receiver<Digest>,
    known: watch::Sender<Arc<HashMap<Digest, u32>>>,
}

/// Creates the handles and the task. Without `rpc` only the blocks that templates build on are known.
pub fn new(rpc: Option<Rpc>, templates: watch::Receiver<Option<Arc<Template>>>) -> (Heights, HeightWatcher) {
    let (wanted_sender, wanted) = mpsc::channel(QUEUE_MAX);
    let (known_sender, known) = watch::channel(Arc::default());
    (Heights { wanted: wanted_sender, known }, HeightWatcher { rpc, templates, wanted, known: known_sender })
}

impl HeightWatcher {
    /// Answers requests until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.templates.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let template = self.templates.borrow_and_update().clone();
                    if let Some(template) = template {
                        self.learn(template.previous_block.to_byte_array(), template.height.saturating_sub(1));
                    }
                }
                Some(block) = self.wanted.recv() => {
                    if !self.known.borrow().contains_key(&block)
                        && let Some(height) = self.ask(block).await
                    {
                        self.learn(block, height);
                    }
                }
            }
        }
    }

    async fn ask(&self, block: Digest) -> Option<u32> {
        let hash = BlockHash::from_byte_array(block);
        match self.rpc.as_ref()?.header(&hash).await {
            Ok(header) => Some(header.height),
            Err(error) => {
                debug!(block = %hash, %error, "height unknown");
                None
            }
        }
    }

    fn learn(&self, block: Digest, height: u32) {
        if self.known.borrow().get(&block) == Some(&height) {
            return;
        }
        self.known.send_modify(|known| {
            let known = Arc::make_mut(known);
            known.insert(block, height);
            if known.len() > HEIGHTS_MAX {
                let highest = known.values().copied().max().unwrap_or_default();
                let oldest = highest.saturating_sub(u32::try_from(HEIGHTS_MAX / 2).unwrap_or(u32::MAX));
                known.retain(|_, height| *height >= oldest);
            }
        });
    }
}
