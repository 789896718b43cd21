//! Handshake: identity and extensions of the miner, payout of its jobs.

use crate::mining::device;
use crate::mining::difficulty::Difficulty;
use crate::mining::error::StratumError;
use crate::mining::extranonce::EXTRANONCE2_SIZE;
use crate::mining::memory::Settled;
use crate::mining::solution::Now;
use crate::mining::submission::shown;
use crate::mining::tally::Tally;
use crate::mining::version_rolling;
use crate::mining::work::{Refusal, Work};
use crate::printable::Printable;
use crate::v1::message::{self, Configure, Id};

use super::event::{Disconnect, Event};
use super::{KnownWorker, Session};

/// Maximum length of a user agent, in characters.
const USER_AGENT_CHARACTERS_MAX: usize = 128;

impl<W: Work> Session<W> {
    pub(super) fn is_called(&mut self, user_agent: &str) {
        self.user_agent = Printable::of_at_most(user_agent, USER_AGENT_CHARACTERS_MAX);
        self.device = device::by_user_agent(&self.user_agent);
        self.client.is_called(self.user_agent.clone());
    }

    pub(super) fn subscribe(
        &mut self,
        id: Id<'_>,
        user_agent: &str,
        session: Option<&str>,
        now: Now,
    ) -> Result<(), Disconnect> {
        if !user_agent.is_empty() {
            self.is_called(user_agent);
        }
        if let Some(session) = session.and_then(|session| u64::from_str_radix(session, 16).ok())
            && self.told.is_none()
        {
            self.resume(session, now);
        }
        let extranonce1 = hex::encode(self.extranonce1.bytes());
        let name = self.name;
        // Both subscriptions, for clients that look for either; miners quote the name to resume the session.
        let result = format!(
            r#"[[["mining.set_difficulty","{name:016x}"],["mining.notify","{name:016x}"]],"{extranonce1}",{EXTRANONCE2_SIZE}]"#
        );
        self.outbox.grant(id, &result);
        self.subscribed = true;
        // cpuminer and bfgminer take the first line after `mining.subscribe` for its answer, so a mask negotiated
        // before is sent only now.
        if std::mem::take(&mut self.mask_untold) {
            self.outbox.push(message::set_version_mask(self.mask));
        }
        self.start_mining(now)
    }

    /// Resumes an earlier session, if it is remembered: with the same extranonce1, so that the miner's work in progress
    /// counts.
    pub(super) fn resume(&mut self, session: u64, now: Now) {
        let Some(past) = self.memory.take(session, now.instant) else { return };
        self.extranonce1 = past.extranonce1;
        self.jobs = past.jobs;
        self.jobs.forget_old(now.instant);
        self.start = self.start.or(past.difficulty);
        self.resumed = Some(past.payout);
        self.events.push_back(Event::Resumed);
    }

    pub(super) fn authorize(&mut self, id: Id<'_>, name: &str, password: &str, now: Now) -> Result<(), Disconnect> {
        if self.config.checks_credentials {
            return self.claim(id, name, password, now);
        }
        let result = self.add_worker(name, password);
        self.answer_authorize(id, result, now)
    }

    /// Answers `mining.authorize`: `result` is the index of the worker. Sends the first job.
    pub(super) fn answer_authorize(
        &mut self,
        id: Id<'_>,
        result: Result<usize, StratumError>,
        now: Now,
    ) -> Result<(), Disconnect> {
        self.events.push_back(Event::Authorized(if result.is_ok() { "authorized" } else { "refused" }));
        self.refusals += u32::from(result.is_err());
        let notice = result.as_ref().ok().and_then(|index| self.workers[*index].worker.notice.clone());
        self.outbox.answer(id, result.map(|_| ()));
        if self.refusals >= self.refusals_max() {
            return Err(Disconnect::Refused);
        }
        self.start_mining(now)?;
        if let Some(notice) = notice {
            self.show_message(&notice, now);
        }
        Ok(())
    }

    /// Sends the first job once the miner has subscribed and authorised.
    pub(super) fn start_mining(&mut self, now: Now) -> Result<(), Disconnect> {
        if !self.is_mining() || self.told.is_some() {
            return Ok(());
        }
        if self.resumed.take().is_some_and(|payout| payout != self.workers[0].payout()) {
            // Resumed for another payout: the jobs earn this one nothing, but may still be blocks.
            self.jobs.disown();
        }
        self.credited = now.instant;
        let known = self.start.or_else(|| {
            let name = &self.workers[0].worker.name;
            let miner = Settled { source: self.source, name, user_agent: &self.user_agent };
            self.memory.difficulty(miner, now.instant)
        });
        let of_kind = self.device.start.filter(|_| self.config.known_devices).and_then(Difficulty::new);
        let slowest = Difficulty::new(self.device.slowest).filter(|_| self.config.known_devices);
        match known {
            _ if self.suggested.is_some() => {}
            Some(known) => self.vardiff.remember(known, now.instant),
            None => {
                let start = of_kind.unwrap_or(self.config.vardiff.start);
                self.vardiff.begin(start, slowest.unwrap_or(self.config.vardiff.min), now.instant);
            }
        }
        self.send_job(now)?;
        if self.user_agent.is_empty() {
            self.asked_version = true;
            self.outbox.push(message::get_version());
        }
        Ok(())
    }

    pub(super) fn configure(&mut self, id: Id<'_>, asked: &Configure) {
        let mut result = serde_json::Map::new();
        let mut mask = None;
        // Answers exactly the extensions that were requested: cgminer logs an error for each extra one.
        for extension in &asked.extensions {
            let granted = match extension.as_str() {
                "version-rolling" => {
                    mask = version_rolling::negotiate(asked.version_rolling_mask, self.config.version_mask);
                    self.mask = mask.unwrap_or(0);
                    if let Some(mask) = mask {
                        result.insert("version-rolling.mask".into(), format!("{mask:08x}").into());
                    }
                    mask.is_some()
                }
                "minimum-difficulty" => {
                    let scale = self.config.difficulty_scale;
                    let min = asked.minimum_difficulty.and_then(|min| scale.read(min));
                    min.inspect(|min| self.vardiff.raise_min(*min)).is_some()
                }
                "subscribe-extranonce" => {
                    self.subscribed_to_extranonce = true;
                    true
                }
                "info" => {
                    if let Some(software) = asked.software.as_ref().filter(|_| self.user_agent.is_empty()) {
                        self.is_called(software);
                    }
                    true
                }
                _ => false,
            };
            result.insert(extension.clone(), granted.into());
        }
        self.outbox.grant(id, &serde_json::Value::from(result).to_string());
        if let Some(mask) = mask {
            if self.subscribed { self.outbox.push(message::set_version_mask(mask)) } else { self.mask_untold = true }
        }
    }

    /// Authorises `name` and returns the index of its worker.
    pub(super) fn add_worker(&mut self, name: &str, password: &str) -> Result<usize, StratumError> {
        let unauthorized = |refusal: Refusal| StratumError::Unauthorized(refusal.to_string());
        let mut worker = self.work.authorize(name, password).map_err(unauthorized)?;
        if !self.merged_addresses.is_empty() {
            worker = self.work.with_merged_addresses(worker, &self.merged_addresses).map_err(unauthorized)?;
        }
        if let Some(primary) = self.workers.first()
            && primary.worker.payout != worker.payout
        {
            return Err(StratumError::Unauthorized(format!(
                "`{}` is to be paid at {:#}, but this connection's jobs pay {:#}: give it a connection of its own",
                shown(name),
                worker.payout,
                primary.worker.payout
            )));
        }
        if let Some(difficulty) = worker.difficulty {
            self.vardiff.fix(difficulty);
        }
        if let Some(index) = self.workers.iter().position(|known| *known.given == *name) {
            return Ok(index);
        }
        if self.workers.len() >= self.config.workers_max.max(1) {
            return Ok(0);
        }
        if self.workers.is_empty() {
            self.payee = worker.payout.to_string().into();
        }
        let (tally, account) = Tally::new(worker.name.clone(), self.payee.clone(), self.client.clone());
        self.events.push_back(Event::Joined(tally));
        self.workers.push(KnownWorker { given: name.into(), worker, account });
        Ok(self.workers.len() - 1)
    }

    /// Index of the worker to credit a submission under `name` to. Proxies submit under names that they never
    /// authorised: these count as authorised if their jobs would be the same. Where names need a password, such a
    /// submission is the first worker's.
    pub(super) fn submitter(&mut self, name: &str) -> Result<usize, StratumError> {
        if self.workers.is_empty() {
            return Err(StratumError::Unauthorized("send mining.authorize first".into()));
        }
        match self.workers.iter().position(|known| *known.given == *name) {
            Some(index) => Ok(index),
            // Parsing a name costs more than checking a submission: with this many workers, no new name is parsed.
            None if self.config.checks_credentials || self.workers.len() >= self.config.workers_max.max(1) => Ok(0),
            None => self.add_worker(name, ""),
        }
    }
}
