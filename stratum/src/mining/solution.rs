//! A submission that is passed on by its protocol, and the clocks that it was judged by.

use std::sync::Arc;
use std::time::Instant;

use super::job::Job;
use super::submission::Solved;
use crate::printable::Printable;

/// Current time by two clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic clock, for durations.
    pub instant: Instant,
    /// Wall clock, for header times: seconds since 1970.
    pub unix: u32,
}

/// A submission that meets its job's solution target.
#[derive(Debug)]
pub struct Solution<T> {
    /// Job that it solves; the ticket has the data needed to complete it.
    pub job: Arc<Job<T>>,
    /// Header and its hashes.
    pub solved: Solved,
    /// Extranonces: the eight bytes between the coinbase's head and tail.
    pub extranonces: [u8; 8],
    /// Worker that found it.
    pub worker: Printable,
    /// Time at which the submission was judged.
    pub judged: Instant,
}
