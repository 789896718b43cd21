//! Rebuilds the blocks of peers' shares that solve one: more routes bring a block into the chain sooner.
//!
//! A share proves its block's transactions without carrying them. Before version 34 it lists their hashes, and this
//! node may know them all. From then on it has only the merkle branch, so the block can be rebuilt only if our daemon
//! made the same template as the finder's: most likely for empty blocks, or where both use one daemon.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bytes::Bytes;
use metrics::{counter, describe_counter};
use sharechain::merkle::{self, Digest};
use sharechain::share::Share;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info};

use crate::blocks::{Finding, FoundBlock, Sighting};
use crate::chain::SolvedShare;
use crate::template::{RecentTemplates, Template, TemplateTransaction};
use crate::work::room;

/// Capacity of the queue of blocks that cannot be rebuilt here.
pub const SIGHTINGS_QUEUED_MAX: usize = 64;

/// Looks up a transaction received from peers, by the hash over all of its bytes.
pub type TransactionLookup = Arc<dyn Fn(&Digest) -> Option<Bytes> + Send + Sync>;

/// Reason why a share's block cannot be rebuilt here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoBlock {
    /// No template has the parent block of its header.
    #[error("no template for its parent block")]
    UnknownParent,
    /// The target in its header is easier than the block's.
    #[error("it does not meet the daemon's target")]
    NotHardEnough,
    /// Some of its transactions are unknown.
    #[error("{0} of its {1} transactions are unknown")]
    MissingTransactions(usize, usize),
    /// Its merkle branch matches no template.
    #[error("its transactions match no template")]
    OtherTransactions,
    /// The witnesses differ from those that its coinbase commits to.
    #[error("its coinbase commits to other witnesses")]
    OtherWitnesses,
    /// Its block needs an extension block, which is known only for the last transaction of a template.
    #[error("its extension block is unknown")]
    MissingExtension,
}

/// Registers the metrics of this module.
pub fn describe() {
    describe_counter!(
        "solution_peer_blocks_total",
        "Peers' shares that solve a block, by whether the block could be made here"
    );
    for result in ["made", "not_made"] {
        counter!("solution_peer_blocks_total", "result" => result).absolute(0);
    }
}

/// Inputs for rebuilding blocks.
pub struct Inputs {
    /// Recent templates of our daemon.
    pub templates: watch::Receiver<Arc<RecentTemplates>>,
    /// Look-up of transactions that are in no template.
    pub known: TransactionLookup,
    /// Queue of blocks that cannot be rebuilt here; entries are dropped when it is full.
    pub sightings: mpsc::Sender<Sighting>,
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inputs")
    }
}

/// Rebuilds blocks of solved shares until all senders are dropped.
pub async fn run(mut solved: mpsc::Receiver<SolvedShare>, inputs: Inputs, blocks: mpsc::Sender<FoundBlock>) {
    while let Some(share) = solved.recv().await {
        let recent = inputs.templates.borrow().clone();
        take(&recent, &share, &inputs, &blocks).await;
    }
}

async fn take(recent: &RecentTemplates, solved: &SolvedShare, inputs: &Inputs, blocks: &mpsc::Sender<FoundBlock>) {
    let hash = solved.share.hash();
    if solved.is_own {
        debug!(share = %hash, "the block of our own share has been submitted already");
        return;
    }
    match block_of(recent, solved, &inputs.known) {
        Ok(block) => {
            counter!("solution_peer_blocks_total", "result" => "made").increment(1);
            let (height, hash, finder) = (block.height, block.hash, block.finding.finder.clone());
            // Sent before it is logged.
            if blocks.send(block).await.is_err() {
                error!(height, %hash, "peer's block received after submission had ended");
            }
            info!(height, %hash, finder, "block found by a peer: submitted here too");
        }
        // Any peer can claim an easy target; that is not a block.
        Err(reason @ NoBlock::NotHardEnough) => {
            debug!(share = %hash, %reason, "peer's share claims to be a block");
        }
        Err(reason @ NoBlock::UnknownParent) => {
            debug!(share = %hash, %reason, "peer's share claims to be a block");
            let _ = inputs.sightings.try_send(sighting(recent, solved, &reason));
        }
        Err(reason) => {
            counter!("solution_peer_blocks_total", "result" => "not_made").increment(1);
            info!(share = %hash, %reason, "block found by a peer: only its finder can submit it");
            let _ = inputs.sightings.try_send(sighting(recent, solved, &reason));
        }
    }
}

fn sighting(recent: &RecentTemplates, solved: &SolvedShare, reason: &NoBlock) -> Sighting {
    let share = &*solved.share;
    let previous_block = share.contents().min_header.previous_block;
    let template = previous_block.and_then(|previous| recent.on(&previous).next());
    Sighting {
        hash: BlockHash::from_byte_array(share.hash().0),
        previous_block: previous_block.map(BlockHash::from_byte_array),
        height: template.map(|template| template.height),
        finding: finding(solved),
        not_made: reason.to_string(),
    }
}

fn finding(solved: &SolvedShare) -> Finding {
    let share = &*solved.share;
    Finding {
        value: share.data().subsidy,
        payee: format!("{} and its window", share.payee()),
        finder: solved.source.map_or_else(|| "a peer".to_owned(), |source| format!("peer {source}")),
        is_ours: false,
    }
}

/// Rebuilds the block of a share.
///
/// # Errors
/// [`NoBlock`].
pub fn block_of(
    recent: &RecentTemplates,
    solved: &SolvedShare,
    known: &TransactionLookup,
) -> Result<FoundBlock, NoBlock> {
    let share = &*solved.share;
    let previous = share.contents().min_header.previous_block.ok_or(NoBlock::UnknownParent)?;
    let of_parent: Vec<&Arc<Template>> = recent.on(&previous).collect();
    let template = *of_parent.first().ok_or(NoBlock::UnknownParent)?;
    let is_hard_enough =
        template.is_solved_by(share.pow_hash()) && share.contents().min_header.bits.0 == template.bits.to_consensus();
    if !is_hard_enough {
        return Err(NoBlock::NotHardEnough);
    }
    let body = match &solved.transactions {
        Some(listed) => listed_body(recent, share, listed, &of_parent, known)?,
        None => of_branch(share, &of_parent, solved.coinbase.len())?,
    };
    let size: usize = body.transactions.iter().map(Bytes::len).sum();
    let mut bytes = Vec::with_capacity(80 + 9 + solved.coinbase.len() + size + body.suffix.len());
    bytes.extend_from_slice(&share.header());
    let count = bitcoin::consensus::encode::VarInt::from(body.transactions.len() + 1);
    bytes.extend_from_slice(&bitcoin::consensus::encode::serialize(&count));
    bytes.extend_from_slice(&solved.coinbase);
    body.transactions.iter().for_each(|raw| bytes.extend_from_slice(raw));
    bytes.extend_from_slice(&body.suffix);
    Ok(FoundBlock {
        hash: BlockHash::from_byte_array(share.hash().0),
        previous_block: template.previous_block,
        height: template.height,
        bytes: bytes.into(),
        finding: finding(solved),
        judged_at: None,
    })
}

/// Looks up the transactions listed by a share.
fn listed_body(
    recent: &RecentTemplates,
    share: &Share,
    listed: &[Digest],
    templates: &[&Arc<Template>],
    known: &TransactionLookup,
) -> Result<Body, NoBlock> {
    let find = |wtxid: &Digest| recent.find(wtxid).map(|one| one.raw.clone()).or_else(|| known(wtxid));
    let transactions: Vec<Bytes> = listed.iter().filter_map(find).collect();
    if transactions.len() < listed.len() {
        return Err(NoBlock::MissingTransactions(listed.len() - transactions.len(), listed.len()));
    }
    check_witnesses(share, listed)?;
    Ok(Body { transactions, suffix: suffix_of(listed, templates)? })
}

/// The part of a block after its coinbase.
struct Body {
    transactions: Vec<Bytes>,
    suffix: Bytes,
}

/// Transactions of the template whose complete list, or the part that the finder kept, has the share's branch.
fn of_branch(share: &Share, templates: &[&Arc<Template>], coinbase_bytes: usize) -> Result<Body, NoBlock> {
    let branch = match &share.info().segwit_data {
        Some(segwit) => &segwit.txid_merkle_branch,
        None => &share.contents().merkle_branch,
    };
    let leaves = |template: &Template| -> Vec<Digest> {
        match &share.info().segwit_data {
            Some(_) => template.transactions.iter().map(|one| one.txid.to_byte_array()).collect(),
            None => wtxids(&template.transactions),
        }
    };
    let found = templates.iter().find_map(|template| {
        let first = |template: Arc<Template>| Some((first_with_branch(&leaves(&template), branch)?, template));
        first(Arc::clone(template)).or_else(|| beside_extension(template, coinbase_bytes).find_map(first))
    });
    let (count, template) = found.ok_or(NoBlock::OtherTransactions)?;
    let transactions = &template.transactions[..count];
    // The branch must be the one that the header was hashed with.
    if merkle::fold(*share.gentx_hash(), branch) != *share.merkle_root() {
        return Err(NoBlock::OtherTransactions);
    }
    let wtxids = wtxids(transactions);
    check_witnesses(share, &wtxids)?;
    let suffix = suffix_of(&wtxids, templates)?;
    Ok(Body { transactions: transactions.iter().map(|one| one.raw.clone()).collect(), suffix })
}

/// What a finder with this template, and a coinbase of this many bytes, may have kept of it beside an extension block:
/// not the first transactions, but all except the cheapest. Nothing without an extension block.
fn beside_extension(template: &Arc<Template>, coinbase_bytes: usize) -> impl Iterator<Item = Arc<Template>> {
    let rooms = room::of_found(coinbase_bytes).into_iter().filter(|_| !template.suffix.is_empty());
    rooms.filter_map(|room| Some(template.keeping(&template.fitting(room).ok()?)))
}

fn wtxids(transactions: &[TemplateTransaction]) -> Vec<Digest> {
    transactions.iter().map(|one| one.wtxid.to_byte_array()).collect()
}

/// Checks that the share's witness commitment, which is in the coinbase, matches the block's witnesses.
fn check_witnesses(share: &Share, wtxids: &[Digest]) -> Result<(), NoBlock> {
    let Some(segwit) = &share.info().segwit_data else { return Ok(()) };
    let root = merkle::fold([0; 32], &merkle::branch_of_first(wtxids));
    if root == segwit.wtxid_merkle_root { Ok(()) } else { Err(NoBlock::OtherWitnesses) }
}

/// Extension block after these transactions, on chains that have them: the last one commits to it.
fn suffix_of(transactions: &[Digest], templates: &[&Arc<Template>]) -> Result<Bytes, NoBlock> {
    if templates.iter().all(|template| template.suffix.is_empty()) {
        return Ok(Bytes::new());
    }
    let hogex = |template: &Template| template.transactions.last().map(|one| one.wtxid.to_byte_array());
    let mut with_extension = templates.iter().filter(|template| !template.suffix.is_empty());
    let found = with_extension.find(|template| hogex(template).as_ref() == transactions.last());
    found.map(|template| template.suffix.clone()).ok_or(NoBlock::MissingExtension)
}

/// Number of leaves, from the first, for which the leaf before them has this branch: most likely all.
fn first_with_branch(leaves: &[Digest], branch: &[Digest]) -> Option<usize> {
    let Some((last, lower)) = branch.split_last() else {
        // No transactions: every template has those.
        return Some(0);
    };
    // The siblings except the last are complete trees of 1, 2, 4 and so on leaves.
    let begin = (1_usize.checked_shl(u32::try_from(lower.len()).ok()?)?).checked_sub(1)?;
    if leaves.len() <= begin || *lower != merkle::branch_of_first(&leaves[..begin])[..] {
        return None;
    }
    // The last is a tree of as many leaves, or fewer with the last repeated.
    let rest = &leaves[begin..leaves.len().min(2 * begin + 1)];
    let mut levels = vec![rest.to_vec()];
    for level in 0..lower.len() {
        let whole = levels[level].chunks_exact(2).map(|pair| merkle::fold(pair[0], &[pair[1]])).collect();
        levels.push(whole);
    }
    (1..=rest.len()).rev().find(|count| padded_root(&levels, *count) == *last).map(|count| begin + count)
}

/// Root of the tree over the first `count` leaves, padded to the height of `levels`, its complete subtrees.
fn padded_root(levels: &[Vec<Digest>], count: usize) -> Digest {
    let mut count = count;
    // Last node of the level, if its subtree is incomplete.
    let mut partial: Option<Digest> = None;
    for level in &levels[..levels.len() - 1] {
        let last = partial.unwrap_or_else(|| level[count - 1]);
        partial = if count % 2 == 1 {
            Some(merkle::fold(last, &[last]))
        } else {
            partial.map(|partial| merkle::fold(level[count - 2], &[partial]))
        };
        count = count.div_ceil(2);
    }
    partial.unwrap_or_else(|| levels[levels.len() - 1][0])
}

#[cfg(test)]
mod tests;
