//! The trait [`Work`], implemented by the user of this crate: source of jobs, and of the worker behind a name.

use bytes::Bytes;
use std::fmt;
use std::time::Instant;

use crate::mining::difficulty::Difficulty;
use crate::mining::epochs::Epochs;
use crate::mining::job::{Offer, Unannounced};
use crate::printable::Printable;

/// Snapshot of the work to mine. Pure: answers depend on the snapshot and the arguments alone.
pub trait Work: Send + Sync + 'static {
    /// Payout of a job, and any other property of a worker that makes its jobs differ. Shown in errors, and in statistics
    /// as the payee; `{:#}` shows all by which two payouts differ.
    type Payout: Clone + PartialEq + fmt::Debug + fmt::Display + Send + Sync + 'static;
    /// Data needed to complete a solution of a job; opaque to this crate.
    type Ticket: fmt::Debug + Send + Sync + 'static;

    /// Returns the worker that `name` stands for.
    ///
    /// # Errors
    /// The reason for the refusal, shown to the miner.
    fn authorize(&self, name: &str, password: &str) -> Result<Worker<Self::Payout>, Refusal>;

    /// Checks addresses on merged chains, each with the number of its chain, that a miner sent before it has authorised
    /// (`mining.set_merged_addresses`).
    ///
    /// # Errors
    /// The reason for the refusal, shown to the miner. By default, no merged chain pays miners.
    fn check_merged_addresses(&self, addresses: &[(u32, Box<str>)]) -> Result<(), Refusal> {
        let _ = addresses;
        Err(Refusal("this pool pays no merged chain".to_owned()))
    }

    /// Returns `worker` with a payout to these addresses on merged chains, and with the notice that its owner should see
    /// about that.
    ///
    /// # Errors
    /// As [`Self::check_merged_addresses`], or because of the worker.
    fn with_merged_addresses(
        &self,
        worker: Worker<Self::Payout>,
        addresses: &[(u32, Box<str>)],
    ) -> Result<Worker<Self::Payout>, Refusal> {
        self.check_merged_addresses(addresses).map(|()| worker)
    }

    /// Returns a job that pays `payout`. Callers with the same `generation` share it, others get other coinbase bytes.
    /// `draw` is a random number for deciding on an operator's fee ([`Offer::is_fee`]).
    ///
    /// # Errors
    /// The reason why there is no job.
    fn offer(&self, payout: &Self::Payout, generation: u32, draw: u32) -> Result<Offer<Self::Ticket>, Refusal>;

    /// Returns a job that pays `payout`, for a miner that polls: nothing is rendered that only announcing needs. Callers
    /// share it, and give each miner an extranonce1 of its own.
    ///
    /// # Errors
    /// As [`Self::offer`].
    fn job(&self, payout: &Self::Payout, draw: u32) -> Result<Unannounced<Self::Ticket>, Refusal> {
        self.offer(payout, 0, draw).map(Unannounced::from)
    }

    /// Memory that `ticket` takes beside its own size, in bytes.
    fn ticket_memory(&self, ticket: &Self::Ticket) -> usize {
        let _ = ticket;
        0
    }

    /// Transactions of a job except the coinbase, as a JSON list of hex for `mining.get_transactions`: rendered once
    /// and shared. `None` if they are not available.
    fn transactions(&self, ticket: &Self::Ticket) -> Option<Bytes> {
        let _ = ticket;
        None
    }

    /// Relation of this snapshot to earlier ones.
    fn epochs(&self) -> Epochs;

    /// Time at which this snapshot was made, if the time its jobs take to reach miners is to be measured.
    fn made(&self) -> Option<Instant> {
        None
    }
}

/// Worker that a name stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker<P> {
    /// Name in statistics, logs and pages.
    pub name: Printable,
    /// Payout of its jobs.
    pub payout: P,
    /// Difficulty requested in the name, if any.
    pub difficulty: Option<Difficulty>,
    /// Message for the miner's owner, for instance that another address is paid.
    pub notice: Option<String>,
}

/// Reason for a refusal, worded for the miner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
