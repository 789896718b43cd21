//! State of polling miners: difficulty and account, by network and worker name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mining::difficulty::{Difficulty, Target};
use crate::mining::fair_map::FairMap;
use crate::mining::job::Job;
use crate::mining::pow_budget::Earned;
use crate::mining::source::Source;
use crate::mining::tally::{Client, Protocol, Tallies, Tally, Writer};
use crate::mining::vardiff::{self, Vardiff};
use crate::printable::Printable;

/// Maximum number of worker names remembered. Names without a credited submission are evicted first, as long as they
/// are more than [`NEWCOMERS_MIN`]; of these, the source with the most loses those it has not used for longest.
pub const MINERS_MAX: usize = 16_384;

/// Number of names without a credited submission that those with one leave room for.
pub const NEWCOMERS_MIN: usize = 4_096;

/// Time for which a name that does not poll is remembered.
const MINER_LIFE: Duration = Duration::from_secs(3600);

/// A worker as one network knows it. A name used from elsewhere is another miner: its difficulty is its own.
pub(super) type Name = (Source, Printable);

/// State of a worker name.
#[derive(Debug)]
pub(super) struct Miner {
    pub(super) vardiff: Vardiff,
    pub(super) account: Writer,
    /// Costly hashes that it has earned.
    pub(super) earned: Earned,
    seen: Instant,
}

impl Miner {
    /// Difficulty and target of the next submissions: the difficulty that was `asked` for, or else vardiff's, but not
    /// below `easiest`; and never harder than the solutions of `job`, which would be lost.
    pub(super) fn difficulty<T>(
        &mut self,
        asked: Option<Difficulty>,
        easiest: Option<Difficulty>,
        job: &Job<T>,
        now: Instant,
    ) -> (Difficulty, Target) {
        let ceiling = job.ceiling(self.vardiff.min());
        let wanted = match asked {
            Some(asked) => self.vardiff.bounded(asked),
            None => {
                self.vardiff.retarget(ceiling.difficulty.unwrap_or(self.vardiff.hardest()), now);
                self.vardiff.current()
            }
        };
        let wanted = easiest.filter(|easiest| wanted < *easiest).unwrap_or(wanted);
        let (difficulty, target) = ceiling.lower(wanted);
        self.account.tally().client.difficulty_sent(difficulty);
        (difficulty, target)
    }

    fn is_gone(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) >= MINER_LIFE
    }
}

/// All miners.
#[derive(Debug)]
pub(super) struct Miners {
    config: vardiff::Config,
    tallies: Arc<Tallies>,
    newcomers: FairMap<Name, Miner>,
    /// Miners with a credited submission.
    proven: FairMap<Name, Miner>,
}

impl Miners {
    pub(super) fn new(config: vardiff::Config, tallies: Arc<Tallies>) -> Self {
        Self { config, tallies, newcomers: FairMap::default(), proven: FairMap::default() }
    }

    /// Returns the miner `name`, if it is remembered.
    pub(super) fn get_mut(&mut self, name: &Name) -> Option<&mut Miner> {
        match self.proven.get_mut(name) {
            Some(miner) => Some(miner),
            None => self.newcomers.get_mut(name),
        }
    }

    /// Returns the miner `name`, which is seen now; a new one has the payout `payee`.
    pub(super) fn see(&mut self, name: &Name, payee: impl FnOnce() -> Arc<str>, now: Instant) -> &mut Miner {
        let known = if self.proven.get(name).is_some() { &mut self.proven } else { &mut self.newcomers };
        if known.get(name).is_some() {
            known.touch(name);
        } else {
            self.make_room(now);
            let miner = self.create(name, payee(), now);
            self.newcomers.insert(name.0, name.clone(), miner, 1);
        }
        let miner = self.get_mut(name).expect("it was there or was added");
        miner.seen = now;
        miner
    }

    /// Returns the miner `name`, which has a submission to credit now. One that was evicted meanwhile starts again.
    pub(super) fn prove(&mut self, name: &Name, payee: &Arc<str>, now: Instant) -> &mut Miner {
        if self.proven.get(name).is_none() {
            let miner = self.newcomers.remove(name);
            self.make_room(now);
            let miner = miner.unwrap_or_else(|| self.create(name, payee.clone(), now));
            self.proven.insert(name.0, name.clone(), miner, 1);
        }
        self.proven.get_mut(name).expect("it was there or was added")
    }

    fn create(&self, name: &Name, payee: Arc<str>, now: Instant) -> Miner {
        let (tally, account) = Tally::new(name.1.clone(), payee, Client::new(Protocol::Getwork, now));
        self.tallies.add(tally);
        Miner { vardiff: Vardiff::new(self.config, now), account, earned: Earned::default(), seen: now }
    }

    /// Evicts names until there is room for one more.
    fn make_room(&mut self, now: Instant) {
        self.newcomers.expire(|miner| miner.is_gone(now));
        self.proven.expire(|miner| miner.is_gone(now));
        while self.len() >= MINERS_MAX {
            let victims = if self.newcomers.len() >= NEWCOMERS_MIN { &mut self.newcomers } else { &mut self.proven };
            victims.evict();
        }
    }

    /// Number of names remembered.
    pub(super) fn len(&self) -> usize {
        self.newcomers.len() + self.proven.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn miners() -> Miners {
        let difficulty = |value| Difficulty::new(value).unwrap();
        let interval = Duration::from_secs(3);
        let config = vardiff::Config { interval, start: difficulty(1.0), min: difficulty(1e-9), max: difficulty(1e9) };
        Miners::new(config, Arc::default())
    }

    fn name(network: u8, number: usize) -> Name {
        (Source::of([192, 0, network, 1].into()), number.to_string().as_str().into())
    }

    fn payee() -> Arc<str> {
        "payee".into()
    }

    #[test]
    fn names_without_credit_go_first_and_those_of_the_source_with_the_most() {
        let (mut miners, now) = (miners(), Instant::now());
        let (proven, quiet) = (name(1, 0), name(2, 0));
        miners.see(&proven, payee, now);
        miners.prove(&proven, &payee(), now);
        miners.see(&quiet, payee, now);
        for number in 0..3 * MINERS_MAX {
            miners.see(&name(3, number), payee, now);
        }
        assert_eq!(miners.len(), MINERS_MAX);
        assert!(miners.get_mut(&proven).is_some() && miners.get_mut(&quiet).is_some());
        assert!(miners.get_mut(&name(3, 0)).is_none());
        // Credit for each of its names gains a stranger no more: newcomers still find room.
        for number in 0..3 * MINERS_MAX {
            miners.prove(&name(3, number), &payee(), now);
        }
        assert!(miners.get_mut(&proven).is_some() && miners.get_mut(&quiet).is_some());
        for number in 0..NEWCOMERS_MIN {
            miners.see(&name(4, number), payee, now);
        }
        assert!((0..100).all(|number| miners.get_mut(&name(4, NEWCOMERS_MIN - 1 - number)).is_some()));
        assert_eq!(miners.len(), MINERS_MAX);
    }

    #[test]
    fn a_name_that_does_not_poll_is_forgotten_after_an_hour() {
        let (mut miners, now) = (miners(), Instant::now());
        miners.see(&name(1, 0), payee, now);
        miners.see(&name(1, 1), payee, now + MINER_LIFE);
        assert_eq!(miners.len(), 1);
    }
}
