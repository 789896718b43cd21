//! Jobs of a session: when one is sent, its difficulty, `clean_jobs`, and its transactions.

use crate::mining::error::StratumError;
use crate::mining::job::Job;
use crate::mining::solution::Now;
use crate::mining::submission::shown;
use crate::mining::work::Work;
use crate::v1::message::{self, Id};

use super::Session;
use super::config::DropLateWork;
use super::event::{Disconnect, Event, JobTooBig};

impl<W: Work> Session<W> {
    pub(super) fn send_job(&mut self, now: Now) -> Result<(), Disconnect> {
        let draw = self.random.u32(..);
        let payout = &self.workers[0].worker.payout;
        let offer = self.work.offer(payout, self.generation, draw).map_err(Disconnect::NoWork)?;
        self.generation += 1;
        let too_big = self.measure(&offer.job);
        if too_big.is_some() && self.config.refuse_small_devices {
            return Err(Disconnect::SmallDevice);
        }
        let epochs = self.work.epochs();
        let (difficulty, target) = offer.job.ceiling(self.vardiff.min()).lower(self.vardiff.current());
        // cgminer queues difficulties and applies one with each job: so never send two before one.
        if self.announced.is_none_or(|(announced, _)| announced != difficulty) {
            self.outbox.push(message::set_difficulty(self.config.difficulty_scale.show(difficulty.get())));
        }
        self.announced = Some((difficulty, target));
        self.client.difficulty_sent(difficulty);
        let is_late = self.told.is_some_and(|told| told.drops_for(epochs));
        let clean = match self.config.drop_late_work {
            _ if self.told.is_none_or(|told| told.stale != epochs.stale) => true,
            DropLateWork::Always => is_late,
            DropLateWork::Never => false,
            DropLateWork::ByDevice => is_late && !self.device.flushes_slowly,
        };
        self.outbox.push(offer.line);
        self.outbox.push(message::notify_end(clean));
        self.jobs.add(offer.job, offer.is_fee, difficulty, epochs, self.extranonce1.bytes(), now.instant);
        self.told = Some(epochs);
        self.notified = now.instant;
        self.refresh = self.config.notify_interval.mul_f64(1.0 - 0.2 * self.random.f64());
        if let Some(too_big) = too_big {
            self.show_message(&too_big.to_string(), now);
            self.events.push_back(Event::JobTooBig(too_big));
        }
        Ok(())
    }

    /// Reports a job that is too big for the device, the first time.
    fn measure(&mut self, job: &Job<W::Ticket>) -> Option<Box<JobTooBig>> {
        let coinbase_bytes_max = self.device.room.coinbase_bytes_max(job.branch.len())?;
        let coinbase_bytes = job.coinbase_bytes();
        if self.warned_of_size || coinbase_bytes <= coinbase_bytes_max {
            return None;
        }
        self.warned_of_size = true;
        Some(Box::new(JobTooBig {
            worker: self.workers[0].worker.name.shared().clone(),
            device: self.device.name,
            user_agent: self.user_agent.to_string(),
            coinbase_bytes,
            coinbase_bytes_max,
        }))
    }

    pub(super) fn send_transactions(&mut self, id: Id<'_>, job: &str, now: Now) {
        let seconds = self.config.transactions_interval.as_secs();
        let lately = self
            .transactions_sent
            .is_some_and(|at| now.instant.saturating_duration_since(at) < self.config.transactions_interval);
        let result = if lately {
            Err(StratumError::TooOften { method: "mining.get_transactions", seconds })
        } else {
            let found = self.jobs.find(job).ok_or_else(|| StratumError::JobNotFound(shown(job)));
            found.and_then(|index| {
                let transactions = self.work.transactions(self.jobs.at(index).job.ticket());
                transactions
                    .filter(|list| list.len() <= self.config.transactions_bytes_max)
                    .ok_or(StratumError::Unavailable("transactions are not given out here"))
            })
        };
        match result {
            Ok(list) => {
                self.transactions_sent = Some(now.instant);
                // The list is shared by all callers; only the frame around it belongs to this connection.
                if let Some((head, tail)) = message::success_around(id) {
                    self.outbox.push(head);
                    self.outbox.push(list);
                    self.outbox.push(tail);
                }
            }
            Err(error) => self.outbox.refuse(id, &error),
        }
    }
}
