//! Loads the last run's share chain and creates its owner.

use sharechain::chain::{Sharechain, share_rules};
use sharechain::coin::Network;
use sharechain::share::{Share, ShareHash, ShareRules};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;
use tracing::{info, warn};

use super::{Config, Handle, OpenedStore, Owner, ParentFeed, StartError, ratchet_file};
use crate::chain::store::legacy;
use crate::chain::store::{Loaded, Store, StoredShare};

/// Loads the last run's share chain and prepares its owner. Takes a second for a full store; keep it off the event
/// loop.
///
/// # Errors
/// The store cannot be used. Mere damage in it is logged and left out.
pub fn load(config: &Config, parent: ParentFeed) -> Result<(Handle, Owner), StartError> {
    let (store, loaded) = Store::open(&config.data_dir)?;
    start(config, parent, Some(store), loaded)
}

/// Does the same beside another process that owns the store: nothing in it is changed, and nothing is kept on disk
/// until [`Handle::attach_store`].
///
/// # Errors
/// The store cannot be read.
pub fn load_read_only(config: &Config, parent: ParentFeed) -> Result<(Handle, Owner), StartError> {
    start(config, parent, None, Store::read_only(&config.data_dir)?)
}

fn start(
    config: &Config,
    parent: ParentFeed,
    store: Option<Store>,
    loaded: Loaded,
) -> Result<(Handle, Owner), StartError> {
    let started = Instant::now();
    let mut chain = Sharechain::new(config.network);
    let Stored { shares, verified } = read(loaded, chain.rules());
    let count = shares.len();
    for share in shares {
        let was_verified = verified.contains(&share.hash());
        chain.load(share, was_verified);
    }
    if chain.ratchet().is_some()
        && let Some(ratchet) = ratchet_file::load(&config.data_dir)
    {
        info!(state = %ratchet.state(), "share version of the last run");
        chain.set_ratchet(ratchet);
    }
    // An old node's shares are not in the store yet.
    let legacy = match &config.legacy {
        Some(folder) => load_legacy(folder, &mut chain)?,
        None => Vec::new(),
    };
    if count + legacy.len() > 0 {
        info!(shares = count, from_old_node = legacy.len(), took = ?started.elapsed(), "share chain loaded");
    }
    Owner::new(chain, store, parent, config)
}

/// Opens the store for a chain that is running already.
pub(super) fn open(data_dir: &Path, network: &'static Network) -> Result<OpenedStore, StartError> {
    let (store, loaded) = Store::open(data_dir)?;
    let Stored { shares, verified } = read(loaded, &share_rules(network));
    Ok(OpenedStore { store, shares, verified, ratchet: ratchet_file::load(data_dir) })
}

struct Stored {
    shares: Vec<Arc<Share>>,
    verified: HashSet<ShareHash>,
}

fn read(loaded: Loaded, rules: &ShareRules) -> Stored {
    for problem in &loaded.problems {
        warn!(%problem, "the share store is damaged");
    }
    Stored { shares: parse(&loaded.shares, rules), verified: loaded.verified.into_iter().collect() }
}

/// Parses stored shares on all cores: each costs a proof of work, which is scrypt on some coins. Shares that no longer
/// parse are left out.
fn parse(stored: &[StoredShare], rules: &ShareRules) -> Vec<Arc<Share>> {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let chunk = stored.len().div_ceil(cores).max(1);
    let parse_chunk = |chunk: &[StoredShare]| -> Vec<Arc<Share>> {
        let parsed = chunk.iter().filter_map(|one| match Share::from_bytes(&one.bytes, rules) {
            Ok(share) => Some(Arc::new(share)),
            Err(error) => {
                warn!(share = %one.hash, %error, "stored share left out");
                None
            }
        });
        parsed.collect()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = stored.chunks(chunk).map(|chunk| scope.spawn(move || parse_chunk(chunk))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("parsing does not panic")).collect()
    })
}

/// Imports an old node's shares and returns their hashes: our next shares build on them, and without them a start that
/// lacks the old folder would find missing ancestors.
fn load_legacy(folder: &Path, chain: &mut Sharechain) -> Result<Vec<ShareHash>, StartError> {
    let legacy = legacy::read(folder)?;
    for problem in &legacy.problems {
        warn!(%problem, "old node's share store");
    }
    let verified: HashSet<ShareHash> = legacy.verified.into_iter().collect();
    let mut added = Vec::new();
    for bytes in legacy.shares {
        match Share::from_bytes(&bytes, chain.rules()) {
            Ok(share) => {
                let hash = share.hash();
                if chain.load(Arc::new(share), verified.contains(&hash)) {
                    added.push(hash);
                }
            }
            Err(error) => warn!(%error, "old node's share left out"),
        }
    }
    Ok(added)
}
