//! Why a connection ends, and whether its peer is to be banned for it (protocol section 3.9).

use sharechain::share::CheckError;
use std::time::Duration;
use thiserror::Error;

use crate::frame::FrameError;
use crate::message::{Command, MessageError, Problem};

/// What a ban is based on where nothing else is said; the swarm multiplies it by the square of how often it happened.
const BAN: Duration = Duration::from_secs(3600);

/// That of a failed request for shares.
const BAN_FOR_REQUEST: Duration = Duration::from_secs(30);

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Close {
    /// No misbehaviour: no ban.
    #[error("{0}")]
    Quiet(String),
    /// We are at both ends: the address dialled is our own, never to be tried again, and nobody is banned.
    #[error("connected to ourselves")]
    Ourselves,
    /// Misbehaviour: the peer is banned.
    #[error("{0}")]
    Offence(Offence),
}

/// Misbehaviour.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Offence {
    /// A damaged message.
    #[error(transparent)]
    Frame(FrameError),
    /// Something before `version`.
    #[error("first message is `{0}`, not `version`")]
    NoVersion(Command),
    /// A second `version`.
    #[error("a second `version`")]
    SecondVersion,
    /// A protocol that is too old for the shares of today.
    #[error("protocol version {version} is older than {minimum}")]
    TooOld {
        /// The peer's.
        version: u32,
        /// What it should be at least.
        minimum: u32,
    },
    /// A share that no honest node sends.
    #[error("{0}")]
    Share(CheckError),
    /// More shares than it was asked for, or more of something than there is any reason for in one message.
    #[error("{count} {what}, where {limit} are the most")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many came.
        count: usize,
        /// What they should not exceed.
        limit: usize,
    },
    /// A block header without its proof of work.
    #[error("best block header's hash {hash} is above its own target")]
    BestBlock {
        /// Its proof-of-work hash, in display order.
        hash: String,
    },
    /// More transactions to remember than it may give us.
    #[error("transactions to remember take {0} bytes")]
    TooMuchToRemember(usize),
    /// More of something than any honest node sends.
    #[error("more than {per_second} {what} a second for too long")]
    TooFast {
        /// Of what.
        what: &'static str,
        /// What it may send for ever.
        per_second: u32,
    },
    /// It could not or would not answer a request for shares. The swarm's to say.
    #[error("failed request for shares: {0}")]
    RequestFailed(String),
    /// Shares in an answer that were not asked for. The swarm's to say.
    #[error("{0}")]
    NotAsked(String),
    /// A share of its failed verification among its ancestors. The swarm's to say.
    #[error("invalid share: {0}")]
    InvalidShare(String),
}

impl Offence {
    /// The word for it in metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Offence::Frame(_) => "checksum",
            Offence::NoVersion(_) => "no_version",
            Offence::SecondVersion => "second_version",
            Offence::TooOld { .. } => "too_old",
            Offence::Share(_) => "bad_share",
            Offence::TooMany { .. } => "too_many",
            Offence::BestBlock { .. } => "bad_best_block",
            Offence::TooMuchToRemember(_) => "too_much_to_remember",
            Offence::TooFast { .. } => "too_fast",
            Offence::RequestFailed(_) => "request_failed",
            Offence::NotAsked(_) => "not_asked",
            Offence::InvalidShare(_) => "invalid_share",
        }
    }

    /// What the ban is based on.
    pub fn ban(&self) -> Duration {
        match self {
            Offence::RequestFailed(_) => BAN_FOR_REQUEST,
            _ => BAN,
        }
    }
}

impl From<FrameError> for Close {
    fn from(error: FrameError) -> Close {
        match error {
            FrameError::OverBudget(_) => Close::Quiet(error.to_string()),
            _ => Close::Offence(Offence::Frame(error)),
        }
    }
}

impl From<MessageError> for Close {
    fn from(error: MessageError) -> Close {
        match error.problem {
            Problem::Form(_) => Close::Quiet(error.to_string()),
            Problem::TooMany { what, count, limit } => Offence::TooMany { what, count, limit }.into(),
        }
    }
}

impl From<Offence> for Close {
    fn from(offence: Offence) -> Close {
        Close::Offence(offence)
    }
}
