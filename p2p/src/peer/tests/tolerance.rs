//! Tolerance for nodes that send what this node cannot use, on networks that have such nodes.

use super::*;

fn unknown() -> WrappedShare {
    WrappedShare { version: 99, contents: Bytes::from_static(&[1; 500]) }
}

fn garbage() -> WrappedShare {
    WrappedShare { version: 35, contents: Bytes::from_static(&[0x5a; 700]) }
}

/// Feeds a frame with this payload.
fn feed(talk: &mut Talk, command: Command, payload: &[u8]) -> Result<(), Close> {
    talk.peer.handle_bytes(&crate::frame::encode(PREFIX, command.word(), payload), &talk.known, talk.now)
}

#[test]
fn a_message_before_version_and_a_second_version_end_the_connection_without_a_ban() {
    let mut hasty = Talk::new(None);
    hasty.peer.local.has_laxer_nodes = true;
    let closed = hasty.hear(&Message::Ping);
    assert_eq!(closed, Err(Close::Quiet("first message is `ping`, not `version`".into())));
    assert_eq!(offence(Talk::lax().hear(&hello(3501, 1))), "quiet");
    assert_eq!(offence(Talk::connected(None).hear(&hello(3501, 1))), "second_version");
}

#[test]
fn shares_that_cannot_be_used_are_skipped_alone_and_lies_about_work_are_an_offence_all_the_same() {
    let good = share(ShareVersion::V35, 1, &[]);
    let mixed = Message::Shares(vec![unknown(), WrappedShare::of(&good), garbage()]);
    let mut talk = Talk::lax();
    talk.hear(&mixed).unwrap();
    assert_eq!(talk.peer.poll_event(), Some(PeerEvent::Shares(vec![good.clone()])));
    assert_eq!(offence(Talk::connected(None).hear(&mixed)), "quiet", "elsewhere it ends the connection");
    let mut contents = good.contents().clone();
    contents.share_info.bits = Bits(0x0300_0001);
    let bytes = Bytes::from(sharechain::share::pack(&contents));
    let (version, inner) = sharechain::share::read_wrapped(&mut sharechain::pack::Reader::new(&bytes)).unwrap();
    let weak = WrappedShare { version, contents: bytes.slice_ref(inner) };
    assert_eq!(offence(talk.hear(&Message::Shares(vec![unknown(), weak]))), "bad_share");
}

#[test]
fn a_share_that_cannot_be_used_empties_an_answer() {
    let good = share(ShareVersion::V35, 1, &[]);
    for bad in [unknown(), garbage()] {
        let mut talk = Talk::lax();
        let hashes = vec![good.hash()];
        talk.order(Order::Request { request: RequestId(8), hashes, parents: 2, stops: vec![] }).unwrap();
        let [Message::ShareReq { id, .. }] = talk.said()[..] else { panic!("no request") };
        let shares = vec![WrappedShare::of(&good), bad];
        talk.hear(&Message::ShareReply { id, result: ReplyResult::Good, shares }).unwrap();
        assert_eq!(talk.peer.poll_event(), Some(PeerEvent::Replied { request: RequestId(8), shares: Ok(vec![]) }));
        talk.wait(15).unwrap();
    }
}

#[test]
fn an_answer_that_cannot_be_parsed_ends_its_request_and_not_the_connection() {
    let mut talk = Talk::lax();
    let request = Order::Request { request: RequestId(8), hashes: vec![ShareHash([1; 32])], parents: 2, stops: vec![] };
    talk.order(request.clone()).unwrap();
    let [Message::ShareReq { id, .. }] = talk.said()[..] else { panic!("no request") };
    // 7 is no result.
    let payload = [&id[..], &[7, 0]].concat();
    feed(&mut talk, Command::ShareReply, &payload).unwrap();
    assert_eq!(talk.peer.poll_event(), Some(PeerEvent::Replied { request: RequestId(8), shares: Ok(vec![]) }));
    talk.wait(15).unwrap();
    // One that does not even name its request leaves it open.
    talk.order(request).unwrap();
    feed(&mut talk, Command::ShareReply, &[7; 5]).unwrap();
    assert_eq!(talk.peer.poll_event(), None);
    assert_eq!(offence(talk.wait(15)), "quiet");
}

#[test]
fn messages_that_cannot_be_read_are_counted_and_unknown_versions_are_not() {
    let mut talk = Talk::lax();
    for _ in 0..10 {
        feed(&mut talk, Command::Shares, &[1]).unwrap();
        feed(&mut talk, Command::RememberTx, &[0, 1, 1]).unwrap();
        talk.hear(&Message::Shares(vec![garbage(), garbage()])).unwrap();
        (0..10).for_each(|_| talk.hear(&Message::Shares(vec![unknown()])).unwrap());
    }
    assert_eq!(offence(feed(&mut talk, Command::Shares, &[1])), "quiet");
    // After an hour they count from zero.
    let mut talk = Talk::lax();
    for _ in 0..3 {
        (0..30).for_each(|_| feed(&mut talk, Command::Shares, &[1]).unwrap());
        talk.now += Duration::from_secs(3600);
    }
    // Other messages must be right.
    assert_eq!(offence(feed(&mut Talk::lax(), Command::GetAddrs, &[1])), "quiet");
    let many = vec![unknown(); 101];
    assert_eq!(offence(Talk::lax().hear(&Message::Shares(many))), "too_many");
}

#[test]
fn unknown_transactions_are_skipped() {
    let mut talk = Talk::lax();
    talk.hear(&Message::RememberTx { hashes: vec![[7; 32]], transactions: vec![] }).unwrap();
    talk.hear(&Message::ForgetTx(vec![[7; 32], [8; 32]])).unwrap();
    assert_eq!((talk.peer.remembered_bytes(), talk.peer.poll_event()), (0, None));
}
