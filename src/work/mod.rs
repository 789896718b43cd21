//! `WorkSet`: what there is to mine, as a snapshot; implements [`stratum::Work`] and makes jobs per payout.

mod assemble;
mod publish;
pub mod username;

pub use assemble::{Ticket, coinbase_script_of_texts};
pub use publish::publish;

use bitcoin::ScriptBuf;
use dashmap::DashMap;
use std::fmt;
use std::sync::Arc;
use stratum::{Difficulty, Epochs, Offer, Refusal, Work, Worker};

use crate::network::Network;
use crate::template::Template;

/// Whom a job pays.
#[derive(Debug, Clone)]
pub struct Payout {
    /// The output script.
    pub script: ScriptBuf,
    /// The address as the miner wrote it.
    pub address: Arc<str>,
    /// The share difficulty that the miner asked for.
    pub share_difficulty: Option<Difficulty>,
}

/// Payouts are the same when the money goes to the same script; a wish about shares does not make another payee.
impl PartialEq for Payout {
    fn eq(&self, other: &Self) -> bool {
        self.script == other.script
    }
}

impl fmt::Display for Payout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// What the operator decides about work.
#[derive(Debug, Clone)]
pub struct Config {
    /// The network mined on.
    pub network: &'static Network,
    /// Who is paid when a worker's name is no address, and for the operator's fee.
    pub default_payout: Payout,
    /// Percentage of jobs that pay the operator instead of the worker.
    pub fee_percent: f64,
    /// Pushes that go into the coinbase script, as [`coinbase_script_of_texts`] makes them.
    pub coinbase_texts: Vec<u8>,
}

/// What there is to mine. Immutable but for the cache of the jobs made from it.
#[derive(Debug)]
pub struct WorkSet {
    config: Arc<Config>,
    template: Arc<Template>,
    epochs: Epochs,
    /// One job serves every connection with the same payout.
    jobs: DashMap<JobKey, Offer<Ticket>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JobKey {
    script: ScriptBuf,
    generation: u32,
}

impl WorkSet {
    fn new(config: Arc<Config>, template: Arc<Template>, epochs: Epochs) -> Self {
        Self { config, template, epochs, jobs: DashMap::new() }
    }

    /// What the next block is made of.
    pub fn template(&self) -> &Arc<Template> {
        &self.template
    }

    /// Whether this draw is one of those that the operator's fee takes: `draw` is uniform over all 32-bit numbers.
    fn goes_to_operator(&self, draw: u32) -> bool {
        f64::from(draw) < self.config.fee_percent / 100.0 * 4_294_967_296.0
    }
}

impl Work for WorkSet {
    type Payout = Payout;
    type Ticket = Ticket;

    fn authorize(&self, name: &str, _password: &str) -> Result<Worker<Payout>, Refusal> {
        username::parse(name, self.config.network, &self.config.default_payout)
    }

    fn offer(&self, payout: &Payout, generation: u32, draw: u32) -> Result<Offer<Ticket>, Refusal> {
        let payout = if self.goes_to_operator(draw) { &self.config.default_payout } else { payout };
        let key = JobKey { script: payout.script.clone(), generation };
        // The map's lock is held while the job is made, a few microseconds: whoever comes meanwhile wants the same one.
        let offer = self.jobs.entry(key).or_insert_with(|| assemble::offer(&self.template, payout, &self.config));
        Ok(offer.clone())
    }

    fn epochs(&self) -> Epochs {
        self.epochs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address;
    use crate::network::BITCOIN_REGTEST;
    use crate::template::tests::{RULES, parts};

    fn payout(address: &str) -> Payout {
        let script = address::script_of(address, &BITCOIN_REGTEST.parent).unwrap();
        Payout { script, address: address.into(), share_difficulty: None }
    }

    fn work(fee_percent: f64) -> WorkSet {
        let config = Config {
            network: &BITCOIN_REGTEST,
            default_payout: payout("mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn"),
            fee_percent,
            coinbase_texts: Vec::new(),
        };
        WorkSet::new(config.into(), Template::new(parts(), RULES).unwrap().into(), Epochs::default())
    }

    const MINER: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

    #[test]
    fn connections_with_the_same_payout_share_a_job_and_generations_do_not() {
        let work = work(0.0);
        let first = work.offer(&payout(MINER), 0, 0).unwrap();
        assert!(Arc::ptr_eq(&first.job, &work.offer(&payout(MINER), 0, 1).unwrap().job));
        assert!(!Arc::ptr_eq(&first.job, &work.offer(&payout(MINER), 1, 0).unwrap().job));
        let other = work.offer(&payout("mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn"), 0, 0).unwrap();
        assert_ne!(first.job.id(), other.job.id());
    }

    #[test]
    fn the_fee_takes_its_percentage_of_jobs() {
        let work = work(2.5);
        let mut random = fastrand::Rng::with_seed(1);
        let taken = (0..100_000).filter(|_| work.goes_to_operator(random.u32(..))).count();
        assert!((2300..2700).contains(&taken), "{taken}");
        let job = work.offer(&payout(MINER), 0, 0).unwrap().job;
        assert_eq!(job.ticket().payout(), &work.config.default_payout);
    }

    #[test]
    fn without_a_fee_no_job_goes_to_the_operator() {
        assert!(!work(0.0).goes_to_operator(0));
        assert!(work(100.0).goes_to_operator(u32::MAX));
    }
}
