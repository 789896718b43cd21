//! Exchange with connected peers: shares, blocks, requests, addresses and headers.

use super::*;
use crate::peer::RequestFailed;
use crate::test_shares::{answer, extend};

fn told_shares(actions: &[Action]) -> Vec<(PeerId, Vec<ShareHash>)> {
    let told = actions.iter().filter_map(|action| match action {
        Action::Order(peer, Order::Shares(shares)) => Some((*peer, shares.iter().map(|share| share.hash()).collect())),
        _ => None,
    });
    told.collect()
}

fn hashes(shares: &[Arc<Share>]) -> Vec<ShareHash> {
    shares.iter().map(|share| share.hash()).collect()
}

fn reversed(shares: &[Arc<Share>]) -> Vec<Arc<Share>> {
    shares.iter().rev().cloned().collect()
}

#[test]
fn an_unknown_best_share_is_asked_for_before_the_template_goes_out() {
    let mut world = World::usual();
    let shares = chain(3, 0, USUAL);
    let peer = world.swarm.handle_incoming(host(1), world.now).unwrap();
    let hello = world.hello(Some(shares[2].hash()));
    let actions = world.event(peer, PeerEvent::Connected(hello));
    let [Action::Order(_, Order::Keep), Action::Knows { hash, .. }] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(hash, shares[2].hash());
    world.swarm.handle_known(peer, shares[2].hash(), false, world.now);
    let actions = world.done();
    let [Action::Order(_, Order::Request { request, hashes, parents: 0, stops }), Action::Order(_, Order::Template(_))] =
        &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!((&hashes[..], &stops[..]), (&[shares[2].hash()][..], &[][..]));
    let event = PeerEvent::Replied { request: *request, shares: Ok(vec![shares[2].clone()]) };
    let actions = world.event(peer, event);
    assert!(actions.iter().any(|action| matches!(action, Action::Shares { peer, .. } if *peer == host(1))));
}

#[test]
fn a_best_share_that_we_have_is_not_asked_for() {
    let mut world = World::usual();
    let shares = chain(3, 0, USUAL);
    let peer = world.swarm.handle_incoming(host(1), world.now).unwrap();
    let hello = world.hello(Some(shares[2].hash()));
    world.event(peer, PeerEvent::Connected(hello));
    world.swarm.handle_known(peer, shares[2].hash(), true, world.now);
    let actions = world.done();
    assert!(matches!(actions[..], [Action::Order(_, Order::Template(_))]), "{actions:?}");
    // Nor is the owner asked about our own best share.
    world.swarm.handle_tip(&reversed(&shares), 3);
    world.done();
    let peer = world.swarm.handle_incoming(host(2), world.now).unwrap();
    let hello = world.hello(Some(shares[2].hash()));
    let actions = world.event(peer, PeerEvent::Connected(hello));
    let [Action::Order(_, Order::Keep), Action::Order(_, Order::Template(_))] = actions[..] else {
        panic!("{actions:?}")
    };
}

#[test]
fn a_new_tip_goes_to_all_peers_but_its_sender_newest_first_and_once() {
    let mut world = World::usual();
    let peers: Vec<PeerId> = (1..5).map(|number| world.accept(host(number))).collect();
    let shares = chain(4, 0, USUAL);
    world.swarm.mark_shared([shares[0].hash()]);
    let actions = world.event(peers[1], PeerEvent::Shares(vec![shares[2].clone(), shares[1].clone()]));
    assert!(matches!(&actions[..], [Action::Shares { peer, shares }] if *peer == host(2) && shares.len() == 2));
    world.swarm.handle_tip(&reversed(&shares), 4);
    let told = told_shares(&world.done());
    let news = vec![shares[3].hash(), shares[2].hash(), shares[1].hash()];
    let own = vec![shares[3].hash()];
    assert_eq!(
        told,
        [(peers[0], news.clone()), (peers[1], own), (peers[2], news.clone()), (peers[3], news)],
        "all but the one that was shared before, and to the sender what it did not send"
    );
    // The reference sends the message even if it is empty.
    let next = extend(&shares, 1, 0, USUAL);
    world.event(peers[0], PeerEvent::Shares(next.clone()));
    world.swarm.handle_tip(&[next[0].clone(), shares[3].clone()], 5);
    let told = told_shares(&world.done());
    assert_eq!(told[0], (peers[0], Vec::new()));
    assert!(told[1..].iter().all(|(_, told)| *told == hashes(&next)), "{told:?}");
}

#[test]
fn a_solved_block_is_told_at_once_or_when_its_height_is_known() {
    let mut world = World::usual();
    world.accept(host(1));
    let shares = chain(2, 0, USUAL);
    let mut parent =
        Parent { heights: Arc::default(), best_height: 800, previous_block: [1; 32], target: Target::MAX_256 };
    world.swarm.handle_parent(parent.clone());
    world.swarm.handle_block(&shares[0], world.now);
    assert!(told_shares(&world.done()).is_empty(), "the block may be old");
    parent.heights = Arc::new(HashMap::from([([7; 32], 796)]));
    world.swarm.handle_parent(parent.clone());
    assert_eq!(told_shares(&world.pass(SECOND * 6)).len(), 1);
    world.swarm.handle_block(&shares[1], world.now);
    assert_eq!(told_shares(&world.done()).len(), 1);
    assert!(told_shares(&world.pass(SECOND * 60)).is_empty(), "once is enough");
    parent.heights = Arc::new(HashMap::from([([7; 32], 795)]));
    world.swarm.handle_parent(parent);
    world.swarm.handle_block(&extend(&shares, 1, 0, USUAL)[0], world.now);
    assert!(told_shares(&world.pass(SECOND * 6)).is_empty(), "five blocks back is too old");
}

#[test]
fn whoever_answers_with_what_was_not_asked_for_is_banned_and_a_failure_costs_half_a_minute() {
    let mut world = World::usual();
    let shares = chain(5, 0, USUAL);
    world.accept(host(1));
    world.accept(host(2));
    world.wanted(shares[4].hash());
    let (peer, request, ..) = world.asked();
    let actions = world.event(peer, PeerEvent::Replied { request, shares: Ok(chain(2, 9, USUAL)) });
    // The other peer is asked at once.
    let [
        Action::Disconnect(_, Close::Offence(Offence::NotAsked(_))),
        Action::Order(peer, Order::Request { request, .. }),
    ] = actions[..]
    else {
        panic!("{actions:?}")
    };
    assert!(world.swarm.list_bans(world.now)[0].until > world.now.unix + 3599.0);
    let failed = RequestFailed::Refused(crate::message::ReplyResult::Reserved(2));
    let actions = world.event(peer, PeerEvent::Replied { request, shares: Err(failed) });
    assert!(matches!(actions[..], [Action::Disconnect(_, Close::Offence(Offence::RequestFailed(_)))]), "{actions:?}");
    let bans = world.swarm.list_bans(world.now);
    assert!((bans[1].until - world.now.unix - 30.0).abs() < 0.01, "{bans:?}");
}

#[test]
fn an_answer_that_would_be_too_long_costs_its_peer_nothing_and_is_asked_for_in_parts() {
    let mut world = World::usual();
    let shares = chain(5, 0, USUAL);
    let peer = world.accept(host(1));
    world.wanted(shares[4].hash());
    let (_, request, _, parents) = world.asked();
    let failed = RequestFailed::Refused(crate::message::ReplyResult::TooLong);
    let actions = world.event(peer, PeerEvent::Replied { request, shares: Err(failed) });
    let [Action::Order(again, Order::Request { parents: fewer, .. })] = actions[..] else { panic!("{actions:?}") };
    assert_eq!((again, fewer), (peer, parents / 2));
    assert!(world.swarm.list_bans(world.now).is_empty());
}

#[test]
fn who_sent_a_refused_share_is_banned_even_when_it_has_left() {
    let mut world = World::usual();
    let stays = world.accept(host(1));
    let leaves = world.accept(host(2));
    world.swarm.handle_closed(leaves, &Close::Quiet("bye".into()), world.now);
    for sender in [host(1), host(2)] {
        world.swarm.handle_refused(ShareHash([1; 32]), Some(sender), "too much", world.now);
        assert_eq!(world.swarm.handle_incoming(sender, world.now), Err(Refused::Banned));
    }
    let actions = world.done();
    assert!(matches!(actions[..], [Action::Disconnect(peer, Close::Offence(_))] if peer == stays), "{actions:?}");
    world.swarm.handle_refused(ShareHash([1; 32]), None, "our own", world.now);
}

#[test]
fn questions_are_answered_and_whoever_asks_without_waiting_is_disconnected() {
    let mut world = World::usual();
    let peer = world.accept(host(1));
    let asked = |number: u8| PeerEvent::Asked {
        id: [number; 32],
        hashes: vec![ShareHash([1; 32])],
        parents: 3,
        stops: Vec::new(),
    };
    let actions = world.event(peer, asked(0));
    assert!(matches!(actions[..], [Action::Ancestry { parents: 3, .. }]), "{actions:?}");
    world.swarm.handle_answer(peer, [0; 32], chain(2, 0, USUAL));
    let actions = world.done();
    assert!(matches!(&actions[..], [Action::Order(_, Order::Answer { shares, .. })] if shares.len() == 2));
    for number in 0..8 {
        assert!(matches!(world.event(peer, asked(number))[..], [Action::Ancestry { .. }]));
    }
    assert!(matches!(world.event(peer, asked(9))[..], [Action::Disconnect(_, Close::Quiet(_))]));
    world.swarm.handle_answer(peer, [0; 32], Vec::new());
    assert!(world.done().is_empty(), "it has left");
}

#[test]
fn addresses_are_kept_and_four_in_five_passed_on_one_by_one() {
    let mut world = World::usual();
    let teller = world.accept(host(1));
    world.accept(host(2));
    let mut passed = 0;
    for number in 10..110 {
        let actions = world.event(teller, PeerEvent::Addresses(vec![record(host(number))]));
        for action in actions {
            let Action::Order(_, Order::Addresses(records)) = action else { panic!("{action:?}") };
            assert_eq!(records, [record(host(number))], "as it came");
            passed += 1;
        }
    }
    assert!((65..=95).contains(&passed), "{passed}");
    assert_eq!(world.swarm.status(world.now).addresses, 100);
    // A peer that announces without end is ignored.
    for _ in 0..50 {
        let records = (0..100).map(|_| record(host(200))).collect();
        let actions = world.event(teller, PeerEvent::Addresses(records));
        passed += actions.len();
    }
    assert!(passed <= 101, "{passed} were passed on for it");
}

#[test]
fn a_port_on_this_machine_is_passed_on_as_it_came_and_any_other_becomes_an_address() {
    let mut world = World::usual();
    let local = world.accept(at("127.0.0.1:5000"));
    let mut passed = 0;
    for _ in 0..20 {
        for action in world.event(local, PeerEvent::AdvertisesPort(9333)) {
            assert!(matches!(action, Action::Order(_, Order::AddressOfMe(9333))), "{action:?}");
            passed += 1;
        }
    }
    assert!((10..20).contains(&passed), "{passed}");
    assert_eq!(world.swarm.status(world.now).addresses, 0);
    let remote = world.accept(at("9.9.9.9:5000"));
    for _ in 0..20 {
        for action in world.event(remote, PeerEvent::AdvertisesPort(9333)) {
            let Action::Order(_, Order::Addresses(records)) = action else { panic!("{action:?}") };
            assert_eq!(records[0].endpoint, Endpoint { services: 3, address: at("9.9.9.9:9333") });
        }
    }
    assert_eq!(world.swarm.status(world.now).addresses, 1);
}

#[test]
fn a_hundred_addresses_are_told_at_most_and_asked_for_while_few_are_known() {
    let mut world = World::usual();
    for number in 0..=255 {
        world.swarm.add_bootstrap(host(number), world.now);
    }
    let peer = world.accept(at("8.8.8.8:1"));
    for (asked, told) in [(8, 8), (u32::MAX, 100), (0, 0)] {
        let actions = world.event(peer, PeerEvent::WantsAddresses(asked));
        assert!(matches!(&actions[..], [Action::Order(_, Order::Addresses(records))] if records.len() == told));
    }
    let questions = |actions: &[Action]| {
        let asked = |action: &&Action| matches!(action, Action::Order(_, Order::GetAddresses(8)));
        actions.iter().filter(asked).count()
    };
    let count = questions(&world.pass(SECOND * 2000));
    assert!((70..130).contains(&count), "{count}");
    for number in 0..2000u32 {
        let address = SocketAddr::from((std::net::Ipv4Addr::from(0x1000_0000 + number * 0x1_0001), 1));
        world.swarm.add_bootstrap(address, world.now);
    }
    assert_eq!(questions(&world.pass(SECOND * 2000)), 0);
}

#[test]
fn a_better_header_is_told_to_all() {
    let mut world = World::usual();
    let one = world.accept(host(1));
    world.accept(host(2));
    let mut header = [3; 80];
    header[4..36].copy_from_slice(&[1; 32]);
    // Every hash meets it.
    let bits = sharechain::share::Bits(0x2200_ffff);
    header[72..76].copy_from_slice(&bits.0.to_le_bytes());
    assert!(world.event(one, PeerEvent::BestBlock(header)).is_empty(), "nothing is known to judge it by");
    world.swarm.handle_parent(Parent {
        heights: Arc::default(),
        best_height: 0,
        previous_block: [1; 32],
        target: bits.target(),
    });
    let actions = world.event(one, PeerEvent::BestBlock(header));
    assert!(
        matches!(
            actions[..],
            [Action::Order(_, Order::BestBlock(_)), Action::Order(_, Order::BestBlock(_)), Action::BestHeader(_)]
        ),
        "{actions:?}"
    );
    assert!(world.event(one, PeerEvent::BestBlock(header)).is_empty(), "once");
}

#[test]
fn a_whole_chain_is_fetched_and_the_status_says_how_far_it_is() {
    let mut world = World::usual();
    let shares = chain(150, 0, USUAL);
    let peer = world.swarm.handle_incoming(host(1), world.now).unwrap();
    let hello = world.hello(Some(shares[149].hash()));
    world.event(peer, PeerEvent::Connected(hello));
    world.swarm.handle_known(peer, shares[149].hash(), false, world.now);
    let mut came = 0;
    let mut seen = Vec::new();
    while came < shares.len() {
        let (peer, request, hash, parents) = world.asked();
        world.move_to(world.now.instant + SECOND);
        let shares = answer(&shares, hash, parents, &[]);
        came += shares.len();
        world.swarm.handle_event(peer, PeerEvent::Replied { request, shares: Ok(shares.clone()) }, world.now);
        world.swarm.handle_taken(shares.len(), world.now);
        seen.extend(
            world.swarm.status(world.now).downloading.map(|progress| (progress.have, progress.wanted_estimate)),
        );
    }
    assert_eq!(seen, [(1, 150)]);
    let status = world.swarm.status(world.now);
    assert_eq!(status.peers[0].shares_received, 150);
    assert_eq!(status.downloading, None);
}
