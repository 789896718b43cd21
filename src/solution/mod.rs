//! Classifies each solution as block, merged chains' blocks, share or several of these, and sends it on: the block first,
//! the share last.

pub mod peer_blocks;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bytes::Bytes;
use metrics::{counter, describe_counter};
use sharechain::share::Draft;
use std::collections::VecDeque;
use std::sync::Arc;
use stratum::Solution;
use tokio::sync::mpsc;
use tracing::{error, info};

use crate::blocks::{Finding, FoundBlock};
use crate::chain::{OwnShare, OwnShares};
use crate::merged::{MergedBlocks, Sent};
use crate::work::{Goal, Ticket};

/// Capacity of the solution queue: sessions wait when it is full, and stop reading from their sockets.
pub const SOLUTIONS_QUEUED_MAX: usize = 1024;

/// Maximum number of our shares waiting for a blocked share chain. At a share every few seconds that is hours; each
/// takes some kilobytes.
const SHARES_WAITING_MAX: usize = 8192;

/// Registers the metrics of this module.
pub fn describe() {
    describe_counter!("solution_blocks_total", "Solutions that are blocks");
    describe_counter!("solution_merged_blocks_total", "Solutions that are blocks of merged chains, one for each block");
    describe_counter!("solution_shares_total", "Solutions that are shares");
    describe_counter!("solution_nothing_total", "Solutions that are neither: a bug in the making of jobs");
    counter!("solution_blocks_total").absolute(0);
    counter!("solution_merged_blocks_total").absolute(0);
    counter!("solution_shares_total").absolute(0);
    counter!("solution_nothing_total").absolute(0);
    peer_blocks::describe();
}

/// Destinations of solutions.
#[derive(Debug)]
pub struct Outputs {
    /// Blocks of the parent chain.
    pub blocks: mpsc::Sender<FoundBlock>,
    /// Blocks of merged chains.
    pub merged: MergedBlocks,
    /// Shares.
    pub shares: OwnShares,
}

/// Processes solutions until all senders are dropped. Blocks never wait for the share chain: shares that it cannot take
/// at once wait here, in order.
pub async fn run(mut solutions: mpsc::Receiver<Solution<Ticket>>, outputs: Outputs) {
    let shares = &outputs.shares;
    let mut waiting: VecDeque<OwnShare> = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            solution = solutions.recv() => match solution {
                Some(solution) => take(solution, &outputs, &mut waiting).await,
                None => break,
            },
            room = shares.room(), if !waiting.is_empty() => match room {
                Ok(room) => room.send(waiting.pop_front().expect("it is not empty")),
                Err(_) => waiting.clear(),
            },
        }
        // Without another turn where there is room, the usual case.
        while !waiting.is_empty()
            && let Some(room) = shares.try_room()
        {
            room.send(waiting.pop_front().expect("it is not empty"));
        }
    }
    // The share chain ends after its last sender.
    for share in waiting {
        if let Ok(room) = shares.room().await {
            room.send(share);
        }
    }
}

async fn take(solution: Solution<Ticket>, outputs: &Outputs, waiting: &mut VecDeque<OwnShare>) {
    let Outputs { blocks, merged, shares } = outputs;
    let ticket = solution.job.ticket();
    let draft = match ticket.draft() {
        Ok(draft) => draft,
        Err(error) => {
            error!(job = %solution.job.id(), %error, "cannot rebuild the coinbase of a solution");
            counter!("solution_nothing_total").increment(1);
            return;
        }
    };
    let reached = ticket.reached(&solution.solved.pow_hash);
    if reached.contains(&Goal::Block) {
        counter!("solution_blocks_total").increment(1);
        let block = block_of(&solution, &draft);
        let (height, hash) = (block.height, block.hash);
        // Sent before it is logged.
        if blocks.send(block).await.is_err() {
            error!(height, %hash, "block found after submission had ended");
        }
        info!(height, %hash, worker = %solution.worker, "block found");
    }
    for goal in &reached {
        if let Goal::Merged(index) = goal {
            take_merged(*index, &solution, &draft, merged);
        }
    }
    if reached.contains(&Goal::Share) {
        counter!("solution_shares_total").increment(1);
        match ticket.share(&draft, &solution.solved.header, solution.extranonces) {
            Ok(share) => {
                if waiting.len() >= SHARES_WAITING_MAX {
                    error!(waiting = waiting.len(), "share chain blocked: dropping our oldest share");
                    waiting.pop_front();
                }
                waiting.push_back(shares.store(Arc::new(share), solution.judged));
            }
            Err(error) => error!(job = %solution.job.id(), %error, "cannot make a share of a solution"),
        }
    }
    if reached.is_empty() {
        // Contradicts the job's solution target: both must come from the same work.
        error!(job = %solution.job.id(), worker = %solution.worker, "solution is neither a block nor a share");
        counter!("solution_nothing_total").increment(1);
    }
}

/// Passes on the merged chain's block at `index` of the solution's work.
fn take_merged(index: usize, solution: &Solution<Ticket>, draft: &Draft, merged: &MergedBlocks) {
    let found = solution.job.ticket().merged_block(index, draft, &solution.solved.header, solution.extranonces);
    let Some((block, proof)) = found else { return };
    let found = FoundBlock {
        hash: BlockHash::from_byte_array(block.hash),
        previous_block: BlockHash::from_byte_array(block.previous_block),
        height: block.height,
        bytes: proof.into(),
        finding: Finding {
            value: block.value.unwrap_or_default(),
            payee: block.payee.to_string(),
            finder: solution.worker.to_string(),
            is_ours: true,
        },
        judged_at: Some(solution.judged),
    };
    let (chain, height, hash) = (&*block.chain, block.height, found.hash);
    match merged.send(chain, found) {
        Ok(Sent::New) => {
            counter!("solution_merged_blocks_total").increment(1);
            info!(chain, height, %hash, worker = %solution.worker, "block of a merged chain found");
        }
        // The daemon has not made another block yet.
        Ok(Sent::Again | Sent::Known) => {}
        Err(error) => error!(chain, height, %hash, %error, "a merged chain's block cannot be submitted"),
    }
}

fn block_of(solution: &Solution<Ticket>, draft: &Draft) -> FoundBlock {
    let ticket = solution.job.ticket();
    let template = ticket.template();
    FoundBlock {
        hash: BlockHash::from_byte_array(solution.solved.hash),
        previous_block: template.previous_block,
        height: template.height,
        bytes: Bytes::from(ticket.block(draft, &solution.solved.header, solution.extranonces)),
        finding: Finding {
            value: template.coinbase_value,
            payee: ticket.payees_in_words(draft),
            finder: solution.worker.to_string(),
            is_ours: true,
        },
        judged_at: Some(solution.judged),
    }
}
