//! Behaviour of a swarm, tested as conversations.

use sharechain::chain::Wanted;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::bans::NotBanned;
use crate::message::{AddressRecord, Endpoint};
use crate::peer::{RequestFailed, RequestId};
use crate::test_shares::{USUAL, answer, chain, extend, sha256d};

const SECOND: Duration = Duration::from_secs(1);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A host in a group of its own.
pub(super) fn host(number: u8) -> SocketAddr {
    at(&format!("9.{number}.0.1:9333"))
}

/// A swarm, its clock, and its last actions.
pub(super) struct World {
    pub(super) swarm: Swarm,
    pub(super) now: Now,
    actions: Vec<Action>,
    nonces: u64,
}

impl World {
    fn new(config: impl FnOnce(&mut Config), seed: u64) -> World {
        let mut start =
            Config { chain_length: 100, pow: sha256d(), outgoing_wanted: 6, incoming_max: 40, whitelist: Vec::new() };
        config(&mut start);
        let now = Now { instant: Instant::now(), unix: 1.7e9 };
        World { swarm: Swarm::new(start, fastrand::Rng::with_seed(seed), now), now, actions: Vec::new(), nonces: 0 }
    }

    pub(super) fn usual() -> World {
        World::new(|_| (), 1)
    }

    /// Advances time only, and returns the resulting actions.
    pub(super) fn pass(&mut self, time: Duration) -> Vec<Action> {
        let end = self.now.instant + time;
        while let Some(due) = self.swarm.poll_timeout().filter(|due| *due <= end) {
            self.move_to(due.max(self.now.instant));
            self.swarm.handle_timeout(self.now);
            self.take();
        }
        self.move_to(end);
        std::mem::take(&mut self.actions)
    }

    fn move_to(&mut self, instant: Instant) {
        self.now.unix += (instant - self.now.instant).as_secs_f64();
        self.now.instant = instant;
    }

    fn take(&mut self) {
        while let Some(action) = self.swarm.poll_action() {
            self.actions.push(action);
        }
    }

    pub(super) fn done(&mut self) -> Vec<Action> {
        self.take();
        std::mem::take(&mut self.actions)
    }

    pub(super) fn event(&mut self, peer: PeerId, event: PeerEvent) -> Vec<Action> {
        self.swarm.handle_event(peer, event, self.now);
        self.done()
    }

    fn hello(&mut self, best_share: Option<ShareHash>) -> Hello {
        self.nonces += 1;
        Hello { version: 3501, services: 3, nonce: self.nonces, sub_version: "test".into(), best_share }
    }

    fn greet(&mut self, peer: PeerId) {
        let hello = self.hello(None);
        let actions = self.event(peer, PeerEvent::Connected(hello));
        let [Action::Order(kept, Order::Keep), Action::Order(told, Order::Template(_))] = actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!((kept, told), (peer, peer));
    }

    pub(super) fn accept(&mut self, from: SocketAddr) -> PeerId {
        let peer = self.swarm.handle_incoming(from, self.now).unwrap();
        self.greet(peer);
        peer
    }

    fn wanted(&mut self, hash: ShareHash) {
        let wanted = Wanted { hash, source: None, timestamp: 0, target: USUAL.target() };
        self.swarm.handle_needs(&[wanted], &[], self.now);
    }

    /// Returns the only request among the last actions.
    fn asked(&mut self) -> (PeerId, RequestId, ShareHash, u64) {
        let requests: Vec<_> = self
            .done()
            .into_iter()
            .filter_map(|action| match action {
                Action::Order(peer, Order::Request { request, hashes, parents, .. }) => {
                    Some((peer, request, hashes[0], parents))
                }
                _ => None,
            })
            .collect();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0]
    }
}

fn dialed(actions: &[Action]) -> Vec<(SocketAddr, DialKind)> {
    let dials = actions.iter().filter_map(|action| match action {
        Action::Dial(address, kind) => Some((*address, *kind)),
        _ => None,
    });
    dials.collect()
}

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

fn record(address: SocketAddr) -> AddressRecord {
    AddressRecord { timestamp: 1_600_000_000, endpoint: Endpoint { services: 0, address } }
}

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
    let header = [3; 80];
    assert!(world.event(one, PeerEvent::BestBlock(header)).is_empty(), "nothing is known to judge it by");
    world.swarm.handle_parent(Parent {
        heights: Arc::default(),
        best_height: 0,
        previous_block: [1; 32],
        target: Target::MAX_256,
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

/// One possible event, chosen by numbers.
fn happen(world: &mut World, shares: &[Arc<Share>], what: u8, which: u8, number: u8) {
    let peer = PeerId(u64::from(which % 16));
    let share = shares[usize::from(number) % shares.len()].clone();
    let hash = share.hash();
    let now = world.now;
    let event = match what % 20 {
        0 | 1 => {
            let _ = world.swarm.handle_incoming(host(number % 20), now);
            return;
        }
        2 | 3 => {
            let hello = world.hello(number.is_multiple_of(2).then_some(hash));
            PeerEvent::Connected(hello)
        }
        4 => return world.swarm.handle_closed(peer, &Close::Quiet(String::new()), now),
        5 => return world.swarm.handle_closed(peer, &Close::Offence(Offence::SecondVersion), now),
        6 => PeerEvent::Shares(vec![share]),
        7 | 8 => PeerEvent::Replied { request: RequestId(u64::from(number % 32)), shares: Ok(vec![share]) },
        9 => PeerEvent::Asked { id: [0; 32], hashes: vec![hash], parents: 1, stops: Vec::new() },
        10 => PeerEvent::Addresses(vec![record(host(number))]),
        11 => PeerEvent::AdvertisesPort(u16::from(number)),
        12 => PeerEvent::WantsAddresses(u32::from(number)),
        13 => PeerEvent::BestBlock([number; 80]),
        14 => return world.wanted(hash),
        15 => return world.swarm.handle_tip(&[share], u32::from(number)),
        16 => return world.swarm.handle_refused(hash, Some(host(number % 20)), "", now),
        17 => return world.swarm.handle_known(peer, hash, number > 9, now),
        18 => return world.swarm.handle_taken(usize::from(number), now),
        _ => {
            let time = SECOND * u32::from(number);
            let mut before = std::mem::take(&mut world.actions);
            before.extend(world.pass_and_dial(time, which));
            world.actions = before;
            return;
        }
    };
    world.swarm.handle_event(peer, event, now);
}

impl World {
    fn pass_and_dial(&mut self, time: Duration, which: u8) -> Vec<Action> {
        let actions = self.pass(time);
        for (address, kind) in dialed(&actions) {
            if which.is_multiple_of(2) {
                self.swarm.handle_dialed(address, kind, self.now);
            } else {
                self.swarm.handle_dial_failed(address, self.now);
            }
        }
        actions
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn whatever_peers_do_limits_hold_and_one_seed_gives_one_history(
        seed in any::<u64>(),
        steps in proptest::collection::vec(any::<[u8; 3]>(), 0..300),
    ) {
        let shares = chain(30, 0, USUAL);
        let mut worlds = [(); 2].map(|()| World::new(|config| config.incoming_max = 9, seed));
        let start = worlds[0].now;
        worlds[1].now = start;
        worlds[1].swarm = Swarm::new(worlds[1].swarm.config.clone(), fastrand::Rng::with_seed(seed), start);
        for [what, which, number] in steps {
            for world in &mut worlds {
                happen(world, &shares, what, which, number);
                world.take();
            }
            let status = worlds[0].swarm.status(worlds[0].now);
            prop_assert!(status.incoming <= 9 && status.outgoing + status.dialing <= 30);
            let nonces: BTreeSet<u64> = worlds[0].swarm.up().filter_map(|(_, up)| Some(up.hello.as_ref()?.nonce)).collect();
            prop_assert_eq!(nonces.len(), status.peers.len());
        }
        let [one, other] = worlds;
        prop_assert_eq!(format!("{:?}", one.actions), format!("{:?}", other.actions));
    }
}
