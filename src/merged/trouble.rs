//! Reasons why a daemon gives no work that can be mined, in words that say what to do.

use sharechain::merged::DOGECOIN;
use std::time::Duration;
use stratum::Printable;
use thiserror::Error;

use super::answer::AnswerError;
use crate::bitcoind::rpc::{RpcError, code};

/// Codes of errors about the daemon's wallet: a general one, no key left, locked, none loaded, several loaded.
const WALLET_CODES: [i32; 5] = [-4, -12, -13, code::NO_WALLET, -19];

/// Method that gives templates.
pub(super) const TEMPLATE: &str = "getblocktemplate";

/// Longest delay before the next try.
pub(super) const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Reason why a daemon gives no usable work.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Trouble {
    /// `createauxblock` is missing, so the configured address cannot be paid.
    #[error(
        "the daemon has no createauxblock, so it cannot pay {address}, and its wallet is not paid instead: update the \
         daemon, or remove the address to have its wallet paid"
    )]
    NoCreate {
        /// The configured address.
        address: Printable,
    },
    /// `getauxblock` is missing.
    #[error(
        "the daemon has no getauxblock: it is no daemon of a merged-mined chain, or has no wallet; with an address none is \
         needed"
    )]
    NoGet,
    /// The daemon refuses the address.
    #[error("the daemon does not pay {address} ({message}): give an address of its own chain")]
    Address {
        /// The configured address.
        address: Printable,
        /// The daemon's words.
        message: String,
    },
    /// The daemon's wallet gives no address to pay.
    #[error(
        "the daemon's wallet cannot be paid ({message}): unlock or load it, name it in the URL (/wallet/NAME), or give an \
         address"
    )]
    Wallet {
        /// The daemon's words.
        message: String,
    },
    /// The daemon is starting.
    #[error("the daemon is warming up: {0}")]
    WarmingUp(String),
    /// The daemon downloads its chain.
    #[error("the daemon is still syncing: {0}")]
    Syncing(String),
    /// The daemon has no peer that would pass a block on.
    #[error("the daemon has no peers: {0}")]
    NoPeers(String),
    /// The answer cannot be used.
    #[error("the daemon's answer to {method} cannot be used: {reason}")]
    Answer {
        /// Method of the call.
        method: &'static str,
        /// Cause.
        reason: AnswerError,
    },
    /// The chain number is another than a moment ago.
    #[error("the daemon's chain number was {before} and is {now}: is there a daemon of another chain now?")]
    OtherChain {
        /// Number before.
        before: u32,
        /// Number now.
        now: u32,
    },
    /// The daemon gives no templates.
    #[error(
        "the daemon gives no templates that the node could make blocks of ({message}), so they cannot pay the miners"
    )]
    NoTemplates {
        /// The daemon's words.
        message: String,
    },
    /// The templates are of a chain that cannot pay the miners.
    #[error("the daemon's chain has the number {0}: only blocks of Dogecoin, {DOGECOIN}, can pay the miners")]
    NotDogecoin(u32),
    /// The share chain says nothing of payouts on merged chains yet.
    #[error("no share of version 36 is there yet, by which merged blocks can pay the miners")]
    NoPayoutsYet,
    /// Any other error of a call.
    #[error(transparent)]
    Rpc(RpcError),
}

impl Trouble {
    /// Classifies the error of a call that asked for work, for the payee `address`, or for the wallet.
    pub(super) fn of(error: RpcError, address: Option<&str>) -> Self {
        let RpcError::Daemon { code, message, .. } = &error else { return Self::Rpc(error) };
        let message = message.clone();
        match (*code, address.map(Printable::new)) {
            (code::WARMING_UP, _) => Self::WarmingUp(message),
            (code::INITIAL_DOWNLOAD, _) => Self::Syncing(message),
            (code::NOT_CONNECTED, _) => Self::NoPeers(message),
            (code::NO_METHOD, Some(address)) => Self::NoCreate { address },
            (code::NO_METHOD, None) => Self::NoGet,
            (code::NOT_FOUND, Some(address)) => Self::Address { address, message },
            (code, None) if WALLET_CODES.contains(&code) => Self::Wallet { message },
            _ => Self::Rpc(error),
        }
    }

    /// Classifies the error of a call for a template.
    pub(super) fn of_template(error: RpcError) -> Self {
        match &error {
            // An argument is missing: a rule that miners of the chain must know.
            RpcError::Daemon { code: code::NO_METHOD | code::INVALID_PARAMETER, message, .. } => {
                Self::NoTemplates { message: message.clone() }
            }
            RpcError::Malformed { .. } => Self::NoTemplates { message: error.to_string() },
            // Not about a payee, which there is none of.
            _ => Self::of(error, None),
        }
    }

    /// True if the daemon's templates are of no use, while its own blocks may be.
    pub(super) fn is_about_templates(&self) -> bool {
        matches!(self, Self::NoTemplates { .. } | Self::NotDogecoin(_) | Self::Answer { method: TEMPLATE, .. })
    }

    /// Kind, for the log: another message of the same kind is no news.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoCreate { .. } => "no_createauxblock",
            Self::NoGet => "no_getauxblock",
            Self::Address { .. } => "address",
            Self::Wallet { .. } => "wallet",
            Self::WarmingUp(_) => "warming_up",
            Self::Syncing(_) => "syncing",
            Self::NoPeers(_) => "no_peers",
            Self::Answer { .. } => "answer",
            Self::OtherChain { .. } => "other_chain",
            Self::NoTemplates { .. } => "no_templates",
            Self::NotDogecoin(_) => "not_dogecoin",
            Self::NoPayoutsYet => "no_payouts_yet",
            Self::Rpc(error) => error.kind(),
        }
    }

    /// True if the daemon answered, but not with work that can be mined: what it gave before is out of date. False if it
    /// is silent, or says that it cannot answer now.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NoCreate { .. }
            | Self::NoGet
            | Self::Address { .. }
            | Self::Answer { .. }
            | Self::OtherChain { .. }
            | Self::NoTemplates { .. }
            | Self::NotDogecoin(_)
            | Self::NoPayoutsYet
            | Self::Rpc(RpcError::Malformed { .. }) => true,
            Self::Wallet { .. } | Self::WarmingUp(_) | Self::Syncing(_) | Self::NoPeers(_) | Self::Rpc(_) => false,
        }
    }

    /// Delay before the next try, usually `backoff`. A daemon whose chain changes all the time changes
    /// the miners' jobs only this often.
    pub(super) fn delay(&self, backoff: Duration) -> Duration {
        if matches!(self, Self::OtherChain { .. }) { RETRY_LONGEST } else { backoff }
    }
}
