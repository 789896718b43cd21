//! Handshake, keep-alive, requests and rates: limits, timeouts, and the label of each offence.

use super::*;
use crate::message::AddressRecord;

#[test]
fn a_handshake_tells_who_came_and_then_pings_and_advertises_if_the_connection_is_wanted() {
    let mut talk = Talk::new(Some(35));
    assert!(matches!(&talk.said()[..], [Message::Version(version)] if version.nonce == 99 && version.mode == 1));
    assert!(!talk.peer.is_connected());
    talk.hear(&hello(3501, 7)).unwrap();
    // On a second connection, any message after `version` would make a reference node ban us.
    assert_eq!(talk.said(), []);
    talk.order(Order::Keep).unwrap();
    let said = talk.said();
    let endpoint = Endpoint { services: 5, address: "[2001:db8::1]:9333".parse().unwrap() };
    assert_eq!(said, [Message::Ping, Message::Addrs(vec![AddressRecord { timestamp: 1_000_000, endpoint }])]);
    let Some(PeerEvent::Connected(hello)) = talk.peer.poll_event() else { panic!("not connected") };
    assert_eq!((hello.version, hello.services, hello.nonce, &*hello.sub_version), (3501, 5, 7, "test"));
}

#[test]
fn our_own_nonce_is_us_and_nobody_is_banned_for_it() {
    assert_eq!(Talk::new(None).hear(&hello(3501, 99)), Err(Close::Ourselves));
}

#[test]
fn a_quiet_link_lives_by_pings_every_30_to_60_seconds_and_dies_after_100_of_silence() {
    let (mut ours, mut theirs) = (Talk::connected(Some(35)), Talk::connected(Some(35)));
    for _ in 0..1_000 {
        let due = ours.peer.poll_timeout().unwrap() - ours.now;
        assert!(due <= Duration::from_secs(60));
        for talk in [&mut ours, &mut theirs] {
            talk.wait(1).unwrap();
        }
        for message in ours.said() {
            theirs.hear(&message).unwrap();
        }
        for message in theirs.said() {
            ours.hear(&message).unwrap();
        }
    }
    let (mut seconds, mut result) = (0, Ok(()));
    while result.is_ok() {
        seconds += 1;
        result = ours.wait(1);
    }
    // The last ping came at most a minute ago.
    assert!((40..=100).contains(&seconds), "{seconds}");
    assert_eq!(result, Err(Close::Quiet("nothing heard for 100 s".into())));
}

#[test]
fn a_message_that_only_trickles_ends_the_connection() {
    let mut talk = Talk::connected(Some(35));
    let frame = Message::HaveTx(vec![[1; 32]; 100_000]).to_frame(PREFIX);
    let mut ended = None;
    for (second, piece) in frame.chunks(10_000).enumerate() {
        ended = talk.peer.handle_bytes(piece, &talk.known, talk.now).and_then(|()| talk.wait(1)).err();
        if ended.is_some() {
            // A minute, and a second for each 50,000 bytes.
            assert_eq!(second + 1, 60 + 64);
            break;
        }
    }
    assert_eq!(ended, Some(Close::Quiet("message not completed in time".into())));
    // Garbage without any message counts as silence, whatever its amount.
    let mut talk = Talk::connected(Some(35));
    for _ in 0..99 {
        talk.peer.handle_bytes(b"not a prefix", &talk.known, talk.now).unwrap();
        talk.wait(1).unwrap();
    }
    assert_eq!(offence(talk.wait(1)), "quiet");
}

#[test]
fn before_the_handshake_nothing_but_version_is_waited_for() {
    let mut talk = Talk::new(None);
    let frame = Message::HaveTx(vec![[1; 32]; 1_000]).to_frame(PREFIX);
    // A long frame is skipped without keeping it, and `version` may still follow.
    let version = hello(3501, 1).to_frame(PREFIX);
    talk.peer.handle_bytes(&frame[..28], &talk.known, talk.now).unwrap();
    talk.peer.handle_bytes(&frame[28..], &talk.known, talk.now).unwrap();
    assert_eq!((talk.peer.local.shared.unfinished_bytes(), talk.peer.poll_event()), (0, None));
    talk.peer.handle_bytes(&version, &talk.known, talk.now).unwrap();
    assert!(talk.peer.is_connected());
    let frame = Message::HaveTx(vec![[1; 32]; 10]).to_frame(PREFIX);
    assert_eq!(offence(Talk::new(None).peer.handle_bytes(&frame, &talk.known, talk.now)), "no_version");
    assert_eq!(offence(Talk::new(None).wait(10)), "quiet");
    assert_eq!(offence(Talk::new(None).wait(9)), "nothing");
    // Orders before the handshake are dropped.
    let mut talk = Talk::new(None);
    talk.order(Order::GetAddresses(8)).unwrap();
    assert_eq!(talk.said().len(), 1);
}

#[test]
fn an_answer_is_matched_to_its_request_and_bounded_by_it() {
    let mut talk = Talk::connected(Some(35));
    let shares: Vec<_> = (0..4).map(|number| share(ShareVersion::V35, number, &[])).collect();
    let request = Order::Request { request: RequestId(8), hashes: vec![shares[0].hash()], parents: 2, stops: vec![] };
    talk.order(request.clone()).unwrap();
    let [Message::ShareReq { id, parents: 2, .. }] = talk.said()[..] else { panic!("no request") };
    let reply = |id, count| Message::ShareReply { id, result: ReplyResult::Good, shares: wrap(&shares[..count]) };
    // An unsolicited answer is skipped.
    talk.hear(&reply([5; 32], 4)).unwrap();
    assert_eq!(talk.peer.poll_event(), None);
    talk.hear(&reply(id, 3)).unwrap();
    let event = talk.peer.poll_event();
    assert_eq!(event, Some(PeerEvent::Replied { request: RequestId(8), shares: Ok(shares[..3].to_vec()) }));
    // Without a pending request, answers are not even kept.
    talk.hear(&reply(id, 3)).unwrap();
    assert_eq!(talk.peer.poll_event(), None);

    talk.order(request.clone()).unwrap();
    let [Message::ShareReq { id, .. }] = talk.said()[..] else { panic!("no request") };
    assert_eq!(offence(talk.hear(&reply(id, 4))), "too_many");

    let mut talk = Talk::connected(Some(35));
    talk.order(request.clone()).unwrap();
    let [Message::ShareReq { id, .. }] = talk.said()[..] else { panic!("no request") };
    talk.hear(&Message::ShareReply { id, result: ReplyResult::TooLong, shares: vec![] }).unwrap();
    let refused = Err(RequestFailed::Refused(ReplyResult::TooLong));
    assert_eq!(talk.peer.poll_event(), Some(PeerEvent::Replied { request: RequestId(8), shares: refused }));

    talk.order(request).unwrap();
    talk.wait(14).unwrap();
    assert_eq!(talk.wait(1), Err(Close::Quiet("no answer to a request for shares".into())));
}

#[test]
fn shares_that_lie_about_their_work_are_an_offence_wherever_they_come() {
    let mut talk = Talk::connected(Some(35));
    let good = share(ShareVersion::V35, 1, &[]);
    let mut bytes = WrappedShare::of(&good);
    // Its target is the last u32 before timestamp, height, work and later fields: nearly impossible from here on.
    let mut contents = bytes.contents.to_vec();
    let easy = EASY.0.to_le_bytes();
    let at = contents.windows(8).rposition(|window| window[..4] == easy && window[4..] == easy).unwrap() + 4;
    contents[at..at + 4].copy_from_slice(&0x0300_0001_u32.to_le_bytes());
    bytes.contents = contents.into();
    assert_eq!(offence(talk.hear(&Message::Shares(vec![bytes]))), "bad_share");
    talk.hear(&Message::Shares(vec![WrappedShare::of(&good)])).unwrap();
    assert_eq!(talk.peer.poll_event(), Some(PeerEvent::Shares(vec![good.clone()])));
    let many = vec![WrappedShare::of(&good); 101];
    assert_eq!(offence(talk.hear(&Message::Shares(many))), "too_many");
}

#[test]
fn a_question_for_hash_0_is_answered_at_once_and_others_by_the_swarm() {
    let mut talk = Talk::connected(Some(35));
    let ask = |hash| Message::ShareReq { id: [6; 32], hashes: vec![ShareHash(hash)], parents: 3, stops: vec![] };
    talk.hear(&ask([0; 32])).unwrap();
    let empty = Message::ShareReply { id: [6; 32], result: ReplyResult::Good, shares: vec![] };
    assert_eq!((talk.said(), talk.peer.poll_event()), (vec![empty], None));
    talk.hear(&ask([1; 32])).unwrap();
    let asked = PeerEvent::Asked { id: [6; 32], hashes: vec![ShareHash([1; 32])], parents: 3, stops: vec![] };
    assert_eq!((talk.said(), talk.peer.poll_event()), (vec![], Some(asked)));
    // No honest peer has 65 pending requests.
    for _ in 1..64 {
        talk.hear(&ask([1; 32])).unwrap();
    }
    assert_eq!(offence(talk.hear(&ask([1; 32]))), "quiet");
}

/// Repeats `message` until the connection ends; returns the number of messages and the reason.
fn flood(message: &Message) -> (usize, &'static str) {
    let mut talk = Talk::connected(Some(35));
    let mut sent = 0;
    loop {
        let result = talk.hear(message);
        talk.said();
        while talk.peer.poll_event().is_some() {}
        sent += 1;
        if result.is_err() {
            return (sent, offence(result));
        }
    }
}

#[test]
fn floods_of_any_kind_are_too_fast() {
    let good = WrappedShare::of(&share(ShareVersion::V35, 1, &[]));
    let record = AddressRecord { timestamp: 1, endpoint: Endpoint { services: 0, address: ([1, 2, 3, 4], 5).into() } };
    let floods = [
        Message::Ping,
        Message::Shares(vec![good; 100]),
        Message::Addrs(vec![record; 1_000]),
        Message::GetAddrs { count: 100 },
        Message::ShareReq { id: [0; 32], hashes: vec![ShareHash([0; 32]); 1_000], parents: 0, stops: vec![] },
        Message::HaveTx(vec![[1; 32]; 100_000]),
    ];
    for message in floods {
        let (sent, reason) = flood(&message);
        assert_eq!(reason, "too_fast", "{}", message.command());
        assert!((5..=10_001).contains(&sent), "{sent} {}", message.command());
    }
}

#[test]
fn a_peer_that_passes_on_what_others_flood_it_with_is_not_banned() {
    // The reference relays addresses one by one, and announces each transaction that it is asked to remember.
    let record = AddressRecord { timestamp: 1, endpoint: Endpoint { services: 0, address: ([1, 2, 3, 4], 5).into() } };
    for message in [
        Message::Addrs(vec![record]),
        Message::AddrMe { port: 9333 },
        Message::HaveTx(vec![[1; 32]]),
        Message::LosingTx(vec![[1; 32]]),
    ] {
        assert_eq!(flood(&message), (10_001, "quiet"), "{}", message.command());
    }
    // Up to there, too many addresses are ignored, and its own questions are answered.
    let mut talk = Talk::connected(Some(35));
    let mut taken = 0;
    for _ in 0..9_999 {
        talk.hear(&Message::Addrs(vec![record])).unwrap();
        taken += std::iter::from_fn(|| talk.peer.poll_event()).count();
    }
    assert_eq!(taken, 5_000);
    talk.hear(&Message::GetAddrs { count: 8 }).unwrap();
    assert_eq!(talk.peer.poll_event(), Some(PeerEvent::WantsAddresses(8)));
}

#[test]
fn who_does_not_read_is_left() {
    let mut talk = Talk::connected(Some(35));
    let shares: Vec<_> = vec![share(ShareVersion::V35, 1, &[]); 1_000];
    let mut sent = 0;
    while talk.order(Order::Answer { id: [0; 32], shares: shares.clone() }).is_ok() {
        sent += 1;
    }
    assert!(sent > 10 && talk.peer.output_bytes() < 2 * OUTPUT_BYTES_MAX);
    assert_eq!(talk.said().len(), sent);
    assert_eq!(talk.peer.output_bytes(), 0);
}

#[test]
fn every_offence_has_a_word_and_its_ban() {
    assert_eq!(Offence::RequestFailed("no answer".into()).ban(), Duration::from_secs(30));
    assert_eq!(Offence::SecondVersion.ban(), Duration::from_secs(3600));
    let too_old = Talk::new(None).hear(&hello(3499, 1)).unwrap_err();
    assert_eq!(too_old.to_string(), "protocol version 3499 is older than 3500");
    let error = share_of(ShareVersion::V35, 1, &[], Bits(0x0300_0001)).unwrap_err();
    assert_eq!(Offence::Share(error).word(), "bad_share");
}
