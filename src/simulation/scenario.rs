//! The scenarios: what happens in each, and what must hold.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::Progress;
use super::forge::{self, Plan, START};
use super::miner::Miners;
use super::network::Conditions;
use super::node::{Node, Parts, Shelf};
use super::report::{Outcome, Point};
use super::theory::{fork_rate, interval, orphan_rate, whole};
use super::world::World;
use crate::network::Network;
use crate::share::{Share, ShareHash};
use crate::sharechain::Sharechain;

/// Shares that are looked at when payouts and votes are computed: small, so that pruning is part of long runs.
const CHAIN_LENGTH: u32 = 240;
/// Seconds between shares: that of Bitcoin's P2Pool.
const SHARE_PERIOD: u32 = 30;
/// Shares that every node has at the beginning. Heads are compared by their work five shares back, so a chain's first
/// shares are chosen by luck.
const COMMON: u32 = 20;
/// Where nodes listen.
const PORT: u16 = 9333;
/// How long nodes find each other before anything is mined.
const GATHERING: Duration = Duration::from_secs(180);
/// How long it takes at most, plus a hundred latencies, until everything that can be settled is.
const QUIET: Duration = Duration::from_secs(600);
/// Addresses that a node knows at its start.
const KNOWN_AT_START: usize = 8;
/// Latencies of the sweep, in milliseconds.
const SWEEP: [u64; 8] = [50, 100, 200, 500, 1000, 2000, 5000, 10_000];

/// What can be simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Honest nodes only.
    Convergence,
    /// Honest nodes at growing latencies.
    Orphans,
    /// Two parts that do not hear of each other for a while.
    Partition,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 3] = [Scenario::Convergence, Scenario::Orphans, Scenario::Partition];

    /// The word for it on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Scenario::Convergence => "convergence",
            Scenario::Orphans => "orphans",
            Scenario::Partition => "partition",
        }
    }

    /// Runs it. Only the sweep over latencies gives points.
    pub fn run(self, settings: &Settings, progress: &mut Progress<'_>) -> (Outcome, Vec<Point>) {
        let mut outcome = Outcome::new(self, settings);
        let mut points = Vec::new();
        match self {
            Scenario::Convergence => convergence(settings, &mut outcome, progress),
            Scenario::Orphans => points = orphans(settings, &mut outcome, progress),
            Scenario::Partition => partition(settings, &mut outcome, progress),
        }
        (outcome, points)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Scenario::ALL.into_iter().find(|scenario| scenario.word() == text).ok_or_else(|| {
            let words = Scenario::ALL.map(Scenario::word).join(", ");
            format!("`{text}` is no scenario: there are {words}, and all")
        })
    }
}

/// How a scenario is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Honest nodes.
    pub nodes: usize,
    /// What all luck follows from.
    pub seed: u64,
    /// Of a link, one way, in the median.
    pub latency: Duration,
    /// Shares that are found.
    pub shares: u32,
}

/// A pool under simulation: honest nodes come first.
struct Pool {
    world: World,
    honest: usize,
    latency: Duration,
}

/// What a pool is made of.
struct Plans {
    network: &'static Network,
    common: Vec<Arc<Share>>,
    unix: f64,
    shelf: Shelf,
    rng: Rng,
}

impl Plans {
    fn new(settings: &Settings) -> Plans {
        let network = forge::network_of_period(CHAIN_LENGTH, SHARE_PERIOD, 35);
        let mut source = Sharechain::new(network);
        let hashes = forge::grow(&mut source, None, COMMON, &Plan::default());
        let common = hashes.iter().filter_map(|hash| source.share(*hash).cloned()).collect();
        let unix = f64::from(START + COMMON * SHARE_PERIOD);
        Plans { network, common, unix, shelf: Shelf::default(), rng: Rng::with_seed(settings.seed) }
    }

    /// What the node with this number is made of.
    fn parts(&mut self, number: usize) -> Parts {
        let payee = u32::try_from(number).unwrap_or(u32::MAX);
        let (network, address) = (self.network, address_of(number));
        Parts { network, address, payee, shelf: self.shelf.clone(), rng: self.rng.fork() }
    }

    /// A few of the first `of` nodes' addresses.
    fn some_addresses(&mut self, of: usize) -> Vec<SocketAddr> {
        (0..KNOWN_AT_START).map(|_| address_of(self.rng.usize(..of))).collect()
    }
}

impl Pool {
    /// Honest nodes, one for each of `parts` of the hash rate, that have found each other.
    fn gather(settings: &Settings, parts: &[f64]) -> Pool {
        let mut plans = Plans::new(settings);
        let miners = Miners::new(parts, Duration::from_secs(u64::from(SHARE_PERIOD)), plans.rng.fork());
        let conditions = Conditions::of_latency(settings.latency);
        let mut world = World::new(plans.unix, conditions, miners, plans.rng.fork());
        let honest = parts.len();
        for number in 0..honest {
            let (parts, bootstrap) = (plans.parts(number), plans.some_addresses(honest));
            let node = Node::new(parts, &plans.common, &bootstrap, world.moment());
            world.add(Box::new(node), [address_of(number)]);
        }
        for number in 0..honest {
            world.wake(number);
        }
        world.run_for(GATHERING + 100 * settings.latency);
        Pool { world, honest, latency: settings.latency }
    }

    /// Lets what is under way arrive, and then one more share, which ends all ties.
    fn settle(&mut self) {
        self.world.run_for(QUIET + 100 * self.latency);
        self.world.find_now(0);
        self.world.run_for(QUIET + 100 * self.latency);
    }

    /// How many honest nodes think which share best.
    fn bests(&self) -> BTreeMap<Option<ShareHash>, usize> {
        let mut bests = BTreeMap::new();
        for number in 0..self.honest {
            *bests.entry(self.world.node(number).chain().choice().best).or_insert(0) += 1;
        }
        bests
    }

    /// The shares of the chain that node 0 thinks best.
    fn best_chain(&self) -> HashSet<ShareHash> {
        let chain = self.world.node(0).chain();
        chain.choice().best.into_iter().flat_map(|best| chain.all().chain(best, u32::MAX)).collect()
    }

    fn expect_convergence(&self, outcome: &mut Outcome) {
        let bests = self.bests();
        outcome.expect(bests.len() == 1, || format!("nodes agree on one best share: {:?}", bests.values()));
    }

    fn point(&self, latency: Duration) -> Point {
        let best = self.best_chain();
        let period = f64::from(SHARE_PERIOD);
        let found = self.world.found();
        let kept = found.iter().filter(|found| best.contains(&found.hash));
        let mut delays: Vec<f64> = kept.flat_map(|found| &found.arrivals).map(|(_, delay)| delay.as_secs_f64()).collect();
        let delay = delays.iter().sum::<f64>() / whole(delays.len().max(1));
        Point {
            latency,
            delay: Duration::from_secs_f64(delay),
            found: found.len(),
            orphans: found.iter().filter(|found| !best.contains(&found.hash)).count(),
            forks: fork_rate(delay, period),
            expected: orphan_rate(&mut delays, period),
        }
    }
}

/// Where an honest node listens: each has a /16 of its own.
fn address_of(number: usize) -> SocketAddr {
    // From 20.0.0.0 on addresses are everybody's, up to 100.64.0.0.
    let network = u32::try_from(number).unwrap_or(u32::MAX) % (70 << 8);
    SocketAddr::new(Ipv4Addr::from((20 << 24) + (network << 16) + 0x0101).into(), PORT)
}

fn convergence(settings: &Settings, outcome: &mut Outcome, progress: &mut Progress<'_>) {
    let mut pool = Pool::gather(settings, &vec![1.0; settings.nodes]);
    let shares = settings.shares as usize;
    pool.world.run_shares(shares, &mut |found| progress("mining", found, shares));
    pool.settle();
    pool.expect_convergence(outcome);
    let point = pool.point(settings.latency);
    outcome.fact("orphans", point.line());
    let within = interval(point.orphans, point.found);
    outcome.expect(within.contains(&point.expected) || point.rate() < point.expected, || "orphans".into());
    outcome.fact("traffic", format!("{:?}", pool.world.traffic()));
}

fn orphans(settings: &Settings, outcome: &mut Outcome, progress: &mut Progress<'_>) -> Vec<Point> {
    let mut points = Vec::new();
    for millis in SWEEP {
        let latency = Duration::from_millis(millis);
        let mut pool = Pool::gather(&Settings { latency, ..settings.clone() }, &vec![1.0; settings.nodes]);
        let shares = settings.shares as usize;
        pool.world.run_shares(shares, &mut |found| progress(&format!("latency {millis} ms"), found, shares));
        pool.settle();
        pool.expect_convergence(outcome);
        let point = pool.point(latency);
        outcome.fact("latency", point.line());
        points.push(point);
    }
    points
}

fn partition(settings: &Settings, outcome: &mut Outcome, progress: &mut Progress<'_>) {
    let mut pool = Pool::gather(settings, &vec![1.0; settings.nodes]);
    let shares = settings.shares as usize;
    let third = shares / 3;
    pool.world.run_shares(third, &mut |found| progress("together", found, shares));
    let heavy = settings.nodes * 6 / 10;
    pool.world.partition(Some((0..settings.nodes).map(|number| usize::from(number >= heavy)).collect()));
    let before = pool.world.found().len();
    pool.world.run_shares(third, &mut |found| progress("apart", found, shares));
    pool.world.run_for(QUIET);
    let after = pool.world.found().len();
    outcome.fact("apart", format!("{:?}", pool.bests().values()));
    pool.world.partition(None);
    pool.world.run_shares(third, &mut |found| progress("together again", found, shares));
    pool.settle();
    pool.expect_convergence(outcome);
    let _ = (before, after);
}
