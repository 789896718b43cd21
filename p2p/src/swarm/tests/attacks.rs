//! Attacks by peers, each with the bound that limits what it costs us or honest peers.

use sharechain::merkle::Digest;
use sharechain::share::ShareRules;
use std::cell::Cell;
use std::net::Ipv4Addr;

use super::memory::PREFIX;
use super::*;
use crate::message::{Message, WrappedShare};
use crate::test_shares::{extend, rules};

thread_local! {
    /// Number of proofs of work computed by this test.
    static HASHED: Cell<usize> = const { Cell::new(0) };
}

fn counted_rules() -> ShareRules {
    fn pow(_: &[u8; 80]) -> Digest {
        HASHED.set(HASHED.get() + 1);
        [0; 32]
    }
    ShareRules { pow, ..rules() }
}

fn wrapped(shares: &[Arc<Share>]) -> Message {
    Message::Shares(shares.iter().map(|share| WrappedShare::of(share)).collect())
}

/// Banned addresses, and for how many seconds.
fn bans(world: &World) -> Vec<(IpAddr, f64)> {
    world.swarm.list_bans(world.now).iter().map(|ban| (ban.address, (ban.until - world.now.unix).round())).collect()
}

#[test]
fn a_flood_of_shares_costs_three_thousand_proofs_of_work_and_a_hundred_a_second_however_often_its_network_connects() {
    let mut world = World::usual();
    let flood = chain(4_200, 0, USUAL);
    let messages: Vec<_> = flood.chunks(100).map(|some| wrapped(some).to_frame(PREFIX)).collect();
    HASHED.set(0);
    let mut next = messages.iter().cycle();
    for number in 1..200 {
        // Each time another address of the network, since the first one is banned.
        let mut line = world.open(at(&format!("9.9.9.{number}:5000")), counted_rules());
        while next.next().is_some_and(|frame| world.feed(&mut line, frame).is_ok()) {}
    }
    assert_eq!(HASHED.get(), 3_000);
    world.pass(SECOND * 10);
    for number in 200..250 {
        let mut line = world.open(at(&format!("9.9.9.{number}:5000")), counted_rules());
        assert!(messages[31..].iter().any(|frame| world.feed(&mut line, frame).is_err()));
    }
    assert!(HASHED.get() <= 4_000, "{}", HASHED.get());
    // Other networks are not concerned.
    let mut other = world.open(host(1), counted_rules());
    world.feed(&mut other, &messages[0]).unwrap();
}

#[test]
fn shares_of_our_chain_cost_no_proof_of_work_when_peers_send_them_back() {
    let mut world = World::usual();
    let ours = chain(100, 0, USUAL);
    ours.iter().for_each(|share| world.swarm.handle_accepted(share));
    HASHED.set(0);
    for number in 1..5 {
        let mut line = world.open(host(number), counted_rules());
        for _ in 0..20 {
            world.say(&mut line, &wrapped(&ours)).unwrap();
        }
    }
    assert_eq!(HASHED.get(), 0);
}

#[test]
fn a_flood_behind_this_machines_address_is_cut_off_again_and_again_and_never_banned() {
    let mut world = World::usual();
    let flood = chain(3_100, 0, USUAL);
    let messages: Vec<_> = flood.chunks(100).map(|some| wrapped(some).to_frame(PREFIX)).collect();
    let tunnel = at("127.0.0.1:5000");
    let mut sent = 0;
    for _ in 0..20 {
        let mut line = world.open(tunnel, rules());
        sent += messages.iter().take_while(|frame| world.feed(&mut line, frame).is_ok()).count();
    }
    // Eight times as much as one peer, for there may be several behind it.
    assert!((230..=240).contains(&sent), "{sent}");
    assert!(bans(&world).is_empty());
    world.pass(SECOND);
    let mut honest = world.open(tunnel, rules());
    world.feed(&mut honest, &wrapped(&flood[..5]).to_frame(PREFIX)).unwrap();
}

#[test]
fn gossip_of_one_network_is_limited_however_often_it_connects() {
    let mut world = World::usual();
    world.accept(host(1));
    let mut passed_on = 0;
    for number in 0..50 {
        let gossip = world.accept(at(&format!("9.9.9.{number}:5000")));
        let records = (0..200).map(|last| record(at(&format!("7.{number}.{last}.1:9333")))).collect();
        passed_on += world.event(gossip, PeerEvent::Addresses(records)).len();
        world.swarm.handle_closed(gossip, &Close::Quiet("bye".into()), world.now);
    }
    assert!(passed_on <= 100, "{passed_on}");
    assert!(world.swarm.status(world.now).addresses <= 1_000);
}

#[test]
fn a_share_altered_where_nothing_commits_to_it_has_the_same_hash_and_nobody_is_blamed() {
    let mut world = World::usual();
    let share = extend(&chain(3, 0, USUAL), 1, 0, USUAL).remove(0);
    let mut contents = share.contents().clone();
    contents.merkle_branch = vec![[9; 32]; 100_000].into();
    let bytes = bytes::Bytes::from(sharechain::share::pack(&contents));
    let (version, inner) = sharechain::share::read_wrapped(&mut sharechain::pack::Reader::new(&bytes)).unwrap();
    let altered = Message::Shares(vec![WrappedShare { version, contents: bytes.slice_ref(inner) }]);
    HASHED.set(0);
    let received = |actions: Vec<Action>| {
        let of_peer = actions.into_iter().filter_map(|action| match action {
            Action::Shares { shares, .. } => Some(shares),
            _ => None,
        });
        of_peer.flatten().collect::<Vec<_>>()
    };
    let mut vandal = world.open(host(1), counted_rules());
    let mut honest = world.open(host(2), counted_rules());
    let first = received(world.say(&mut vandal, &altered).unwrap());
    let second = received(world.say(&mut honest, &wrapped(std::slice::from_ref(&share))).unwrap());
    assert_eq!((first[0].hash(), first[0].wire_bytes()), (share.hash(), share.wire_bytes()), "it is cut to size");
    assert_eq!((second, HASHED.get()), (vec![share], 1));
    assert!(bans(&world).is_empty());
}

#[test]
fn a_best_share_that_is_never_delivered_costs_one_request_to_the_peer_that_claims_it() {
    let mut world = World::usual();
    let honest = world.accept(host(1));
    let mut asked = Vec::new();
    for number in 2..40 {
        let liar = world.swarm.handle_incoming(host(number), world.now).unwrap();
        let hello = world.hello(Some(ShareHash([number; 32])));
        world.event(liar, PeerEvent::Connected(hello));
        world.swarm.handle_known(liar, ShareHash([number; 32]), false, world.now);
        let (peer, request, ..) = world.asked();
        world.event(peer, PeerEvent::Replied { request, shares: Ok(Vec::new()) });
        asked.push(peer);
    }
    let later = world.pass(SECOND * 3600);
    let is_request = |action: &&Action| matches!(action, Action::Order(_, Order::Request { .. }));
    assert_eq!(later.iter().filter(is_request).count(), 0);
    assert!(!asked.contains(&honest) && asked.len() == 38);
}

#[test]
fn an_honest_node_that_answers_with_a_share_that_others_made_invalid_is_away_for_half_a_minute() {
    let mut world = World::usual();
    let shares = chain(2, 0, USUAL);
    let honest = world.accept(host(1));
    world.wanted(shares[1].hash());
    let (peer, request, ..) = world.asked();
    assert_eq!(peer, honest);
    let answer = vec![shares[1].clone(), shares[0].clone()];
    world.event(honest, PeerEvent::Replied { request, shares: Ok(answer) });
    world.swarm.handle_refused(shares[1].hash(), Some(host(1)), "too much", world.now);
    assert_eq!(bans(&world), [(host(1).ip(), 30.0)]);
}

#[test]
fn whoever_offers_an_invalid_share_or_claims_it_as_its_best_is_away_for_an_hour() {
    let mut world = World::usual();
    let shares = chain(2, 0, USUAL);
    let pusher = world.accept(host(1));
    world.event(pusher, PeerEvent::Shares(vec![shares[0].clone()]));
    world.swarm.handle_refused(shares[0].hash(), Some(host(1)), "too much", world.now);
    let boaster = world.swarm.handle_incoming(host(2), world.now).unwrap();
    let hello = world.hello(Some(shares[1].hash()));
    world.event(boaster, PeerEvent::Connected(hello));
    world.swarm.handle_known(boaster, shares[1].hash(), false, world.now);
    let (_, request, ..) = world.asked();
    world.event(boaster, PeerEvent::Replied { request, shares: Ok(vec![shares[1].clone()]) });
    world.swarm.handle_refused(shares[1].hash(), Some(host(2)), "too much", world.now);
    assert_eq!(bans(&world), [(host(1).ip(), 3600.0), (host(2).ip(), 3600.0)]);
}

/// Address of an attacker with 64 addresses in each of eight /16 networks.
fn bought(number: u16) -> SocketAddr {
    let [group, last] = [number / 64, number % 64].map(|part| u8::try_from(part).unwrap());
    SocketAddr::new(Ipv4Addr::new(91, group, last, 1).into(), 9333)
}

#[test]
fn five_hundred_and_twelve_addresses_of_an_attacker_take_no_honest_place() {
    let mut world = World::usual();
    for number in 1..=20 {
        world.swarm.add_bootstrap(host(number), world.now);
    }
    let dial = |world: &mut World, time: Duration| {
        for (address, kind) in dialed(&world.pass(time)) {
            let peer = world.swarm.handle_dialed(address, kind, world.now);
            let hello = world.hello(None);
            world.event(peer, PeerEvent::Connected(hello));
        }
    };
    while world.swarm.status(world.now).outgoing < 6 {
        dial(&mut world, SECOND);
    }
    let outgoing = |world: &World| -> Vec<SocketAddr> {
        world.swarm.status(world.now).peers.iter().filter(|peer| !peer.is_incoming).map(|peer| peer.address).collect()
    };
    let before = outgoing(&world);
    // For four hours all of them connect, and announce nothing but each other.
    let (mut inside, mut attackers) = (Vec::new(), 0);
    for minute in 0..240_u16 {
        for number in 0..512 {
            if let Ok(peer) = world.swarm.handle_incoming(bought(number), world.now) {
                let hello = world.hello(None);
                world.event(peer, PeerEvent::Connected(hello));
                inside.push(peer);
            }
        }
        for peer in inside.clone() {
            let some = (0..100).map(|at| record(bought((at * 5 + minute * 7) % 512))).collect();
            world.event(peer, PeerEvent::Addresses(some));
        }
        dial(&mut world, SECOND * 60);
        attackers += outgoing(&world).iter().filter(|address| address.ip().to_string().starts_with("91.")).count();
    }
    assert_eq!(inside.len(), 8 * 3, "three of each of their networks are let in");
    let status = world.swarm.status(world.now);
    assert!(status.addresses <= 20 + 512, "{}", status.addresses);
    let after = outgoing(&world);
    assert_eq!(after[..5], before[..5], "all but the latest place stay with the nodes that had them");
    assert!(attackers <= 240, "an attacker had {attackers} of 1440 place-minutes");
    // Sixteen places are left for honest nodes that connect.
    for number in 100..116 {
        world.accept(host(number));
    }
}
