//! Answers that the control socket alone gives. Where `/api/v1` has the same facts, they are its types, made where it makes
//! them.

use bitcoin::BlockHash;
use serde::{Deserialize, Serialize};

use crate::blocks::Outcome;
use crate::view::http;
use crate::view::http::api::{Blocks, Peers, Shares, Summary, Workers};
use crate::view::snapshot::Snapshot;

/// Rows of each list of [`Overview`]: more than fit on a screen.
const WORKERS_MAX: usize = 200;
const GENERATIONS_MAX: u32 = 60;
const BLOCKS_MAX: usize = 60;
pub(super) const LOG_LINES_MAX: usize = 100;

/// The node in short.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The process that answers.
    pub pid: u32,
    /// The warning that our clock is wrong, which stands among the others as well.
    pub clock: Option<String>,
    /// As in `/api/v1/summary`.
    pub summary: Summary,
}

/// The node on one page, each part as `/api/v1` has it. Bounded, however much there is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// As in `/api/v1/summary`.
    pub summary: Summary,
    /// As in `/api/v1/workers`.
    pub workers: Workers,
    /// As in `/api/v1/shares`.
    pub shares: Shares,
    /// As in `/api/v1/peers`.
    pub peers: Peers,
    /// As in `/api/v1/blocks`.
    pub blocks: Blocks,
    /// The log's last lines, the oldest first.
    pub log: Vec<String>,
}

/// A block submitted again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resubmitted {
    /// Its hash.
    pub hash: BlockHash,
    /// Each route's latest outcome, as far as there is one.
    pub routes: Vec<Attempt>,
    /// The final word on the block, if there is one.
    pub verdict: Option<Outcome>,
}

/// One route's latest outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// `rpc`, `p2p` or `embedded`.
    pub route: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Bans lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unbanned {
    /// Their number.
    pub unbanned: u64,
}

impl Status {
    /// As of `snapshot`.
    pub(super) fn of(snapshot: &Snapshot, sources: &http::Sources) -> Self {
        Self { pid: std::process::id(), clock: snapshot.clock.clone(), summary: Summary::of(snapshot, sources) }
    }
}

impl Overview {
    /// As of `snapshot`, with these lines of the log.
    pub(super) fn of(snapshot: &Snapshot, sources: &http::Sources, log: Vec<String>) -> Self {
        Self {
            summary: Summary::of(snapshot, sources),
            workers: Workers::of(snapshot, &(sources.small_devices.0)(), WORKERS_MAX),
            shares: Shares::of(&snapshot.chain, GENERATIONS_MAX),
            peers: Peers::of(&snapshot.peers),
            blocks: Blocks::of(snapshot, &sources.found.borrow(), BLOCKS_MAX),
            log,
        }
    }
}
