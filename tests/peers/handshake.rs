//! First messages, and peers that send none.

use std::time::{Duration, Instant};
use test_support::Hello;
use test_support::peer_client::frame_with;

use crate::arena::{AT_ONCE, arena};

/// Time limit for `version`, with some margin.
const HANDSHAKE: Duration = Duration::from_secs(14);

#[test]
fn a_peer_that_says_nothing_is_sent_away_after_ten_seconds() {
    arena(&[], |arena| {
        let start = Instant::now();
        let mut silent = arena.stranger(1);
        arena.check_disconnect(&mut silent, HANDSHAKE);
        assert!(start.elapsed() > Duration::from_secs(9), "it had only {:?}", start.elapsed());
    });
}

#[test]
fn a_version_that_trickles_in_is_not_waited_for() {
    arena(&[], |arena| {
        let mut slow = arena.stranger(1);
        let hello = Hello::default().payload(slow.remote(), slow.local());
        let bytes = test_support::peer_client::frame(arena.prefix(), "version", &hello);
        let start = Instant::now();
        // Ten bytes per second: the whole message would take 14 s.
        for part in bytes.chunks(5) {
            if !slow.send_bytes(part) || slow.disconnected_within(Duration::from_millis(500)) {
                break;
            }
        }
        assert!(start.elapsed() < HANDSHAKE, "it was waited for");
        arena.check_disconnect(&mut slow, AT_ONCE);
    });
}

#[test]
fn a_ping_before_the_version_is_an_offence() {
    arena(&[], |arena| {
        let mut hasty = arena.stranger(1);
        hasty.send("ping", &[]);
        arena.check_ban(&mut hasty, "no_version");
    });
}

#[test]
fn a_protocol_that_is_too_old_ends_the_connection_without_a_ban() {
    arena(&[], |arena| {
        let mut old = arena.stranger(1);
        old.say_hello(&Hello { version: 1400, ..Hello::default() });
        assert!(old.disconnected_within(AT_ONCE), "the connection stands");
        arena.check_offence("too_old");
        // It may be upgraded before its next connection.
        arena.acquaintance(1);
    });
}

#[test]
fn a_second_version_is_an_offence() {
    arena(&[], |arena| {
        let mut twice = arena.acquaintance(1);
        twice.say_hello(&Hello::default());
        arena.check_ban(&mut twice, "second_version");
    });
}

#[test]
fn a_version_that_cannot_be_read_ends_the_connection() {
    arena(&[], |arena| {
        let mut long = arena.stranger(1);
        let mut payload = Hello::default().payload(long.remote(), long.local());
        payload.push(0);
        long.send("version", &payload);
        arena.check_disconnect(&mut long, AT_ONCE);

        let mut short = arena.stranger(2);
        short.send("version", &payload[..50]);
        arena.check_disconnect(&mut short, AT_ONCE);

        // Text with a length beyond the end of the message.
        let mut lying = arena.stranger(3);
        payload.pop();
        payload[72] = 0xfc;
        lying.send("version", &payload);
        arena.check_disconnect(&mut lying, AT_ONCE);
    });
}

#[test]
fn a_name_cannot_command_the_operators_terminal() {
    arena(&["--debug"], |arena| {
        let mut named = arena.stranger(1);
        let name = format!("evil\\name\u{1b}[2J\n{}", "x".repeat(500));
        named.shake_hands(&Hello { sub_version: name, ..Hello::default() });
        arena.check_tolerated(&mut named);
        assert!(!arena.node.log().contains("[2J\n"), "the name is logged as it is");
        assert!(!arena.node.log().contains("\u{1b}[2J"), "the name is logged as it is");
        arena.node.wait_for_log("software=evil\\name\u{fffd}[2J\u{fffd}xxx", AT_ONCE);
    });
}

#[test]
fn a_peer_that_is_connected_already_is_not_connected_twice() {
    arena(&[], |arena| {
        let hello = Hello::default();
        let mut first = arena.stranger(1);
        first.shake_hands(&hello);
        // The node sends its greeting at once: this message follows only ours, so the second one cannot overtake it.
        first.wait_for("ping");
        let mut second = arena.stranger(2);
        second.say_hello(&hello);
        // Only the greeting: a reference node that closed on our `version` bans for a ping that it reads with it.
        let words = std::iter::from_fn(|| second.next_frame(AT_ONCE).ok().map(|frame| frame.command));
        assert_eq!(words.collect::<Vec<_>>(), ["version"]);
        arena.check_disconnect(&mut second, AT_ONCE);
        arena.check_tolerated(&mut first);
    });
}

#[test]
fn a_node_that_reaches_itself_hangs_up_and_bans_nobody() {
    arena(&["-n", "9.0.0.1:9333"], |arena| {
        // And one that only pretends to be this node.
        let mut mirror = arena.stranger(1);
        let mine = Hello::parse(&mirror.wait_for("version"));
        mirror.say_hello(&mine);
        arena.check_disconnect(&mut mirror, AT_ONCE);
        std::thread::sleep(Duration::from_secs(3));
        arena.check_tolerated(&mut arena.acquaintance(2));
    });
}

#[test]
fn a_message_of_no_known_kind_before_the_version_is_passed_over() {
    arena(&[], |arena| {
        let mut odd = arena.stranger(1);
        odd.send("hello", b"anything");
        odd.send_bytes(&frame_with(arena.prefix(), "\u{7f}", 0, [0x5d, 0xf6, 0xe0, 0xe2], &[]));
        odd.shake_hands(&Hello::default());
        arena.check_tolerated(&mut odd);
    });
}
