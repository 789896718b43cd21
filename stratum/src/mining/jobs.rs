//! `Jobs`: the last few jobs that a session handed out, with what was submitted for each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::mining::difficulty::Difficulty;
use crate::mining::duplicates::{DUPLICATES_MAX, Duplicates, Remembered, Seen, WhenFull};
use crate::mining::epochs::Epochs;
use crate::mining::extranonce::EXTRANONCE1_SIZE;
use crate::mining::job::{JOB_LIFE, Job, JobId};

/// Maximum number of jobs remembered per session. At the usual one in thirty seconds this is half an hour; on a chain
/// whose tip changes every other second, the last two minutes.
pub const JOBS_MAX: usize = 64;

/// Maximum number of jobs kept of a session that has ended. Its miner gets no more of them and works on the newest.
pub const RESUMABLE_JOBS_MAX: usize = 8;

/// Submissions for a job after which its session gets the next: long before the first is refused for want of room.
const DUPLICATES_PER_JOB: usize = DUPLICATES_MAX / 16;

/// Maximum number of submissions remembered for all jobs of a session but the newest: two hundred a second for ten
/// minutes, some 2 MB. Beyond, the oldest jobs are dropped.
pub const DUPLICATES_PER_SESSION_MAX: usize = 128 * 1024;

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
        let mut remembered = self.remembered();
        while self.handed_out.len() >= JOBS_MAX || remembered > DUPLICATES_PER_SESSION_MAX {
            let Some(oldest) = self.handed_out.pop_front() else { break };
            remembered -= oldest.submissions();
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
        self.index_of(JobId(id))
    }

    /// Index of the job with this id; `None` if it was dropped.
    pub(crate) fn index_of(&self, id: JobId) -> Option<usize> {
        self.handed_out.iter().rposition(|handed_out| handed_out.id == id)
    }

    /// Returns the job at `index`, as found by [`Self::find`].
    pub(crate) fn at(&self, index: usize) -> &HandedOut<T> {
        &self.handed_out[index]
    }

    /// Headers of the job at `index` that were judged.
    pub(crate) fn seen(&mut self, index: usize) -> JobMemory<'_> {
        JobMemory(&mut self.handed_out[index].duplicates)
    }

    /// True if the job at `index` is the newest and has had so many submissions that the next should be sent.
    pub(crate) fn needs_next(&self, index: usize) -> bool {
        index + 1 == self.handed_out.len() && self.handed_out[index].submissions() >= DUPLICATES_PER_JOB
    }

    /// Number of headers remembered for all jobs together.
    pub(crate) fn remembered(&self) -> usize {
        self.handed_out.iter().map(HandedOut::submissions).sum()
    }
}

impl<T> HandedOut<T> {
    /// Number of submissions remembered.
    fn submissions(&self) -> usize {
        self.duplicates.as_ref().map_or(0, |duplicates| duplicates.len())
    }
}

/// Headers of one job that were judged; not allocated before the first.
#[derive(Debug)]
pub(crate) struct JobMemory<'a>(&'a mut Option<Box<Duplicates>>);

impl Seen for JobMemory<'_> {
    fn knows(&self, hash: &[u8; 32]) -> bool {
        self.0.as_ref().is_some_and(|duplicates| duplicates.contains(hash))
    }

    fn remember(&mut self, hash: &[u8; 32], when_full: WhenFull) -> Remembered {
        self.0.get_or_insert_default().insert(hash, when_full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mining::job::Offer;
    use crate::mining::job::tests::parts;
    use std::time::Duration;

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
        assert_eq!(jobs.seen(at).remember(&[7; 32], WhenFull::Refuse), Remembered::New);
        assert_eq!(jobs.seen(at).remember(&[7; 32], WhenFull::Refuse), Remembered::Known);
        assert_eq!(jobs.remembered(), 1);

        let mut jobs = jobs.into_resumable();
        jobs.add(job, false, difficulty, Epochs::default(), [0; 4], now);
        assert_eq!(index(&jobs), 0, "it is there once");
        assert!(jobs.seen(0).knows(&[7; 32]));

        jobs.add(Offer::new(&parts(2), ()).job, false, difficulty, Epochs::default(), [0; 4], now + JOB_LIFE * 2);
        assert_eq!(jobs.remembered(), 0);
    }

    #[test]
    fn a_session_that_floods_loses_its_oldest_jobs() {
        let mut jobs = Jobs::new();
        let (now, difficulty) = (Instant::now(), Difficulty::new(1.0).unwrap());
        let mut random = fastrand::Rng::with_seed(7);
        for id in 0..12 {
            jobs.add(Offer::new(&parts(id), ()).job, false, difficulty, Epochs::default(), [0; 4], now);
            let newest = jobs.handed_out.len() - 1;
            for _ in 0..4 * DUPLICATES_PER_JOB {
                let mut hash = [0; 32];
                hash[..8].copy_from_slice(&random.u64(..).to_le_bytes());
                jobs.seen(newest).remember(&hash, WhenFull::Refuse);
            }
            assert!(jobs.needs_next(newest) && (newest == 0 || !jobs.needs_next(0)));
            assert!(jobs.remembered() <= DUPLICATES_PER_SESSION_MAX + DUPLICATES_MAX);
        }
        assert!(jobs.find("0000000000000000").is_none());
        assert!(jobs.find("000000000000000a").is_some());
    }
}
