//! Resources that connections share: memory, proofs of work, rates of their networks.

use super::*;
use crate::budget::Budget;
use crate::frame::SMALL_FRAME_BYTES_MAX;
use crate::proofs::Proofs;
use crate::test_shares::transaction;

fn remember(transactions: Vec<Bytes>) -> Message {
    Message::RememberTx { hashes: vec![], transactions }
}

fn events(talk: &mut Talk) -> Vec<PeerEvent> {
    std::iter::from_fn(|| talk.peer.poll_event()).collect()
}

#[test]
fn where_no_share_lists_transactions_nothing_is_kept_of_what_peers_tell_of_theirs() {
    let mut talk = Talk::connected(Some(35));
    let old = transaction(1, 0x1_0000);
    let hash = crate::transactions::Transaction::from_message(&old).hash;
    talk.hear(&remember(vec![old])).unwrap();
    talk.hear(&Message::HaveTx(vec![[1; 32]; 100])).unwrap();
    assert!(talk.peer.remembered_bytes() > 0x1_0000);
    // From now on, all shares are of versions without lists.
    talk.known.set_listed(false);
    talk.hear(&Message::Ping).unwrap();
    assert_eq!((talk.peer.remembered_bytes(), talk.peer.forwarding.theirs_kept()), (0, (0, 0)));
    events(&mut talk);
    let frame = remember(vec![transaction(2, 20_000_000)]).to_frame(PREFIX);
    talk.peer.handle_bytes(&frame[..15_000_000], &talk.known, talk.now).unwrap();
    assert_eq!(talk.peer.local.shared.unfinished_bytes(), 0);
    talk.peer.handle_bytes(&frame[15_000_000..], &talk.known, talk.now).unwrap();
    talk.hear(&Message::HaveTx(vec![[1; 32]; 100])).unwrap();
    // A new node forwards its template's transactions before it has any shares, and forgets them in turn.
    talk.hear(&Message::ForgetTx(vec![hash, [2; 32]])).unwrap();
    talk.hear(&Message::LosingTx(vec![[1; 32]])).unwrap();
    assert_eq!((events(&mut talk), talk.peer.remembered_bytes()), (vec![], 0));
    assert_eq!(talk.known.forget_old(&Default::default(), talk.now), [hash], "only the old one was known");
    assert_eq!(talk.known.known_bytes(), 0);
}

#[test]
fn the_memory_of_long_unfinished_messages_is_reported_and_an_excess_is_an_event() {
    let unfinished = Budget::of_bytes_and_time(300_000);
    let shared = |peer| Shared { peer: PeerId(peer), unfinished: unfinished.clone(), ..Shared::default() };
    let [mut one, mut other] = [1, 2].map(|peer| Talk::connected_with(Some(33), shared(peer)));
    let frame = Message::HaveTx(vec![[1; 32]; 10_000]).to_frame(PREFIX);
    for (talk, excess) in [(&mut one, vec![]), (&mut other, vec![PeerEvent::OverBudget])] {
        talk.peer.handle_bytes(&frame[..200_028], &talk.known, talk.now).unwrap();
        assert_eq!(events(talk), excess);
    }
    assert_eq!(unfinished.used(), 400_000);
    // A small message is received all the same.
    let small = Message::HaveTx(vec![[1; 32]; SMALL_FRAME_BYTES_MAX / 32 - 1]).to_frame(PREFIX);
    let mut third = Talk::connected_with(Some(33), shared(3));
    third.peer.handle_bytes(&small[..50_000], &third.known, third.now).unwrap();
    third.peer.handle_bytes(&small[50_000..], &third.known, third.now).unwrap();
    assert_eq!((events(&mut third), unfinished.used()), (vec![], 400_000));
    one.peer.handle_bytes(&frame[200_028..], &one.known, one.now).unwrap();
    assert_eq!((events(&mut one), unfinished.used()), (vec![], 200_000));
    drop((one, other));
    assert_eq!(unfinished.used(), 0);
}

#[test]
fn a_share_that_was_proven_is_not_hashed_again_whoever_sends_it_and_however_often() {
    let shared = Shared { proofs: Arc::new(Proofs::new(100)), ..Shared::default() };
    let shares: Vec<_> = (0..20).map(|number| share(ShareVersion::V35, number, &[])).collect();
    HASHED.set(0);
    for _ in 0..3 {
        let mut talk = Talk::connected_with(Some(35), shared.clone());
        for _ in 0..50 {
            talk.hear(&Message::Shares(wrap(&shares))).unwrap();
            assert_eq!(talk.peer.poll_event(), Some(PeerEvent::Shares(shares.clone())));
        }
    }
    assert_eq!(HASHED.get(), 20);
}

#[test]
fn what_cannot_be_a_share_is_not_hashed() {
    let good = share(ShareVersion::V35, 1, &[]);
    let mut too_easy = good.contents().clone();
    too_easy.share_info.bits = Bits(0x2200_ffff);
    let mut long_coinbase = good.contents().clone();
    long_coinbase.share_info.share_data.coinbase = vec![7; 101].into();
    let mut huge_coinbase = good.contents().clone();
    huge_coinbase.share_info.share_data.coinbase = vec![7; 20_000_000].into();
    let mut far_payee = good.contents().clone();
    far_payee.share_info.share_data.payout = Payout::Address("x".repeat(1_000_000).into());
    HASHED.set(0);
    for (contents, reason) in
        [(too_easy, "bad_share"), (long_coinbase, "quiet"), (huge_coinbase, "quiet"), (far_payee, "quiet")]
    {
        let strict = ShareRules { max_target: EASY.target(), ..rules() };
        let mut talk = Talk::connected(Some(35));
        talk.peer.rules = Arc::new(strict);
        let bytes = Bytes::from(sharechain::share::pack(&contents));
        let (version, contents) = sharechain::share::read_wrapped(&mut sharechain::pack::Reader::new(&bytes)).unwrap();
        let wrapped = WrappedShare { version, contents: bytes.slice_ref(contents) };
        assert_eq!(offence(talk.hear(&Message::Shares(vec![wrapped]))), reason);
    }
    assert_eq!(HASHED.get(), 0);
}
