//! A pool under simulation: its nodes, and what is asked of them all.

use sharechain::chain::Sharechain;
use sharechain::coin::Network;
use sharechain::share::{Share, ShareHash};
use sharechain::testkit::{self, Plan, START};
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::miner::Miners;
use super::network::Conditions;
use super::node::{Node, Parts, ShareCache};
use super::report::{Outcome, Point};
use super::scenario::Settings;
use super::theory::{fork_rate, orphan_rate, whole};
use super::world::World;

/// Shares that are looked at when payouts and votes are computed: small, so that pruning is part of long runs.
pub(super) const CHAIN_LENGTH: u32 = 240;
/// Seconds between shares: that of Bitcoin's P2Pool.
const SHARE_PERIOD: u32 = 30;
/// Shares that every node has at the beginning. Heads are compared by their work five shares back, so a chain's first
/// shares are chosen by luck.
pub(super) const COMMON: u32 = 20;
/// Where nodes listen.
const PORT: u16 = 9333;
/// How long nodes find each other before anything is mined.
pub(super) const GATHERING: Duration = Duration::from_secs(180);
/// How long it takes at most, plus a hundred latencies, until everything that can be settled is.
pub(super) const QUIET: Duration = Duration::from_secs(600);
/// Addresses that a node knows at its start.
const KNOWN_AT_START: usize = 8;

/// A pool under simulation: honest nodes come first.
pub(super) struct Pool {
    pub(super) world: World,
    honest: usize,
    latency: Duration,
    pub(super) network: &'static Network,
    pub(super) common: Vec<Arc<Share>>,
    shelf: ShareCache,
    pub(super) rng: Rng,
}

impl Pool {
    /// A node for each of the first `honest` of `parts` of the hash rate, asleep; the others are to be added. All have
    /// `common` shares at the start, the last `fresh` nodes none.
    pub(super) fn new(settings: &Settings, parts: &[f64], common: u32, fresh: usize) -> Pool {
        let mut rng = Rng::with_seed(settings.seed);
        let network = testkit::network_of_period(CHAIN_LENGTH, SHARE_PERIOD, 35);
        let mut source = Sharechain::new(network);
        let mut hashes = Vec::new();
        for number in 0..common {
            let plan = Plan { timestamp: START + number * SHARE_PERIOD, nonce: number, ..Plan::default() };
            hashes.append(&mut testkit::grow(&mut source, hashes.last().copied(), 1, &plan));
        }
        let kept = hashes.iter().rev().take(2 * CHAIN_LENGTH as usize).rev();
        let common_shares: Vec<Arc<Share>> = kept.filter_map(|hash| source.share(*hash).cloned()).collect();
        let unix = f64::from(START + common * SHARE_PERIOD);
        let miners = Miners::new(parts, Duration::from_secs(u64::from(SHARE_PERIOD)), rng.fork());
        let world = World::new(unix, Conditions::of_latency(settings.latency), miners, rng.fork());
        let (honest, latency) = (settings.nodes, settings.latency);
        let shelf = ShareCache::default();
        let mut pool = Pool { world, honest, latency, network, common: common_shares, shelf, rng };
        for number in 0..honest {
            let node = pool.node(number, number >= honest - fresh, None);
            pool.world.add(Box::new(node), [address_of(number)]);
        }
        pool
    }

    /// Honest nodes of equal hash rate that have found each other.
    pub(super) fn gathered(settings: &Settings) -> Pool {
        let mut pool = Pool::new(settings, &vec![1.0; settings.nodes], COMMON, 0);
        pool.gather(0..settings.nodes);
        pool
    }

    /// A node that knows some honest nodes, or these.
    pub(super) fn node(&mut self, number: usize, is_fresh: bool, known: Option<&[SocketAddr]>) -> Node {
        let parts = Parts {
            network: self.network,
            address: address_of(number),
            payee: u32::try_from(number).unwrap_or(u32::MAX),
            shelf: self.shelf.clone(),
            rng: self.rng.fork(),
        };
        let some: Vec<SocketAddr> = (0..KNOWN_AT_START).map(|_| address_of(self.rng.usize(..self.honest))).collect();
        let shares = if is_fresh { &[][..] } else { &self.common };
        Node::new(parts, shares, known.unwrap_or(&some), self.world.moment())
    }

    /// Wakes agents and gives them time to find each other.
    pub(super) fn gather(&mut self, agents: Range<usize>) {
        for agent in agents {
            self.world.wake(agent);
        }
        self.world.run_for(GATHERING + 100 * self.latency);
    }

    /// Mines until so many more shares were found.
    pub(super) fn mine(&mut self, shares: usize, progress: &mut dyn FnMut(usize)) {
        self.world.run_shares(shares, progress);
    }

    /// Lets what is under way arrive, and then one more share, which ends all ties.
    pub(super) fn settle(&mut self) {
        self.world.run_for(QUIET + 100 * self.latency);
        self.world.find_now(0);
        self.world.run_for(QUIET + 100 * self.latency);
    }

    /// How many honest nodes think which share best.
    pub(super) fn bests(&self) -> BTreeMap<Option<ShareHash>, usize> {
        let mut bests = BTreeMap::new();
        for number in 0..self.honest {
            *bests.entry(self.best_of(number)).or_insert(0) += 1;
        }
        bests
    }

    pub(super) fn best_of(&self, node: usize) -> Option<ShareHash> {
        self.world.node(node).chain().choice().best
    }

    /// The shares of the chain that a node thinks best.
    pub(super) fn chain_of(&self, node: usize) -> HashSet<ShareHash> {
        let chain = self.world.node(node).chain();
        chain.choice().best.into_iter().flat_map(|best| chain.all().chain(best, u32::MAX)).collect()
    }

    /// Honest nodes that hold something against others who are honest, too: how many times, and an example.
    fn quarrels(&self) -> (usize, String) {
        let honest: HashSet<IpAddr> = (0..self.honest).map(|number| address_of(number).ip()).collect();
        let nodes = (0..self.honest).map(|number| self.world.node(number));
        let offences = nodes.flat_map(|node| node.offences()).filter(|(address, _)| honest.contains(&address.ip()));
        let offences: Vec<&(SocketAddr, String)> = offences.collect();
        (offences.len(), offences.first().map(|(address, what)| format!("{address}: {what}")).unwrap_or_default())
    }

    /// What must hold in every pool.
    pub(super) fn expect_peace(&self, outcome: &mut Outcome) {
        let bests: Vec<usize> = self.bests().into_values().collect();
        outcome.expect(bests.len() == 1, || format!("honest nodes do not agree on one best share: {bests:?}"));
        let (count, example) = self.quarrels();
        outcome.expect(count == 0, || format!("honest nodes banned each other {count} times, first {example}"));
        let most = (0..self.honest).map(|number| self.world.node(number).chain().all().len()).max().unwrap_or_default();
        let limit = self.world.node(0).chain().shares_max();
        outcome.expect(most <= limit, || format!("a node keeps {most} shares, and {limit} are the most"));
    }

    /// What became of shares that honest nodes found.
    pub(super) fn point(&self, latency: Duration) -> Point {
        let best = self.chain_of(0);
        let period = f64::from(SHARE_PERIOD);
        let found: Vec<_> = self.world.found().iter().filter(|found| found.finder < self.honest).collect();
        // Those that are as old as the chain that is kept may be pruned.
        let kept = found.iter().filter(|found| best.contains(&found.hash));
        let mut delays: Vec<f64> =
            kept.clone().flat_map(|found| &found.arrivals).map(|(_, delay)| delay.as_secs_f64()).collect();
        let delay = delays.iter().sum::<f64>() / whole(delays.len().max(1));
        Point {
            latency,
            delay: Duration::from_secs_f64(delay),
            found: found.len(),
            orphans: found.len() - kept.count(),
            forks: fork_rate(delay, period),
            expected: orphan_rate(&mut delays, period),
        }
    }

    /// Addresses of the nodes that this one dialled.
    pub(super) fn dialled_by(&self, node: usize) -> Vec<SocketAddr> {
        let status = self.world.node(node).swarm().status(self.world.moment().for_swarm());
        status.peers.iter().filter(|peer| !peer.is_incoming).map(|peer| peer.address).collect()
    }
}

/// Where a node listens: each has a /16 of its own.
pub(super) fn address_of(number: usize) -> SocketAddr {
    // From 20.0.0.0 on addresses are everybody's, up to 100.64.0.0.
    let network = u32::try_from(number).unwrap_or(u32::MAX) % (60 << 8);
    SocketAddr::new(Ipv4Addr::from((20 << 24) + (network << 16) + 0x0101).into(), PORT)
}

/// An address of somebody who has many, in the group with this number.
pub(super) fn bought_address(group: usize, number: usize) -> SocketAddr {
    let (group, number) = (u8::try_from(group).unwrap_or(u8::MAX), u32::try_from(number).unwrap_or(u32::MAX));
    SocketAddr::new(Ipv4Addr::from((91 << 24) + (u32::from(group) << 16) + 1 + number).into(), PORT)
}
