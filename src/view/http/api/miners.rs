//! Who mines here, how well, and whom the next block pays.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
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
use crate::view::snapshot::Snapshot;

/// Shares of an address that are told of.
const SHARES_MAX: usize = 25;

/// Who mines at this node.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Miners {
    /// The coin's ticker symbol.
    symbol: String,
    /// Addresses in all.
    total: usize,
    /// One for each address, those with most hash rate first.
    miners: Vec<Miner>,
}

/// One payout address that is mined for here.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Miner {
    /// The address.
    address: String,
    /// Hashes per second over the last ten minutes, late ones included.
    hash_rate: f64,
    /// Of these, what came for work that was gone.
    late_hash_rate: f64,
    /// Workers that mined for it in the last day.
    workers: usize,
    /// Connections of these that are open.
    connections: usize,
    /// Its part of the pool's work.
    fraction: f64,
    /// Satoshis that the next block would pay it.
    expected_payout: u64,
    /// Submissions that were accepted.
    accepted: u64,
    /// Submissions that were refused.
    refused: u64,
    /// When something came last.
    last_seen: f64,
}

/// Workers of this node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Workers {
    /// How many there are, those included that are left out here.
    pub total: usize,
    /// Those with most hash rate first.
    pub workers: Vec<Worker>,
}

/// One worker: a device, or several of one name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// As it authorised.
    pub name: String,
    /// Whom it works for.
    pub address: String,
    /// Hashes per second over the last ten minutes, late ones included.
    pub hash_rate: f64,
    /// Of these, what came for work that was gone.
    pub late_hash_rate: f64,
    /// What its last submission had to meet.
    pub difficulty: Option<f64>,
    /// The best that it ever found.
    pub best_difficulty: Option<f64>,
    /// Submissions that were accepted.
    pub accepted: u64,
    /// Submissions for work that was gone: credited, but lost as shares.
    pub late: u64,
    /// Submissions that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Its connections that are open.
    pub connections: usize,
    /// When it submitted last.
    pub last_seen: f64,
    /// How it does, in a word.
    pub health: Health,
    /// Why its device most likely cannot hold its jobs, if so.
    pub warning: Option<String>,
}

/// One payout address.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Address {
    /// The address.
    address: String,
    /// The coin's ticker symbol.
    symbol: String,
    /// What is wrong, in words for people.
    warnings: Vec<String>,
    /// Hashes per second over the last ten minutes, late ones included.
    hash_rate: f64,
    /// Of these, what came for work that was gone.
    late_hash_rate: f64,
    /// Its workers here in the last day, those with most hash rate first.
    workers: Vec<Worker>,
    /// Its open connections here, 300 at most, those with most hash rate first.
    connections: Vec<MinerConnection>,
    /// Submissions that were accepted.
    accepted: u64,
    /// Submissions that were refused, by reason.
    refused: BTreeMap<String, u64>,
    /// The best submission's difficulty.
    best_difficulty: Option<f64>,
    /// Its part of the next block.
    fraction: f64,
    /// Satoshis that the next block would pay it.
    expected_payout: u64,
    /// What its next share must meet, as far as can be told.
    share_difficulty: Option<f64>,
    /// Seconds until its next share, on average; null while it does not mine here.
    seconds_to_share: Option<f64>,
    /// Its shares among the chain's newest.
    shares: usize,
    /// How many of the chain's newest shares these are counted among.
    shares_of: usize,
    /// When its newest of these was made.
    last_share: Option<f64>,
    /// The part of its shares that was lost, as far as it announces them; null without shares.
    stale_proportion: Option<f64>,
    /// Satoshis of each block that lost shares cost it.
    stale_cost: u64,
    /// Whether its payout is less than `dust_limit`.
    is_dust: bool,
    /// Satoshis below which the pool counts a payout as dust.
    dust_limit: u64,
    /// Its newest shares, forks included.
    recent_shares: Vec<Share>,
}

/// Whom the next block pays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Payouts {
    /// The coin's ticker symbol.
    pub symbol: String,
    /// Satoshis that the block pays in all; null without a template from the daemon.
    pub block_value: Option<u64>,
    /// Payees in all.
    pub total: usize,
    /// Those who get most first.
    pub payouts: Vec<Payout>,
}

/// What one address would get.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Payout {
    /// The address.
    pub address: String,
    /// Satoshis.
    pub amount: u64,
    /// Its part of the block.
    pub fraction: f64,
    /// Whether it is mined for at this node.
    pub is_local: bool,
    /// Whether the pool counts it as dust.
    pub is_dust: bool,
}

/// Who mines at this node, by payout address.
#[utoipa::path(get, path = "/api/v1/miners", tag = "miners", params(("limit" = Option<usize>, Query, description = "How many at most")),
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
#[utoipa::path(get, path = "/api/v1/workers", tag = "miners", params(("limit" = Option<usize>, Query, description = "How many at most")),
    responses((status = 200, description = "The workers", body = Workers), (status = 400, description = "Not a limit", body = Problem)))]
pub(super) async fn workers(state: State<Sources>, query: Result<Query<Limit>, QueryRejection>) -> Answer<Workers> {
    let limit = super::limit(query)?;
    let snapshot = super::snapshot(&state);
    Ok(Json(Workers::of(&snapshot, &(state.small_devices.0)(), limit)))
}

impl Workers {
    /// As of `snapshot`, at most so many.
    pub(in crate::view) fn of(snapshot: &Snapshot, small_devices: &[JobTooBig], limit: usize) -> Self {
        let mut all: Vec<(&Arc<str>, &WorkerRates)> = snapshot.rates.workers.iter().collect();
        // Idle ones as they were last seen.
        all.sort_by(|(_, one), (_, other)| {
            other.hash_rate.total_cmp(&one.hash_rate).then(other.last_seen.total_cmp(&one.last_seen))
        });
        let shown = all.iter().take(limit);
        Self {
            total: all.len(),
            workers: shown.map(|(name, done)| worker(name, done, small_devices, snapshot.time)).collect(),
        }
    }
}

/// One payout address: its workers, what it earns, and what is wrong.
#[utoipa::path(get, path = "/api/v1/addresses/{address}", tag = "miners", params(("address" = String, Path, description = "A payout address")),
    responses((status = 200, description = "What is known of it", body = Address), (status = 404, description = "Nothing is", body = Problem)))]
pub(super) async fn address(state: State<Sources>, Path(text): Path<String>) -> Answer<Address> {
    let snapshot = super::snapshot(&state);
    let small_devices = (state.small_devices.0)();
    let found = of_address(&snapshot, &text, &small_devices, state.network.parent.dust_threshold).or_else(|| {
        // Bech32 may be written in capitals, and is by some QR codes.
        let lower = text.to_ascii_lowercase();
        (lower != text).then(|| of_address(&snapshot, &lower, &small_devices, state.network.parent.dust_threshold))?
    });
    let nothing = "no worker of this address did anything here in the last day, and no share pays it";
    found.map(Json).ok_or_else(|| Problem::not_found(nothing))
}

/// Whom the next block pays, if it were found now.
#[utoipa::path(get, path = "/api/v1/payouts", tag = "miners", params(("limit" = Option<usize>, Query, description = "How many at most")),
    responses((status = 200, description = "The payouts", body = Payouts), (status = 400, description = "Not a limit", body = Problem)))]
pub(super) async fn payouts(state: State<Sources>, query: Result<Query<Limit>, QueryRejection>) -> Answer<Payouts> {
    let limit = super::limit(query)?;
    let snapshot = super::snapshot(&state);
    let block_value = snapshot.block.as_ref().map(|block| block.value);
    let mut payouts: Vec<Payout> = snapshot
        .payouts
        .iter()
        .map(|(payee, amount)| Payout {
            address: payee.as_str().to_owned(),
            amount: *amount,
            fraction: part(*amount, block_value),
            is_local: snapshot.rates.payees.contains_key(payee.as_str()),
            is_dust: *amount < state.network.parent.dust_threshold,
        })
        .collect();
    payouts.sort_by_key(|payout| std::cmp::Reverse(payout.amount));
    let total = payouts.len();
    payouts.truncate(limit);
    Ok(Json(Payouts { symbol: snapshot.symbol.to_owned(), block_value, total, payouts }))
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
        .map(|(name, done)| worker(name, done, small_devices, snapshot.time))
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
        best_difficulty: done.and_then(|done| known(done.best)),
        fraction: part(expected_payout, snapshot.block.as_ref().map(|block| block.value)),
        expected_payout,
        share_difficulty,
        seconds_to_share: share_difficulty
            .filter(|_| hash_rate > 0.0)
            .map(|one| one * HASHES_AT_DIFFICULTY_ONE / hash_rate),
        shares: shares.iter().filter(|share| share.in_best_chain).count(),
        shares_of: snapshot.chain.recent.iter().filter(|share| share.in_best_chain).count(),
        last_share: shares.first().map(|share| f64::from(share.time)),
        stale_proportion,
        stale_cost: stale_proportion.map_or(0, |stale| cost(expected_payout, stale)),
        is_dust: expected_payout < dust_limit,
        dust_limit,
        recent_shares: shares.into_iter().take(SHARES_MAX).map(Share::from).collect(),
    })
}

/// What the lost part of its shares would have earned beside `payout`.
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

fn worker(name: &str, done: &WorkerRates, small_devices: &[JobTooBig], now: f64) -> Worker {
    let too_small = small_devices.iter().find(|device| &*device.worker == name);
    Worker {
        name: name.to_owned(),
        address: done.payee.to_string(),
        hash_rate: done.hash_rate,
        late_hash_rate: done.late_hash_rate,
        difficulty: known(done.difficulty),
        best_difficulty: known(done.best),
        accepted: done.accepted,
        late: done.late,
        refused: reasons(&done.refused),
        connections: done.connections,
        last_seen: done.last_seen,
        health: Signs::of(done, too_small.is_some(), now).health(),
        warning: too_small.map(ToString::to_string),
    }
}

/// Whether a worker's name is that of a worker of the address.
pub(in crate::view::http) fn is_worker_of(name: &str, address: &str) -> bool {
    name.strip_prefix(address).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '_']))
}

#[cfg(test)]
mod tests {
    use super::*;

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
