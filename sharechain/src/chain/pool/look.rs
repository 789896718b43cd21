//! Snapshot of the chain for a [`PoolView`](super::PoolView): only the part that needs the chain itself.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use ruint::aliases::U320;

use super::announcements::MessageLog;
use super::{DRAWN_GENERATIONS, DRAWN_MAX, Measured, RecentShare, STRETCH};
use crate::chain::stats::OwnCounts;
use crate::chain::weights::Window;
use crate::chain::{Forest, Ratchet, Sharechain};
use crate::coin::Network;
use crate::share::{Payee, Share, ShareHash, Target, Weights};

/// Shares of the last snapshot that are compared with the newest ones: forks are shallower.
const REACH: usize = 64;

/// Maximum length of a list of hashes.
const LISTED_MAX: usize = 10_000;

/// Maximum number of heads considered for the drawing.
const HEADS_LOOKED_AT: usize = 2_000;

/// Block being mined, as far as payouts depend on it.
#[derive(Debug, Clone, Copy)]
pub struct NextBlock {
    /// Target of the block.
    pub target: Target,
    /// Block value in base units.
    pub value: u64,
}

/// State carried from one snapshot to the next, so that each walks only new shares.
#[derive(Debug, Default)]
pub struct Carried {
    /// Best chain, newest first, down to the oldest share kept.
    pub(super) chain: VecDeque<Arc<Share>>,
    /// Shares of one chain length, for [`Carried::counted`].
    length: usize,
    window: Window,
    pub(super) messages: MessageLog,
}

impl Carried {
    /// Newest shares of one chain length, newest first: the basis of found blocks, luck and difficulties.
    pub(super) fn counted(&self) -> impl DoubleEndedIterator<Item = &Arc<Share>> {
        self.chain.iter().take(self.length)
    }
}

/// Snapshot of the chain: [`view`](Looked::view) makes a [`PoolView`](super::PoolView) of it.
#[derive(Debug)]
pub struct Looked {
    pub(super) network: &'static Network,
    pub(super) ratchet: Option<Ratchet>,
    pub(super) carried: Carried,
    pub(super) height: u32,
    pub(super) shares: usize,
    pub(super) verified: usize,
    pub(super) heads: Vec<ShareHash>,
    pub(super) verified_heads: Vec<ShareHash>,
    pub(super) tails: Vec<ShareHash>,
    pub(super) verified_tails: Vec<ShareHash>,
    pub(super) own: HashSet<ShareHash>,
    pub(super) own_counts: OwnCounts,
    pub(super) recent: Vec<RecentShare>,
    pub(super) hour: Option<Measured>,
    pub(super) stretch: Option<Measured>,
    pub(super) votes: BTreeMap<u64, U320>,
    /// Work of the last [`STRETCH`] shares.
    pub(super) users: Arc<Weights>,
    /// Weights and value of the next block.
    pub(super) paid: Option<(Arc<Weights>, u64)>,
    pub(super) donation: Payee,
}

impl Looked {
    /// State for the next snapshot.
    pub fn into_carried(self) -> Carried {
        self.carried
    }
}

/// Takes a snapshot of `chain` from the last one's state, `carried`, in a few milliseconds at most on a full chain.
pub fn look(chain: &Sharechain, mut carried: Carried, block: Option<NextBlock>) -> Looked {
    let network = chain.network();
    let best = chain.choice().best;
    let height = best.map_or(0, |best| chain.all().height(best));
    let shares = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    carried.length = shares(network.chain_length.max(network.real_chain_length));
    follow(&mut carried.chain, chain, best, shares(height));
    let statistics = chain.statistics();
    let hour_shares = (3600 / network.share_period.max(1)).min(network.chain_length);
    let measure = |count: u32| -> Option<Measured> {
        let (best, shares) = (best?, height.min(count));
        Some(Measured {
            shares,
            rate: statistics.rate(best, shares)?,
            stale_proportion: statistics.average_stale_proportion(best, shares),
            counts: statistics.stale_counts(best, shares),
            seconds: statistics.seconds(best, shares)?,
        })
    };
    let own: HashSet<ShareHash> = chain.own().hashes().into_iter().collect();
    Looked {
        network,
        ratchet: chain.ratchet().copied(),
        height,
        shares: chain.all().len(),
        verified: chain.verified().len(),
        heads: heads(chain.all()),
        verified_heads: heads(chain.verified()),
        tails: tails(chain.all()),
        verified_tails: tails(chain.verified()),
        own_counts: chain.own().counts(),
        recent: best.map_or_else(Vec::new, |best| recent(chain, best, &own)),
        own,
        hour: measure(hour_shares),
        stretch: measure(STRETCH),
        votes: best.map(|best| statistics.votes(best, height.min(hour_shares))).unwrap_or_default(),
        users: best.map(|best| statistics.weights_of(best, STRETCH)).unwrap_or_default(),
        paid: best
            .zip(block)
            .map(|(best, block)| (statistics.weights_within(&mut carried.window, best, block.target), block.value)),
        donation: statistics.donation_payee(best),
        carried,
    }
}

/// Updates `past`, the best chain as of the last snapshot, to the current one. Costs the new shares, or the whole chain
/// after a reorganisation.
fn follow(past: &mut VecDeque<Arc<Share>>, chain: &Sharechain, best: Option<ShareHash>, kept: usize) {
    let mut entering = Vec::new();
    let mut at = best.and_then(|best| chain.share(best));
    let joint = loop {
        let Some(share) = at else { break None };
        if let Some(back) = past.iter().take(REACH).position(|old| old.hash() == share.hash()) {
            break Some(back);
        }
        if entering.len() == REACH {
            break None;
        }
        entering.push(share.clone());
        at = share.previous().and_then(|previous| chain.share(previous));
    };
    match joint {
        Some(back) => drop(past.drain(..back)),
        None => past.clear(),
    }
    for share in entering.into_iter().rev() {
        past.push_front(share);
    }
    past.truncate(kept);
    // A chain under download grows at its low end.
    while past.len() < kept
        && let Some(share) = past.back().and_then(|low| chain.share(low.previous()?))
    {
        past.push_back(share.clone());
    }
}

fn heads(forest: &Forest) -> Vec<ShareHash> {
    forest.heads().iter().copied().take(LISTED_MAX).collect()
}

/// Returns the shares directly above each missing parent.
fn tails(forest: &Forest) -> Vec<ShareHash> {
    let tails = forest.tails();
    tails.keys().flat_map(|tail| forest.children(*tail)).copied().take(LISTED_MAX).collect()
}

/// Returns the last generations, with their forks.
fn recent(chain: &Sharechain, best: ShareHash, own: &HashSet<ShareHash>) -> Vec<RecentShare> {
    let Some(top) = chain.share(best).map(|share| share.absheight()) else { return Vec::new() };
    let bottom = top.saturating_sub(DRAWN_GENERATIONS - 1);
    let generations = usize::try_from(DRAWN_GENERATIONS).unwrap_or(usize::MAX);
    let in_chain: HashSet<ShareHash> = chain.all().chain(best, DRAWN_GENERATIONS).collect();
    let is_near = |height: u32| height >= bottom && height <= top.saturating_add(DRAWN_GENERATIONS);
    // If there are too many, forks that end high come first.
    let ends: BTreeSet<(u32, ShareHash)> = chain
        .all()
        .heads()
        .iter()
        .take(HEADS_LOOKED_AT)
        .filter_map(|head| Some((chain.share(*head)?.absheight(), *head)))
        .filter(|(height, _)| is_near(*height))
        .collect();
    let mut drawn: Vec<ShareHash> = chain.all().chain(best, DRAWN_GENERATIONS).collect();
    let mut seen = in_chain.clone();
    for (_, head) in ends.into_iter().rev() {
        let mut at = Some(head);
        while let Some(hash) = at
            && drawn.len() < DRAWN_MAX.max(generations)
            && chain.share(hash).is_some_and(|share| is_near(share.absheight()))
            && seen.insert(hash)
        {
            drawn.push(hash);
            at = chain.all().previous(hash);
        }
    }
    let mut shares: Vec<RecentShare> = drawn
        .into_iter()
        .filter_map(|hash| {
            let known = chain.known(hash)?;
            let share = &known.share;
            Some(RecentShare {
                hash,
                parent: share.previous(),
                height: share.absheight(),
                time: share.timestamp(),
                seen: known.first_seen,
                payee: share.payee().clone(),
                target: share.target(),
                stale_info: share.data().stale_info,
                is_verified: chain.verified().contains(&hash),
                in_best_chain: in_chain.contains(&hash),
                is_own: own.contains(&hash),
                is_block: share.is_block(),
            })
        })
        .collect();
    shares.sort_by_key(|share| std::cmp::Reverse((share.height, share.in_best_chain)));
    shares
}
