//! `StratumError`: every refusal that a miner can get, with its wire code and text, in one table.

use thiserror::Error;

/// Why a request was refused. The text goes to the miner and names the value that was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StratumError {
    /// The line is no JSON-RPC request.
    #[error("malformed request: {0}")]
    Malformed(String),
    /// A parameter is missing or of the wrong kind.
    #[error("bad parameters: {0}")]
    Parameters(String),
    /// The nonce is not eight hex digits.
    #[error("nonce `{0}` is not 8 hex digits")]
    Nonce(String),
    /// The extranonce2 has not the size that `mining.subscribe` announced.
    #[error("extranonce2 `{given}` is not {digits} hex digits")]
    Extranonce2 {
        /// What was sent.
        given: String,
        /// Digits expected.
        digits: usize,
    },
    /// The time is not eight hex digits.
    #[error("ntime `{0}` is not 8 hex digits")]
    TimeFormat(String),
    /// The time lies outside what a block may bear.
    #[error("ntime {given:08x} is outside {earliest:08x}..={latest:08x}")]
    TimeRange {
        /// What was sent.
        given: u32,
        /// The earliest acceptable.
        earliest: u32,
        /// The latest acceptable.
        latest: u32,
    },
    /// Version bits that are no hex number, or outside the negotiated mask (BIP 310).
    #[error("version bits {given} outside mask {mask:08x}")]
    VersionBits {
        /// What was sent.
        given: String,
        /// The negotiated mask; zero when version rolling was not negotiated.
        mask: u32,
    },
    /// No such job, or so old that it was forgotten.
    #[error("job `{0}` not found")]
    JobNotFound(String),
    /// The job builds on a block that is no longer the best.
    #[error("stale: job `{0}` is not on the current block")]
    Stale(String),
    /// This very header was submitted before.
    #[error("duplicate submission")]
    Duplicate,
    /// The hash is above the target of the job.
    #[error("low difficulty: {achieved} is less than {required}")]
    LowDifficulty {
        /// Difficulty of the hash.
        achieved: String,
        /// Difficulty that the job required.
        required: String,
    },
    /// The worker name was refused, or nobody has authorised.
    #[error("not authorised: {0}")]
    Unauthorized(String),
    /// `mining.submit` before `mining.subscribe`.
    #[error("not subscribed")]
    NotSubscribed,
    /// Something that a miner may ask for now and then was asked for too often.
    #[error("`{method}` once in {seconds} s is enough")]
    TooOften {
        /// What was asked for.
        method: &'static str,
        /// How long to wait in between.
        seconds: u64,
    },
    /// What was asked for is not given out.
    #[error("not available: {0}")]
    Unavailable(&'static str),
    /// There is no such method.
    #[error("method `{0}` not found")]
    UnknownMethod(String),
}

impl StratumError {
    /// The code that miners parse; bfgminer learns from 23 that difficulty is per job.
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
            | Self::Unavailable(_) => 20,
            Self::JobNotFound(_) | Self::Stale(_) => 21,
            Self::Duplicate => 22,
            Self::LowDifficulty { .. } => 23,
            Self::Unauthorized(_) => 24,
            Self::NotSubscribed => 25,
            Self::UnknownMethod(_) => -3,
        }
    }

    /// A word for metrics, one of a fixed set.
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
            Self::LowDifficulty { .. } => "low_difficulty",
            Self::Unauthorized(_) => "unauthorized",
            Self::NotSubscribed => "not_subscribed",
            Self::TooOften { .. } => "too_often",
            Self::Unavailable(_) => "unavailable",
            Self::UnknownMethod(_) => "unknown_method",
        }
    }
}
