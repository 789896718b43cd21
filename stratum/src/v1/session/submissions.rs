//! Submissions: judged by their jobs, answered, credited to workers, passed on if they are solutions.

use std::time::{Duration, Instant};

use crate::mining::duplicates::Seen;
use crate::mining::error::StratumError;
use crate::mining::judge::{self, Basis, Judgement};
use crate::mining::solution::{Now, Solution};
use crate::mining::submission::{Candidate, Solved, Submission, shown};
use crate::mining::version_rolling;
use crate::mining::work::Work;
use crate::printable::Printable;
use crate::v1::message::Id;

use super::Session;
use super::event::{Disconnect, Event};
use super::patience::Remedy;

impl<W: Work> Session<W> {
    /// Judges a submission and answers it. Returns whether it was credited.
    pub(super) fn judge(
        &mut self,
        id: Id<'_>,
        name: &str,
        job: &str,
        now: Now,
        parse: impl Fn(u32, bool) -> Result<Submission, StratumError>,
    ) -> bool {
        let (credit, result) = match self.submit(name, job, now, parse) {
            Ok(Judgement { verdict, credit, .. }) => (credit, verdict.answer(|| shown(job))),
            Err(error) => (None, Err(error)),
        };
        let word = result.as_ref().map_or_else(StratumError::word, |()| "accepted");
        self.events.push_back(Event::Judged { verdict: word, credit });
        if credit.is_none()
            && let Some(known) = self.workers.iter_mut().find(|known| *known.given == *name)
        {
            known.account.refuse(word, now.instant);
        }
        self.outbox.answer(id, result);
        credit.is_some()
    }

    /// Judges a submission by its job, cheapest checks first. A solution is passed on even if it earns the miner
    /// nothing: because it is late, or because its name, time or version bits are refused.
    fn submit(
        &mut self,
        name: &str,
        job: &str,
        now: Now,
        parse: impl Fn(u32, bool) -> Result<Submission, StratumError>,
    ) -> Result<Judgement, StratumError> {
        if !self.subscribed {
            return Err(StratumError::NotSubscribed);
        }
        let worker = self.submitter(name);
        let Some(index) = self.jobs.find(job) else {
            worker?;
            return Err(StratumError::JobNotFound(shown(job)));
        };
        let handed_out = self.jobs.at(index);
        let mut mask = self.mask;
        let mut submission = match parse(mask, self.config.lenient) {
            Ok(submission) => submission,
            Err(error) => {
                if let Ok(understood) = parse(mask, true) {
                    self.pass_on_refused(index, &understood, now.instant);
                }
                worker?;
                return Err(error);
            }
        };
        if self.multi_version
            && mask == 0
            && let Some(full) = submission.version_bits
            && let Some(bits) = version_rolling::bits_of_version(handed_out.job.version, full)
        {
            submission.version_bits = Some(bits);
            mask = version_rolling::VERSION_MASK & self.config.version_mask;
        }
        let extranonce1 = handed_out.extranonce1;
        let candidate = submission.candidate(&handed_out.job, extranonce1, mask, now.unix, &mut self.last_root);
        let (worker, candidate) = match (worker, candidate) {
            (Ok(worker), Ok(candidate)) if !handed_out.pays_other => (worker, candidate),
            (worker, candidate) => {
                let pays_other = handed_out.pays_other;
                self.pass_on_refused(index, &submission, now.instant);
                worker?;
                if !pays_other {
                    candidate?;
                }
                return Err(StratumError::JobNotFound(shown(job)));
            }
        };
        let Some(solved) = self.prove(index, candidate, now.instant)? else { return Ok(Judgement::DUPLICATE) };
        let handed_out = self.jobs.at(index);
        let basis = Basis {
            solution_target: handed_out.job.solution_target,
            required: handed_out.difficulty,
            credited: self.worth(handed_out, &solved),
            epochs: handed_out.epochs,
            newest: self.work.epochs(),
            is_fee: handed_out.is_fee,
        };
        let judgement = judge::judge(&solved, &basis, &mut self.jobs.seen(index));
        if judgement.is_solution {
            let extranonces = submission.extranonces(extranonce1);
            let worker = self.workers[worker].worker.name.clone();
            self.pass_on(index, solved, extranonces, worker, now.instant);
        }
        if judgement.credit.is_some() || judgement.is_solution {
            self.reward(index);
        }
        if let Some(credit) = &judgement.credit {
            self.workers[worker].account.credit(credit, now.instant);
            self.vardiff.record(credit.difficulty, now.instant);
            self.patience.restore();
            self.credited = now.instant;
            if self.jobs.needs_next(index) {
                self.refresh = Duration::ZERO;
            }
        }
        Ok(judgement)
    }

    /// Computes the proof of work of a submission for the job at `index`; `None` if it was judged before. Where proof of
    /// work is costly, it is computed only for what was not, and only if the miner or its source can pay for it.
    fn prove(&mut self, index: usize, candidate: Candidate, now: Instant) -> Result<Option<Solved>, StratumError> {
        if self.jobs.at(index).job.has_costly_pow() {
            if self.jobs.seen(index).knows(&candidate.hash) {
                return Ok(None);
            }
            if let Some(source) = self.source
                && !self.memory.pow_budget().pay(&mut self.earned, source, now)
            {
                return Err(StratumError::Worthless);
            }
        }
        Ok(Some(candidate.solve(&self.jobs.at(index).job)))
    }

    /// Rewards the miner for a submission for the job at `index` that was worth its proof of work.
    fn reward(&mut self, index: usize) {
        if let Some(source) = self.source
            && self.jobs.at(index).job.has_costly_pow()
        {
            self.memory.pow_budget().reward(&mut self.earned, source);
        }
    }

    fn pass_on(&mut self, index: usize, solved: Solved, extranonces: [u8; 8], worker: Printable, judged: Instant) {
        let job = self.jobs.at(index).job.clone();
        self.events.push_back(Event::Solution(Box::new(Solution { job, solved, extranonces, worker, judged })));
    }

    /// Passes on a solution of the job at `index` that was refused for a reason other than its hash.
    fn pass_on_refused(&mut self, index: usize, submission: &Submission, judged: Instant) {
        let handed_out = self.jobs.at(index);
        let (extranonce1, target) = (handed_out.extranonce1, handed_out.job.solution_target);
        let candidates = submission.candidates_although_refused(&handed_out.job, extranonce1, &mut self.last_root);
        let salvaged = candidates.into_iter().flatten().find_map(|candidate| {
            let solved = self.prove(index, candidate, judged).ok()??;
            judge::salvage(solved, target, &mut self.jobs.seen(index))
        });
        let Some(solved) = salvaged else { return };
        self.reward(index);
        let extranonces = submission.extranonces(extranonce1);
        // Never a refused name: its content is unchecked.
        let worker = match self.workers.first() {
            Some(first) => first.worker.name.clone(),
            None => Printable::new(self.resumed.as_ref().unwrap_or(&self.payee)),
        };
        self.pass_on(index, solved, extranonces, worker, judged);
    }

    pub(super) fn tolerate(&mut self, now: Now) -> Result<(), Disconnect> {
        match self.patience.tolerate(&self.config, self.is_mining(), now.instant)? {
            Some(Remedy::SendJob) => self.send_job(now)?,
            Some(Remedy::Reconnect) => self.reconnect(),
            None => {}
        }
        Ok(())
    }
}
