//! `StratumError`: every refusal that is sent to a miner, with its code and text, in one table.

use thiserror::Error;

/// Reason for refusing a request. The text goes to the miner and names the wrong value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StratumError {
    /// The line is not a JSON-RPC request.
    #[error("malformed request: {0}")]
    Malformed(String),
    /// A parameter is missing or of the wrong kind.
    #[error("bad parameters: {0}")]
    Parameters(String),
    /// The nonce is not eight hex digits.
    #[error("nonce `{0}` is not 8 hex digits")]
    Nonce(String),
    /// The extranonce2 does not have the size announced by `mining.subscribe`.
    #[error("extranonce2 `{given}` is not {digits} hex digits")]
    Extranonce2 {
        /// Value as sent.
        given: String,
        /// Expected number of hex digits.
        digits: usize,
    },
    /// The time is not eight hex digits.
    #[error("ntime `{0}` is not 8 hex digits")]
    TimeFormat(String),
    /// The time is outside the range accepted for a block.
    #[error("ntime {given:08x} is outside {earliest:08x}..={latest:08x}")]
    TimeRange {
        /// Time as sent.
        given: u32,
        /// Earliest acceptable time.
        earliest: u32,
        /// Latest acceptable time.
        latest: u32,
    },
    /// Version bits that are not a hex number, or outside the negotiated mask (BIP 310).
    #[error("version bits {given} outside mask {mask:08x}")]
    VersionBits {
        /// Value as sent.
        given: String,
        /// Negotiated mask; zero without version rolling.
        mask: u32,
    },
    /// No such job, or it has been forgotten because of its age.
    #[error("job `{0}` not found")]
    JobNotFound(String),
    /// The job builds on a block that is no longer the best.
    #[error("stale: job `{0}` is not on the current block")]
    Stale(String),
    /// The same header was submitted before.
    #[error("duplicate submission")]
    Duplicate,
    /// The job has had so many submissions that no more of them can be told from repeated ones.
    #[error("job `{0}` takes no more submissions: work on the next, with a higher difficulty")]
    JobFull(String),
    /// Proof of work is costly, and too much of it was computed for submissions of this network that earned nothing.
    #[error("too many submissions from your network are worth nothing: try again in a second")]
    Worthless,
    /// Proof of work is costly, and submissions of this network already wait for it in great number.
    #[error("the node is busy with other submissions of your network: submit again, and use a higher difficulty")]
    Busy,
    /// The hash is above the target of the job.
    #[error("low difficulty: {achieved} is less than {required}")]
    LowDifficulty {
        /// Difficulty of the hash.
        achieved: String,
        /// Difficulty that the job required.
        required: String,
    },
    /// The worker name was refused, or none has been authorised.
    #[error("not authorised: {0}")]
    Unauthorized(String),
    /// An address on a merged chain was refused.
    #[error("merged address refused: {0}")]
    MergedAddress(String),
    /// `mining.submit` before `mining.subscribe`.
    #[error("not subscribed")]
    NotSubscribed,
    /// The request exceeds its rate limit.
    #[error("`{method}` once in {seconds} s is enough")]
    TooOften {
        /// Method of the request.
        method: &'static str,
        /// Minimum time between requests, in seconds.
        seconds: u64,
    },
    /// The requested data is not available.
    #[error("not available: {0}")]
    Unavailable(&'static str),
    /// There is no such method.
    #[error("method `{0}` not found")]
    UnknownMethod(String),
}

impl StratumError {
    /// Error code in the response; bfgminer infers from 23 that difficulty is per job.
    pub fn code(&self) -> i32 {
        match self {
            Self::Malformed(_)
            | Self::Parameters(_)
            | Self::Nonce(_)
            | Self::Extranonce2 { .. }
            | Self::TimeFormat(_)
            | Self::TimeRange { .. }
            | Self::VersionBits { .. }
            | Self::TooOften { .. }
            | Self::JobFull(_)
            | Self::Worthless
            | Self::Busy
            | Self::MergedAddress(_)
            | Self::Unavailable(_) => 20,
            Self::JobNotFound(_) | Self::Stale(_) => 21,
            Self::Duplicate => 22,
            Self::LowDifficulty { .. } => 23,
            Self::Unauthorized(_) => 24,
            Self::NotSubscribed => 25,
            Self::UnknownMethod(_) => -3,
        }
    }

    /// Label for metrics, from a fixed set.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Parameters(_) => "bad_parameters",
            Self::Nonce(_) => "bad_nonce",
            Self::Extranonce2 { .. } => "bad_extranonce2",
            Self::TimeFormat(_) | Self::TimeRange { .. } => "bad_ntime",
            Self::VersionBits { .. } => "bad_version",
            Self::JobNotFound(_) => "job_not_found",
            Self::Stale(_) => "stale",
            Self::Duplicate => "duplicate",
            Self::JobFull(_) => "job_full",
            Self::Worthless => "too_many_worthless",
            Self::Busy => "busy",
            Self::LowDifficulty { .. } => "low_difficulty",
            Self::Unauthorized(_) => "unauthorized",
            Self::MergedAddress(_) => "merged_address",
            Self::NotSubscribed => "not_subscribed",
            Self::TooOften { .. } => "too_often",
            Self::Unavailable(_) => "unavailable",
            Self::UnknownMethod(_) => "unknown_method",
        }
    }
}
