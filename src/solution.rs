//! Decides what a solution is, and sends it on: the block first, before anything else is looked at.

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Target};
use bytes::Bytes;
use metrics::{counter, describe_counter};
use stratum::Solution;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::block::FoundBlock;
use crate::work::Ticket;

/// Solutions that may wait: sessions wait with them when it is full, and their own sockets feel it.
pub const SOLUTIONS_QUEUED_MAX: usize = 1024;

/// Names and explains the metrics of this part.
pub fn describe() {
    describe_counter!("solution_blocks_total", "Solutions that are blocks");
    describe_counter!(
        "solution_nothing_total",
        "Solutions that turned out to be nothing: a mistake in the making of jobs"
    );
    counter!("solution_blocks_total").absolute(0);
    counter!("solution_nothing_total").absolute(0);
}

/// Handles solutions until all who could send one are gone.
pub async fn run(mut solutions: mpsc::Receiver<Solution<Ticket>>, blocks: mpsc::Sender<FoundBlock>) {
    while let Some(solution) = solutions.recv().await {
        let Some(block) = block_of(&solution) else {
            // The job's solution target said otherwise: the two must come from the same template.
            error!(job = %solution.job.id(), worker = %solution.worker, "a solution that solves nothing");
            counter!("solution_nothing_total").increment(1);
            continue;
        };
        counter!("solution_blocks_total").increment(1);
        info!(height = block.height, hash = %block.hash, worker = %solution.worker, payee = %block.payee, "block found");
        if blocks.send(block).await.is_err() {
            warn!("a block was found after submission had stopped");
        }
    }
}

/// The block that `solution` is, if it is one.
fn block_of(solution: &Solution<Ticket>) -> Option<FoundBlock> {
    let ticket = solution.job.ticket();
    let template = ticket.template();
    if Target::from_le_bytes(solution.solved.pow_hash) > template.target {
        return None;
    }
    Some(FoundBlock {
        hash: BlockHash::from_byte_array(solution.solved.hash),
        previous_block: template.previous_block,
        height: template.height,
        bytes: Bytes::from(ticket.block(&solution.solved.header, solution.extranonces)),
        value: template.coinbase_value,
        payee: ticket.payout().to_string(),
        finder: solution.worker.to_string(),
    })
}
