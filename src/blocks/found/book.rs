//! Records of found blocks, as a pure state machine: reports, sightings and positions in, records and events out.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::BlockHash;

use super::{BLOCKS_MAX, Event, EventKind, FoundBlocks, Record, RouteReport, Standing, Verdict};
use crate::blocks::block::shortened;
use crate::blocks::{BlockPosition, BlockReport, Chain, Finding, FoundBlock, Outcome, Sighting};

/// Maximum number of routes per record; there are three.
const ROUTES_MAX: usize = 8;

/// Time without a verdict after which the daemon's view of the chain counts, in seconds.
const SILENCE_MAX: f64 = 60.0;

/// Lifetime of the record of a share that builds on an unknown block while the daemon does not know its block either,
/// in seconds: anyone may claim an easy target.
const CLAIM_MAX: f64 = 3600.0;

/// All records of one chain. Methods that change them return the resulting events.
#[derive(Debug, Default)]
pub(super) struct Book {
    chain: Arc<Chain>,
    records: BTreeMap<BlockHash, Arc<Record>>,
    /// Set when a change has to be saved.
    dirty: bool,
}

impl Book {
    /// Creates a book from saved records.
    pub(super) fn of(chain: Arc<Chain>, records: Vec<Record>) -> Self {
        let records = records.into_iter().map(|record| {
            // Followed like others: an earlier version took a missing answer of the daemon for a rejection.
            let is_settled = record.is_settled && record.standing != Standing::Rejected;
            (record.hash, Arc::new(Record { chain: chain.name().cloned(), is_settled, ..record }))
        });
        let records = records.collect();
        let mut book = Self { chain, records, dirty: false };
        book.forget();
        book
    }

    /// Returns a snapshot.
    pub(super) fn blocks(&self) -> FoundBlocks {
        let mut blocks: Vec<Arc<Record>> = self.records.values().cloned().collect();
        blocks.sort_by(|one, other| other.found_at.total_cmp(&one.found_at).then(other.height.cmp(&one.height)));
        FoundBlocks { blocks }
    }

    /// Returns true if a change since the last call has to be saved.
    pub(super) fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// Requests another save.
    pub(super) fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    pub(super) fn get(&self, hash: &BlockHash) -> Option<&Arc<Record>> {
        self.records.get(hash)
    }

    /// Returns the blocks that are still followed, least confirmed first.
    pub(super) fn unsettled(&self) -> Vec<BlockHash> {
        let mut unsettled: Vec<&Arc<Record>> = self.records.values().filter(|record| !record.is_settled).collect();
        unsettled.sort_by_key(|record| record.confirmations);
        unsettled.into_iter().map(|record| record.hash).collect()
    }

    /// Applies a report on a submission.
    pub(super) fn report(&mut self, report: &BlockReport, now: f64) -> Vec<Event> {
        let mut events = self.begin(of_block(&report.block, now));
        let outcome = bounded(&report.outcome);
        match report.route {
            Some(route) => self.change(&report.block.hash, |record| note_attempt(record, route, outcome, now)),
            None => {
                let before = self.get(&report.block.hash).map(|record| record.standing);
                let was_in_chain = matches!(before, Some(Standing::Confirming | Standing::Orphaned));
                let standing = match &outcome {
                    // The daemon's chain has decided already.
                    _ if before == Some(Standing::Mature) => None,
                    Outcome::Accepted => Some(Standing::Confirming),
                    Outcome::Stale | Outcome::Rejected(_) if was_in_chain => Some(Standing::Orphaned),
                    Outcome::Stale => Some(Standing::Stale),
                    Outcome::Rejected(_) => Some(Standing::Rejected),
                    // Never sent as verdicts.
                    Outcome::Waiting(_) | Outcome::Failed(_) => None,
                };
                self.change(&report.block.hash, |record| record.verdict = Some(Verdict { at: now, outcome }));
                if let Some(standing) = standing {
                    let at_least = u32::from(standing == Standing::Confirming);
                    let confirmations = self.get(&report.block.hash).map_or(0, |record| record.confirmations);
                    let confirmations = if at_least > 0 { confirmations.max(at_least) } else { 0 };
                    events.extend(self.stand(&report.block.hash, standing, confirmations, false, now));
                }
            }
        }
        events
    }

    /// Adds a peer's block that cannot be assembled here.
    pub(super) fn sighting(&mut self, sighting: Sighting, now: f64) -> Vec<Event> {
        self.begin(Record {
            previous_block: sighting.previous_block,
            height: sighting.height,
            not_submitted: Some(shortened(&sighting.not_made)),
            ..blank(sighting.hash, &sighting.finding, now)
        })
    }

    /// Adds a block of the journal without a record: older than the records, or of a run that ended too soon.
    pub(super) fn restore(
        &mut self,
        block: &FoundBlock,
        verdict: Option<Outcome>,
        found_at: f64,
        now: f64,
    ) -> Vec<Event> {
        let was_known = self.get(&block.hash).is_some();
        self.begin(of_block(block, found_at));
        let has_verdict = self.get(&block.hash).is_some_and(|record| record.verdict.is_some());
        let events = match verdict.filter(|_| !has_verdict) {
            Some(outcome) => self.report(&BlockReport { block: block.clone(), route: None, outcome }, now),
            None => Vec::new(),
        };
        // Events older than the records are not announced.
        if was_known { events } else { Vec::new() }
    }

    /// Applies a block's position; `tip` is the best chain's height.
    pub(super) fn place(&mut self, hash: &BlockHash, place: BlockPosition, tip: u32, now: f64) -> Vec<Event> {
        let Some(record) = self.get(hash).cloned() else { return Vec::new() };
        if let BlockPosition::InChain { height, .. } | BlockPosition::Beside { height } = place
            && record.height.is_none()
        {
            self.change(hash, |record| record.height = Some(height));
        }
        let height = self.get(hash).and_then(|record| record.height);
        let maturity = self.chain.maturity();
        let is_buried = height.is_some_and(|height| tip >= height.saturating_add(maturity));
        let waited = now - record.found_at;
        match place {
            BlockPosition::InChain { confirmations, .. } if confirmations >= maturity => {
                self.stand(hash, Standing::Mature, confirmations, true, now)
            }
            BlockPosition::InChain { confirmations, .. } => {
                self.stand(hash, Standing::Confirming, confirmations, false, now)
            }
            BlockPosition::Beside { .. } => match record.standing {
                Standing::Confirming | Standing::Orphaned => self.stand(hash, Standing::Orphaned, 0, is_buried, now),
                Standing::Submitted if record.verdict.is_none() && waited < SILENCE_MAX => Vec::new(),
                Standing::Submitted | Standing::Stale => self.stand(hash, Standing::Stale, 0, is_buried, now),
                Standing::Rejected if is_buried => self.stand(hash, Standing::Rejected, 0, true, now),
                Standing::Mature | Standing::Rejected => Vec::new(),
            },
            BlockPosition::Unknown if height.is_none() && waited > CLAIM_MAX => {
                self.records.remove(hash);
                self.dirty = true;
                Vec::new()
            }
            BlockPosition::Unknown if is_buried => match record.standing {
                Standing::Confirming | Standing::Orphaned => self.stand(hash, Standing::Orphaned, 0, true, now),
                Standing::Submitted | Standing::Stale => self.stand(hash, Standing::Stale, 0, true, now),
                Standing::Rejected => self.stand(hash, Standing::Rejected, 0, true, now),
                Standing::Mature => Vec::new(),
            },
            // A daemon that lost blocks will get them again.
            BlockPosition::Unknown => Vec::new(),
        }
    }

    /// Adds a record unless there is one; completes one of a sighting.
    fn begin(&mut self, record: Record) -> Vec<Event> {
        let hash = record.hash;
        match self.records.get(&hash) {
            // A peer's share has been assembled into a block meanwhile.
            Some(known) if known.not_submitted.is_some() && record.not_submitted.is_none() => {
                self.change(&hash, |known| {
                    known.not_submitted = None;
                    known.height = record.height;
                    known.previous_block = record.previous_block;
                    known.finding.is_ours |= record.finding.is_ours;
                });
                Vec::new()
            }
            Some(_) => Vec::new(),
            None => {
                let record = Arc::new(Record { chain: self.chain.name().cloned(), ..record });
                self.records.insert(hash, record.clone());
                self.dirty = true;
                self.forget();
                // A claim is announced once the daemon knows the block.
                let is_news = record.height.is_some();
                is_news.then_some(Event { kind: EventKind::Found, record }).into_iter().collect()
            }
        }
    }

    fn change(&mut self, hash: &BlockHash, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records.get_mut(hash) {
            change(Arc::make_mut(record));
            self.dirty = true;
        }
    }

    fn stand(
        &mut self,
        hash: &BlockHash,
        standing: Standing,
        confirmations: u32,
        is_settled: bool,
        now: f64,
    ) -> Vec<Event> {
        let Some(shared) = self.records.get_mut(hash) else { return Vec::new() };
        let before = shared.standing;
        if before == standing && shared.is_settled == is_settled {
            if shared.confirmations != confirmations {
                // Not saved: queried again at each start.
                Arc::make_mut(shared).confirmations = confirmations;
            }
            return Vec::new();
        }
        let record = Arc::make_mut(shared);
        record.confirmations = confirmations;
        record.is_settled = is_settled;
        if before != standing {
            record.standing = standing;
            record.standing_since = now;
        }
        self.dirty = true;
        let event = |kind| Event { kind, record: shared.clone() };
        match (before, standing) {
            _ if before == standing => Vec::new(),
            (_, Standing::Submitted) => Vec::new(),
            (_, Standing::Confirming) => vec![event(EventKind::Accepted)],
            (Standing::Confirming, Standing::Mature) => vec![event(EventKind::Mature)],
            // The node was not running while it was confirmed.
            (_, Standing::Mature) => vec![event(EventKind::Accepted), event(EventKind::Mature)],
            (_, Standing::Stale) => vec![event(EventKind::Stale)],
            (_, Standing::Orphaned) => vec![event(EventKind::Orphaned)],
            (_, Standing::Rejected) => vec![event(EventKind::Rejected)],
        }
    }

    /// Drops records beyond `BLOCKS_MAX`: settled ones first, oldest first.
    fn forget(&mut self) {
        while self.records.len() > BLOCKS_MAX {
            let oldest = self.records.values().min_by(|one, other| {
                other.is_settled.cmp(&one.is_settled).then(one.found_at.total_cmp(&other.found_at))
            });
            let Some(hash) = oldest.map(|record| record.hash) else { return };
            self.records.remove(&hash);
            self.dirty = true;
        }
    }
}

fn note_attempt(record: &mut Record, route: &str, outcome: Outcome, now: f64) {
    let has_room = record.routes.len() < ROUTES_MAX;
    match record.routes.iter_mut().find(|known| known.route == route) {
        Some(known) => {
            known.attempts = known.attempts.saturating_add(1);
            known.at = now;
            known.outcome = outcome;
        }
        None if has_room => {
            record.routes.push(RouteReport { route: route.to_owned(), attempts: 1, at: now, outcome });
        }
        None => {}
    }
}

fn blank(hash: BlockHash, finding: &Finding, now: f64) -> Record {
    Record {
        hash,
        chain: None,
        previous_block: None,
        height: None,
        finding: finding.shortened(),
        found_at: now,
        routes: Vec::new(),
        verdict: None,
        not_submitted: None,
        standing: Standing::Submitted,
        standing_since: now,
        confirmations: 0,
        is_settled: false,
    }
}

fn of_block(block: &FoundBlock, now: f64) -> Record {
    Record {
        previous_block: Some(block.previous_block),
        height: Some(block.height),
        ..blank(block.hash, &block.finding, now)
    }
}

fn bounded(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Rejected(reason) => Outcome::Rejected(shortened(reason)),
        Outcome::Waiting(reason) => Outcome::Waiting(shortened(reason)),
        Outcome::Failed(reason) => Outcome::Failed(shortened(reason)),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
