//! Miners and workers of this node, and payouts of the next block.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use sharechain::rules::FindersPart;
use sharechain::share::{Payee, ShareVersion};
use std::collections::BTreeMap;
use std::sync::Arc;
use stratum::mining::difficulty::HASHES_AT_DIFFICULTY_ONE;
use stratum::v1::session::JobTooBig;
use utoipa::ToSchema;

use super::connections::{self, MinerConnection};
use super::health::{Health, Signs, known};
use super::shares::Share;
use super::{Answer, LIMIT_DEFAULT, Limit, Problem, Sources};
use crate::rates::WorkerRates;
use crate::view::snapshot::{MergedPayout, MergedSource, Snapshot};

/// Maximum number of an address's shares in an answer.
const SHARES_MAX: usize = 25;

/// Miners of this node by payout address.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Miners {
    /// Ticker symbol of the coin.
    symbol: String,
    /// Number of addresses, those beyond the limit included.
    total: usize,
    /// One entry per address, highest hash rate first.
    miners: Vec<Miner>,
}

/// One payout address that is mined for at this node.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Miner {
    /// Payout address.
    address: String,
    /// Hash rate over the last ten minutes, late work included.
    hash_rate: f64,
    /// Part of the hash rate that was for outdated work.
    late_hash_rate: f64,
    /// Number of workers that mined for it in the last day.
    workers: usize,
    /// Number of open connections.
    connections: usize,
    /// Fraction of the pool's work.
    fraction: f64,
    /// Payout in the next block, in satoshis.
    expected_payout: u64,
    /// Number of accepted submissions.
    accepted: u64,
    /// Number of refused submissions.
    refused: u64,
    /// Time of the latest submission.
    last_seen: f64,
}

/// Workers of this node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Workers {
    /// Number of workers, those beyond the limit included.
    pub total: usize,
    /// Workers, highest hash rate first.
    pub workers: Vec<Worker>,
}

/// One worker: a device, or several with the same name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Name that it authorised with.
    pub name: String,
    /// Payout address that it mines for.
    pub address: String,
    /// Hash rate over the last ten minutes, late work included.
    pub hash_rate: f64,
    /// Part of the hash rate that was for outdated work.
    pub late_hash_rate: f64,
    /// Difficulty of its latest submission, in the unit of the coin's miners.
    pub difficulty: Option<f64>,
    /// Difficulty of its best submission, in the unit of the coin's miners.
    pub best_difficulty: Option<f64>,
    /// Number of accepted submissions.
    pub accepted: u64,
    /// Number of submissions for outdated work: credited, but lost as shares.
    pub late: u64,
    /// Number of refused submissions, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Number of open connections.
    pub connections: usize,
    /// Time of the latest submission.
    pub last_seen: f64,
    /// Health of the worker.
    pub health: Health,
    /// Reason why its device most likely cannot hold its jobs, if so.
    pub warning: Option<String>,
}

/// One payout address.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Address {
    /// Payout address.
    address: String,
    /// Ticker symbol of the coin.
    symbol: String,
    /// Warnings as sentences.
    warnings: Vec<String>,
    /// Hash rate over the last ten minutes, late work included.
    hash_rate: f64,
    /// Part of the hash rate that was for outdated work.
    late_hash_rate: f64,
    /// Workers of the last day, highest hash rate first.
    workers: Vec<Worker>,
    /// Open connections, 300 at most, highest hash rate first.
    connections: Vec<MinerConnection>,
    /// Number of accepted submissions.
    accepted: u64,
    /// Number of refused submissions, by reason.
    refused: BTreeMap<String, u64>,
    /// Difficulty of the best submission, in the unit of the coin's miners.
    best_difficulty: Option<f64>,
    /// Fraction of the next block.
    fraction: f64,
    /// Payout in the next block, in satoshis.
    expected_payout: u64,
    /// Estimated difficulty of its next share, in the unit of the coin's miners.
    share_difficulty: Option<f64>,
    /// Average time until its next share, in seconds; null while it does not mine here.
    seconds_to_share: Option<f64>,
    /// Number of its shares among the chain's newest.
    shares: usize,
    /// Number of the chain's newest shares that were searched.
    shares_of: usize,
    /// Timestamp of its newest share among them.
    last_share: Option<f64>,
    /// Fraction of its shares that is stale, as it announces; null without shares.
    stale_proportion: Option<f64>,
    /// Payout per block that it loses by stale shares, in satoshis.
    stale_cost: u64,
    /// True if its payout is below `dust_limit`.
    is_dust: bool,
    /// Payout below which the pool counts it as dust, in satoshis.
    dust_limit: u64,
    /// Its newest shares, forks included.
    recent_shares: Vec<Share>,
}

/// Payouts of the next block.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Payouts {
    /// Ticker symbol of the coin.
    pub symbol: String,
    /// Total of the coinbase, in satoshis; null without a template from the daemon.
    pub block_value: Option<u64>,
    /// Version of the newest share, whose rules divide the block.
    #[serde(default)]
    #[schema(required = true)]
    pub share_version: u64,
    /// Percentage of the block that its finder gets beside the payouts; 0 from share version 36 on.
    #[serde(default)]
    #[schema(required = true)]
    pub finder_percent: f64,
    /// Ticker symbol of the merged chain whose blocks can pay the miners; null if the network has none.
    #[serde(default)]
    pub merged_symbol: Option<String>,
    /// Number of payees, those beyond the limit included.
    pub total: usize,
    /// Payouts, largest first.
    pub payouts: Vec<Payout>,
}

/// Payout of one address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Payout {
    /// Payout address.
    pub address: String,
    /// Amount in satoshis.
    pub amount: u64,
    /// Fraction of the block.
    pub fraction: f64,
    /// True if it is mined for at this node.
    pub is_local: bool,
    /// True if the pool counts it as dust.
    pub is_dust: bool,
    /// Address on the merged chain, which shares of this payee name or which has the same hash; null if there is none.
    #[serde(default)]
    pub merged_address: Option<String>,
    /// True if shares of this payee name its address on the merged chain.
    #[serde(default)]
    #[schema(required = true)]
    pub is_merged_address_named: bool,
    /// Amount on the merged chain if a block of it were found now, in hundred-millionths of its coin; null while its blocks
    /// do not pay the miners.
    #[serde(default)]
    pub merged_amount: Option<u64>,
}

/// Miners of this node by payout address.
#[utoipa::path(get, path = "/api/v1/miners", tag = "miners", params(("limit" = Option<usize>, Query, description = "Maximum number of miners")),
    responses((status = 200, description = "The miners", body = Miners), (status = 400, description = "Not a limit", body = Problem)))]
pub(super) async fn miners(state: State<Sources>, query: Result<Query<Limit>, QueryRejection>) -> Answer<Miners> {
    let limit = super::limit(query)?;
    let snapshot = super::snapshot(&state);
    let mut workers: BTreeMap<&str, usize> = BTreeMap::new();
    for done in snapshot.rates.workers.values() {
        *workers.entry(&done.payee).or_default() += 1;
    }
    let mut miners: Vec<Miner> = snapshot
        .rates
        .payees
        .iter()
        .map(|(address, done)| Miner {
            address: address.to_string(),
            hash_rate: done.hash_rate,
            late_hash_rate: done.late_hash_rate,
            workers: workers.get(&**address).copied().unwrap_or_default(),
            connections: done.connections,
            fraction: snapshot.users.get(&**address).copied().unwrap_or_default(),
            expected_payout: snapshot.payouts.get(&**address).copied().unwrap_or_default(),
            accepted: done.accepted,
            refused: done.refused.values().sum(),
            last_seen: done.last_seen,
        })
        .collect();
    miners.sort_by(|one, other| other.hash_rate.total_cmp(&one.hash_rate));
    let total = miners.len();
    miners.truncate(limit);
    Ok(Json(Miners { symbol: snapshot.symbol.to_owned(), total, miners }))
}

/// Workers of this node.
#[utoipa::path(get, path = "/api/v1/workers", tag = "miners", params(("limit" = Option<usize>, Query, description = "Maximum number of workers")),
    responses((status = 200, description = "The workers", body = Workers), (status = 400, description = "Not a limit", body = Problem)))]
pub(super) async fn workers(state: State<Sources>, query: Result<Query<Limit>, QueryRejection>) -> Answer<Workers> {
    let limit = super::limit(query)?;
    let snapshot = super::snapshot(&state);
    Ok(Json(Workers::of(&snapshot, &(state.small_devices.0)(), limit)))
}

impl Workers {
    /// Returns up to `limit` workers as of `snapshot`.
    pub(in crate::view) fn of(snapshot: &Snapshot, small_devices: &[JobTooBig], limit: usize) -> Self {
        let mut all: Vec<(&Arc<str>, &WorkerRates)> = snapshot.rates.workers.iter().collect();
        // Idle ones by the time of their latest submission.
        all.sort_by(|(_, one), (_, other)| {
            other.hash_rate.total_cmp(&one.hash_rate).then(other.last_seen.total_cmp(&one.last_seen))
        });
        let shown = all.iter().take(limit);
        Self {
            total: all.len(),
            workers: shown.map(|(name, done)| worker(name, done, small_devices, snapshot)).collect(),
        }
    }
}

/// One payout address: its workers, earnings and warnings.
#[utoipa::path(get, path = "/api/v1/addresses/{address}", tag = "miners", params(("address" = String, Path, description = "A payout address")),
    responses((status = 200, description = "The address", body = Address), (status = 404, description = "Unknown address", body = Problem)))]
pub(super) async fn address(state: State<Sources>, Path(text): Path<String>) -> Answer<Address> {
    let snapshot = super::snapshot(&state);
    let small_devices = (state.small_devices.0)();
    let found = of_address(&snapshot, &text, &small_devices, state.network.parent.dust_threshold).or_else(|| {
        // Bech32 may be upper case, as in some QR codes.
        let lower = text.to_ascii_lowercase();
        (lower != text).then(|| of_address(&snapshot, &lower, &small_devices, state.network.parent.dust_threshold))?
    });
    let nothing = "no worker of this address was active here in the last day, and no share pays it";
    found.map(Json).ok_or_else(|| Problem::not_found(nothing))
}

/// Payouts of the next block, if it were found now.
#[utoipa::path(get, path = "/api/v1/payouts", tag = "miners", params(("limit" = Option<usize>, Query, description = "Maximum number of payouts")),
    responses((status = 200, description = "The payouts", body = Payouts), (status = 400, description = "Not a limit", body = Problem)))]
pub(super) async fn payouts(state: State<Sources>, query: Result<Query<Limit>, QueryRejection>) -> Answer<Payouts> {
    let limit = super::limit(query)?;
    let snapshot = super::snapshot(&state);
    let block_value = snapshot.block.as_ref().map(|block| block.value);
    let merged: BTreeMap<&Payee, &MergedPayout> =
        snapshot.merged_payouts.iter().filter_map(|paid| Some((paid.payee.as_ref()?, paid))).collect();
    let payout = |(payee, amount): (&Payee, &u64)| {
        let merged = merged.get(payee);
        Payout {
            address: payee.as_str().to_owned(),
            amount: *amount,
            fraction: part(*amount, block_value),
            is_local: snapshot.rates.payees.contains_key(payee.as_str()),
            is_dust: *amount < state.network.parent.dust_threshold,
            merged_address: merged.and_then(|paid| paid.address.clone()),
            is_merged_address_named: merged.is_some_and(|paid| paid.source == MergedSource::Named),
            merged_amount: merged.and_then(|paid| paid.amount),
        }
    };
    let mut payouts: Vec<Payout> = snapshot.payouts.iter().map(payout).collect();
    payouts.sort_by_key(|payout| std::cmp::Reverse(payout.amount));
    let total = payouts.len();
    payouts.truncate(limit);
    let share_version = snapshot.chain.version.map_or(state.network.start_version, ShareVersion::number);
    let finder_percent = ShareVersion::from_number(share_version).map_or(0.0, finder_percent);
    let symbol = snapshot.symbol.to_owned();
    let merged_symbol = state.network.paid_merged_chain().map(|chain| chain.symbol.to_owned());
    Ok(Json(Payouts { symbol, block_value, share_version, finder_percent, merged_symbol, total, payouts }))
}

/// Percentage of a block that its finder gets on top by the rules of `version`.
fn finder_percent(version: ShareVersion) -> f64 {
    match version.rules().finder {
        FindersPart::HalfPercent => 0.5,
        FindersPart::None => 0.0,
    }
}

fn of_address(snapshot: &Snapshot, address: &str, small_devices: &[JobTooBig], dust_limit: u64) -> Option<Address> {
    let done = snapshot.rates.payees.get(address);
    let expected_payout = snapshot.payouts.get(address).copied();
    let shares: Vec<_> = snapshot.chain.recent.iter().filter(|share| share.payee.as_str() == address).collect();
    let connections = connections::shown(snapshot, |tally| *tally.payee == *address, LIMIT_DEFAULT);
    let is_known =
        done.is_some() || !connections.is_empty() || expected_payout.is_some() || snapshot.users.contains_key(address);
    let own_small: Vec<&JobTooBig> =
        small_devices.iter().filter(|device| is_worker_of(&device.worker, address)).collect();
    if !is_known && shares.is_empty() && own_small.is_empty() {
        return None;
    }
    let expected_payout = expected_payout.unwrap_or_default();
    let mut workers: Vec<Worker> = snapshot
        .rates
        .workers
        .iter()
        .filter(|(_, done)| &*done.payee == address)
        .map(|(name, done)| worker(name, done, small_devices, snapshot))
        .collect();
    workers.sort_by(|one, other| other.hash_rate.total_cmp(&one.hash_rate));
    let hash_rate = done.map_or(0.0, |done| done.hash_rate);
    let easiest = snapshot.pool.as_ref().map(|pool| pool.share_difficulty);
    let last = snapshot.local.last_difficulties.get(address).copied();
    let share_difficulty = last.into_iter().chain(easiest).reduce(f64::max);
    let stale_proportion = snapshot.user_stales.get(address).copied();
    Some(Address {
        address: address.to_owned(),
        symbol: snapshot.symbol.to_owned(),
        warnings: own_small.iter().map(|device| format!("{}: {device}", device.worker)).collect(),
        hash_rate,
        late_hash_rate: done.map_or(0.0, |done| done.late_hash_rate),
        workers,
        connections,
        accepted: done.map_or(0, |done| done.accepted),
        refused: done.map(|done| reasons(&done.refused)).unwrap_or_default(),
        best_difficulty: done.and_then(|done| known(done.best)).map(|bdiff| snapshot.scale.show(bdiff)),
        fraction: part(expected_payout, snapshot.block.as_ref().map(|block| block.value)),
        expected_payout,
        share_difficulty: share_difficulty.map(|bdiff| snapshot.scale.show(bdiff)),
        seconds_to_share: share_difficulty
            .filter(|_| hash_rate > 0.0)
            .map(|bdiff| bdiff * HASHES_AT_DIFFICULTY_ONE / hash_rate),
        shares: shares.iter().filter(|share| share.in_best_chain).count(),
        shares_of: snapshot.chain.recent.iter().filter(|share| share.in_best_chain).count(),
        last_share: shares.first().map(|share| f64::from(share.time)),
        stale_proportion,
        stale_cost: stale_proportion.map_or(0, |stale| cost(expected_payout, stale)),
        is_dust: expected_payout < dust_limit,
        dust_limit,
        recent_shares: shares.into_iter().take(SHARES_MAX).map(|share| Share::of(share, snapshot.scale)).collect(),
    })
}

/// Returns the amount that stale shares would have earned in addition to `payout`.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people")]
fn cost(payout: u64, stale: f64) -> u64 {
    if stale < 1.0 { (payout as f64 * stale / (1.0 - stale)) as u64 } else { 0 }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn part(amount: u64, of: Option<u64>) -> f64 {
    of.filter(|of| *of > 0).map_or(0.0, |of| amount as f64 / of as f64)
}

fn reasons(refused: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    refused.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
}

fn worker(name: &str, done: &WorkerRates, small_devices: &[JobTooBig], snapshot: &Snapshot) -> Worker {
    let too_small = small_devices.iter().find(|device| &*device.worker == name);
    Worker {
        name: name.to_owned(),
        address: done.payee.to_string(),
        hash_rate: done.hash_rate,
        late_hash_rate: done.late_hash_rate,
        difficulty: known(done.difficulty).map(|bdiff| snapshot.scale.show(bdiff)),
        best_difficulty: known(done.best).map(|bdiff| snapshot.scale.show(bdiff)),
        accepted: done.accepted,
        late: done.late,
        refused: reasons(&done.refused),
        connections: done.connections,
        last_seen: done.last_seen,
        health: Signs::of(done, too_small.is_some(), snapshot.time).health(),
        warning: too_small.map(ToString::to_string),
    }
}

/// Returns true if the name is that of a worker of the address.
pub(in crate::view::http) fn is_worker_of(name: &str, address: &str) -> bool {
    name.strip_prefix(address).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '_']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rates::Rates;
    use crate::view::snapshot;
    use sharechain::coin::{BITCOIN, LITECOIN};

    /// Rates of a worker with submissions of difficulty 2^-16 in three seconds each, the best of which was four times as
    /// hard.
    fn rates() -> WorkerRates {
        WorkerRates {
            hash_rate: HASHES_AT_DIFFICULTY_ONE / 65_536.0 / 3.0,
            late_hash_rate: 0.0,
            hashes: 0.0,
            late_hashes: 0.0,
            accepted: 100,
            late: 0,
            refused: BTreeMap::new(),
            difficulty: 1.0 / 65_536.0,
            best: 4.0 / 65_536.0,
            payee: "a".into(),
            connections: 1,
            last_seen: 0.0,
        }
    }

    #[test]
    fn difficulties_are_in_the_unit_of_the_coins_miners_and_times_are_the_same_on_every_coin() {
        for (network, unit) in [(&BITCOIN, 1.0 / 65_536.0), (&LITECOIN, 1.0)] {
            let payee = Payee::from_versioned_hash(&[7; 20], network.parent.address_version);
            let config =
                snapshot::Config { network, payout_address: "a".into(), fee_percent: 0.0, donation_percent: 0.0 };
            let rates = Rates {
                hash_rate: rates().hash_rate,
                workers: BTreeMap::from([("a.rig".into(), rates())]),
                payees: BTreeMap::from([(payee.as_str().into(), rates())]),
                ..Rates::default()
            };
            let mut snapshot = Snapshot { rates: Arc::new(rates), ..Snapshot::new(&config, 0.0) };
            snapshot.local.last_difficulties = BTreeMap::from([(payee.clone(), 10.0 / 65_536.0)]);
            let shown = &Workers::of(&snapshot, &[], 1).workers[0];
            assert_eq!((shown.difficulty, shown.best_difficulty), (Some(unit), Some(4.0 * unit)));
            assert_eq!((shown.health, shown.hash_rate), (Health::Good, snapshot.rates.hash_rate));
            let address = of_address(&snapshot, payee.as_str(), &[], 0).unwrap();
            assert_eq!((address.best_difficulty, address.share_difficulty), (Some(4.0 * unit), Some(10.0 * unit)));
            assert!((address.seconds_to_share.unwrap() - 30.0).abs() < 1e-6, "{:?}", address.seconds_to_share);
        }
    }

    #[test]
    fn what_lost_shares_cost_is_what_they_would_have_earned() {
        // A fifth lost: the payout is of four fifths.
        assert_eq!(cost(4_000, 0.2), 1_000);
        assert_eq!(cost(4_000, 0.0), 0);
        assert_eq!(cost(4_000, 1.0), 0);
    }

    #[test]
    fn a_worker_is_its_address_and_a_name() {
        assert!(is_worker_of("bc1qabc", "bc1qabc"));
        assert!(is_worker_of("bc1qabc.garage", "bc1qabc"));
        assert!(is_worker_of("bc1qabc_garage", "bc1qabc"));
        assert!(!is_worker_of("bc1qabcd", "bc1qabc"));
    }
}
