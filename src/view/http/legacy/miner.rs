//! `/miner_stats/ADDRESS`: one miner of this node, as dashboards of version 36 read it (protocol-v36 section 9.3).

use serde::Serialize;
use sharechain::coin::Network;
use sharechain::share::StaleInfo;
use stratum::mining::difficulty::HASHES_AT_DIFFICULTY_ONE;

use super::{coins, merged};
use crate::view::snapshot::{Snapshot, difficulty};

/// A miner that this node does not know.
#[derive(Debug, Serialize)]
pub(super) struct Unknown {
    error: &'static str,
    active: bool,
}

/// One miner; null is what this node does not measure.
#[derive(Debug, Serialize)]
pub(super) struct Miner {
    address: String,
    active: bool,
    hashrate: f64,
    estimated_hashrate: bool,
    dead_hashrate: f64,
    doa_rate: f64,
    share_difficulty: f64,
    time_to_share: Option<f64>,
    current_payout: f64,
    merged_payouts: Vec<merged::Merged>,
    global_stale_prop: f64,
    best_difficulty_all_time: Option<f64>,
    best_difficulty_session: f64,
    best_difficulty_round: Option<f64>,
    best_diff_hashrate_all_time: Option<f64>,
    best_diff_hashrate_session: f64,
    session_start: f64,
    round_start: Option<u32>,
    hashrate_periods: Periods,
    network_difficulty: Option<f64>,
    chance_to_find_block: Option<f64>,
    total_shares: u32,
    unstale_shares: u32,
    dead_shares: u32,
    orphan_shares: u32,
    doa_shares: u32,
}

#[derive(Debug, Serialize)]
struct Periods {
    #[serde(rename = "1m")]
    minute: Option<Period>,
    #[serde(rename = "10m")]
    ten_minutes: Period,
    #[serde(rename = "1h")]
    hour: Option<Period>,
}

#[derive(Debug, Serialize)]
struct Period {
    hashrate: f64,
    dead_hashrate: f64,
}

/// Shares of the last hour by fate.
#[derive(Debug, Default)]
struct Shares {
    good: u32,
    orphan: u32,
    dead: u32,
}

impl Shares {
    fn of(snapshot: &Snapshot, address: &str) -> Self {
        let hour = snapshot.chain.hour.map_or(0, |hour| usize::try_from(hour.shares).unwrap_or(usize::MAX));
        let newest = snapshot.chain.recent.iter().filter(|share| share.in_best_chain).take(hour);
        let mut shares = Self::default();
        for share in newest.filter(|share| share.payee.as_str() == address) {
            match share.stale_info {
                StaleInfo::ORPHAN => shares.orphan += 1,
                StaleInfo::DOA => shares.dead += 1,
                _ => shares.good += 1,
            }
        }
        shares
    }
}

/// Returns the miner with the payout address `address`.
pub(super) fn stats(snapshot: &Snapshot, address: &str, network: &Network) -> Result<Miner, Unknown> {
    let unknown = Unknown { error: "no miner of this node has this address", active: false };
    let done = snapshot.rates.payees.get(address).ok_or(unknown)?;
    let (pool, block) = (snapshot.pool.as_ref(), snapshot.block.as_ref());
    let Shares { good, orphan, dead } = Shares::of(snapshot, address);
    let (hashrate, dead_hashrate) = (done.hash_rate, done.late_hash_rate);
    let network_difficulty = block.map(|block| block.difficulty);
    let last = snapshot.local.last_difficulties.get(address).copied();
    Ok(Miner {
        address: address.to_owned(),
        active: true,
        hashrate,
        estimated_hashrate: false,
        dead_hashrate,
        doa_rate: if hashrate > 0.0 { dead_hashrate / hashrate } else { 0.0 },
        share_difficulty: last.unwrap_or(done.difficulty),
        time_to_share: pool
            .filter(|_| hashrate > 0.0)
            .map(|pool| difficulty::hashes(pool.attempts_to_share) / hashrate),
        current_payout: coins(snapshot.payouts.get(address).copied().unwrap_or_default()),
        merged_payouts: merged::of_address(snapshot, address, network),
        global_stale_prop: pool.map_or(0.0, |pool| pool.stretch.stale_proportion),
        best_difficulty_all_time: None,
        best_difficulty_session: done.best,
        best_difficulty_round: None,
        best_diff_hashrate_all_time: None,
        best_diff_hashrate_session: done.best * HASHES_AT_DIFFICULTY_ONE,
        session_start: snapshot.started,
        round_start: snapshot.chain.blocks.first().map(|block| block.time),
        hashrate_periods: Periods { minute: None, ten_minutes: Period { hashrate, dead_hashrate }, hour: None },
        network_difficulty,
        chance_to_find_block: network_difficulty
            .filter(|network| *network > 0.0)
            .map(|network| done.best / network * 100.0),
        total_shares: good + orphan + dead,
        unstale_shares: good,
        dead_shares: orphan + dead,
        orphan_shares: orphan,
        doa_shares: dead,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rates::{Rates, WorkerRates};
    use crate::view::snapshot::Config;
    use serde_json::Value;
    use sharechain::coin::LITECOIN;
    use std::sync::Arc;

    #[test]
    fn a_miner_has_its_rates_and_what_is_not_measured_is_null() {
        let config = Config { network: &LITECOIN, payout_address: "".into(), fee_percent: 0.0, donation_percent: 0.0 };
        let done = WorkerRates { hash_rate: 8.0, late_hash_rate: 2.0, best: 3.0, ..WorkerRates::default() };
        let rates = Rates { payees: [("payee".into(), done)].into(), ..Rates::default() };
        let snapshot = Snapshot { rates: Arc::new(rates), ..Snapshot::new(&config, 7.0) };
        let miner = serde_json::to_value(stats(&snapshot, "payee", &LITECOIN).ok()).unwrap();
        assert_eq!((&miner["active"], &miner["doa_rate"]), (&true.into(), &0.25.into()));
        let periods = &miner["hashrate_periods"];
        assert_eq!((&periods["10m"]["hashrate"], &periods["1m"]), (&8.0.into(), &Value::Null));
        assert_eq!((&miner["best_difficulty_session"], &miner["best_difficulty_round"]), (&3.0.into(), &Value::Null));
        let unknown = serde_json::to_value(stats(&snapshot, "other", &LITECOIN).err()).unwrap();
        assert_eq!((&unknown["active"], unknown["error"].is_string()), (&false.into(), true));
    }
}
