//! Destinations of log lines: the terminal, a rotated file, and the last lines in memory for `p2pool top` and pages.
//!
//! ```text
//!  any thread: tracing ── layer ──line──▶ Sink (bounded buffer) ──▶ its thread ──▶ terminal, pipe or file
//!                                └─line──▶ Tail (the last lines)
//! ```
//!
//! Only a sink's own thread ever waits for its output: a stopped terminal, a full pipe or a hanging disk costs log
//! lines, and nothing else.

mod file;
mod format;
mod sink;

pub use file::LogFile;
pub use format::layer;
pub use sink::{Output, Sink, Terminal};

use parking_lot::Mutex;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use tracing::error;
use tracing_subscriber::fmt::MakeWriter;

/// Lines kept in memory.
const TAIL_LINES_MAX: usize = 200;

/// Maximum length of a line kept in memory, in characters.
const TAIL_LINE_MAX: usize = 500;

/// Time that an ending process waits for its last lines to be written. Together with the grace period of a stopping
/// node it stays below the two seconds in which a node ends.
const LAST_LINES: Duration = Duration::from_millis(200);

/// Time that a panicking thread waits for its message to be written: an abort may follow.
const PANIC_LINES: Duration = Duration::from_millis(100);

/// Options of logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Log at debug level.
    pub debug: bool,
    /// Log file, in addition to the terminal.
    pub logfile: Option<PathBuf>,
    /// Maximum size of the log file, in bytes; 0 for no limit.
    pub size_max: u64,
    /// Number of full files to keep.
    pub files_kept: u32,
}

impl Default for Config {
    /// To the terminal; a file, if there is one, is kept to 100 MB with five full ones beside it.
    fn default() -> Self {
        Self { debug: false, logfile: None, size_max: 100_000_000, files_kept: 5 }
    }
}

/// The sinks of this process. Dropping it waits, for a bounded time, until all lines are written.
#[derive(Debug)]
pub struct Logging {
    tail: Tail,
    sinks: Arc<[Sink]>,
}

impl Logging {
    /// Takes ownership of the sinks.
    pub fn new(tail: Tail, sinks: Vec<Sink>) -> Self {
        Self { tail, sinks: sinks.into() }
    }

    pub fn tail(&self) -> Tail {
        self.tail.clone()
    }

    /// Logs panics from now on, instead of printing them, which would block on the terminal.
    pub fn log_panics(&self) {
        let sinks = self.sinks.clone();
        std::panic::set_hook(Box::new(move |panic| {
            log_panic(panic);
            flush(&sinks, PANIC_LINES);
        }));
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        flush(&self.sinks, LAST_LINES);
    }
}

/// Waits up to `limit` until the sinks have written their buffers.
fn flush(sinks: &[Sink], limit: Duration) {
    let until = Instant::now() + limit;
    for sink in sinks {
        sink.flush(until);
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let payload = panic.payload();
    let message =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("no message");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    error!(thread, place, "panic: {message}");
    // Captured only if RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        for line in backtrace.to_string().lines() {
            error!("{line}");
        }
    }
}

/// Prints the last message of an ending process to standard error, waiting only briefly for the terminal.
pub fn print_last(text: String) {
    let (done, printed) = mpsc::channel();
    let printing = thread::Builder::new().name("last words".into()).spawn(move || {
        // Without standard error there is nowhere to report to.
        let _ = io::stderr().write_all(text.as_bytes());
        let _ = done.send(());
    });
    if printing.is_ok() {
        let _ = printed.recv_timeout(LAST_LINES);
    }
}

/// Last lines of the log. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    /// Returns at most the last `count` lines, oldest first.
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

/// Collects one line.
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
