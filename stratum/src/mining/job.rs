//! `Job<T>`: an immutable unit of work, and its `mining.notify` line; `Jobs`: the last few that a session handed out.

use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mining::difficulty::{Difficulty, Target};
use crate::mining::duplicates::{Duplicates, Seen};
use crate::mining::epochs::Epochs;
use crate::mining::extranonce::{EXTRANONCE1_SIZE, EXTRANONCE2_SIZE};
use crate::mining::midstate::{Midstate, double_sha256_of_header, double_sha256_of_pair};

/// Maximum number of jobs remembered per session. At the usual one in thirty seconds this is half an hour; on a chain
/// whose tip changes every other second, the last two minutes.
pub const JOBS_MAX: usize = 64;

/// Time for which a session remembers a job. Devices with deep queues (Antminer S1 to S5, BFL) return work that is
/// minutes old. Holds for jobs on an old parent block, too: their block competes with the new tip.
pub const JOB_LIFE: Duration = Duration::from_secs(600);

/// Maximum number of jobs kept of a session that has ended. Its miner gets no more of them and works on the newest.
pub const RESUMABLE_JOBS_MAX: usize = 8;

/// Bytes of the coinbase that vary within a job.
const EXTRANONCES_SIZE: usize = EXTRANONCE1_SIZE + EXTRANONCE2_SIZE;

/// Function whose result must meet the target: `sha256d` for Bitcoin, scrypt for Litecoin.
pub type PowFunction = fn(&[u8; 80]) -> [u8; 32];

/// Bitcoin's proof-of-work function.
pub fn sha256d(header: &[u8; 80]) -> [u8; 32] {
    double_sha256_of_header(header)
}

/// Identifies a job towards miners: 16 hex digits. NiceHash has trouble with short ids; devices ignore a second job
/// with the id of an active one, so ids are never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

/// Parts that a job is made of.
#[derive(Debug, Clone)]
pub struct JobParts<'a> {
    /// Unique identifier.
    pub id: JobId,
    /// Coinbase before the extranonces, without witness.
    pub coinbase_head: &'a [u8],
    /// SHA-256 state after `coinbase_head`.
    pub coinbase_midstate: Midstate,
    /// Coinbase after the extranonces.
    pub coinbase_tail: &'a [u8],
    /// Merkle branch of the coinbase: raw digests.
    pub branch: &'a [[u8; 32]],
    /// Header version; the bits that miners may roll must be zero.
    pub version: u32,
    /// Hash of the previous block as it stands in the header.
    pub previous_block: [u8; 32],
    /// Compact target as it stands in the header.
    pub bits: u32,
    /// Header time that the job starts at.
    pub time: u32,
    /// Earliest header time that a block may have.
    pub time_min: u32,
    /// Easiest of the targets that make a submission a solution.
    pub solution_target: Target,
    /// The chain's proof-of-work function.
    pub pow: PowFunction,
}

/// An immutable unit of work, shared by every connection with the same payout; it holds no state of a connection.
///
/// Small, since a session remembers it for late solutions: the coinbase's head is kept as a SHA-256 midstate, and the
/// rendered line is in the [`Offer`].
pub struct Job<T> {
    pub(crate) id: JobId,
    pub(crate) coinbase_midstate: Midstate,
    pub(crate) coinbase_tail: Box<[u8]>,
    pub(crate) branch: Box<[[u8; 32]]>,
    pub(crate) version: u32,
    pub(crate) previous_block: [u8; 32],
    pub(crate) bits: u32,
    pub(crate) time: u32,
    pub(crate) time_min: u32,
    pub(crate) solution_target: Target,
    /// `solution_target` as a difficulty, precomputed as every submission needs it; `None` if the target is zero.
    pub(crate) solution_difficulty: Option<Difficulty>,
    pub(crate) pow: PowFunction,
    coinbase_bytes: usize,
    ticket: T,
}

impl<T> Job<T> {
    /// Identifier in `mining.notify` and `mining.submit`.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Data from the maker of the job, needed to complete its solutions.
    pub fn ticket(&self) -> &T {
        &self.ticket
    }

    /// Size of the complete coinbase, in bytes: small firmware buffers must hold it.
    pub fn coinbase_bytes(&self) -> usize {
        self.coinbase_bytes
    }

    /// Easiest of the targets that make a submission a solution.
    pub fn solution_target(&self) -> Target {
        self.solution_target
    }

    /// Merkle root of the header with these bytes between the coinbase's head and tail.
    pub(crate) fn merkle_root(&self, extranonces: &[u8; EXTRANONCES_SIZE]) -> [u8; 32] {
        let mut coinbase = self.coinbase_midstate.clone();
        coinbase.update(extranonces);
        coinbase.update(&self.coinbase_tail);
        self.branch.iter().fold(coinbase.finish_double(), |root, sibling| double_sha256_of_pair(&root, sibling))
    }

    /// Builds the header from these variable fields.
    pub(crate) fn header(&self, version: u32, merkle_root: &[u8; 32], time: u32, nonce: u32) -> [u8; 80] {
        let mut header = [0; 80];
        header[..4].copy_from_slice(&version.to_le_bytes());
        header[4..36].copy_from_slice(&self.previous_block);
        header[36..68].copy_from_slice(merkle_root);
        header[68..72].copy_from_slice(&time.to_le_bytes());
        header[72..76].copy_from_slice(&self.bits.to_le_bytes());
        header[76..].copy_from_slice(&nonce.to_le_bytes());
        header
    }
}

/// Cache of the merkle root of the last submission. A device tries all nonces and rolled versions of one extranonce2
/// before it takes the next. All but the first of these submissions hash nothing but the header: three compressions
/// instead of 41 when the block is full.
#[derive(Debug, Default)]
pub struct LastRoot(Option<(JobId, [u8; EXTRANONCES_SIZE], [u8; 32])>);

impl LastRoot {
    /// Returns the merkle root of `job` with these bytes between the coinbase's head and tail.
    pub(crate) fn of<T>(&mut self, job: &Job<T>, extranonces: &[u8; EXTRANONCES_SIZE]) -> [u8; 32] {
        match &self.0 {
            Some((id, same, root)) if *id == job.id && same == extranonces => *root,
            _ => {
                let root = job.merkle_root(extranonces);
                self.0 = Some((job.id, *extranonces, root));
                root
            }
        }
    }
}

impl<T> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("id", &self.id).field("solution_target", &self.solution_target).finish()
    }
}

/// A job with the line that announces it.
#[derive(Debug)]
pub struct Offer<T> {
    /// Job to hand out.
    pub job: Arc<Job<T>>,
    /// Its `mining.notify` up to and including the comma before `clean_jobs`: rendered once, shared by all connections.
    pub line: Bytes,
    /// Set when it pays the operator instead of the miner; counted, so that the miner can see how much that is.
    pub is_fee: bool,
}

impl<T> Clone for Offer<T> {
    fn clone(&self) -> Self {
        Self { job: self.job.clone(), line: self.line.clone(), is_fee: self.is_fee }
    }
}

impl<T> Offer<T> {
    /// Creates the job and renders its line.
    ///
    /// # Panics
    /// If the version has bits that miners may roll: the node makes the jobs itself, and XOR-ing devices (Bitaxe) would
    /// have every submission rejected.
    pub fn new(parts: &JobParts<'_>, ticket: T) -> Self {
        assert_eq!(
            parts.version & crate::mining::version_rolling::VERSION_MASK,
            0,
            "job version leaves the rolled bits zero"
        );
        let job = Job {
            id: parts.id,
            coinbase_midstate: parts.coinbase_midstate.clone(),
            coinbase_tail: parts.coinbase_tail.into(),
            branch: parts.branch.into(),
            version: parts.version,
            previous_block: parts.previous_block,
            bits: parts.bits,
            time: parts.time,
            time_min: parts.time_min,
            solution_target: parts.solution_target,
            solution_difficulty: Difficulty::new(parts.solution_target.difficulty()),
            pow: parts.pow,
            coinbase_bytes: parts.coinbase_head.len() + EXTRANONCES_SIZE + parts.coinbase_tail.len(),
            ticket,
        };
        Self { job: Arc::new(job), line: render(parts), is_fee: false }
    }
}

fn render(parts: &JobParts<'_>) -> Bytes {
    let coinbase_digits = 2 * (parts.coinbase_head.len() + parts.coinbase_tail.len());
    let mut line = String::with_capacity(256 + coinbase_digits + 67 * parts.branch.len());
    let branch: Vec<String> = parts.branch.iter().map(|digest| format!("\"{}\"", hex::encode(digest))).collect();
    write!(
        line,
        r#"{{"id":null,"method":"mining.notify","params":["{}","{}","{}","{}",[{}],"{:08x}","{:08x}","{:08x}","#,
        parts.id,
        hex::encode(swap_words(parts.previous_block)),
        hex::encode(parts.coinbase_head),
        hex::encode(parts.coinbase_tail),
        branch.join(","),
        parts.version,
        parts.bits,
        parts.time,
    )
    .expect("writing to a string does not fail");
    line.into()
}

/// Reverses the bytes of each four-byte word: Stratum's byte order of the previous block, a relic of getwork.
fn swap_words(mut digest: [u8; 32]) -> [u8; 32] {
    for word in digest.chunks_exact_mut(4) {
        word.reverse();
    }
    digest
}

/// A job handed out on a session, with its state on that connection. Kept small: there are dozens for each of ten
/// thousand connections.
#[derive(Debug)]
pub(crate) struct HandedOut<T> {
    /// Copy of the job's id: a search reads no other memory of the jobs.
    id: JobId,
    pub(crate) job: Arc<Job<T>>,
    pub(crate) difficulty: Difficulty,
    /// Epochs of the work that it was made from.
    pub(crate) epochs: Epochs,
    pub(crate) extranonce1: [u8; EXTRANONCE1_SIZE],
    /// Set when it pays the operator.
    pub(crate) is_fee: bool,
    /// Set when it pays the payee of an earlier session, not this session's: it earns no credit here.
    pub(crate) pays_other: bool,
    since: Instant,
    /// Headers submitted for it. No two jobs have a header in common, so the set is dropped with the job; most jobs of
    /// most connections get no submission.
    duplicates: Option<Box<Duplicates>>,
}

/// The last few jobs of a session, newest last.
#[derive(Debug)]
pub(crate) struct Jobs<T> {
    handed_out: VecDeque<HandedOut<T>>,
    /// Set when some are from an earlier session; the next one may be among them.
    is_resumed: bool,
}

impl<T> Jobs<T> {
    pub(crate) fn new() -> Self {
        Self { handed_out: VecDeque::new(), is_resumed: false }
    }

    /// Returns the newest jobs, shrunk to fit, for a session that resumes this one.
    pub(crate) fn into_resumable(mut self) -> Self {
        self.handed_out.drain(..self.handed_out.len().saturating_sub(RESUMABLE_JOBS_MAX));
        self.handed_out.shrink_to_fit();
        Self { is_resumed: true, ..self }
    }

    pub(crate) fn add(
        &mut self,
        job: Arc<Job<T>>,
        is_fee: bool,
        difficulty: Difficulty,
        epochs: Epochs,
        extranonce1: [u8; EXTRANONCE1_SIZE],
        now: Instant,
    ) {
        self.forget_old(now);
        while self.handed_out.len() >= JOBS_MAX {
            self.handed_out.pop_front();
        }
        let before = match self.is_resumed {
            true => self.handed_out.iter().position(|handed_out| handed_out.id == job.id),
            false => None,
        };
        let duplicates = before.and_then(|index| self.handed_out.remove(index)).and_then(|before| before.duplicates);
        let id = job.id;
        self.handed_out.push_back(HandedOut {
            id,
            job,
            difficulty,
            epochs,
            extranonce1,
            is_fee,
            pays_other: false,
            since: now,
            duplicates,
        });
    }

    /// Drops jobs that are older than [`JOB_LIFE`].
    pub(crate) fn forget_old(&mut self, now: Instant) {
        let is_old = |oldest: &HandedOut<T>| now.saturating_duration_since(oldest.since) > JOB_LIFE;
        while self.handed_out.front().is_some_and(is_old) {
            self.handed_out.pop_front();
        }
    }

    /// Marks all jobs as paying another payee than this session's.
    pub(crate) fn disown(&mut self) {
        self.handed_out.iter_mut().for_each(|handed_out| handed_out.pays_other = true);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.handed_out.is_empty()
    }

    pub(crate) fn newest(&self) -> Option<&HandedOut<T>> {
        self.handed_out.back()
    }

    /// Index of the job with the id `name`, searched newest first, since nearly every submission is for the newest.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        let id = (name.len() == 16).then(|| u64::from_str_radix(name, 16).ok()).flatten()?;
        self.handed_out.iter().rposition(|handed_out| handed_out.id == JobId(id))
    }

    /// Returns the job at `index`, as found by [`Self::find`].
    pub(crate) fn at(&self, index: usize) -> &HandedOut<T> {
        &self.handed_out[index]
    }

    /// Headers of the job at `index` that were judged.
    pub(crate) fn seen(&mut self, index: usize) -> JobMemory<'_> {
        JobMemory(&mut self.handed_out[index].duplicates)
    }

    /// Number of headers remembered for all jobs together.
    pub(crate) fn remembered(&self) -> usize {
        let counts = self.handed_out.iter().map(|handed_out| handed_out.duplicates.as_ref().map_or(0, |one| one.len()));
        counts.sum()
    }
}

/// Headers of one job that were judged; not allocated before the first.
#[derive(Debug)]
pub(crate) struct JobMemory<'a>(&'a mut Option<Box<Duplicates>>);

impl Seen for JobMemory<'_> {
    fn knows(&self, hash: &[u8; 32]) -> bool {
        self.0.as_ref().is_some_and(|duplicates| duplicates.contains(hash))
    }

    fn remember(&mut self, hash: &[u8; 32]) -> bool {
        self.0.get_or_insert_default().insert(hash)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn parts(id: u64) -> JobParts<'static> {
        JobParts {
            id: JobId(id),
            coinbase_head: &[1, 2, 3],
            coinbase_midstate: Midstate::new(&[1, 2, 3]),
            coinbase_tail: &[0xff],
            branch: &[[0xab; 32]],
            version: 0x2000_0000,
            previous_block: [
                0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27,
                28, 29, 30, 31,
            ],
            bits: 0x207f_ffff,
            time: 0x6000_0000,
            time_min: 0x5fff_0000,
            solution_target: Target::from_le_bytes([0; 32]),
            pow: sha256d,
        }
    }

    #[test]
    fn the_line_has_the_fields_in_the_order_and_shape_that_miners_expect() {
        let offer = Offer::new(&parts(0x1f), ());
        let line = [&offer.line[..], b"true]}"].concat();
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"id": null, "method": "mining.notify", "params": [
                "000000000000001f",
                "03020100070605040b0a09080f0e0d0c13121110171615141b1a19181f1e1d1c",
                "010203", "ff", ["ab".repeat(32)], "20000000", "207fffff", "60000000", true,
            ]})
        );
    }

    #[test]
    fn only_the_last_jobs_are_remembered() {
        let mut jobs = Jobs::new();
        let now = Instant::now();
        let difficulty = Difficulty::new(1.0).unwrap();
        for id in 0..=JOBS_MAX as u64 {
            jobs.add(Offer::new(&parts(id), ()).job, false, difficulty, Epochs::default(), [0; 4], now);
        }
        assert!(jobs.find("0000000000000000").is_none());
        assert!(jobs.find("0000000000000001").is_some());
        assert!(jobs.find("1").is_none(), "names are compared whole");
        jobs.add(Offer::new(&parts(999), ()).job, false, difficulty, Epochs::default(), [0; 4], now + JOB_LIFE * 2);
        assert!(jobs.find("0000000000000001").is_none(), "too old");
    }

    #[test]
    fn a_job_of_an_old_parent_block_is_remembered_as_long_as_any_other() {
        let mut jobs = Jobs::new();
        let now = Instant::now();
        let difficulty = Difficulty::new(1.0).unwrap();
        let add = |jobs: &mut Jobs<()>, id, stale, seconds| {
            let epochs = Epochs { stale, ..Epochs::default() };
            jobs.add(
                Offer::new(&parts(id), ()).job,
                false,
                difficulty,
                epochs,
                [0; 4],
                now + Duration::from_secs(seconds),
            );
        };
        add(&mut jobs, 1, 0, 0);
        add(&mut jobs, 2, 1, 1);
        add(&mut jobs, 3, 1, 600);
        assert!(jobs.find("0000000000000001").is_some(), "a block on the old parent is still a block");
        add(&mut jobs, 4, 1, 601);
        assert!(jobs.find("0000000000000001").is_none(), "too old");
        assert!(jobs.find("0000000000000002").is_some());
        jobs.forget_old(now + Duration::from_secs(602));
        assert!(jobs.find("0000000000000002").is_none());
        assert!(jobs.find("0000000000000003").is_some());
    }

    #[test]
    fn the_newest_few_jobs_are_kept_to_be_resumed() {
        let mut jobs = Jobs::new();
        let difficulty = Difficulty::new(1.0).unwrap();
        for id in 1..=20 {
            jobs.add(Offer::new(&parts(id), ()).job, false, difficulty, Epochs::default(), [0; 4], Instant::now());
        }
        let jobs = jobs.into_resumable();
        assert!(jobs.find("000000000000000c").is_none());
        assert!(jobs.find("000000000000000d").is_some());
        assert!(jobs.find("0000000000000014").is_some());
    }

    #[test]
    fn what_was_submitted_is_remembered_as_long_as_its_job_and_across_sessions() {
        let mut jobs = Jobs::new();
        let now = Instant::now();
        let difficulty = Difficulty::new(1.0).unwrap();
        let job = Offer::new(&parts(1), ()).job;
        let index = |jobs: &Jobs<()>| jobs.find("0000000000000001").unwrap();
        jobs.add(job.clone(), false, difficulty, Epochs::default(), [0; 4], now);
        let at = index(&jobs);
        assert!(!jobs.seen(at).knows(&[7; 32]));
        assert!(jobs.seen(at).remember(&[7; 32]));
        assert!(!jobs.seen(at).remember(&[7; 32]));
        assert_eq!(jobs.remembered(), 1);

        let mut jobs = jobs.into_resumable();
        jobs.add(job, false, difficulty, Epochs::default(), [0; 4], now);
        assert_eq!(index(&jobs), 0, "it is there once");
        assert!(jobs.seen(0).knows(&[7; 32]));

        jobs.add(Offer::new(&parts(2), ()).job, false, difficulty, Epochs::default(), [0; 4], now + JOB_LIFE * 2);
        assert_eq!(jobs.remembered(), 0);
    }
}
