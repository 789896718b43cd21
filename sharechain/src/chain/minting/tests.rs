//! Nodes go from version 35 to 36 and back with real shares, and what the ratchet is given is a naive count.

use super::*;
use crate::chain::RatchetInput;
use crate::coin::Network;
use crate::share::{Share, ShareVersion};
use crate::testkit::{self, Plan};
use ShareVersion::{V35, V36};
use proptest::prelude::*;
use std::net::SocketAddr;
use std::sync::Arc;

const LENGTH: u32 = 20;

fn peer() -> SocketAddr {
    "192.0.2.1:9333".parse().unwrap()
}

fn network() -> &'static Network {
    testkit::network_of_versions(LENGTH, 35..=36, 100)
}

/// Nodes that find shares in turn and send them to the others.
struct Pool {
    nodes: Vec<Sharechain>,
    found: u32,
    /// Ratchet events and minimum protocol versions of the first node.
    seen: Vec<Event>,
}

impl Pool {
    fn new(count: usize) -> Pool {
        let network = network();
        Pool { nodes: (0..count).map(|_| Sharechain::new(network)).collect(), found: 0, seen: Vec::new() }
    }

    /// Finds a share that votes as given, or as the node chooses, and returns its version. Every node must verify it.
    fn find(&mut self, vote: Option<u64>) -> ShareVersion {
        let finder = self.found as usize % self.nodes.len();
        let plan = Plan { vote, timestamp: testkit::START + 10 * self.found, payee: self.found % 3, ..Plan::default() };
        self.found += 1;
        let best = self.nodes[finder].choice().best;
        let share = testkit::share_on(&mut self.nodes[finder], best, &plan);
        for (number, node) in self.nodes.iter_mut().enumerate() {
            self.seen.extend(add(node, &share, (number != finder).then(peer)).into_iter().filter(|_| number == 0));
        }
        share.version()
    }

    fn find_many(&mut self, count: u32, vote: Option<u64>) -> Vec<ShareVersion> {
        (0..count).map(|_| self.find(vote)).collect()
    }

    /// Shares of the best chain, oldest first.
    fn chain(&self) -> Vec<Arc<Share>> {
        let node = &self.nodes[0];
        let hashes: Vec<ShareHash> = node.all().chain(node.choice().best.unwrap(), u32::MAX).collect();
        hashes.iter().rev().map(|hash| node.share(*hash).unwrap().clone()).collect()
    }

    fn states(&self) -> Vec<RatchetState> {
        self.nodes.iter().map(|node| node.ratchet().unwrap().state()).collect()
    }
}

/// Adds a share that must be good; returns what happened to ratchet and minimum protocol version.
fn add(node: &mut Sharechain, share: &Arc<Share>, source: Option<SocketAddr>) -> Vec<Event> {
    let now = f64::from(share.timestamp());
    node.add(Arc::clone(share), source, now);
    node.think(now);
    let events: Vec<Event> = std::iter::from_fn(|| node.poll_event()).collect();
    assert!(events.contains(&Event::Verified(share.hash())), "{events:?}");
    assert_eq!(node.choice().best, Some(share.hash()));
    let is_ours =
        |event: &Event| matches!(event, Event::MinimumProtocol(_) | Event::Ratchet { changed_from: Some(_), .. });
    events.into_iter().filter(is_ours).collect()
}

/// State before and after of a change, or a minimum protocol version.
fn brief(event: &Event) -> (Option<(RatchetState, RatchetState)>, Option<u32>) {
    match event {
        Event::Ratchet { ratchet, changed_from } => (changed_from.map(|from| (from, ratchet.state())), None),
        Event::MinimumProtocol(version) => (None, Some(*version)),
        _ => (None, None),
    }
}

#[test]
fn two_nodes_cross_to_36_confirm_it_and_follow_the_pool_back_and_forth() {
    use RatchetState::{Activated, Confirmed, Voting};
    let mut pool = Pool::new(2);
    assert_eq!(pool.find_many(LENGTH, None), vec![V35; LENGTH as usize]);
    assert!(pool.chain().iter().all(|share| share.data().desired_version == 36));
    assert_eq!(pool.find_many(2 * LENGTH, None), vec![V36; 2 * LENGTH as usize]);
    assert_eq!(pool.states(), [Confirmed, Confirmed]);
    let briefs: Vec<_> = pool.seen.drain(..).map(|event| brief(&event)).collect();
    let steps = [
        (None, Some(3500)),
        (Some((Voting, Activated)), None),
        (None, Some(3600)),
        (Some((Activated, Confirmed)), None),
    ];
    assert!(briefs.iter().filter(|one| **one != steps[0]).eq(&steps[1..]), "{briefs:?}");

    // Votes are withdrawn: 35 on 36, at once and without a vote, but the minimum stays.
    let back = pool.find_many(2 * LENGTH, Some(35));
    let first_35 = back.iter().position(|version| *version == V35).unwrap();
    assert_eq!(first_35, LENGTH as usize / 2 + 1);
    assert!(back[first_35..].iter().all(|version| *version == V35));
    // They return: half of the window is not enough, the oldest tenth has to vote by work.
    let again = pool.find_many(2 * LENGTH, None);
    let first_36 = again.iter().position(|version| *version == V36).unwrap();
    assert_eq!(first_36, LENGTH as usize, "{again:?}");
    assert!(pool.seen.is_empty() && pool.states() == [Confirmed, Confirmed]);
    assert_eq!(pool.nodes[0].minimum_protocol(), 3600);
}

#[test]
fn activation_that_is_taken_back_lets_old_peers_in_again() {
    let mut pool = Pool::new(2);
    pool.find_many(LENGTH + 1, None);
    assert_eq!(pool.states(), [RatchetState::Activated; 2]);
    pool.nodes[0].minimum_protocol = 3500;
    pool.seen.clear();
    pool.find_many(LENGTH, Some(35));
    assert_eq!(pool.states(), [RatchetState::Voting; 2]);
    let briefs: Vec<_> = pool.seen.iter().map(brief).collect();
    let initial = network().minimum_protocol_version;
    assert!(briefs.contains(&(None, Some(initial))), "{briefs:?}");
    assert!(briefs.contains(&(Some((RatchetState::Activated, RatchetState::Voting)), None)), "{briefs:?}");
    assert!(!briefs.contains(&(None, Some(3600))), "{briefs:?}");
}

#[test]
fn a_node_alone_on_its_chain_stays_at_35() {
    let mut pool = Pool::new(1);
    assert_eq!(pool.find_many(3 * LENGTH, None), vec![V35; 3 * LENGTH as usize]);
}

#[test]
fn a_node_that_joins_makes_36_at_once_and_after_a_restart_as_soon_as_a_peer_is_heard() {
    let mut pool = Pool::new(2);
    pool.find_many(2 * LENGTH, None);
    let shares = pool.chain();
    let (newest, stored) = shares.split_last().unwrap();
    let now = f64::from(newest.timestamp());

    let mut fresh = Sharechain::new(network());
    fresh.add_all(shares.clone(), Some(peer()), now);
    fresh.think(now);
    assert_eq!((fresh.tip().version(), fresh.ratchet().unwrap().state()), (V36, RatchetState::Activated));
    assert_eq!(fresh.tip().next_share(testkit::bits_of(1 << 40).target()).unwrap().desired_version, 36);

    let loaded = |saved: Option<Ratchet>| {
        let mut node = Sharechain::new(network());
        stored.iter().for_each(|share| assert!(node.load(share.clone(), true)));
        saved.into_iter().for_each(|saved| node.set_ratchet(saved));
        node.think(now);
        node
    };
    let mut restarted = loaded(None);
    assert_eq!(restarted.tip().version(), V35);
    add(&mut restarted, newest, Some(peer()));
    assert_eq!(restarted.tip().version(), V36);
    assert_eq!(loaded(Some(*fresh.ratchet().unwrap())).tip().version(), V36);
}

#[test]
fn networks_without_the_choice_have_no_ratchet() {
    for versions in [33..=35, 35..=35, 36..=36] {
        let first = *versions.start();
        let mut chain = Sharechain::new(testkit::network_of_versions(LENGTH, versions, 100));
        assert!(chain.ratchet().is_none());
        chain.set_ratchet(Ratchet::from_json(r#"{"state": "confirmed"}"#).unwrap());
        assert!(chain.ratchet().is_none());
        assert_eq!(chain.tip().version().number(), first);
    }
    let mut confirmed = Sharechain::new(network());
    assert_eq!(confirmed.tip().version(), V35);
    confirmed.set_ratchet(Ratchet::from_json(r#"{"state": "confirmed"}"#).unwrap());
    assert_eq!(confirmed.tip().version(), V36);
}

/// The ratchet's facts, counted share by share.
fn naive(node: &Sharechain, best: ShareHash) -> RatchetInput {
    let all: Vec<&KnownShare> = node.all().chain(best, u32::MAX).map(|hash| node.known(hash).unwrap()).collect();
    let window = &all[..all.len().min(LENGTH as usize)];
    let count = |of: &dyn Fn(&KnownShare) -> bool| window.iter().filter(|known| of(known)).count();
    let votes = |known: &KnownShare| known.share.data().desired_version >= 36;
    let u32_of = |count: usize| u32::try_from(count).unwrap();
    RatchetInput {
        height: u32_of(all.len()),
        absheight: all[0].share.absheight(),
        chain_length: LENGTH,
        votes: u32_of(count(&votes)),
        shares: u32_of(count(&|known| known.share.version() == V36)),
        origins: 1 + u32::from(count(&|known| votes(known) && known.source.is_some()) > 0),
        work_test: false,
        parent: Some(all[0].share.version()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn its_facts_are_those_of_a_naive_count(
        votes in prop::collection::vec((prop::sample::select(vec![35_u64, 36, 36, 36, 37]), any::<bool>()), 30..90),
    ) {
        let mut node = Sharechain::new(network());
        let mut parent = None;
        for (number, (vote, is_own)) in (0..).zip(votes) {
            let plan = Plan { vote: Some(vote), timestamp: testkit::START + 10 * number, ..Plan::default() };
            let share = testkit::share_on(&mut node, parent, &plan);
            parent = Some(share.hash());
            add(&mut node, &share, (!is_own).then(peer));
            node.prune(f64::from(plan.timestamp));
            let found = votes::ratchet_input(&node.view(), node.ratchet().unwrap(), Some(&share));
            let work_test = found.work_test;
            prop_assert_eq!(RatchetInput { work_test: false, ..found }, naive(&node, share.hash()));
            let window = votes::window(&node.view(), &share);
            let carried = window.as_ref().is_some_and(|votes| votes.carry(V36));
            prop_assert!(!work_test || carried);
            // What it makes, everybody takes.
            if node.tip().version() == V36 && share.version() == V35 {
                prop_assert!(carried);
            }
        }
    }
}
