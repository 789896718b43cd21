//! Miners' connections: the place to look first when a device has problems.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;
use stratum::mining::tally::Protocol;
use stratum::{Scale, Tally};
use utoipa::ToSchema;

use super::health::{Health, Signs, known};
use super::{Answer, Limit, Problem, Sources};
use crate::view::snapshot::Snapshot;

/// Open connections of miners.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MinerConnections {
    /// Number of open connections, those beyond the limit included.
    total: usize,
    /// Connections, highest hash rate first.
    connections: Vec<MinerConnection>,
}

/// One connection of a miner; the connection of a proxy has an entry for each of its workers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct MinerConnection {
    /// Worker name that it authorised with.
    worker: String,
    /// Payout address that it mines for.
    address: String,
    /// Mining protocol: `stratum` or `getwork`.
    protocol: &'static str,
    /// User agent of the device; empty if unknown.
    user_agent: String,
    /// Start of the connection.
    since: f64,
    /// Time of the latest submission; null before the first.
    last_seen: Option<f64>,
    /// Difficulty that was set last, in the unit of the coin's miners.
    difficulty: Option<f64>,
    /// Difficulty of its best submission, in the unit of the coin's miners.
    best_difficulty: Option<f64>,
    /// Hash rate since the start of the connection, late work included.
    hash_rate: f64,
    /// Part of the hash rate that was for outdated work.
    late_hash_rate: f64,
    /// Number of accepted submissions.
    accepted: u64,
    /// Number of submissions for outdated work: credited, but lost as shares.
    late: u64,
    /// Number of refused submissions.
    refused: u64,
    /// Health of the connection.
    health: Health,
}

/// Open connections of miners, and their health. IP addresses are not disclosed.
#[utoipa::path(get, path = "/api/v1/connections", tag = "miners", params(("limit" = Option<usize>, Query, description = "Maximum number of connections")),
    responses((status = 200, description = "The connections", body = MinerConnections), (status = 400, description = "Not a limit", body = Problem)))]
pub(super) async fn connections(
    state: State<Sources>,
    query: Result<Query<Limit>, QueryRejection>,
) -> Answer<MinerConnections> {
    let limit = super::limit(query)?;
    let snapshot = super::snapshot(&state);
    let connections = shown(&snapshot, |_| true, limit);
    Ok(Json(MinerConnections { total: snapshot.rates.open.len(), connections }))
}

/// Returns up to `limit` connections that `wanted` selects.
pub(super) fn shown(snapshot: &Snapshot, wanted: impl Fn(&Tally) -> bool, limit: usize) -> Vec<MinerConnection> {
    let (now, unix) = (Instant::now(), crate::runtime::clock::unix_now());
    let mut all: Vec<(f64, &Arc<Tally>)> = snapshot
        .rates
        .open
        .iter()
        .filter(|tally| wanted(tally))
        .map(|tally| (tally.totals().hashes / seconds(tally, now), tally))
        .collect();
    all.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let shown = all.into_iter().take(limit);
    shown.map(|(_, tally)| MinerConnection::of(tally, snapshot.scale, now, unix)).collect()
}

/// Returns the age of a connection, in seconds; at least 1.
fn seconds(tally: &Tally, now: Instant) -> f64 {
    now.saturating_duration_since(tally.client.since).as_secs_f64().max(1.0)
}

impl MinerConnection {
    fn of(tally: &Tally, scale: Scale, now: Instant, unix: f64) -> Self {
        let totals = tally.totals();
        let seconds = seconds(tally, now);
        let at = |instant: Instant| unix - now.saturating_duration_since(instant).as_secs_f64();
        let since = at(tally.client.since);
        let last_seen = tally.seen().map(at);
        let signs = Signs {
            accepted: totals.accepted + totals.late,
            refused: totals.refused,
            hash_rate: totals.hashes / seconds,
            late_hash_rate: totals.late_hashes / seconds,
            difficulty: totals.difficulty,
            silence: unix - last_seen.unwrap_or(since),
            is_too_small: false,
        };
        Self {
            worker: tally.worker.to_string(),
            address: tally.payee.to_string(),
            protocol: match tally.client.protocol {
                Protocol::Stratum => "stratum",
                Protocol::Getwork => "getwork",
            },
            user_agent: tally.client.user_agent().to_string(),
            since,
            last_seen,
            difficulty: known(tally.client.difficulty()).map(|bdiff| scale.show(bdiff)),
            best_difficulty: known(totals.best).map(|bdiff| scale.show(bdiff)),
            hash_rate: signs.hash_rate,
            late_hash_rate: signs.late_hash_rate,
            accepted: totals.accepted,
            late: totals.late,
            refused: totals.refused,
            health: signs.health(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use stratum::mining::tally::Client;
    use stratum::{Credit, Difficulty};

    #[test]
    fn a_connection_is_told_of_as_it_is_now() {
        let came = Instant::now();
        let (tally, mut writer) = Tally::new("a.rig".into(), "a".into(), Client::new(Protocol::Stratum, came));
        let new = MinerConnection::of(&tally, Scale::default(), came + Duration::from_secs(5), 1005.0);
        assert_eq!((new.since, new.last_seen, new.difficulty, new.health), (1000.0, None, None, Health::New));
        let silent = MinerConnection::of(&tally, Scale::default(), came + Duration::from_secs(5000), 6000.0);
        assert_eq!(silent.health, Health::Silent);
        let difficulty = Difficulty::new(1.0).unwrap();
        for second in 1..=100 {
            let credit = Credit { difficulty, achieved: 2.0, is_late: second % 50 == 0, is_fee: false };
            writer.credit(&credit, came + Duration::from_secs(second));
        }
        let good = MinerConnection::of(&tally, Scale::default(), came + Duration::from_secs(100), 1100.0);
        assert_eq!((good.accepted, good.late, good.refused, good.health), (98, 2, 0, Health::Good));
        assert_eq!((good.last_seen, good.best_difficulty), (Some(1100.0), Some(2.0)));
        assert!((good.hash_rate / difficulty.average_hashes() - 1.0).abs() < 1e-9);
        let scrypt = MinerConnection::of(&tally, Scale::new(65_536), came + Duration::from_secs(100), 1100.0);
        assert_eq!(scrypt.best_difficulty, Some(131_072.0));
        assert_eq!((scrypt.hash_rate, scrypt.health), (good.hash_rate, Health::Good), "hashes are hashes");
    }
}
