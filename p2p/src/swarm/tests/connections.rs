//! Connections: who is let in, dialled, banned and closed.

use super::*;
use crate::bans::NotBanned;

#[test]
fn no_more_come_in_than_there_is_room_for_and_three_of_a_neighbourhood() {
    let mut world = World::new(|config| config.incoming_max = 5, 1);
    for number in 0..3 {
        world.swarm.handle_incoming(at(&format!("9.9.{number}.1:5")), world.now).unwrap();
    }
    assert_eq!(world.swarm.handle_incoming(at("9.9.77.1:5"), world.now), Err(Refused::Group));
    world.swarm.handle_incoming(host(1), world.now).unwrap();
    let last = world.swarm.handle_incoming(host(2), world.now).unwrap();
    assert_eq!(world.swarm.handle_incoming(host(3), world.now), Err(Refused::Full(5)));
    world.swarm.handle_closed(last, &Close::Quiet("bye".into()), world.now);
    world.swarm.handle_incoming(host(3), world.now).unwrap();
}

#[test]
fn this_machine_and_its_network_are_no_neighbourhood() {
    let mut world = World::usual();
    for number in 0..9 {
        world.swarm.handle_incoming(at(&format!("127.0.0.1:{}", 5000 + number)), world.now).unwrap();
        world.swarm.handle_incoming(at(&format!("192.168.0.{number}:5000")), world.now).unwrap();
    }
}

#[test]
fn the_whitelist_is_let_in_beyond_all_limits_and_takes_nobodys_place() {
    let friend = at("9.9.9.9:5");
    let mut world = World::new(
        |config| {
            config.incoming_max = 1;
            config.whitelist.push(friend.ip().into());
        },
        1,
    );
    for _ in 0..5 {
        world.swarm.handle_incoming(friend, world.now).unwrap();
    }
    world.swarm.handle_incoming(host(1), world.now).unwrap();
    assert_eq!(world.swarm.handle_incoming(host(2), world.now), Err(Refused::Full(1)));
    let peer = world.swarm.handle_incoming(friend, world.now).unwrap();
    world.swarm.handle_closed(peer, &Close::Offence(Offence::SecondVersion), world.now);
    world.swarm.handle_incoming(friend, world.now).unwrap();
}

#[test]
fn an_offender_is_banned_for_the_offences_time_and_this_machine_never() {
    let mut world = World::usual();
    let peer = world.accept(host(1));
    world.swarm.handle_closed(peer, &Close::Offence(Offence::SecondVersion), world.now);
    assert_eq!(world.swarm.handle_incoming(host(1), world.now), Err(Refused::Banned));
    assert_eq!(world.swarm.status(world.now).banned[0].reason, "a second `version`");
    world.pass(SECOND * 3601);
    world.swarm.handle_incoming(host(1), world.now).unwrap();
    let peer = world.accept(at("127.0.0.1:7"));
    world.swarm.handle_closed(peer, &Close::Offence(Offence::SecondVersion), world.now);
    world.swarm.handle_incoming(at("127.0.0.1:7"), world.now).unwrap();
}

#[test]
fn one_address_of_each_neighbourhood_is_dialed_until_there_are_enough() {
    let mut world = World::usual();
    for number in 0..10 {
        for last in 1..4 {
            world.swarm.add_bootstrap(at(&format!("9.{number}.0.{last}:9333")), world.now);
        }
    }
    let mut groups = BTreeSet::new();
    let mut seconds = 0;
    while world.swarm.status(world.now).outgoing < 6 {
        seconds += 1;
        assert!(seconds < 60, "too few after a minute");
        for (address, kind) in dialed(&world.pass(SECOND)) {
            assert!(groups.insert(Group::of(address.ip())), "{address} is of a group that was dialed");
            let peer = world.swarm.handle_dialed(address, kind, world.now);
            let hello = world.hello(None);
            world.event(peer, PeerEvent::Connected(hello));
        }
    }
    // From now on, one dial at a time makes room for another node now and then.
    assert!(dialed(&world.pass(SECOND)).len() <= 1);
    // Dials in progress at that moment come on top.
    assert!((6..=7).contains(&world.swarm.status(world.now).outgoing));
}

#[test]
fn no_more_than_thirty_attempts_are_made_at_a_time() {
    let mut world = World::usual();
    for number in 0..=255 {
        world.swarm.add_bootstrap(host(number), world.now);
    }
    assert_eq!(dialed(&world.pass(SECOND * 300)).len(), 30);
    assert_eq!(world.swarm.status(world.now).dialing, 30);
}

#[test]
fn an_address_that_does_not_answer_is_tried_ever_less_often() {
    let mut world = World::usual();
    world.swarm.add_bootstrap(host(1), world.now);
    let mut times = Vec::new();
    for _ in 0..3600 {
        for (address, _) in dialed(&world.pass(SECOND)) {
            world.swarm.handle_dial_failed(address, world.now);
            times.push(world.now.instant);
        }
    }
    assert!((5..=7).contains(&times.len()), "{} tries in an hour", times.len());
    assert!(times.windows(3).all(|three| three[2] - three[1] > (three[1] - three[0]).mul_f64(1.5)));
}

#[test]
fn permanent_nodes_are_dialed_for_ever_and_soon_again_after_a_success() {
    let mut world = World::new(|config| config.outgoing_wanted = 0, 1);
    world.swarm.set_permanent(&[at("127.0.0.1:9333")], world.now);
    let mut pauses = Vec::new();
    let mut last = world.now.instant;
    for _ in 0..3000 {
        for (address, kind) in dialed(&world.pass(SECOND)) {
            assert_eq!(kind, DialKind::Permanent);
            pauses.push((world.now.instant - last).as_secs());
            last = world.now.instant;
            world.swarm.handle_dial_failed(address, world.now);
        }
    }
    assert!(pauses.len() > 12 && pauses.iter().all(|pause| *pause <= 361), "{pauses:?}");
    let (address, kind) = loop {
        if let Some(dial) = dialed(&world.pass(SECOND)).first() {
            break *dial;
        }
    };
    let peer = world.swarm.handle_dialed(address, kind, world.now);
    world.greet(peer);
    assert!(dialed(&world.pass(SECOND * 1000)).is_empty(), "connected");
    world.swarm.handle_closed(peer, &Close::Quiet("bye".into()), world.now);
    assert_eq!(dialed(&world.pass(SECOND * 2)).len(), 1);
}

#[test]
fn a_second_connection_to_a_peer_is_ended_without_a_word() {
    let mut world = World::usual();
    let hello = world.hello(None);
    let first = world.swarm.handle_incoming(host(1), world.now).unwrap();
    world.event(first, PeerEvent::Connected(hello.clone()));
    let second = world.swarm.handle_incoming(host(2), world.now).unwrap();
    // The reference bans for a ping that arrives together with the `version` that reveals the second connection.
    let actions = world.event(second, PeerEvent::Connected(hello));
    assert!(matches!(actions[..], [Action::Disconnect(peer, Close::Quiet(_))] if peer == second), "{actions:?}");
    assert_eq!(world.swarm.book.len(), 0, "the remote port is not a listening port");
}

#[test]
fn the_address_of_a_peer_that_called_us_is_kept_though_it_hangs_up_on_us_there() {
    let mut world = World::usual();
    world.swarm.add_bootstrap(host(1), world.now);
    world.accept(SocketAddr::new(host(1).ip(), 50_000));
    let mut calls = 0;
    for _ in 0..3 * 86_400 / 60 {
        for (address, kind) in dialed(&world.pass(SECOND * 60)) {
            let peer = world.swarm.handle_dialed(address, kind, world.now);
            world.swarm.handle_closed(peer, &Close::Quiet("connection lost".into()), world.now);
            calls += 1;
        }
    }
    assert!((10..=80).contains(&calls), "{calls} calls in three days");
    assert_eq!(world.swarm.book.len(), 1);
}

#[test]
fn we_do_not_call_ourselves_twice() {
    let mut world = World::usual();
    world.swarm.set_permanent(&[host(2)], world.now);
    world.swarm.add_bootstrap(host(1), world.now);
    let dials = dialed(&world.pass(SECOND * 9));
    assert_eq!(dials.len(), 2);
    for (address, kind) in dials {
        let peer = world.swarm.handle_dialed(address, kind, world.now);
        world.swarm.handle_closed(peer, &Close::Ourselves, world.now);
    }
    let gossip = world.accept(host(3));
    world.event(gossip, PeerEvent::Addresses(vec![record(host(1)), record(host(2))]));
    assert!(dialed(&world.pass(SECOND * 5000)).is_empty());
    assert!(world.swarm.list_bans(world.now).is_empty());
}

#[test]
fn an_old_node_is_left_alone_for_hours_and_not_banned() {
    let mut world = World::usual();
    world.swarm.add_bootstrap(host(1), world.now);
    let (address, kind) = dialed(&world.pass(SECOND * 9))[0];
    let peer = world.swarm.handle_dialed(address, kind, world.now);
    let close = Close::Offence(Offence::TooOld { version: 1300, minimum: 1400 });
    world.swarm.handle_closed(peer, &close, world.now);
    assert!(world.swarm.list_bans(world.now).is_empty());
    assert!(dialed(&world.pass(SECOND * 5 * 3600)).is_empty());
    assert_eq!(dialed(&world.pass(SECOND * 2 * 3600)).len(), 1);
}

#[test]
fn the_later_of_two_connections_to_one_node_is_closed_without_a_ban() {
    let mut world = World::usual();
    let first = world.swarm.handle_incoming(host(1), world.now).unwrap();
    let second = world.swarm.handle_incoming(host(2), world.now).unwrap();
    let hello = world.hello(None);
    world.event(first, PeerEvent::Connected(hello.clone()));
    let actions = world.event(second, PeerEvent::Connected(hello));
    assert!(matches!(actions[..], [Action::Disconnect(peer, Close::Quiet(_))] if peer == second), "{actions:?}");
    assert!(world.swarm.list_bans(world.now).is_empty());
    assert_eq!(world.swarm.status(world.now).peers.len(), 1);
    assert!(world.event(second, PeerEvent::Shares(Vec::new())).is_empty(), "the peer is gone");
}

#[test]
fn the_operator_bans_peers_out_and_files_come_back() {
    let mut world = World::usual();
    let peer = world.accept(host(1));
    world.swarm.ban(host(1).ip(), 60.0, "because", world.now).unwrap();
    assert!(matches!(world.done()[..], [Action::Disconnect(gone, Close::Quiet(_))] if gone == peer));
    assert!(matches!(world.swarm.ban(at("127.0.0.1:1").ip(), 60.0, "", world.now), Err(NotBanned::Loopback(_))));
    let json = world.swarm.take_changed_bans_json().unwrap();
    world.swarm.add_bootstrap(host(5), world.now);
    let addresses = world.swarm.addresses_json();
    let mut again = World::usual();
    assert!(again.swarm.load_bans(&json, again.now).is_empty());
    assert!(again.swarm.load_addresses(&addresses, again.now).is_empty());
    assert_eq!(again.swarm.handle_incoming(host(1), again.now), Err(Refused::Banned));
    assert_eq!(again.swarm.status(again.now).addresses, 1);
    assert!(again.swarm.unban(host(1).ip()));
    again.swarm.handle_incoming(host(1), again.now).unwrap();
}
