//! The log of the last day: a record each five minutes (protocol section 13.2, `/web/log`), kept in the file `stats`.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::runtime::files;
use crate::view::snapshot::Snapshot;
use crate::view::snapshot::difficulty::hashes;

/// The file in the data directory.
const NAME: &str = "stats";

/// Seconds from one record to the next.
const INTERVAL: f64 = 300.0;

/// Seconds that a record is kept.
const KEPT: f64 = 86_400.0;

/// Records that fit into that time.
const RECORDS_MAX: usize = 289;

/// Largest file that is read, in bytes.
const BYTES_MAX: u64 = 64 << 20;

/// Workers that a record names: those of the highest rates.
const WORKERS_MAX: usize = 1000;

/// Shares that a chain must have before anything is noted.
const HEIGHT_MIN: u32 = 10;

/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Seconds since 1970.
    pub time: f64,
    /// Hashes per second of the pool, lost shares included.
    pub pool_hash_rate: f64,
    /// The part of them that was lost.
    pub pool_stale_prop: f64,
    /// Hashes per second of each worker.
    pub local_hash_rates: BTreeMap<Arc<str>, f64>,
    /// Of these, what came too late.
    pub local_dead_hash_rates: BTreeMap<Arc<str>, f64>,
    /// Shares that this node made since it started.
    pub shares: u32,
    /// Of these, those that were lost.
    pub stale_shares: u32,
    /// How they were lost.
    pub stale_shares_breakdown: Breakdown,
    /// Coins that the node's address would get if a block were found.
    pub current_payout: f64,
    /// Peers.
    pub peers: Peers,
    /// Hashes that a share takes on average.
    pub attempts_to_share: f64,
    /// Hashes that a block takes on average.
    pub attempts_to_block: f64,
    /// Coins that a block is worth.
    pub block_value: f64,
}

/// How shares were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breakdown {
    /// Another share was built on.
    pub orphan: u32,
    /// They came too late.
    pub doa: u32,
}

/// Connections, by who opened them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// Peers did.
    pub incoming: usize,
    /// We did.
    pub outgoing: usize,
}

/// The records of the last day, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Log(VecDeque<Arc<Record>>);

impl Log {
    pub(super) fn records(&self) -> Vec<Arc<Record>> {
        self.0.iter().cloned().collect()
    }

    /// Notes how things stand, if it is time to.
    pub(super) fn note(&mut self, snapshot: &Snapshot, now: f64) {
        if self.0.back().is_some_and(|last| (0.0..INTERVAL).contains(&(now - last.time))) {
            return;
        }
        let Some(record) = record(snapshot, now) else { return };
        self.0.push_back(Arc::new(record));
        while self.0.front().is_some_and(|first| first.time < now - KEPT) {
            self.0.pop_front();
        }
    }

    /// What is kept in `dir`; nothing if there is no such file.
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        let file = match File::open(dir.join(NAME)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut text)?;
        let records: Vec<Arc<Record>> = serde_json::from_slice(&text)?;
        let skipped = records.len().saturating_sub(RECORDS_MAX);
        Ok(Self(records.into_iter().skip(skipped).collect()))
    }

    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        files::replace(&dir.join(NAME), |file| Ok(serde_json::to_writer(file, &self.0)?))
    }
}

/// How things stand; none while the chain is too short to tell or there is no template.
fn record(snapshot: &Snapshot, now: f64) -> Option<Record> {
    let (pool, block) = (snapshot.pool.as_ref()?, snapshot.block.as_ref()?);
    if snapshot.chain.height < HEIGHT_MIN {
        return None;
    }
    let mut workers: Vec<_> = snapshot.rates.workers.iter().filter(|(_, done)| done.hash_rate > 0.0).collect();
    workers.sort_by(|one, other| other.1.hash_rate.total_cmp(&one.1.hash_rate));
    workers.truncate(WORKERS_MAX);
    let late = workers.iter().filter(|(_, done)| done.late_hash_rate > 0.0);
    Some(Record {
        time: now,
        pool_hash_rate: pool.hour.hash_rate,
        pool_stale_prop: pool.hour.stale_proportion,
        local_dead_hash_rates: late.map(|(name, done)| ((*name).clone(), done.late_hash_rate)).collect(),
        local_hash_rates: workers.iter().map(|(name, done)| ((*name).clone(), done.hash_rate)).collect(),
        shares: snapshot.local.shares,
        stale_shares: snapshot.local.orphan + snapshot.local.dead,
        stale_shares_breakdown: Breakdown { orphan: snapshot.local.orphan, doa: snapshot.local.dead },
        current_payout: snapshot.local.payout as f64 / 1e8,
        peers: Peers { incoming: snapshot.peers.incoming, outgoing: snapshot.peers.outgoing },
        attempts_to_share: hashes(pool.attempts_to_share),
        attempts_to_block: hashes(block.attempts),
        block_value: block.value as f64 / 1e8,
    })
}
