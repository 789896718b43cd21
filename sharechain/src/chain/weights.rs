//! PPLNS weights: each payee's part of the payout window (protocol section 7), exact.
//!
//! The window slides: from one share to the next a share enters, and about one leaves. The state is the sums of the
//! whole shares by payee, and the shares in order; a query moves the window to its start, so in the usual case it costs
//! a few shares and one copy of the sums, whatever the window's length. A window far from the last one is summed from
//! scratch.
//!
//! Weights that fade change with every share: `fading.rs` sums them again each time, ahead of the share if asked.

mod fading;
mod past;

pub use fading::Fading;
pub use past::Entry;

use std::sync::Arc;

use ruint::aliases::U320;

use self::fading::FadingShares;
use self::past::{Past, SPARE, WHOLE};
use crate::map::Map;
use crate::share::{Payee, ShareHash, Target, Weights};

/// Maximum distance of two windows for moving one to the other: forks are shallower, and a failed search costs less
/// than a window of this length.
const REACH: usize = 48;

/// Maximum weight of a window: `SPREAD` blocks' worth of work at the block target of the share to pay for.
pub fn limit(spread: u32, block_target: Target) -> U320 {
    // Attempts are at most 2^256, so this stays below 2^304.
    block_target.attempts().0 * U320::from(WHOLE) * U320::from(spread)
}

/// Query for a window's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Newest share that counts. `None`: nothing counts.
    pub start: Option<ShareHash>,
    /// Maximum number of shares that count.
    pub shares_max: u32,
    /// Weighting of each share.
    pub counting: Counting,
}

/// Weighting of a window's shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// In full, up to this total weight: see [`limit`].
    UpTo(U320),
    /// Each less than the next newer one, by output script.
    Fading(Fading),
}

impl Query {
    /// True if no share counts.
    fn is_empty(&self) -> bool {
        let nothing = match self.counting {
            Counting::UpTo(weight_max) => weight_max.is_zero(),
            Counting::Fading(_) => false,
        };
        nothing || self.start.is_none() || self.shares_max == 0
    }
}

/// Window that moves along a chain.
#[derive(Debug, Clone, Default)]
pub struct Window {
    past: Past,
    /// Number of the newest shares that count whole.
    whole: usize,
    by_payee: Map<Payee, (U320, u32)>,
    total: U320,
    donation: U320,
    /// The same past in the form for weights that fade, from the first query for such weights on.
    fading: Option<FadingShares>,
    latest: Option<(Query, Arc<Weights>)>,
}

impl Window {
    /// Computes the weights for `query`. `look` finds a share by hash; it must still find every share that it found
    /// before, except those removed below every window since.
    pub fn weights(&mut self, query: Query, look: &dyn Fn(ShareHash) -> Option<Entry>) -> Arc<Weights> {
        if let Some((_, weights)) = self.latest.as_ref().filter(|(latest, _)| *latest == query) {
            return Arc::clone(weights);
        }
        let weights = match query.start {
            Some(start) if !query.is_empty() => {
                let shares_max = usize::try_from(query.shares_max).unwrap_or(usize::MAX);
                self.begin_at(start, shares_max, look);
                self.count(shares_max, query.counting)
            }
            _ => Weights::default(),
        };
        let weights = Arc::new(weights);
        self.latest = Some((query, Arc::clone(&weights)));
        weights
    }

    /// Sums ahead for the next query, if that is for a window of `shares_max` shares whose newest is one more than now.
    /// Only weights that fade take long.
    pub fn prepare(&mut self, shares_max: u32, counting: Counting) {
        if let (Counting::Fading(fading), Some(shares)) = (counting, &mut self.fading) {
            shares.prepare(fading, usize::try_from(shares_max).unwrap_or(usize::MAX));
        }
    }

    /// Returns an independent copy, for tasks without access to the chain; the cost does not grow with the length. It
    /// holds the latest answer, and sums from scratch for other weights.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { past: self.past.clone(), latest: self.latest.clone() }
    }

    /// Makes `start` the newest share of the past, which then reaches `shares_max` back if the chain does.
    fn begin_at(&mut self, start: ShareHash, shares_max: usize, look: &dyn Fn(ShareHash) -> Option<Entry>) {
        let mut entering = Vec::new();
        let mut at = Some(start);
        let back = loop {
            let found = at.and_then(|at| (0..REACH).find(|back| self.past.get(*back).is_some_and(|e| e.hash == at)));
            if found.is_some() || entering.len() == REACH {
                break found;
            }
            let Some(entry) = at.and_then(look) else { break None };
            at = entry.previous;
            entering.push(entry);
        };
        if let Some(back) = back {
            for _ in 0..back {
                self.leave_newest();
            }
            for entry in entering.into_iter().rev() {
                self.enter(entry, shares_max);
            }
            let oldest = self.past.len().checked_sub(1).and_then(|oldest| self.past.get(oldest));
            let is_whole = oldest.is_some_and(|oldest| oldest.previous.and_then(look).is_none());
            if self.past.len() >= shares_max || is_whole {
                return;
            }
        }
        self.rebuild(start, shares_max, look);
    }

    fn rebuild(&mut self, start: ShareHash, shares_max: usize, look: &dyn Fn(ShareHash) -> Option<Entry>) {
        let mut entries: Vec<Entry> = std::iter::successors(look(start), |entry| look(entry.previous?))
            .take(shares_max.saturating_add(SPARE))
            .collect();
        entries.reverse();
        *self = Window::default();
        for entry in entries {
            self.past.push(entry, usize::MAX - 2 * SPARE);
        }
    }

    /// Weights of the newest shares.
    fn count(&mut self, shares_max: usize, counting: Counting) -> Weights {
        match counting {
            Counting::UpTo(weight_max) => {
                self.fit(shares_max, weight_max);
                self.result(shares_max, weight_max)
            }
            Counting::Fading(fading) => {
                let past = &self.past;
                self.fading.get_or_insert_with(|| FadingShares::of(past)).weights(fading, shares_max)
            }
        }
    }

    /// Adds or removes shares at the old end, until exactly those that fit count.
    fn fit(&mut self, shares_max: usize, weight_max: U320) {
        while self.whole > shares_max || self.total > weight_max {
            self.whole -= 1;
            match self.past.get(self.whole).cloned() {
                Some(entry) => self.count_out(&entry),
                None => break,
            }
        }
        while self.whole < shares_max {
            match self.past.get(self.whole).cloned() {
                Some(entry) if self.total + entry.total() <= weight_max => {
                    self.count_in(&entry);
                    self.whole += 1;
                }
                _ => break,
            }
        }
    }

    fn result(&self, shares_max: usize, weight_max: U320) -> Weights {
        let by_payee = self.by_payee.iter().map(|(payee, (weight, _))| (payee.clone(), *weight)).collect();
        let mut weights = Weights { by_payee, total: self.total, donation: self.donation };
        if self.whole < shares_max
            && self.total < weight_max
            && let Some(last) = self.past.get(self.whole)
        {
            add_partial(&mut weights, last, weight_max);
        }
        weights.by_payee.retain(|_, weight| !weight.is_zero());
        weights
    }

    /// Adds a share to the past, which counts whole until it is found not to fit. Queries for fading weights never look
    /// for that, so shares beyond the longest window are counted out here, while the past still holds them.
    fn enter(&mut self, entry: Entry, shares_max: usize) {
        self.count_in(&entry);
        self.whole += 1;
        if let Some(fading) = &mut self.fading {
            fading.push(&entry);
        }
        self.past.push(entry, shares_max);
        if let Some(fading) = &mut self.fading {
            fading.keep_newest(self.past.len());
        }
        while self.whole > shares_max
            && let Some(oldest) = self.past.get(self.whole - 1).cloned()
        {
            self.whole -= 1;
            self.count_out(&oldest);
        }
    }

    fn leave_newest(&mut self) {
        let Some(entry) = self.past.pop() else { return };
        if let Some(fading) = &mut self.fading {
            fading.pop();
        }
        if self.whole > 0 {
            self.whole -= 1;
            self.count_out(&entry);
        }
    }

    fn count_in(&mut self, entry: &Entry) {
        let (total, donated) = (entry.total(), entry.donated());
        self.total += total;
        self.donation += donated;
        let of = self.by_payee.entry(entry.payee.clone()).or_default();
        of.0 += total - donated;
        of.1 += 1;
    }

    fn count_out(&mut self, entry: &Entry) {
        let (total, donated) = (entry.total(), entry.donated());
        self.total -= total;
        self.donation -= donated;
        if let Some(of) = self.by_payee.get_mut(&entry.payee) {
            of.0 -= total - donated;
            of.1 -= 1;
            if of.1 == 0 {
                self.by_payee.remove(&entry.payee);
            }
        }
    }
}

/// Counts the part of `last` that fits below `weight_max`: the whole does not.
fn add_partial(weights: &mut Weights, last: &Entry, weight_max: U320) {
    // Both are multiples of 65535. The product comes first (section 7): it is below 2^320, as a part of `total()` times
    // attempts of less than 2^256 / 65535, or else of a limit that no real block's target gives.
    let part = wide((weight_max - weights.total) / U320::from(WHOLE));
    let attempts = wide(last.attempts.0);
    let share_of = |weight: U320| narrow(part * wide(weight) / attempts);
    *weights.by_payee.entry(last.payee.clone()).or_default() += share_of(last.total() - last.donated());
    weights.donation += share_of(last.donated());
    weights.total = weight_max;
}

type Wide = ruint::Uint<640, 10>;

fn wide(number: U320) -> Wide {
    Wide::from(number)
}

fn narrow(number: Wide) -> U320 {
    number.saturating_to()
}

/// Immutable copy of one window's shares.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    past: Past,
    latest: Option<(Query, Arc<Weights>)>,
}

impl Snapshot {
    /// Computes the weights for `query`, which must begin at the start of the copied window.
    pub fn weights(&self, query: Query) -> Arc<Weights> {
        if let Some((_, weights)) = self.latest.as_ref().filter(|(latest, _)| *latest == query) {
            return Arc::clone(weights);
        }
        if query.is_empty() {
            return Arc::default();
        }
        debug_assert_eq!(query.start, self.past.get(0).map(|entry| entry.hash));
        let shares_max = usize::try_from(query.shares_max).unwrap_or(usize::MAX);
        let mut window = Window { past: self.past.clone(), ..Window::default() };
        Arc::new(window.count(shares_max, query.counting))
    }
}

#[cfg(test)]
mod tests;
