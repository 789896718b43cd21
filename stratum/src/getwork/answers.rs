//! Answers given to polling miners, by merkle root, until their work is too old.

use std::sync::Arc;
use std::time::Instant;

use super::data::root_of;
use crate::mining::difficulty::{Difficulty, Target};
use crate::mining::duplicates::Duplicates;
use crate::mining::epochs::Epochs;
use crate::mining::error::StratumError;
use crate::mining::fair_map::FairMap;
use crate::mining::job::{JOB_LIFE, Job};
use crate::mining::solution::Solution;
use crate::mining::source::Source;
use crate::mining::submission::{Solved, can_be_block, check_time};
use crate::printable::Printable;

/// Maximum number of answers remembered. A hundred miners that poll once a second fill it in a quarter of an hour,
/// which is longer than [`JOB_LIFE`]. Beyond, the source with the most loses its oldest.
pub const ANSWERS_MAX: usize = 100_000;

/// Maximum memory of the answers, in bytes, with their jobs and what was submitted for them.
pub const ANSWERS_BYTES_MAX: usize = 96 * 1024 * 1024;

/// Memory of an answer, in bytes, with its places in the map's indices.
const ANSWER_BYTES: usize = 512;

/// Record of one answer: what a submission for it is judged by.
#[derive(Debug)]
pub(super) struct Answer<T> {
    pub(super) job: Arc<Job<T>>,
    pub(super) extranonces: [u8; 8],
    pub(super) difficulty: Difficulty,
    pub(super) target: Target,
    pub(super) epochs: Epochs,
    /// Network of the miner that asked.
    pub(super) source: Source,
    pub(super) worker: Printable,
    /// Payout of the worker, as displayed.
    pub(super) payee: Arc<str>,
    /// Set when the miner chose the difficulty.
    pub(super) is_fixed: bool,
    pub(super) is_fee: bool,
    pub(super) since: Instant,
}

impl<T> Answer<T> {
    /// Solution of the job by a submission for this answer.
    pub(super) fn solution(&self, solved: Solved, judged: Instant) -> Solution<T> {
        Solution { job: self.job.clone(), solved, extranonces: self.extranonces, worker: self.worker.clone(), judged }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) <= JOB_LIFE
    }

    /// True if `header` can be a block of this answer's job, even if [`Self::check`] refuses its version and time.
    pub(super) fn can_be_block(&self, header: &[u8; 80]) -> bool {
        let (version, time, nonce) = variable_fields(header);
        self.job.header(version, &root_of(header), time, nonce) == *header && can_be_block(&self.job, time)
    }

    /// Checks that only time and nonce were changed.
    pub(super) fn check(&self, header: &[u8; 80], now: u32) -> Result<(), StratumError> {
        let (version, time, nonce) = variable_fields(header);
        if version != self.job.version {
            return Err(StratumError::VersionBits { given: format!("{version:08x}"), mask: 0 });
        }
        if self.job.header(version, &root_of(header), time, nonce) != *header {
            return Err(StratumError::Parameters("data is not the header that was handed out".to_owned()));
        }
        check_time(&self.job, time, now)
    }
}

/// Version, time and nonce of a header.
fn variable_fields(header: &[u8; 80]) -> (u32, u32, u32) {
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    (word(0), word(68), word(76))
}

/// The answers of all miners.
#[derive(Debug)]
pub(super) struct Answers<T>(FairMap<[u8; 32], Entry<T>>);

#[derive(Debug)]
struct Entry<T> {
    answer: Arc<Answer<T>>,
    /// Headers submitted for it. No two answers have a header in common, so the set is dropped with the answer.
    seen: Duplicates,
    /// Memory without that of `seen`, in bytes.
    bytes: usize,
}

impl<T> Entry<T> {
    fn weight(&self) -> usize {
        self.bytes + if self.seen.is_empty() { 0 } else { self.seen.memory() }
    }
}

impl<T> Answers<T> {
    pub(super) fn new() -> Self {
        Self(FairMap::default())
    }

    /// Remembers `answer` by its merkle root. `job_bytes` is the memory of its job, which counts once for answers in a
    /// row that share it.
    pub(super) fn remember(&mut self, root: [u8; 32], answer: Answer<T>, job_bytes: usize) {
        let (source, now) = (answer.source, answer.since);
        let shares_job = self.0.newest_of(source).is_some_and(|newest| Arc::ptr_eq(&newest.answer.job, &answer.job));
        let bytes = ANSWER_BYTES + answer.worker.len() + if shares_job { 0 } else { job_bytes };
        let entry = Entry { answer: Arc::new(answer), seen: Duplicates::default(), bytes };
        self.0.expire(|entry| !entry.answer.is_fresh(now));
        let weight = entry.weight();
        self.0.insert(source, root, entry, weight);
        self.bound();
    }

    /// Returns the answer with this merkle root, unless it is too old.
    pub(super) fn get(&self, root: &[u8; 32], now: Instant) -> Option<&Arc<Answer<T>>> {
        self.0.get(root).map(|entry| &entry.answer).filter(|answer| answer.is_fresh(now))
    }

    /// Calls `judge` with the headers submitted for the answer with this merkle root.
    pub(super) fn with_seen<R>(&mut self, root: &[u8; 32], judge: impl FnOnce(&mut Duplicates) -> R) -> R {
        let Some(entry) = self.0.get_mut(root) else { return judge(&mut Duplicates::default()) };
        let result = judge(&mut entry.seen);
        let weight = entry.weight();
        self.0.set_weight(root, weight);
        self.bound();
        result
    }

    fn bound(&mut self) {
        while self.0.len() > ANSWERS_MAX || self.0.weight() > ANSWERS_BYTES_MAX {
            self.0.evict();
        }
    }
}
