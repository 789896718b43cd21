//! Makes the snapshot of a look at the chain and of the other parts' snapshots: pure arithmetic, away from the chain's owner.

use sharechain::chain::{Early, ratio, stales_by_payee, true_division};
use sharechain::share::{Payee, Share, ShareHash, ShareVersion, StaleInfo, Weights};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ruint::aliases::U320;

use super::look::{Carried, Looked, Measured};
use super::{
    Chain, Config, Daemon, Estimate, LastHour, Local, Luck, NextBlock, Pool, Snapshot, SolvedBlock, Stretch,
    difficulty, own_counts, target_of,
};
use crate::bitcoind::Health;
use crate::rates::Rates;
use crate::runtime::disk::Troubles;
use crate::template::Template;
use crate::work::Gate;

/// Templates older than this are told of: the daemon gives one every few seconds.
const TEMPLATE_AGE_MAX: Duration = Duration::from_secs(60);

/// Blocks expected below which luck says nothing.
const EXPECTED_MIN: f64 = 0.01;

/// The normal distribution's quantile of a 95 % interval.
const Z_95: f64 = 1.959_963_984_540_054;

/// What figures are made from beside the chain.
#[derive(Debug)]
pub(super) struct Others {
    pub(super) config: Config,
    pub(super) started: f64,
    pub(super) now: f64,
    pub(super) template: Option<Arc<Template>>,
    pub(super) health: Health,
    pub(super) rates: Arc<Rates>,
    pub(super) peers: Arc<p2p::Status>,
    pub(super) gate: Gate,
    pub(super) disk: Arc<Troubles>,
    pub(super) early: Early,
}

/// The figures, and what the next look goes on from.
pub(super) fn sum(looked: Looked, others: Others) -> (Snapshot, Carried) {
    let block = others.template.as_ref().map(|template| next_block(template, &others.config));
    let pool = pool(&looked, block.as_ref());
    let payouts = match (&looked.window, &block) {
        (Some(weights), Some(block)) => payouts(weights, block.value, &looked.donation),
        _ => BTreeMap::new(),
    };
    let mut local = local(&looked, &others.rates, pool.as_ref());
    local.payout = payouts.get(&*others.config.payout_address).copied().unwrap_or_default();
    let clock = clock_trouble(&others.health, others.early);
    // It makes much else go wrong, so it comes first.
    let warnings = clock.iter().cloned().chain(warnings(&looked, &others)).collect();
    let Others { config, started, now, health, rates, peers, gate, .. } = others;
    let snapshot = Snapshot {
        time: now,
        warnings,
        clock,
        waiting: gate.reason().map(Into::into),
        daemon: Daemon {
            version: health.version,
            trouble: health.trouble,
            gone: health.gone,
            p2p_connected: health.p2p_connected,
            template_seconds: health.template_took.map(|took| took.as_secs_f64()),
            seconds_since_success: health.last_success.map(|at| at.elapsed().as_secs_f64()),
        },
        block,
        pool,
        local,
        rates,
        payouts,
        users: users(&looked.users),
        user_stales: user_stales(&looked.carried),
        peers,
        ..Snapshot::new(&config, started)
    };
    let Looked { carried, height, shares, verified, heads, verified_heads, tails, verified_tails, own, recent, .. } =
        looked;
    let blocks = blocks(&carried, &|hash| own.contains(&hash));
    let chain = Chain {
        best: carried.chain.front().map(|best| best.hash()),
        height,
        absolute_height: carried.chain.front().map_or(0, |best| best.absheight()),
        shares,
        verified,
        heads,
        verified_heads,
        tails,
        verified_tails,
        own: own.into_iter().collect(),
        blocks,
        recent,
    };
    (Snapshot { chain, ..snapshot }, carried)
}

fn next_block(template: &Template, config: &Config) -> NextBlock {
    let target = target_of(template);
    let difficulty = difficulty::bdiff(target);
    NextBlock {
        height: template.height,
        previous: template.previous_block.to_string(),
        difficulty,
        attempts: target.attempts(),
        value: template.coinbase_value,
        transactions: template.transactions.len(),
        network_hash_rate: (difficulty * 2_f64.powi(32) / f64::from(config.network.parent.block_period.max(1))).floor(),
    }
}

fn stretch(measured: &Measured) -> Stretch {
    let per_second = |work| true_division(work, u64::from(measured.seconds));
    Stretch {
        shares: measured.shares,
        nonstale_hash_rate: measured.rate,
        hash_rate: measured.rate / (1.0 - measured.stale_proportion),
        stale_proportion: measured.stale_proportion,
        good: per_second(measured.counts.good),
        orphan: per_second(measured.counts.orphan),
        dead: per_second(measured.counts.dead),
    }
}

fn pool(looked: &Looked, block: Option<&NextBlock>) -> Option<Pool> {
    let best = looked.carried.chain.front()?;
    let (hour, stretch) = (stretch(&looked.hour?), stretch(&looked.stretch?));
    let votes_total = looked.votes.values().copied().fold(U320::ZERO, |sum, votes| sum + votes);
    let total = hour.good + hour.orphan + hour.dead;
    Some(Pool {
        hour,
        stretch,
        share_difficulty: difficulty::bdiff(best.max_target()),
        attempts_to_share: best.min_attempts(),
        seconds_to_block: block
            .filter(|_| hour.hash_rate > 0.0)
            .map(|block| difficulty::hashes(block.attempts) / hour.hash_rate),
        desired_versions: looked
            .votes
            .iter()
            .map(|(version, votes)| (*version, ratio(*votes, votes_total) * total))
            .collect(),
        luck: luck(&looked.carried),
    })
}

fn luck(carried: &Carried) -> Luck {
    let mut luck = Luck::default();
    for share in &carried.chain {
        luck.found += u32::from(share.is_block());
        let block = share.block_target().attempts();
        luck.expected += ratio(share.attempts().0, block.0);
    }
    if luck.expected >= EXPECTED_MIN {
        luck.ratio = Some(f64::from(luck.found) / luck.expected);
    }
    luck
}

fn local(looked: &Looked, rates: &Rates, pool: Option<&Pool>) -> Local {
    let (shares, orphan, dead) = own_counts(looked.own_counts);
    let lost = orphan + dead;
    let pool_stale = pool.map_or(0.0, |pool| pool.hour.stale_proportion);
    let stale = estimate(lost, shares);
    let against_pool = |lost: f64| (1.0 - lost) / (1.0 - pool_stale);
    Local {
        hash_rate: rates.hash_rate,
        late_hash_rate: rates.late_hash_rate,
        shares,
        orphan,
        dead,
        stale,
        efficiency: stale.map(|stale| Estimate {
            value: against_pool(stale.value),
            low: against_pool(stale.high),
            high: against_pool(stale.low),
        }),
        efficiency_if_miners_perfect: (shares > 0).then(|| against_pool(f64::from(orphan) / f64::from(shares))),
        last_hour: last_hour(looked),
        last_difficulties: last_difficulties(looked),
        seconds_to_share: pool
            .filter(|_| rates.hash_rate > 0.0)
            .map(|pool| difficulty::hashes(pool.attempts_to_share) / rates.hash_rate),
        payout: 0,
    }
}

/// Where the part `count / of` may really be: the Wilson score interval.
fn estimate(count: u32, of: u32) -> Option<Estimate> {
    if of == 0 {
        return None;
    }
    let n = f64::from(of);
    let value = f64::from(count) / n;
    let middle = value + Z_95 * Z_95 / (2.0 * n);
    let half = Z_95 * (value * (1.0 - value) / n + Z_95 * Z_95 / (4.0 * n * n)).sqrt();
    let below = 1.0 + Z_95 * Z_95 / n;
    let clip = |x: f64| x.clamp(0.0, 1.0);
    Some(Estimate { value, low: clip((middle - half) / below), high: clip((middle + half) / below) })
}

fn is_ours(looked: &Looked, share: &Share) -> bool {
    looked.own.contains(&share.hash())
}

fn last_hour(looked: &Looked) -> LastHour {
    let Some(measured) = looked.hour else { return LastHour::default() };
    let count = usize::try_from(measured.shares).unwrap_or(usize::MAX);
    let mut hour = LastHour::default();
    let mut work = U320::ZERO;
    for (index, share) in looked.carried.chain.iter().take(count).enumerate() {
        if !is_ours(looked, share) {
            continue;
        }
        hour.unstale += 1;
        hour.orphan += u32::from(share.data().stale_info == StaleInfo::ORPHAN);
        hour.dead += u32::from(share.data().stale_info == StaleInfo::DOA);
        // The oldest share's work was done before the time that is measured.
        if index + 1 < count {
            work += share.attempts().0;
        }
    }
    hour.nonstale_hash_rate = ratio(work, U320::from(measured.seconds));
    hour
}

fn last_difficulties(looked: &Looked) -> BTreeMap<Payee, f64> {
    let mut last = BTreeMap::new();
    for share in looked.carried.chain.iter().rev().filter(|share| is_ours(looked, share)) {
        last.insert(share.payee().clone(), difficulty::bdiff(share.target()));
    }
    last
}

fn payouts(weights: &Weights, value: u64, donation: &Payee) -> BTreeMap<Payee, u64> {
    sharechain::chain::payouts(weights, value, donation.clone())
}

fn users(weights: &Weights) -> BTreeMap<Payee, f64> {
    weights.by_payee.iter().map(|(payee, weight)| (payee.clone(), ratio(*weight, weights.total))).collect()
}

fn user_stales(carried: &Carried) -> BTreeMap<Payee, f64> {
    // Without the oldest, as the reference counts.
    let shares = carried.chain.iter().take(carried.chain.len().saturating_sub(1));
    let part = |stale: u32, total: u32| f64::from(stale) / f64::from(total.max(1));
    stales_by_payee(shares).into_iter().map(|(payee, of)| (payee, part(of.stale, of.total))).collect()
}

fn blocks(carried: &Carried, is_own: &dyn Fn(ShareHash) -> bool) -> Vec<SolvedBlock> {
    let solved = carried.chain.iter().filter(|share| share.is_block());
    solved
        .map(|share| SolvedBlock {
            time: share.timestamp(),
            hash: share.hash(),
            height: height_of(&share.data().coinbase),
            payee: share.payee().clone(),
            is_own: is_own(share.hash()),
        })
        .collect()
}

/// The height that a coinbase script begins with (BIP 34).
pub fn height_of(script: &[u8]) -> Option<u32> {
    let (first, rest) = script.split_first()?;
    match usize::from(*first) {
        0 => Some(0),
        length @ 1..=4 => {
            let bytes = rest.get(..length)?;
            let number = bytes.iter().rev().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
            // The topmost bit is a sign, and no height is negative.
            (bytes.last()? & 0x80 == 0).then_some(number)
        }
        small @ 0x51..=0x60 => u32::try_from(small - 0x50).ok(),
        _ => None,
    }
}

/// The warning that our clock is wrong; none while nothing speaks against it.
fn clock_trouble(health: &Health, early: Early) -> Option<String> {
    let advice = "have the system set it (timedatectl set-ntp true)";
    if let Some(seconds) = early.behind() {
        let networks = early.networks;
        return Some(format!(
            "our clock is wrong: shares from {networks} networks are {seconds} seconds ahead of it, and cannot be used; \
             {advice}"
        ));
    }
    let ahead = health.clock_ahead?;
    let side = if ahead > 0 { "ahead of" } else { "behind" };
    Some(format!(
        "our clock or bitcoind's is wrong: ours is {} seconds {side} bitcoind's; {advice}",
        ahead.unsigned_abs()
    ))
}

fn warnings(looked: &Looked, others: &Others) -> Vec<String> {
    let mut warnings = others.disk.sentences();
    let total = looked.votes.values().copied().fold(U320::ZERO, |sum, votes| sum + votes);
    if let Some((version, votes)) = looked.votes.iter().max_by_key(|(_, votes)| **votes) {
        let part = ratio(*votes, total);
        let newest = ShareVersion::ALL.iter().map(|version| version.number()).max().unwrap_or_default();
        if part > 0.5 && *version > newest {
            warnings.push(format!(
                "{:.0} % of the pool's last hour vote for share version {version}, which this software does not know: \
                 update it",
                100.0 * part
            ));
        }
    }
    warnings.extend(others.health.warnings.iter().map(|warning| format!("(from bitcoind) {warning}")));
    if let Some(trouble) = &others.health.trouble {
        warnings.push(format!("(from bitcoind) {trouble}"));
    }
    if let Some(age) = others.health.last_success.map(|at| Instant::now().saturating_duration_since(at))
        && age > TEMPLATE_AGE_MAX
    {
        warnings.push(format!("the last template from bitcoind is {} seconds old", age.as_secs()));
    }
    if let Some(reason) = others.gate.reason() {
        warnings.push(format!("no work for miners: {reason}"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_named_with_what_says_so() {
        let trouble = |clock_ahead, networks| {
            clock_trouble(&Health { clock_ahead, ..Health::default() }, Early { networks, seconds: 640 })
        };
        assert_eq!([trouble(None, 0), trouble(None, 2)], [None, None]);
        let by_shares = trouble(Some(-640), 3).unwrap();
        assert!(by_shares.contains("shares from 3 networks are 640 seconds ahead of it"), "{by_shares}");
        let behind = trouble(Some(-640), 2).unwrap();
        assert!(behind.contains("ours is 640 seconds behind bitcoind's"), "{behind}");
        assert!(trouble(Some(61), 0).unwrap().contains("ours is 61 seconds ahead of bitcoind's"));
    }

    #[test]
    fn an_interval_ends_where_the_measured_part_is_196_standard_errors_off() {
        for (count, of) in [(20, 223), (0, 10), (10, 10), (1, 3), (499, 1000)] {
            let found = estimate(count, of).unwrap();
            assert!(found.low <= found.value + 1e-12 && found.value <= found.high + 1e-12, "{found:?}");
            for end in [found.low, found.high].into_iter().filter(|end| *end > 1e-9 && *end < 1.0 - 1e-9) {
                let errors = (found.value - end).abs() / (end * (1.0 - end) / f64::from(of)).sqrt();
                assert!((errors - 1.96).abs() < 1e-3, "{found:?}");
            }
        }
        assert!(estimate(0, 10).unwrap().low < 1e-12);
        assert!(estimate(10, 10).unwrap().high > 1.0 - 1e-12);
        assert_eq!(estimate(0, 0), None);
    }

    #[test]
    fn a_height_is_read_from_any_push_that_a_coinbase_may_begin_with() {
        assert_eq!(height_of(&[2, 0xf6, 0]), Some(246));
        assert_eq!(height_of(&[3, 0x01, 0x02, 0x0d, 9, 9]), Some(0x0d_0201));
        assert_eq!(height_of(&[0x51, 0]), Some(1));
        assert_eq!(height_of(&[0]), Some(0));
        for odd in [&[][..], &[3, 1, 2], &[5, 1, 1, 1, 1, 1], &[1, 0x80], &[0x61]] {
            assert_eq!(height_of(odd), None, "{odd:?}");
        }
    }
}
