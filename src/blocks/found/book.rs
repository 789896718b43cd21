//! What becomes of found blocks, as pure bookkeeping: reports, sightings and places in, records and events out.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::BlockHash;

use super::{BLOCKS_MAX, CONFIRMATIONS_MATURE, Event, EventKind, FoundBlocks, Record, RouteReport, Standing, Verdict};
use crate::blocks::BlockPosition;
use crate::blocks::{BlockReport, FoundBlock, Outcome, Sighting};

/// Longest text of others that is kept, in characters: names, addresses, the daemon's reasons.
const TEXT_MAX: usize = 300;

/// Routes that are told apart; there are three.
const ROUTES_MAX: usize = 8;

/// How long a submission may say nothing before the daemon's view of the chain counts, in seconds.
const SILENCE_MAX: f64 = 60.0;

/// How long a share that builds on an unknown block is remembered without the daemon knowing its block, in seconds: anyone
/// may claim an easy target.
const CLAIM_MAX: f64 = 3600.0;

/// All records. Whoever changes it is told what happened.
#[derive(Debug, Default)]
pub(super) struct Book {
    records: BTreeMap<BlockHash, Arc<Record>>,
    /// Whether something changed that is worth writing down.
    dirty: bool,
}

impl Book {
    /// A book with what was written down earlier.
    pub(super) fn of(records: Vec<Record>) -> Self {
        let records = records.into_iter().map(|record| {
            // Followed like others: an earlier version let the daemon's silence count as a rejection.
            let is_settled = record.is_settled && record.standing != Standing::Rejected;
            (record.hash, Arc::new(Record { is_settled, ..record }))
        });
        let records = records.collect();
        let mut book = Self { records, dirty: false };
        book.forget();
        book
    }

    /// The snapshot for others.
    pub(super) fn blocks(&self) -> FoundBlocks {
        let mut blocks: Vec<Arc<Record>> = self.records.values().cloned().collect();
        blocks.sort_by(|one, other| other.found_at.total_cmp(&one.found_at).then(other.height.cmp(&one.height)));
        FoundBlocks { blocks }
    }

    /// Whether something changed since the last call that is worth writing down.
    pub(super) fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// Has it written down once more.
    pub(super) fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// One block's record.
    pub(super) fn get(&self, hash: &BlockHash) -> Option<&Arc<Record>> {
        self.records.get(hash)
    }

    /// Blocks that are still followed, the least confirmed first.
    pub(super) fn unsettled(&self) -> Vec<BlockHash> {
        let mut unsettled: Vec<&Arc<Record>> = self.records.values().filter(|record| !record.is_settled).collect();
        unsettled.sort_by_key(|record| record.confirmations);
        unsettled.into_iter().map(|record| record.hash).collect()
    }

    /// Takes up a word on a block's way to the daemon.
    pub(super) fn report(&mut self, report: &BlockReport, now: f64) -> Vec<Event> {
        let mut events = self.begin(of_block(&report.block, now));
        let outcome = bounded(&report.outcome);
        match report.route {
            Some(route) => self.change(&report.block.hash, |record| note_attempt(record, route, outcome, now)),
            None => {
                let before = self.get(&report.block.hash).map(|record| record.standing);
                let was_in_chain = matches!(before, Some(Standing::Confirming | Standing::Orphaned));
                let standing = match &outcome {
                    // The daemon's chain knows better by now.
                    _ if before == Some(Standing::Mature) => None,
                    Outcome::Accepted => Some(Standing::Confirming),
                    Outcome::Stale | Outcome::Rejected(_) if was_in_chain => Some(Standing::Orphaned),
                    Outcome::Stale => Some(Standing::Stale),
                    Outcome::Rejected(_) => Some(Standing::Rejected),
                    // No verdicts.
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

    /// Takes up a peer's block that cannot be made here.
    pub(super) fn sighting(&mut self, sighting: Sighting, now: f64) -> Vec<Event> {
        self.begin(Record {
            hash: sighting.hash,
            previous_block: sighting.previous_block,
            height: sighting.height,
            value: sighting.value,
            payee: short(&sighting.payee),
            finder: short(&sighting.finder),
            not_submitted: Some(short(&sighting.not_made)),
            ..blank(sighting.hash, now)
        })
    }

    /// Takes up a block of the journal that has no record: of before there were records, or of a run that ended too soon.
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
        // What happened before there were records is no news.
        if was_known { events } else { Vec::new() }
    }

    /// Takes up where the daemon has a block, `tip` being the best chain's height.
    pub(super) fn place(&mut self, hash: &BlockHash, place: BlockPosition, tip: u32, now: f64) -> Vec<Event> {
        let Some(record) = self.get(hash).cloned() else { return Vec::new() };
        if let BlockPosition::InChain { height, .. } | BlockPosition::Beside { height } = place
            && record.height.is_none()
        {
            self.change(hash, |record| record.height = Some(height));
        }
        let height = self.get(hash).and_then(|record| record.height);
        let is_buried = height.is_some_and(|height| tip >= height.saturating_add(CONFIRMATIONS_MATURE));
        let waited = now - record.found_at;
        match place {
            BlockPosition::InChain { confirmations, .. } if confirmations >= CONFIRMATIONS_MATURE => {
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
            // A daemon that lost blocks will have them again.
            BlockPosition::Unknown => Vec::new(),
        }
    }

    /// Adds a record unless there is one that says more.
    fn begin(&mut self, record: Record) -> Vec<Event> {
        let hash = record.hash;
        match self.records.get(&hash) {
            // A peer's share became a block by another way meanwhile.
            Some(known) if known.not_submitted.is_some() && record.not_submitted.is_none() => {
                self.change(&hash, |known| {
                    known.not_submitted = None;
                    known.height = record.height;
                    known.previous_block = record.previous_block;
                    known.is_ours |= record.is_ours;
                });
                Vec::new()
            }
            Some(_) => Vec::new(),
            None => {
                let record = Arc::new(record);
                self.records.insert(hash, record.clone());
                self.dirty = true;
                self.forget();
                // A claim is news once the daemon knows the block.
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
                // Asked for again at each start: not worth writing down.
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
            // The node was away while it was confirmed.
            (_, Standing::Mature) => vec![event(EventKind::Accepted), event(EventKind::Mature)],
            (_, Standing::Stale) => vec![event(EventKind::Stale)],
            (_, Standing::Orphaned) => vec![event(EventKind::Orphaned)],
            (_, Standing::Rejected) => vec![event(EventKind::Rejected)],
        }
    }

    /// Keeps the book bounded: what is settled goes first, and of that the oldest.
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

fn blank(hash: BlockHash, now: f64) -> Record {
    Record {
        hash,
        previous_block: None,
        height: None,
        value: 0,
        payee: String::new(),
        finder: String::new(),
        is_ours: false,
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
        value: block.value,
        payee: short(&block.payee),
        finder: short(&block.finder),
        is_ours: block.is_ours,
        ..blank(block.hash, now)
    }
}

fn bounded(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Rejected(reason) => Outcome::Rejected(short(reason)),
        Outcome::Waiting(reason) => Outcome::Waiting(short(reason)),
        Outcome::Failed(reason) => Outcome::Failed(short(reason)),
        other => other.clone(),
    }
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash;
    use bytes::Bytes;

    fn block(seed: u8) -> FoundBlock {
        FoundBlock {
            hash: BlockHash::from_byte_array([seed; 32]),
            previous_block: BlockHash::from_byte_array([0; 32]),
            height: 100,
            bytes: Bytes::new(),
            value: 1,
            payee: "payee".into(),
            finder: "finder".into(),
            is_ours: true,
            judged_at: None,
        }
    }

    fn report(route: Option<&'static str>, outcome: Outcome) -> BlockReport {
        BlockReport { block: block(1), route, outcome }
    }

    fn kinds(events: &[Event]) -> Vec<EventKind> {
        events.iter().map(|event| event.kind).collect()
    }

    /// A book with one block that was accepted.
    fn accepted() -> (Book, BlockHash) {
        let mut book = Book::default();
        book.report(&report(None, Outcome::Accepted), 1.0);
        (book, block(1).hash)
    }

    fn standing(book: &Book, hash: &BlockHash) -> (Standing, u32, bool) {
        let record = book.get(hash).unwrap();
        (record.standing, record.confirmations, record.is_settled)
    }

    #[test]
    fn a_block_is_followed_from_its_first_attempt_until_its_coinbase_can_be_spent() {
        let mut book = Book::default();
        let hash = block(1).hash;
        let found = book.report(&report(Some("rpc"), Outcome::Failed("away".into())), 1.0);
        assert_eq!(kinds(&found), [EventKind::Found]);
        assert_eq!(kinds(&book.report(&report(Some("rpc"), Outcome::Accepted), 2.0)), []);
        assert_eq!(kinds(&book.report(&report(None, Outcome::Accepted), 2.5)), [EventKind::Accepted]);
        let routes = &book.get(&hash).unwrap().routes;
        assert_eq!(*routes, [RouteReport { route: "rpc".into(), attempts: 2, at: 2.0, outcome: Outcome::Accepted }]);
        assert!(book.take_dirty());
        let at = |confirmations| BlockPosition::InChain { height: 100, confirmations };
        assert_eq!(kinds(&book.place(&hash, at(99), 198, 3.0)), []);
        assert!(!book.take_dirty(), "confirmations alone are not worth a write");
        assert_eq!(standing(&book, &hash), (Standing::Confirming, 99, false));
        assert_eq!(kinds(&book.place(&hash, at(100), 199, 4.0)), [EventKind::Mature]);
        assert_eq!(standing(&book, &hash), (Standing::Mature, 100, true));
        assert_eq!(book.unsettled(), []);
    }

    #[test]
    fn a_block_that_leaves_the_chain_is_told_as_orphaned_and_may_come_back() {
        let (mut book, hash) = accepted();
        let beside = BlockPosition::Beside { height: 100 };
        assert_eq!(kinds(&book.place(&hash, beside, 101, 2.0)), [EventKind::Orphaned]);
        assert_eq!(kinds(&book.place(&hash, beside, 102, 3.0)), [], "told once");
        let back = BlockPosition::InChain { height: 100, confirmations: 4 };
        assert_eq!(kinds(&book.place(&hash, back, 103, 4.0)), [EventKind::Accepted]);
        book.place(&hash, beside, 104, 5.0);
        assert_eq!(standing(&book, &hash), (Standing::Orphaned, 0, false));
        book.place(&hash, beside, 200, 6.0);
        assert_eq!(standing(&book, &hash), (Standing::Orphaned, 0, true), "a hundred blocks on top decide it");
    }

    #[test]
    fn stale_and_rejected_blocks_are_told_apart_from_orphans() {
        let mut book = Book::default();
        let hash = block(1).hash;
        assert_eq!(kinds(&book.report(&report(None, Outcome::Stale), 1.0)), [EventKind::Found, EventKind::Stale]);
        book.place(&hash, BlockPosition::Beside { height: 100 }, 101, 2.0);
        assert_eq!(standing(&book, &hash), (Standing::Stale, 0, false));
        let mut book = Book::default();
        let events = book.report(&report(None, Outcome::Rejected("bad".repeat(1000))), 1.0);
        assert_eq!(kinds(&events), [EventKind::Found, EventKind::Rejected]);
        assert_eq!(standing(&book, &hash), (Standing::Rejected, 0, false));
        let Some(Verdict { outcome: Outcome::Rejected(reason), .. }) = &book.get(&hash).unwrap().verdict else {
            panic!()
        };
        assert_eq!(reason.len(), TEXT_MAX);
    }

    #[test]
    fn a_rejected_block_that_the_chain_took_anyway_is_shown_as_what_it_is() {
        let mut book = Book::default();
        let hash = block(1).hash;
        book.report(&report(None, Outcome::Rejected("closed the connection".into())), 1.0);
        // As an earlier version wrote it down.
        let settled = Record { is_settled: true, ..Record::clone(book.get(&hash).unwrap()) };
        let mut book = Book::of(vec![settled]);
        assert_eq!(book.unsettled(), [hash]);
        let seen = book.place(&hash, BlockPosition::InChain { height: 100, confirmations: 7 }, 106, 2.0);
        assert_eq!(kinds(&seen), [EventKind::Accepted]);
        assert_eq!(standing(&book, &hash), (Standing::Confirming, 7, false));
        let mut book = Book::default();
        book.report(&report(None, Outcome::Rejected("bad".into())), 1.0);
        for place in [BlockPosition::Unknown, BlockPosition::Beside { height: 100 }] {
            assert_eq!(kinds(&book.place(&hash, place, 150, 2.0)), []);
            assert_eq!(standing(&book, &hash), (Standing::Rejected, 0, false));
        }
        assert_eq!(kinds(&book.place(&hash, BlockPosition::Unknown, 200, 3.0)), []);
        assert_eq!(standing(&book, &hash), (Standing::Rejected, 0, true));
        assert_eq!(kinds(&book.report(&report(None, Outcome::Accepted), 4.0)), [EventKind::Accepted]);
        assert_eq!(standing(&book, &hash).0, Standing::Confirming);
    }

    #[test]
    fn a_block_that_was_in_the_chain_is_orphaned_whatever_a_later_submission_brings() {
        for outcome in [Outcome::Stale, Outcome::Rejected("duplicate-invalid".into())] {
            let (mut book, hash) = accepted();
            assert_eq!(kinds(&book.report(&report(None, outcome), 2.0)), [EventKind::Orphaned]);
            assert_eq!(kinds(&book.report(&report(None, Outcome::Accepted), 3.0)), [EventKind::Accepted]);
            book.place(&hash, BlockPosition::InChain { height: 100, confirmations: 100 }, 199, 4.0);
            assert_eq!(kinds(&book.report(&report(None, Outcome::Stale), 5.0)), []);
            assert_eq!(standing(&book, &hash), (Standing::Mature, 100, true));
        }
    }

    #[test]
    fn a_daemon_that_forgot_the_block_decides_nothing_until_the_chain_has_gone_on() {
        let (mut book, hash) = accepted();
        assert_eq!(kinds(&book.place(&hash, BlockPosition::Unknown, 101, 2.0)), []);
        assert_eq!(standing(&book, &hash).0, Standing::Confirming);
        assert_eq!(kinds(&book.place(&hash, BlockPosition::Unknown, 200, 3.0)), [EventKind::Orphaned]);
        assert!(standing(&book, &hash).2);
    }

    fn sighting(height: Option<u32>) -> Sighting {
        Sighting {
            hash: block(1).hash,
            previous_block: None,
            height,
            value: 5,
            payee: "payee".into(),
            finder: "peer 192.0.2.1:9333".into(),
            not_made: "its transactions are those of no template here".into(),
        }
    }

    #[test]
    fn a_peers_block_counts_when_the_chain_has_it() {
        let mut book = Book::default();
        let hash = block(1).hash;
        assert_eq!(kinds(&book.sighting(sighting(Some(100)), 1.0)), [EventKind::Found]);
        assert_eq!(book.unsettled(), [hash]);
        let events = book.place(&hash, BlockPosition::InChain { height: 100, confirmations: 1 }, 100, 2.0);
        assert_eq!(kinds(&events), [EventKind::Accepted]);
        assert!(!book.get(&hash).unwrap().is_ours);
        // Its share comes once more when a template for it is here.
        book.report(&report(Some("rpc"), Outcome::Accepted), 3.0);
        assert_eq!(book.get(&hash).unwrap().not_submitted, None);
    }

    #[test]
    fn a_claim_that_no_chain_knows_is_no_news_and_is_forgotten() {
        let mut book = Book::default();
        let hash = block(1).hash;
        assert_eq!(kinds(&book.sighting(sighting(None), 0.0)), []);
        book.place(&hash, BlockPosition::Unknown, 101, CLAIM_MAX - 1.0);
        assert!(book.get(&hash).is_some());
        book.place(&hash, BlockPosition::Unknown, 101, CLAIM_MAX + 1.0);
        assert!(book.get(&hash).is_none());
        book.sighting(sighting(None), 0.0);
        let events = book.place(&hash, BlockPosition::InChain { height: 100, confirmations: 2 }, 101, 1.0);
        assert_eq!(kinds(&events), [EventKind::Accepted]);
        assert_eq!(book.get(&hash).unwrap().height, Some(100));
    }

    #[test]
    fn what_the_journal_has_beyond_the_records_is_taken_up_once() {
        let mut book = Book::default();
        let hash = block(1).hash;
        book.restore(&block(1), Some(Outcome::Stale), 1.0, 5.0);
        assert_eq!(book.get(&hash).unwrap().found_at, 1.0);
        assert_eq!(standing(&book, &hash).0, Standing::Stale);
        book.place(&hash, BlockPosition::InChain { height: 100, confirmations: 3 }, 102, 6.0);
        assert_eq!(kinds(&book.restore(&block(1), Some(Outcome::Stale), 1.0, 7.0)), [], "the chain knows better");
        assert_eq!(standing(&book, &hash).0, Standing::Confirming);
    }

    #[test]
    fn the_oldest_that_are_settled_are_forgotten_first() {
        let of = |number: u32, is_settled: bool| {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&number.to_be_bytes());
            Record { is_settled, ..blank(BlockHash::from_byte_array(hash), f64::from(number)) }
        };
        let over = u32::try_from(BLOCKS_MAX).unwrap() + 2;
        let book = Book::of((0..over).map(|number| of(number, number > 0)).collect());
        let blocks = book.blocks().blocks;
        assert_eq!(blocks.len(), BLOCKS_MAX);
        assert_eq!(blocks.last().unwrap().found_at, 0.0, "the oldest is not settled");
        assert_eq!(blocks[BLOCKS_MAX - 2].found_at, 3.0);
    }
}
