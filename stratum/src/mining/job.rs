//! `Job<T>`: an immutable unit of work, and its `mining.notify` line.

use bytes::Bytes;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::mining::difficulty::{Difficulty, Target};
use crate::mining::extranonce::{EXTRANONCE1_SIZE, EXTRANONCE2_SIZE};
use crate::mining::midstate::{Midstate, double_sha256_of_header, double_sha256_of_pair};

/// Time for which a session remembers a job. Devices with deep queues (Antminer S1 to S5, BFL) return work that is
/// minutes old. Holds for jobs on an old parent block, too: their block competes with the new tip.
pub const JOB_LIFE: Duration = Duration::from_secs(600);

/// Bytes of the coinbase that vary within a job.
const EXTRANONCES_SIZE: usize = EXTRANONCE1_SIZE + EXTRANONCE2_SIZE;

/// Function that hashes a header, to a raw digest.
pub type PowFunction = fn(&[u8; 80]) -> [u8; 32];

/// A chain's proof of work: the hash of the header that must meet the target.
#[derive(Debug, Clone, Copy)]
pub enum Pow {
    /// SHA-256 twice, as Bitcoin: the hash that also identifies the block, so it is known at once.
    Sha256d,
    /// A function that takes far longer than reading a submission, such as Litecoin's scrypt: computed beside the event
    /// loop, and only for what is worth it.
    Costly(PowFunction),
}

/// A proof of work was not computed: too many others are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unhashed;

/// SHA-256 twice: identifies a block on every coin, and is Bitcoin's proof of work.
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
    /// Easiest of the targets that make a submission a solution, whatever a port's minimum difficulty: miners are never
    /// given a harder one.
    pub solution_target: Target,
    /// Easiest target of further solutions, if any: miners are given one as easy only down to the minimum difficulty of
    /// their port. For merged chains, whose daemons name any target they like.
    pub extra_target: Option<Target>,
    /// The chain's proof of work.
    pub pow: Pow,
}

/// Upper bound of a miner's difficulty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ceiling {
    pub(crate) target: Target,
    /// `target` as a difficulty; `None` if the target is zero.
    pub(crate) difficulty: Option<Difficulty>,
}

impl Ceiling {
    fn of(target: Target) -> Self {
        Self { target, difficulty: Difficulty::new(target.difficulty()) }
    }

    /// Difficulty and target for a miner for which `wanted` would be right.
    pub(crate) fn lower(self, wanted: Difficulty) -> (Difficulty, Target) {
        let target = wanted.target();
        match self.difficulty {
            Some(capped) if target < self.target => (capped, self.target),
            _ => (wanted, target),
        }
    }
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
    /// Easiest of the targets that make a submission a solution.
    pub(crate) solution_target: Target,
    /// The hardest that miners may be given, precomputed: for solutions that are never to be lost, and for all.
    own_ceiling: Ceiling,
    full_ceiling: Ceiling,
    pub(crate) pow: Pow,
    coinbase_bytes: usize,
    ticket: T,
}

impl<T> Job<T> {
    /// Creates a job.
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
        let solution_target =
            parts.extra_target.map_or(parts.solution_target, |extra| extra.max(parts.solution_target));
        Self {
            id: parts.id,
            coinbase_midstate: parts.coinbase_midstate.clone(),
            coinbase_tail: parts.coinbase_tail.into(),
            branch: parts.branch.into(),
            version: parts.version,
            previous_block: parts.previous_block,
            bits: parts.bits,
            time: parts.time,
            time_min: parts.time_min,
            solution_target,
            own_ceiling: Ceiling::of(parts.solution_target),
            full_ceiling: Ceiling::of(solution_target),
            pow: parts.pow,
            coinbase_bytes: parts.coinbase_head.len() + EXTRANONCES_SIZE + parts.coinbase_tail.len(),
            ticket,
        }
    }

    /// Memory that the job takes, in bytes, without what its ticket points to.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.coinbase_tail.len() + size_of_val(&*self.branch)
    }

    /// True if the proof of work is computed beside the event loop.
    pub fn has_costly_pow(&self) -> bool {
        matches!(self.pow, Pow::Costly(_))
    }

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

    /// The hardest that a miner may be given at a port with the minimum difficulty `min`: anything harder would lose
    /// solutions.
    pub(crate) fn ceiling(&self, min: Difficulty) -> Ceiling {
        let least = min.target();
        if self.full_ceiling.target <= least {
            self.full_ceiling
        } else if self.own_ceiling.target >= least {
            self.own_ceiling
        } else {
            Ceiling { target: least, difficulty: Some(min) }
        }
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
    /// As [`Job::new`].
    pub fn new(parts: &JobParts<'_>, ticket: T) -> Self {
        Self { job: Arc::new(Job::new(parts, ticket)), line: render(parts), is_fee: false }
    }
}

/// A job for a miner that is sent no line: it polls.
#[derive(Debug)]
pub struct Unannounced<T> {
    /// Job to hand out.
    pub job: Arc<Job<T>>,
    /// Set when it pays the operator instead of the miner.
    pub is_fee: bool,
}

impl<T> From<Offer<T>> for Unannounced<T> {
    fn from(offer: Offer<T>) -> Self {
        Self { job: offer.job, is_fee: offer.is_fee }
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
            extra_target: None,
            pow: Pow::Sha256d,
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
    fn further_solutions_lower_the_difficulty_down_to_the_ports_minimum() {
        let of = |difficulty: f64| Difficulty::new(difficulty).unwrap();
        let ceiling = |own: f64, extra: Option<f64>, min: f64| {
            let target = |difficulty| of(difficulty).target();
            let parts = JobParts { solution_target: target(own), extra_target: extra.map(target), ..parts(1) };
            let (difficulty, target) = Job::new(&parts, ()).ceiling(of(min)).lower(of(1e9));
            assert_eq!(difficulty.target(), target);
            difficulty.get()
        };
        assert_eq!(ceiling(1024.0, None, 16.0), 1024.0);
        assert_eq!(ceiling(1024.0, Some(4096.0), 16.0), 1024.0);
        assert_eq!(ceiling(1024.0, Some(64.0), 16.0), 64.0);
        assert_eq!(ceiling(1024.0, Some(0.5), 16.0), 16.0, "not below the minimum for it");
        assert_eq!(ceiling(4.0, Some(0.5), 16.0), 4.0, "below the minimum for a solution of its own");
        let parts = JobParts { extra_target: Some(of(0.5).target()), ..parts(1) };
        assert_eq!(Job::new(&parts, ()).solution_target(), of(0.5).target(), "judged as a solution all the same");
    }
}
