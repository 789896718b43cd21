//! Shares by hash as a forest: heads, tails, heights and work, with skip links that shorten every walk.
//!
//! Each node has a label: a depth and sums of work that grow from parent to child. Only differences matter: between two
//! nodes of one chain they are the distance and the work, whatever is added below or removed. A node also has one skip
//! link to an ancestor, chosen so that any ancestor is O(log n) links away (E. Myers, "An applicative random-access
//! stack", 1983).
//!
//! When a parent arrives after its child, it joins two trees, and the labels of the smaller one are shifted: a chain
//! that grows downwards costs no more than the shares added. Skip links from above such a seam end at the seam at the
//! latest; before seams make walks long, everything above is relabelled.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Add, Sub};

use thiserror::Error;

use crate::map::Map;
use crate::share::{Attempts, ShareHash};

/// Maximum number of seams in one tree.
const SEAMS_MAX: u8 = 16;

/// Total work of a stretch of a chain, and what its shares vote for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Work of the shares' own targets.
    pub own: Attempts,
    /// Work of the easiest targets allowed for the shares (trap 18): the input of the retarget.
    pub min: Attempts,
    /// Numbers of shares, for the ratchet.
    pub tally: Tally,
}

/// Numbers of shares by which the [`Ratchet`](super::Ratchet) decides (protocol-v36 section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Shares that vote for the ratchet's version or a newer one.
    pub votes: u32,
    /// Those among them that came from peers.
    pub votes_of_peers: u32,
    /// Shares that have the ratchet's version or a newer one.
    pub shares: u32,
}

impl Tally {
    fn zip(self, other: Tally, one: fn(u32, u32) -> u32) -> Tally {
        Tally {
            votes: one(self.votes, other.votes),
            votes_of_peers: one(self.votes_of_peers, other.votes_of_peers),
            shares: one(self.shares, other.shares),
        }
    }
}

impl Add for Work {
    type Output = Work;

    fn add(self, other: Work) -> Work {
        // Labels have arbitrary origins, so they wrap; true sums stay below 2^290.
        Work {
            own: Attempts(self.own.0.wrapping_add(other.own.0)),
            min: Attempts(self.min.0.wrapping_add(other.min.0)),
            tally: self.tally.zip(other.tally, u32::wrapping_add),
        }
    }
}

impl Sub for Work {
    type Output = Work;

    fn sub(self, other: Work) -> Work {
        Work {
            own: Attempts(self.own.0.wrapping_sub(other.own.0)),
            min: Attempts(self.min.0.wrapping_sub(other.min.0)),
            tally: self.tally.zip(other.tally, u32::wrapping_sub),
        }
    }
}

/// Reasons why a share cannot be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RemoveError {
    /// Not in the forest.
    #[error("share {0} is not in the forest")]
    Unknown(ShareHash),
    /// Has a parent and children: removing it would split a chain.
    #[error("share {0} has both a parent and children")]
    Middle(ShareHash),
}

/// Slot of a node, and generation of the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    slot: u32,
    generation: u32,
}

#[derive(Debug, Clone)]
struct Node {
    hash: ShareHash,
    previous: Option<ShareHash>,
    /// The parent, if present.
    parent: Option<Id>,
    /// An ancestor, if any; may be stale where a chain's low end was removed.
    skip: Option<Id>,
    depth: i64,
    own: Work,
    /// Sum from the label's origin up to and including this node.
    sum: Work,
    /// Upper bound of the seams above; maintained for the lowest node of a tree.
    seams: u8,
}

#[derive(Debug, Clone)]
struct Slot {
    generation: u32,
    node: Option<Node>,
}

/// The forest. Queries for an unknown hash answer as the reference does: height 0, work 0, and the hash itself as tail.
#[derive(Debug, Clone, Default)]
pub struct Forest {
    slots: Vec<Slot>,
    free: Vec<u32>,
    ids: Map<ShareHash, Id>,
    /// Keyed by the parent's hash, including absent parents; `None` for shares that begin a chain.
    children: Map<Option<ShareHash>, Vec<ShareHash>>,
    heads: BTreeSet<ShareHash>,
}

impl Forest {
    /// Number of shares.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True if the forest has no shares.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// True if `hash` is in the forest.
    pub fn contains(&self, hash: &ShareHash) -> bool {
        self.ids.contains_key(hash)
    }

    /// Iterates over all shares, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = ShareHash> + '_ {
        self.ids.keys().copied()
    }

    /// Shares without children, ordered by hash.
    pub fn heads(&self) -> &BTreeSet<ShareHash> {
        &self.heads
    }

    /// Returns the shares whose parent is `hash`, in order of arrival; for `None`, those that begin a chain.
    pub fn children(&self, hash: Option<ShareHash>) -> &[ShareHash] {
        self.children.get(&hash).map_or(&[], Vec::as_slice)
    }

    /// Missing parents at the ends of chains (`None`: a complete chain), each with the heads above.
    pub fn tails(&self) -> BTreeMap<Option<ShareHash>, BTreeSet<ShareHash>> {
        let mut tails: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for head in &self.heads {
            tails.entry(self.height_and_last(*head).1).or_default().insert(*head);
        }
        tails
    }

    /// True if `hash` is a missing parent; for `None`, if there is a complete chain.
    pub fn is_tail(&self, hash: Option<ShareHash>) -> bool {
        hash.is_none_or(|hash| !self.contains(&hash)) && !self.children(hash).is_empty()
    }

    /// Parent of `hash` as named by the share, present or not.
    pub fn previous(&self, hash: ShareHash) -> Option<ShareHash> {
        self.node_of(hash).and_then(|node| node.previous)
    }

    /// Number of shares from `hash` down to the end of its chain, and the missing parent there; `(0, hash)` if unknown.
    pub fn height_and_last(&self, hash: ShareHash) -> (u32, Option<ShareHash>) {
        let Some(node) = self.node_of(hash) else { return (0, Some(hash)) };
        let root = self.root(node);
        (height_between(root, node) + 1, root.previous)
    }

    /// Number of shares from `hash` down to the end of its chain; 0 if unknown.
    pub fn height(&self, hash: ShareHash) -> u32 {
        self.height_and_last(hash).0
    }

    /// Missing parent at the end of the chain of `hash`; `None` if the chain is complete.
    pub fn last(&self, hash: ShareHash) -> Option<ShareHash> {
        self.height_and_last(hash).1
    }

    /// Work of `hash` alone; zero if unknown.
    pub fn work_of(&self, hash: ShareHash) -> Work {
        self.node_of(hash).map_or_else(Work::default, |node| node.own)
    }

    /// Work of `hash` and all its known ancestors; zero if unknown.
    pub fn work(&self, hash: ShareHash) -> Work {
        let Some(node) = self.node_of(hash) else { return Work::default() };
        let root = self.root(node);
        node.sum - root.sum + root.own
    }

    /// Work of the shares from `near` down to just before its ancestor `far`.
    pub fn work_between(&self, near: ShareHash, far: ShareHash) -> Work {
        match (self.node_of(near), self.node_of(far)) {
            (Some(near), Some(far)) => near.sum - far.sum,
            // Nothing is known below a tail: all known work counts.
            _ => self.work(near),
        }
    }

    /// Returns the ancestor `steps` below `hash` (0: itself). The missing parent at a chain's end counts as an
    /// ancestor; below it, and below the first share of a complete chain, the result is `None`.
    pub fn ancestor(&self, hash: ShareHash, steps: u32) -> Option<ShareHash> {
        let Some(node) = self.node_of(hash) else { return (steps == 0).then_some(hash) };
        let goal = node.depth - i64::from(steps);
        let mut at = node;
        while at.depth > goal {
            let skipped = self.skip(at).filter(|skipped| skipped.depth >= goal);
            match skipped.or_else(|| self.parent(at)) {
                Some(next) => at = next,
                None => return at.previous.filter(|_| at.depth - 1 == goal),
            }
        }
        Some(at.hash)
    }

    /// True if `below` is `above` or one of its ancestors; `None` if their known chains do not meet.
    pub fn is_ancestor(&self, below: ShareHash, above: ShareHash) -> Option<bool> {
        let (low, low_last) = self.height_and_last(below);
        let (high, high_last) = self.height_and_last(above);
        if low_last != high_last {
            return None;
        }
        Some(high.checked_sub(low).is_some_and(|steps| self.ancestor(above, steps) == Some(below)))
    }

    /// Newest share that is an ancestor of both, or one of them itself.
    pub fn fork(&self, one: ShareHash, other: ShareHash) -> Option<ShareHash> {
        let (mut one, mut other) = (self.node_of(one)?, self.node_of(other)?);
        if self.root(one).hash != self.root(other).hash {
            return None;
        }
        let level = one.depth.min(other.depth);
        one = self.lower_to(one, level)?;
        other = self.lower_to(other, level)?;
        while one.hash != other.hash {
            // Nodes of one tree and one depth skip equally far, so both can skip wherever they do not meet.
            match (self.skip(one), self.skip(other)) {
                (Some(a), Some(b)) if a.depth == b.depth && a.hash != b.hash => (one, other) = (a, b),
                _ => (one, other) = (self.parent(one)?, self.parent(other)?),
            }
        }
        Some(one.hash)
    }

    /// Iterates from `hash` down over at most `count` shares.
    pub fn chain(&self, hash: ShareHash, count: u32) -> impl Iterator<Item = ShareHash> + '_ {
        std::iter::successors(self.node_of(hash), |node| self.parent(node))
            .take(usize::try_from(count).unwrap_or(usize::MAX))
            .map(|node| node.hash)
    }

    /// Adds a share whose parent is `previous`; false if it was already present.
    pub fn insert(&mut self, hash: ShareHash, previous: Option<ShareHash>, own: Work) -> bool {
        if self.contains(&hash) {
            return false;
        }
        let id = self.place(Node { hash, previous, parent: None, skip: None, depth: 0, own, sum: own, seams: 0 });
        self.ids.insert(hash, id);
        self.children.entry(previous).or_default().push(hash);
        if let Some(previous) = previous {
            self.heads.remove(&previous);
        }
        if self.children(Some(hash)).is_empty() {
            self.heads.insert(hash);
        }
        self.label(id);
        if !self.shift_below(hash) {
            let mut above: Vec<ShareHash> = self.children(Some(hash)).to_vec();
            while let Some(child) = above.pop() {
                let id = self.ids[&child];
                self.label(id);
                above.extend_from_slice(self.children(Some(child)));
            }
        }
        true
    }

    /// Joins the tree that ends in `joint` with the one above it by shifting the lower one's labels. Returns false,
    /// without any change, if the lower one is not the smaller or the seam limit is reached.
    fn shift_below(&mut self, joint: ShareHash) -> bool {
        let &[above] = self.children(Some(joint)) else { return false };
        let (Some(high), Some(low)) = (self.node_of(above), self.node_of(joint)) else { return false };
        let root = self.root(low);
        let seams = root.seams.max(high.seams) + 1;
        if seams > SEAMS_MAX {
            return false;
        }
        let (root, depth, sum) = (root.hash, high.depth - 1 - low.depth, high.sum - high.own - low.sum);
        // In lockstep, so that comparing the sizes costs no more than the smaller tree.
        let mut upper = self.tree(above, None);
        let mut lower = Vec::new();
        for hash in self.tree(root, Some(above)) {
            if upper.next().is_none() {
                return false;
            }
            lower.push(self.ids[&hash]);
        }
        drop(upper);
        for id in lower {
            if let Some(node) = self.slots[id.slot as usize].node.as_mut() {
                (node.depth, node.sum) = (node.depth + depth, node.sum + sum);
                if node.hash == root {
                    node.seams = seams;
                }
            }
        }
        // Only the links change.
        self.label(self.ids[&above]);
        true
    }

    /// Iterates over `from` and everything above it, except the tree of `without`.
    fn tree(&self, from: ShareHash, without: Option<ShareHash>) -> impl Iterator<Item = ShareHash> + '_ {
        let mut due = vec![from];
        std::iter::from_fn(move || {
            let next = due.pop()?;
            due.extend(self.children(Some(next)).iter().filter(|child| Some(**child) != without));
            Some(next)
        })
    }

    /// Removes a head, or a share directly above a tail.
    ///
    /// # Errors
    /// If the share is unknown, or in the middle of a chain.
    pub fn remove(&mut self, hash: ShareHash) -> Result<(), RemoveError> {
        let node = self.node_of(hash).ok_or(RemoveError::Unknown(hash))?;
        let previous = node.previous;
        let parent_is_here = node.parent.is_some();
        let seams = node.seams;
        let is_head = self.heads.contains(&hash);
        if parent_is_here && !is_head {
            return Err(RemoveError::Middle(hash));
        }
        if let Some(siblings) = self.children.get_mut(&previous) {
            siblings.retain(|sibling| *sibling != hash);
            if siblings.is_empty() {
                self.children.remove(&previous);
            }
        }
        if is_head {
            self.heads.remove(&hash);
            if let Some(previous) = previous.filter(|_| parent_is_here)
                && self.children(Some(previous)).is_empty()
            {
                self.heads.insert(previous);
            }
        }
        for child in self.children(Some(hash)).to_vec() {
            let id = self.ids[&child];
            if let Some(node) = self.slots[id.slot as usize].node.as_mut() {
                node.parent = None;
                node.seams = node.seams.max(seams);
            }
        }
        if let Some(id) = self.ids.remove(&hash) {
            let slot = &mut self.slots[id.slot as usize];
            slot.node = None;
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(id.slot);
        }
        Ok(())
    }

    fn place(&mut self, node: Node) -> Id {
        if let Some(slot) = self.free.pop() {
            let place = &mut self.slots[slot as usize];
            place.node = Some(node);
            return Id { slot, generation: place.generation };
        }
        let slot = u32::try_from(self.slots.len()).expect("shares are far fewer than 2^32");
        self.slots.push(Slot { generation: 0, node: Some(node) });
        Id { slot, generation: 0 }
    }

    /// Derives the node's label and skip link from its parent's; without a parent, starts a new origin.
    fn label(&mut self, id: Id) {
        let Some(node) = self.get(id) else { return };
        let parent_id = node.previous.and_then(|previous| self.ids.get(&previous).copied());
        let (depth, sum, skip) = match parent_id.and_then(|parent_id| Some((parent_id, self.get(parent_id)?))) {
            None => (0, node.own, None),
            Some((parent_id, parent)) => {
                // Two equal skips in a row become one of twice the length.
                let skip = match self.skip(parent) {
                    Some(first) => match self.skip(first) {
                        Some(second) if parent.depth - first.depth == first.depth - second.depth => first.skip,
                        _ => Some(parent_id),
                    },
                    None => Some(parent_id),
                };
                (parent.depth + 1, parent.sum + node.own, skip)
            }
        };
        if let Some(node) = self.slots[id.slot as usize].node.as_mut() {
            (node.parent, node.depth, node.sum, node.skip) = (parent_id, depth, sum, skip);
        }
    }

    fn get(&self, id: Id) -> Option<&Node> {
        let slot = self.slots.get(id.slot as usize)?;
        slot.node.as_ref().filter(|_| slot.generation == id.generation)
    }

    fn node_of(&self, hash: ShareHash) -> Option<&Node> {
        self.get(*self.ids.get(&hash)?)
    }

    fn parent(&self, node: &Node) -> Option<&Node> {
        self.get(node.parent?)
    }

    fn skip(&self, node: &Node) -> Option<&Node> {
        self.get(node.skip?)
    }

    /// The lowest ancestor.
    fn root<'a>(&'a self, node: &'a Node) -> &'a Node {
        let mut at = node;
        while let Some(next) = self.skip(at).or_else(|| self.parent(at)) {
            at = next;
        }
        at
    }

    /// The ancestor at `depth`.
    fn lower_to<'a>(&'a self, node: &'a Node, depth: i64) -> Option<&'a Node> {
        let mut at = node;
        while at.depth > depth {
            at = self.skip(at).filter(|skipped| skipped.depth >= depth).or_else(|| self.parent(at))?;
        }
        Some(at)
    }
}

fn height_between(low: &Node, high: &Node) -> u32 {
    u32::try_from(high.depth - low.depth).expect("a chain is no longer than the forest, which is below 2^32")
}

/// Work of one share with both sums equal, and a vote that depends on it, for tests.
#[cfg(test)]
pub(super) fn equal_work(attempts: u64) -> Work {
    let is = |divisor: u64| u32::from(attempts.is_multiple_of(divisor));
    let tally = Tally { votes: is(2), votes_of_peers: is(6), shares: is(5) };
    let attempts = Attempts(ruint::aliases::U320::from(attempts));
    Work { own: attempts, min: attempts, tally }
}

#[cfg(test)]
mod tests;
