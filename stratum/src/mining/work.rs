//! What this crate asks of its user: where jobs come from, and whom a name stands for.

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::mining::difficulty::Difficulty;
use crate::mining::epochs::Epochs;
use crate::mining::job::Offer;

/// A snapshot of what there is to mine. Pure: answers follow from the snapshot and the arguments alone.
pub trait Work: Send + Sync + 'static {
    /// Whom a job pays, and whatever else about a worker makes its jobs differ. Shown in errors.
    type Payout: Clone + PartialEq + fmt::Debug + fmt::Display + Send + Sync + 'static;
    /// What a job needs for its solution to be finished. Never looked at here.
    type Ticket: fmt::Debug + Send + Sync + 'static;

    /// Whom `name` stands for.
    ///
    /// # Errors
    /// The reason, for the miner.
    fn authorize(&self, name: &str, password: &str) -> Result<Worker<Self::Payout>, Refusal>;

    /// A job that pays `payout`. The same `generation` gives the same job to all who ask, another one a job with other
    /// coinbase bytes. `draw` is a random number that the snapshot may decide by (an operator's fee, which the offer then says).
    ///
    /// # Errors
    /// The reason why there is no job.
    fn offer(&self, payout: &Self::Payout, generation: u32, draw: u32) -> Result<Offer<Self::Ticket>, Refusal>;

    /// The transactions of a job beside the coinbase, as a JSON list of hex, for `mining.get_transactions`: rendered once and
    /// shared. `None` if they are not given out.
    fn transactions(&self, ticket: &Self::Ticket) -> Option<Bytes> {
        let _ = ticket;
        None
    }

    /// How this snapshot relates to earlier ones.
    fn epochs(&self) -> Epochs;

    /// When this snapshot was made, if it is to be told how long its jobs take to reach miners from then.
    fn made(&self) -> Option<Instant> {
        None
    }
}

/// Whom a name stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker<P> {
    /// What statistics call it.
    pub name: Arc<str>,
    /// Whom its jobs pay.
    pub payout: P,
    /// The difficulty that its submissions shall have, if the name asks for one.
    pub difficulty: Option<Difficulty>,
    /// What its owner should be told, for instance that somebody else is paid.
    pub notice: Option<String>,
}

/// Why something cannot be had, in words for the miner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
