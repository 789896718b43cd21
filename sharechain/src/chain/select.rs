//! Chooses the best share (protocol section 8.2): verifies as many shares as possible, then compares chains and heads.
//!
//! The set of verified shares depends on when the choice was run, as in the reference.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;

use super::error::VerifyError;
use super::forest::Work;
use super::score::{AdjustedWork, TailScore, score};
use super::verify::{is_early, punishment};
use super::{Event, Sharechain};
use crate::map::Set;
use crate::merkle::Digest;
use crate::share::{Attempts, ShareHash, Target};

/// Unverified shares tried from the top of an incomplete chain.
const TRIES_MAX: u32 = 5;
/// Heads are compared by the work of their ancestor this many shares back.
const CONFIRMED_BACK: u32 = 5;
/// Maximum generations on the way back up from a punished share.
const GENERATIONS_MAX: u32 = 21;
/// Maximum age in seconds of the chain around a missing parent, relative to the best share.
const WANTED_AGE_MAX: f64 = 3600.0;
/// The same without a best share, relative to the clock.
const WANTED_AGE_AT_START_MAX: f64 = 86_400.0;
/// Maximum blocks of unknown height requested at once: a score reads a sixteenth of a chain's length.
const WANTED_HEIGHTS_MAX: usize = 4096;

/// A missing parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Hash of the parent.
    pub hash: ShareHash,
    /// A peer that sent a child of it, if any.
    pub source: Option<SocketAddr>,
    /// Newest timestamp among the chain's latest five shares, seconds since 1970.
    pub timestamp: u32,
    /// Hardest target among them.
    pub target: Target,
}

/// A verified head of the best tail, and the values for comparing it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredHead {
    /// Hash of the head.
    pub hash: ShareHash,
    /// Work up to five shares back, adjusted by the punishment.
    pub work: AdjustedWork,
    /// The same without adjustment.
    pub confirmed: Attempts,
    /// Punishment of protocol section 5.6: -1 for a block's solution, 0 for most.
    pub punishment: i32,
    /// Time of first arrival, seconds since 1970.
    pub first_seen: f64,
}

impl ScoredHead {
    /// By more work, then less punishment, then earlier arrival, then the greater hash.
    fn order(&self, other: &ScoredHead) -> Ordering {
        (self.work.cmp(&other.work))
            .then_with(|| other.punishment.cmp(&self.punishment))
            .then_with(|| self.before(other))
    }

    /// Order without punishments: by work before adjustment, then earlier arrival.
    fn traditional_order(&self, other: &ScoredHead) -> Ordering {
        (self.confirmed.cmp(&other.confirmed))
            .then_with(|| other.first_seen.total_cmp(&self.first_seen))
            .then_with(|| other.punishment.cmp(&self.punishment))
            .then_with(|| self.hash.cmp(&other.hash))
    }

    fn before(&self, other: &ScoredHead) -> Ordering {
        other.first_seen.total_cmp(&self.first_seen).then_with(|| self.hash.cmp(&other.hash))
    }
}

/// Heads by the missing parent below them.
type Tails = BTreeMap<Option<ShareHash>, BTreeSet<ShareHash>>;

/// Result of a choice, and its basis.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice {
    /// Share to build on.
    pub best: Option<ShareHash>,
    /// Heads of the best tail, worst first.
    pub heads: Vec<ScoredHead>,
    /// Missing parents worth requesting.
    pub wanted: Vec<Wanted>,
    /// Nonzero if new work should overtake a punished head (or, a quirk of the reference, one that solved its block).
    pub punish_aggressively: i32,
}

/// Part of a branch below its shares that are ahead of our clock.
enum Below {
    /// A share that can be checked.
    Share(ShareHash),
    /// A missing share.
    Missing(ShareHash),
    /// Nothing that another head does not lead to.
    Nothing,
}

/// Limit on the checks in one slice of thinking.
struct Budget<'a> {
    go_on: &'a mut dyn FnMut() -> bool,
    began: bool,
    spent: bool,
}

impl Budget<'_> {
    /// True if one more check is allowed; the first always is.
    fn allows_one(&mut self) -> bool {
        self.spent = self.spent || (self.began && !(self.go_on)());
        self.began = true;
        !self.spent
    }
}

impl Sharechain {
    /// Verifies as many shares as possible and chooses the best: call after each batch of shares, each new template,
    /// and every few seconds. `now` is in seconds since 1970. Results are events.
    pub fn think(&mut self, now: f64) -> &Choice {
        self.think_while(now, &mut || true);
        &self.choice
    }

    /// Like [`think`](Self::think), in slices: `go_on` is called between two checks, after the first, and once it
    /// returns false the choice is made from the shares verified so far. Returns true if nothing was left to verify;
    /// otherwise call again. Shares on top of verified ones come first, so that a fresh one is not delayed.
    pub fn think_while(&mut self, now: f64, go_on: &mut dyn FnMut() -> bool) -> bool {
        let mut budget = Budget { go_on, began: false, spent: false };
        let mut wanted = self.verify_heads(now, &mut budget);
        wanted.extend(self.extend_verified(now, &mut budget));
        let is_whole = !budget.spent;
        let mut heights = Vec::new();
        let heads = self.heads_of_best_tail(&mut heights);
        heights.truncate(WANTED_HEIGHTS_MAX);
        self.wanted_heights.extend(heights);

        let top = heads.last().map(|head| (head.hash, head.punishment));
        let traditional = heads.iter().max_by(|one, other| one.traditional_order(other));
        let punish_aggressively = traditional.map_or(0, |head| -head.punishment);
        let best = top.and_then(|(hash, punishment)| if punishment > 0 { self.step_back(hash) } else { Some(hash) });

        let cutoff = match best.and_then(|best| self.known.get(&best)) {
            Some(best) => now.floor().min(f64::from(best.share.timestamp())) - WANTED_AGE_MAX,
            None => now - WANTED_AGE_AT_START_MAX,
        };
        wanted.retain(|wanted| f64::from(wanted.timestamp) >= cutoff);
        let mut named = HashSet::new();
        wanted.retain(|wanted| named.insert(wanted.hash));
        for wanted in &wanted {
            self.events.push_back(Event::ParentWanted(wanted.clone()));
        }
        let choice = Choice { best, heads, wanted, punish_aggressively };
        let before = std::mem::replace(&mut self.choice, choice);
        self.note_choice(&before);
        self.turn_ratchet(now);
        is_whole
    }

    /// Steps 1 and 2: tries unverified heads, and removes those that fail.
    fn verify_heads(&mut self, now: f64, budget: &mut Budget<'_>) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        let mut bad: Vec<(ShareHash, VerifyError)> = Vec::new();
        let heads: Vec<ShareHash> =
            self.all.heads().iter().copied().filter(|head| !self.verified.heads().contains(head)).collect();
        let is_fresh = |head: &ShareHash| self.all.previous(*head).is_some_and(|below| self.verified.contains(&below));
        let (fresh, others): (Vec<_>, Vec<_>) = heads.into_iter().partition(is_fresh);
        let mut early = Set::default();
        for head in fresh.into_iter().chain(others) {
            let top = match self.below_early(head, now, &mut early) {
                Below::Share(top) => top,
                Below::Missing(missing) => {
                    wanted.extend(self.wanted(head, missing));
                    continue;
                }
                Below::Nothing => continue,
            };
            let (height, last) = self.all.height_and_last(top);
            let tries = match last {
                None => height,
                Some(_) => height.saturating_sub(self.network.chain_length).min(TRIES_MAX),
            };
            let mut found = false;
            let mut at = Some(top);
            for _ in 0..tries {
                let Some(share) = at.filter(|at| self.all.contains(at)) else { break };
                at = self.all.previous(share);
                // Two heads may lead to one bad share.
                if bad.iter().any(|(bad, _)| *bad == share) {
                    continue;
                }
                // Shares of this head that were tried so far are removed below, or tried again.
                if !budget.allows_one() {
                    break;
                }
                match self.attempt(share, now) {
                    Ok(()) => {
                        found = true;
                        break;
                    }
                    Err(error) => bad.push((share, error)),
                }
            }
            // In a slice, shares not tried yet may still prove to need nothing.
            let is_open = budget.spent && tries > 0;
            if let (false, false, Some(last)) = (found, is_open, last) {
                wanted.extend(self.wanted(top, last));
            }
        }
        self.note_early(early, now);
        for (hash, error) in bad {
            let source = self.known.get(&hash).and_then(|known| known.source);
            // A share in the middle of a chain stays, as in the reference.
            self.forget(hash);
            self.events.push_back(Event::Refused { hash, source, error });
        }
        wanted
    }

    /// Walks from `head` down past the shares that are too far ahead of our clock, and adds them to `early`. They stay,
    /// unchecked, until our clock reaches their time; the reference removes them and must fetch them again.
    fn below_early(&self, head: ShareHash, now: f64, early: &mut Set<ShareHash>) -> Below {
        let mut at = head;
        loop {
            match self.share(at) {
                None => return Below::Missing(at),
                Some(share) if !is_early(share, now) => return Below::Share(at),
                // From here on, another head led the same way.
                Some(_) if !early.insert(at) => return Below::Nothing,
                Some(_) => match self.all.previous(at) {
                    Some(previous) => at = previous,
                    None => return Below::Nothing,
                },
            }
        }
    }

    /// Reports newly found shares that are ahead of our clock, once each.
    fn note_early(&mut self, early: Set<ShareHash>, now: f64) {
        let whole_seconds = format!("{now:.0}");
        for hash in early.difference(&self.early) {
            let Some(known) = self.known.get(hash) else { continue };
            let error = VerifyError::Future { timestamp: known.share.timestamp(), now: whole_seconds.clone() };
            self.events.push_back(Event::Early { hash: *hash, source: known.source, error });
        }
        self.early = early;
    }

    /// Step 3: verifies downwards from the verified tails until a chain's length is verified.
    fn extend_verified(&mut self, now: f64, budget: &mut Budget<'_>) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        let length = self.network.chain_length;
        let heads: Vec<ShareHash> = self.verified.heads().iter().copied().collect();
        for head in heads {
            let (height, last) = self.verified.height_and_last(head);
            let Some(last) = last else { continue };
            if height >= length {
                continue;
            }
            let (below, below_last) = self.all.height_and_last(last);
            let can = match below_last {
                Some(_) => below.saturating_sub(1).saturating_sub(length),
                None => below,
            };
            let want = length - height;
            self.verify_down(last, want.min(can), now, budget);
            let is_open = budget.spent && can >= want;
            if let (false, Some(below_last)) = (is_open, below_last) {
                wanted.extend(self.wanted(head, below_last));
            }
        }
        wanted
    }

    /// Verifies up to `count` shares from `hash` down, until one fails.
    fn verify_down(&mut self, hash: ShareHash, count: u32, now: f64, budget: &mut Budget<'_>) {
        let mut left = count;
        let mut at = Some(hash);
        // Verified from the top, as in the reference, but added to the verified forest from the bottom, so that the
        // shares above are labelled once and not once per share.
        let mut passed = Vec::new();
        while let Some(share) = at.filter(|at| left > 0 && self.all.contains(at)) {
            let verified = self.verified.height_and_last(share);
            if verified.0 > 0 {
                left = left.saturating_sub(verified.0);
                at = verified.1;
                continue;
            }
            if !budget.allows_one() {
                break;
            }
            match self.check(share, now) {
                Ok(_) => passed.push(share),
                Err(_) => break,
            }
            left -= 1;
            at = self.all.previous(share);
        }
        for share in passed.into_iter().rev() {
            self.mark_verified(share);
        }
    }

    fn wanted(&self, head: ShareHash, missing: ShareHash) -> Option<Wanted> {
        let latest: Vec<_> = self.view().chain(head, TRIES_MAX).collect();
        // Any child's sender will do (the reference picks at random): the latest child's is likely still connected.
        let children = self.all.children(Some(missing)).iter().rev();
        let source = children.filter_map(|child| self.known.get(child)).find_map(|child| child.source);
        Some(Wanted {
            hash: missing,
            source,
            timestamp: latest.iter().map(|share| share.timestamp()).max()?,
            target: latest.iter().map(|share| share.target()).min()?,
        })
    }

    /// Score of the tail chosen last; `None` if nothing is verified.
    pub fn tail_score(&self) -> Option<TailScore> {
        let heads = self.choice.heads.iter().map(|head| head.hash).filter(|head| self.verified.contains(head));
        let top = heads.max_by_key(|head| self.verified.work(*head).own)?;
        Some(score(&self.view(), &self.verified, top, &mut Vec::new()))
    }

    /// Steps 4 and 5: heads of the verified tail whose best chain scores highest, worst first.
    fn heads_of_best_tail(&self, heights: &mut Vec<Digest>) -> Vec<ScoredHead> {
        let mut tails = self.verified.tails();
        // A score reads a sixteenth of the chain, and most often there is only one tail.
        let best = if tails.len() == 1 { tails.pop_first() } else { self.best_tail(tails, heights) };
        let heads = best.map(|(_, heads)| heads).unwrap_or_default();
        let mut heads: Vec<ScoredHead> = heads.into_iter().filter_map(|head| self.scored(head)).collect();
        heads.sort_by(ScoredHead::order);
        heads
    }

    fn best_tail(&self, tails: Tails, heights: &mut Vec<Digest>) -> Option<(Option<ShareHash>, BTreeSet<ShareHash>)> {
        let view = self.view();
        let scores = tails.into_iter().filter_map(|(tail, heads)| {
            let top = heads.iter().copied().max_by_key(|head| self.verified.work(*head).own)?;
            Some((score(&view, &self.verified, top, heights), tail, heads))
        });
        let best = scores.max_by(|one, other| one.0.order(&other.0).then_with(|| one.1.cmp(&other.1)));
        best.map(|(_, tail, heads)| (tail, heads))
    }

    fn scored(&self, hash: ShareHash) -> Option<ScoredHead> {
        let known = self.known.get(&hash)?;
        let punishment = punishment(&self.view(), known);
        let back = self.verified.height(hash).min(CONFIRMED_BACK);
        let work = self.all.ancestor(hash, back).map_or_else(Work::default, |ancestor| self.verified.work(ancestor));
        let confirmed = work.own;
        let work = AdjustedWork::new(confirmed, known.share.attempts(), punishment);
        Some(ScoredHead { hash, work, confirmed, punishment, first_seen: known.first_seen })
    }

    /// Step 7: from a punished head down to a share that is not, and up again if no naughty share is on the way.
    fn step_back(&self, punished: ShareHash) -> Option<ShareHash> {
        let view = self.view();
        let mut climbed = HashSet::new();
        let mut at = punished;
        loop {
            at = self.all.previous(at).filter(|previous| self.all.contains(previous))?;
            let of = punishment(&view, self.known.get(&at)?);
            if of > 0 {
                continue;
            }
            if of < 0 || !climbed.insert(at) {
                // A way up that led back here once would do so forever; the reference would hang.
                return Some(at);
            }
            at = self.deepest_descendant(at, GENERATIONS_MAX).1;
            if punishment(&view, self.known.get(&at)?) <= 0 {
                return Some(at);
            }
        }
    }

    /// Deepest descendant reachable through shares that are not naughty; among equals by hash.
    fn deepest_descendant(&self, hash: ShareHash, generations: u32) -> (u32, ShareHash) {
        if generations == 0 {
            return (0, hash);
        }
        let children = self.all.children(Some(hash)).iter();
        let honest = children.filter(|child| self.known.get(*child).is_some_and(|child| child.naughty == 0));
        let deepest = honest.map(|child| self.deepest_descendant(*child, generations - 1)).max();
        deepest.map_or((0, hash), |(depth, hash)| (depth + 1, hash))
    }
}
