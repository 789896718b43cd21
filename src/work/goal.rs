//! What a hash may be good enough for.

use sharechain::merged::MergedWork;
use sharechain::share::Target;

use crate::template::Template;

/// Something that is found when a hash meets its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// A share of the pool's chain.
    Share,
    /// A block of the parent chain.
    Block,
    /// A merged chain's block: the one at this place in [`MergedWork::blocks`].
    Merged(usize),
}

/// The blocks that can be found, with their targets.
pub(super) fn of_blocks(template: &Template, merged: &MergedWork) -> Box<[(Goal, Target)]> {
    let merged = merged.blocks().iter().enumerate().map(|(index, block)| (Goal::Merged(index), block.target));
    std::iter::once((Goal::Block, template.block_target())).chain(merged).collect()
}
