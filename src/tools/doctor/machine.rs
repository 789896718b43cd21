//! What the machine must give a node: a folder with room, and files that may be open.

use rustix::fs::statvfs;
use std::path::Path;

use super::Check;
use crate::node::service::FILES_SPARE;
use crate::runtime::sockets;

/// Bytes below which a disk is nearly full, and below which shares cannot be kept for long.
const FREE_LOW: u64 = 2_000_000_000;
const FREE_MIN: u64 = 200_000_000;

/// The data directory, or where it would be made, and the disk that it is on.
pub(super) fn data_dir(path: &Path) -> Vec<Check> {
    let name = "data directory";
    let exists = path.is_dir();
    let Some(folder) = path.ancestors().map(or_here).find(|folder| folder.is_dir()) else {
        return vec![Check::bad(name, format!("{} cannot be made", path.display()), "give another with --datadir")];
    };
    let checked = match tempfile::tempfile_in(folder) {
        Ok(_) if exists => Check::ok(name, format!("{} can be written", path.display())),
        Ok(_) => Check::ok(name, format!("{} will be made", path.display())),
        Err(error) => Check::bad(
            name,
            format!("{} cannot be written: {error}", folder.display()),
            "give it to the user that runs p2pool, or give another with --datadir",
        ),
    };
    vec![checked, disk(folder)]
}

/// The last ancestor of a relative path is empty, and stands for the folder that the process is in.
fn or_here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

fn disk(folder: &Path) -> Check {
    let name = "disk";
    match statvfs(folder) {
        Ok(disk) => room(name, disk.f_bavail.saturating_mul(disk.f_frsize)),
        Err(error) => Check::warning(name, format!("how full it is cannot be told: {error}"), "see df"),
    }
}

fn room(name: &'static str, free: u64) -> Check {
    let text = format!("{} MB free", free / 1_000_000);
    let advice = "a node keeps shares, found blocks and a log: some hundred megabytes; make room";
    match free {
        ..FREE_MIN => Check::bad(name, text, advice),
        FREE_MIN..FREE_LOW => Check::warning(name, text, advice),
        _ => Check::ok(name, text),
    }
}

/// Whether as many files may be open as there may be miners.
pub(super) fn open_files(connections: u64) -> Check {
    let name = "open files";
    let needed = connections.saturating_add(FILES_SPARE);
    match sockets::raise_file_limit() {
        Ok(Some(files)) if files < needed => Check::warning(
            name,
            format!("{files} may be open, and --max-connections needs {needed}"),
            "raise the limit (ulimit -n, LimitNOFILE= of systemd), or lower --max-connections",
        ),
        Ok(Some(files)) => Check::ok(name, format!("{files} may be open, and {needed} are needed at most")),
        Ok(None) => Check::ok(name, "any number may be open"),
        Err(error) => Check::warning(name, format!("the limit cannot be raised: {error}"), "see ulimit -n"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_folder_that_can_be_made_is_fine_and_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a").join("b");
        let checks = data_dir(&deep);
        assert_eq!(checks[0].state, State::Ok, "{checks:?}");
        assert!(checks[0].text.ends_with("will be made") && !deep.exists());
        assert_eq!(data_dir(folder.path())[0].text, format!("{} can be written", folder.path().display()));
        assert_eq!(data_dir(Path::new("relative-and-not-there"))[0].state, State::Ok);
        assert!(data_dir(Path::new("/proc/1/p2pool"))[0].state == State::Bad);
    }

    #[test]
    fn disks_are_told_before_they_are_full() {
        let states = [0, FREE_MIN, FREE_LOW].map(|free| room("disk", free).state);
        assert_eq!(states, [State::Bad, State::Warning, State::Ok]);
    }

    #[test]
    fn more_miners_than_files_are_told() {
        assert_eq!(open_files(u64::MAX).state, State::Warning);
        assert_eq!(open_files(1).state, State::Ok);
    }
}
