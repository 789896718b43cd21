//! Bounds the memory that untrusted shares can take: above a bound, the branch with the least work goes first.
//!
//! A share's proof of work is checked against a target of its own choice: an unconnected one may have the easiest
//! target there is. So branches are ranked by their work, and verified shares and those that build on them stay
//! longest. The best chain is never touched.
//!
//! Unverified shares are bounded in bytes too, in total and by source network; there the network with the most bytes
//! loses its longest shares first. The loose chain with the most work stays, as it may be the pool's own under
//! download, unless it takes more than the pool's could.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use super::Sharechain;
use super::loose::{DOWNLOAD_BYTES_OF_EACH, LOOSE_MAX, OF_ONE_MAX, SourceNetwork};
use super::prune::TAIL_SPARE;
use crate::share::{Attempts, ShareHash};

/// Shares allowed beyond twice two chains: forks and downloads.
const SHARES_SPARE: u32 = 1000;
/// Maximum number of unverified branches: a download has one for each answer that is not joined yet.
const LOOSE_HEADS_MAX: usize = 512;
/// The same for one address; several nodes behind one address can still download.
const LOOSE_HEADS_OF_ONE_MAX: usize = 64;
/// Above a bound, a sixteenth more than the excess is removed, so that the search does not run for every share.
const MORE: usize = 16;

/// Rank of a branch, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Neither verified nor joined to the best chain.
    Loose,
    /// On top of the best chain, not verified (yet).
    Joined,
    /// Verified.
    Verified,
}

/// A branch: from its head down to the best chain, or to its end.
#[derive(Debug, Clone, Copy)]
struct Branch {
    standing: Standing,
    work: Attempts,
    head: ShareHash,
    source: Option<IpAddr>,
}

impl Sharechain {
    /// Maximum number of shares after [`bound`](Self::bound): this node's chain and another of the same length, of
    /// twice the window each, so that a better chain can be downloaded beside the best; plus a margin.
    pub fn shares_max(&self) -> usize {
        let chain = 2 * self.network.chain_length as usize + TAIL_SPARE as usize;
        2 * chain + SHARES_SPARE as usize
    }

    /// Memory use of shares from peers that are not known to belong to the pool, in bytes.
    pub fn loose_bytes(&self) -> usize {
        self.loose.bytes()
    }

    /// Removes the lowest-ranked branches while shares, unverified branches or unverified bytes exceed their bounds,
    /// and returns the removed shares. Call after each choice that follows shares from peers.
    pub fn bound(&mut self) -> Vec<ShareHash> {
        let mut removed = Vec::new();
        if self.loose.is_due() {
            self.bound_bytes(&mut removed);
            self.loose.settle();
        }
        let loose = self.all.heads().len().saturating_sub(self.verified.heads().len());
        if loose > LOOSE_HEADS_OF_ONE_MAX {
            self.bound_heads(&mut removed);
        }
        let max = self.shares_max();
        if self.all.len() > max {
            let goal = max - max / MORE;
            for branch in self.branches() {
                if self.all.len() <= goal {
                    break;
                }
                self.cut(branch.head, goal, &mut removed);
            }
        }
        removed
    }

    /// Removes the longest share, and everything above it, of the network with the most loose bytes.
    fn bound_bytes(&mut self, removed: &mut Vec<ShareHash>) {
        let download = self.loose_chain_with_most_work();
        // A share whose parent is verified is about to be checked, and the chain must not lose it before that.
        let is_due_to_be_judged =
            |hash: &ShareHash| self.all.previous(*hash).is_some_and(|parent| self.verified.contains(&parent));
        let mut by_network: BTreeMap<SourceNetwork, Vec<(usize, ShareHash)>> = BTreeMap::new();
        let mut sums: HashMap<SourceNetwork, usize> = HashMap::new();
        for (hash, share) in self.loose.iter() {
            let Some(network) = share.network.filter(|_| !download.contains(&hash)) else { continue };
            *sums.entry(network).or_default() += share.bytes;
            if !is_due_to_be_judged(&hash) {
                by_network.entry(network).or_default().push((share.bytes, hash));
            }
        }
        for shares in by_network.values_mut() {
            // Shortest first, since shares are taken from the end; among equals the oldest first.
            shares.sort_by(|(one_bytes, one), (other_bytes, other)| {
                let seen = |hash: &ShareHash| self.known.get(hash).map_or(0.0, |known| known.first_seen);
                one_bytes.cmp(other_bytes).then_with(|| seen(one).total_cmp(&seen(other))).then_with(|| one.cmp(other))
            });
        }
        let mut all: usize = sums.values().sum();
        let (of_one_goal, goal) = (OF_ONE_MAX - OF_ONE_MAX / MORE, LOOSE_MAX - LOOSE_MAX / MORE);
        let is_crowded = all > LOOSE_MAX;
        let mut crowded: HashSet<SourceNetwork> =
            sums.iter().filter(|(_, bytes)| **bytes > OF_ONE_MAX).map(|(network, _)| *network).collect();
        loop {
            let largest = by_network.keys().copied().max_by_key(|network| (sums[network], Reverse(*network)));
            let Some(largest) = largest else { return };
            if sums[&largest] <= of_one_goal {
                crowded.remove(&largest);
            }
            if !(crowded.contains(&largest) || is_crowded && all > goal) {
                return;
            }
            let Some((_, hash)) = by_network.get_mut(&largest).and_then(Vec::pop) else {
                by_network.remove(&largest);
                continue;
            };
            let mut doomed = vec![hash];
            let mut next = 0;
            while let Some(share) = doomed.get(next).copied() {
                doomed.extend_from_slice(self.all.children(Some(share)));
                next += 1;
            }
            if !self.all.contains(&hash) || doomed.iter().any(|share| download.contains(share)) {
                continue;
            }
            for share in doomed.into_iter().rev() {
                let loose = self.loose.get(&share);
                if !self.forget(share) {
                    continue;
                }
                removed.push(share);
                if let Some((bytes, network)) = loose.and_then(|loose| Some((loose.bytes, loose.network?))) {
                    all -= bytes;
                    *sums.entry(network).or_default() -= bytes;
                }
            }
        }
    }

    /// Loose shares of the loose branch with the most work, unless they take more memory than those of a real chain.
    fn loose_chain_with_most_work(&self) -> HashSet<ShareHash> {
        let loose_heads = self.all.heads().iter().copied().filter(|head| self.loose.get(head).is_some());
        let top = loose_heads.max_by_key(|head| self.all.work(*head).own);
        let mut chain = HashSet::new();
        let mut bytes = 0;
        let mut at = top;
        while let Some((hash, share)) = at.and_then(|hash| Some((hash, self.loose.get(&hash)?))) {
            bytes += share.bytes;
            chain.insert(hash);
            at = self.all.previous(hash);
        }
        let shares_max = 2 * self.network.chain_length as usize + TAIL_SPARE as usize;
        if bytes > (shares_max * DOWNLOAD_BYTES_OF_EACH).max(OF_ONE_MAX) { HashSet::new() } else { chain }
    }

    fn bound_heads(&mut self, removed: &mut Vec<ShareHash>) {
        let mut loose: Vec<Branch> = self.branches();
        loose.retain(|branch| branch.standing < Standing::Verified);
        let mut of_one: HashMap<IpAddr, usize> = HashMap::new();
        for source in loose.iter().filter_map(|branch| branch.source) {
            *of_one.entry(source).or_default() += 1;
        }
        // First the excess of single addresses, so that they displace no other's branches.
        loose.retain(|branch| {
            let count = branch.source.and_then(|source| of_one.get_mut(&source));
            let Some(count) = count.filter(|count| **count > LOOSE_HEADS_OF_ONE_MAX) else { return true };
            *count -= 1;
            self.cut(branch.head, 0, removed);
            false
        });
        if loose.len() > LOOSE_HEADS_MAX {
            let excess = loose.len() - LOOSE_HEADS_MAX + LOOSE_HEADS_MAX / MORE;
            loose.iter().take(excess).for_each(|branch| self.cut(branch.head, 0, removed));
        }
    }

    /// Returns all branches except the best, the lowest rank first; among equals the latest arrival goes first.
    fn branches(&self) -> Vec<Branch> {
        let mut branches: Vec<(Branch, f64)> = Vec::new();
        for head in self.all.heads() {
            if Some(*head) == self.choice.best {
                continue;
            }
            let Some(known) = self.known.get(head) else { continue };
            let fork = self.choice.best.and_then(|best| self.all.fork(*head, best));
            let work = self.all.work(*head).own.0 - fork.map_or(Default::default(), |fork| self.all.work(fork).own.0);
            let standing = match fork {
                _ if self.verified.contains(head) => Standing::Verified,
                Some(_) => Standing::Joined,
                None => Standing::Loose,
            };
            let source = known.source.map(|source| source.ip().to_canonical());
            branches.push((Branch { standing, work: Attempts(work), head: *head, source }, known.first_seen));
        }
        branches.sort_by(|(one, one_seen), (other, other_seen)| {
            (one.standing, one.work)
                .cmp(&(other.standing, other.work))
                .then_with(|| other_seen.total_cmp(one_seen))
                .then_with(|| one.head.cmp(&other.head))
        });
        branches.into_iter().map(|(branch, _)| branch).collect()
    }

    /// Removes a branch from its head down, until `goal` shares are left in total or it joins another branch.
    fn cut(&mut self, head: ShareHash, goal: usize, removed: &mut Vec<ShareHash>) {
        let best = self.choice.best;
        let mut at = Some(head);
        while let Some(share) = at.filter(|share| self.all.heads().contains(share) && self.all.len() > goal) {
            let is_best = best.is_some_and(|best| self.all.is_ancestor(share, best) == Some(true));
            at = self.all.previous(share);
            if is_best || !self.forget(share) {
                return;
            }
            removed.push(share);
        }
    }
}
