//! Share version 36 follows 35, is left again and comes back, in a pool of four kinds of nodes: most behave as this
//! program does, some know nothing of version 36, two are as lax as c2pool, and one goes back to 35 alone.
//!
//! ```text
//!  voting    a fourth of the shares is by nodes that know only 35: not enough votes
//!  crossing  these stop for a while: 95 % of a window vote 36, and the first share of 36 splits them off
//!  apart     they continue with 35 on their own; lax nodes make bad shares, one node makes 35 in between
//!  leaving   all strict nodes vote 35: less than half of a window votes 36, and 35 follows 36
//!  return    they vote 36 again, and 36 follows 35
//!  confirmed after two windows of 36 they leave and return once more: the ratchet has another state then
//! ```

use sharechain::coin::Network;
use sharechain::share::{Bits, Share, ShareHash, ShareVersion, Weights};
use sharechain::testkit;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ShareVersion::{V35, V36};

use super::Progress;
use super::conduct::Policy;
use super::pool::{Pool, address_of};
use super::report::Outcome;
use super::scenario::Settings;
use super::succession::broken_rules;
use super::theory::whole;

/// Hashes that each share takes at least: with few, old shares have no weight in version 36's payouts.
const ATTEMPTS: u64 = 100;
/// Minimum chain length: a share names the one a hundred back, which a whole window must contain.
const LENGTH_MIN: u32 = 100;
/// Number of the newest shares whose successors are compared.
const COMPARED: usize = 10;
/// Share periods that finding a share takes: with two, nearly all shares have the easiest target. If targets differed
/// between branches, the world would not find fewer shares on the harder one.
const SLOWNESS: u32 = 2;
/// Number of lax nodes. Each builds on the other's shares.
const LAX: usize = 2;
/// Parts of the hash rate of each kind, of one.
const OLD_PART: f64 = 0.25;
const LAX_PART: f64 = 0.1;
/// Time without found shares, in which all others arrive.
const PAUSE: Duration = Duration::from_secs(60);
/// Maximum number of connections that are made in an hour between a node that knows only 35 and one of the others:
/// either dials the other a minute after it lost the connection.
const CONNECTIONS_MAX: f64 = 125.0;
/// Begin of the only offence between nodes of different versions: a confirmed version 36 needs its protocol version
/// (protocol-v36 section 2.3). It is no reason for a ban, only for a rest.
const TOO_OLD: &str = "protocol version";

/// Share that a node would make, in the fields that all nodes agree on.
#[derive(Debug, PartialEq)]
struct Next {
    version: ShareVersion,
    /// Far share, `max_bits`, `bits` and height.
    fields: (Option<ShareHash>, Bits, Bits, u32),
    payout_hash: Option<[u8; 32]>,
    weights: Arc<Weights>,
}

/// The pool, and what is known of its course.
struct Transition<'a> {
    pool: Pool,
    /// Nodes that know version 36 and follow its rules; the last goes back for a while.
    strict: usize,
    /// Nodes that know only version 35.
    old: Range<usize>,
    lax: Range<usize>,
    length: u32,
    /// Shares of the strict nodes' chain, oldest first.
    history: Vec<Arc<Share>>,
    progress: &'a mut Progress<'a>,
}

/// See [`Scenario::Transition`](super::Scenario::Transition).
pub(super) fn transition(settings: &Settings, outcome: &mut Outcome, progress: &mut Progress<'_>) {
    let mut course = Transition::new(settings, progress);
    course.voting(outcome);
    course.crossing(outcome);
    course.apart(outcome);
    course.leave_and_return(outcome);
    course.confirmation(outcome);
    course.leave_and_return(outcome);
    course.check_kinds(outcome);
}

impl<'a> Transition<'a> {
    fn new(settings: &Settings, progress: &'a mut Progress<'_>) -> Transition<'a> {
        // With shorter chains, nodes would not keep the far shares that they all need.
        let length = (settings.shares / 5).clamp(LENGTH_MIN, 240);
        let network = testkit::network_of_versions(length, 35..=36, ATTEMPTS);
        let before = testkit::network_of_versions(length, 35..=35, ATTEMPTS);
        let strict = settings.nodes;
        let old = strict..strict + (strict / 4).max(2);
        let lax = old.end..old.end + LAX;
        let mut pool = Pool::on(network, SLOWNESS, settings, &vec![0.0; lax.end], length, 0);
        for number in old.start..lax.end {
            let table: &'static Network = if old.contains(&number) { before } else { network };
            let mut node = pool.node_on(table, number, false, None);
            if lax.contains(&number) {
                node.conduct_mut().policy = Policy::Lax;
            }
            pool.world.add(Box::new(node), [address_of(number)]);
        }
        for number in 0..lax.end {
            pool.world.node_mut(number).conduct_mut().has_blocks = true;
        }
        pool.gather(0..lax.end);
        let history = pool.common.clone();
        Transition { pool, strict, old, lax, length, history, progress }
    }

    /// Shares the hash rate out, with this part of it for the nodes that know only version 35.
    fn share_out(&mut self, of_old: f64) {
        let each = |part: f64, nodes: usize| vec![part / whole(nodes); nodes];
        let mut parts = each(1.0 - of_old - LAX_PART, self.strict);
        parts.extend(each(of_old, self.old.len()));
        parts.extend(each(LAX_PART, self.lax.len()));
        self.pool.world.share_out(&parts);
    }

    /// Makes all strict nodes vote so, or as the chain decides.
    fn set_votes(&mut self, vote: Option<u64>) {
        for number in 0..self.strict {
            self.pool.world.node_mut(number).conduct_mut().voted = vote;
        }
    }

    /// The node that goes back.
    fn returner(&self) -> usize {
        self.strict - 1
    }

    fn mine(&mut self, shares: usize, step: &str) {
        let progress = &mut *self.progress;
        self.pool.mine(shares, &mut |found| progress(step, found, 14 * self.length as usize));
        self.note_history();
    }

    /// Mines until the strict nodes' best share has this version; returns the number of shares that took.
    fn until(&mut self, version: ShareVersion, most: usize, step: &str) -> Option<usize> {
        (1..=most).find(|_| {
            self.mine(1, step);
            self.history.last().is_some_and(|best| best.version() == version)
        })
    }

    /// Adds the new shares of the first node's chain to the history.
    fn note_history(&mut self) {
        let chain = self.pool.world.node(0).chain();
        let known: HashMap<ShareHash, usize> = (0..).zip(&self.history).map(|(at, share)| (share.hash(), at)).collect();
        let all = chain.choice().best.into_iter().flat_map(|best| chain.all().chain(best, u32::MAX));
        let mut kept = None;
        let mut new: Vec<Arc<Share>> = Vec::new();
        for hash in all {
            kept = known.get(&hash).copied();
            if kept.is_some() {
                break;
            }
            new.extend(chain.share(hash).cloned());
        }
        self.history.truncate(kept.map_or(0, |at| at + 1));
        self.history.extend(new.into_iter().rev());
    }

    fn voting(&mut self, outcome: &mut Outcome) {
        self.share_out(OLD_PART);
        self.mine(self.length as usize / 2, "voting");
        self.check(outcome);
        let early = self.history.iter().filter(|share| share.version() == V36).count();
        outcome.expect(early == 0, || format!("{early} shares have version 36 before the votes for it"));
        let (best, bests) = (self.pool.best_of(0), self.old.clone().map(|number| self.pool.best_of(number)));
        let behind = bests.filter(|of_old| *of_old != best).count();
        outcome.expect(behind == 0, || format!("{behind} nodes that know 35 left before the first share of 36"));
    }

    fn crossing(&mut self, outcome: &mut Outcome) {
        self.share_out(0.0);
        let crossed = self.until(V36, 2 * self.length as usize, "crossing");
        outcome.expect(crossed.is_some(), || "95 % vote 36, and 35 is still made".to_owned());
        outcome.fact("36", at(crossed));
        // Far enough ahead that the others' branch does not overtake it by luck.
        self.mine(self.length as usize / 4, "crossing");
        self.check(outcome);
        let first = self.history.iter().find(|share| share.version() == V36);
        let fork = first.and_then(|share| share.previous());
        let elsewhere = self.old.clone().filter(|number| self.pool.best_of(*number) != fork).count();
        outcome.expect(elsewhere == 0, || format!("{elsewhere} nodes that know 35 did not stop below the first of 36"));
    }

    fn apart(&mut self, outcome: &mut Outcome) {
        self.share_out(OLD_PART);
        let (returner, lax) = (self.returner(), self.lax.clone());
        let (begin, before) = (self.pool.world.moment().elapsed, self.pool.world.traffic().connections);
        self.pool.world.node_mut(returner).conduct_mut().policy = Policy::Back;
        let (mut alone, mut followed) = (Vec::new(), 0);
        for _ in 0..2 {
            self.mine(self.length as usize * 2 / 3, "apart");
            self.pool.world.run_for(PAUSE);
            for number in [lax.start, lax.start, lax.end - 1, returner] {
                self.pool.world.find_now(number);
                self.pool.world.run_for(PAUSE);
            }
            alone.extend(self.pool.best_of(returner));
            self.check(outcome);
            followed += self.check_lax(outcome);
        }
        outcome.expect(followed > 0, || "no lax node builds on a lax share".to_owned());
        self.pool.world.node_mut(returner).conduct_mut().policy = Policy::Strict;
        let of_35 = alone
            .iter()
            .filter(|hash| self.history.iter().any(|share| share.hash() == **hash && share.version() == V35));
        let of_35 = of_35.count();
        outcome.expect(of_35 == alone.len(), || format!("{of_35} of {} shares of 35 on 36 stayed", alone.len()));
        let hours = (self.pool.world.moment().elapsed - begin).as_secs_f64() / 3600.0;
        #[expect(clippy::cast_precision_loss, reason = "fewer connections than 2^53")]
        let connections = (self.pool.world.traffic().connections - before) as f64;
        let hourly = connections / hours / whole(self.old.len() * (self.strict + self.lax.len()));
        outcome.fact("connections while apart", format!("{hourly:.1} an hour for each pair of an old and a new node"));
        outcome.expect(hourly <= CONNECTIONS_MAX, || format!("a storm of {hourly:.1} connections an hour"));
    }

    fn leave_and_return(&mut self, outcome: &mut Outcome) {
        let window = self.length as usize;
        self.set_votes(Some(V35.number()));
        let left = self.until(V35, 2 * window, "leaving");
        outcome.expect(left.is_some(), || "the votes were withdrawn, and 36 is still made".to_owned());
        outcome.fact("35 again", at(left));
        self.mine(window / 2, "leaving");
        self.check(outcome);
        self.set_votes(None);
        let back = self.until(V36, 3 * window, "return");
        outcome.expect(back.is_some(), || "the votes are back, and 35 is still made".to_owned());
        outcome.fact("36 again", at(back));
        self.mine(window / 4, "return");
        self.check(outcome);
    }

    fn confirmation(&mut self, outcome: &mut Outcome) {
        let strict = self.strict;
        let confirmed = |pool: &Pool| {
            let ratchets = (0..strict).filter_map(|number| pool.world.node(number).chain().ratchet());
            ratchets.filter(|ratchet| ratchet.is_confirmed()).count()
        };
        for _ in 0..10 {
            self.mine(self.length as usize / 2, "confirmation");
            if confirmed(&self.pool) == self.strict {
                break;
            }
        }
        self.check(outcome);
        let confirmed = confirmed(&self.pool);
        outcome.expect(confirmed == self.strict, || format!("only {confirmed} nodes confirmed version 36"));
    }

    /// Checks that the strict nodes agree on the best share and all that follows from the newest ones, and that their
    /// chain is as the rules want it.
    fn check(&mut self, outcome: &mut Outcome) {
        self.pool.settle();
        self.note_history();
        self.pool.expect_peace(outcome);
        let others = 0..self.returner();
        let state = |number: usize| self.pool.world.node(number).chain().ratchet().map(|ratchet| ratchet.state());
        let differing = others.clone().filter(|number| state(*number) != state(0)).count();
        outcome.expect(differing == 0, || format!("{differing} ratchets are not {:?}", state(0)));
        outcome.fact("ratchets", state(0).map_or_else(String::new, |state| state.to_string()));

        let newest: Vec<ShareHash> = self.history.iter().rev().take(COMPARED).map(|share| share.hash()).collect();
        let of_first = self.next_after(0, &newest);
        for number in others.skip(1) {
            let of_this = self.next_after(number, &newest);
            let differing = of_this.iter().zip(&of_first).filter(|(one, other)| one != other).count();
            outcome.expect(differing == 0, || format!("node {number} would pay otherwise after {differing} shares"));
        }
    }

    /// What a node requires of the next share after each of these.
    fn next_after(&mut self, number: usize, shares: &[ShareHash]) -> Vec<Option<Next>> {
        let chain = self.pool.world.node_mut(number).chain_mut();
        let next = shares.iter().map(|share| {
            let tip = chain.tip_at(Some(*share));
            let best = tip.best()?;
            let next = tip.next_share(best.block_target())?;
            let wanted = best.timestamp() + chain.network().share_period;
            let (max_bits, bits) = next.requirements.targets(next.version, wanted, best.target());
            Some(Next {
                version: next.version,
                fields: (next.requirements.far_share_hash, max_bits, bits, next.requirements.absheight),
                payout_hash: next.additions.and_then(|additions| additions.payout_hash),
                weights: next.weights,
            })
        });
        next.collect()
    }

    /// Checks that shares of lax nodes convince only lax nodes; returns how many were built on such shares.
    fn check_lax(&self, outcome: &mut Outcome) -> usize {
        let lax = self.lax.clone().map(|number| self.pool.world.node(number));
        let forged: HashSet<ShareHash> = lax.clone().flat_map(|node| node.conduct().forged()).copied().collect();
        let chains = lax.map(|node| node.chain());
        let parents = chains
            .flat_map(|chain| forged.iter().filter_map(|hash| chain.share(*hash)).filter_map(|share| share.previous()));
        let on_forged = parents.filter(|parent| forged.contains(parent)).count();
        let mut convinced = 0;
        let found = self.pool.world.found().iter().filter(|found| forged.contains(&found.hash));
        for found in found {
            let agents = found.arrivals.iter().map(|(agent, _)| *agent as usize);
            convinced += agents.filter(|agent| !self.lax.contains(agent)).count();
        }
        outcome.expect(convinced == 0, || format!("nodes that are not lax took {convinced} shares of lax ones"));
        on_forged
    }

    /// Checks the whole course: successions by the rules, and bans between the kinds of nodes.
    fn check_kinds(&self, outcome: &mut Outcome) {
        let finders: HashMap<ShareHash, usize> =
            self.pool.world.found().iter().map(|found| (found.hash, found.finder)).collect();
        let is_free = |share: &Share| {
            let finder = finders.get(&share.hash());
            finder.is_none_or(|finder| *finder >= self.returner())
        };
        for broken in broken_rules(&self.history, self.length as usize, is_free) {
            outcome.broken.push(broken);
        }
        let forged = self.lax.clone().flat_map(|number| self.pool.world.node(number).conduct().forged());
        let forged: HashSet<ShareHash> = forged.copied().collect();
        let followed = self.history.iter().filter(|share| forged.contains(&share.hash())).count();
        outcome.expect(followed == 0, || format!("the chain has {followed} shares of lax nodes"));
        outcome.fact("shares of lax nodes refused", forged.len());
        for (name, by, of) in [
            ("offences of old nodes", 0..self.strict, self.old.clone()),
            ("offences seen by old nodes", self.old.clone(), 0..self.strict),
            ("offences of lax nodes", 0..self.strict, self.lax.clone()),
            ("offences seen by lax nodes", self.lax.clone(), 0..self.strict),
        ] {
            let is_expected = name == "offences of old nodes";
            let offences = self.offences(by, of);
            let (too_old, bans): (Vec<&str>, Vec<&str>) =
                offences.into_iter().partition(|what| is_expected && what.starts_with(TOO_OLD));
            outcome.fact(name, format!("{}, and {} for the protocol version", bans.len(), too_old.len()));
            outcome.expect(bans.is_empty(), || format!("{name}: {}", bans[0]));
            outcome.expect(!is_expected || !too_old.is_empty(), || "36 is confirmed, and old nodes connect".to_owned());
        }
        let of_36 = self.old.clone().flat_map(|number| {
            let chain = self.pool.world.node(number).chain();
            let all = chain.all().heads().iter().flat_map(|head| chain.all().chain(*head, u32::MAX));
            all.filter(|hash| chain.share(*hash).is_some_and(|share| share.version() == V36)).collect::<Vec<_>>()
        });
        let of_36 = of_36.count();
        outcome.expect(of_36 == 0, || format!("nodes that know 35 keep {of_36} shares of 36"));
        let of_old: HashSet<_> = self.old.clone().map(|number| self.pool.best_of(number)).collect();
        outcome.fact("branches of old nodes", of_old.len());
    }

    /// Offences that nodes recorded of others.
    fn offences(&self, by: Range<usize>, of: Range<usize>) -> Vec<&str> {
        let of: HashSet<IpAddr> = of.map(|number| address_of(number).ip()).collect();
        let all = by.flat_map(|number| self.pool.world.node(number).offences());
        all.filter(|(address, _)| of.contains(&address.ip())).map(|(_, what)| &**what).collect()
    }
}

/// Number of shares after which something happened.
fn at(after: Option<usize>) -> String {
    after.map_or_else(|| "never".to_owned(), |shares| format!("after {shares} shares"))
}
