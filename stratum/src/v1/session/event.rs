//! What happens on a session, and why it ends.

use std::sync::Arc;
use thiserror::Error;

use crate::mining::error::StratumError;
use crate::mining::solution::Solution;
use crate::mining::tally::{Credit, Tally};
use crate::mining::work::Refusal;

/// Why a connection must be closed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Disconnect {
    /// Too many lines that are no request.
    #[error("too many malformed lines, the last one {0}")]
    Malformed(StratumError),
    /// It did not subscribe or authorise in time.
    #[error("handshake not finished in time")]
    HandshakeTimeout,
    /// There is no work for it.
    #[error("no work: {0}")]
    NoWork(Refusal),
    /// It sent too many lines that earn nothing.
    #[error("a flood of lines that earn nothing")]
    Flood,
    /// Its submissions have been invalid for minutes.
    #[error("nothing but invalid submissions")]
    Invalid,
    /// It tried too many names that cannot be paid.
    #[error("too many names were refused")]
    Refused,
    /// It has not submitted anything good for too long.
    #[error("no submission for too long")]
    Idle,
    /// Its buffers are too small for the job, and it would crash or mine nothing.
    #[error("a device that cannot hold the job")]
    SmallDevice,
}

/// What happened on a session, for others to act on.
#[derive(Debug)]
pub enum Event<T> {
    /// A submission good enough to leave the session. Comes before the answer to it is sent.
    Solution(Box<Solution<T>>),
    /// A submission was judged.
    Judged {
        /// How, a word of a fixed set.
        verdict: &'static str,
        /// What was put to its worker's account.
        credit: Option<Credit>,
    },
    /// There is another worker, and this is what it will do.
    Joined(Arc<Tally>),
    /// A name was authorised or refused, a word of a fixed set.
    Authorized(&'static str),
    /// A device got a job that its firmware most likely cannot hold. Comes once for a session.
    JobTooBig(Box<JobTooBig>),
    /// A method that nobody knows, or parameters in a shape that nobody sends: how the list of quirks grows.
    NotUnderstood(Box<str>),
    /// A miner went on with an earlier session.
    Resumed,
}

/// A job that is too big for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobTooBig {
    /// Whose device it is.
    pub worker: Arc<str>,
    /// What kind of device.
    pub device: &'static str,
    /// What it calls itself.
    pub user_agent: String,
    /// Bytes of the job's coinbase.
    pub coinbase_bytes: usize,
    /// Bytes that it can hold.
    pub coinbase_bytes_max: usize,
}

impl std::fmt::Display for JobTooBig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { device, coinbase_bytes, coinbase_bytes_max, .. } = self;
        write!(
            f,
            "P2Pool's coinbase of {coinbase_bytes} bytes is too big for this firmware ({device} holds \
             {coinbase_bytes_max}): it may hash nothing or crash"
        )
    }
}
