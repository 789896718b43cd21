//! The control socket: what an operator asks a running node and orders it to do, over HTTP on a socket in its data directory
//! that only its own user can open. It serves what everyone may read as well, with `/api/v1`'s types for the same facts.
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

/// How long an operator's ban lasts unless they say otherwise, in hours.
pub const BAN_HOURS: f64 = 24.0;

/// The longest ban, in hours: a hundred years.
pub const BAN_HOURS_MAX: f64 = 876_000.0;

/// A question or an order.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// How the node is.
    Status,
    /// The node on one page.
    Overview,
    /// What the next block pays.
    Payouts,
    /// Found blocks, and what became of them.
    Blocks,
    /// Submit a block again whose bytes are kept.
    Resubmit {
        /// The block's hash.
        hash: BlockHash,
    },
    /// Connected peers.
    Peers,
    /// Banned addresses.
    Bans,
    /// Ban an address.
    Ban {
        /// The address.
        address: IpAddr,
        /// For how long.
        hours: f64,
        /// Why, for readers of the list.
        reason: String,
    },
    /// Lift a ban.
    Unban {
        /// The address.
        address: IpAddr,
    },
    /// Lift every ban.
    UnbanAll,
}

/// The body of an order to ban an address.
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

/// Where the socket of a node on `data_dir` is.
fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("control")
}

/// Longest path that every system takes as a socket's address, in bytes: macOS has room for 103, Linux for 107.
const PATH_BYTES_MAX: usize = 100;

/// Calls `use_path` with `path`, or with a short one that leads to the same place through a link, which is gone afterwards.
fn with_short_path<T>(path: &Path, use_path: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return use_path(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return use_path(path) };
    // Checked here, as a link to nowhere would be told as an error of its own.
    fs::metadata(folder)?;
    let links = tempfile::tempdir()?;
    let link = links.path().join("d");
    std::os::unix::fs::symlink(absolute(folder)?, &link)?;
    use_path(&link.join(name))
}
