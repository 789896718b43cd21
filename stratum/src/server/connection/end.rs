//! Reasons why connections end.

use std::io;
use thiserror::Error;

use crate::v1::line::LineTooLong;
use crate::v1::session::Disconnect;

/// Reason why a connection ended.
#[derive(Debug, Error)]
pub(in crate::server) enum End {
    #[error("closed by the miner")]
    Eof,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Line(#[from] LineTooLong),
    #[error("{0}")]
    Session(#[from] Disconnect),
    #[error("no work")]
    NoWork,
    #[error("timeout while writing")]
    Blocked,
    #[error("no free extranonce")]
    Extranonce,
    #[error("closed for another connection: nothing was credited on this one")]
    Evicted,
    #[error("server stopping")]
    Stopped,
}

impl End {
    pub(in crate::server) fn word(&self) -> &'static str {
        match self {
            Self::Eof => "eof",
            Self::Io(_) => "io",
            Self::Line(_) => "line_too_long",
            Self::Session(Disconnect::Malformed(_)) => "malformed",
            Self::Session(Disconnect::HandshakeTimeout) => "handshake_timeout",
            Self::Session(Disconnect::NoWork(_)) | Self::NoWork => "no_work",
            Self::Session(Disconnect::Flood) => "flood",
            Self::Session(Disconnect::Invalid) => "invalid",
            Self::Session(Disconnect::Refused) => "refused",
            Self::Session(Disconnect::Idle) => "idle",
            Self::Session(Disconnect::SmallDevice) => "small_device",
            Self::Blocked => "blocked",
            Self::Extranonce => "extranonce",
            Self::Evicted => "evicted",
            Self::Stopped => "stopped",
        }
    }
}
