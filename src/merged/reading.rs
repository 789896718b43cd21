//! State of one chain as its poll task left it.

use std::sync::Arc;
use tokio::time::Instant;

use super::Mode;
use super::offers::Offer;
use crate::runtime::clock::unix_now;

/// A moment, by the clock that never jumps and by the one that people read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moment {
    pub(super) at: Instant,
    /// Seconds since 1970.
    pub(super) unix: f64,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { at: Instant::now(), unix: unix_now() }
    }
}

/// Failure of the last call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Kind, which decides if it is news for the log.
    pub(super) word: &'static str,
    /// Sentence for people.
    pub(super) text: Arc<str>,
    /// Set if the daemon's work cannot be used, so that its last is worthless, too.
    pub(super) is_refusal: bool,
}

/// What is known of a chain.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    /// Start of the poll task.
    pub(super) started: Instant,
    /// User agent, printable; empty until known.
    pub(super) version: Arc<str>,
    /// `None` until its daemon gave work.
    pub(super) mode: Option<Mode>,
    /// Number of the chain, as of the last good answer.
    pub(super) chain_id: Option<u32>,
    /// Next block, as of the last good answer.
    pub(super) offer: Option<Offer>,
    /// Time of the first answer with this block, or with this parent of a block that the node makes, in seconds since
    /// 1970.
    pub(super) offer_since: Option<f64>,
    /// Time of the last good answer.
    pub(super) answered: Option<Moment>,
    /// Set if the last call failed.
    pub(super) failure: Option<Failure>,
    /// Failed calls since the start.
    pub(super) failures: u64,
    /// Reason why the blocks do not pay the miners, although the share chain would have it.
    pub(super) unpaid: Option<Arc<str>>,
}

impl Reading {
    /// State before the first call.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            version: Arc::default(),
            mode: None,
            chain_id: None,
            offer: None,
            offer_since: None,
            answered: None,
            failure: None,
            failures: 0,
            unpaid: None,
        }
    }
}
