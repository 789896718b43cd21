//! Submissions whose proof of work the driver computes, where it is costly: all other checks have passed, and their
//! verdict waits for the hash.

use std::sync::Arc;
use std::time::Instant;

use crate::mining::duplicates::{Duplicates, Seen};
use crate::mining::error::StratumError;
use crate::mining::job::{Job, PowFunction, Unhashed};
use crate::mining::judge::{self, Judgement};
use crate::mining::pow_budget::Paid;
use crate::mining::solution::Now;
use crate::mining::submission::Candidate;
use crate::mining::work::Work;
use crate::printable::Printable;
use crate::v1::message::KeptId;

use super::Session;
use super::event::{Disconnect, Event, HashRequest};
use super::receipt::Receipt;

/// Number of submissions of a session in flight from which its lines wait. A proxy that sends more at once is served at
/// the speed of the hashes, and delays only itself.
pub const IN_FLIGHT_MAX: usize = 32;

/// Hashes that one line may ask for: version bits that were refused are tried as bits and as the whole version.
pub const HASHES_PER_LINE_MAX: usize = 2;

/// Submissions in flight.
#[derive(Debug)]
pub(super) struct InFlight<T> {
    /// Oldest first.
    waiting: Vec<Waiting<T>>,
    /// Number of the next.
    next: u32,
}

/// A submission in flight.
#[derive(Debug)]
struct Waiting<T> {
    number: u32,
    candidate: Candidate,
    job: Arc<Job<T>>,
    purpose: Purpose,
}

/// What a hash is wanted for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// For the verdict on a submission, which is then answered.
    Verdict {
        id: KeptId,
        receipt: Receipt,
        /// Set if the worker has submitted under its own name: what is refused counts there.
        has_own_name: bool,
    },
    /// To pass on a solution in a submission that was answered: its name, time or version bits were refused.
    Salvage { extranonces: [u8; 8], worker: Printable, at: Instant },
}

/// What a hash led to, for the limits on useless lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The submission was credited.
    Credited,
    /// It was refused.
    Useless,
    /// No fault of the miner's, or counted before.
    Uncounted,
}

impl<T> InFlight<T> {
    pub(super) fn new() -> Self {
        Self { waiting: Vec::new(), next: 0 }
    }

    fn contains(&self, candidate: &Candidate) -> bool {
        self.waiting.iter().any(|waiting| waiting.candidate.hash == candidate.hash)
    }

    /// Adds a submission, and returns its number.
    fn add(&mut self, candidate: Candidate, job: Arc<Job<T>>, purpose: Purpose) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.waiting.push(Waiting { number, candidate, job, purpose });
        number
    }

    fn take(&mut self, number: u32) -> Option<Waiting<T>> {
        let index = self.waiting.iter().position(|waiting| waiting.number == number)?;
        Some(self.waiting.remove(index))
    }
}

impl<W: Work> Session<W> {
    /// True if lines wait for hashes: as many submissions are in flight as may be.
    pub fn is_waiting_for_hashes(&self) -> bool {
        self.in_flight.waiting.len() >= IN_FLIGHT_MAX
    }

    /// Number of hashes that were asked for and have not come yet.
    pub fn hashes_awaited(&self) -> usize {
        self.in_flight.waiting.len()
    }

    /// Has the driver compute `pow` of a submission for the job at `index`, unless it was judged before, is in flight, or nothing
    /// pays for it.
    ///
    /// # Errors
    /// [`StratumError::Duplicate`] and [`StratumError::Worthless`].
    pub(super) fn ask_for_hash(
        &mut self,
        index: usize,
        candidate: Candidate,
        pow: PowFunction,
        purpose: Purpose,
        now: Instant,
    ) -> Result<(), StratumError> {
        if self.jobs.seen(index).knows(&candidate.hash) || self.in_flight.contains(&candidate) {
            return Err(StratumError::Duplicate);
        }
        let paid = match self.source {
            Some(source) => self.memory.pow_budget().pay(&mut self.earned, source, now),
            None => Some(Paid::Budget),
        };
        let is_earned = paid.ok_or(StratumError::Worthless)? == Paid::Earned;
        let job = self.jobs.at(index).job.clone();
        let number = self.in_flight.add(candidate, job, purpose);
        let request = HashRequest { number, header: candidate.header, pow, is_earned };
        self.events.push_back(Event::Hash(Box::new(request)));
        Ok(())
    }

    /// Takes the hash that [`Event::Hash`] asked for by this number, and judges and answers the submission as of its
    /// receipt. Hashes may come in any order.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn handle_hash(
        &mut self,
        number: u32,
        pow_hash: Result<[u8; 32], Unhashed>,
        now: Now,
    ) -> Result<(), Disconnect> {
        match self.conclude(number, pow_hash) {
            Outcome::Credited => self.retarget(now),
            Outcome::Useless => self.tolerate(now),
            Outcome::Uncounted => Ok(()),
        }
    }

    /// Does the same once the driver has decided to close; [`Self::handle_last_line`] came before. Returns false for a
    /// submission that earned nothing; the caller limits those.
    pub fn handle_last_hash(&mut self, number: u32, pow_hash: Result<[u8; 32], Unhashed>) -> bool {
        self.conclude(number, pow_hash) != Outcome::Useless
    }

    fn conclude(&mut self, number: u32, pow_hash: Result<[u8; 32], Unhashed>) -> Outcome {
        let Some(Waiting { candidate, job, purpose, .. }) = self.in_flight.take(number) else {
            return Outcome::Uncounted;
        };
        let solved = pow_hash.map(|pow_hash| candidate.solved_by(pow_hash));
        if solved.is_err() && self.source.is_some() {
            self.memory.pow_budget().refund(&mut self.earned);
        }
        // Dropped meanwhile, with what was submitted for it: none of that can come again.
        let index = self.jobs.index_of(job.id);
        match purpose {
            Purpose::Verdict { id, receipt, has_own_name } => {
                let judgement: Result<Judgement, StratumError> = match solved {
                    Ok(solved) => Ok(self.settle(index, &receipt, &solved, Some(&job))),
                    Err(Unhashed) => Err(StratumError::Busy),
                };
                let is_busy = judgement.is_err();
                let refused = has_own_name.then_some(receipt.worker);
                match self.answer_judged(id.id(), judgement, || job.id.to_string(), |_| refused, receipt.at) {
                    _ if is_busy => Outcome::Uncounted,
                    true => Outcome::Credited,
                    false => Outcome::Useless,
                }
            }
            Purpose::Salvage { extranonces, worker, at } => {
                let salvaged = solved.ok().and_then(|solved| match index {
                    Some(index) => judge::salvage(solved, job.solution_target, &mut self.jobs.seen(index)),
                    None => judge::salvage(solved, job.solution_target, &mut Duplicates::default()),
                });
                if let Some(solved) = salvaged {
                    self.reward();
                    self.pass_on(job, solved, extranonces, worker, at);
                }
                Outcome::Uncounted
            }
        }
    }
}
