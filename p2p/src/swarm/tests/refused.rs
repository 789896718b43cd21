//! Shares that this node refuses and honest nodes pass on: up to a number an hour they cost their senders nothing.

use super::*;

fn lax() -> World {
    World::new(|config| config.has_laxer_nodes = true, 1)
}

/// Has `count` different shares from `source` refused; true if a connection was closed for it.
fn refuse(world: &mut World, source: SocketAddr, count: u8) -> bool {
    for number in 0..count {
        world.swarm.handle_refused(ShareHash([number; 32]), Some(source), "bits is 1 and should be 2", world.now);
    }
    let closed = world.done().into_iter().filter(|action| match action {
        Action::Disconnect(_, close) => {
            assert_eq!(close, &Close::Refusals(300));
            true
        }
        _ => false,
    });
    closed.count() > 0
}

/// Accepts or refuses a connection, and closes it again.
fn is_let_in(world: &mut World, from: SocketAddr) -> bool {
    match world.swarm.handle_incoming(from, world.now) {
        Ok(peer) => {
            world.swarm.handle_closed(peer, &Close::Quiet("bye".into()), world.now);
            true
        }
        Err(refused) => {
            assert_eq!(refused, Refused::Refusals);
            false
        }
    }
}

/// Dials until this many nodes are connected, or for a minute.
fn dial(world: &mut World, wanted: usize) -> BTreeSet<SocketAddr> {
    for _ in 0..60 {
        for (address, kind) in dialed(&world.pass(SECOND)) {
            let peer = world.swarm.handle_dialed(address, kind, world.now);
            let hello = world.hello(None);
            world.event(peer, PeerEvent::Connected(hello));
        }
        if world.swarm.status(world.now).outgoing >= wanted {
            break;
        }
    }
    world.swarm.status(world.now).peers.iter().map(|peer| peer.address).collect()
}

#[test]
fn three_hundred_an_hour_are_tolerated_and_then_the_peer_is_away_for_an_hour_without_a_ban() {
    let mut world = lax();
    world.accept(host(1));
    assert!(!refuse(&mut world, host(1), 200) && !refuse(&mut world, host(1), 100));
    assert!(refuse(&mut world, host(1), 1));
    assert_eq!((world.swarm.status(world.now).peers.len(), world.swarm.list_bans(world.now)), (0, Vec::new()));
    assert!(!is_let_in(&mut world, host(1)), "another port gains nothing");
    assert!(!is_let_in(&mut world, at("9.1.0.77:5000")), "nor does another address of its network");
    assert!(is_let_in(&mut world, host(2)));
    world.pass(SECOND * 3600);
    assert!(is_let_in(&mut world, host(1)));
}

#[test]
fn the_count_outlives_connections_and_shares_of_a_peer_that_has_left_count() {
    let mut world = lax();
    for number in 0..6 {
        let address = at(&format!("9.1.0.{number}:500{number}"));
        let peer = world.accept(address);
        assert!(!refuse(&mut world, address, 25));
        world.swarm.handle_closed(peer, &Close::Quiet("bye".into()), world.now);
        assert!(!refuse(&mut world, address, 25));
    }
    assert!(is_let_in(&mut world, host(1)));
    refuse(&mut world, host(1), 1);
    assert!(!is_let_in(&mut world, host(1)));
}

#[test]
fn the_whitelist_and_nodes_of_the_operator_stay() {
    let mut world = World::new(
        |config| {
            config.has_laxer_nodes = true;
            config.whitelist = vec!["9.1.0.0/16".parse().unwrap()];
        },
        1,
    );
    world.accept(host(1));
    world.swarm.set_permanent(&[host(2)], world.now);
    dial(&mut world, 1);
    for _ in 0..4 {
        assert!(!refuse(&mut world, host(1), 200) && !refuse(&mut world, host(2), 200));
    }
    assert_eq!(world.swarm.status(world.now).peers.len(), 2);
}

#[test]
fn of_dialled_nodes_beyond_the_limit_three_stay_and_others_take_the_places_of_the_rest() {
    let mut world = lax();
    (1..=20).for_each(|number| world.swarm.add_bootstrap(host(number), world.now));
    let before = dial(&mut world, 6);
    assert!(before.len() >= 6);
    // A miner whose shares only this node refuses: every node passes them on.
    let mut closed = 0;
    for address in &before {
        assert!(!refuse(&mut world, *address, 200) && !refuse(&mut world, *address, 100));
        closed += usize::from(refuse(&mut world, *address, 1));
    }
    assert_eq!(closed, before.len() - 3);
    let after = dial(&mut world, 6);
    assert!(after.len() >= 6 && after.intersection(&before).count() == 3, "{before:?} {after:?}");
    // Neighbours of a dialled node cannot have it closed.
    let new = *after.difference(&before).next().unwrap();
    let neighbour = SocketAddr::new(format!("{}7", new.ip()).parse().unwrap(), 5000);
    refuse(&mut world, neighbour, 200);
    refuse(&mut world, neighbour, 200);
    assert!(!refuse(&mut world, new, 1));
}

#[test]
fn nodes_beyond_the_limit_are_dialled_where_there_are_no_others() {
    let mut world = lax();
    world.swarm.add_bootstrap(host(1), world.now);
    dial(&mut world, 1);
    refuse(&mut world, host(1), 200);
    assert!(!refuse(&mut world, host(1), 200), "it is the only one");
    let peer = world.swarm.status(world.now).peers[0].id;
    world.swarm.handle_closed(peer, &Close::Quiet("lost".into()), world.now);
    world.pass(SECOND * 60);
    assert_eq!(dial(&mut world, 1).len(), 1);
}
