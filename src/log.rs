//! Where log lines go beside the terminal: a file that is replaced by a new one when it is large or when somebody asks for
//! it, and the last lines in memory for whoever looks.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that are kept in memory.
const TAIL_LINES_MAX: usize = 200;

/// Longest line that is kept in memory, in characters.
const TAIL_LINE_MAX: usize = 500;

/// The log file. Clones share it.
#[derive(Debug, Clone)]
pub struct LogFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Bytes that it may have; 0 for any number.
    size_max: u64,
    /// Older files that are kept, as `PATH.1` (the latest), `PATH.2` and so on.
    kept: u32,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
    /// Devices and pipes have no size, and must stay where they are.
    is_regular: bool,
}

impl LogFile {
    /// Opens the file at `path` for appending.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(path: &Path, size_max: u64, kept: u32) -> io::Result<Self> {
        let open = Mutex::new(open(path)?);
        Ok(Self(Arc::new(Inner { path: path.to_owned(), size_max, kept, open })))
    }

    /// Goes on in the file that is at the path now: somebody has moved the old one away.
    ///
    /// # Errors
    /// There cannot be one; then it goes on in the old one.
    pub fn reopen(&self) -> io::Result<()> {
        *self.0.open.lock() = open(&self.0.path)?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Open> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let data = file.metadata()?;
    Ok(Open { file, size: data.len(), is_regular: data.is_file() })
}

impl Inner {
    fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut now = self.open.lock();
        let length = line.len() as u64;
        let is_full = self.size_max > 0 && now.size > 0 && now.size + length > self.size_max;
        if is_full && now.is_regular {
            // Without a new file it goes on in the old one, and the next line tries again.
            if let Ok(fresh) = self.replace() {
                *now = fresh;
            }
        }
        now.size += length;
        now.file.write_all(line)
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

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = FileWriter<'a>;

    fn make_writer(&'a self) -> FileWriter<'a> {
        FileWriter(&self.0)
    }
}

/// Writes one line.
#[derive(Debug)]
pub struct FileWriter<'a>(&'a Inner);

impl Write for FileWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The last lines of the log. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    /// The last `count` lines at most, the oldest first.
    pub fn lines(&self, count: usize) -> Vec<String> {
        let lines = self.0.lock();
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }

    fn push(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let mut lines = self.0.lock();
        for line in text.lines() {
            if lines.len() == TAIL_LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line.chars().take(TAIL_LINE_MAX).collect());
        }
    }
}

impl<'a> MakeWriter<'a> for Tail {
    type Writer = TailWriter<'a>;

    fn make_writer(&'a self) -> TailWriter<'a> {
        TailWriter(self)
    }
}

/// Keeps one line.
#[derive(Debug)]
pub struct TailWriter<'a>(&'a Tail);

impl Write for TailWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(log: &LogFile, line: &str) {
        log.make_writer().write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn a_full_file_becomes_an_older_one_and_the_oldest_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = LogFile::open(&path, 10, 2).unwrap();
        for line in ["one.....\n", "two.....\n", "three...\n", "four....\n", "x\n"] {
            write(&log, line);
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!([read("log"), read("log.1"), read("log.2")], ["x\n", "four....\n", "three...\n"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        // A line that is longer than a file may be has one of its own.
        write(&log, &"y".repeat(30));
        assert_eq!(read("log").len(), 30);
    }

    #[test]
    fn the_size_of_an_earlier_run_counts_and_none_is_kept_if_none_is_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "12345678").unwrap();
        let log = LogFile::open(&path, 10, 0).unwrap();
        write(&log, "90123\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "90123\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_moved_away_is_left_alone_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("moved"));
        let log = LogFile::open(&path, 0, 3).unwrap();
        write(&log, "one\n");
        fs::rename(&path, &moved).unwrap();
        write(&log, "two\n");
        log.reopen().unwrap();
        write(&log, "three\n");
        assert_eq!(fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_device_is_never_moved() {
        let log = LogFile::open(Path::new("/dev/null"), 1, 3).unwrap();
        write(&log, "one\n");
        write(&log, "two\n");
        assert!(!Path::new("/dev/null.1").exists());
    }

    #[test]
    fn only_the_last_lines_are_kept_in_memory() {
        let tail = Tail::default();
        for number in 0..TAIL_LINES_MAX + 5 {
            tail.make_writer().write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        assert_eq!(tail.lines(2), [(TAIL_LINES_MAX + 3).to_string(), (TAIL_LINES_MAX + 4).to_string()]);
        assert_eq!(tail.lines(usize::MAX).len(), TAIL_LINES_MAX);
    }
}
