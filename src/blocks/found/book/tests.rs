//! Records follow the daemon's answers, and strangers can neither falsify nor grow them.

use super::*;
use bitcoin::hashes::Hash;
use bytes::Bytes;

fn block(seed: u8) -> FoundBlock {
    FoundBlock {
        hash: BlockHash::from_byte_array([seed; 32]),
        previous_block: BlockHash::from_byte_array([0; 32]),
        height: 100,
        bytes: Bytes::new(),
        finding: Finding { value: 1, payee: "payee".into(), finder: "finder".into(), is_ours: true },
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
fn a_block_that_leaves_the_chain_is_reported_as_orphaned_and_may_come_back() {
    let (mut book, hash) = accepted();
    let beside = BlockPosition::Beside { height: 100 };
    assert_eq!(kinds(&book.place(&hash, beside, 101, 2.0)), [EventKind::Orphaned]);
    assert_eq!(kinds(&book.place(&hash, beside, 102, 3.0)), [], "reported once");
    let back = BlockPosition::InChain { height: 100, confirmations: 4 };
    assert_eq!(kinds(&book.place(&hash, back, 103, 4.0)), [EventKind::Accepted]);
    book.place(&hash, beside, 104, 5.0);
    assert_eq!(standing(&book, &hash), (Standing::Orphaned, 0, false));
    book.place(&hash, beside, 200, 6.0);
    assert_eq!(standing(&book, &hash), (Standing::Orphaned, 0, true), "a hundred blocks on top decide it");
}

#[test]
fn stale_and_rejected_blocks_are_distinguished_from_orphans() {
    let mut book = Book::default();
    let hash = block(1).hash;
    assert_eq!(kinds(&book.report(&report(None, Outcome::Stale), 1.0)), [EventKind::Found, EventKind::Stale]);
    book.place(&hash, BlockPosition::Beside { height: 100 }, 101, 2.0);
    assert_eq!(standing(&book, &hash), (Standing::Stale, 0, false));
    let mut book = Book::default();
    let events = book.report(&report(None, Outcome::Rejected("bad".repeat(1000))), 1.0);
    assert_eq!(kinds(&events), [EventKind::Found, EventKind::Rejected]);
    assert_eq!(standing(&book, &hash), (Standing::Rejected, 0, false));
    let Some(Verdict { outcome: Outcome::Rejected(reason), .. }) = &book.get(&hash).unwrap().verdict else { panic!() };
    assert_eq!(reason.len(), Finding::TEXT_MAX);
}

#[test]
fn a_rejected_block_that_the_chain_took_anyway_is_shown_as_what_it_is() {
    let mut book = Book::default();
    let hash = block(1).hash;
    book.report(&report(None, Outcome::Rejected("closed the connection".into())), 1.0);
    // As an earlier version saved it.
    let settled = Record { is_settled: true, ..Record::clone(book.get(&hash).unwrap()) };
    let mut book = Book::of(Arc::default(), vec![settled]);
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
        finding: Finding { value: 5, payee: "payee".into(), finder: "peer 192.0.2.1:9333".into(), is_ours: false },
        not_made: "its transactions match no template".into(),
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
    assert!(!book.get(&hash).unwrap().finding.is_ours);
    // Its share is offered again once a matching template has arrived.
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
    assert_eq!(kinds(&book.restore(&block(1), Some(Outcome::Stale), 1.0, 7.0)), [], "the chain has decided");
    assert_eq!(standing(&book, &hash).0, Standing::Confirming);
}

#[test]
fn the_oldest_that_are_settled_are_forgotten_first() {
    let of = |number: u32, is_settled: bool| {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        Record { is_settled, ..blank(BlockHash::from_byte_array(hash), &block(1).finding, f64::from(number)) }
    };
    let over = u32::try_from(BLOCKS_MAX).unwrap() + 2;
    let book = Book::of(Arc::default(), (0..over).map(|number| of(number, number > 0)).collect());
    let blocks = book.blocks().blocks;
    assert_eq!(blocks.len(), BLOCKS_MAX);
    assert_eq!(blocks.last().unwrap().found_at, 0.0, "the oldest is not settled");
    assert_eq!(blocks[BLOCKS_MAX - 2].found_at, 3.0);
}

#[test]
fn a_merged_chains_blocks_have_its_name_and_take_as_long_as_it_asks() {
    let chain = Arc::new(Chain::merged("dogecoin", 240).unwrap());
    let hash = block(1).hash;
    // As saved under another name, which the operator has changed since.
    let saved = Record { chain: Some("other".into()), ..blank(block(2).hash, &block(2).finding, 0.0) };
    let mut book = Book::of(chain.clone(), vec![saved]);
    assert_eq!(book.get(&block(2).hash).unwrap().chain.as_deref(), Some("dogecoin"));
    let events = book.report(&report(None, Outcome::Accepted), 1.0);
    assert_eq!(kinds(&events), [EventKind::Found, EventKind::Accepted]);
    assert!(events.iter().all(|event| event.record.chain.as_deref() == Some("dogecoin")));
    let at = |confirmations| BlockPosition::InChain { height: 100, confirmations };
    assert_eq!(kinds(&book.place(&hash, at(239), 338, 2.0)), []);
    assert_eq!(standing(&book, &hash), (Standing::Confirming, 239, false));
    let beside = BlockPosition::Beside { height: 100 };
    book.place(&hash, beside, 339, 3.0);
    assert_eq!(standing(&book, &hash), (Standing::Orphaned, 0, false), "the branch may come back");
    assert_eq!(kinds(&book.place(&hash, at(240), 339, 4.0)), [EventKind::Accepted, EventKind::Mature]);
    assert_eq!(standing(&book, &hash), (Standing::Mature, 240, true));
    let mut book = Book::of(chain, Vec::new());
    book.report(&report(None, Outcome::Stale), 1.0);
    book.place(&hash, beside, 339, 2.0);
    assert_eq!(standing(&book, &hash), (Standing::Stale, 0, false));
    book.place(&hash, beside, 340, 3.0);
    assert_eq!(standing(&book, &hash), (Standing::Stale, 0, true));
}
