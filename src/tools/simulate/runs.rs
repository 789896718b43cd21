//! Course and checks of each scenario.

use sharechain::chain::Sharechain;
use sharechain::share::ShareHash;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::Progress;
use super::attack::{Eclipser, Flooder, Junk, Withholder};
use super::pool::{CHAIN_LENGTH, COMMON, GATHERING, Pool, QUIET, address_of, bought_address};
use super::report::{Outcome, Point};
use super::scenario::{Scenario, Settings};
use super::theory::{interval, whole, withholding_revenue};
use super::transition::transition;

/// Maximum time after a partition until the sides agree again.
const HEALING_MAX: Duration = Duration::from_secs(2 * 3600);
/// Number of an eclipser's /16 networks, and of its addresses in each.
const GROUPS: usize = 8;
const ADDRESSES: usize = 64;
/// Part of the hash rate of a withholder: near a third, where withholding starts to pay.
const WITHHELD_PART: f64 = 0.3;
/// Latencies of the sweep, in milliseconds.
const SWEEP: [u64; 8] = [50, 100, 200, 500, 1000, 2000, 5000, 10_000];

impl Scenario {
    /// Runs the scenario. Only the sweep over latencies returns points.
    pub fn run(self, settings: &Settings, progress: &mut Progress<'_>) -> (Outcome, Vec<Point>) {
        let mut outcome = Outcome::new(self, settings);
        let mut points = Vec::new();
        match self {
            Scenario::Convergence => convergence(settings, &mut outcome, progress),
            Scenario::Joining => joining(settings, &mut outcome, progress),
            Scenario::Orphans => points = orphans(settings, &mut outcome, progress),
            Scenario::Partition => partition(settings, &mut outcome, progress),
            Scenario::Eclipse => eclipse(settings, &mut outcome, progress),
            Scenario::Withholding => withholding(settings, &mut outcome, progress),
            Scenario::Flood => flood(settings, &mut outcome, progress),
            Scenario::Transition => transition(settings, &mut outcome, progress),
        }
        (outcome, points)
    }
}

fn convergence(settings: &Settings, outcome: &mut Outcome, progress: &mut Progress<'_>) {
    let mut pool = Pool::gathered(settings);
    let shares = settings.shares as usize;
    pool.mine(shares, &mut |found| progress("mining", found, shares));
    pool.settle();
    pool.expect_peace(outcome);
    let point = pool.point(settings.latency);
    outcome.fact("orphans", point.line());
    let traffic = pool.world.traffic();
    outcome.fact("connections", traffic.connections);
    outcome.fact("messages", traffic.messages);
    outcome.fact("bytes", traffic.bytes);
    let within = interval(point.orphans, point.found);
    outcome
        .expect(*within.start() <= 1.5 * point.expected + 0.01, || format!("more orphans than {within:?} can explain"));
}

fn joining(settings: &Settings, outcome: &mut Outcome, progress: &mut Progress<'_>) {
    let fresh = (settings.nodes / 10).max(1);
    // Long enough for its start to be pruned.
    let common = 3 * CHAIN_LENGTH;
    let mut pool = Pool::new(settings, &vec![1.0; settings.nodes], common, fresh);
    let old = settings.nodes - fresh;
    pool.gather(0..old);
    let shares = settings.shares as usize;
    pool.mine(shares / 2, &mut |found| progress("before", found, shares));
    for number in old..settings.nodes {
        pool.world.wake(number);
    }
    let begin = pool.world.moment().elapsed;
    let lack = |pool: &Pool| (old..settings.nodes).filter(|number| pool.best_of(*number) != pool.best_of(0)).count();
    let mut caught_up = None;
    pool.world.start_mining();
    while pool.world.moment().elapsed < begin + QUIET {
        pool.world.run_for(Duration::from_secs(1));
        if caught_up.is_none() && lack(&pool) == 0 {
            caught_up = Some(pool.world.moment().elapsed - begin);
        }
    }
    pool.world.stop_mining();
    outcome.expect(caught_up.is_some(), || format!("{} nodes do not catch up", lack(&pool)));
    if let Some(caught_up) = caught_up {
        outcome.fact("all joined after", format!("{} s", caught_up.as_secs()));
    }
    let left = shares.saturating_sub(pool.world.found().len());
    pool.mine(left, &mut |found| progress("together", found, shares));
    pool.settle();
    pool.expect_peace(outcome);
    let least = (old..settings.nodes).map(|number| pool.world.node(number).chain().verified().len()).min();
    outcome.fact("joined nodes", fresh);
    outcome.fact("shares verified", least.unwrap_or_default());
    outcome.expect(least >= Some(CHAIN_LENGTH as usize), || format!("a joined node verified only {least:?} shares"));
}

fn orphans(settings: &Settings, outcome: &mut Outcome, progress: &mut Progress<'_>) -> Vec<Point> {
    let mut points = Vec::new();
    for (number, millis) in (0..).zip(SWEEP) {
        let latency = Duration::from_millis(millis);
        // Different luck for each, so that one lucky run does not show everywhere.
        let seed = settings.seed.wrapping_mul(1000).wrapping_add(number);
        let mut pool = Pool::gathered(&Settings { latency, seed, ..settings.clone() });
        let shares = settings.shares as usize;
        let mut sum: Option<Point> = None;
        // A few hundred at a time, so that none is pruned before it is counted.
        let mut left = shares;
        while left > 0 {
            let some = left.min(CHAIN_LENGTH as usize);
            let before = pool.world.found().len();
            pool.mine(some, &mut |found| progress(&format!("latency {millis} ms"), found, shares));
            pool.settle();
            let point = pool.point(latency);
            let _ = before;
            sum = Some(sum.map_or(point, |sum| sum.plus(&point)));
            pool.world.forget_found();
            left -= some;
        }
        pool.expect_peace(outcome);
        if let Some(point) = sum {
            let within = interval(point.orphans, point.found);
            outcome.fact("", format!("{:>6} ms: {}", millis, point.line()));
            let expected = point.expected;
            // The formula is not exact, and a run has some luck of its own.
            outcome
                .expect(*within.start() <= 1.25 * expected + 0.005 && *within.end() >= 0.75 * expected - 0.005, || {
                    format!("at {millis} ms {:.4} are orphans, and {expected:.4} were expected", point.rate())
                });
            points.push(point);
        }
    }
    points
}

fn partition(settings: &Settings, outcome: &mut Outcome, progress: &mut Progress<'_>) {
    let mut pool = Pool::gathered(settings);
    let shares = settings.shares as usize;
    let part = shares.min(CHAIN_LENGTH as usize) / 4;
    pool.mine(part, &mut |found| progress("together", found, shares));
    pool.world.run_for(QUIET);
    let heavy = settings.nodes * 7 / 10;
    let light = heavy..settings.nodes;
    pool.world.partition(Some((0..settings.nodes).map(|number| usize::from(number >= heavy)).collect()));
    let before = pool.world.found().len();
    pool.mine(2 * part, &mut |found| progress("apart", found, shares));
    pool.world.run_for(QUIET);
    let apart: Vec<(ShareHash, usize)> =
        pool.world.found()[before..].iter().map(|found| (found.hash, found.finder)).collect();
    let heavy_chain = pool.chain_of(0);
    let of_light = apart.iter().filter(|(_, finder)| light.contains(finder)).count();
    outcome.fact("found apart", format!("{} by the heavier side, {of_light} by the lighter", apart.len() - of_light));
    outcome.expect(pool.bests().len() >= 2, || "the sides never parted".to_owned());
    pool.world.partition(None);
    let begin = pool.world.moment().elapsed;
    let mut healed = None;
    pool.world.start_mining();
    while healed.is_none() && pool.world.moment().elapsed < begin + HEALING_MAX {
        pool.world.run_for(Duration::from_secs(10));
        let best = pool.chain_of(0);
        let of_lights = light.clone().filter(|number| !pool.best_of(*number).is_some_and(|it| best.contains(&it)));
        if of_lights.count() == 0 {
            healed = Some(pool.world.moment().elapsed - begin);
        }
    }
    pool.world.stop_mining();
    outcome.expect(healed.is_some(), || format!("the sides are still apart {} s after", HEALING_MAX.as_secs()));
    outcome.fact("healed within", format!("{} s", healed.unwrap_or_default().as_secs()));
    let left = shares.saturating_sub(pool.world.found().len());
    pool.mine(left.min(part), &mut |found| progress("together again", found, shares));
    pool.settle();
    pool.expect_peace(outcome);
    let chain = pool.chain_of(0);
    let lost = |is_light: bool| {
        let of_side = apart.iter().filter(|(_, finder)| light.contains(finder) == is_light);
        of_side.filter(|(hash, _)| !chain.contains(hash) && (is_light || heavy_chain.contains(hash))).count()
    };
    outcome.fact("lost", format!("{} of the heavier side's chain, {} of the lighter's", lost(false), lost(true)));
    outcome.expect(lost(false) == 0, || format!("the heavier side lost {} shares of its chain", lost(false)));
    outcome.expect(lost(true) == of_light, || format!("the lighter side lost {} of {of_light}", lost(true)));
}

fn eclipse(settings: &Settings, outcome: &mut Outcome, progress: &mut Progress<'_>) {
    let mut parts = vec![1.0; settings.nodes];
    parts.push(0.0);
    let mut pool = Pool::new(settings, &parts, COMMON, 0);
    let addresses: Vec<SocketAddr> =
        (0..GROUPS).flat_map(|group| (0..ADDRESSES).map(move |number| bought_address(group, number))).collect();
    // One node was made to know only the attacker.
    let eclipsed = settings.nodes - 1;
    let victim = pool.node(eclipsed, false, Some(&addresses));
    pool.world.replace(eclipsed, Box::new(victim));
    let shell = pool.node(settings.nodes, false, Some(&[]));
    let victims = (0..settings.nodes).map(address_of).collect();
    let (rng, now) = (pool.rng.fork(), pool.world.moment().now);
    let attacker = Eclipser::new(shell, addresses.clone(), victims, rng, now);
    pool.world.add(Box::new(attacker), addresses.clone());
    pool.world.wake(settings.nodes);
    pool.gather(0..settings.nodes);
    let shares = settings.shares as usize;
    pool.mine(shares / 2, &mut |found| progress("under attack", found, shares));
    pool.world.run_for(QUIET);

    let bought: HashSet<SocketAddr> = addresses.into_iter().collect();
    let ours = |pool: &Pool, node: usize| {
        let dialled = pool.dialled_by(node);
        let lost = dialled.iter().filter(|address| bought.contains(address)).count();
        (dialled.len(), lost)
    };
    let slots: Vec<(usize, usize)> = (0..eclipsed).map(|node| ours(&pool, node)).collect();
    let (all, lost) = slots.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let worst = slots.iter().map(|(_, lost)| *lost).max().unwrap_or_default();
    let part = whole(lost) / whole(all.max(1));
    let (of_groups, of_addresses) =
        (whole(GROUPS) / whole(GROUPS + settings.nodes), whole(bought.len()) / whole(bought.len() + settings.nodes));
    outcome.fact("attacker", format!("{} addresses in {GROUPS} networks", bought.len()));
    outcome
        .fact("of all addresses", format!("{:.0} %; of all networks {:.0} %", 100.0 * of_addresses, 100.0 * of_groups));
    outcome.fact("of dialled peers", format!("{:.0} %; {worst} of one node's at worst", 100.0 * part));
    outcome.expect(part < 0.5, || format!("the attacker has {:.0} % of the dialled peers", 100.0 * part));
    let best = pool.best_of(0);
    let behind = (0..eclipsed).filter(|node| pool.best_of(*node) != best).count();
    outcome.fact("cut off", format!("{behind} of {eclipsed} nodes that knew some honest ones"));
    outcome.expect(behind == 0, || format!("{behind} nodes were cut off"));

    let was_cut_off = pool.best_of(eclipsed) != best;
    outcome.fact("the eclipsed node", if was_cut_off { "was cut off" } else { "came free by itself" });
    // An honest node dials it.
    let now = pool.world.moment().for_swarm();
    pool.world.node_mut(0).swarm_mut().set_permanent(&[address_of(eclipsed)], now);
    pool.world.touch(0);
    let begin = pool.world.moment().elapsed;
    let mut freed = None;
    pool.world.start_mining();
    while pool.world.moment().elapsed < begin + QUIET {
        pool.world.run_for(Duration::from_secs(1));
        if freed.is_none() && pool.best_of(eclipsed) == pool.best_of(0) {
            freed = Some(pool.world.moment().elapsed - begin);
        }
    }
    pool.world.stop_mining();
    outcome.expect(freed.is_some(), || "one honest link does not free the eclipsed node".to_owned());
    outcome.fact("free", format!("{} s after an honest node called it", freed.unwrap_or_default().as_secs()));
    let left = shares.saturating_sub(pool.world.found().len());
    pool.mine(left, &mut |found| progress("after", found, shares));
    pool.settle();
    pool.expect_peace(outcome);
}

fn withholding(settings: &Settings, outcome: &mut Outcome, progress: &mut Progress<'_>) {
    let each = (1.0 - WITHHELD_PART) / whole(settings.nodes);
    let mut parts = vec![each; settings.nodes];
    parts.push(WITHHELD_PART);
    let mut pool = Pool::new(settings, &parts, COMMON, 0);
    let node = pool.node(settings.nodes, false, None);
    let mut mind = Sharechain::new(pool.network);
    for share in &pool.common {
        mind.load(Arc::clone(share), true);
    }
    mind.think(pool.world.moment().unix);
    pool.world.add(Box::new(Withholder::new(node, mind)), [address_of(settings.nodes)]);
    pool.gather(0..settings.nodes + 1);
    let shares = settings.shares as usize;
    let (mut kept, mut kept_by_it, mut found, mut found_by_it) = (0, 0, 0, 0);
    let mut left = shares;
    while left > 0 {
        let some = left.min(CHAIN_LENGTH as usize);
        pool.mine(some, &mut |found| progress("mining", shares - left + found, shares));
        pool.settle();
        let chain = pool.chain_of(0);
        for share in pool.world.found() {
            let (is_kept, is_its) = (chain.contains(&share.hash), share.finder == settings.nodes);
            found += 1;
            found_by_it += usize::from(is_its);
            kept += usize::from(is_kept);
            kept_by_it += usize::from(is_kept && is_its);
        }
        pool.expect_peace(outcome);
        pool.world.forget_found();
        left -= some;
    }
    // Measured part of all hash rate, which by chance differs a little from the planned one.
    let alpha = whole(found_by_it) / whole(found);
    let revenue = whole(kept_by_it) / whole(kept);
    let within = interval(kept_by_it, kept);
    let (none, half) = (withholding_revenue(alpha, 0.0), withholding_revenue(alpha, 0.5));
    outcome.fact("found", format!("{found}, of which the withholder {:.1} %", 100.0 * alpha));
    let (low, high) = (100.0 * within.start(), 100.0 * within.end());
    outcome.fact("in the chain", format!("{kept}, of which its {:.1} % ({low:.1} to {high:.1})", 100.0 * revenue));
    outcome.fact(
        "theory",
        format!("{:.1} % if no miner builds on its share in a race, {:.1} % if half do", 100.0 * none, 100.0 * half),
    );
    outcome.expect(*within.start() <= half, || format!("it gained {:.1} %, more than theory expects", 100.0 * revenue));
}

fn flood(settings: &Settings, outcome: &mut Outcome, progress: &mut Progress<'_>) {
    let kinds = [Junk::Misfits, Junk::Orphans, Junk::Idle];
    let flooders = (settings.nodes / 20).max(kinds.len());
    let mut parts = vec![1.0; settings.nodes];
    parts.extend(vec![0.0; flooders]);
    let mut pool = Pool::new(settings, &parts, COMMON, 0);
    let begin = pool.world.moment().now + GATHERING;
    for number in 0..flooders {
        let node = pool.node(settings.nodes + number, false, None);
        let nursery = Sharechain::new(pool.network);
        let flooder = Flooder::new(node, kinds[number % kinds.len()], nursery, begin);
        pool.world.add(Box::new(flooder), [address_of(settings.nodes + number)]);
    }
    pool.gather(0..settings.nodes + flooders);
    let shares = settings.shares as usize;
    pool.mine(shares, &mut |found| progress("mining", found, shares));
    pool.settle();
    pool.expect_peace(outcome);
    let bad: HashSet<IpAddr> = (0..flooders).map(|number| address_of(settings.nodes + number).ip()).collect();
    let offences = |kind: usize| {
        let nodes = (0..settings.nodes).map(|number| pool.world.node(number));
        let of_kind = (0..flooders).filter(|number| number % kinds.len() == kind);
        let of_kind: HashSet<IpAddr> = of_kind.map(|number| address_of(settings.nodes + number).ip()).collect();
        nodes.flat_map(|node| node.offences()).filter(|(address, _)| of_kind.contains(&address.ip())).count()
    };
    let linked = (0..settings.nodes).filter(|number| {
        let status = pool.world.node(*number).swarm().status(pool.world.moment().for_swarm());
        status.peers.iter().any(|peer| bad.contains(&peer.address.ip()))
    });
    let sent: u64 = pool.world.agents().map(|agent| agent.bad_shares_sent()).sum();
    outcome.fact("flooders", flooders);
    outcome.fact("bad shares sent", sent);
    for (kind, name) in
        ["bans for shares that do not fit", "bans for shares without parents", "bans for shares without work"]
            .into_iter()
            .enumerate()
    {
        outcome.fact(name, offences(kind));
    }
    outcome.fact("still connected to one", format!("{} of {} nodes", linked.count(), settings.nodes));
    let most = (0..settings.nodes).map(|number| pool.world.node(number).chain().all().len()).max().unwrap_or_default();
    outcome.fact("most shares kept", format!("{most}, at most {}", pool.world.node(0).chain().shares_max()));
    let point = pool.point(settings.latency);
    outcome.fact("orphans", point.line());
    outcome.expect(offences(0) > 0, || "no node was banned for shares that do not fit".to_owned());
    outcome.expect(offences(2) > 0, || "no node was banned for shares without work".to_owned());
}
