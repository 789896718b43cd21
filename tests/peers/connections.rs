//! Too many connections, and reconnecting banned peers.

use test_support::{Hello, PeerClient, PeerError, wait_until};

use crate::arena::{AT_ONCE, Arena, address_of, arena};

/// Maximum connections from one /16 (protocol section 3.6).
const PER_GROUP: usize = 3;

fn is_let_in(peer: &mut PeerClient) -> bool {
    peer.say_hello(&Hello::default());
    peer.next_frame(AT_ONCE) != Err(PeerError::Disconnected)
}

fn offend(arena: &Arena, number: u8) {
    let mut hasty = arena.stranger(number);
    hasty.send("ping", &[]);
    arena.check_ban(&mut hasty, "no_version");
}

#[test]
fn two_hundred_connections_from_one_address_are_not_let_in() {
    arena(&[], |arena| {
        let mut crowd: Vec<PeerClient> = (0..200).map(|_| arena.stranger(1)).collect();
        let let_in = crowd.iter_mut().filter_map(|peer| is_let_in(peer).then_some(())).count();
        assert_eq!(let_in, PER_GROUP);
        arena.check_service();
        drop(crowd);
        wait_until("there is room again", AT_ONCE, || is_let_in(&mut arena.stranger(1)));
    });
}

#[test]
fn as_many_peers_as_there_is_room_for_are_let_in() {
    arena(&["--max-conns", "10"], |arena| {
        // The honest peer is one of the ten.
        let mut peers: Vec<PeerClient> = (1..=12).map(|number| arena.stranger(number)).collect();
        let let_in = peers.iter_mut().filter_map(|peer| is_let_in(peer).then_some(())).count();
        assert_eq!(let_in, 9);
        peers.truncate(5);
        wait_until("there is room again", AT_ONCE, || is_let_in(&mut arena.stranger(20)));
    });
}

#[test]
fn a_ban_outlives_a_restart() {
    arena(&[], |arena| {
        offend(arena, 1);
        assert!(arena.node.terminate().status.success());
        arena.node.restart();
        arena.meet_again();
        let again = PeerClient::connect_from(address_of(1), arena.node.pool_address(), arena.prefix());
        assert!(again.map_or(true, |mut again| !is_let_in(&mut again)), "the ban is forgotten");
    });
}

#[test]
fn a_ban_is_of_one_address_and_not_of_its_neighbours() {
    arena(&[], |arena| {
        offend(arena, 1);
        assert!(is_let_in(&mut arena.stranger(2)));
    });
}

#[test]
fn whoever_is_on_the_whitelist_is_sent_away_and_not_banned() {
    arena(&["--whitelist", "9.1.0.0/16"], |arena| {
        let mut friendly = arena.stranger(1);
        friendly.send("ping", &[]);
        assert!(friendly.disconnected_within(AT_ONCE), "the connection stands");
        assert!(is_let_in(&mut arena.stranger(1)), "it is banned");
    });
}
