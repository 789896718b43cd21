//! What people see of a merged chain.

use serde::Serialize;
use std::sync::Arc;

/// Condition of one merged chain.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChainStatus {
    /// Name, as configured.
    pub name: Arc<str>,
    /// Chain number; `None` until its daemon answered.
    pub chain_id: Option<u32>,
    /// Address and port of its daemon's RPC, never with credentials.
    pub daemon: Arc<str>,
    /// User agent of its daemon, printable; empty until known.
    pub version: Arc<str>,
    /// How work is asked for; `None` until probed.
    pub mode: Option<Mode>,
    /// Payee of its blocks, for display: `the miners`, or the configured address or `the daemon's wallet`, of which miners
    /// get nothing.
    pub payee: Arc<str>,
    /// What is mined now.
    pub state: State,
    /// Height of the block being mined.
    pub height: Option<u32>,
    /// Difficulty (bdiff) of the target being mined for; `None` without work, or if the share's target is used.
    pub difficulty: Option<f64>,
    /// What the block pays, in the chain's base units, if its daemon says so.
    pub value: Option<u64>,
    /// Time of the daemon's last good answer, in seconds since 1970.
    pub answered_at: Option<f64>,
    /// Time at which the work in use was new, in seconds since 1970.
    pub work_since: Option<f64>,
    /// Failed calls since the start.
    pub failures: u64,
    /// Last failure while it lasts, or a warning about its work (a target so easy that it is not fully used), for people.
    pub trouble: Option<Arc<str>>,
}

/// How work of a chain is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// `createauxblock` with the operator's address, `submitauxblock`.
    Address,
    /// `getauxblock`: the daemon's wallet is paid.
    Wallet,
    /// `getblocktemplate`, `submitblock`: the node makes the blocks, and they pay the share chain's miners.
    Payouts,
}

impl Mode {
    /// Label for pages and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Wallet => "wallet",
            Self::Payouts => "payouts",
        }
    }
}

/// What is mined of a chain now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its daemon has not given any work yet.
    Starting,
    /// The daemon's newest work.
    Mining,
    /// The daemon's last work: it does not answer at the moment.
    Waiting,
    /// Nothing: the daemon has been silent too long, or its work cannot be used.
    LeftOut,
}

impl State {
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Mining, Self::Waiting, Self::LeftOut];

    /// Label for pages, metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Mining => "mining",
            Self::Waiting => "waiting",
            Self::LeftOut => "left_out",
        }
    }
}
