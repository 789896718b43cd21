//! Makes blocks of shares that solve one, wherever their finder is: the more ways a block goes, the sooner it is in the chain.
//!
//! A share proves its block's transactions and carries none. Before version 34 it lists their hashes, and this node may
//! know them all. From then on it has only the merkle branch, and the block can be made again if its finder's daemon made
//! the template that ours made: most likely of blocks that are empty, or where both ask one daemon.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bytes::Bytes;
use metrics::{counter, describe_counter};
use sharechain::chain::{KnownTransaction, Tip};
use sharechain::merkle::{self, Digest};
use sharechain::share::Share;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info};

use crate::blocks::{Finding, FoundBlock, Sighting};
use crate::chain::{KnownTransactions, SolvedShare};
use crate::template::{Template, TemplateTransaction};

/// Templates kept, of the latest two blocks to build on: minutes of them.
const TEMPLATES_MAX: usize = 20;
/// Blocks to build on of which templates are kept.
const PARENTS_MAX: usize = 2;

/// Blocks that cannot be made here and wait to be taken note of.
pub const SIGHTINGS_QUEUED_MAX: usize = 64;

/// Finds a transaction that peers sent, by the hash over all of its bytes.
pub type TransactionLookup = Arc<dyn Fn(&Digest) -> Option<Bytes> + Send + Sync>;

/// Why a share's block cannot be made here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoBlock {
    /// Its header builds on a block that no template here builds on.
    #[error("no template here builds on its parent block")]
    UnknownParent,
    /// Its header claims an easier target than the block's.
    #[error("it does not meet the target that the daemon asks for")]
    NotHardEnough,
    /// It lists transactions that are not known here.
    #[error("{0} of its {1} transactions are not known here")]
    MissingTransactions(usize, usize),
    /// Its branch is not that of any template here.
    #[error("its transactions are those of no template here")]
    OtherTransactions,
    /// Its witnesses are not those that its coinbase commits to.
    #[error("its coinbase commits to other witnesses")]
    OtherWitnesses,
    /// Its block must carry an extension block, which is known for a template's whole list only.
    #[error("its extension block is not known here")]
    MissingExtension,
}

/// Names and explains the metrics of this part.
pub fn describe() {
    describe_counter!(
        "solution_peer_blocks_total",
        "Peers' shares that solve a block, by whether the block could be made here"
    );
    for result in ["made", "not_made"] {
        counter!("solution_peer_blocks_total", "result" => result).absolute(0);
    }
}

/// What blocks are made of.
pub struct Inputs {
    /// What there is to mine.
    pub templates: watch::Receiver<Option<Arc<Template>>>,
    /// What there is to build on.
    pub tips: watch::Receiver<Option<Arc<Tip>>>,
    /// Where to look for what is in no template.
    pub known: TransactionLookup,
    /// Where the share chain hears of the transactions that templates have, as long as its shares list theirs.
    pub transactions: Arc<watch::Sender<Arc<KnownTransactions>>>,
    /// Hears of blocks that cannot be made here. Dropped if it is full.
    pub sightings: mpsc::Sender<Sighting>,
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inputs")
    }
}

/// Makes blocks of solved shares until nobody can send one.
pub async fn run(mut solved: mpsc::Receiver<SolvedShare>, mut inputs: Inputs, blocks: mpsc::Sender<FoundBlock>) {
    let mut recent = Recent::default();
    let mut templates_left = true;
    inputs.templates.mark_changed();
    loop {
        tokio::select! {
            biased;
            changed = inputs.templates.changed(), if templates_left => {
                templates_left = changed.is_ok();
                let template = inputs.templates.borrow_and_update().clone();
                if let Some(template) = template {
                    recent.keep(&template);
                    tell_transactions(&recent, &inputs);
                }
            }
            share = solved.recv() => match share {
                Some(share) => take(&recent, &share, &inputs, &blocks).await,
                None => return,
            },
        }
    }
}

fn tell_transactions(recent: &Recent, inputs: &Inputs) {
    let lists = inputs.tips.borrow().as_ref().is_some_and(|tip| tip.version().lists_transactions());
    if lists {
        inputs.transactions.send_replace(Arc::new(recent.transactions()));
    } else if !inputs.transactions.borrow().is_empty() {
        inputs.transactions.send_replace(Arc::default());
    }
}

async fn take(recent: &Recent, solved: &SolvedShare, inputs: &Inputs, blocks: &mpsc::Sender<FoundBlock>) {
    let hash = solved.share.hash();
    if solved.is_own {
        debug!(share = %hash, "its block was submitted when it was found");
        return;
    }
    match recent.block_of(solved, &inputs.known) {
        Ok(block) => {
            counter!("solution_peer_blocks_total", "result" => "made").increment(1);
            let (height, hash, finder) = (block.height, block.hash, block.finding.finder.clone());
            // Sent before it is logged.
            if blocks.send(block).await.is_err() {
                error!(height, %hash, "a peer's block came after submission had ended");
            }
            info!(height, %hash, finder, "a peer's share is a block: submitted here too");
        }
        // Anyone may claim an easy target; it is a block of nothing.
        Err(reason @ NoBlock::NotHardEnough) => {
            debug!(share = %hash, %reason, "a peer's share that claims to be a block");
        }
        Err(reason @ NoBlock::UnknownParent) => {
            debug!(share = %hash, %reason, "a peer's share that claims to be a block");
            let _ = inputs.sightings.try_send(sighting(recent, solved, &reason));
        }
        Err(reason) => {
            counter!("solution_peer_blocks_total", "result" => "not_made").increment(1);
            info!(share = %hash, %reason, "a peer's share is a block, which its finder alone can submit");
            let _ = inputs.sightings.try_send(sighting(recent, solved, &reason));
        }
    }
}

fn sighting(recent: &Recent, solved: &SolvedShare, reason: &NoBlock) -> Sighting {
    let share = &*solved.share;
    let previous_block = share.contents().min_header.previous_block.map(BlockHash::from_byte_array);
    let template = recent.templates.iter().find(|template| Some(template.previous_block) == previous_block);
    Sighting {
        hash: BlockHash::from_byte_array(share.hash().0),
        previous_block,
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

/// The latest templates. A transaction that is in many of them is kept once.
#[derive(Debug, Default)]
pub struct Recent {
    /// Latest last.
    templates: VecDeque<Arc<Template>>,
    raw: HashMap<Digest, TemplateTransaction>,
}

impl Recent {
    /// Keeps a template, and forgets those that are too many or too old.
    pub fn keep(&mut self, template: &Arc<Template>) {
        let of_pool = template.transactions.iter().map(|one| {
            let pooled = self.raw.entry(one.wtxid.to_byte_array()).or_insert_with(|| one.clone());
            TemplateTransaction { raw: pooled.raw.clone(), ..one.clone() }
        });
        let transactions: Arc<[TemplateTransaction]> = of_pool.collect();
        self.templates.push_back(Arc::new(Template { transactions, ..Template::clone(template) }));
        let mut parents: Vec<BlockHash> = Vec::new();
        for template in self.templates.iter().rev() {
            if !parents.contains(&template.previous_block) {
                parents.push(template.previous_block);
            }
        }
        parents.truncate(PARENTS_MAX);
        let before = self.templates.len();
        self.templates.retain(|template| parents.contains(&template.previous_block));
        while self.templates.len() > TEMPLATES_MAX {
            self.templates.pop_front();
        }
        if self.templates.len() < before {
            let still: HashSet<Digest> = (self.templates.iter())
                .flat_map(|template| template.transactions.iter().map(|one| one.wtxid.to_byte_array()))
                .collect();
            self.raw.retain(|wtxid, _| still.contains(wtxid));
        }
    }

    /// What shares that list their transactions are judged by.
    pub fn transactions(&self) -> KnownTransactions {
        let facts = self.raw.iter().map(|(wtxid, one)| {
            // Weight is three times the stripped size and once the whole.
            let stripped = one.weight.saturating_sub(one.raw.len() as u64) / 3;
            let stripped_size = u32::try_from(stripped).unwrap_or(u32::MAX);
            (*wtxid, KnownTransaction { fee: Some(one.fee), stripped_size })
        });
        facts.collect()
    }

    /// The whole block of a share.
    ///
    /// # Errors
    /// [`NoBlock`].
    pub fn block_of(&self, solved: &SolvedShare, known: &TransactionLookup) -> Result<FoundBlock, NoBlock> {
        let share = &*solved.share;
        let previous = share.contents().min_header.previous_block.ok_or(NoBlock::UnknownParent)?;
        let of_parent: Vec<&Arc<Template>> = (self.templates.iter().rev())
            .filter(|template| template.previous_block.to_byte_array() == previous)
            .collect();
        let template = *of_parent.first().ok_or(NoBlock::UnknownParent)?;
        let is_hard_enough = template.is_solved_by(share.pow_hash())
            && share.contents().min_header.bits.0 == template.bits.to_consensus();
        if !is_hard_enough {
            return Err(NoBlock::NotHardEnough);
        }
        let body = match &solved.transactions {
            Some(listed) => self.listed(share, listed, &of_parent, known)?,
            None => of_branch(share, &of_parent)?,
        };
        let size: usize = body.transactions.iter().map(Bytes::len).sum();
        let mut bytes = Vec::with_capacity(80 + 9 + solved.coinbase.len() + size + body.suffix.len());
        bytes.extend_from_slice(&share.header());
        let count = bitcoin::consensus::encode::VarInt::from(body.transactions.len() + 1);
        bytes.extend_from_slice(&bitcoin::consensus::encode::serialize(&count));
        bytes.extend_from_slice(&solved.coinbase);
        body.transactions.iter().for_each(|raw| bytes.extend_from_slice(raw));
        bytes.extend_from_slice(body.suffix);
        Ok(FoundBlock {
            hash: BlockHash::from_byte_array(share.hash().0),
            previous_block: template.previous_block,
            height: template.height,
            bytes: bytes.into(),
            finding: finding(solved),
            judged_at: None,
        })
    }

    /// The transactions that a share lists.
    fn listed<'a>(
        &'a self,
        share: &Share,
        listed: &[Digest],
        templates: &[&'a Arc<Template>],
        known: &TransactionLookup,
    ) -> Result<Body<'a>, NoBlock> {
        let find = |wtxid: &Digest| self.raw.get(wtxid).map(|one| one.raw.clone()).or_else(|| known(wtxid));
        let transactions: Vec<Bytes> = listed.iter().filter_map(find).collect();
        if transactions.len() < listed.len() {
            return Err(NoBlock::MissingTransactions(listed.len() - transactions.len(), listed.len()));
        }
        check_witnesses(share, listed)?;
        Ok(Body { transactions, suffix: suffix_of(listed, templates)? })
    }
}

/// What follows a block's coinbase.
struct Body<'a> {
    transactions: Vec<Bytes>,
    suffix: &'a [u8],
}

/// The transactions of the template that has the share's branch, as a whole or in its first part.
fn of_branch<'a>(share: &Share, templates: &[&'a Arc<Template>]) -> Result<Body<'a>, NoBlock> {
    let branch = match &share.info().segwit_data {
        Some(segwit) => &segwit.txid_merkle_branch,
        None => &share.contents().merkle_branch,
    };
    let found = templates.iter().find_map(|template| {
        let leaves: Vec<Digest> = match &share.info().segwit_data {
            Some(_) => template.transactions.iter().map(|one| one.txid.to_byte_array()).collect(),
            None => wtxids(&template.transactions),
        };
        Some((template, first_with_branch(&leaves, branch)?))
    });
    let (template, count) = found.ok_or(NoBlock::OtherTransactions)?;
    let transactions = &template.transactions[..count];
    // What the branch proves is what the header was hashed with.
    if merkle::fold(*share.gentx_hash(), branch) != *share.merkle_root() {
        return Err(NoBlock::OtherTransactions);
    }
    let wtxids = wtxids(transactions);
    check_witnesses(share, &wtxids)?;
    let suffix = suffix_of(&wtxids, templates)?;
    Ok(Body { transactions: transactions.iter().map(|one| one.raw.clone()).collect(), suffix })
}

fn wtxids(transactions: &[TemplateTransaction]) -> Vec<Digest> {
    transactions.iter().map(|one| one.wtxid.to_byte_array()).collect()
}

/// The coinbase commits to what its share says; that must be what goes into the block.
fn check_witnesses(share: &Share, wtxids: &[Digest]) -> Result<(), NoBlock> {
    let Some(segwit) = &share.info().segwit_data else { return Ok(()) };
    let root = merkle::fold([0; 32], &merkle::branch_of_first(wtxids));
    if root == segwit.wtxid_merkle_root { Ok(()) } else { Err(NoBlock::OtherWitnesses) }
}

/// What follows a block of these transactions: an extension block, where a chain has them, fits its template's whole
/// list only.
fn suffix_of<'a>(transactions: &[Digest], templates: &[&'a Arc<Template>]) -> Result<&'a [u8], NoBlock> {
    if templates.iter().all(|template| template.suffix.is_empty()) {
        return Ok(&[]);
    }
    let whole = templates.iter().find(|template| wtxids(&template.transactions) == transactions);
    whole.map(|template| &template.suffix[..]).ok_or(NoBlock::MissingExtension)
}

/// How many leaves, from the first on, have this branch of the leaf before them: most likely all.
fn first_with_branch(leaves: &[Digest], branch: &[Digest]) -> Option<usize> {
    let Some((last, lower)) = branch.split_last() else {
        // No transactions at all: every template has those.
        return Some(0);
    };
    // The siblings below the last are whole trees: of 1, 2, 4 and so on leaves.
    let begin = (1_usize.checked_shl(u32::try_from(lower.len()).ok()?)?).checked_sub(1)?;
    if leaves.len() <= begin || *lower != merkle::branch_of_first(&leaves[..begin])[..] {
        return None;
    }
    // The last is a tree of as many leaves, of which the latter may repeat the one before.
    let rest = &leaves[begin..leaves.len().min(2 * begin + 1)];
    let mut levels = vec![rest.to_vec()];
    for level in 0..lower.len() {
        let whole = levels[level].chunks_exact(2).map(|pair| merkle::fold(pair[0], &[pair[1]])).collect();
        levels.push(whole);
    }
    (1..=rest.len()).rev().find(|count| padded_root(&levels, *count) == *last).map(|count| begin + count)
}

/// Root of the tree over the first `count` leaves, as high as `levels`, which are those of its whole subtrees.
fn padded_root(levels: &[Vec<Digest>], count: usize) -> Digest {
    let mut count = count;
    // The last node of the level, where it is not a whole tree's.
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
