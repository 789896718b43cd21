//! One event is one line: the last defence against text from strangers, wherever it was logged.
//!
//! Text that a stranger wrote is escaped where it is parsed ([`stratum::printable`]). What was missed there, and what
//! comes from the daemon, the system or a library, is escaped here. Escaping twice changes nothing.

use std::fmt::{self, Debug, Write};
use stratum::printable::Escape;
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FormatFields, Layer, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// Returns a layer that writes each event to `writer` as one printable line; with `ansi`, its time and level in colour.
pub fn layer<S, W>(writer: W, ansi: bool) -> Layer<S, Fields, Format, W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    tracing_subscriber::fmt::layer().with_target(false).fmt_fields(Fields).with_writer(writer).with_ansi(ansi)
}

/// Formats the fields of an event or a span, escaped, and without colours: a span's fields are formatted once for all
/// layers, of which some write to files.
#[derive(Debug, Clone, Copy)]
pub struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = FieldWriter { out: Escape(writer), is_first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct FieldWriter<'w> {
    out: Escape<Writer<'w>>,
    is_first: bool,
    result: fmt::Result,
}

impl Visit for FieldWriter<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.record_debug(field, &format_args!("{value}")),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Events of libraries that use the crate `log` have their origin in such fields.
        if self.result.is_err() || field.name().starts_with("log.") {
            return;
        }
        let gap = if std::mem::take(&mut self.is_first) { "" } else { " " };
        self.result = match field.name() {
            "message" => write!(self.out, "{gap}{value:?}"),
            name => write!(self.out, "{gap}{}={value:?}", name.trim_start_matches("r#")),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::log::{LogFile, Output, Sink, Tail};
    use parking_lot::Mutex;
    use std::io;
    use std::sync::Arc;
    use std::time::{Duration, Instant};
    use tracing::{info, info_span};
    use tracing_subscriber::layer::SubscriberExt;

    /// Escape code and line feed, as a stranger would send them.
    const ATTACK: &str = "x\n2026-01-01T00:00:00Z ERROR forged\u{1b}[31m\u{202e}";

    /// A terminal that can be read.
    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output for Screen {
        fn describe(&self) -> String {
            "a screen".to_owned()
        }
    }

    /// Runs `log` with a terminal, a file and the tail; returns the text of each.
    fn logged(log: impl FnOnce()) -> [String; 3] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (screen, tail) = (Screen::default(), Tail::default());
        let terminal = Sink::start("terminal", screen.clone(), None).unwrap();
        let file = Sink::start("file", LogFile::open(&path, 0, 0).unwrap(), None).unwrap();
        let subscriber = tracing_subscriber::registry()
            .with(layer(terminal.clone(), true))
            .with(layer(file.clone(), false))
            .with(layer(tail.clone(), false));
        tracing::subscriber::with_default(subscriber, log);
        for sink in [terminal, file] {
            assert!(sink.flush(Instant::now() + Duration::from_secs(20)));
        }
        let screen = String::from_utf8(screen.0.lock().clone()).unwrap();
        [screen, std::fs::read_to_string(path).unwrap(), tail.lines(usize::MAX).join("\n") + "\n"]
    }

    #[test]
    fn whatever_a_stranger_says_an_event_is_one_line_without_escape_codes_in_terminal_file_and_tail() {
        let error = io::Error::other(ATTACK);
        let texts = logged(|| {
            let _span = info_span!("miner", who = %ATTACK).entered();
            info!(shown = %ATTACK, quoted = ATTACK, debug = ?ATTACK, %error, "message {ATTACK}");
        });
        for text in texts {
            assert_eq!((text.matches('\n').count(), text.ends_with('\n')), (1, true), "{text:?}");
            // The formatter's own: dim, bold, green, back to normal.
            let bare = ["\u{1b}[2m", "\u{1b}[1m", "\u{1b}[32m", "\u{1b}[0m"]
                .iter()
                .fold(text, |bare, own| bare.replace(own, ""));
            assert!(!bare.contains(['\u{1b}', '\u{202e}']), "{bare:?}");
            assert_eq!(bare.matches(r"x\n2026-01-01T00:00:00Z ERROR forged\u{1b}[31m\u{202e}").count(), 6, "{bare}");
        }
    }

    #[test]
    fn ordinary_events_look_as_they_always_did() {
        let [_, file, tail] = logged(|| {
            let _span = info_span!("miner", address = %"192.0.2.1").entered();
            info!(height = 7, worker = %"Büro", reason = "too \"late\"", r#type = 1, "block found");
        });
        let line =
            " INFO miner{address=192.0.2.1}: block found height=7 worker=Büro reason=\"too \\\"late\\\"\" type=1\n";
        assert!(file.ends_with(line) && tail.ends_with(line), "{file}");
    }
}
