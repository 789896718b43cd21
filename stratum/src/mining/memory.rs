//! State kept after a connection has ended, so that a dropped line costs its miner nothing.
//!
//! A miner that quotes its session id on reconnecting gets its extranonce1 back, and its work in progress counts as
//! before: jobs, submissions for them and difficulty are kept for some minutes. Any other miner that reconnects with
//! the same name and user agent starts at the difficulty that it had settled at within the last hour; that spares the
//! node a flood when a whole farm reconnects.
//!
//! Each [`Source`] that fills this memory pushes out its own state first.

use parking_lot::Mutex;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mining::difficulty::Difficulty;
use crate::mining::extranonce::Lease;
use crate::mining::fair_map::FairMap;
use crate::mining::jobs::Jobs;
use crate::mining::pow_budget::PowBudget;
use crate::mining::source::Source;

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

/// Weight of a session in [`FairMap`], in submissions remembered.
const SESSION_WEIGHT: usize = 64;

/// State of an ended session.
#[derive(Debug)]
pub(crate) struct Past<T> {
    /// Leased until this is dropped, so that no other session gets it.
    pub(crate) extranonce1: Lease,
    pub(crate) payout: Arc<str>,
    pub(crate) jobs: Jobs<T>,
    pub(crate) difficulty: Option<Difficulty>,
    /// Network of the miner, if it is known.
    pub(crate) source: Option<Source>,
}

/// Memory shared by all connections of a server.
#[derive(Debug)]
pub struct Memory<T> {
    state: Mutex<State<T>>,
    hasher: RandomState,
    pow_budget: PowBudget,
}

#[derive(Debug)]
struct State<T> {
    sessions: FairMap<u64, (Instant, Past<T>)>,
    /// By hash of source, name and user agent.
    difficulties: FairMap<u64, (Difficulty, Instant)>,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self::new(true)
    }
}

impl<T> Memory<T> {
    /// Creates an empty memory; with `exempts_loopback`, sessions from this machine have no budget of their own.
    pub fn new(exempts_loopback: bool) -> Self {
        Self {
            state: Mutex::new(State { sessions: FairMap::default(), difficulties: FairMap::default() }),
            hasher: RandomState::new(),
            pow_budget: PowBudget::new(exempts_loopback),
        }
    }

    /// Returns the id of the session with this seed: no stranger can guess it, and resume a session that is not his.
    pub(crate) fn session_id(&self, seed: u64) -> u64 {
        self.hasher.hash_one(seed)
    }

    /// Budgets for proof of work where it is costly.
    pub(crate) fn pow_budget(&self) -> &PowBudget {
        &self.pow_budget
    }

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
            let sessions = &mut self.state.lock().sessions;
            let mut forgotten = sessions.expire(|(since, _)| now.saturating_duration_since(*since) > SESSION_LIFE);
            let weight = SESSION_WEIGHT + past.jobs.remembered();
            sessions.insert(holder(past.source), session, (now, past), weight);
            while sessions.len() > SESSIONS_MAX
                || sessions.weight() - SESSION_WEIGHT * sessions.len() > DUPLICATES_SUM_MAX
            {
                forgotten.extend(sessions.evict());
            }
            forgotten
        };
        // Dropped outside the lock: extranonces go back to the pool, which has its own lock.
        drop(forgotten);
    }

    /// Takes the session with the id `session`; each can be taken once.
    pub(crate) fn take(&self, session: u64, now: Instant) -> Option<Past<T>> {
        let sessions = &mut self.state.lock().sessions;
        let since = sessions.get(&session)?.0;
        if now.saturating_duration_since(since) > SESSION_LIFE {
            return None;
        }
        sessions.remove(&session).map(|(_, past)| past)
    }

    /// Remembers the settled difficulty of `miner`.
    pub(crate) fn keep_difficulty(&self, miner: Settled<'_>, difficulty: Difficulty, now: Instant) {
        let key = self.hasher.hash_one(miner);
        let difficulties = &mut self.state.lock().difficulties;
        difficulties.expire(|(_, since)| now.saturating_duration_since(*since) > DIFFICULTY_LIFE);
        difficulties.insert(holder(miner.source), key, (difficulty, now), 1);
        while difficulties.len() > DIFFICULTIES_MAX {
            difficulties.evict();
        }
    }

    /// Returns the settled difficulty of `miner`.
    pub(crate) fn difficulty(&self, miner: Settled<'_>, now: Instant) -> Option<Difficulty> {
        let key = self.hasher.hash_one(miner);
        let (difficulty, since) = *self.state.lock().difficulties.get(&key)?;
        (now.saturating_duration_since(since) <= DIFFICULTY_LIFE).then_some(difficulty)
    }
}

/// Miner whose difficulty is remembered: others of its name elsewhere have no part in it.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Settled<'a> {
    pub(crate) source: Option<Source>,
    pub(crate) name: &'a str,
    pub(crate) user_agent: &'a str,
}

/// Sessions of unknown networks are those of one.
fn holder(source: Option<Source>) -> Source {
    source.unwrap_or_else(|| Source::of(IpAddr::from(Ipv4Addr::UNSPECIFIED)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mining::extranonce::Extranonces;

    fn past(pool: &Extranonces) -> Past<()> {
        past_of(pool, None)
    }

    fn past_of(pool: &Extranonces, source: Option<Source>) -> Past<()> {
        Past { extranonce1: pool.lease().unwrap(), payout: "alice".into(), jobs: Jobs::new(), difficulty: None, source }
    }

    fn source(number: u8) -> Option<Source> {
        Some(Source::of([192, 0, number, 1].into()))
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
    fn a_stranger_that_comes_and_goes_pushes_out_no_session_and_no_difficulty_but_its_own() {
        let (pool, memory, now) = (Extranonces::starting_at(1), Memory::default(), Instant::now());
        let difficulty = Difficulty::new(5.0).unwrap();
        let alice = Settled { source: source(1), name: "alice", user_agent: "bitaxe" };
        memory.keep(7, past_of(&pool, source(1)), now);
        memory.keep_difficulty(alice, difficulty, now);
        for number in 0..2 * DIFFICULTIES_MAX {
            memory.keep(1000 + number as u64, past_of(&pool, source(2)), now);
            let name = number.to_string();
            memory.keep_difficulty(Settled { source: source(2), name: &name, user_agent: "" }, difficulty, now);
        }
        assert_eq!(memory.len(), SESSIONS_MAX);
        assert_eq!(memory.state.lock().difficulties.len(), DIFFICULTIES_MAX);
        assert!(memory.take(7, now).is_some());
        assert_eq!(memory.difficulty(alice, now), Some(difficulty));
    }

    #[test]
    fn a_settled_difficulty_is_remembered_for_an_hour_by_network_name_and_device() {
        let (memory, now) = (Memory::<()>::default(), Instant::now());
        let difficulty = Difficulty::new(5.0).unwrap();
        let bitaxe = Settled { source: source(1), name: "alice", user_agent: "bitaxe" };
        memory.keep_difficulty(bitaxe, difficulty, now);
        assert_eq!(memory.difficulty(bitaxe, now), Some(difficulty));
        assert_eq!(memory.difficulty(Settled { user_agent: "cgminer", ..bitaxe }, now), None);
        assert_eq!(memory.difficulty(Settled { source: source(2), ..bitaxe }, now), None);
        assert_eq!(memory.difficulty(bitaxe, now + DIFFICULTY_LIFE + Duration::from_secs(1)), None);
    }
}
