//! State kept after a connection has ended, so that a dropped line costs its miner nothing.
//!
//! A miner that quotes its session id on reconnecting gets its extranonce1 back, and its work in progress counts as
//! before: jobs, submissions for them and difficulty are kept for some minutes. Any other miner that reconnects with
//! the same name and user agent starts at the difficulty that it had settled at within the last hour; that spares the
//! node a flood when a whole farm reconnects.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mining::difficulty::Difficulty;
use crate::mining::extranonce::Lease;
use crate::mining::jobs::Jobs;

/// Time for which a session can be resumed: the lifetime of a job.
pub const SESSION_LIFE: Duration = crate::mining::job::JOB_LIFE;

/// Maximum number of resumable sessions: those of a farm whose line was cut.
pub const SESSIONS_MAX: usize = 16 * 1024;

/// Maximum number of submissions remembered for all sessions together: some 30 MB under attack.
pub const DUPLICATES_SUM_MAX: usize = 1024 * 1024;

/// Time for which a settled difficulty is remembered.
pub const DIFFICULTY_LIFE: Duration = Duration::from_secs(3600);

/// Maximum number of settled difficulties remembered.
pub const DIFFICULTIES_MAX: usize = 64 * 1024;

/// State of an ended session.
#[derive(Debug)]
pub(crate) struct Past<T> {
    /// Leased until this is dropped, so that no other session gets it.
    pub(crate) extranonce1: Lease,
    pub(crate) payee: Arc<str>,
    pub(crate) jobs: Jobs<T>,
    pub(crate) difficulty: Option<Difficulty>,
}

/// Memory shared by all connections of a server.
#[derive(Debug)]
pub struct Memory<T> {
    state: Mutex<State<T>>,
    hasher: RandomState,
}

#[derive(Debug)]
struct State<T> {
    sessions: HashMap<u64, (Instant, Past<T>)>,
    /// Time of each entry, oldest first. Includes entries that were taken since.
    order: VecDeque<(Instant, u64)>,
    duplicates: usize,
    /// By hash of name and user agent.
    difficulties: HashMap<u64, (Difficulty, Instant)>,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        let state =
            State { sessions: HashMap::new(), order: VecDeque::new(), duplicates: 0, difficulties: HashMap::new() };
        Self { state: Mutex::new(state), hasher: RandomState::new() }
    }
}

impl<T> Memory<T> {
    /// Number of resumable sessions.
    pub fn len(&self) -> usize {
        self.state.lock().sessions.len()
    }

    /// True if no session can be resumed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Remembers a session that has ended.
    pub(crate) fn keep(&self, session: u64, past: Past<T>, now: Instant) {
        let forgotten = {
            let mut state = self.state.lock();
            state.duplicates += past.jobs.remembered();
            state.order.push_back((now, session));
            let mut forgotten = vec![state.sessions.insert(session, (now, past)).map(|(_, past)| past)];
            while let Some((since, oldest)) = state.order.front().copied()
                && (now.saturating_duration_since(since) > SESSION_LIFE
                    || state.order.len() > SESSIONS_MAX
                    || state.duplicates > DUPLICATES_SUM_MAX)
            {
                state.order.pop_front();
                forgotten.push(state.remove(oldest));
            }
            forgotten
        };
        // Dropped outside the lock: extranonces go back to the pool, which has its own lock.
        drop(forgotten);
    }

    /// Takes the session with the id `session`; each can be taken once.
    pub(crate) fn take(&self, session: u64, now: Instant) -> Option<Past<T>> {
        let mut state = self.state.lock();
        let since = state.sessions.get(&session)?.0;
        if now.saturating_duration_since(since) > SESSION_LIFE {
            return None;
        }
        state.remove(session)
    }

    /// Remembers the settled difficulty of the worker `name` on such a device.
    pub(crate) fn keep_difficulty(&self, name: &str, user_agent: &str, difficulty: Difficulty, now: Instant) {
        let key = self.hasher.hash_one((name, user_agent));
        let mut state = self.state.lock();
        if state.difficulties.len() >= DIFFICULTIES_MAX && !state.difficulties.contains_key(&key) {
            state.difficulties.retain(|_, (_, since)| now.saturating_duration_since(*since) <= DIFFICULTY_LIFE);
            if state.difficulties.len() >= DIFFICULTIES_MAX {
                return;
            }
        }
        state.difficulties.insert(key, (difficulty, now));
    }

    /// Returns the settled difficulty of the worker `name` on such a device.
    pub(crate) fn difficulty(&self, name: &str, user_agent: &str, now: Instant) -> Option<Difficulty> {
        let key = self.hasher.hash_one((name, user_agent));
        let (difficulty, since) = *self.state.lock().difficulties.get(&key)?;
        (now.saturating_duration_since(since) <= DIFFICULTY_LIFE).then_some(difficulty)
    }
}

impl<T> State<T> {
    fn remove(&mut self, session: u64) -> Option<Past<T>> {
        let (_, past) = self.sessions.remove(&session)?;
        self.duplicates -= past.jobs.remembered();
        Some(past)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mining::extranonce::Extranonces;

    fn past(pool: &Extranonces) -> Past<()> {
        Past { extranonce1: pool.lease().unwrap(), payee: "alice".into(), jobs: Jobs::new(), difficulty: None }
    }

    #[test]
    fn a_session_is_given_back_once_and_only_for_some_minutes() {
        let (pool, memory, now) = (Extranonces::starting_at(1), Memory::default(), Instant::now());
        memory.keep(7, past(&pool), now);
        memory.keep(8, past(&pool), now);
        assert!(memory.take(9, now).is_none());
        assert!(memory.take(7, now + SESSION_LIFE).is_some());
        assert!(memory.take(7, now).is_none());
        assert!(memory.take(8, now + SESSION_LIFE + Duration::from_secs(1)).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_is_forgotten() {
        let (pool, memory, now) = (Extranonces::starting_at(1), Memory::default(), Instant::now());
        for session in 0..=SESSIONS_MAX as u64 {
            memory.keep(session, past(&pool), now);
        }
        assert_eq!(memory.len(), SESSIONS_MAX);
        assert!(memory.take(0, now).is_none());
        memory.keep(u64::MAX, past(&pool), now + SESSION_LIFE * 2);
        assert_eq!(memory.len(), 1, "the others are too old");
    }

    #[test]
    fn a_settled_difficulty_is_remembered_for_an_hour_by_name_and_device() {
        let (memory, now) = (Memory::<()>::default(), Instant::now());
        let difficulty = Difficulty::new(5.0).unwrap();
        memory.keep_difficulty("alice", "bitaxe", difficulty, now);
        assert_eq!(memory.difficulty("alice", "bitaxe", now), Some(difficulty));
        assert_eq!(memory.difficulty("alice", "cgminer", now), None);
        assert_eq!(memory.difficulty("alice", "bitaxe", now + DIFFICULTY_LIFE + Duration::from_secs(1)), None);
    }
}
