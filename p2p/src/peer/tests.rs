//! Behaviour of a connection beyond the recorded conversations: limits, timeouts, and the label of each offence.

use super::*;
use crate::frame::{Budget, HEADER_BYTES};
use crate::message::{AddressRecord, Endpoint, Version};
use crate::transactions::{REMEMBERED_BYTES_MAX, TemplateTransactions, Transaction};
use sharechain::merkle::Digest;
use sharechain::rules::PayeeForm;
use sharechain::share::{
    Contents, HashLink, MinHeader, Payout, ShareData, ShareInfo, ShareVersion, StaleInfo, Target, TransactionRefs,
    pow_sha256d,
};

const PREFIX: [u8; 8] = *b"sinetpre";

/// Target met by all but one in millions of hashes.
const EASY: Bits = Bits(0x20ff_ffff);

fn rules() -> ShareRules {
    ShareRules {
        identifier: *b"signet01",
        max_target: Target::MAX_256,
        segwit_activation_version: 0,
        address_version: 111,
        address_p2sh_version: 196,
        human_readable_part: "tb".into(),
        pow: pow_sha256d,
        no_votes_for_16_above: None,
    }
}

/// Creates a share with a hash of its own, the first to name these transactions.
fn share(version: ShareVersion, number: u32, new_hashes: &[Digest]) -> Arc<Share> {
    share_of(version, number, new_hashes, EASY).expect("it meets its target")
}

fn share_of(version: ShareVersion, number: u32, new: &[Digest], bits: Bits) -> Result<Arc<Share>, CheckError> {
    let refs = (0..new.len() as u64).map(|index| (0, index)).collect();
    let payout = if version.rules().payee == PayeeForm::Address {
        Payout::Address("mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn".into())
    } else {
        Payout::PubkeyHash([4; 20])
    };
    let share_data = ShareData {
        previous: None,
        coinbase: [3, 1, 2, 3].into(),
        nonce: number,
        payout,
        subsidy: 50,
        donation: 0,
        stale_info: StaleInfo::NONE,
        desired_version: 35,
    };
    let share_info = ShareInfo {
        share_data,
        segwit_data: None,
        transactions: version.lists_transactions().then(|| TransactionRefs { new_hashes: new.into(), refs }),
        far_share_hash: None,
        max_bits: bits,
        bits,
        timestamp: 1_000,
        absheight: 1,
        abswork: 3,
    };
    let contents = Contents {
        version,
        min_header: MinHeader { version: 4, previous_block: None, timestamp: 5, bits: EASY, nonce: 6 },
        share_info,
        ref_merkle_branch: Box::default(),
        last_txout_nonce: 7,
        hash_link: HashLink { state: [8; 32], length: 300 },
        merkle_branch: Box::default(),
    };
    Share::from_bytes(&sharechain::share::pack(&contents), &rules()).map(Arc::new)
}

pub(super) struct Talk {
    pub(super) peer: Peer,
    known: Transactions,
    start: Instant,
    pub(super) now: Instant,
}

fn hello(version: u32, nonce: u64) -> Message {
    let endpoint = Endpoint { services: 0, address: ([127, 0, 0, 1], 1).into() };
    Message::Version(Version {
        version,
        services: 5,
        to: endpoint,
        from: endpoint,
        nonce,
        sub_version: Bytes::from_static(b"test"),
        mode: 1,
        best_share: None,
    })
}

impl Talk {
    fn new(best_version: Option<u64>) -> Talk {
        let local = Local {
            prefix: PREFIX,
            protocol_version: PROTOCOL_VERSION,
            sub_version: "ours".into(),
            nonce: 99,
            best_share: None,
            best_version,
            minimum_protocol: 3500,
            advertise: Advertise::External("[2001:db8::1]:9333".parse().unwrap()),
            budget: Budget::new(100_000_000),
        };
        let now = Instant::now();
        let (remote, here) = (([10, 0, 0, 1], 5000).into(), ([10, 0, 0, 2], 9333).into());
        let peer = Peer::new(local, Arc::new(rules()), remote, here, Direction::Inbound, 3, now, 1_000_000);
        Talk { peer, known: Transactions::new(), start: now, now }
    }

    /// Completes the handshake, and drops its messages and events.
    pub(super) fn connected(best_version: Option<u64>) -> Talk {
        let mut talk = Talk::new(best_version);
        talk.hear(&hello(3501, 1)).unwrap();
        talk.order(Order::Keep).unwrap();
        talk.said();
        assert!(matches!(talk.peer.poll_event(), Some(PeerEvent::Connected(_))));
        talk
    }

    pub(super) fn hear(&mut self, message: &Message) -> Result<(), Close> {
        self.peer.handle_bytes(&message.to_frame(PREFIX), &self.known, self.now)
    }

    pub(super) fn order(&mut self, order: Order) -> Result<(), Close> {
        self.peer.handle_order(order, &self.known, self.now)
    }

    /// Returns the messages sent since the last call.
    pub(super) fn said(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.peer.poll_frame())
            .map(|frame| {
                let word = std::str::from_utf8(&frame[8..20]).unwrap().trim_end_matches('\0').to_owned();
                Message::parse(&word, frame.slice(28..)).unwrap().unwrap()
            })
            .collect()
    }

    pub(super) fn wait(&mut self, seconds: u64) -> Result<(), Close> {
        self.now += Duration::from_secs(seconds);
        let unix = 1_000_000 + (self.now - self.start).as_secs();
        self.peer.handle_timeout(self.now, unix)
    }
}

pub(super) fn offence(result: Result<(), Close>) -> &'static str {
    match result {
        Ok(()) => "nothing",
        Err(Close::Quiet(_)) => "quiet",
        Err(Close::Ourselves) => "ourselves",
        Err(Close::Offence(offence)) => offence.word(),
    }
}

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
    assert_eq!((talk.peer.local.budget.used(), talk.peer.poll_event()), (0, None));
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
        let mut talk = Talk::connected(Some(35));
        let mut sent = 0;
        let result = loop {
            let result = talk.hear(&message);
            talk.said();
            while talk.peer.poll_event().is_some() {}
            sent += 1;
            if result.is_err() {
                break result;
            }
        };
        assert_eq!(offence(result), "too_fast", "{}", message.command());
        assert!((5..=10_001).contains(&sent), "{sent} {}", message.command());
    }
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

#[test]
fn every_offence_has_a_word_and_its_ban() {
    assert_eq!(Offence::RequestFailed("no answer".into()).ban(), Duration::from_secs(30));
    assert_eq!(Offence::SecondVersion.ban(), Duration::from_secs(3600));
    let too_old = Talk::new(None).hear(&hello(3499, 1)).unwrap_err();
    assert_eq!(too_old.to_string(), "protocol version 3499 is older than 3500");
    let error = share_of(ShareVersion::V35, 1, &[], Bits(0x0300_0001)).unwrap_err();
    assert_eq!(Offence::Share(error).word(), "bad_share");
}
