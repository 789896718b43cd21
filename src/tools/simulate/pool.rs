//! A simulated pool: its nodes, and queries over all of them.

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

/// Length of the chain for payouts and votes: short, so that pruning is part of long runs.
pub(super) const CHAIN_LENGTH: u32 = 240;
/// Seconds between shares, as in Bitcoin's P2Pool.
const SHARE_PERIOD: u32 = 30;
/// Number of shares that every node starts with. Heads are compared by their work five shares back, so luck decides a
/// chain's first shares.
pub(super) const COMMON: u32 = 20;
/// Port that nodes listen on.
const PORT: u16 = 9333;
/// Time for nodes to connect before mining starts.
pub(super) const GATHERING: Duration = Duration::from_secs(180);
/// Maximum time, plus a hundred latencies, until everything settles.
pub(super) const QUIET: Duration = Duration::from_secs(600);
/// Number of addresses that a node knows at its start.
const KNOWN_AT_START: usize = 8;

/// A simulated pool: honest nodes come first.
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
    /// Creates a sleeping node for each of the first `honest` of `parts` of the hash rate; the caller adds the others.
    /// All start with `common` shares, the last `fresh` nodes with none.
    pub(super) fn new(settings: &Settings, parts: &[f64], common: u32, fresh: usize) -> Pool {
        let network = testkit::network_of_period(CHAIN_LENGTH, SHARE_PERIOD, 35);
        Pool::on(network, 1, settings, parts, common, fresh)
    }

    /// Like [`new`](Self::new), on this network, where finding a share takes `slowness` times its period. All common
    /// shares vote for its first version.
    pub(super) fn on(
        network: &'static Network,
        slowness: u32,
        settings: &Settings,
        parts: &[f64],
        common: u32,
        fresh: usize,
    ) -> Pool {
        let mut rng = Rng::with_seed(settings.seed);
        let mut source = Sharechain::new(network);
        let mut hashes = Vec::new();
        let (period, vote) = (network.share_period, Some(network.start_version));
        for number in 0..common {
            let plan = Plan { timestamp: START + number * period, nonce: number, vote, ..Plan::default() };
            hashes.append(&mut testkit::grow(&mut source, hashes.last().copied(), 1, &plan));
        }
        let kept = hashes.iter().rev().take(2 * network.chain_length as usize).rev();
        let common_shares: Vec<Arc<Share>> = kept.filter_map(|hash| source.share(*hash).cloned()).collect();
        let unix = f64::from(START + common * period);
        let miners = Miners::new(parts, Duration::from_secs(u64::from(slowness * period)), rng.fork());
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

    /// Creates honest nodes of equal hash rate and connects them.
    pub(super) fn gathered(settings: &Settings) -> Pool {
        let mut pool = Pool::new(settings, &vec![1.0; settings.nodes], COMMON, 0);
        pool.gather(0..settings.nodes);
        pool
    }

    /// Creates a node that knows some honest nodes, or those in `known`.
    pub(super) fn node(&mut self, number: usize, is_fresh: bool, known: Option<&[SocketAddr]>) -> Node {
        self.node_on(self.network, number, is_fresh, known)
    }

    /// Like [`node`](Self::node), with another table of the same network.
    pub(super) fn node_on(
        &mut self,
        network: &'static Network,
        number: usize,
        is_fresh: bool,
        known: Option<&[SocketAddr]>,
    ) -> Node {
        let parts = Parts {
            network,
            address: address_of(number),
            payee: u32::try_from(number).unwrap_or(u32::MAX),
            shelf: self.shelf.clone(),
            rng: self.rng.fork(),
        };
        let some: Vec<SocketAddr> = (0..KNOWN_AT_START).map(|_| address_of(self.rng.usize(..self.honest))).collect();
        let shares = if is_fresh { &[][..] } else { &self.common };
        Node::new(parts, shares, known.unwrap_or(&some), self.world.moment())
    }

    /// Wakes agents and gives them time to connect.
    pub(super) fn gather(&mut self, agents: Range<usize>) {
        for agent in agents {
            self.world.wake(agent);
        }
        self.world.run_for(GATHERING + 100 * self.latency);
    }

    /// Mines until `shares` more were found.
    pub(super) fn mine(&mut self, shares: usize, progress: &mut dyn FnMut(usize)) {
        self.world.run_shares(shares, progress);
    }

    /// Lets everything in transit arrive, and then one more share, which ends all ties.
    pub(super) fn settle(&mut self) {
        self.world.run_for(QUIET + 100 * self.latency);
        self.world.find_now(0);
        self.world.run_for(QUIET + 100 * self.latency);
    }

    /// Number of honest nodes by their best share.
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

    /// Shares of a node's best chain.
    pub(super) fn chain_of(&self, node: usize) -> HashSet<ShareHash> {
        let chain = self.world.node(node).chain();
        chain.choice().best.into_iter().flat_map(|best| chain.all().chain(best, u32::MAX)).collect()
    }

    /// Offences between honest nodes: their number, and an example.
    fn quarrels(&self) -> (usize, String) {
        let honest: HashSet<IpAddr> = (0..self.honest).map(|number| address_of(number).ip()).collect();
        let nodes = (0..self.honest).map(|number| self.world.node(number));
        let offences = nodes.flat_map(|node| node.offences()).filter(|(address, _)| honest.contains(&address.ip()));
        let offences: Vec<&(SocketAddr, String)> = offences.collect();
        (offences.len(), offences.first().map(|(address, what)| format!("{address}: {what}")).unwrap_or_default())
    }

    /// Checks the invariants of every pool.
    pub(super) fn expect_peace(&self, outcome: &mut Outcome) {
        let bests: Vec<usize> = self.bests().into_values().collect();
        outcome.expect(bests.len() == 1, || format!("honest nodes do not agree on one best share: {bests:?}"));
        let (count, example) = self.quarrels();
        outcome.expect(count == 0, || format!("honest nodes banned each other {count} times, first {example}"));
        let most = (0..self.honest).map(|number| self.world.node(number).chain().all().len()).max().unwrap_or_default();
        let limit = self.world.node(0).chain().shares_max();
        outcome.expect(most <= limit, || format!("a node keeps {most} shares, and {limit} are the most"));
    }

    /// Counts orphans among shares that honest nodes found.
    pub(super) fn point(&self, latency: Duration) -> Point {
        let best = self.chain_of(0);
        let period = f64::from(self.network.share_period);
        let found: Vec<_> = self.world.found().iter().filter(|found| found.finder < self.honest).collect();
        // Shares as old as the kept chain may be pruned.
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

    /// Addresses of the nodes that a node dialled.
    pub(super) fn dialled_by(&self, node: usize) -> Vec<SocketAddr> {
        let status = self.world.node(node).swarm().status(self.world.moment().for_swarm());
        status.peers.iter().filter(|peer| !peer.is_incoming).map(|peer| peer.address).collect()
    }
}

/// Listening address of a node: each has a /16 of its own.
pub(super) fn address_of(number: usize) -> SocketAddr {
    // Addresses from 20.0.0.0 up to 100.64.0.0 are public.
    let network = u32::try_from(number).unwrap_or(u32::MAX) % (60 << 8);
    SocketAddr::new(Ipv4Addr::from((20 << 24) + (network << 16) + 0x0101).into(), PORT)
}

/// Address of an attacker with many, in the group with this number.
pub(super) fn bought_address(group: usize, number: usize) -> SocketAddr {
    let (group, number) = (u8::try_from(group).unwrap_or(u8::MAX), u32::try_from(number).unwrap_or(u32::MAX));
    SocketAddr::new(Ipv4Addr::from((91 << 24) + (u32::from(group) << 16) + 1 + number).into(), PORT)
}
