//! Found blocks of all merged chains in one list.

use futures::future::select_all;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::blocks::found::{FoundBlocks, Record};

/// Publishes the records of all chains, latest first, until `stop`, or until a chain's are followed no longer.
pub(super) async fn run(
    mut chains: Vec<watch::Receiver<Arc<FoundBlocks>>>,
    published: watch::Sender<Arc<FoundBlocks>>,
    stop: CancellationToken,
) {
    while !chains.is_empty() {
        let all = gathered(chains.iter_mut().map(|chain| chain.borrow_and_update().clone()));
        published.send_if_modified(|before| {
            let is_new = **before != all;
            if is_new {
                *before = Arc::new(all);
            }
            is_new
        });
        let changed = select_all(chains.iter_mut().map(|chain| Box::pin(chain.changed())));
        tokio::select! {
            () = stop.cancelled() => return,
            (changed, ..) = changed => if changed.is_err() { return },
        }
    }
}

fn gathered(chains: impl Iterator<Item = Arc<FoundBlocks>>) -> FoundBlocks {
    let mut blocks: Vec<Arc<Record>> = chains.flat_map(|chain| chain.blocks.clone()).collect();
    blocks.sort_by(|one, other| other.found_at.total_cmp(&one.found_at));
    FoundBlocks { blocks }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Finding;
    use crate::blocks::found::Standing;
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;

    fn found(chain: &str, at: &[f64]) -> Arc<FoundBlocks> {
        let record = |found_at: &f64| {
            Arc::new(Record {
                hash: BlockHash::from_byte_array([7; 32]),
                chain: Some(chain.into()),
                previous_block: None,
                height: None,
                finding: Finding { value: 1, payee: "D8".into(), finder: "worker".into(), is_ours: true },
                found_at: *found_at,
                routes: Vec::new(),
                verdict: None,
                not_submitted: None,
                standing: Standing::Submitted,
                standing_since: *found_at,
                confirmations: 0,
                is_settled: false,
            })
        };
        Arc::new(FoundBlocks { blocks: at.iter().map(record).collect() })
    }

    #[tokio::test]
    async fn the_blocks_of_all_chains_are_one_list_latest_first() {
        let (one, one_found) = watch::channel(found("one", &[9.0, 3.0]));
        let (two, two_found) = watch::channel(found("two", &[]));
        let (sender, mut all) = watch::channel(Arc::default());
        let task = tokio::spawn(run(vec![one_found, two_found], sender, CancellationToken::new()));
        let mut times = async || {
            all.changed().await.unwrap();
            let all = all.borrow_and_update().clone();
            all.blocks
                .iter()
                .map(|block| (block.found_at, block.chain.clone().unwrap().to_string()))
                .collect::<Vec<_>>()
        };
        assert_eq!(times().await, [(9.0, "one".to_owned()), (3.0, "one".to_owned())]);
        two.send_replace(found("two", &[5.0]));
        assert_eq!(times().await.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [9.0, 5.0, 3.0]);
        one.send_replace(found("one", &[9.5, 9.0, 3.0]));
        assert_eq!(times().await.len(), 4);
        drop(one);
        task.await.unwrap();
    }
}
