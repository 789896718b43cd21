//! The shares that a payout window moves over.

use std::sync::Arc;

use ruint::aliases::U320;

use crate::share::{Attempts, Payee, Share, ShareHash};

/// Shares per sealed chunk: a copy of the past is a pointer to all sealed chunks and up to two chunks of shares.
const CHUNK: usize = 64;
/// Shares kept beyond the longest window, so that moving back a little needs no new walk.
pub(super) const SPARE: usize = 2 * CHUNK;

/// Denominator of `donation`.
pub(super) const WHOLE: u32 = 65_535;

/// A share's contribution to a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Hash of the share.
    pub hash: ShareHash,
    /// Hash of its parent.
    pub previous: Option<ShareHash>,
    /// Payee of the share.
    pub payee: Payee,
    /// The same as versions name it that count by output script.
    pub by_script: Payee,
    /// Work of the share.
    pub attempts: Attempts,
    /// Part of it that goes to the donation address, in 65535ths.
    pub donation: u16,
}

impl Entry {
    /// Creates the entry of `share`.
    pub fn of(share: &Share) -> Entry {
        Entry {
            hash: share.hash(),
            previous: share.previous(),
            payee: share.payee().clone(),
            by_script: share.payee().by_script(share.version()).clone(),
            attempts: share.attempts(),
            donation: share.data().donation,
        }
    }

    /// Creates the entry of `share` in a window of the votes for share version `version` or a later one, by output script
    /// in every [`Counting`](super::Counting). Another share has no weight there, but is one of the window's shares all
    /// the same (protocol-v36 section 6.3).
    pub fn voting(share: &Share, version: u64) -> Entry {
        let entry = Entry::of(share);
        let is_vote = share.data().desired_version >= version;
        let attempts = if is_vote { entry.attempts } else { Attempts::default() };
        Entry { payee: entry.by_script.clone(), attempts, ..entry }
    }

    pub(super) fn total(&self) -> U320 {
        self.attempts.0 * U320::from(WHOLE)
    }

    pub(super) fn donated(&self) -> U320 {
        self.attempts.0 * U320::from(self.donation)
    }
}

/// Latest shares of a chain, oldest first: sealed chunks that copies share, and the open end.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    sealed: Arc<Vec<Arc<[Entry]>>>,
    open: Vec<Entry>,
}

impl Past {
    pub(super) fn len(&self) -> usize {
        self.sealed.len() * CHUNK + self.open.len()
    }

    /// Iterates from the oldest share to the newest.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.sealed.iter().flat_map(|chunk| chunk.iter()).chain(&self.open)
    }

    /// Returns the share `back` before the newest.
    pub(super) fn get(&self, back: usize) -> Option<&Entry> {
        if let Some(index) = self.open.len().checked_sub(back + 1) {
            return self.open.get(index);
        }
        let back = back - self.open.len();
        let chunk = self.sealed.len().checked_sub(back / CHUNK + 1)?;
        self.sealed[chunk].get(CHUNK - 1 - back % CHUNK)
    }

    pub(super) fn push(&mut self, entry: Entry, keep: usize) {
        self.open.push(entry);
        if self.open.len() == 2 * CHUNK {
            let is_surplus = self.len() >= keep + SPARE + CHUNK;
            let sealed = Arc::make_mut(&mut self.sealed);
            sealed.push(self.open.drain(..CHUNK).collect());
            if is_surplus {
                sealed.remove(0);
            }
        }
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        if self.open.is_empty() {
            self.open.extend_from_slice(&Arc::make_mut(&mut self.sealed).pop()?);
        }
        self.open.pop()
    }
}
