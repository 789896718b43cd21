//! Transactions of a template that fit beside a coinbase: a daemon reserves room for a small one only.
//!
//! Without an extension block these are the first ones. With one (Litecoin's MWEB), the last transaction and all that
//! it needs stay, and the cheapest of the others are left out (protocol section 18.2). Which are cheapest is decided
//! once per template: transactions that depend on each other, which a daemon sorts by what they pay together with their
//! ancestors, are divided into packages, none of which pays more than one before it. So a child pays for its parent,
//! and nothing is left out without what spends it.

use std::cmp::Ordering;
use thiserror::Error;

use super::extension::{Dependencies, ExtensionError};
use super::{BLOCK_SIGOPS_MAX, TemplateTransaction};

/// Weight of a block's header and of the longest transaction count that fits into a block.
const FRAME_WEIGHT: u64 = 4 * (80 + 5);

/// Step to which the weight of a coinbase is rounded up beside an extension block: tips that pay a few more or fewer
/// miners leave out the same transactions, and nodes with one template do too.
const WEIGHT_STEP: u64 = 1000;

/// Room in a block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Weight units (BIP 141).
    pub weight: u64,
    /// Signature operation cost (BIP 141).
    pub sigops: u64,
}

impl Room {
    /// Room of a block of at most `weight_max` for its coinbase and all other transactions.
    pub(super) fn of_block(weight_max: u64) -> Self {
        Self { weight: weight_max.saturating_sub(FRAME_WEIGHT), sigops: BLOCK_SIGOPS_MAX }
    }

    pub(super) fn of(transaction: &TemplateTransaction) -> Self {
        Self { weight: transaction.weight, sigops: transaction.sigops }
    }

    fn and(self, other: Self) -> Self {
        Self { weight: self.weight.saturating_add(other.weight), sigops: self.sigops.saturating_add(other.sigops) }
    }

    /// What is left of it beside `other`; zero where that is more.
    pub fn without(self, other: Self) -> Self {
        Self { weight: self.weight.saturating_sub(other.weight), sigops: self.sigops.saturating_sub(other.sigops) }
    }

    /// `-blockmaxweight` of a daemon whose templates always leave it for a coinbase. The daemon counts 4000 for a
    /// coinbase of its own, which covers the frame of the block and the HogEx that it does not count. Blocks may weigh
    /// `weight_max`.
    pub fn block_weight_max(self, weight_max: u64) -> u64 {
        weight_max.saturating_sub(self.weight)
    }

    /// True if it fits into `other`.
    pub fn fits(self, other: Self) -> bool {
        self.weight <= other.weight && self.sigops <= other.sigops
    }
}

/// Room that all of `transactions` take.
pub(super) fn sum<'a>(transactions: impl IntoIterator<Item = &'a TemplateTransaction>) -> Room {
    transactions.into_iter().fold(Room::default(), |sum, one| sum.and(Room::of(one)))
}

/// Transactions of a template that a block has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// This many, from the first.
    First(usize),
    /// All except those at these indices, in ascending order.
    Without(Box<[usize]>),
}

impl Selection {
    /// True if the block has the transaction at `index`.
    pub fn has(&self, index: usize) -> bool {
        match self {
            Self::First(count) => index < *count,
            Self::Without(left_out) => left_out.binary_search(&index).is_err(),
        }
    }
}

/// The extension block and what it needs leave too little room for a coinbase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "no room for the coinbase: it needs {} weight units and a signature operation cost of {}, but the extension \
     block's peg-ins and their ancestors leave {} and {}; start litecoind with -blockmaxweight={}",
    .needed.weight, .needed.sigops, .left.weight, .left.sigops, .needed.block_weight_max(*.weight_max)
)]
pub struct NoRoom {
    /// Room that the coinbase needs.
    pub needed: Room,
    /// Room that is left for it.
    pub left: Room,
    /// Maximum weight of the block.
    pub weight_max: u64,
}

/// Order in which transactions beside an extension block are left out.
#[derive(Debug, Clone, Default)]
pub(super) struct Removal {
    dependencies: Dependencies,
    /// Transactions that the block can do without, those that depend on each other together and in block order.
    free: Vec<usize>,
    /// Parts of `free`, the cheapest first. With each transaction, all that spend its outputs are in its package or in
    /// one before it.
    packages: Vec<Package>,
    /// Room that the transactions take which the block needs.
    pinned: Room,
}

/// Transactions that are left out together: a range of [`Removal::free`].
#[derive(Debug, Clone, Copy)]
struct Package {
    fee: u128,
    weight: u128,
    begin: usize,
    end: usize,
}

impl Package {
    /// Compares fees per weight. Fees of a block are below 2^80, and weights below 2^23.
    fn cmp_rate(&self, other: &Self) -> Ordering {
        (self.fee * other.weight).cmp(&(other.fee * self.weight))
    }

    fn followed_by(&self, next: &Self) -> Self {
        Self { fee: self.fee + next.fee, weight: self.weight + next.weight, begin: self.begin, end: next.end }
    }
}

impl Removal {
    /// Reads the transactions that belong to an extension block.
    ///
    /// # Errors
    /// They do not fit the extension block, or each other.
    pub(super) fn new(transactions: &[TemplateTransaction]) -> Result<Self, ExtensionError> {
        let dependencies = Dependencies::new(transactions)?;
        let of_pinned = |(index, one)| dependencies.is_pinned(index).then_some(one);
        let pinned = sum(transactions.iter().enumerate().filter_map(of_pinned));
        let (free, packages) = packages(transactions, &dependencies);
        Ok(Self { dependencies, free, packages, pinned })
    }

    /// Order of a block that has lost all that it can do without: no further transaction is left out.
    pub(super) fn of_rest(transactions: &[TemplateTransaction]) -> Self {
        Self { pinned: sum(transactions), ..Self::default() }
    }

    /// Room that the transactions take which the extension block needs: its HogEx, peg-ins and their ancestors.
    pub(super) fn pinned(&self) -> Room {
        self.pinned
    }

    /// Indices of the transactions to leave out beside a coinbase that needs `coinbase`, in ascending order: no more
    /// than necessary, and with each all that spend its outputs.
    ///
    /// # Errors
    /// [`NoRoom`] beside those that the block needs.
    pub(super) fn left_out(
        &self,
        transactions: &[TemplateTransaction],
        weight_max: u64,
        coinbase: Room,
    ) -> Result<Box<[usize]>, NoRoom> {
        let block = Room::of_block(weight_max);
        let left = block.without(self.pinned);
        if !coinbase.fits(left) {
            return Err(NoRoom { needed: coinbase, left, weight_max });
        }
        let rounded = coinbase.weight.next_multiple_of(WEIGHT_STEP).min(left.weight);
        let room = block.without(Room { weight: rounded, ..coinbase });
        let mut used = sum(transactions);
        let mut is_out = vec![false; transactions.len()];
        let mut count = 0;
        while let Some(package) = self.packages.get(count).filter(|_| !used.fits(room)) {
            for index in &self.free[package.begin..package.end] {
                is_out[*index] = true;
                used = used.without(Room::of(&transactions[*index]));
            }
            count += 1;
        }
        // A package may be larger than what was missing: what still fits comes back, the dearest first.
        let out = self.packages[..count].iter().rev().flat_map(|package| &self.free[package.begin..package.end]);
        for index in out {
            let more = used.and(Room::of(&transactions[*index]));
            if more.fits(room) && self.dependencies.parents_of(*index).all(|parent| !is_out[parent]) {
                is_out[*index] = false;
                used = more;
            }
        }
        Ok(is_out.iter().enumerate().filter_map(|(index, is_out)| is_out.then_some(index)).collect())
    }
}

/// Divides the transactions that the block can do without into packages, the cheapest first.
fn packages(transactions: &[TemplateTransaction], dependencies: &Dependencies) -> (Vec<usize>, Vec<Package>) {
    let free = || (0..transactions.len()).filter(|index| !dependencies.is_pinned(*index));
    let mut clusters = Clusters::new(transactions.len());
    for index in free() {
        // A parent that is always in the block ties nothing together.
        for parent in dependencies.parents_of(index).filter(|parent| !dependencies.is_pinned(*parent)) {
            clusters.join(index, parent);
        }
    }
    let mut by_cluster: Vec<(usize, usize)> = free().map(|index| (clusters.root(index), index)).collect();
    by_cluster.sort_unstable();
    let mut packages: Vec<Package> = Vec::with_capacity(by_cluster.len());
    // First package of the cluster.
    let mut first = 0;
    for (begin, (cluster, index)) in by_cluster.iter().enumerate() {
        if begin > 0 && by_cluster[begin - 1].0 != *cluster {
            first = packages.len();
        }
        let one = &transactions[*index];
        // No transaction weighs nothing: a rate needs a divisor.
        let (fee, weight) = (one.fee.into(), one.weight.max(1).into());
        let mut package = Package { fee, weight, begin, end: begin + 1 };
        // A package that pays more than the one before it, which it may depend on, pays for both.
        while let Some(before) = packages[first..].last().filter(|before| package.cmp_rate(before).is_gt()) {
            package = before.followed_by(&package);
            packages.pop();
        }
        packages.push(package);
    }
    // Of packages that pay the same, the later ones of the block may depend on the earlier ones.
    packages.sort_unstable_by(|one, other| one.cmp_rate(other).then(other.begin.cmp(&one.begin)));
    (by_cluster.into_iter().map(|(_, index)| index).collect(), packages)
}

/// Disjoint sets of transactions that are connected by spending.
struct Clusters {
    parent: Vec<usize>,
}

impl Clusters {
    fn new(count: usize) -> Self {
        Self { parent: (0..count).collect() }
    }

    fn root(&mut self, mut index: usize) -> usize {
        while self.parent[index] != index {
            // Halves the path, so that the next look is shorter.
            self.parent[index] = self.parent[self.parent[index]];
            index = self.parent[index];
        }
        index
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        self.parent[one.max(other)] = one.min(other);
    }
}

#[cfg(test)]
mod tests;
