//! The control socket: opened in the data directory, served to the users that may read there.

use axum::Router;
use std::fs::{self, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::{socket_path, with_short_path};
use crate::runtime::accept::Acceptor;
use crate::runtime::access::Access;
use crate::runtime::data_dir::DataDir;
use crate::view::http::Http;

/// Maximum number of open connections.
const CONNECTIONS_MAX: usize = 16;

/// Maximum lifetime of a connection: it ends those whose client no longer reads.
const CONNECTION_MAX: Duration = Duration::from_secs(600);

/// Grace period for pending answers at a stop.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// Client address of every connection.
const THIS_MACHINE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Serves `router` until `stop`, once this process owns `data_dir`. A node works without a control socket, so errors
/// are only logged.
pub async fn run(router: Router, data_dir: DataDir, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = data_dir.ours() => {}
    }
    let listener = match bind(data_dir.path(), data_dir.access()) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, "no control socket: `p2pool peers` and the like will not work");
            return;
        }
    };
    let http = Http::new(router, stop.clone());
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let welcome = |stream, (), place| {
        connections.spawn(serve(http.clone(), stream, place, stop.clone()));
    };
    // Further connections wait in the kernel's queue.
    Acceptor::new(listener, "operators").run_within(places, stop.clone(), welcome).await;
    // No other process writes here while the directory is ours.
    let _ = fs::remove_file(socket_path(data_dir.path()));
    connections.close();
    connections.wait().await;
}

/// Serves one connection until it ends, or for `CONNECTION_MAX` at most.
async fn serve(http: Http, stream: UnixStream, _place: OwnedSemaphorePermit, stop: CancellationToken) {
    let last_answers = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    tokio::select! {
        () = http.serve(stream, THIS_MACHINE) => {}
        () = tokio::time::sleep(CONNECTION_MAX) => {}
        () = last_answers => {}
    }
}

/// Opens the socket in `data_dir`, replacing one that an earlier run left. It is never accessible to users without
/// `access`, not even for a moment.
fn bind(data_dir: &Path, access: Access) -> io::Result<UnixListener> {
    let owner_alone = Permissions::from_mode(0o700);
    let private = tempfile::Builder::new().prefix(".control-").permissions(owner_alone).tempdir_in(data_dir)?;
    let path = private.path().join("new");
    let listener = with_short_path(&path, |path| UnixListener::bind(path))?;
    fs::set_permissions(&path, Permissions::from_mode(access.socket_mode()))?;
    fs::rename(&path, socket_path(data_dir))?;
    Ok(listener)
}
