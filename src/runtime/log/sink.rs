//! A bounded buffer that any thread adds log lines to without waiting, and a thread that writes them out.

use metrics::counter;
use parking_lot::{Condvar, Mutex};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use stratum::printable::escaped;
use tracing::{error, info, warn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::runtime::disk::{DiskHealth, Part};

/// Buffer capacity in bytes; more lines are dropped. An output that is thousands of lines behind is stuck.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// Pause before a retry where another process that shares the output made it non-blocking.
const BLOCKED_PAUSE: Duration = Duration::from_millis(20);

/// Interval of retries of a failed output while nothing is logged.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Destination of a sink.
pub trait Output: Write + Send + 'static {
    /// Name for people.
    fn describe(&self) -> String;

    /// Prepares for a line of `length` bytes.
    fn begin_line(&mut self, _length: usize) {}

    /// Switches to a new file, if the output is one.
    ///
    /// # Errors
    /// It cannot be opened; the output stays on the old one.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard error, without the lock that printing takes: a thread that hangs here must not block others.
#[derive(Debug)]
pub struct Terminal(File);

impl Terminal {
    /// Opens the process's standard error.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn open() -> io::Result<Self> {
        Ok(Self(File::from(io::stderr().as_fd().try_clone_to_owned()?)))
    }
}

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for Terminal {
    fn describe(&self) -> String {
        "the terminal".to_owned()
    }
}

/// Accepts lines without ever waiting for its output. Clones share it.
#[derive(Debug, Clone)]
pub struct Sink(Arc<Shared>);

struct Shared {
    /// Label in metrics.
    name: &'static str,
    description: String,
    disk: Option<DiskHealth>,
    buffer: Mutex<Buffer>,
    /// Signalled when the thread has work.
    filled: Condvar,
    /// Signalled when the thread has finished.
    emptied: Condvar,
}

#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    /// Lines dropped after those, for lack of room.
    dropped: u64,
    /// Set when the output is to be reopened.
    reopen: bool,
    /// Set while the thread works.
    is_busy: bool,
}

impl Buffer {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0 && !self.reopen
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Sink {
    /// Starts a thread that writes to `output` and reports errors to `disk`, if given. `name` is the label in metrics.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(name: &'static str, output: impl Output, disk: Option<DiskHealth>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name,
            description: output.describe(),
            disk,
            buffer: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        });
        let worker = Worker { shared: shared.clone(), output, missed: 0, is_torn: false, trouble: None };
        // Never joined: it may hang in a write until the process ends.
        thread::Builder::new().name(format!("log {name}")).spawn(move || worker.run())?;
        Ok(Self(shared))
    }

    /// Requests reopening of the output. The outcome is logged.
    pub fn reopen(&self) {
        self.0.buffer.lock().reopen = true;
        self.0.filled.notify_one();
    }

    /// Waits until everything is written, or until `until`; returns true if it is.
    pub fn flush(&self, until: Instant) -> bool {
        let mut buffer = self.0.buffer.lock();
        while buffer.is_busy || !buffer.is_empty() {
            if self.0.emptied.wait_until(&mut buffer, until).timed_out() {
                return false;
            }
        }
        true
    }

    fn push(&self, line: &[u8]) {
        let mut buffer = self.0.buffer.lock();
        // After one dropped line drop those behind it too, so that the gap is in one place.
        let fits = buffer.dropped == 0 && buffer.lines.len() + line.len() <= BUFFER_BYTES_MAX;
        if fits {
            buffer.lines.extend_from_slice(line);
            drop(buffer);
            self.0.filled.notify_one();
            return;
        }
        buffer.dropped += 1;
        counter!("log_dropped_lines_total", "sink" => self.0.name).increment(1);
        if buffer.dropped == 1
            && let Some(disk) = &self.0.disk
        {
            // Under the lock, so that the thread reports the recovery afterwards.
            disk.report(Part::Log, Some(format!("{} takes no more lines", self.0.description)));
        }
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = SinkWriter<'a>;

    fn make_writer(&'a self) -> SinkWriter<'a> {
        SinkWriter(self)
    }
}

/// Collects one line.
#[derive(Debug)]
pub struct SinkWriter<'a>(&'a Sink);

impl Write for SinkWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// State of the thread.
struct Worker<O> {
    shared: Arc<Shared>,
    output: O,
    /// Lines dropped or failed since the last one written.
    missed: u64,
    /// Set while the output ends within a line.
    is_torn: bool,
    /// Latest error, while it lasts.
    trouble: Option<String>,
}

impl<O: Output> Worker<O> {
    fn run(mut self) {
        // Swapped with the buffer, so that neither is reallocated each time.
        let mut lines = Vec::new();
        loop {
            lines.clear();
            let (dropped, reopen) = {
                let mut buffer = self.shared.buffer.lock();
                buffer.is_busy = false;
                if buffer.is_empty() {
                    self.shared.emptied.notify_all();
                }
                while buffer.is_empty() {
                    if self.missed == 0 {
                        self.shared.filled.wait(&mut buffer);
                    } else if self.shared.filled.wait_for(&mut buffer, RETRY_INTERVAL).timed_out() {
                        break;
                    }
                }
                buffer.is_busy = true;
                std::mem::swap(&mut buffer.lines, &mut lines);
                (std::mem::take(&mut buffer.dropped), std::mem::take(&mut buffer.reopen))
            };
            // The buffer's lock is free here: other threads log on while this one writes.
            for line in lines.split_inclusive(|byte| *byte == b'\n') {
                self.write_line(line);
            }
            self.missed += dropped;
            self.report_missed();
            if reopen {
                self.reopen();
            }
        }
    }

    fn write_line(&mut self, line: &[u8]) {
        self.report_missed();
        if self.missed > 0 || self.try_write(line).is_err() {
            self.missed += 1;
            counter!("log_dropped_lines_total", "sink" => self.shared.name).increment(1);
        }
    }

    /// Writes a notice of the lines missing at this point of the log, if any.
    fn report_missed(&mut self) {
        if self.missed == 0 {
            return;
        }
        let mut notice = String::new();
        // Without its time the line is still useful.
        let _ = SystemTime.format_time(&mut Writer::new(&mut notice));
        let reason = self.trouble.as_deref().unwrap_or("they came faster than they could be written");
        notice.push_str(&format!("  WARN log lines dropped here: {} ({})\n", self.missed, escaped(reason)));
        if self.try_write(notice.as_bytes()).is_ok() {
            self.missed = 0;
        }
    }

    fn try_write(&mut self, line: &[u8]) -> io::Result<()> {
        self.output.begin_line(line.len());
        let result = self.write_whole(line);
        let trouble = result.as_ref().err().map(|error| format!("cannot write {}: {error}", self.output.describe()));
        self.note(trouble);
        result
    }

    fn write_whole(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.write_some(b"\n")?;
            self.is_torn = false;
        }
        let mut left = line;
        while !left.is_empty() {
            match self.write_some(left) {
                Ok(count) => left = &left[count..],
                Err(error) => {
                    self.is_torn = left.len() < line.len();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.output.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(BLOCKED_PAUSE),
                result => return result,
            }
        }
    }

    /// Logs when writing begins to fail, and when it works again.
    fn note(&mut self, trouble: Option<String>) {
        let was_bad = self.trouble.is_some();
        // The other side's report of a full buffer is over too, once a line is written.
        let is_news = trouble != self.trouble || self.missed > 0;
        self.trouble.clone_from(&trouble);
        let Some(disk) = self.shared.disk.as_ref().filter(|_| is_news) else { return };
        match &trouble {
            Some(trouble) if !was_bad => error!(trouble, "log file failed: lines are dropped until it works again"),
            None if was_bad => info!("log file works again"),
            _ => {}
        }
        disk.report(Part::Log, trouble);
    }

    fn reopen(&mut self) {
        match self.output.reopen() {
            Ok(()) => info!("the log goes on in a new file"),
            Err(error) => warn!(%error, "cannot open a new log file: the log goes on in the old one"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Timeout for operations that are instant on an idle machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn soon() -> Instant {
        Instant::now() + PATIENCE
    }

    /// Answers each write as the test says: with a number of bytes taken, or an error. Waits for the test.
    struct Scripted {
        answers: mpsc::Receiver<io::Result<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Dropping the test's sender lets everything through.
            let count = self.answers.recv().unwrap_or(Ok(bytes.len()))?.min(bytes.len());
            self.written.lock().extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output for Scripted {
        fn describe(&self) -> String {
            "a script".to_owned()
        }
    }

    type Answers = mpsc::Sender<io::Result<usize>>;

    fn scripted(disk: &DiskHealth) -> (Sink, Answers, Arc<Mutex<Vec<u8>>>) {
        let (answer, answers) = mpsc::channel();
        let written = Arc::new(Mutex::default());
        let sink = Sink::start("test", Scripted { answers, written: written.clone() }, Some(disk.clone())).unwrap();
        (sink, answer, written)
    }

    fn log(sink: &Sink, line: &str) {
        sink.make_writer().write_all(line.as_bytes()).unwrap();
    }

    fn text(written: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(written.lock().clone()).unwrap()
    }

    #[test]
    fn an_output_that_hangs_holds_up_nobody_and_the_lines_it_missed_are_counted_in_their_place() {
        let disk = DiskHealth::new();
        let (sink, answer, written) = scripted(&disk);
        let line = format!("{}\n", "x".repeat(1023));
        let lines = BUFFER_BYTES_MAX / line.len();
        log(&sink, "first\n");
        while !sink.0.buffer.lock().is_busy {
            thread::sleep(Duration::from_millis(1));
        }
        // All of these return although nothing is written.
        for _ in 0..lines + 7 {
            log(&sink, &line);
        }
        log(&sink, "short\n");
        assert!(!sink.flush(Instant::now() + Duration::from_millis(10)));
        assert_eq!(disk.watch().borrow().sentences().len(), 1);
        drop(answer);
        assert!(sink.flush(soon()));
        log(&sink, "last\n");
        assert!(sink.flush(soon()));
        let text = text(&written);
        let kept: Vec<&str> = text.lines().collect();
        assert_eq!((kept[0], kept.len()), ("first", lines + 3), "no line is split or joined");
        assert!(kept[lines + 1].contains("log lines dropped here: 8 "), "{}", kept[lines + 1]);
        assert_eq!(kept[lines + 2], "last");
        assert_eq!(disk.watch().borrow().sentences(), [""; 0]);
    }

    #[test]
    fn lines_that_fail_are_counted_and_the_next_one_begins_on_a_line_of_its_own() {
        let disk = DiskHealth::new();
        let (sink, answer, written) = scripted(&disk);
        let full = || Err(io::ErrorKind::StorageFull.into());
        // One line whole, three bytes of the next, then nothing, not even the notice; then all.
        for one in [Ok(99), Ok(3), full(), full(), Err(io::ErrorKind::Interrupted.into())] {
            answer.send(one).unwrap();
        }
        for line in ["one\n", "two and more\n", "three\n"] {
            log(&sink, line);
        }
        let mut watch = disk.watch();
        while watch.borrow_and_update().sentences().is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
        drop(answer);
        assert!(sink.flush(soon()));
        log(&sink, "four\n");
        assert!(sink.flush(soon()));
        let text = text(&written);
        let kept: Vec<&str> = text.lines().collect();
        assert_eq!(kept[..2], ["one", "two"]);
        assert!(
            kept[2].contains("log lines dropped here: ") && kept[2].contains("cannot write a script"),
            "{}",
            kept[2]
        );
        assert_eq!(kept.last(), Some(&"four"));
        assert_eq!(disk.watch().borrow().sentences(), [""; 0]);
    }

    #[test]
    fn a_reopened_output_gets_the_lines_that_come_after() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("moved"));
        let sink = Sink::start("test", super::super::LogFile::open(&path, 0, 3).unwrap(), None).unwrap();
        log(&sink, "one\n");
        assert!(sink.flush(soon()));
        std::fs::rename(&path, &moved).unwrap();
        log(&sink, "two\n");
        sink.reopen();
        assert!(sink.flush(soon()));
        log(&sink, "three\n");
        assert!(sink.flush(soon()));
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }
}
