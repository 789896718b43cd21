//! Reasons for closing a connection, and their bans (protocol section 3.9).

use sharechain::share::CheckError;
use std::time::Duration;
use thiserror::Error;

use crate::frame::FrameError;
use crate::limits::{Cause, Excess};
use crate::message::{Command, MessageError, Problem};

/// Default base of a ban; the swarm multiplies it by the square of the number of offences.
const BAN: Duration = Duration::from_secs(3600);

/// Base of a ban for a failed request for shares, and for an answer that others may have spoilt.
const BAN_FOR_REQUEST: Duration = Duration::from_secs(30);

/// Reason for closing a connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Close {
    /// No misbehaviour: no ban.
    #[error("{0}")]
    Quiet(String),
    /// We are at both ends: the dialled address is our own, never to be tried again, without a ban.
    #[error("connected to ourselves")]
    Ourselves,
    /// Too many of its shares did not fit their ancestors, on a network whose honest nodes pass such shares on: it is
    /// left alone for an hour, without a ban. Raised by the swarm.
    #[error("more than {0} of its shares were refused within an hour")]
    Refusals(u32),
    /// Misbehaviour: the peer is banned.
    #[error("{0}")]
    Offence(Offence),
}

/// Misbehaviour.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Offence {
    /// Damaged message.
    #[error(transparent)]
    Frame(FrameError),
    /// A message before `version`.
    #[error("first message is `{0}`, not `version`")]
    NoVersion(Command),
    /// A second `version`.
    #[error("a second `version`")]
    SecondVersion,
    /// Protocol version too old for the current shares.
    #[error("protocol version {version} is older than {minimum}")]
    TooOld {
        /// Version of the peer.
        version: u32,
        /// Required minimum.
        minimum: u32,
    },
    /// A share that no honest node sends.
    #[error("{0}")]
    Share(CheckError),
    /// More shares than requested, or more elements in a message than is plausible.
    #[error("{count} {what}, maximum is {limit}")]
    TooMany {
        /// Kind of element.
        what: &'static str,
        /// Number received.
        count: usize,
        /// Maximum number.
        limit: usize,
    },
    /// Block header without its proof of work.
    #[error("best block header's hash {hash} is above its own target")]
    BestBlock {
        /// Proof-of-work hash of the header, in display order.
        hash: String,
    },
    /// More transactions to remember than the peer may give us.
    #[error("transactions to remember take {0} bytes")]
    TooMuchToRemember(usize),
    /// Rate that no honest node reaches.
    #[error("more than {per_second} {what} a second for too long")]
    TooFast {
        /// Kind of element.
        what: &'static str,
        /// Sustained maximum.
        per_second: u32,
    },
    /// Failed or refused request for shares. Raised by the swarm.
    #[error("failed request for shares: {0}")]
    RequestFailed(String),
    /// Shares in an answer that were not requested. Raised by the swarm.
    #[error("{0}")]
    NotAsked(String),
    /// A share of the peer failed verification against its ancestors. Raised by the swarm.
    #[error("invalid share: {0}")]
    InvalidShare(String),
    /// The same of a share that we requested, which an honest node may have received from an attacker. Raised by the
    /// swarm.
    #[error("invalid share in an answer: {0}")]
    InvalidAnswer(String),
}

impl Offence {
    /// Label for metrics.
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
            Offence::InvalidAnswer(_) => "invalid_answer",
        }
    }

    /// Base of the ban.
    pub fn ban(&self) -> Duration {
        match self {
            Offence::RequestFailed(_) | Offence::InvalidAnswer(_) => BAN_FOR_REQUEST,
            _ => BAN,
        }
    }
}

impl From<FrameError> for Close {
    fn from(error: FrameError) -> Close {
        Close::Offence(Offence::Frame(error))
    }
}

impl From<Excess> for Close {
    fn from(Excess { what, per_second, cause }: Excess) -> Close {
        match cause {
            Cause::Misbehaviour => Offence::TooFast { what, per_second }.into(),
            Cause::Peer => Close::Quiet(format!("more than {per_second} {what} a second for too long")),
            Cause::Network => {
                Close::Quiet(format!("more than {per_second} {what} a second from its network for too long"))
            }
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
