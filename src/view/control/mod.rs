//! The control socket: what an operator asks a running node and tells it, as lines of JSON over a socket in its data
//! directory that only its own user can open.
//!
//! ```text
//! p2pool peers ── client ──▶ {"command":"peers"} ──▶ server ── p2p's status, p2p's commands
//!                        ◀── {"result":{"peers":[…],…}} or {"error":"…"}
//! ```

pub mod client;
pub mod overview;
pub mod server;
mod table;
pub mod words;

use bitcoin::BlockHash;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf, absolute};

/// How long an operator's ban lasts unless they say otherwise, in hours.
pub const BAN_HOURS: f64 = 24.0;

/// The longest ban, in hours: a hundred years.
pub const BAN_HOURS_MAX: f64 = 876_000.0;

/// A question or an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
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
    /// Who is connected.
    Peers,
    /// Who is kept away.
    Bans,
    /// Keep somebody away.
    Ban {
        /// Whom.
        address: IpAddr,
        /// For how long.
        #[serde(default = "ban_hours")]
        hours: f64,
        /// Why, for whoever reads the list.
        #[serde(default)]
        reason: String,
    },
    /// Let somebody in again.
    Unban {
        /// Whom.
        address: IpAddr,
    },
    /// Let everybody in again.
    UnbanAll,
}

fn ban_hours() -> f64 {
    BAN_HOURS
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What was asked for, or what was done.
    Result(Value),
    /// Why not, in words.
    Error(String),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_what_the_documentation_says() {
        let read = |value: Value| serde_json::from_value::<Request>(value);
        assert_eq!(read(json!({"command": "peers"})).unwrap(), Request::Peers);
        assert_eq!(read(json!({"command": "unban_all"})).unwrap(), Request::UnbanAll);
        let address = "192.0.2.1".parse().unwrap();
        let ban = read(json!({"command": "ban", "address": "192.0.2.1"})).unwrap();
        assert_eq!(ban, Request::Ban { address, hours: 24.0, reason: String::new() });
        let error = read(json!({"command": "unban"})).unwrap_err().to_string();
        assert!(error.contains("address"), "{error}");
        assert!(read(json!({"command": "stop"})).is_err());
    }

    #[test]
    fn answers_have_a_result_or_an_error() {
        assert_eq!(serde_json::to_value(Answer::Result(json!([]))).unwrap(), json!({"result": []}));
        assert_eq!(serde_json::to_value(Answer::Error("no".into())).unwrap(), json!({"error": "no"}));
    }
}
