//! Floods of messages that are harmless in small numbers.

use bitcoin::hashes::Hash;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use test_support::PeerClient;
use test_support::peer_client::{addresses_payload, frame, parse_addresses, shares_payload};

use crate::arena::{AT_ONCE, Arena, arena};

/// Addresses of an unused network.
fn addresses(count: u16) -> Vec<SocketAddr> {
    (0..count).map(|number| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)), 1024 + number)).collect()
}

/// Repeats a message until the node closes the connection, or half a minute has passed.
fn repeat(peer: &mut PeerClient, message: &[u8]) {
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until && peer.send_some(message, AT_ONCE) == message.len() {}
}

#[test]
fn addresses_without_end_are_an_offence() {
    arena(&[], |arena| {
        let mut gossip = arena.acquaintance(1);
        repeat(&mut gossip, &frame(arena.prefix(), "addrs", &addresses_payload(&addresses(1000), 1_700_000_000)));
        arena.check_ban(&mut gossip, "too_fast");
    });
}

#[test]
fn one_message_with_too_many_addresses_is_passed_over() {
    arena(&[], |arena| {
        let mut gossip = arena.acquaintance(1);
        gossip.send("addrs", &addresses_payload(&addresses(1001), 1_700_000_000));
        arena.check_tolerated(&mut gossip);
    });
}

#[test]
fn questions_for_addresses_without_end_are_an_offence() {
    arena(&[], |arena| {
        let mut curious = arena.acquaintance(1);
        repeat(&mut curious, &frame(arena.prefix(), "getaddrs", &100_u32.to_le_bytes()));
        arena.check_ban(&mut curious, "too_fast");
    });
}

#[test]
fn a_question_for_addresses_is_answered_with_a_hundred_at_most() {
    arena(&["--outgoing-conns", "0"], |arena| {
        let mut gossip = arena.acquaintance(1);
        gossip.send("addrs", &addresses_payload(&addresses(300), 1_700_000_000));
        // The response follows them, so they were processed.
        gossip.ask_for_shares(&test_support::ShareRequest::of([0; 32], 0));
        let mut curious = arena.acquaintance(2);
        curious.send("getaddrs", &u32::MAX.to_le_bytes());
        let told = curious
            .try_wait_for(AT_ONCE, |frame| frame.command == "addrs" && parse_addresses(&frame.payload).len() > 1);
        let told = parse_addresses(&told.expect("an answer").payload);
        assert!(told.len() <= 100, "{} addresses", told.len());
        arena.check_tolerated(&mut gossip);
        arena.check_tolerated(&mut curious);
    });
}

#[test]
fn advertisements_without_end_are_ignored_and_then_end_the_connection() {
    arena(&[], |arena| {
        let mut vain = arena.acquaintance(1);
        repeat(&mut vain, &frame(arena.prefix(), "addrme", &9333_u16.to_le_bytes()).repeat(100));
        // A node passes on what others send it, so it is not to blame.
        arena.check_disconnect(&mut vain, AT_ONCE);
    });
}

#[test]
fn pings_without_end_are_an_offence() {
    arena(&[], |arena| {
        let mut nervous = arena.acquaintance(1);
        repeat(&mut nervous, &frame(arena.prefix(), "ping", &[]).repeat(100));
        arena.check_ban(&mut nervous, "too_fast");
    });
}

#[test]
fn noise_without_end_is_an_offence() {
    arena(&[], |arena| {
        let mut noisy = arena.acquaintance(1);
        repeat(&mut noisy, &vec![0x5a; 1_000_000]);
        arena.check_ban(&mut noisy, "too_fast");
    });
}

#[test]
fn a_flood_goes_on_where_it_was_when_its_network_connects_again() {
    arena(&[], |arena| {
        let tip = arena.mine_many(4);
        let known = arena.fetch(tip);
        let hundred: Vec<Vec<u8>> = known.into_iter().cycle().take(100).collect();
        let message = frame(arena.prefix(), "shares", &shares_payload(&hundred));
        let mut first = arena.acquaintance(1);
        for _ in 0..29 {
            assert_eq!(first.send_some(&message, AT_ONCE), message.len());
        }
        first.ask_for_shares(&test_support::ShareRequest::of([0; 32], 0));
        drop(first);
        // Three thousand at once, and a hundred a second.
        let mut again = arena.acquaintance(1);
        for _ in 0..25 {
            again.send_some(&message, AT_ONCE);
        }
        arena.check_disconnect(&mut again, AT_ONCE);
    });
}

#[test]
fn shares_without_end_are_an_offence() {
    arena(&[], |arena| {
        let tip = arena.mine_many(4);
        let known = arena.fetch(tip);
        let mut echo = arena.acquaintance(1);
        let hundred: Vec<Vec<u8>> = known.into_iter().cycle().take(100).collect();
        repeat(&mut echo, &frame(arena.prefix(), "shares", &shares_payload(&hundred)));
        arena.check_ban(&mut echo, "too_fast");
    });
}

/// Header on top of the daemon's best block, or of an unknown one, with the bits of its template and without work.
fn unproven(arena: &Arena, is_on_top: bool) -> [u8; 80] {
    let mut header = [0; 80];
    if is_on_top {
        header[4..36].copy_from_slice(&arena.daemon.best_block_hash().to_byte_array());
    }
    header[72..76].copy_from_slice(&0x1e03_77ae_u32.to_le_bytes());
    header
}

#[test]
fn a_best_block_without_its_proof_of_work_is_an_offence() {
    arena(&[], |arena| {
        let mut cheat = arena.acquaintance(1);
        cheat.send("bestblock", &unproven(arena, true));
        arena.check_ban(&mut cheat, "bad_best_block");
    });
}

#[test]
fn best_blocks_that_lead_nowhere_are_passed_over() {
    arena(&[], |arena| {
        let mut lost = arena.acquaintance(1);
        for _ in 0..5_000 {
            lost.send("bestblock", &unproven(arena, false));
        }
        lost.ask_for_shares(&test_support::ShareRequest::of([0; 32], 0));
        arena.check_tolerated(&mut lost);
    });
}

#[test]
fn a_best_block_that_is_too_easy_changes_nothing() {
    arena(&[], |arena| {
        let mut header = [0; 80];
        header[72..76].copy_from_slice(&0x2100_ffff_u32.to_le_bytes());
        let mut weak = arena.acquaintance(1);
        weak.send("bestblock", &header);
        let told = arena
            .friend
            .try_wait_for(Duration::from_secs(2), |frame| frame.command == "bestblock" && frame.payload == header);
        assert!(told.is_err(), "it is passed on");
        arena.check_tolerated(&mut weak);
    });
}
