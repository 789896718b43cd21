//! Bytes that are not messages, or messages with false lengths.

use std::time::Duration;
use test_support::Hello;
use test_support::peer_client::{frame, frame_with};

use crate::arena::{AT_ONCE, arena};

/// First bytes of the checksum of no bytes.
const OF_NOTHING: [u8; 4] = [0x5d, 0xf6, 0xe0, 0xe2];

/// Maximum growth of the node's memory by an attempt.
const MEMORY_GAIN_MAX: u64 = 24_000_000;

fn noise(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    bytes.fill_with(|| fastrand::u8(..));
    bytes
}

#[test]
fn a_stranger_who_only_makes_noise_is_sent_away() {
    arena(&[], |arena| {
        let mut noisy = arena.stranger(1);
        noisy.send_bytes(&noise(1_000_000));
        arena.check_disconnect(&mut noisy, Duration::from_secs(14));
    });
}

#[test]
fn noise_between_messages_is_passed_over() {
    arena(&[], |arena| {
        let mut noisy = arena.acquaintance(1);
        noisy.send_bytes(&noise(100_000));
        noisy.send("sharereq", &test_support::ShareRequest::of([0; 32], 0).payload());
        noisy.wait_for("sharereply");
        arena.check_tolerated(&mut noisy);
    });
}

#[test]
fn a_wrong_checksum_is_an_offence() {
    arena(&[], |arena| {
        let mut broken = arena.acquaintance(1);
        broken.send_bytes(&frame_with(arena.prefix(), "ping", 0, [1, 2, 3, 4], &[]));
        arena.check_ban(&mut broken, "checksum");
        let mut stranger = arena.stranger(2);
        let hello = Hello::default().payload(stranger.remote(), stranger.local());
        let mut bytes = frame(arena.prefix(), "version", &hello);
        bytes[60] ^= 1;
        stranger.send_bytes(&bytes);
        arena.check_ban(&mut stranger, "checksum");
    });
}

#[test]
fn a_length_beyond_all_messages_is_passed_over_and_nothing_is_kept_for_it() {
    arena(&[], |arena| {
        let before = arena.node.memory_peak();
        let mut boaster = arena.acquaintance(1);
        for length in [32_000_001, u32::MAX] {
            boaster.send_bytes(&frame_with(arena.prefix(), "shares", length, OF_NOTHING, &[]));
        }
        boaster.send("sharereq", &test_support::ShareRequest::of([0; 32], 0).payload());
        boaster.wait_for("sharereply");
        arena.check_tolerated(&mut boaster);
        assert!(arena.node.memory_peak() < before + MEMORY_GAIN_MAX);
    });
}

#[test]
fn a_message_longer_than_its_kind_has_reason_to_be_is_passed_over_and_not_kept() {
    arena(&[], |arena| {
        let before = arena.node.memory_peak();
        for (number, command) in (1..).zip(["ping", "addrs", "getaddrs", "bestblock", "sharereq", "have_tx"]) {
            let mut boaster = arena.acquaintance(number);
            boaster.send(command, &vec![0; 9_000_000]);
            boaster.send("sharereq", &test_support::ShareRequest::of([0; 32], 0).payload());
            boaster.wait_for("sharereply");
            arena.check_tolerated(&mut boaster);
        }
        assert!(arena.node.memory_peak() < before + MEMORY_GAIN_MAX);
    });
}

#[test]
fn thirty_two_megabytes_of_no_known_kind_are_read_and_not_kept() {
    arena(&[], |arena| {
        let before = arena.node.memory_peak();
        let mut verbose = arena.acquaintance(1);
        verbose.send("novel", &vec![b'x'; 31_999_999]);
        verbose.send("sharereq", &test_support::ShareRequest::of([0; 32], 0).payload());
        verbose.wait_for("sharereply");
        arena.check_tolerated(&mut verbose);
        assert!(arena.node.memory_peak() < before + MEMORY_GAIN_MAX);
    });
}

#[test]
fn unfinished_messages_of_many_peers_take_little_memory() {
    arena(&[], |arena| {
        let before = arena.node.memory_peak();
        // Messages allowed without a request, without their last bytes.
        let body = vec![0; 3_999_000];
        let mut peers: Vec<_> = (1..=20).map(|number| arena.acquaintance(number)).collect();
        for peer in &mut peers {
            peer.send_bytes(&frame_with(arena.prefix(), "shares", 4_000_000, OF_NOTHING, &[]));
            peer.send_some(&body, Duration::from_secs(2));
        }
        arena.check_service();
        let gained = arena.node.memory_peak() - before;
        assert!(gained < 150_000_000, "it gained {gained} bytes");
    });
}

#[test]
fn messages_of_no_known_kind_are_passed_over() {
    arena(&[], |arena| {
        let mut modern = arena.acquaintance(1);
        for command in ["verack", "pong", "sendcmpct", "a", "longestname"] {
            modern.send(command, b"what future versions may say");
        }
        modern.send_bytes(&frame_with(arena.prefix(), "é", 0, OF_NOTHING, &[]));
        modern.send("sharereq", &test_support::ShareRequest::of([0; 32], 0).payload());
        modern.wait_for("sharereply");
        arena.check_tolerated(&mut modern);
    });
}

#[test]
fn payloads_that_cannot_be_read_end_the_connection() {
    arena(&[], |arena| {
        let payloads: [(&str, &[u8]); 6] = [
            ("ping", &[0]),
            ("addrme", &[1, 2, 3]),
            ("getaddrs", &[1]),
            ("addrs", &[2, 0]),
            ("sharereq", &[0; 40]),
            // A number that is not in its shortest form.
            ("shares", &[0xfd, 0, 0]),
        ];
        for (number, (command, payload)) in (1..).zip(payloads) {
            let mut careless = arena.acquaintance(number);
            careless.send(command, payload);
            arena.check_disconnect(&mut careless, AT_ONCE);
        }
    });
}

#[test]
fn counts_that_are_not_true_cost_no_memory() {
    arena(&[], |arena| {
        let before = arena.node.memory_peak();
        for (number, command) in (1..).zip(["addrs", "shares"]) {
            let mut liar = arena.acquaintance(number);
            liar.send(command, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
            assert!(liar.disconnected_within(AT_ONCE), "the connection stands after {command}");
        }
        // Where no share lists transactions, messages about them are not read.
        for (number, command) in (3..).zip(["have_tx", "remember_tx", "forget_tx", "losing_tx"]) {
            let mut liar = arena.acquaintance(number);
            liar.send(command, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
            arena.check_tolerated(&mut liar);
        }
        assert!(arena.node.memory_peak() < before + MEMORY_GAIN_MAX);
    });
}

#[test]
fn a_peer_that_closes_its_half_is_let_go() {
    arena(&[], |arena| {
        let mut leaving = arena.acquaintance(1);
        leaving.close_writing();
        arena.check_disconnect(&mut leaving, AT_ONCE);
    });
}
