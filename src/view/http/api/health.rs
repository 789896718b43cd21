//! Health of a worker or a connection.

use serde::{Deserialize, Serialize};
use stratum::mining::difficulty::HASHES_AT_DIFFICULTY_ONE;
use utoipa::ToSchema;

use crate::rates::WorkerRates;

/// Seconds without a submission that are always tolerated.
const SILENCE_MIN: f64 = 60.0;

/// Seconds that a new miner has for its first submission: by then its difficulty has been lowered enough.
const NEW_MAX: f64 = 600.0;

/// Health of a worker or connection: the worst state that applies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It works as expected.
    #[default]
    Good,
    /// It connected within the last ten minutes, and has submitted nothing yet.
    New,
    /// More than a tenth of its work is late.
    Late,
    /// More than a tenth of its submissions are refused.
    Refused,
    /// No submission for ten times the expected interval, and at least a minute.
    Silent,
    /// Its device most likely cannot hold its jobs.
    TooSmall,
}

/// Measurements that determine the health of a worker or a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signs {
    pub(super) accepted: u64,
    pub(super) refused: u64,
    /// Hashes per second.
    pub(super) hash_rate: f64,
    pub(super) late_hash_rate: f64,
    /// Difficulty of its last submission, not scaled.
    pub(super) difficulty: f64,
    /// Seconds since its last submission.
    pub(super) silence: f64,
    pub(super) is_too_small: bool,
}

impl Signs {
    /// Measurements of a worker at `now`, in seconds since 1970.
    pub(super) fn of(done: &WorkerRates, is_too_small: bool, now: f64) -> Self {
        Self {
            accepted: done.accepted + done.late,
            refused: done.refused.values().sum(),
            hash_rate: done.hash_rate,
            late_hash_rate: done.late_hash_rate,
            difficulty: done.difficulty,
            silence: now - done.last_seen,
            is_too_small,
        }
    }

    pub(super) fn health(self) -> Health {
        #[expect(clippy::cast_precision_loss, reason = "counts of submissions")]
        let (accepted, refused) = (self.accepted as f64, self.refused as f64);
        let interval = self.difficulty * HASHES_AT_DIFFICULTY_ONE / self.hash_rate;
        // Without any hash rate the interval is infinite or not a number.
        let is_silent = self.hash_rate <= 0.0 || self.silence > (10.0 * interval).max(SILENCE_MIN);
        if self.is_too_small {
            Health::TooSmall
        } else if self.accepted == 0 && self.refused == 0 && self.silence < NEW_MAX {
            Health::New
        } else if refused > 0.1 * (accepted + refused) && self.silence < SILENCE_MIN {
            Health::Refused
        } else if is_silent {
            Health::Silent
        } else if refused > 0.1 * (accepted + refused) {
            Health::Refused
        } else if self.late_hash_rate > 0.1 * self.hash_rate {
            Health::Late
        } else {
            Health::Good
        }
    }
}

/// Converts zero, which stands for no value yet, to `None`.
pub(super) fn known(number: f64) -> Option<f64> {
    (number > 0.0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_worker_is_as_well_as_its_worst_side() {
        let fine = WorkerRates {
            hash_rate: HASHES_AT_DIFFICULTY_ONE / 3.0,
            late_hash_rate: 0.0,
            hashes: 0.0,
            late_hashes: 0.0,
            accepted: 100,
            late: 0,
            refused: BTreeMap::new(),
            difficulty: 1.0,
            best: 2.0,
            payee: "a".into(),
            connections: 1,
            last_seen: 1000.0,
        };
        let health = |done: &WorkerRates, is_too_small, now| Signs::of(done, is_too_small, now).health();
        assert_eq!(health(&fine, false, 1050.0), Health::Good);
        assert_eq!(health(&fine, false, 1061.0), Health::Silent);
        let slow = WorkerRates { hash_rate: HASHES_AT_DIFFICULTY_ONE / 60.0, ..fine.clone() };
        assert_eq!(health(&slow, false, 1590.0), Health::Good, "a slow worker gets more time");
        assert_eq!(health(&slow, false, 1610.0), Health::Silent);
        let late = WorkerRates { late_hash_rate: fine.hash_rate / 5.0, ..fine.clone() };
        assert_eq!(health(&late, false, 1000.0), Health::Late);
        let refused = WorkerRates { refused: BTreeMap::from([("duplicate", 20)]), ..late };
        assert_eq!(health(&refused, false, 1000.0), Health::Refused);
        assert_eq!(health(&refused, false, 2000.0), Health::Silent);
        assert_eq!(health(&refused, true, 2000.0), Health::TooSmall);
        let idle = WorkerRates { hash_rate: 0.0, ..fine };
        assert_eq!(health(&idle, false, 1000.0), Health::Silent);
        let joined = WorkerRates { accepted: 0, ..idle.clone() };
        assert_eq!(health(&joined, false, 1500.0), Health::New);
        assert_eq!(health(&joined, false, 1700.0), Health::Silent);
        let hopeless = WorkerRates { refused: BTreeMap::from([("low_difficulty", 20)]), ..joined };
        assert_eq!(health(&hopeless, false, 1001.0), Health::Refused, "it submits, though only refused work");
    }
}
