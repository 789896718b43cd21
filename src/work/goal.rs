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

/// Blocks that can be found, with their targets.
pub(super) fn of_blocks(template: &Template, merged: &MergedWork) -> Box<[(Goal, Target)]> {
    let merged = merged.blocks().iter().enumerate().map(|(index, block)| (Goal::Merged(index), block.target));
    std::iter::once((Goal::Block, template.block_target())).chain(merged).collect()
}
