//! Weights that fade from share to share (protocol-v36 section 4.1), by output script and exact.
//!
//! The factor of every share changes with each new one, and each product is rounded down, so nothing but a walk over the
//! whole window gives the reference's sums. It is short because each share is 16 bytes here, with its payee as a number,
//! and because 128 bits hold every sum of work below 2^64. A share with more work is summed in 320 bits.
//!
//! No job has to wait for the walk: all shares but the newest can be summed before that comes.

use std::collections::VecDeque;

use ruint::aliases::U320;

use super::past::{Entry, Past, WHOLE};
use crate::map::Map;
use crate::share::{Payee, Weights};

/// Weight that fades from share to share, as a fraction of `Fading::SCALE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fading {
    /// Fraction left after one share.
    pub(super) per_share: u64,
}

impl Fading {
    /// Fractions are in 2^40ths.
    const SCALE_BITS: usize = 40;
    /// The fraction that is all.
    const SCALE: u64 = 1 << Self::SCALE_BITS;

    /// Weights of which about half is left after `half_life` shares: each share takes off ln 2, divided by the
    /// half-life, to six digits.
    pub fn with_half_life(half_life: u32) -> Fading {
        let taken = u128::from(Self::SCALE) * 693_147 / (1_000_000 * u128::from(half_life.max(1)));
        Fading { per_share: Self::SCALE.saturating_sub(u64::try_from(taken).unwrap_or(Self::SCALE)) }
    }

    /// Fraction left after one share more than after `left`.
    fn after(self, left: u64) -> u64 {
        u64::try_from((u128::from(left) * u128::from(self.per_share)) >> Self::SCALE_BITS).unwrap_or(left)
    }
}

/// Fractions left after 0, 1, 2, … shares.
#[derive(Debug, Clone)]
struct Factors {
    fading: Fading,
    list: Vec<u64>,
}

impl Factors {
    /// Returns the first `count` factors of `fading`. Computed once.
    fn of(known: &mut Option<Factors>, fading: Fading, count: usize) -> &[u64] {
        if known.as_ref().is_none_or(|known| known.fading != fading) {
            *known = None;
        }
        let known = known.get_or_insert_with(|| Factors { fading, list: Vec::new() });
        let missing = count.saturating_sub(known.list.len());
        let next = |left: Option<&u64>| left.map_or(Fading::SCALE, |left| fading.after(*left));
        for _ in 0..missing {
            known.list.push(next(known.list.last()));
        }
        &known.list[..count]
    }
}

/// A share in the window.
#[derive(Debug, Clone, Copy)]
struct Item {
    /// Work below 2^64; 0 for a share whose work is in [`FadingShares::wide`].
    attempts: u64,
    payee: u32,
    donation: u16,
}

/// Shares of a [`Past`], in the form that is quick to sum. Its owner keeps both the same.
#[derive(Debug, Clone, Default)]
pub(super) struct FadingShares {
    /// Oldest first.
    items: VecDeque<Item>,
    /// Number of shares that were removed at the old end: the position of the first item among all shares ever.
    gone: u64,
    /// Work of 2^64 or more, by position, oldest first.
    wide: VecDeque<(u64, U320)>,
    payees: Payees,
    factors: Option<Factors>,
    ahead: Option<Ahead>,
}

/// Sums for a window whose newest share is yet to come.
#[derive(Debug, Clone)]
struct Ahead {
    fading: Fading,
    shares_max: usize,
    /// Number of all shares ever, with the one to come.
    end: u64,
    sums: WideSums,
}

/// Sums over shares with any work.
#[derive(Debug, Clone)]
struct WideSums {
    /// By the payee's number.
    own: Vec<U320>,
    total: U320,
    donation: U320,
}

impl WideSums {
    fn add(&mut self, item: Item, attempts: U320) {
        self.own[item.payee as usize] += attempts * U320::from(WHOLE - u32::from(item.donation));
        self.donation += attempts * U320::from(item.donation);
        self.total += attempts * U320::from(WHOLE);
    }
}

impl FadingShares {
    /// Shares of `past`.
    pub(super) fn of(past: &Past) -> FadingShares {
        let mut shares = FadingShares::default();
        past.iter().for_each(|entry| shares.push(entry));
        shares
    }

    /// Adds the newest share.
    pub(super) fn push(&mut self, entry: &Entry) {
        let attempts = u64::try_from(entry.attempts.0).unwrap_or_else(|_| {
            self.wide.push_back((self.end(), entry.attempts.0));
            0
        });
        self.items.push_back(Item { attempts, payee: self.payees.enter(&entry.by_script), donation: entry.donation });
    }

    /// Removes the newest share.
    pub(super) fn pop(&mut self) {
        let Some(item) = self.items.pop_back() else { return };
        self.ahead = None;
        self.payees.leave(item.payee);
        if self.wide.back().is_some_and(|(at, _)| *at == self.end()) {
            self.wide.pop_back();
        }
    }

    /// Removes the oldest shares beyond the newest `count`.
    pub(super) fn keep_newest(&mut self, count: usize) {
        while self.items.len() > count
            && let Some(item) = self.items.pop_front()
        {
            self.payees.leave(item.payee);
            if self.wide.front().is_some_and(|(at, _)| *at == self.gone) {
                self.wide.pop_front();
            }
            self.gone += 1;
        }
    }

    /// Number of payees held.
    #[cfg(test)]
    pub(super) fn payees_known(&self) -> usize {
        self.payees.list.len()
    }

    /// True if the next window is summed up to its newest share.
    #[cfg(test)]
    pub(super) fn is_prepared(&self) -> bool {
        self.ahead.is_some()
    }

    /// Number of all shares ever.
    fn end(&self) -> u64 {
        self.gone + self.items.len() as u64
    }

    /// Sums the newest shares, `shares_max` at most. The newest counts in full.
    pub(super) fn weights(&mut self, fading: Fading, shares_max: usize) -> Weights {
        let end = self.end();
        let is_ready = |ahead: &mut Ahead| (ahead.fading, ahead.shares_max, ahead.end) == (fading, shares_max, end);
        let ready = self.ahead.take_if(is_ready).zip(self.items.back().copied());
        let WideSums { own, total, donation } = match ready {
            Some((Ahead { mut sums, .. }, newest)) => {
                sums.own.resize(self.payees.list.len(), U320::ZERO);
                let wide = self.wide.back().filter(|(at, _)| at + 1 == end);
                sums.add(newest, wide.map_or(U320::from(newest.attempts), |(_, attempts)| *attempts));
                sums
            }
            _ => self.sum(fading, 0, shares_max),
        };
        let payees = self.payees.list.iter().zip(own).filter(|(_, weight)| !weight.is_zero());
        Weights { by_payee: payees.map(|((payee, _), weight)| (payee.clone(), weight)).collect(), total, donation }
    }

    /// Sums ahead what [`weights`](Self::weights) with the same parameters needs once one more share has come.
    pub(super) fn prepare(&mut self, fading: Fading, shares_max: usize) {
        let sums = shares_max.checked_sub(1).map(|older| self.sum(fading, 1, older));
        self.ahead = sums.map(|sums| Ahead { fading, shares_max, end: self.end() + 1, sums });
    }

    /// Sums the newest shares, `shares_max` at most, as if there were `newer` ones above them.
    fn sum(&mut self, fading: Fading, newer: usize, shares_max: usize) -> WideSums {
        let count = shares_max.min(self.items.len());
        let factors = &Factors::of(&mut self.factors, fading, newer + count)[newer..];
        let mut sums = Sums { own: vec![0; self.payees.list.len()], attempts: 0, donation: 0 };
        let (older, newest) = self.items.as_slices();
        let (first, rest) = factors.split_at(count.min(newest.len()));
        sums.walk(newest, first);
        sums.walk(older, rest);

        let mut sums = WideSums {
            own: sums.own.into_iter().map(U320::from).collect(),
            total: U320::from(sums.attempts) * U320::from(WHOLE),
            donation: U320::from(sums.donation),
        };
        for (position, attempts) in self.wide.iter().rev() {
            let index = usize::try_from(position - self.gone).unwrap_or(usize::MAX);
            let Some(item) = self.items.get(index) else { break };
            let Some(left) = factors.get(self.items.len() - 1 - index) else { break };
            // Attempts are at most 2^256.
            sums.add(*item, (*attempts * U320::from(*left)) >> Fading::SCALE_BITS);
        }
        sums
    }
}

/// Sums over shares with less work than 2^64 each: attempts times 65535 stay below 2^80, so that 2^48 shares fit.
struct Sums {
    /// By the payee's number.
    own: Vec<u128>,
    attempts: u128,
    donation: u128,
}

impl Sums {
    /// Adds the newest shares of `items`, one for each factor, from the newest down.
    fn walk(&mut self, items: &[Item], factors: &[u64]) {
        for (item, left) in items.iter().rev().zip(factors) {
            let attempts = (u128::from(item.attempts) * u128::from(*left)) >> Fading::SCALE_BITS;
            self.attempts += attempts;
            self.donation += attempts * u128::from(item.donation);
            self.own[item.payee as usize] += attempts * u128::from(WHOLE - u32::from(item.donation));
        }
    }
}

/// Payees of some shares, numbered from 0. A number without shares is given to the next new payee, so that there are
/// never more numbers than there were shares at once.
#[derive(Debug, Clone, Default)]
struct Payees {
    numbers: Map<Payee, u32>,
    /// Each number's payee and its shares.
    list: Vec<(Payee, u32)>,
    free: Vec<u32>,
}

impl Payees {
    /// Counts one more share of `payee`, and returns the payee's number.
    fn enter(&mut self, payee: &Payee) -> u32 {
        if let Some(number) = self.numbers.get(payee) {
            self.list[*number as usize].1 += 1;
            return *number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.list.push((payee.clone(), 0));
            u32::try_from(self.list.len() - 1).expect("a window has fewer than 2^32 shares")
        });
        self.list[number as usize] = (payee.clone(), 1);
        self.numbers.insert(payee.clone(), number);
        number
    }

    /// Counts one share less.
    fn leave(&mut self, number: u32) {
        let (payee, shares) = &mut self.list[number as usize];
        *shares -= 1;
        if *shares == 0 {
            self.numbers.remove(&*payee);
            self.free.push(number);
        }
    }
}
