//! Checks of the machine: data directory, disk space, limit of open files.

use rustix::fs::statvfs;
use std::path::Path;

use super::Check;
use crate::runtime::access::{Access, Problem};
use crate::runtime::sockets;

/// Free disk space, in bytes: below the first it is low, below the second the disk is full soon.
const FREE_LOW: u64 = 2_000_000_000;
const FREE_MIN: u64 = 200_000_000;

/// Checks the data directory, or the place to create it, who may read it, and its disk.
pub(super) fn data_dir(path: &Path, access: Access) -> Vec<Check> {
    let name = "data directory";
    let exists = path.is_dir();
    let Some(folder) = path.ancestors().map(or_here).find(|folder| folder.is_dir()) else {
        return vec![Check::bad(
            name,
            format!("{} cannot be created", path.display()),
            "choose another with --datadir",
        )];
    };
    let checked = match tempfile::tempfile_in(folder) {
        Ok(_) if exists => Check::ok(name, format!("{} is writable", path.display())),
        Ok(_) => Check::ok(name, format!("{} will be created", path.display())),
        Err(error) => Check::bad(
            name,
            format!("{} is not writable: {error}", folder.display()),
            "give the user that runs p2pool write access, or choose another with --datadir",
        ),
    };
    let open = access.problem(path).map(|Problem { text, mode, fix }| {
        Check::warning(name, format!("{text}: {} has mode {mode:o}", path.display()), fix)
    });
    [checked].into_iter().chain(open).chain([disk(folder)]).collect()
}

/// Replaces the empty last ancestor of a relative path, which is the working directory.
fn or_here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

fn disk(folder: &Path) -> Check {
    let name = "disk";
    match statvfs(folder) {
        Ok(disk) => room(name, disk.f_bavail.saturating_mul(disk.f_frsize)),
        Err(error) => Check::warning(name, format!("cannot read the free space: {error}"), "see df"),
    }
}

fn room(name: &'static str, free: u64) -> Check {
    let text = format!("{} MB free", free / 1_000_000);
    let advice = "free some space: shares, found blocks and the log take several hundred megabytes";
    match free {
        ..FREE_MIN => Check::bad(name, text, advice),
        FREE_MIN..FREE_LOW => Check::warning(name, text, advice),
        _ => Check::ok(name, text),
    }
}

/// Checks that the `needed` number of files may be open: the maximum number of connections, and the node's own.
pub(super) fn open_files(needed: u64) -> Check {
    let name = "open files";
    match sockets::raise_file_limit() {
        Ok(Some(files)) if files < needed => Check::warning(
            name,
            format!("the limit is {files}, and --max-connections needs {needed}"),
            "raise the limit (ulimit -n, LimitNOFILE= of systemd), or lower --max-connections",
        ),
        Ok(Some(files)) => Check::ok(name, format!("the limit is {files}, and at most {needed} are needed")),
        Ok(None) => Check::ok(name, "unlimited"),
        Err(error) => Check::warning(name, format!("the limit cannot be raised: {error}"), "see ulimit -n"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_that_can_be_made_is_fine_and_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a").join("b");
        let checks = data_dir(&deep, Access::Owner);
        assert_eq!(checks[0].state, State::Ok, "{checks:?}");
        assert!(checks[0].text.ends_with("will be created") && !deep.exists());
        assert_eq!(data_dir(folder.path(), Access::Owner)[0].text, format!("{} is writable", folder.path().display()));
        assert_eq!(data_dir(Path::new("relative-and-not-there"), Access::Owner)[0].state, State::Ok);
        assert!(data_dir(Path::new("/proc/1/p2pool"), Access::Owner)[0].state == State::Bad);
    }

    #[test]
    fn a_folder_that_the_group_should_read_and_cannot_is_a_warning_with_the_command() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let states = |access| data_dir(folder.path(), access).into_iter().map(|check| check.state).collect::<Vec<_>>();
        assert_eq!(states(Access::Owner).len(), 2);
        assert_eq!(states(Access::Group)[..2], [State::Ok, State::Warning]);
        assert!(data_dir(folder.path(), Access::Group)[1].advice.as_ref().unwrap().starts_with("chmod -R g=rX,o= "));
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
