//! Computes the snapshot from a look at the chain and other snapshots: pure arithmetic, outside the chain's owner.

use sharechain::chain::pool::{Carried, Looked, Measured, OwnInHour, PayeeAmount, PayeeLoss, PayeePart, PoolView};
use sharechain::chain::{Early, MergedWindowWeights, OwnCounts, RefusedLately, ratio, true_division};
use sharechain::share::{Payee, ShareVersion};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ruint::aliases::U320;

use super::merged_payouts::merged_payouts;
use super::{
    Config, Daemon, Estimate, LastHour, Local, Luck, NextBlock, Pool, Snapshot, Stretch, Succession, difficulty,
};
use crate::bitcoind::Health;
use crate::merged::{ChainStatus, State};
use crate::rates::Rates;
use crate::runtime::disk::Troubles;
use crate::template::Template;
use crate::work::Gate;

/// Age of a template that raises a warning: the daemon delivers one every few seconds.
const TEMPLATE_AGE_MAX: Duration = Duration::from_secs(60);

/// Minimum number of expected blocks for luck to be meaningful.
const EXPECTED_MIN: f64 = 0.01;

/// Quantile of the normal distribution for a 95 % interval.
const Z_95: f64 = 1.959_963_984_540_054;

/// Inputs of the snapshot other than the chain.
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
    pub(super) merged: Arc<Vec<ChainStatus>>,
    /// Version of the next share that this node makes.
    pub(super) next_version: Option<ShareVersion>,
    pub(super) merged_weights: Option<Arc<MergedWindowWeights>>,
    pub(super) early: Early,
    pub(super) refused: RefusedLately,
}

/// Computes the snapshot, and the state for the next look.
pub(super) fn sum(looked: Looked, others: Others) -> (Snapshot, Carried) {
    let (view, carried) = looked.view();
    (snapshot(view, others), carried)
}

fn snapshot(view: PoolView, others: Others) -> Snapshot {
    let block = others.template.as_ref().map(|template| next_block(template, &others.config));
    let pool = pool(&view, block.as_ref());
    let payouts: BTreeMap<Payee, u64> =
        view.payouts.iter().map(|PayeeAmount { payee, amount }| (payee.clone(), *amount)).collect();
    let mut local = local(&view, &others.rates, pool.as_ref());
    local.payout = payouts.get(&*others.config.payout_address).copied().unwrap_or_default();
    let network = others.config.network;
    let succession = Succession::of(&view, network, others.next_version);
    let merged_weights = others.merged_weights.as_deref().map(|window| &window.weights);
    let merged_payouts = network
        .paid_merged_chain()
        .map_or_else(Vec::new, |chain| merged_payouts(chain, &view, merged_weights, &others.merged));
    let clock = clock_trouble(&others.health, others.early);
    // First, since it makes much else go wrong.
    let warnings = clock.iter().cloned().chain(warnings(&view, &others)).collect();
    let Others { config, started, now, health, rates, peers, gate, merged, merged_weights, refused, .. } = others;
    Snapshot {
        time: now,
        warnings,
        clock,
        refused,
        waiting: gate.reason().map(Into::into),
        daemon: Daemon {
            version: health.version,
            trouble: health.trouble,
            gone: health.gone,
            p2p_connected: health.p2p_connected,
            template_seconds: health.template_took.map(|took| took.as_secs_f64()),
            seconds_since_success: health.last_success.map(|at| at.elapsed().as_secs_f64()),
        },
        merged,
        block,
        pool,
        local,
        rates,
        payouts,
        merged_payouts,
        merged_weights,
        succession,
        users: view.users.iter().map(|PayeePart { payee, part }| (payee.clone(), *part)).collect(),
        user_stales: user_stales(&view),
        peers,
        chain: Arc::new(view),
        ..Snapshot::new(&config, started)
    }
}

fn next_block(template: &Template, config: &Config) -> NextBlock {
    let target = template.block_target();
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

fn pool(view: &PoolView, block: Option<&NextBlock>) -> Option<Pool> {
    let easiest = view.max_target?;
    let (hour, stretch) = (stretch(&view.hour?), stretch(&view.stretch?));
    let votes_total = view.votes.values().copied().fold(U320::ZERO, |sum, votes| sum + votes);
    let total = hour.good + hour.orphan + hour.dead;
    Some(Pool {
        hour,
        stretch,
        share_difficulty: difficulty::bdiff(easiest),
        attempts_to_share: easiest.attempts(),
        seconds_to_block: block
            .filter(|_| hour.hash_rate > 0.0)
            .map(|block| difficulty::hashes(block.attempts) / hour.hash_rate),
        desired_versions: view
            .votes
            .iter()
            .map(|(version, votes)| (*version, ratio(*votes, votes_total) * total))
            .collect(),
        luck: luck(view),
    })
}

fn luck(view: &PoolView) -> Luck {
    let found = u32::try_from(view.blocks.len()).unwrap_or(u32::MAX);
    let expected = view.blocks_expected;
    Luck { found, expected, ratio: (expected >= EXPECTED_MIN).then(|| f64::from(found) / expected) }
}

fn local(view: &PoolView, rates: &Rates, pool: Option<&Pool>) -> Local {
    let OwnCounts { made, orphan, dead } = view.own_counts;
    let lost = orphan + dead;
    let pool_stale = pool.map_or(0.0, |pool| pool.hour.stale_proportion);
    let stale = estimate(lost, made);
    let against_pool = |lost: f64| (1.0 - lost) / (1.0 - pool_stale);
    let difficulties = view.own_targets.iter().map(|last| (last.payee.clone(), difficulty::bdiff(last.target)));
    Local {
        hash_rate: rates.hash_rate,
        late_hash_rate: rates.late_hash_rate,
        shares: made,
        orphan,
        dead,
        stale,
        efficiency: stale.map(|stale| Estimate {
            value: against_pool(stale.value),
            low: against_pool(stale.high),
            high: against_pool(stale.low),
        }),
        efficiency_if_miners_perfect: (made > 0).then(|| against_pool(f64::from(orphan) / f64::from(made))),
        last_hour: last_hour(view),
        last_difficulties: difficulties.collect(),
        seconds_to_share: pool
            .filter(|_| rates.hash_rate > 0.0)
            .map(|pool| difficulty::hashes(pool.attempts_to_share) / rates.hash_rate),
        payout: 0,
    }
}

/// Wilson score interval of the part `count / of`.
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

fn last_hour(view: &PoolView) -> LastHour {
    let Some(measured) = view.hour else { return LastHour::default() };
    let OwnInHour { shares, orphan, dead, work } = view.own_in_hour;
    let nonstale_hash_rate = ratio(work.0, U320::from(measured.seconds));
    LastHour { unstale: shares, orphan, dead, nonstale_hash_rate }
}

fn user_stales(view: &PoolView) -> BTreeMap<Payee, f64> {
    let part = |loss: &PayeeLoss| f64::from(loss.stales.stale) / f64::from(loss.stales.total.max(1));
    view.stales.iter().map(|loss| (loss.payee.clone(), part(loss))).collect()
}

/// Returns the warning that our clock is wrong; `None` without evidence.
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

fn warnings(view: &PoolView, others: &Others) -> Vec<String> {
    let mut warnings = others.disk.sentences();
    let total = view.votes.values().copied().fold(U320::ZERO, |sum, votes| sum + votes);
    if let Some((version, votes)) = view.votes.iter().max_by_key(|(_, votes)| **votes) {
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
    warnings.extend(others.merged.iter().filter_map(merged_warning));
    warnings
}

/// Returns the warning that a merged chain is not mined as it should be, if so.
fn merged_warning(chain: &ChainStatus) -> Option<String> {
    let name = &chain.name;
    let because = chain.trouble.as_ref().map_or_else(String::new, |trouble| format!(": {trouble}"));
    let condition = match chain.state {
        // Its daemon may be about to answer for the first time, and trouble beside current work is about that work.
        State::Starting | State::Mining if because.is_empty() => return None,
        State::Starting => " is not mined yet",
        State::Mining => "",
        State::Waiting => " is mined with its daemon's last work",
        State::LeftOut => " is not mined",
    };
    Some(format!("merged chain {name}{condition}{because}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::http::testing;

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
    fn a_merged_chain_that_is_not_mined_as_it_should_be_is_named_with_its_trouble() {
        let warning = |state, trouble: Option<&str>| {
            let chain = ChainStatus { state, trouble: trouble.map(Into::into), ..testing::merged_chain("doge") };
            merged_warning(&chain)
        };
        assert_eq!([warning(State::Mining, None), warning(State::Starting, None)], [None, None]);
        let too_easy = warning(State::Mining, Some("its target is too easy")).unwrap();
        assert_eq!(too_easy, "merged chain doge: its target is too easy");
        let starting = warning(State::Starting, Some("no answer")).unwrap();
        assert_eq!(starting, "merged chain doge is not mined yet: no answer");
        let waiting = warning(State::Waiting, Some("no answer")).unwrap();
        assert!(waiting.contains("its daemon's last work") && waiting.ends_with(": no answer"), "{waiting}");
        assert_eq!(warning(State::LeftOut, None).unwrap(), "merged chain doge is not mined");
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
}
