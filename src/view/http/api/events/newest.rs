//! Notices new blocks of merged chains: their records come as snapshots of all.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use tokio::sync::watch;

use super::super::merged::chain_of;
use crate::blocks::found::{FoundBlocks, Record};

/// Maximum number of records that are looked at after a change: more new ones at once are not announced one by one.
const LOOKED_AT_MAX: usize = 64;

/// Merged chains' blocks as one subscriber knows them.
#[derive(Debug)]
pub(super) struct NewestMerged {
    found: watch::Receiver<Arc<FoundBlocks>>,
    /// Time of each chain's newest block. Each chain has its own task, so the blocks of all do not come in order.
    newest: BTreeMap<String, f64>,
    /// New blocks, oldest first.
    waiting: VecDeque<Arc<Record>>,
}

impl NewestMerged {
    /// Starts with the blocks of now, which are not new.
    pub(super) fn of(mut found: watch::Receiver<Arc<FoundBlocks>>) -> Self {
        let mut newest = BTreeMap::new();
        for record in &found.borrow_and_update().blocks {
            // Latest first.
            newest.entry(chain_of(record).to_owned()).or_insert(record.found_at);
        }
        Self { found, newest, waiting: VecDeque::new() }
    }

    /// Waits for the next new block. May be cancelled.
    pub(super) async fn next(&mut self) -> Arc<Record> {
        loop {
            if let Some(record) = self.waiting.pop_front() {
                return record;
            }
            if self.found.changed().await.is_err() {
                // A node without merged chains.
                return pending().await;
            }
            let found = self.found.borrow_and_update().clone();
            self.note(&found);
        }
    }

    fn note(&mut self, found: &FoundBlocks) {
        let is_new =
            |record: &Arc<Record>| self.newest.get(chain_of(record)).is_none_or(|newest| record.found_at > *newest);
        let new: Vec<Arc<Record>> =
            found.blocks.iter().take(LOOKED_AT_MAX).filter(|record| is_new(record)).cloned().collect();
        for record in new.into_iter().rev() {
            self.newest.insert(chain_of(&record).to_owned(), record.found_at);
            self.waiting.push_back(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::found::Standing;
    use crate::view::http::testing::merged_block;
    use futures::FutureExt;

    #[tokio::test]
    async fn each_new_block_comes_once_also_where_another_chain_was_faster() {
        let found = |blocks: &[(&str, u8, Standing)]| {
            let blocks = blocks.iter().map(|(chain, number, standing)| merged_block(chain, *number, *standing));
            Arc::new(FoundBlocks { blocks: blocks.map(Arc::new).collect() })
        };
        let old = ("doge", 10, Standing::Mature);
        let (sender, receiver) = watch::channel(found(&[old]));
        let mut newest = NewestMerged::of(receiver);
        let mut all = || {
            let mut times = Vec::new();
            while let Some(record) = newest.next().now_or_never() {
                times.push(record.found_at);
            }
            times
        };
        assert_eq!(all(), [] as [f64; 0], "it was there before");
        let (twelve, thirteen) = (("doge", 12, Standing::Submitted), ("doge", 13, Standing::Submitted));
        sender.send_replace(found(&[thirteen, twelve, old]));
        assert_eq!(all(), [12.0, 13.0]);
        // Found before the last of the other chain, by a task that came later.
        let other = ("nmc", 11, Standing::Submitted);
        sender.send_replace(found(&[thirteen, twelve, other, old]));
        assert_eq!(all(), [11.0]);
        sender.send_replace(found(&[("doge", 13, Standing::Confirming), twelve, other, old]));
        assert_eq!(all(), [] as [f64; 0], "a change of state is no new block");
        drop(sender);
        assert_eq!(all(), [] as [f64; 0]);
    }
}
