//! Goals that a hash may reach.

use sharechain::merged::MergedWork;
use sharechain::share::Target;

use crate::template::Template;

/// Find of a hash that meets its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// A share of the pool's chain.
    Share,
    /// A block of the parent chain.
    Block,
    /// A merged chain's block: index in [`MergedWork::blocks`].
    Merged(usize),
}

/// Targets of everything that a hash may reach for one share-to-be: `share` is its own target.
pub(super) fn all(
    template: &Template,
    merged: &MergedWork,
    share: Target,
    makes_shares: bool,
) -> impl Iterator<Item = (Goal, Target)> {
    let own = makes_shares.then_some((Goal::Share, share));
    let block = (Goal::Block, template.block_target());
    let merged = merged.blocks().iter().enumerate();
    own.into_iter()
        .chain(std::iter::once(block))
        .chain(merged.map(move |(index, block)| (Goal::Merged(index), block.target.of(share))))
}
