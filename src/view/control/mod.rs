//! The control socket: queries and commands of the operator to a running node, over HTTP on a socket in its data
//! directory that only its own user can open. It also serves the public paths, and shares `/api/v1`'s types.
//!
//! ```text
//! p2pool peers ── client ──▶ GET /control/v1/peers ──▶ routes ── p2p's status, p2p's commands
//!       table ◀──────── {"peers":[…],…} or a problem ◀──┘
//! ```

pub mod answers;
pub mod client;
mod old_node;
pub mod routes;
pub mod server;
mod table;
#[cfg(test)]
mod tests;
pub mod words;

use bitcoin::BlockHash;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf, absolute};

/// Default duration of an operator's ban, in hours.
pub const BAN_HOURS: f64 = 24.0;

/// Maximum duration of a ban, in hours: a hundred years.
pub const BAN_HOURS_MAX: f64 = 876_000.0;

/// A query or command.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// State of the node in short.
    Status,
    /// State of the node on one page.
    Overview,
    /// Payouts of the next block.
    Payouts,
    /// Found blocks and their states.
    Blocks,
    /// Merged chains, and their found blocks.
    Merged,
    /// Submits a block again whose bytes are kept.
    Resubmit { hash: BlockHash },
    /// Connected peers.
    Peers,
    /// Banned addresses.
    Bans,
    /// Bans an address.
    Ban {
        address: IpAddr,
        /// Duration of the ban, in hours.
        hours: f64,
        /// Reason, as shown in the list of bans.
        reason: String,
    },
    /// Lifts a ban.
    Unban { address: IpAddr },
    /// Lifts every ban.
    UnbanAll,
}

/// Body of a request to ban an address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BanOrder {
    address: IpAddr,
    #[serde(default = "ban_hours")]
    hours: f64,
    #[serde(default)]
    reason: String,
}

fn ban_hours() -> f64 {
    BAN_HOURS
}

/// Returns the path of the socket of a node on `data_dir`.
fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("control")
}

/// Maximum length of a socket's path on every system, in bytes: macOS allows 103, Linux 107.
const PATH_BYTES_MAX: usize = 100;

/// Calls `use_path` with `path`, or with a shorter path to the same file through a temporary symbolic link.
fn with_short_path<T>(path: &Path, use_path: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return use_path(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return use_path(path) };
    // Checked here, as a dangling link would give a different error.
    fs::metadata(folder)?;
    let links = tempfile::tempdir()?;
    let link = links.path().join("d");
    std::os::unix::fs::symlink(absolute(folder)?, &link)?;
    use_path(&link.join(name))
}
