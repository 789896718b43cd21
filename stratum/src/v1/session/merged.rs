//! Addresses on merged chains that a miner sets for its connection.

use std::time::Duration;

use crate::mining::error::StratumError;
use crate::mining::solution::Now;
use crate::mining::work::Work;
use crate::v1::message::Id;

use super::Session;
use super::event::Disconnect;

/// Minimum time between two jobs sent for other addresses; further changes apply from the next job on.
const CHANGE_INTERVAL: Duration = Duration::from_secs(10);

impl<W: Work> Session<W> {
    /// Handles `mining.set_merged_addresses`: the connection's jobs pay these addresses from now on, whatever its user
    /// names say. Before `mining.authorize` they are kept for it.
    pub(super) fn set_merged_addresses(
        &mut self,
        id: Id<'_>,
        addresses: Vec<(u32, Box<str>)>,
        now: Now,
    ) -> Result<(), Disconnect> {
        let result = match self.workers.first() {
            Some(first) => self.work.with_merged_addresses(first.worker.clone(), &addresses).map(Some),
            None => self.work.check_merged_addresses(&addresses).map(|()| None),
        };
        let worker = match result {
            Ok(worker) => worker,
            Err(refusal) => {
                self.outbox.refuse(id, &StratumError::MergedAddress(refusal.to_string()));
                return Ok(());
            }
        };
        self.merged_addresses = addresses.into();
        self.outbox.grant(id, "true");
        // The first worker's payout is that of the connection's jobs.
        let (Some(worker), Some(first)) = (worker, self.workers.first_mut()) else { return Ok(()) };
        let changes = first.worker.payout != worker.payout;
        let notice = worker.notice.clone();
        first.worker = worker;
        let lately = self.remerged.is_some_and(|at| now.instant.saturating_duration_since(at) < CHANGE_INTERVAL);
        if changes && !lately && self.told.is_some() {
            self.remerged = Some(now.instant);
            self.send_job(now)?;
        }
        if let Some(notice) = notice {
            self.show_message(&notice, now);
        }
        Ok(())
    }
}
