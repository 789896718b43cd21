//! Difficulty of a session: suggestions of the miner, changes.

use std::time::Duration;

use crate::mining::difficulty::Difficulty;
use crate::mining::error::StratumError;
use crate::mining::solution::Now;
use crate::mining::work::Work;
use crate::v1::message::Id;

use super::Session;
use super::event::Disconnect;

/// Minimum time between two jobs sent for a suggestion; other suggestions apply from the next job on.
const SUGGESTION_INTERVAL: Duration = Duration::from_secs(10);

impl<W: Work> Session<W> {
    pub(super) fn suggest(&mut self, id: Id<'_>, wish: Option<Difficulty>, now: Now) -> Result<(), Disconnect> {
        let Some(wish) = wish else {
            self.outbox.refuse(id, &StratumError::Parameters("that is no difficulty".into()));
            return Ok(());
        };
        self.outbox.grant(id, "true");
        self.vardiff.suggest(wish, now.instant);
        let lately = self.suggested.is_some_and(|at| now.instant.saturating_duration_since(at) < SUGGESTION_INTERVAL);
        let changes = self.announced.is_some_and(|(announced, _)| announced != self.vardiff.current());
        if !lately {
            self.suggested = Some(now.instant);
        }
        // A difficulty changes only together with a job.
        if changes && !lately { self.send_job(now) } else { Ok(()) }
    }

    pub(super) fn retarget(&mut self, now: Now) -> Result<(), Disconnect> {
        let Some((announced, _)) = self.announced else { return Ok(()) };
        // The next job most likely has the same ceiling as the current one.
        let newest = self.jobs.newest().and_then(|newest| newest.job.ceiling(self.vardiff.min()).difficulty);
        let ceiling = newest.unwrap_or(announced);
        // A difficulty changes only together with a job: devices apply it to the next one they get.
        if self.vardiff.retarget(ceiling, now.instant).is_some() { self.send_job(now) } else { Ok(()) }
    }
}
