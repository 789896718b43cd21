//! Server for miners that poll with `getwork`, Bitcoin's protocol before Stratum.
//!
//! A polling miner has no connection to keep state for. So one [`GetworkServer`] serves all of them: every answer has a
//! coinbase of its own, the job of a submission is found by its merkle root, and difficulty is kept per worker name.
//! Like a session it does no I/O and reads no clock; it holds its lock for microseconds.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mining::difficulty::{Difficulty, Target};
use crate::mining::duplicates::Duplicates;
use crate::mining::epochs::Epochs;
use crate::mining::error::StratumError;
use crate::mining::extranonce::{Extranonces, Lease};
use crate::mining::job::{JOB_LIFE, Job, Offer};
use crate::mining::judge::{self, Basis, Judgement};
use crate::mining::midstate::Midstate;
use crate::mining::solution::{Now, Solution};
use crate::mining::submission::{Solved, TIME_ROLL_MAX_S, can_be_block, check_time};
use crate::mining::tally::{Client, Credit, Protocol, Tallies, Tally, Writer};
use crate::mining::vardiff::{self, Vardiff};
use crate::mining::work::{Refusal, Work, Worker};

/// Size of `data`, in bytes: a header with SHA-256's padding.
pub const DATA_BYTES: usize = 128;

/// Maximum number of answers remembered, some 200 bytes each. A hundred miners that poll once a second fill it in a
/// quarter of an hour, which is longer than [`JOB_LIFE`].
pub const HANDED_OUT_MAX: usize = 100_000;

/// Maximum number of worker names whose difficulty is remembered; the least recently seen is evicted.
pub const MINERS_MAX: usize = 16_384;

/// Time for which a name that does not poll is remembered.
const MINER_LIFE: Duration = Duration::from_secs(3600);

/// Padding after a header: a one bit, zeros, and its length of 640 bits, in the byte order of `data`.
const PADDING: [u8; DATA_BYTES - 80] = {
    let mut padding = [0; DATA_BYTES - 80];
    padding[3] = 0x80;
    padding[44] = 0x80;
    padding[45] = 0x02;
    padding
};

/// A request for work.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// User name, as in `mining.authorize`.
    pub name: &'a str,
    /// The password.
    pub password: &'a str,
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
    config: vardiff::Config,
    extranonces: Extranonces,
    tallies: Arc<Tallies>,
    state: Mutex<State<W::Ticket>>,
}

#[derive(Debug)]
struct State<T> {
    /// First half of the coinbase's free bytes; the second half is a counter of answers.
    extranonce1: Lease,
    answers: u32,
    /// Answers by merkle root, which is unique.
    handed_out: HashMap<[u8; 32], HandedOut<T>>,
    /// Merkle roots, oldest first.
    order: VecDeque<[u8; 32]>,
    miners: HashMap<Arc<str>, Miner>,
    /// Solutions of names that have been forgotten since.
    strays: Duplicates,
    /// Newest epochs seen, for use while there is no work.
    newest: Epochs,
}

/// Record of one answer.
#[derive(Debug)]
struct HandedOut<T> {
    job: Arc<Job<T>>,
    extranonces: [u8; 8],
    difficulty: Difficulty,
    target: Target,
    epochs: Epochs,
    worker: Arc<str>,
    is_fee: bool,
    since: Instant,
}

/// State of a worker name.
#[derive(Debug)]
struct Miner {
    vardiff: Vardiff,
    duplicates: Duplicates,
    account: Writer,
    seen: Instant,
}

impl<W: Work> GetworkServer<W> {
    /// Creates a server with an extranonce1 of its own from `extranonces`; `None` if all are in use. New tallies are
    /// added to `tallies`.
    pub fn new(config: vardiff::Config, extranonces: Extranonces, tallies: Arc<Tallies>) -> Option<Self> {
        let state = State {
            extranonce1: extranonces.lease()?,
            answers: 0,
            handed_out: HashMap::new(),
            order: VecDeque::new(),
            miners: HashMap::new(),
            strays: Duplicates::default(),
            newest: Epochs::default(),
        };
        Some(Self { config, extranonces, tallies, state: Mutex::new(state) })
    }

    /// Returns work from the snapshot `work` for the request `ask`.
    ///
    /// # Errors
    /// The reason for a refusal, shown to the miner.
    pub fn hand_out(&self, work: &W, ask: Ask<'_>, now: Now) -> Result<Handed, Refusal> {
        let worker = work.authorize(ask.name, ask.password)?;
        // Made outside the lock; all polling miners with the same payout share it.
        let Offer { job, is_fee, .. } = work.offer(&worker.payout, 0, ask.draw)?;
        let mut state = self.state.lock();
        state.newest = work.epochs();
        let (difficulty, target) = state.difficulty(self, &worker, ask.easiest, job.solution_target(), now.instant);
        let extranonces = state.next_extranonces(&self.extranonces)?;
        let root = job.merkle_root(&extranonces);
        // A current time leaves the most room for rolling it.
        let time = now.unix.clamp(job.time, job.time.saturating_add(TIME_ROLL_MAX_S / 2));
        let header = job.header(job.version, &root, time, 0);
        state.remember(
            root,
            HandedOut {
                job,
                extranonces,
                difficulty,
                target,
                epochs: work.epochs(),
                worker: worker.name,
                is_fee,
                since: now.instant,
            },
        );
        Ok(render(&header, target))
    }

    /// Judges `data` as submitted, against the work it was made for; `newest` are the epochs of the current work,
    /// `None` if there is none. A new solution is returned whatever the verdict.
    pub fn judge(&self, newest: Option<Epochs>, data: &[u8], now: Now) -> Judged<W::Ticket> {
        let Some(header) = header_of(data) else {
            let problem = format!("{} bytes of data, not {DATA_BYTES}", data.len());
            return Judged::refused(StratumError::Parameters(problem));
        };
        let root: [u8; 32] = header[36..68].try_into().expect("32 of the header's 80 bytes");
        let mut state = self.state.lock();
        let newest = newest.unwrap_or(state.newest);
        state.newest = newest;
        let State { handed_out, miners, strays, .. } = &mut *state;
        let Some(answer) = handed_out.get(&root).filter(|answer| answer.is_fresh(now.instant)) else {
            return Judged::refused(StratumError::JobNotFound(hex::encode(root)));
        };
        let refusal = answer.check(&header, &root, now.unix).err();
        // A header that differs in a field not up to the miner may still be a block.
        let solved = match refusal {
            Some(_) if !answer.can_be_block(&header, &root) => None,
            _ => Some(Solved::of(header, &answer.job)),
        };
        let solution_target = answer.job.solution_target();
        let solution_of = |solved: Solved| Solution {
            job: answer.job.clone(),
            solved,
            extranonces: answer.extranonces,
            worker: answer.worker.clone(),
            judged: now.instant,
        };
        let Some(miner) = miners.get_mut(&answer.worker) else {
            let solution = solved.and_then(|solved| judge::salvage(solved, solution_target, strays)).map(solution_of);
            return Judged { solution, ..Judged::refused(StratumError::JobNotFound(hex::encode(root))) };
        };
        let solved = match (refusal, solved) {
            (None, Some(solved)) => solved,
            (refusal, solved) => {
                let salvaged = solved.and_then(|solved| judge::salvage(solved, solution_target, &mut miner.duplicates));
                let error = refusal.unwrap_or_else(|| StratumError::JobNotFound(hex::encode(root)));
                miner.account.refuse(error.word(), now.instant);
                return Judged { solution: salvaged.map(solution_of), ..Judged::refused(error) };
            }
        };
        let basis = Basis {
            solution_target,
            required: answer.difficulty,
            credited: answer.target.is_met_by(&solved.pow_hash).then_some(answer.difficulty),
            epochs: answer.epochs,
            newest,
            is_fee: answer.is_fee,
        };
        let Judgement { verdict, credit, is_solution } = judge::judge(&solved, &basis, &mut miner.duplicates);
        let verdict = verdict.answer(|| hex::encode(root));
        match (&credit, &verdict) {
            (Some(credit), _) => {
                miner.vardiff.record(credit.difficulty, now.instant);
                miner.account.credit(credit, now.instant);
            }
            (None, Err(error)) => miner.account.refuse(error.word(), now.instant),
            (None, Ok(())) => {}
        }
        Judged { verdict, solution: is_solution.then(|| solution_of(solved)), credit }
    }
}

impl<T> State<T> {
    /// Difficulty of the worker's next submissions: never harder than a solution, which would be lost.
    fn difficulty<W: Work<Ticket = T>>(
        &mut self,
        desk: &GetworkServer<W>,
        worker: &Worker<W::Payout>,
        easiest: Option<Difficulty>,
        solution: Target,
        now: Instant,
    ) -> (Difficulty, Target) {
        if !self.miners.contains_key(&worker.name) {
            self.make_room(now);
        }
        let miner = self.miners.entry(worker.name.clone()).or_insert_with(|| {
            let client = Client::new(Protocol::Getwork, now);
            let (tally, account) = Tally::new(worker.name.clone(), worker.payout.to_string().into(), client);
            desk.tallies.add(tally);
            Miner { vardiff: Vardiff::new(desk.config, now), duplicates: Duplicates::default(), account, seen: now }
        });
        miner.seen = now;
        match worker.difficulty {
            Some(fixed) => miner.vardiff.fix(fixed),
            None => {
                let ceiling = Difficulty::new(solution.difficulty()).unwrap_or(desk.config.max);
                miner.vardiff.retarget(ceiling, now);
            }
        }
        let mut wanted = miner.vardiff.current();
        if let Some(easiest) = easiest {
            wanted = Difficulty::new(wanted.get().max(easiest.get())).unwrap_or(wanted);
        }
        let (difficulty, target) = match Difficulty::new(solution.difficulty()) {
            Some(capped) if wanted.target() < solution => (capped, solution),
            _ => (wanted, wanted.target()),
        };
        miner.account.tally().client.difficulty_sent(difficulty);
        (difficulty, target)
    }

    /// Evicts names until there is room for one more.
    fn make_room(&mut self, now: Instant) {
        if self.miners.len() < MINERS_MAX {
            return;
        }
        self.miners.retain(|_, miner| now.saturating_duration_since(miner.seen) < MINER_LIFE);
        if self.miners.len() >= MINERS_MAX
            && let Some(oldest) = self.miners.iter().min_by_key(|(_, miner)| miner.seen).map(|(name, _)| name.clone())
        {
            self.miners.remove(&oldest);
        }
    }

    fn next_extranonces(&mut self, extranonces: &Extranonces) -> Result<[u8; 8], Refusal> {
        let (answer, wrapped) = self.answers.overflowing_add(1);
        if wrapped {
            self.extranonce1 = extranonces.lease().ok_or_else(|| Refusal("no extranonce is free".to_owned()))?;
        }
        self.answers = answer;
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.extranonce1.bytes());
        bytes[4..].copy_from_slice(&answer.to_be_bytes());
        Ok(bytes)
    }

    fn remember(&mut self, root: [u8; 32], answer: HandedOut<T>) {
        let now = answer.since;
        while let Some(oldest) = self.order.front()
            && (self.order.len() >= HANDED_OUT_MAX
                || self.handed_out.get(oldest).is_none_or(|answer| !answer.is_fresh(now)))
        {
            self.handed_out.remove(oldest);
            self.order.pop_front();
        }
        self.order.push_back(root);
        self.handed_out.insert(root, answer);
    }
}

impl<T> HandedOut<T> {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) <= JOB_LIFE
    }

    /// True if `header` can be a block of this answer's job, even if [`Self::check`] refuses its version and time.
    fn can_be_block(&self, header: &[u8; 80], root: &[u8; 32]) -> bool {
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let (version, time, nonce) = (word(0), word(68), word(76));
        self.job.header(version, root, time, nonce) == *header && can_be_block(&self.job, time)
    }

    /// Checks that only time and nonce were changed.
    fn check(&self, header: &[u8; 80], root: &[u8; 32], now: u32) -> Result<(), StratumError> {
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let (version, time, nonce) = (word(0), word(68), word(76));
        if version != self.job.version {
            return Err(StratumError::VersionBits { given: format!("{version:08x}"), mask: 0 });
        }
        if self.job.header(version, root, time, nonce) != *header {
            return Err(StratumError::Parameters("data is not the header that was handed out".to_owned()));
        }
        check_time(&self.job, time, now)
    }
}

fn render(header: &[u8; 80], target: Target) -> Handed {
    let mut data = [0; DATA_BYTES];
    data[..80].copy_from_slice(header);
    reverse_words(&mut data[..80]);
    data[80..].copy_from_slice(&PADDING);
    let mut midstate = [0; 32];
    for (bytes, word) in midstate.chunks_exact_mut(4).zip(Midstate::new(&header[..64]).chaining_value()) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let mut target = target.to_be_bytes();
    target.reverse();
    Handed { data, midstate, target }
}

/// Header in a miner's `data`; some miners leave out the padding.
fn header_of(data: &[u8]) -> Option<[u8; 80]> {
    if data.len() != DATA_BYTES && data.len() != 80 {
        return None;
    }
    let mut header: [u8; 80] = data[..80].try_into().expect("at least 80 bytes");
    reverse_words(&mut header);
    Some(header)
}

fn reverse_words(bytes: &mut [u8]) {
    bytes.chunks_exact_mut(4).for_each(<[u8]>::reverse);
}
