//! Server for miners that poll with `getwork`, Bitcoin's protocol before Stratum.
//!
//! A polling miner has no connection to keep state for. So one [`GetworkServer`] serves all of them: every answer has a
//! coinbase of its own, the job of a submission is found by its merkle root, and difficulty is kept per worker name of
//! each network. Like a session it does no I/O and reads no clock; it holds its lock for microseconds.
//!
//! Strangers fill its tables: whatever a network asks for, it pushes out answers and names of its own
//! ([`FairMap`](crate::mining::fair_map::FairMap)), never those of others that hold less.

mod answers;
mod data;
mod miners;

pub use answers::{ANSWERS_BYTES_MAX, ANSWERS_MAX};
pub use data::DATA_BYTES;
pub use miners::{MINERS_MAX, NEWCOMERS_MIN};

use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crate::mining::difficulty::{Difficulty, Scale};
use crate::mining::epochs::Epochs;
use crate::mining::error::StratumError;
use crate::mining::extranonce::{Extranonces, Lease};
use crate::mining::job::{Pow, PowFunction, Unannounced, Unhashed};
use crate::mining::judge::{self, Basis, Judgement};
use crate::mining::pow_budget::{Earned, Paid, PowBudget};
use crate::mining::solution::{Now, Solution};
use crate::mining::source::Source;
use crate::mining::submission::{Candidate, Solved, TIME_ROLL_MAX_S};
use crate::mining::tally::{Credit, Tallies};
use crate::mining::vardiff;
use crate::mining::work::{Refusal, Work};
use crate::printable::Printable;
use answers::{Answer, Answers};
use data::{header_of, render, root_of};
use miners::Miners;

/// A request for work.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// User name, as in `mining.authorize`.
    pub name: &'a str,
    /// The password.
    pub password: &'a str,
    /// Network that it comes from.
    pub source: Source,
    /// Random number for deciding on an operator's fee.
    pub draw: u32,
    /// Easiest difficulty that the device can report: hardware drops hashes that do not meet difficulty 1.
    pub easiest: Option<Difficulty>,
}

/// Answer to a request, before hex encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// Padded header, with the bytes of each four-byte word reversed.
    pub data: [u8; DATA_BYTES],
    /// SHA-256 state after the header's first 64 bytes, with the bytes of each word reversed.
    pub midstate: [u8; 32],
    /// Greatest hash accepted, lowest byte first.
    pub target: [u8; 32],
}

/// Result of a submission.
#[derive(Debug)]
pub struct Judged<T> {
    /// The answer to it.
    pub verdict: Result<(), StratumError>,
    /// Solution of the job, if it is one: to be passed on before the submission is answered.
    pub solution: Option<Solution<T>>,
    /// Credit added to the worker's account.
    pub credit: Option<Credit>,
}

impl<T> Judged<T> {
    fn refused(error: StratumError) -> Self {
        Self { verdict: Err(error), solution: None, credit: None }
    }
}

/// Hands out work to polling miners and judges their submissions.
#[derive(Debug)]
pub struct GetworkServer<W: Work> {
    extranonces: Extranonces,
    pow_budget: PowBudget,
    state: Mutex<State<W::Ticket>>,
}

#[derive(Debug)]
struct State<T> {
    /// First half of the coinbase's free bytes; the second half is a counter of answers.
    extranonce1: Lease,
    count: u32,
    answers: Answers<T>,
    miners: Miners,
    /// Headers whose costly proof of work is being computed, by hash.
    in_flight: HashSet<[u8; 32]>,
    /// Newest epochs seen, for use while there is no work.
    newest: Epochs,
    /// Scale of the difficulties in answers.
    scale: Scale,
}

/// A submission that is worth its proof of work: all other checks have passed. It counts as seen until it is given to
/// [`GetworkServer::conclude`], so it must not be lost.
#[derive(Debug)]
#[must_use = "it is to be hashed and concluded"]
pub struct Prepared<T> {
    answer: Arc<Answer<T>>,
    candidate: Candidate,
    /// Reason for refusing it unless it is a solution.
    refusal: Option<StratumError>,
    /// Network that it came from.
    source: Source,
    /// Epochs of the newest work when it came.
    newest: Epochs,
    received: Instant,
    paid: Option<Paid>,
}

impl<T> Prepared<T> {
    /// Header to be hashed.
    pub fn header(&self) -> &[u8; 80] {
        &self.candidate.header
    }

    /// Function to hash it with if that takes so long that it belongs off the event loop.
    pub fn costly_pow(&self) -> Option<PowFunction> {
        match self.answer.job.pow {
            Pow::Sha256d => None,
            Pow::Costly(pow) => Some(pow),
        }
    }

    /// Computes the proof of work.
    pub fn pow_hash(&self) -> [u8; 32] {
        self.candidate.solve(&self.answer.job).pow_hash
    }

    /// True if the miner has earned the hash by credited submissions.
    pub fn is_earned(&self) -> bool {
        self.paid == Some(Paid::Earned)
    }

    /// Name of the worker that the answer was given to.
    pub fn worker(&self) -> &Printable {
        &self.answer.worker
    }
}

impl<W: Work> GetworkServer<W> {
    /// Creates a server with an extranonce1 of its own from `extranonces`; `None` if all are in use. New tallies are
    /// added to `tallies`. With `exempts_loopback`, this machine may submit any number of worthless headers.
    pub fn new(
        config: vardiff::Config,
        extranonces: Extranonces,
        tallies: Arc<Tallies>,
        exempts_loopback: bool,
    ) -> Option<Self> {
        let state = State {
            extranonce1: extranonces.lease()?,
            count: 0,
            answers: Answers::new(),
            miners: Miners::new(config, tallies),
            in_flight: HashSet::new(),
            newest: Epochs::default(),
            scale: Scale::default(),
        };
        let pow_budget = PowBudget::new(exempts_loopback);
        Some(Self { extranonces, pow_budget, state: Mutex::new(state) })
    }

    /// Sets the scale of the difficulties in reasons of refusals; by default they are shown as they are.
    #[must_use]
    pub fn with_difficulty_scale(self, scale: Scale) -> Self {
        self.state.lock().scale = scale;
        self
    }

    /// Returns work from the snapshot `work` for the request `ask`.
    ///
    /// # Errors
    /// The reason for a refusal, shown to the miner.
    pub fn hand_out(&self, work: &W, ask: Ask<'_>, now: Now) -> Result<Handed, Refusal> {
        let worker = work.authorize(ask.name, ask.password)?;
        // Made outside the lock; all polling miners with the same payout share it.
        let Unannounced { job, is_fee } = work.job(&worker.payout, ask.draw)?;
        let job_bytes = job.memory() + work.ticket_memory(job.ticket());
        let mut state = self.state.lock();
        state.newest = work.epochs();
        let name = (ask.source, worker.name.clone());
        let miner = state.miners.see(&name, || worker.payout.to_string().into(), now.instant);
        let (difficulty, target) = miner.difficulty(worker.difficulty, ask.easiest, &job, now.instant);
        // Shared with all answers to the name.
        let (worker_name, payee) = (miner.account.tally().worker.clone(), miner.account.tally().payee.clone());
        let extranonces = state.next_extranonces(&self.extranonces)?;
        let root = job.merkle_root(&extranonces);
        // A current time leaves the most room for rolling it.
        let time = now.unix.clamp(job.time, job.time.saturating_add(TIME_ROLL_MAX_S / 2));
        let header = job.header(job.version, &root, time, 0);
        let answer = Answer {
            job,
            extranonces,
            difficulty,
            target,
            epochs: work.epochs(),
            source: ask.source,
            is_fixed: worker.difficulty.is_some(),
            worker: worker_name,
            payee,
            is_fee,
            since: now.instant,
        };
        state.answers.remember(root, answer, job_bytes);
        Ok(render(&header, target))
    }

    /// Judges `data` as submitted from `source`, against the work it was made for; `newest` are the epochs of the current
    /// work, `None` if there is none. A new solution is returned whatever the verdict. Hashes on the spot: where that is
    /// costly, [`Self::prepare`] and [`Self::conclude`] leave it to the caller.
    pub fn judge(&self, newest: Option<Epochs>, data: &[u8], source: Source, now: Now) -> Judged<W::Ticket> {
        match self.prepare(newest, data, source, now) {
            Ok(prepared) => {
                // Outside the lock: scrypt takes a third of a millisecond.
                let pow_hash = prepared.pow_hash();
                self.conclude(prepared, Ok(pow_hash))
            }
            Err(error) => Judged::refused(error),
        }
    }

    /// Checks everything but the proof of work: costly, and not computed for what was judged before or is in flight, for
    /// what is no block whatever its hash, or beyond the budget of `source`. Arguments as of [`Self::judge`].
    ///
    /// # Errors
    /// The submission is refused.
    pub fn prepare(
        &self,
        newest: Option<Epochs>,
        data: &[u8],
        source: Source,
        now: Now,
    ) -> Result<Prepared<W::Ticket>, StratumError> {
        let header = header_of(data)
            .ok_or_else(|| StratumError::Parameters(format!("{} bytes of data, not {DATA_BYTES}", data.len())))?;
        let root = root_of(&header);
        let mut state = self.state.lock();
        state.newest = newest.unwrap_or(state.newest);
        let answer = state.answers.get(&root, now.instant).cloned();
        let answer = answer.ok_or_else(|| StratumError::JobNotFound(hex::encode(root)))?;
        let refusal = answer.check(&header, now.unix).err();
        let candidate = Candidate::of(header);
        let is_known = state.in_flight.contains(&candidate.hash)
            || state.answers.with_seen(&root, |seen| seen.contains(&candidate.hash));
        let can_be_block = refusal.is_none() || answer.can_be_block(&header);
        let error = match refusal {
            Some(error) if is_known || !can_be_block => error,
            None if is_known => StratumError::Duplicate,
            refusal => {
                let is_costly = answer.job.has_costly_pow();
                let paid = if is_costly { self.pay(&mut state, &answer, source, now.instant) } else { None };
                if paid.is_some() || !is_costly {
                    if is_costly {
                        state.in_flight.insert(candidate.hash);
                    }
                    let (newest, received) = (state.newest, now.instant);
                    return Ok(Prepared { answer, candidate, refusal, source, newest, received, paid });
                }
                refusal.unwrap_or(StratumError::Worthless)
            }
        };
        state.refuse(&answer, &error, now.instant);
        Err(error)
    }

    /// Pays for the hash of a submission for `answer` from `source`; only its own network uses what a name has earned.
    fn pay(
        &self,
        state: &mut State<W::Ticket>,
        answer: &Answer<W::Ticket>,
        source: Source,
        now: Instant,
    ) -> Option<Paid> {
        let name = (answer.source, answer.worker.clone());
        let miner = state.miners.get_mut(&name).filter(|_| source == answer.source);
        let mut nothing = Earned::default();
        self.pow_budget.pay(miner.map_or(&mut nothing, |miner| &mut miner.earned), source, now)
    }

    /// Judges a prepared submission as of its receipt, by its proof of work, or [`Unhashed`] if there was no room for
    /// that. A new solution is returned whatever the verdict.
    pub fn conclude(&self, prepared: Prepared<W::Ticket>, pow_hash: Result<[u8; 32], Unhashed>) -> Judged<W::Ticket> {
        let Prepared { answer, candidate, refusal, source, newest, received, paid } = prepared;
        let mut state = self.state.lock();
        if paid.is_some() {
            state.in_flight.remove(&candidate.hash);
        }
        let Ok(pow_hash) = pow_hash else {
            if source == answer.source
                && let Some(miner) = state.miners.get_mut(&(answer.source, answer.worker.clone()))
            {
                self.pow_budget.refund(&mut miner.earned);
            }
            let error = refusal.unwrap_or(StratumError::Busy);
            state.refuse(&answer, &error, received);
            return Judged::refused(error);
        };
        let solved = candidate.solved_by(pow_hash);
        let judged = match refusal {
            None => state.settle(&answer, solved, newest, received),
            Some(error) => state.salvage(&answer, solved, error, received),
        };
        if (judged.credit.is_some() || judged.solution.is_some())
            && paid.is_some()
            && let Some(miner) = state.miners.get_mut(&(answer.source, answer.worker.clone()))
        {
            self.pow_budget.reward(&mut miner.earned, source);
        }
        judged
    }
}

impl<T> State<T> {
    /// Judges a header that is a submission for `answer`.
    fn settle(&mut self, answer: &Answer<T>, solved: Solved, newest: Epochs, now: Instant) -> Judged<T> {
        let basis = Basis {
            solution_target: answer.job.solution_target(),
            required: answer.difficulty,
            credited: answer.target.is_met_by(&solved.pow_hash).then_some(answer.difficulty),
            epochs: answer.epochs,
            newest,
            is_fee: answer.is_fee,
        };
        let root = root_of(&solved.header);
        let Judgement { verdict, credit, is_solution } =
            self.answers.with_seen(&root, |seen| judge::judge(&solved, &basis, seen));
        let verdict = verdict.answer(self.scale, || hex::encode(root));
        match (&credit, &verdict) {
            (Some(credit), _) => {
                let name = (answer.source, answer.worker.clone());
                let miner = self.miners.prove(&name, &answer.payee, now);
                if !answer.is_fixed {
                    miner.vardiff.record(credit.difficulty, now);
                }
                miner.account.credit(credit, now);
            }
            (None, Err(error)) => self.refuse(answer, error, now),
            (None, Ok(())) => {}
        }
        Judged { verdict, solution: is_solution.then(|| answer.solution(solved, now)), credit }
    }

    /// Refuses a submission for `answer` with `error`, and returns the solution in it, if it is a new one.
    fn salvage(&mut self, answer: &Answer<T>, solved: Solved, error: StratumError, now: Instant) -> Judged<T> {
        let target = answer.job.solution_target();
        let root = root_of(&solved.header);
        let salvaged = self.answers.with_seen(&root, |seen| judge::salvage(solved, target, seen));
        self.refuse(answer, &error, now);
        Judged { solution: salvaged.map(|solved| answer.solution(solved, now)), ..Judged::refused(error) }
    }

    /// Counts a refused submission for `answer`.
    fn refuse(&mut self, answer: &Answer<T>, error: &StratumError, now: Instant) {
        if let Some(miner) = self.miners.get_mut(&(answer.source, answer.worker.clone())) {
            miner.account.refuse(error.word(), now);
        }
    }

    fn next_extranonces(&mut self, extranonces: &Extranonces) -> Result<[u8; 8], Refusal> {
        let (count, wrapped) = self.count.overflowing_add(1);
        if wrapped {
            self.extranonce1 = extranonces.lease().ok_or_else(|| Refusal("no extranonce is free".to_owned()))?;
        }
        self.count = count;
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.extranonce1.bytes());
        bytes[4..].copy_from_slice(&count.to_be_bytes());
        Ok(bytes)
    }
}
