//! Shares and their transactions: how they are sent, and how many are kept of those that a peer announces.

use super::*;
use crate::frame::HEADER_BYTES;
use crate::transactions::{REMEMBERED_BYTES_MAX, TemplateTransactions, Transaction};

fn transaction(number: u8, bytes: u32) -> Bytes {
    let mut raw = vec![1, 0, 0, 0, 1];
    raw.extend([number; 36]);
    raw.push(0xfe);
    raw.extend(bytes.max(0x1_0000).to_le_bytes());
    raw.resize(raw.len() + bytes.max(0x1_0000) as usize, 0);
    raw.extend([0; 4 + 1 + 4]);
    raw.into()
}

fn hash_of(raw: &Bytes) -> Digest {
    Transaction::from_message(raw).hash
}

/// Creates a share with about `bytes` mined bytes, under a number of its own.
fn long_share(number: u32, bytes: usize) -> Arc<Share> {
    let mut contents = share(ShareVersion::V35, number, &[]).contents().clone();
    contents.ref_merkle_branch = vec![[number.to_le_bytes()[0]; 32]; bytes / 32].into();
    Arc::new(Share::check(contents, &rules()).expect("it meets its target"))
}

/// Returns the queued frames as encoded on the wire.
fn frames(talk: &mut Talk) -> Vec<Bytes> {
    std::iter::from_fn(|| talk.peer.poll_frame()).collect()
}

#[test]
fn announced_shares_go_in_as_many_messages_as_their_bytes_take_and_are_written_once_for_all_peers() {
    let shares: Vec<_> = (0..4).map(|number| long_share(number, 9_000_000)).collect();
    let announcement = Announcement::from(shares.clone());
    assert_eq!(announcement.messages(), 2);
    let (mut one, mut other) = (Talk::connected(Some(35)), Talk::connected(Some(35)));
    for talk in [&mut one, &mut other] {
        talk.order(Order::Shares(announcement.clone())).unwrap();
        // This many bytes are no sign of a peer that does not read.
        talk.order(Order::GetAddresses(8)).unwrap();
    }
    let (said, same) = (frames(&mut one), frames(&mut other));
    assert_eq!(said.len(), 3);
    assert!(said[..2].iter().zip(&same).all(|(one, other)| one.as_ptr() == other.as_ptr()), "two copies");
    let mut talk = Talk::connected(Some(35));
    for (frame, part) in said.iter().zip([&shares[..3], &shares[3..]]) {
        assert_eq!(*frame, Message::Shares(wrap(part)).to_frame(PREFIX));
        assert!(frame.len() <= HEADER_BYTES + sharechain::share::SHARE_BYTES_MAX);
        talk.peer.handle_bytes(frame, &talk.known, talk.now).unwrap();
        assert_eq!(talk.peer.poll_event(), Some(PeerEvent::Shares(part.to_vec())));
    }
    // One message holds no more shares than this node itself accepts.
    let usual = vec![share(ShareVersion::V35, 1, &[]); 101];
    assert_eq!(Announcement::from(usual).messages(), 2);
}

#[test]
fn the_longest_share_that_a_message_holds_is_sent_and_a_longer_one_is_left_out() {
    let usual = share(ShareVersion::V35, 3, &[]);
    // Longer counts take a few bytes more, the hashes 32 each, and one byte is that of the shares' count.
    let limit = sharechain::share::SHARE_BYTES_MAX - 1;
    let longest = long_share(1, limit - usual.wire_bytes() - 10);
    let too_long = long_share(2, limit - usual.wire_bytes() - 10 + 64);
    assert!((limit - 40..=limit).contains(&longest.wire_bytes()), "{}", longest.wire_bytes());
    assert!(too_long.wire_bytes() > limit);
    let announcement = Announcement::from(vec![too_long.clone(), longest.clone(), usual.clone()]);
    let mut talk = Talk::connected(Some(35));
    talk.order(Order::Shares(announcement)).unwrap();
    let lengths: Vec<usize> = frames(&mut talk).iter().map(|frame| frame.len() - HEADER_BYTES).collect();
    assert_eq!(lengths, [1 + longest.wire_bytes(), 1 + usual.wire_bytes()]);
    // A peer that requests a share too long for any message gets that answer.
    talk.order(Order::Answer { id: [6; 32], shares: vec![too_long, usual] }).unwrap();
    let refused = Message::ShareReply { id: [6; 32], result: ReplyResult::TooLong, shares: vec![] };
    assert_eq!(talk.said(), [refused]);
}

#[test]
fn an_answer_ends_where_it_is_long_enough_and_one_long_share_goes_alone() {
    let usual = share(ShareVersion::V35, 9, &[]);
    let long: Vec<_> = (0..3).map(|number| long_share(number, 3_900_000)).collect();
    let longest = long_share(4, 31_000_000);
    let mut talk = Talk::connected(Some(35));
    for (shares, sent) in [
        (vec![usual.clone(), long[0].clone(), long[1].clone(), long[2].clone()], 3),
        (vec![longest.clone(), usual.clone()], 1),
        (vec![usual.clone(), longest.clone(), usual.clone()], 1),
        (vec![usual.clone(); 1_000], 1_000),
        (vec![], 0),
    ] {
        talk.order(Order::Answer { id: [6; 32], shares: shares.clone() }).unwrap();
        let answer = Message::ShareReply { id: [6; 32], result: ReplyResult::Good, shares: wrap(&shares[..sent]) };
        assert_eq!(frames(&mut talk), [answer.to_frame(PREFIX)]);
    }
    // Only shares sent count as served: a peer that requests the rest below long shares is not too fast.
    let mut talk = Talk::connected(Some(35));
    let ask = Message::ShareReq { id: [6; 32], hashes: vec![ShareHash([1; 32])], parents: 499, stops: vec![] };
    for _ in 0..200 {
        talk.hear(&ask).unwrap();
        let shares = [&[longest.clone()][..], &vec![usual.clone(); 499]].concat();
        talk.order(Order::Answer { id: [6; 32], shares }).unwrap();
        talk.peer.output.clear();
        talk.peer.output_bytes = 0;
    }
}

#[test]
fn only_a_node_whose_best_share_is_old_or_missing_tells_its_transactions() {
    let raw = transaction(1, 0);
    for (best_version, is_told) in [(None, true), (Some(17), true), (Some(33), true), (Some(34), false)] {
        let mut talk = Talk::connected(best_version);
        let one = Arc::new(Transaction::from_message(&raw));
        let template = TemplateTransactions { transactions: vec![one], learned: vec![] };
        talk.order(Order::Have([[1; 32]].into())).unwrap();
        talk.order(Order::Template(Arc::new(template))).unwrap();
        talk.order(Order::Losing([[1; 32]].into())).unwrap();
        let words: Vec<_> = talk.said().iter().map(|message| message.command().word()).collect();
        assert_eq!(words, if is_told { vec!["have_tx", "remember_tx", "losing_tx"] } else { vec![] });
    }
}

#[test]
fn an_old_share_goes_with_its_transactions_and_not_at_all_without() {
    let (first, second) = (transaction(1, 0), transaction(2, 0));
    let mut talk = Talk::connected(Some(35));
    talk.known.learn(Transaction::from_message(&first));
    talk.known.learn(Transaction::from_message(&second));
    talk.hear(&Message::HaveTx(vec![hash_of(&second)])).unwrap();
    let old = share(ShareVersion::V33, 1, &[hash_of(&first), hash_of(&second)]);
    let new = share(ShareVersion::V35, 2, &[]);
    let sent = [Arc::clone(&new), Arc::clone(&old)];
    talk.order(Order::Shares(sent.to_vec().into())).unwrap();
    assert_eq!(
        talk.said(),
        [
            Message::RememberTx { hashes: vec![], transactions: vec![first.clone()] },
            Message::Shares(wrap(&sent)),
            Message::ForgetTx(vec![hash_of(&first)]),
        ]
    );
    let unknown = share(ShareVersion::V33, 3, &[[9; 32]]);
    let also_known = share(ShareVersion::V33, 4, &[hash_of(&second)]);
    talk.order(Order::Shares(vec![unknown, Arc::clone(&also_known), Arc::clone(&new)].into())).unwrap();
    assert_eq!(talk.said(), [Message::Shares(wrap([&also_known, &new]))]);
    talk.order(Order::Shares(vec![].into())).unwrap();
    assert_eq!(talk.said(), [Message::Shares(vec![])]);
}

#[test]
fn a_peers_old_share_needs_its_transactions_known() {
    let raw = transaction(1, 0);
    let old = share(ShareVersion::V33, 1, &[hash_of(&raw)]);
    let message = Message::Shares(vec![WrappedShare::of(&old)]);
    assert_eq!(offence(Talk::connected(Some(35)).hear(&message)), "quiet");
    let mut talk = Talk::connected(Some(35));
    talk.hear(&Message::RememberTx { hashes: vec![], transactions: vec![raw.clone()] }).unwrap();
    assert_eq!(talk.peer.poll_event(), Some(PeerEvent::TransactionsLearned(vec![hash_of(&raw)])));
    talk.hear(&Message::ForgetTx(vec![hash_of(&raw)])).unwrap();
    // A transaction forgotten a moment ago is still found.
    assert_eq!(talk.known.forget_old(&Default::default(), talk.now), [hash_of(&raw)]);
    talk.hear(&message).unwrap();
    assert_eq!(talk.peer.poll_event(), Some(PeerEvent::Shares(vec![old])));
    // And its hash is enough to have it remembered again.
    talk.hear(&Message::RememberTx { hashes: vec![hash_of(&raw)], transactions: vec![] }).unwrap();
    assert_eq!(offence(talk.hear(&Message::RememberTx { hashes: vec![hash_of(&raw)], transactions: vec![] })), "quiet");
}

#[test]
fn more_than_25_million_bytes_to_remember_are_an_offence() {
    let mut talk = Talk::connected(Some(35));
    let step = 2_400_000;
    let mut result = Ok(());
    let mut sent = 0;
    while result.is_ok() {
        sent += 1;
        result = talk.hear(&Message::RememberTx { hashes: vec![], transactions: vec![transaction(sent, step)] });
    }
    assert_eq!(sent, 11);
    assert_eq!(offence(result), "too_much_to_remember");
    // The same in one message.
    let transactions = (0..11).map(|number| transaction(number, step)).collect();
    let mut talk = Talk::connected(Some(35));
    assert_eq!(offence(talk.hear(&Message::RememberTx { hashes: vec![], transactions })), "too_much_to_remember");
    // Our own requests to others stay below the limit.
    let mut talk = Talk::connected(None);
    let transactions: Vec<_> =
        (0..12).map(|number| Arc::new(Transaction::from_message(&transaction(number, step)))).collect();
    let template = TemplateTransactions { transactions, learned: vec![] };
    talk.order(Order::Template(Arc::new(template))).unwrap();
    let [_, Message::RememberTx { transactions, .. }] = &talk.said()[..] else { panic!("not told") };
    assert!(transactions.iter().map(|raw| raw.len() + 100).sum::<usize>() < REMEMBERED_BYTES_MAX);
    assert_eq!(transactions.len(), 10);
}

#[test]
fn ten_thousand_hashes_are_kept_of_what_a_peer_says_it_knows() {
    let mut talk = Talk::connected(None);
    let hash = |number: u32| {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_le_bytes());
        hash
    };
    for part in 0..30 {
        talk.hear(&Message::HaveTx((part * 1_000..(part + 1) * 1_000).map(hash).collect())).unwrap();
        talk.hear(&Message::LosingTx(vec![hash(part * 1_000)])).unwrap();
        talk.hear(&Message::HaveTx(vec![hash(part * 1_000)])).unwrap();
    }
    assert!(talk.peer.forwarding.theirs_kept() <= (10_000, 20_000));
    // The youngest are among them.
    let raw = transaction(1, 0);
    talk.hear(&Message::HaveTx(vec![hash_of(&raw)])).unwrap();
    talk.order(Order::Template(Arc::default())).unwrap();
    talk.said();
    let one = Arc::new(Transaction::from_message(&raw));
    let template = TemplateTransactions { transactions: vec![one], learned: vec![] };
    talk.order(Order::Template(Arc::new(template))).unwrap();
    assert_eq!(talk.said(), [Message::RememberTx { hashes: vec![hash_of(&raw)], transactions: vec![] }]);
}
