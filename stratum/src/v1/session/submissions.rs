//! Submissions: judged by their jobs, answered, credited to workers, passed on if they are solutions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mining::duplicates::Duplicates;
use crate::mining::error::StratumError;
use crate::mining::job::{Job, Pow};
use crate::mining::judge::{self, Judgement};
use crate::mining::solution::{Now, Solution};
use crate::mining::submission::{Solved, Submission, shown};
use crate::mining::version_rolling;
use crate::mining::work::Work;
use crate::printable::Printable;
use crate::v1::message::Id;

use super::event::{Disconnect, Event};
use super::in_flight::Purpose;
use super::patience::Remedy;
use super::receipt::Receipt;
use super::{KnownWorker, Session};

/// What became of a line with a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Submitted {
    /// It was credited.
    Credited,
    /// It was refused.
    Useless,
    /// It is answered when the driver has computed its proof of work.
    InFlight,
}

impl<W: Work> Session<W> {
    /// Judges a submission and answers it, at once where proof of work is cheap.
    pub(super) fn judge(
        &mut self,
        id: Id<'_>,
        name: &str,
        job: &str,
        now: Now,
        parse: impl Fn(u32, bool) -> Result<Submission, StratumError>,
    ) -> Submitted {
        let judgement = match self.submit(id, name, job, now, parse) {
            Ok(Some(judgement)) => Ok(judgement),
            Ok(None) => return Submitted::InFlight,
            Err(error) => Err(error),
        };
        let refused = |workers: &[KnownWorker<W::Payout>]| workers.iter().position(|known| *known.given == *name);
        let is_credited = self.answer_judged(id, judgement, || shown(job), refused, now.instant);
        if is_credited { Submitted::Credited } else { Submitted::Useless }
    }

    /// Reports a judged submission and answers it; `job` returns the id of its job, `refused` the index of the worker
    /// whose account shows a refusal. Returns true if it was credited.
    pub(super) fn answer_judged(
        &mut self,
        id: Id<'_>,
        judgement: Result<Judgement, StratumError>,
        job: impl FnOnce() -> String,
        refused: impl FnOnce(&[KnownWorker<W::Payout>]) -> Option<usize>,
        at: Instant,
    ) -> bool {
        let scale = self.config.difficulty_scale;
        let (credit, result) = match judgement {
            Ok(Judgement { verdict, credit, .. }) => (credit, verdict.answer(scale, job)),
            Err(error) => (None, Err(error)),
        };
        let word = result.as_ref().map_or_else(StratumError::word, |()| "accepted");
        self.events.push_back(Event::Judged { verdict: word, credit });
        if credit.is_none()
            && let Some(index) = refused(&self.workers)
        {
            self.workers[index].account.refuse(word, at);
        }
        self.outbox.answer(id, result);
        credit.is_some()
    }

    /// Judges a submission by its job, cheapest checks first; `None` if that waits for its proof of work. A solution is
    /// passed on even if it earns the miner nothing: because it is late, or because its name, time or version bits are
    /// refused.
    fn submit(
        &mut self,
        id: Id<'_>,
        name: &str,
        job: &str,
        now: Now,
        parse: impl Fn(u32, bool) -> Result<Submission, StratumError>,
    ) -> Result<Option<Judgement>, StratumError> {
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
        let extranonces = submission.extranonces(extranonce1);
        let newest = self.work.epochs();
        let min = self.vardiff.min();
        let receipt = Receipt::new(handed_out, self.announced, min, newest, worker, extranonces, now.instant);
        if let Pow::Costly(pow) = handed_out.job.pow {
            let has_own_name = *self.workers[worker].given == *name;
            let purpose = Purpose::Verdict { id: id.to_kept(), receipt, has_own_name };
            return self.ask_for_hash(index, candidate, pow, purpose, now.instant).map(|()| None);
        }
        let solved = candidate.solve(&handed_out.job);
        Ok(Some(self.settle(Some(index), &receipt, &solved, None)))
    }

    /// Judges a hashed submission for the job at `index`, credits it, and passes it on if it is a solution. `costly` is
    /// its job where proof of work is costly; that may have been dropped, and then has no index.
    pub(super) fn settle(
        &mut self,
        index: Option<usize>,
        receipt: &Receipt,
        solved: &Solved,
        costly: Option<&Arc<Job<W::Ticket>>>,
    ) -> Judgement {
        let basis = receipt.basis(solved);
        let judgement = match index {
            Some(index) => judge::judge(solved, &basis, &mut self.jobs.seen(index)),
            // The job was dropped with what was submitted for it: none of that can come again.
            None => judge::judge(solved, &basis, &mut Duplicates::default()),
        };
        if judgement.is_solution
            && let Some(job) = costly.or_else(|| index.map(|index| &self.jobs.at(index).job))
        {
            let worker = self.workers[receipt.worker].worker.name.clone();
            self.pass_on(job.clone(), *solved, receipt.extranonces, worker, receipt.at);
        }
        if costly.is_some() && (judgement.credit.is_some() || judgement.is_solution) {
            self.reward();
        }
        if let Some(credit) = &judgement.credit {
            self.workers[receipt.worker].account.credit(credit, receipt.at);
            self.vardiff.record(credit.difficulty, receipt.at);
            self.patience.restore();
            self.credited = receipt.at;
            if index.is_some_and(|index| self.jobs.needs_next(index)) {
                self.refresh = Duration::ZERO;
            }
        }
        judgement
    }

    /// Rewards the miner for a submission that was worth its costly proof of work.
    pub(super) fn reward(&mut self) {
        if let Some(source) = self.source {
            self.memory.pow_budget().reward(&mut self.earned, source);
        }
    }

    pub(super) fn pass_on(
        &mut self,
        job: Arc<Job<W::Ticket>>,
        solved: Solved,
        extranonces: [u8; 8],
        worker: Printable,
        judged: Instant,
    ) {
        self.events.push_back(Event::Solution(Box::new(Solution { job, solved, extranonces, worker, judged })));
    }

    /// Passes on a solution of the job at `index` that was refused for a reason other than its hash.
    fn pass_on_refused(&mut self, index: usize, submission: &Submission, at: Instant) {
        let handed_out = self.jobs.at(index);
        let (job, extranonce1) = (handed_out.job.clone(), handed_out.extranonce1);
        let extranonces = submission.extranonces(extranonce1);
        let candidates = submission.candidates_although_refused(&job, extranonce1, &mut self.last_root);
        for candidate in candidates.into_iter().flatten() {
            if let Pow::Costly(pow) = job.pow {
                let purpose = Purpose::Salvage { extranonces, worker: self.first_name(), at };
                // Not for a header that was judged before, or that nothing pays for.
                let _ = self.ask_for_hash(index, candidate, pow, purpose, at);
                continue;
            }
            let seen = &mut self.jobs.seen(index);
            if let Some(solved) = judge::salvage(candidate.solve(&job), job.solution_target, seen) {
                let worker = self.first_name();
                return self.pass_on(job, solved, extranonces, worker, at);
            }
        }
    }

    /// Name for solutions in refused submissions: never a refused one, whose content is unchecked.
    fn first_name(&self) -> Printable {
        match self.workers.first() {
            Some(first) => first.worker.name.clone(),
            None => Printable::new(self.resumed.as_ref().unwrap_or(&self.payee)),
        }
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
