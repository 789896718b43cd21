//! A submission that leaves its protocol, and the clocks that it was judged by.

use std::sync::Arc;
use std::time::Instant;

use super::job::Job;
use super::submission::Solved;

/// The two clocks, as arguments.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For durations.
    pub instant: Instant,
    /// For header times: seconds since 1970.
    pub unix: u32,
}

/// A submission that is worth more than an answer.
#[derive(Debug)]
pub struct Solution<T> {
    /// The job that it solves; its ticket has what is needed to finish it.
    pub job: Arc<Job<T>>,
    /// The header and its hashes.
    pub solved: Solved,
    /// The eight bytes between the coinbase's head and tail.
    pub extranonces: [u8; 8],
    /// Who found it.
    pub worker: Arc<str>,
    /// When its submission was judged.
    pub judged: Instant,
}
