//! Log of the last day: a record every five minutes (protocol section 13.2, `/web/log`), kept in the file `stats`.

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use stratum::Printable;

use crate::runtime::files;
use crate::view::snapshot::Snapshot;
use crate::view::snapshot::difficulty::hashes;

/// File name in the data directory.
const NAME: &str = "stats";

/// Seconds between records.
const INTERVAL: f64 = 300.0;

/// Seconds that a record is kept.
const KEPT: f64 = 86_400.0;

/// Number of records in that time.
const RECORDS_MAX: usize = 289;

/// Maximum size of a file that is read, in bytes.
const BYTES_MAX: u64 = 64 << 20;

/// Maximum number of workers in a record: those with the highest rates.
const WORKERS_MAX: usize = 1000;

/// Minimum height of the chain for a record.
const HEIGHT_MIN: u32 = 10;

/// Record of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Seconds since 1970.
    pub time: f64,
    /// Hashes per second of the pool, lost shares included.
    pub pool_hash_rate: f64,
    /// Lost part of the pool's hash rate, 0 to 1.
    pub pool_stale_prop: f64,
    /// Hashes per second of each worker.
    #[serde(deserialize_with = "by_printable_name")]
    pub local_hash_rates: BTreeMap<Arc<str>, f64>,
    /// Of these, hashes per second of late submissions.
    #[serde(deserialize_with = "by_printable_name")]
    pub local_dead_hash_rates: BTreeMap<Arc<str>, f64>,
    /// Shares that this node made since it started.
    pub shares: u32,
    /// Of these, lost ones.
    pub stale_shares: u32,
    /// Lost shares by cause.
    pub stale_shares_breakdown: Breakdown,
    /// Coins paid to the node's address if a block were found now.
    pub current_payout: f64,
    /// Connections to peers.
    pub peers: Peers,
    /// Average number of hashes per share.
    pub attempts_to_share: f64,
    /// Average number of hashes per block.
    pub attempts_to_block: f64,
    /// Value of a block in coins.
    pub block_value: f64,
}

/// Reads rates by worker: earlier versions and the old node wrote names as they came.
fn by_printable_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Arc<str>, f64>, D::Error> {
    let rates = BTreeMap::<String, f64>::deserialize(deserializer)?;
    Ok(rates.into_iter().map(|(name, rate)| (Printable::new(&name).shared().clone(), rate)).collect())
}

/// Lost shares by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breakdown {
    /// Orphans: another share was built on.
    pub orphan: u32,
    /// Dead on arrival: they came too late.
    pub doa: u32,
}

/// Connections by direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// Opened by peers.
    pub incoming: usize,
    /// Opened by this node.
    pub outgoing: usize,
}

/// Records of the last day, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Log(VecDeque<Arc<Record>>);

impl Log {
    pub(super) fn records(&self) -> Vec<Arc<Record>> {
        self.0.iter().cloned().collect()
    }

    /// Adds a record, if one is due.
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

    /// Reads the log in `dir`; empty if there is no file.
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

/// Makes a record; `None` while the chain is too short or there is no template.
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
