//! The log file: rotated when it is full, reopened on request.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::Output;

#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// Maximum size, in bytes; 0 for no limit.
    size_max: u64,
    /// Number of older files to keep: `PATH.1` (the latest), `PATH.2` and so on.
    kept: u32,
    open: Open,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
    /// Devices and pipes have no size, and must not be renamed.
    is_regular: bool,
}

impl LogFile {
    /// Opens the file at `path` for appending. It may be a named pipe, with or without a reader.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(path: &Path, size_max: u64, kept: u32) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), size_max, kept, open: open(path)? })
    }

    fn replace(&self) -> io::Result<Open> {
        let numbered = |number: u32| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        if self.kept == 0 {
            fs::remove_file(&self.path)?;
            return open(&self.path);
        }
        for number in (1..self.kept).rev() {
            match fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, numbered(1))?;
        open(&self.path)
    }
}

fn open(path: &Path) -> io::Result<Open> {
    // Opening a named pipe for writing alone waits for a reader, and writing fails once the reader closes it.
    let is_pipe = fs::metadata(path).is_ok_and(|data| data.file_type().is_fifo());
    let file = OpenOptions::new().create(true).append(true).read(is_pipe).open(path)?;
    let data = file.metadata()?;
    Ok(Open { file, size: data.len(), is_regular: data.is_file() })
}

impl Output for LogFile {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn begin_line(&mut self, length: usize) {
        let is_full = self.size_max > 0 && self.open.size > 0 && self.open.size + length as u64 > self.size_max;
        if is_full && self.open.is_regular {
            // If no new file can be opened, continue in the old one; the next line tries again.
            if let Ok(fresh) = self.replace() {
                self.open = fresh;
            }
        }
    }

    /// Switches to the file now at the path: the old one was moved away.
    fn reopen(&mut self) -> io::Result<()> {
        self.open = open(&self.path)?;
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.open.file.write(bytes)?;
        self.open.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(log: &mut LogFile, line: &str) {
        log.begin_line(line.len());
        log.write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn a_full_file_becomes_an_older_one_and_the_oldest_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LogFile::open(&path, 10, 2).unwrap();
        for line in ["one.....\n", "two.....\n", "three...\n", "four....\n", "x\n"] {
            write(&mut log, line);
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!([read("log"), read("log.1"), read("log.2")], ["x\n", "four....\n", "three...\n"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        // A line longer than the maximum size gets a file of its own.
        write(&mut log, &"y".repeat(30));
        assert_eq!(read("log").len(), 30);
    }

    #[test]
    fn the_size_of_an_earlier_run_counts_and_none_is_kept_if_none_is_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "12345678").unwrap();
        let mut log = LogFile::open(&path, 10, 0).unwrap();
        write(&mut log, "90123\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "90123\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_moved_away_is_left_alone_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("moved"));
        let mut log = LogFile::open(&path, 0, 3).unwrap();
        write(&mut log, "one\n");
        fs::rename(&path, &moved).unwrap();
        write(&mut log, "two\n");
        log.reopen().unwrap();
        write(&mut log, "three\n");
        assert_eq!(fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_device_is_never_moved() {
        let mut log = LogFile::open(Path::new("/dev/null"), 1, 3).unwrap();
        write(&mut log, "one\n");
        write(&mut log, "two\n");
        assert!(!Path::new("/dev/null.1").exists());
    }

    #[test]
    fn a_named_pipe_is_opened_without_a_reader_and_survives_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let mut log = LogFile::open(&path, 1, 3).unwrap();
        drop(File::open(&path).unwrap());
        write(&mut log, "one\n");
        write(&mut log, "two\n");
        let mut reader = File::open(&path).unwrap();
        let mut read = [0; 8];
        io::Read::read_exact(&mut reader, &mut read).unwrap();
        assert_eq!(&read, b"one\ntwo\n");
    }
}
