//! Requests for shares, by untrusted peers and to them.

use sharechain::testkit::share_on;
use std::time::{Duration, Instant};
use test_support::peer_client::{parse_shares, reply_payload, shares_payload};
use test_support::{Hello, PeerClient, ShareRequest};

use crate::arena::{AT_ONCE, Arena, arena, parse, plan};

/// Untrusted peer that announces a better share, and the node's request for it.
fn asked(arena: &Arena, number: u8, best_share: [u8; 32]) -> (PeerClient, ShareRequest) {
    let mut peer = arena.stranger(number);
    peer.shake_hands(&Hello { best_share, ..Hello::default() });
    let request = ShareRequest::parse(&peer.wait_for("sharereq"));
    assert_eq!(request.hashes, [best_share]);
    (peer, request)
}

#[test]
fn a_request_for_no_share_at_all_ends_the_connection() {
    arena(&[], |arena| {
        let mut careless = arena.acquaintance(1);
        let request = ShareRequest { hashes: Vec::new(), ..ShareRequest::of([1; 32], 0) };
        careless.send("sharereq", &request.payload());
        arena.check_disconnect(&mut careless, AT_ONCE);
    });
}

#[test]
fn requests_for_shares_that_nobody_has_are_answered_with_none() {
    arena(&[], |arena| {
        arena.mine_many(3);
        let mut curious = arena.acquaintance(1);
        assert!(curious.ask_for_shares(&ShareRequest::of([0; 32], 0)).is_empty());
        assert!(curious.ask_for_shares(&ShareRequest::of([0x42; 32], u64::MAX)).is_empty());
        arena.check_tolerated(&mut curious);
    });
}

#[test]
fn a_request_is_answered_newest_first_up_to_a_stop() {
    arena(&[], |arena| {
        let shares: Vec<[u8; 32]> = (0..8).map(|_| arena.mine().0).collect();
        let mut curious = arena.acquaintance(1);
        let hashes = |shares: Vec<Vec<u8>>| shares.iter().map(|share| parse(share).hash().0).collect::<Vec<_>>();
        let newest_first: Vec<[u8; 32]> = shares.iter().rev().copied().collect();
        let all = ShareRequest::of(shares[7], u64::MAX);
        assert_eq!(hashes(curious.ask_for_shares(&all)), newest_first);
        let some = ShareRequest::of(shares[7], 2);
        assert_eq!(hashes(curious.ask_for_shares(&some)), newest_first[..3]);
        let stopped = ShareRequest { stops: vec![shares[4]], ..ShareRequest::of(shares[7], 100) };
        assert_eq!(hashes(curious.ask_for_shares(&stopped)), newest_first[..3]);
        arena.check_tolerated(&mut curious);
    });
}

#[test]
fn requests_without_end_are_an_offence() {
    arena(&[], |arena| {
        let tip = arena.mine_many(3).0;
        let mut greedy = arena.acquaintance(1);
        let request = ShareRequest { hashes: vec![tip; 1000], ..ShareRequest::of(tip, 0) };
        let until = Instant::now() + Duration::from_secs(30);
        // It reads the responses as fast as they come.
        while Instant::now() < until {
            greedy.send("sharereq", &request.payload());
            if greedy.try_wait_for(AT_ONCE, |frame| frame.command == "sharereply").is_err() {
                break;
            }
        }
        arena.check_ban(&mut greedy, "too_fast");
    });
}

#[test]
fn a_peer_that_asks_and_does_not_read_is_let_go() {
    arena(&[], |arena| {
        let tip = arena.mine_many(3).0;
        let before = arena.node.memory_peak();
        let mut deaf = arena.acquaintance(1);
        let request = ShareRequest { hashes: vec![tip; 1000], ..ShareRequest::of(tip, 0) };
        for _ in 0..55 {
            deaf.send_some(&test_support::peer_client::frame(arena.prefix(), "sharereq", &request.payload()), AT_ONCE);
        }
        std::thread::sleep(Duration::from_secs(2));
        arena.check_service();
        assert!(deaf.disconnected_within(AT_ONCE), "the connection stands");
        let gained = arena.node.memory_peak() - before;
        assert!(gained < 100_000_000, "it gained {gained} bytes");
    });
}

#[test]
fn an_answer_that_nobody_asked_for_is_passed_over() {
    arena(&[], |arena| {
        let tip = arena.mine_many(3);
        let mut chain = arena.chain(tip);
        let share = share_on(&mut chain, Some(tip), &plan(1)).to_bytes();
        let mut eager = arena.acquaintance(1);
        eager.send("sharereply", &reply_payload([5; 32], &[share]));
        arena.check_tolerated(&mut eager);
        assert_eq!(arena.height(), 3.0);
    });
}

#[test]
fn a_peer_that_does_not_answer_is_let_go() {
    arena(&[], |arena| {
        arena.mine_many(3);
        let (mut mute, _) = asked(arena, 1, [0x17; 32]);
        arena.check_disconnect(&mut mute, Duration::from_secs(25));
    });
}

#[test]
fn a_refused_request_is_a_small_offence() {
    arena(&[], |arena| {
        arena.mine_many(3);
        let (mut unwilling, request) = asked(arena, 1, [0x17; 32]);
        unwilling.send("sharereply", &[&request.id[..], &[2], &shares_payload(&[])].concat());
        arena.check_ban(&mut unwilling, "request_failed");
    });
}

#[test]
fn an_answer_that_would_be_too_long_is_no_offence() {
    arena(&[], |arena| {
        arena.mine_many(3);
        let (mut burdened, request) = asked(arena, 1, [0x17; 32]);
        burdened.send("sharereply", &[&request.id[..], &[1], &shares_payload(&[])].concat());
        arena.check_tolerated(&mut burdened);
    });
}

#[test]
fn more_shares_than_were_asked_for_are_an_offence() {
    arena(&[], |arena| {
        let tip = arena.mine_many(3);
        let shares = arena.fetch(tip);
        let (mut generous, request) = asked(arena, 1, [0x17; 32]);
        let many = vec![shares[0].clone(); usize::try_from(request.parents).expect("few are asked for") + 2];
        generous.send("sharereply", &reply_payload(request.id, &many));
        arena.check_ban(&mut generous, "too_many");
    });
}

#[test]
fn other_shares_than_those_asked_for_are_no_answer() {
    arena(&[], |arena| {
        let tip = arena.mine_many(3);
        let shares = arena.fetch(tip);
        let (mut stubborn, request) = asked(arena, 1, [0x17; 32]);
        stubborn.send("sharereply", &reply_payload(request.id, &shares[..1]));
        let again = stubborn.try_wait_for(Duration::from_secs(5), |frame| frame.command == "sharereq");
        assert!(again.is_err(), "it is asked again");
        arena.check_service();
        assert_eq!(arena.height(), 4.0);
    });
}

#[test]
fn empty_answers_for_ever_slow_nobody_down() {
    arena(&[], |arena| {
        let tip = arena.mine_many(3);
        let mut chain = arena.chain(tip);
        // A share whose parent only this peer could have.
        let hidden = share_on(&mut chain, Some(tip), &plan(1));
        chain.add(hidden.clone(), None, 0.0);
        let shown = share_on(&mut chain, Some(hidden.hash()), &plan(1));
        let mut tease = arena.acquaintance(1);
        tease.send("shares", &shares_payload(&[shown.to_bytes()]));
        let until = Instant::now() + Duration::from_secs(8);
        let mut questions = 0;
        while let Ok(frame) =
            tease.try_wait_for(until.saturating_duration_since(Instant::now()), |frame| frame.command == "sharereq")
        {
            let request = ShareRequest::parse(&frame.payload);
            assert_eq!(request.hashes, [hidden.hash().0]);
            tease.send("sharereply", &reply_payload(request.id, &[]));
            questions += 1;
        }
        assert!((1..=20).contains(&questions), "it was asked {questions} times in eight seconds");
        arena.check_service();

        // The peer that has it is asked at last, and the chain is joined.
        let mut honest = arena.acquaintance(2);
        let until = Instant::now() + Duration::from_secs(60);
        let asked = honest.try_wait_for(until - Instant::now(), |frame| {
            frame.command == "sharereq" && ShareRequest::parse(&frame.payload).hashes == [hidden.hash().0]
        });
        let request = ShareRequest::parse(&asked.expect("the other peer is asked, too").payload);
        honest.send("sharereply", &reply_payload(request.id, &[hidden.to_bytes()]));
        let mut curious = arena.acquaintance(3);
        test_support::wait_until("the chain is joined", AT_ONCE, || {
            let known = curious.ask_for_shares(&ShareRequest::of(shown.hash().0, 1));
            known.len() == 2 && parse_shares(&shares_payload(&known)) == [shown.to_bytes(), hidden.to_bytes()]
        });
    });
}
