//! Invalid shares, and a valid one.

use sharechain::chain::Sharechain;
use sharechain::coin;
use sharechain::share::{Bits, Draft, MinHeader, Payouts, ShareHash};
use sharechain::testkit::{self, share_on};
use std::time::Duration;
use test_support::Hello;
use test_support::peer_client::{parse_shares, reply_payload, shares_payload, unwrap_share, wrap_share};
use test_support::{PeerClient, ShareRequest};

use crate::arena::{AT_ONCE, Arena, arena, parse, plan};

/// Number of shares in the chain at the start of most cases.
const LENGTH: usize = 6;

/// Sends an unrequested share.
fn send(peer: &mut PeerClient, share: &[u8]) {
    peer.send("shares", &shares_payload(&[share.to_vec()]));
}

/// Latest share of the node's chain with some bytes replaced by others of the same length.
fn altered(arena: &mut Arena, alter: impl FnOnce(&mut Vec<u8>, &sharechain::share::Share)) -> Vec<u8> {
    let tip = arena.mine_many(LENGTH);
    let mut bytes = arena.fetch(tip).swap_remove(0);
    let share = parse(&bytes);
    alter(&mut bytes, &share);
    bytes
}

/// Returns the only position of these bytes.
fn position(bytes: &[u8], wanted: &[u8]) -> usize {
    let places: Vec<usize> =
        bytes.windows(wanted.len()).enumerate().filter(|(_, part)| *part == wanted).map(|(place, _)| place).collect();
    assert_eq!(places.len(), 1, "{wanted:x?} stands {} times in the share", places.len());
    places[0]
}

#[test]
fn an_honest_share_of_a_strangers_is_taken_and_passed_on() {
    arena(&[], |arena| {
        let tip = arena.mine_many(LENGTH);
        let mut chain = arena.chain(tip);
        let share = share_on(&mut chain, Some(tip), &plan(1));
        let mut honest = arena.acquaintance(1);
        send(&mut honest, &share.to_bytes());
        let passed_on = arena.friend.try_wait_for(AT_ONCE, |frame| {
            frame.command == "shares" && parse_shares(&frame.payload).iter().any(|one| *one == share.to_bytes())
        });
        assert!(passed_on.is_ok(), "the honest peer does not get it");
        assert_eq!(arena.height(), (LENGTH + 1) as f64);
        arena.check_tolerated(&mut honest);
        // The next share builds on it.
        let next = arena.mine();
        assert_eq!(parse(&arena.fetch(next)[0]).previous(), Some(share.hash()));
    });
}

#[test]
fn a_share_without_its_proof_of_work_is_an_offence() {
    arena(&[], |arena| {
        let weak = altered(arena, |bytes, share| {
            let nonce = position(bytes, &share.header()[68..80]) + 8;
            bytes[nonce] ^= 0x55;
        });
        let mut cheat = arena.acquaintance(1);
        send(&mut cheat, &weak);
        arena.check_ban(&mut cheat, "bad_share");
        assert_eq!(arena.height(), LENGTH as f64);
    });
}

#[test]
fn a_share_easier_than_the_network_allows_is_an_offence() {
    arena(&[], |arena| {
        let easy = altered(arena, |bytes, share| {
            let (bits, timestamp) = (share.info().bits.0.to_le_bytes(), share.info().timestamp.to_le_bytes());
            let place = position(bytes, &[bits, timestamp].concat());
            bytes[place..place + 4].copy_from_slice(&0x207f_ffff_u32.to_le_bytes());
        });
        let mut cheat = arena.acquaintance(1);
        send(&mut cheat, &easy);
        arena.check_ban(&mut cheat, "bad_share");
    });
}

#[test]
fn shares_ahead_of_our_clock_cost_their_senders_nothing_and_are_reported_as_our_clock_being_wrong() {
    arena(&[], |arena| {
        let parent = arena.mine_many(LENGTH);
        let mut chain = arena.chain(parent);
        // So that the shares do not become the best ones later, when they are no longer in the future.
        arena.mine();
        let health = |arena: &Arena| -> serde_json::Value {
            serde_json::from_str(&arena.node.get("/health").body).expect("/health is JSON")
        };
        assert_eq!(health(arena)["clock"], serde_json::Value::Null);
        let senders: Vec<PeerClient> = (1..=3)
            .map(|number| {
                let mut plan = plan(u32::from(number));
                plan.timestamp += 600 + 20;
                let share = share_on(&mut chain, Some(parent), &plan);
                let mut sender = arena.acquaintance(number);
                send(&mut sender, &share.to_bytes());
                sender
            })
            .collect();
        test_support::wait_until("our clock is reported as wrong", AT_ONCE * 4, || {
            health(arena)["clock"].as_str().is_some_and(|text| text.contains("shares from 3 networks are"))
        });
        let summary: serde_json::Value =
            serde_json::from_str(&arena.node.get("/api/v1/summary").body).expect("it is JSON");
        assert!(
            summary["warnings"][0].as_str().is_some_and(|text| text.starts_with("our clock is wrong")),
            "{summary}"
        );
        assert_eq!(health(arena)["serving"], true);
        arena.node.wait_for_log("our clock is wrong: peers' shares are ahead of it", AT_ONCE);
        assert_eq!(arena.metric("sharechain_early_networks"), 3.0);
        for mut sender in senders {
            arena.check_tolerated(&mut sender);
        }
        test_support::wait_until("our clock is not reported any more", AT_ONCE * 12, || {
            health(arena)["clock"].is_null()
        });
        assert_eq!(arena.metric("sharechain_refused_shares_total"), 0.0);
    });
}

#[test]
fn a_share_that_pays_the_wrong_miners_is_an_offence_and_goes_nowhere() {
    arena(&[], |arena| {
        let tip = arena.mine_many(LENGTH);
        let mut chain = arena.chain(tip);
        let plan = plan(7);
        let tip_of = chain.tip_at(Some(tip));
        let info = testkit::info(&chain, &tip_of, &plan);
        // Payouts of the chain's first share, which pays only the finder and the donation.
        let first = chain.tip_at(None).weights(plan.block_bits.target());
        let payouts = Payouts::new(tip_of.version(), plan.subsidy, &first, chain.rules()).expect("they can be paid");
        let draft = Draft::new(info, &payouts, &[], chain.rules()).expect("the payee can be paid");
        let header = |nonce| MinHeader {
            version: 0x2000_0000,
            previous_block: None,
            timestamp: plan.timestamp,
            bits: plan.block_bits,
            nonce,
        };
        let share = (0..).find_map(|nonce| draft.finish(header(nonce), 0, chain.rules()).ok()).expect("it is easy");
        let mut thief = arena.acquaintance(1);
        send(&mut thief, &share.to_bytes());
        arena.check_ban(&mut thief, "invalid_share");
        assert_eq!(arena.height(), LENGTH as f64);
    });
}

#[test]
fn a_share_with_a_made_up_history_is_an_offence() {
    arena(&[], |arena| {
        let tip = arena.mine_many(LENGTH);
        let mut chain = arena.chain(tip);
        let tip_of = chain.tip_at(Some(tip));
        let mut info = testkit::info(&chain, &tip_of, &plan(7));
        info.abswork += 1_000_000_000;
        let share = testkit::find(&chain, &tip_of, &plan(7), info);
        let mut liar = arena.acquaintance(1);
        send(&mut liar, &share.to_bytes());
        arena.check_ban(&mut liar, "invalid_share");
        assert_eq!(arena.height(), LENGTH as f64);
    });
}

#[test]
fn a_bad_share_among_good_ones_costs_its_sender_and_not_them() {
    arena(&[], |arena| {
        let tip = arena.mine_many(LENGTH);
        let mut chain = arena.chain(tip);
        let good = share_on(&mut chain, Some(tip), &plan(1));
        chain.add(std::sync::Arc::clone(&good), None, 0.0);
        let tip_of = chain.tip_at(Some(good.hash()));
        let mut info = testkit::info(&chain, &tip_of, &plan(7));
        info.absheight += 1;
        let bad = testkit::find(&chain, &tip_of, &plan(7), info);
        let mut mixed = arena.acquaintance(1);
        mixed.send("shares", &shares_payload(&[bad.to_bytes(), good.to_bytes()]));
        arena.check_ban(&mut mixed, "invalid_share");
        test_support::wait_until("the good one is taken", AT_ONCE, || arena.height() == (LENGTH + 1) as f64);
    });
}

#[test]
fn shares_that_cannot_be_read_end_the_connection() {
    arena(&[], |arena| {
        let cut = altered(arena, |bytes, _| {
            let (kind, contents) = unwrap_share(bytes);
            *bytes = wrap_share(kind, &contents[..contents.len() - 1]);
        });
        let mut careless = arena.acquaintance(1);
        send(&mut careless, &cut);
        arena.check_disconnect(&mut careless, AT_ONCE);
        let mut noisy = arena.acquaintance(2);
        send(&mut noisy, &wrap_share(35, &[0x5a; 700]));
        arena.check_disconnect(&mut noisy, AT_ONCE);
    });
}

#[test]
fn shares_of_unknown_versions_end_the_connection_and_obsolete_ones_are_passed_over() {
    arena(&[], |arena| {
        let mut modern = arena.acquaintance(1);
        send(&mut modern, &wrap_share(99, &[1; 500]));
        arena.check_disconnect(&mut modern, AT_ONCE);
        let mut old = arena.acquaintance(2);
        send(&mut old, &wrap_share(16, &[1; 500]));
        arena.check_tolerated(&mut old);
    });
}

#[test]
fn no_shares_at_all_are_normal() {
    arena(&[], |arena| {
        let mut idle = arena.acquaintance(1);
        idle.send("shares", &shares_payload(&[]));
        arena.check_tolerated(&mut idle);
    });
}

#[test]
fn shares_that_are_known_already_are_normal() {
    arena(&[], |arena| {
        let tip = arena.mine_many(LENGTH);
        let known = arena.fetch(tip);
        let mut echo = arena.acquaintance(1);
        for _ in 0..5 {
            echo.send("shares", &shares_payload(&known));
        }
        arena.check_tolerated(&mut echo);
        assert_eq!(arena.height(), LENGTH as f64);
    });
}

#[test]
fn a_share_of_the_old_kind_whose_transactions_nobody_forwarded_ends_the_connection() {
    arena(&[], |arena| {
        let text = include_str!("../networks/easy.toml").replace("[PARENT]", "START_VERSION = 33\n[PARENT]");
        let network = Box::leak(Box::new(coin::from_toml(&text).expect("a network")));
        let mut chain = Sharechain::new(network);
        let plan = testkit::Plan { transactions: vec![[9; 32]], ..plan(1) };
        let share = share_on(&mut chain, None, &plan);
        let mut silent = arena.acquaintance(1);
        send(&mut silent, &share.to_bytes());
        arena.check_disconnect(&mut silent, AT_ONCE);
    });
}

#[test]
fn a_block_that_is_none_is_only_a_share() {
    arena(&[], |arena| {
        let height = arena.daemon.height();
        let tip = arena.mine_many(LENGTH);
        let mut chain = arena.chain(tip);
        // It claims the easiest block target, so it is a block by its own data.
        let easy = testkit::Plan { block_bits: Bits(0x207f_ffff), ..plan(1) };
        let share = share_on(&mut chain, Some(tip), &easy);
        assert!(share.is_block());
        let mut boaster = arena.acquaintance(1);
        send(&mut boaster, &share.to_bytes());
        arena.check_service();
        assert_eq!(arena.daemon.height(), height);
        assert!(arena.node.is_running());
    });
}

#[test]
fn orphans_without_end_are_not_kept_without_end() {
    arena(&[], |arena| {
        let tip = arena.mine_many(LENGTH);
        let before = arena.node.memory_peak();
        let mut chain = arena.chain(tip);
        let tip_of = chain.tip_at(Some(tip));
        let mut flood = arena.acquaintance(1);
        for count in 0..60_u32 {
            let plan = testkit::Plan { nonce: count, ..plan(3) };
            let mut info = testkit::info(&chain, &tip_of, &plan);
            let mut parent = [3; 32];
            parent[..4].copy_from_slice(&count.to_le_bytes());
            info.share_data.previous = Some(ShareHash(parent));
            send(&mut flood, &testkit::find(&chain, &tip_of, &plan, info).to_bytes());
        }
        // It is asked for the parents, which it lacks.
        let request = ShareRequest::parse(&flood.wait_for("sharereq"));
        flood.send("sharereply", &reply_payload(request.id, &[]));
        arena.check_service();
        assert_eq!(arena.height(), (LENGTH + 1) as f64);
        assert!(arena.node.memory_peak() < before + 24_000_000);
    });
}

#[test]
fn forks_of_cheap_shares_do_not_move_the_pool() {
    arena(&[], |arena| {
        let tip = arena.mine_many(LENGTH);
        let mut chain = arena.chain(tip);
        let below = chain.share(tip).and_then(|share| share.previous()).expect("it has a parent");
        let mut flood = arena.acquaintance(1);
        for count in 0..60 {
            let plan = testkit::Plan { nonce: count, ..plan(3) };
            send(&mut flood, &share_on(&mut chain, Some(below), &plan).to_bytes());
        }
        arena.check_service();
        assert_eq!(arena.height(), (LENGTH + 1) as f64);
        let next = arena.mine();
        assert!(arena.fetch(next).iter().any(|share| parse(share).hash() == tip), "the first one seen stays");
        arena.check_tolerated(&mut flood);
    });
}

#[test]
fn a_peer_that_lies_about_its_best_share_is_asked_and_forgotten() {
    arena(&[], |arena| {
        arena.mine_many(LENGTH);
        let mut liar = arena.stranger(1);
        liar.shake_hands(&Hello { best_share: [0x17; 32], ..Hello::default() });
        let request = ShareRequest::parse(&liar.wait_for("sharereq"));
        assert_eq!(request.hashes, [[0x17; 32]]);
        liar.send("sharereply", &reply_payload(request.id, &[]));
        // It is not requested repeatedly.
        let again = liar.try_wait_for(Duration::from_secs(5), |frame| frame.command == "sharereq");
        assert!(again.is_err(), "it is asked again for what it does not have");
        arena.check_service();
    });
}
