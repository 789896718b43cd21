//! Events of a session, and the reasons why it ends.

use std::fmt;
use std::sync::Arc;
use thiserror::Error;

use crate::mining::error::StratumError;
use crate::mining::job::PowFunction;
use crate::mining::solution::Solution;
use crate::mining::tally::{Credit, Tally};
use crate::mining::work::Refusal;

/// Reason for closing a connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Disconnect {
    /// Too many lines that are no request.
    #[error("too many malformed lines, the last one {0}")]
    Malformed(StratumError),
    /// No subscription or authorisation in time.
    #[error("handshake not finished in time")]
    HandshakeTimeout,
    /// No work for this miner.
    #[error("no work: {0}")]
    NoWork(Refusal),
    /// Too many useless lines.
    #[error("too many useless lines")]
    Flood,
    /// Only invalid submissions for minutes.
    #[error("only invalid submissions")]
    Invalid,
    /// Too many worker names refused.
    #[error("too many worker names refused")]
    Refused,
    /// No valid submission for too long.
    #[error("no valid submission for too long")]
    Idle,
    /// The device's buffers are too small for the job; it would crash or mine nothing.
    #[error("job too big for the device")]
    SmallDevice,
}

/// Event of a session, for the driver to act on.
#[derive(Debug)]
pub enum Event<T> {
    /// A submission that solves its job. Comes before its answer is sent.
    Solution(Box<Solution<T>>),
    /// A submission was judged.
    Judged {
        /// Verdict, from a fixed set.
        verdict: &'static str,
        /// Credit added to the worker's account.
        credit: Option<Credit>,
    },
    /// A new worker, with its tally.
    Joined(Arc<Tally>),
    /// Name and password to check, only if [`Config::checks_credentials`](super::Config::checks_credentials) is set. The
    /// driver passes the result to [`Session::handle_credentials`](super::Session::handle_credentials); the next ones
    /// come after that.
    Credentials(Credentials),
    /// A costly proof of work to compute. The driver passes the hash to
    /// [`Session::handle_hash`](super::Session::handle_hash); the submission is answered then. Lines, work and timeouts
    /// are handled meanwhile.
    Hash(Box<HashRequest>),
    /// A name was authorised or refused; from a fixed set.
    Authorized(&'static str),
    /// A device got a job that its firmware most likely cannot hold. At most once per session.
    JobTooBig(Box<JobTooBig>),
    /// Unknown method, or parameters of unknown form, escaped: candidates for the list of quirks.
    NotUnderstood(Box<str>),
    /// The miner resumed an earlier session.
    Resumed,
}

/// Request to compute a proof of work.
#[derive(Debug, Clone, Copy)]
pub struct HashRequest {
    /// Identifies it in [`Session::handle_hash`](super::Session::handle_hash).
    pub number: u32,
    /// Header to hash.
    pub header: [u8; 80],
    /// Function to hash it with.
    pub pow: PowFunction,
    /// Set if the miner has earned it by credited submissions: its hashes come before those of strangers.
    pub is_earned: bool,
}

/// Name and password of a `mining.authorize`, as sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name, with worker and difficulties.
    pub name: Box<str>,
    /// The password; empty if missing.
    pub password: Box<str>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Passwords do not belong in logs.
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Report of a job that is too big for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobTooBig {
    /// Worker that uses the device, as in statistics.
    pub worker: Arc<str>,
    /// Kind of device.
    pub device: &'static str,
    /// User agent of the device, escaped.
    pub user_agent: String,
    /// Size of the job's coinbase, in bytes.
    pub coinbase_bytes: usize,
    /// Maximum size of a coinbase that the device can hold, in bytes.
    pub coinbase_bytes_max: usize,
}

impl fmt::Display for JobTooBig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, coinbase_bytes, coinbase_bytes_max, .. } = self;
        write!(
            f,
            "P2Pool's coinbase of {coinbase_bytes} bytes is too big for this firmware ({device} holds \
             {coinbase_bytes_max}): it may hash nothing or crash"
        )
    }
}
