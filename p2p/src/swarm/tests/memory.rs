//! Memory that peers take together: the largest holder is closed, and not the one that needs more next.

use bytes::Bytes;
use sharechain::share::ShareRules;

use super::*;
use crate::budget::Budget;
use crate::message::{Message, Version};
use crate::peer::{Advertise, Local, Peer};
use crate::test_shares::{rules, transaction};

pub(super) const PREFIX: [u8; 8] = *b"sinetpre";

/// Bytes that a link reads at once.
const READ_BYTES: usize = 64 * 1024;

/// An incoming connection with its state machine, both driven as by a link.
pub(super) struct Line {
    pub(super) id: PeerId,
    pub(super) peer: Peer,
}

impl World {
    /// Opens a connection from `remote`, with a complete handshake.
    pub(super) fn open(&mut self, remote: SocketAddr, rules: ShareRules) -> Line {
        let id = self.swarm.handle_incoming(remote, self.now).unwrap();
        let local = Local {
            prefix: PREFIX,
            protocol_version: 3501,
            sub_version: "ours".into(),
            nonce: 0,
            best_share: None,
            best_version: Some(35),
            minimum_protocol: 3500,
            has_laxer_nodes: false,
            advertise: Advertise::Nothing,
            shared: self.swarm.shared(id),
        };
        let here = at("10.0.0.2:9333");
        let peer = Peer::new(local, Arc::new(rules), remote, here, Direction::Inbound, 1, self.now.instant, 0);
        let endpoint = Endpoint { services: 0, address: here };
        self.nonces += 1;
        let hello = Message::Version(Version {
            version: 3501,
            services: 0,
            to: endpoint,
            from: endpoint,
            nonce: self.nonces,
            sub_version: Bytes::new(),
            mode: 1,
            best_share: None,
        });
        let mut line = Line { id, peer };
        self.feed(&mut line, &hello.to_frame(PREFIX)).unwrap();
        line
    }

    /// Delivers bytes of the peer, and returns the swarm's actions. On an error the connection is closed.
    pub(super) fn feed(&mut self, line: &mut Line, bytes: &[u8]) -> Result<Vec<Action>, Close> {
        for piece in bytes.chunks(READ_BYTES) {
            let result = line.peer.handle_bytes(piece, &self.known, self.now.instant);
            while let Some(event) = line.peer.poll_event() {
                self.swarm.handle_event(line.id, event, self.now);
                self.take();
            }
            if let Err(close) = result {
                self.swarm.handle_closed(line.id, &close, self.now);
                return Err(close);
            }
        }
        Ok(self.done())
    }

    pub(super) fn say(&mut self, line: &mut Line, message: &Message) -> Result<Vec<Action>, Close> {
        self.feed(line, &message.to_frame(PREFIX))
    }
}

/// Connections that were closed quietly.
fn closed(actions: &[Action]) -> Vec<PeerId> {
    let closed = actions.iter().filter_map(|action| match action {
        Action::Disconnect(peer, Close::Quiet(_)) => Some(*peer),
        Action::Disconnect(..) => panic!("{action:?}"),
        _ => None,
    });
    closed.collect()
}

#[test]
fn unfinished_messages_of_nine_slow_peers_cost_them_their_connections_and_an_honest_tenth_nothing() {
    let mut world = World::usual();
    world.swarm.common.unfinished = Budget::of_bytes_and_time(9_000_000);
    let long = Message::HaveTx(vec![[1; 32]; 200_000]).to_frame(PREFIX);
    let mut slow = Vec::new();
    for number in 1..=9 {
        let mut line = world.open(host(number), rules());
        assert_eq!(closed(&world.feed(&mut line, &long[..1_000_000]).unwrap()), []);
        slow.push(line);
        world.pass(SECOND);
    }
    let mut honest = world.open(host(10), rules());
    let actions = world.say(&mut honest, &Message::HaveTx(vec![[2; 32]; 50_000])).unwrap();
    assert_eq!(closed(&actions), [slow[0].id, slow[1].id], "the slowest, as many as it takes");
    assert_eq!(honest.peer.unfinished(), (0, 0), "its message was received");
    assert!(world.swarm.common.unfinished.used() <= 9_000_000);
    assert!(world.swarm.list_bans(world.now).is_empty());
    // Nor does the pressure last: the tenth may do it again, and others with small messages are not concerned.
    let mut other = world.open(host(11), rules());
    for _ in 0..20 {
        world.say(&mut honest, &Message::HaveTx(vec![[2; 32]; 50_000])).unwrap();
        world.say(&mut other, &Message::Addrs(vec![record(host(1)); 1_000])).unwrap();
    }
    assert!([&honest, &other].iter().all(|line| world.swarm.connections.contains_key(&line.id)));
}

#[test]
fn a_peer_that_sends_a_little_less_than_too_much_again_and_again_is_the_one_that_goes() {
    let mut world = World::usual();
    world.swarm.common.unfinished = Budget::of_bytes_and_time(2_000_000);
    let long = Message::HaveTx(vec![[1; 32]; 200_000]).to_frame(PREFIX);
    let mut honest = world.open(host(1), rules());
    // It is in the middle of an honest message of a megabyte when the others begin.
    let message = Message::HaveTx(vec![[2; 32]; 30_000]).to_frame(PREFIX);
    world.feed(&mut honest, &message[..500_000]).unwrap();
    for number in 2..12 {
        let mut line = world.open(host(number), rules());
        assert_eq!(closed(&world.feed(&mut line, &long[..1_900_000]).unwrap()), [line.id]);
    }
    world.feed(&mut honest, &message[500_000..]).unwrap();
    assert!(world.swarm.connections.contains_key(&honest.id));
}

#[test]
fn of_the_transactions_remembered_for_all_peers_the_one_with_the_most_loses_its_own() {
    let mut world = World::usual();
    world.swarm.common.remembered = Budget::of_bytes(3_000_000);
    let mut honest = world.open(host(1), rules());
    let remember =
        |number, bytes| Message::RememberTx { hashes: vec![], transactions: vec![transaction(number, bytes)] };
    world.say(&mut honest, &remember(1, 200_000)).unwrap();
    let mut greedy: Vec<Line> = (2..5).map(|number| world.open(host(number), rules())).collect();
    for (line, number) in greedy.iter_mut().zip(2..) {
        assert_eq!(closed(&world.say(line, &remember(number, 900_000 + u32::from(number))).unwrap()), []);
    }
    let actions = world.say(&mut honest, &remember(9, 200_000)).unwrap();
    assert_eq!(closed(&actions), [greedy[2].id]);
    assert!(world.swarm.list_bans(world.now).is_empty());
    // Its transactions are known no longer than anything holds them.
    greedy.truncate(2);
    let lost = world.known.forget_old(&Default::default(), world.now.instant);
    assert_eq!(lost, [crate::transactions::Transaction::from_message(&transaction(4, 900_004)).hash]);
}

#[test]
fn what_a_peer_had_remembered_and_forgotten_takes_nobodys_room() {
    let mut world = World::usual();
    let mut churner = world.open(host(1), rules());
    for number in 0..3 {
        let raw: Vec<Bytes> = (0..10).map(|part| transaction(10 * number + part, 2_400_000)).collect();
        let hashes = raw.iter().map(|raw| crate::transactions::Transaction::from_message(raw).hash).collect();
        world.say(&mut churner, &Message::RememberTx { hashes: vec![], transactions: raw }).unwrap();
        world.say(&mut churner, &Message::ForgetTx(hashes)).unwrap();
    }
    let mut other = world.open(host(2), rules());
    let raw: Vec<Bytes> = (40..50).map(|number| transaction(number, 2_400_000)).collect();
    world.say(&mut other, &Message::RememberTx { hashes: vec![], transactions: raw.clone() }).unwrap();
    let mut third = world.open(host(3), rules());
    let hashes: Vec<_> = raw.iter().map(|raw| crate::transactions::Transaction::from_message(raw).hash).collect();
    let raw: Vec<Bytes> = (50..60).map(|number| transaction(number, 2_400_000)).collect();
    world.say(&mut third, &Message::RememberTx { hashes: vec![], transactions: raw.clone() }).unwrap();
    assert!(hashes.iter().all(|hash| world.known.knows(hash)));
    assert!(raw.iter().all(|raw| world.known.knows(&crate::transactions::Transaction::from_message(raw).hash)));
}
