//! Loads the share chain, also while another process still owns it.

use std::path::PathBuf;
use tokio_util::sync::CancellationToken;
use tracing::error;

use sharechain::coin::Network;

use crate::runtime::data_dir::DataDir;
use crate::runtime::disk::DiskHealth;
use crate::runtime::tasks::Tasks;
use crate::{bitcoind, chain};

/// Loads the share chain, with the daemon as source of heights. Takes a second for a full store. While another process
/// owns `data_dir`, the store is only read; it is attached when the directory is taken over.
///
/// # Errors
/// The store cannot be used.
pub async fn load_sharechain(
    network: &'static Network,
    data_dir: &DataDir,
    legacy: Option<PathBuf>,
    daemon: &bitcoind::Handle,
    disk: &DiskHealth,
    tasks: &Tasks,
) -> Result<(chain::Handle, chain::Owner), chain::StartError> {
    let parent = chain::ParentFeed {
        wanted: daemon.heights.wanted.clone(),
        known: daemon.heights.known.clone(),
        templates: daemon.recent_templates.clone(),
    };
    let config = chain::Config { network, data_dir: data_dir.path().to_owned(), legacy, disk: disk.clone() };
    let is_ours = data_dir.is_ours();
    let load = if is_ours { chain::load } else { chain::load_read_only };
    let loading = tokio::task::spawn_blocking(move || load(&config, parent));
    let (handle, owner) = loading.await.expect("loading does not panic")?;
    if !is_ours {
        tasks.spawn("share store", attach_store(handle.clone(), data_dir.clone(), tasks.stop_signal()));
    }
    Ok((handle, owner))
}

/// Attaches the store once the data directory is ours.
async fn attach_store(sharechain: chain::Handle, data_dir: DataDir, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = data_dir.ours() => {}
    }
    if let Err(error) = sharechain.attach_store(data_dir.path()).await {
        error!(%error, "cannot attach the share store: shares are kept in memory only, until a restart");
    }
}
