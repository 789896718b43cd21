//! Users that may read what the node writes: the one that runs it, or its group as well.

use rustix::fs::Mode;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Users that may read the node's files, and use its control socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// The user that runs the node.
    #[default]
    Owner,
    /// Also the users of its group, or of the group that a folder with the set-group-ID bit gives to its files.
    Group,
}

impl Access {
    /// Sets the process's file mode creation mask, whatever it inherited: every file and folder that it makes from now
    /// on, rotated and replaced ones too, is closed to all others. To be called before any is made.
    pub fn apply(self) {
        rustix::process::umask(Mode::from_bits_truncate(0o777 & !self.folder_mode()));
    }

    /// Mode of new folders.
    pub fn folder_mode(self) -> u32 {
        match self {
            Self::Owner => 0o700,
            Self::Group => 0o750,
        }
    }

    /// Mode of the control socket. To connect is to write.
    pub fn socket_mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o660,
        }
    }

    /// Returns what is wrong with the mode of the file or folder at `path`; `None` also if that cannot be read. The
    /// operator may have chosen it, so it is never changed.
    pub fn problem(self, path: &Path) -> Option<Problem> {
        let data = fs::metadata(path).ok().filter(|data| data.is_dir() || data.is_file())?;
        let mode = data.permissions().mode() & 0o777;
        let of_others = mode & 0o077;
        let wanted = self.folder_mode() & if data.is_dir() { 0o077 } else { 0o044 };
        let text = if of_others & !wanted != 0 {
            "other users can read what the node writes"
        } else if of_others != wanted {
            "the group cannot read what the node writes"
        } else {
            return None;
        };
        let change = match self {
            Self::Owner => "go=",
            Self::Group => "g=rX,o=",
        };
        Some(Problem { text, mode, fix: format!("chmod -R {change} {}", path.display()) })
    }
}

/// A mode that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Sentence for the log.
    pub text: &'static str,
    /// Permissions as they are.
    pub mode: u32,
    /// Command that corrects them.
    pub fix: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    #[test]
    fn a_mode_that_is_too_wide_or_too_narrow_is_reported_with_the_command_that_corrects_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        fs::write(&file, "").unwrap();
        let problem = |access: Access, path: &Path, mode: u32| {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            let problem = access.problem(path);
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, mode, "it is never changed");
            problem.map(|problem| (problem.text.split(' ').next().unwrap(), problem.fix))
        };
        let (shown, shown_file) = (folder.path().display().to_string(), file.display().to_string());
        for (access, mode, found) in [
            (Access::Owner, 0o700, None),
            (Access::Owner, 0o755, Some(("other", format!("chmod -R go= {shown}")))),
            (Access::Owner, 0o750, Some(("other", format!("chmod -R go= {shown}")))),
            (Access::Owner, 0o701, Some(("other", format!("chmod -R go= {shown}")))),
            (Access::Group, 0o2750, None),
            (Access::Group, 0o755, Some(("other", format!("chmod -R g=rX,o= {shown}")))),
            (Access::Group, 0o770, Some(("other", format!("chmod -R g=rX,o= {shown}")))),
            (Access::Group, 0o700, Some(("the", format!("chmod -R g=rX,o= {shown}")))),
        ] {
            assert_eq!(problem(access, folder.path(), mode), found, "{access:?} {mode:o}");
        }
        for (access, mode, found) in [
            (Access::Owner, 0o600, None),
            (Access::Owner, 0o644, Some(("other", format!("chmod -R go= {shown_file}")))),
            (Access::Group, 0o640, None),
            (Access::Group, 0o600, Some(("the", format!("chmod -R g=rX,o= {shown_file}")))),
        ] {
            assert_eq!(problem(access, &file, mode), found, "{access:?} {mode:o}");
        }
        assert_eq!(Access::Owner.problem(Path::new("/dev/null")), None, "a device is not ours");
    }
}
