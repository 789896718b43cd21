//! Samples of the snapshot for the graphs, and the outcome of our own shares.

use sharechain::share::{Share, ShareHash};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::view::ONLY;
use super::{Graphs, Inputs};
use crate::chain;
use crate::rates::Rates;
use crate::view::snapshot::Snapshot;
use crate::view::snapshot::difficulty::hashes;

/// Minimum height of the chain for samples of it.
const HEIGHT_MIN: u32 = 10;

/// Seconds after which the outcome of an own share is looked up.
const SETTLED_AFTER: f64 = 200.0;

/// Maximum number of own shares waiting for that.
const UNSETTLED_MAX: usize = 10_000;

/// Takes samples: counters as differences, other values as they are.
#[derive(Debug)]
pub(super) struct Sampler {
    rates: Arc<Rates>,
    received: u64,
    sent: u64,
    sampled: f64,
}

impl Sampler {
    /// Changes before `now` are not drawn.
    pub(super) fn new(inputs: &Inputs, now: f64) -> Self {
        let rates = inputs.rates.borrow().clone();
        Self { rates, received: inputs.traffic.received(), sent: inputs.traffic.sent(), sampled: now }
    }

    /// Adds a sample to each graph.
    pub(super) fn sample(&mut self, graphs: &Graphs, inputs: &Inputs, now: f64) {
        // The middle of the measured period; bins are far wider.
        let middle = f64::midpoint(self.sampled.min(now), now);
        self.sampled = now;
        self.miners(graphs, inputs.rates.borrow().clone(), middle);
        let (received, sent) = (inputs.traffic.received(), inputs.traffic.sent());
        let grown = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let traffic = [("p2p/in".into(), grown(received, self.received)), ("p2p/out".into(), grown(sent, self.sent))];
        (self.received, self.sent) = (received, sent);
        graphs.add("traffic_rate", middle, &traffic);
        let snapshot = inputs.snapshot.borrow().clone();
        measured(graphs, &snapshot, now);
        graphs.0.lock().log.note(&snapshot, now);
    }

    /// Samples the miners' work since the last sample.
    fn miners(&mut self, graphs: &Graphs, rates: Arc<Rates>, at: f64) {
        // An account that was closed and reopened has less than before.
        let grown = |now: f64, before: Option<f64>| before.filter(|before| *before <= now).map_or(now, |b| now - b);
        let one = |value| [(Arc::from(ONLY), value)];
        graphs.add("local_hash_rate", at, &one(grown(rates.hashes, Some(self.rates.hashes))));
        graphs.add("local_dead_hash_rate", at, &one(grown(rates.late_hashes, Some(self.rates.late_hashes))));
        let (mut worked, mut late) = (Vec::new(), Vec::new());
        for (name, done) in &rates.workers {
            let before = self.rates.workers.get(name);
            let work = grown(done.hashes, before.map(|before| before.hashes));
            let dead = grown(done.late_hashes, before.map(|before| before.late_hashes));
            if work > 0.0 {
                worked.push((name.clone(), work));
            }
            if dead > 0.0 {
                late.push((name.clone(), dead));
            }
        }
        graphs.add("miner_hash_rates", at, &worked);
        graphs.add("miner_dead_hash_rates", at, &late);
        self.rates = rates;
    }
}

/// Samples the values that are no counters.
fn measured(graphs: &Graphs, snapshot: &Snapshot, now: f64) {
    let one = |value| [(Arc::from(ONLY), value)];
    if let Ok(process) = procfs_memory() {
        graphs.add("memory_usage", now, &one(process));
    }
    if let Some(latency) = snapshot.daemon.template_seconds {
        graphs.add("getwork_latency", now, &one(latency));
    }
    let (incoming, outgoing) = (snapshot.peers.incoming as f64, snapshot.peers.outgoing as f64);
    graphs.add("peers", now, &[("incoming".into(), incoming), ("outgoing".into(), outgoing)]);
    let Some(pool) = snapshot.pool.as_ref().filter(|_| snapshot.chain.height >= HEIGHT_MIN) else { return };
    let rates = [("good", pool.hour.good), ("orphan", pool.hour.orphan), ("doa", pool.hour.dead)];
    let rates: Vec<_> =
        rates.iter().filter(|(_, rate)| *rate > 0.0).map(|(key, rate)| ((*key).into(), *rate)).collect();
    graphs.add("pool_rates", now, &rates);
    let versions: Vec<_> =
        pool.desired_versions.iter().map(|(version, rate)| (version.to_string().into(), *rate)).collect();
    graphs.add("desired_version_rates", now, &versions);
    if snapshot.block.is_none() {
        return;
    }
    let coins = |satoshis: u64| satoshis as f64 / 1e8;
    graphs.add("current_payout", now, &one(coins(snapshot.local.payout)));
    let of_miners: Vec<_> = snapshot
        .rates
        .payees
        .iter()
        .filter(|(_, done)| done.hash_rate > 0.0)
        .filter_map(|(payee, _)| Some((payee.clone(), coins(*snapshot.payouts.get(&**payee)?))))
        .collect();
    graphs.add("current_payouts", now, &of_miners);
}

/// Own shares whose outcome is open.
#[derive(Debug, Default)]
pub(super) struct OwnShares {
    waiting: VecDeque<FoundShare>,
    /// Late shares, for which another event follows when they are verified.
    late: HashSet<ShareHash>,
}

#[derive(Debug, Clone, Copy)]
struct FoundShare {
    hash: ShareHash,
    at: f64,
    hashes: f64,
    is_late: bool,
}

impl OwnShares {
    /// Records an own share; `is_late` if it came too late to be the tip's child.
    pub(super) fn found(&mut self, graphs: &Graphs, share: &Share, is_late: bool, now: f64) {
        let hash = share.hash();
        if self.late.contains(&hash) || self.waiting.len() >= UNSETTLED_MAX {
            return;
        }
        if is_late {
            self.late.insert(hash);
        }
        let hashes = hashes(share.attempts());
        let kind = if is_late { "dead" } else { "good" };
        graphs.add("local_share_hash_rates", now, &[(kind.into(), hashes)]);
        self.waiting.push_back(FoundShare { hash, at: now, hashes, is_late });
    }

    /// Looks up the outcome of shares that are old enough.
    pub(super) async fn settle(&mut self, graphs: &Graphs, chain: &chain::Handle, now: f64) {
        let mut old = Vec::new();
        while self.waiting.front().is_some_and(|found| now - found.at >= SETTLED_AFTER) {
            old.extend(self.waiting.pop_front());
        }
        if old.is_empty() {
            return;
        }
        let asked: Vec<ShareHash> = old.iter().map(|found| found.hash).collect();
        let in_chain: Option<HashMap<ShareHash, bool>> = chain
            .look(move |chain| {
                let best = chain.choice().best;
                let is_in = |hash| best.is_some_and(|best| chain.all().is_ancestor(hash, best) == Some(true));
                asked.into_iter().map(|hash| (hash, is_in(hash))).collect()
            })
            .await;
        let Some(in_chain) = in_chain else { return };
        for FoundShare { hash, at, hashes, is_late } in old {
            self.late.remove(&hash);
            let moved = match (in_chain.get(&hash), is_late) {
                (Some(true), true) => [("dead".into(), -hashes), ("good".into(), hashes)],
                (Some(false), false) => [("good".into(), -hashes), ("orphan".into(), hashes)],
                _ => continue,
            };
            graphs.add("local_share_hash_rates", at, &moved);
        }
    }
}

/// Memory of this process in bytes.
fn procfs_memory() -> std::io::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: Option<f64> = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    Ok(pages.ok_or_else(|| std::io::Error::other(text))? * rustix::param::page_size() as f64)
}
