//! What each miner's connection is like: who complains of a device looks here first.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;
use stratum::Tally;
use stratum::mining::tally::Protocol;
use utoipa::ToSchema;

use super::health::{Health, Signs, known};
use super::{Answer, Limit, Problem, Sources};
use crate::view::snapshot::Snapshot;

/// Miners' connections that are open.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MinerConnections {
    /// How many there are, those included that are left out here.
    total: usize,
    /// Those with most hash rate first.
    connections: Vec<MinerConnection>,
}

/// One connection of a miner; a proxy's has one of these for each of its workers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct MinerConnection {
    /// The worker, as it authorised.
    worker: String,
    /// Whom it works for.
    address: String,
    /// How it asks for work.
    protocol: &'static str,
    /// What the device calls itself; empty if it does not say.
    user_agent: String,
    /// When it came.
    since: f64,
    /// When something was submitted last; null before that.
    last_seen: Option<f64>,
    /// The difficulty that it was told last.
    difficulty: Option<f64>,
    /// The best that it found.
    best_difficulty: Option<f64>,
    /// Hashes per second since it came, late ones included.
    hash_rate: f64,
    /// Of these, what came for work that was gone.
    late_hash_rate: f64,
    /// Submissions that were accepted.
    accepted: u64,
    /// Submissions for work that was gone: credited, but lost as shares.
    late: u64,
    /// Submissions that were refused.
    refused: u64,
    /// How it does, in a word.
    health: Health,
}

/// Miners' connections that are open now, and how they do. Where they come from is not told.
#[utoipa::path(get, path = "/api/v1/connections", tag = "miners", params(("limit" = Option<usize>, Query, description = "How many at most")),
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

/// Those that `wanted` wants, at most so many.
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
    all.into_iter().take(limit).map(|(_, tally)| MinerConnection::of(tally, now, unix)).collect()
}

/// How long it has been there.
fn seconds(tally: &Tally, now: Instant) -> f64 {
    now.saturating_duration_since(tally.client.since).as_secs_f64().max(1.0)
}

impl MinerConnection {
    fn of(tally: &Tally, now: Instant, unix: f64) -> Self {
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
            difficulty: known(tally.client.difficulty()),
            best_difficulty: known(totals.best),
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
        let new = MinerConnection::of(&tally, came + Duration::from_secs(5), 1005.0);
        assert_eq!((new.since, new.last_seen, new.difficulty, new.health), (1000.0, None, None, Health::New));
        let silent = MinerConnection::of(&tally, came + Duration::from_secs(5000), 6000.0);
        assert_eq!(silent.health, Health::Silent);
        let difficulty = Difficulty::new(1.0).unwrap();
        for second in 1..=100 {
            let credit = Credit { difficulty, achieved: 2.0, is_late: second % 50 == 0, is_fee: false };
            writer.credit(&credit, came + Duration::from_secs(second));
        }
        let good = MinerConnection::of(&tally, came + Duration::from_secs(100), 1100.0);
        assert_eq!((good.accepted, good.late, good.refused, good.health), (98, 2, 0, Health::Good));
        assert_eq!((good.last_seen, good.best_difficulty), (Some(1100.0), Some(2.0)));
        assert!((good.hash_rate / difficulty.average_hashes() - 1.0).abs() < 1e-9);
    }
}
