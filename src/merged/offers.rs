//! Next blocks of merged chains on their way to jobs: those that daemons made, and templates for those that the node
//! builds, which depend on the share chain as well.

use sharechain::merged::{MergedBlock, MergedTarget, MergedWeights, MergedWork};
use sharechain::merkle::Digest;
use sharechain::share::MergedCoinbase;
use std::sync::Arc;

use super::payouts::{NotPaid, pay};
use super::template::{MergedTemplate, TemplateBlock};

/// Payee of blocks that pay the share chain's miners, for display.
pub(super) const MINERS: &str = "the miners";

/// Next block of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// Its daemon made it.
    Made(Arc<MergedBlock>),
    /// The node makes it.
    Template {
        /// Name of the chain.
        chain: Arc<str>,
        /// Everything but the coinbase.
        template: Arc<MergedTemplate>,
    },
}

impl Offer {
    /// Name of the chain.
    pub(super) fn chain(&self) -> &Arc<str> {
        match self {
            Self::Made(block) => &block.chain,
            Self::Template { chain, .. } => chain,
        }
    }

    /// Number of the chain.
    pub(super) fn chain_id(&self) -> u32 {
        match self {
            Self::Made(block) => block.chain_id,
            Self::Template { template, .. } => template.chain_id(),
        }
    }

    /// Hash of the block that it builds on; zeros if its daemon does not say it.
    pub(super) fn previous_block(&self) -> Digest {
        match self {
            Self::Made(block) => block.previous_block,
            Self::Template { template, .. } => template.previous_block,
        }
    }

    /// Its height.
    pub(super) fn height(&self) -> u32 {
        match self {
            Self::Made(block) => block.height,
            Self::Template { template, .. } => template.height,
        }
    }

    /// Target for the parent chain's proof of work.
    pub(super) fn target(&self) -> MergedTarget {
        match self {
            Self::Made(block) => block.target,
            Self::Template { template, .. } => MergedTarget::Own(template.target),
        }
    }

    /// What its coinbase pays, in base units, if known.
    pub(super) fn value(&self) -> Option<u64> {
        match self {
            Self::Made(block) => block.value,
            Self::Template { template, .. } => Some(template.value),
        }
    }

    /// True if it replaces `before` for miners: a template only on another block. What else changes of templates takes
    /// effect with the next work.
    pub(super) fn is_news_after(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::Template { .. }, Self::Template { .. }) => {
                (self.chain(), self.previous_block()) != (before.chain(), before.previous_block())
            }
            _ => self != before,
        }
    }

    /// The block, or one in its place that has all but its coinbase and hash.
    pub(super) fn stand_in(&self) -> MergedBlock {
        match self {
            Self::Made(block) => MergedBlock::clone(block),
            Self::Template { chain, template } => MergedBlock {
                chain: chain.clone(),
                chain_id: template.chain_id(),
                hash: template.previous_block,
                target: self.target(),
                previous_block: template.previous_block,
                height: template.height,
                value: Some(template.value),
                payee: MINERS.into(),
            },
        }
    }
}

/// Next blocks of all chains that can be mined together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MergedOffers(Vec<Offer>);

impl From<MergedWork> for MergedOffers {
    fn from(work: MergedWork) -> Self {
        Self(Vec::from(work).into_iter().map(|block| Offer::Made(block.into())).collect())
    }
}

impl From<Vec<Offer>> for MergedOffers {
    fn from(offers: Vec<Offer>) -> Self {
        Self(offers)
    }
}

impl MergedOffers {
    /// Offers, in the order of the configuration.
    pub fn all(&self) -> &[Offer] {
        &self.0
    }

    /// True if miners need other jobs than those made of `before`.
    pub fn supersedes(&self, before: &Self) -> bool {
        self.0.len() != before.0.len() || self.0.iter().zip(&before.0).any(|(now, before)| now.is_news_after(before))
    }

    /// True if one of the blocks depends on the weights.
    pub fn has_template(&self) -> bool {
        self.0.iter().any(|offer| matches!(offer, Offer::Template { .. }))
    }

    /// What jobs commit to, with templates filled by `weights`, the next share's for merged chains; without them, their
    /// chains are left out.
    ///
    /// A share can say how a block pays only if there is no other chain (protocol-v36 trap 24), and only if `is_certain`:
    /// if other nodes derive the same weights (trap 8).
    pub fn jobs(&self, weights: Option<&MergedWeights>, is_certain: bool) -> MergedJobs {
        let mut jobs = MergedJobs::default();
        let mut blocks = Vec::with_capacity(self.0.len());
        for offer in &self.0 {
            let Offer::Template { template, .. } = offer else {
                blocks.push(offer.stand_in());
                continue;
            };
            match weights.ok_or(NotPaid::NoMiner).and_then(|weights| pay(template, weights)) {
                Ok(paid) => {
                    let payee = format!("{} miners", paid.miners).into();
                    let (hash, value) = (paid.block.hash(), Some(paid.value));
                    let entry = paid.entry.filter(|_| is_certain && self.0.len() == 1);
                    jobs.own = Some(OwnBlock { index: blocks.len(), block: paid.block, entry });
                    blocks.push(MergedBlock { hash, value, payee, ..offer.stand_in() });
                }
                Err(reason) => jobs.left_out = Some((offer.chain().clone(), reason)),
            }
        }
        // They were mined together when they were chosen; a part of them can be, too.
        jobs.work = MergedWork::new(blocks).unwrap_or_default().into();
        jobs
    }
}

/// A block that the node built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnBlock {
    /// Index in the work.
    index: usize,
    block: TemplateBlock,
    entry: Option<MergedCoinbase>,
}

/// What jobs commit to, and what is needed to submit it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MergedJobs {
    /// Blocks, and the commitment to all of them.
    pub work: Arc<MergedWork>,
    own: Option<OwnBlock>,
    /// Chain that cannot be mined for want of a coinbase, with the reason.
    pub left_out: Option<(Arc<str>, NotPaid)>,
}

impl From<Arc<MergedWork>> for MergedJobs {
    fn from(work: Arc<MergedWork>) -> Self {
        Self { work, own: None, left_out: None }
    }
}

impl MergedJobs {
    /// What a share says of its merged block's coinbase; `None` if it says nothing.
    pub fn entry(&self) -> Option<&MergedCoinbase> {
        self.own.as_ref()?.entry.as_ref()
    }

    /// The block at `index` of the work, with what its daemon takes: a proof of work, or the whole block if the node
    /// built it. Parameters as for [`MergedWork::proof`].
    pub fn solved(
        &self,
        index: usize,
        coinbase: &[u8],
        branch: &[Digest],
        header: &[u8; 80],
    ) -> Option<(&MergedBlock, Vec<u8>)> {
        let proof = self.work.proof(index, coinbase, branch, header)?;
        let bytes = match self.own.as_ref().filter(|own| own.index == index) {
            Some(own) => own.block.bytes(&proof),
            None => proof,
        };
        Some((self.work.blocks().get(index)?, bytes))
    }
}

#[cfg(test)]
mod tests;
