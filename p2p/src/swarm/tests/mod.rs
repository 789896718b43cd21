//! Behaviour of a swarm, tested as conversations: here its surroundings, and what holds whatever peers do.

mod attacks;
mod connections;
mod exchange;
mod memory;
mod refused;

use sharechain::chain::Wanted;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::message::{AddressRecord, Endpoint};
use crate::peer::RequestId;
use crate::test_shares::{USUAL, chain, sha256d};
use crate::transactions::Transactions;

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
    known: Transactions,
}

impl World {
    fn new(config: impl FnOnce(&mut Config), seed: u64) -> World {
        let mut start = Config {
            chain_length: 100,
            pow: sha256d(),
            outgoing_wanted: 6,
            incoming_max: 40,
            whitelist: Vec::new(),
            has_laxer_nodes: false,
        };
        config(&mut start);
        let now = Now { instant: Instant::now(), unix: 1.7e9 };
        let swarm = Swarm::new(start, fastrand::Rng::with_seed(seed), now);
        World { swarm, now, actions: Vec::new(), nonces: 0, known: Transactions::new() }
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

fn record(address: SocketAddr) -> AddressRecord {
    AddressRecord { timestamp: 1_600_000_000, endpoint: Endpoint { services: 0, address } }
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
        let mut worlds = [(); 2].map(|()| {
            World::new(|config| (config.incoming_max, config.has_laxer_nodes) = (9, seed.is_multiple_of(2)), seed)
        });
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
