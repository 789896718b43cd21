//! One chain's found blocks from their submission to their maturity: starts the parts, and connects them.

use std::fmt;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, watch};

use super::found::{self, Event, FoundBlocks};
use super::journal::{Journal, JournalError};
use super::submit::{self, Resubmitter};
use super::{Chain, Explorer, FoundBlock, NextBlock, Reports, Route};
use crate::runtime::data_dir::DataDir;
use crate::runtime::disk::DiskHealth;
use crate::runtime::tasks::Tasks;

/// Inputs for keeping a chain's found blocks.
pub struct Inputs {
    pub chain: Arc<Chain>,
    pub data_dir: DataDir,
    pub disk: DiskHealth,
    /// Routes to the chain's daemon. Blocks that earlier runs hold for rejected use only the first, whose answers are
    /// the daemon's own.
    pub routes: Vec<Arc<dyn Route>>,
    /// Looks up positions of blocks.
    pub explorer: Arc<dyn Explorer>,
    /// Position of the next block in the daemon's chain; `None` while unknown.
    pub next_block: watch::Receiver<Option<NextBlock>>,
    /// Events of the blocks; chains share it.
    pub events: broadcast::Sender<Event>,
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inputs({:?})", self.chain)
    }
}

/// Handle to a chain's found blocks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub chain: Arc<Chain>,
    /// Queue of found blocks. The sender waits when it is full; nothing is dropped. Submission ends when the last
    /// sender is dropped, so a stopping node drops its handles first.
    pub blocks: mpsc::Sender<FoundBlock>,
    /// Resubmits a kept block.
    pub resubmitter: Resubmitter,
    /// Reports on each block: attempts by route, and verdicts.
    pub reports: Reports,
    /// Records of the blocks.
    pub found: watch::Receiver<Arc<FoundBlocks>>,
}

/// Starts submitting a chain's found blocks, those that an earlier run left in its journal first, and following them.
///
/// # Errors
/// The folder of the journal cannot be created.
pub fn keep(tasks: &Tasks, inputs: Inputs) -> Result<Handle, JournalError> {
    let Inputs { chain, data_dir, disk, routes, explorer, next_block, events } = inputs;
    chain.register();
    let journal = Journal::open(chain.clone(), &data_dir, disk.clone())?;
    let submitting = submit::Inputs { journal, routes, next_block: next_block.clone() };
    let submit::Handle { blocks, resubmitter, reports } = submit::start(tasks, submitting);
    // Without the parent chain's peers there are none.
    let (_, sightings) = mpsc::channel(1);
    let following = found::Inputs {
        chain: chain.clone(),
        data_dir,
        reports: reports.from_the_start(),
        sightings,
        next_block,
        explorer,
        resubmitter: resubmitter.clone(),
        disk,
        events,
    };
    let found = found::start(tasks, following);
    Ok(Handle { chain, blocks, resubmitter, reports, found })
}

#[cfg(test)]
mod tests;
