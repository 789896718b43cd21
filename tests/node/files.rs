//! Files of a node: who may read them, whatever mask it inherited.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use test_support::{Bitcoind, NodeBuilder, StratumClient, payout_address, wait_until};

use crate::{P2POOL, mine_one, miner_name};

const SOON: Duration = Duration::from_secs(20);

/// Everything below `folder`, itself included, with its kind and its permissions.
fn modes(folder: &Path) -> Vec<(PathBuf, fs::FileType, u32)> {
    let data = fs::symlink_metadata(folder).expect("it is there");
    let mut found = vec![(folder.to_owned(), data.file_type(), data.permissions().mode() & 0o777)];
    if data.is_dir() {
        for entry in fs::read_dir(folder).expect("it can be listed") {
            found.extend(modes(&entry.expect("it can be listed").path()));
        }
    }
    found
}

#[test]
fn what_a_node_writes_is_readable_for_its_user_and_with_the_option_for_its_group_whatever_the_umask() {
    for (mask, args, folder_mode, file_mode, socket_mode) in
        [("000", &[][..], 0o700, 0o600, 0o600), ("077", &["--datadir-group-access"], 0o750, 0o640, 0o660)]
    {
        let daemon = Bitcoind::start();
        let script = format!("umask {mask}; exec \"$@\"");
        let options = NodeBuilder::new(P2POOL, &daemon).wrapped(&["sh", "-c", &script, "sh"]);
        let mut node = options.args(args).args(&["--debug", "--log-size", "0.002", "--log-files", "2"]).start();
        let user = miner_name(1);
        let mut miner = StratumClient::ready(node.worker_port(), &user);
        mine_one(&mut miner, &user, &daemon, &node, &payout_address(1));
        let folder = node.data_dir().join("bitcoin_regtest");
        wait_until("the log is rotated and the socket open", SOON, || {
            folder.join("log.1").exists() && folder.join("control").exists()
        });
        let running = modes(&folder);
        node.terminate();
        let mut names = Vec::new();
        for (path, kind, mode) in running.into_iter().chain(modes(&folder)) {
            let wanted = match kind {
                kind if kind.is_dir() => folder_mode,
                kind if kind.is_socket() => socket_mode,
                _ => file_mode,
            };
            assert_eq!(mode, wanted, "{}: {mode:o}, not {wanted:o}, with umask {mask}", path.display());
            names.extend(path.strip_prefix(&folder).expect("below").to_str().map(str::to_owned));
        }
        for name in ["", "lock", "log", "log.1", "control", "shares", "found_blocks", "addrs", "graph_db"] {
            assert!(names.iter().any(|found| found == name), "{name} is missing in {names:?}");
        }
        assert!(!node.log().contains("chmod"), "{}", node.log());
    }
}

#[test]
fn a_data_directory_that_others_can_read_is_reported_with_the_command_that_closes_it_and_left_as_it_is() {
    let daemon = Bitcoind::start();
    let outer = tempfile::tempdir().expect("a folder");
    let folder = outer.path().join("bitcoin_regtest");
    fs::create_dir(&folder).expect("it is new");
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("it is ours");
    let node = NodeBuilder::new(P2POOL, &daemon).spawn_in(outer);
    let line = node.wait_for_log("other users can read what the node writes", SOON);
    assert!(line.contains(&format!("chmod -R go= {}", folder.display())) && line.contains("755"), "{line}");
    node.wait_ready();
    assert_eq!(fs::metadata(&folder).expect("it is there").permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::metadata(folder.join("log")).expect("it is there").permissions().mode() & 0o777, 0o600);
}
