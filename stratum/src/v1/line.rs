//! Cuts a byte stream into lines of at most a given length, and refuses longer ones.

use bytes::BytesMut;
use thiserror::Error;

/// Maximum length of a line from a client that has authorised, in bytes.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// The same before authorisation: no handshake message needs more, and strangers get less room.
pub const LINE_BYTES_MAX_BEFORE_AUTHORIZE: usize = 4 * 1024;

/// Buffer kept for a partial line after all lines were returned, in bytes; more is freed.
const KEPT_BYTES_MAX: usize = 256;

/// Bytes received and not returned yet.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: BytesMut,
    /// Start of the next line; the bytes before it have been returned.
    start: usize,
    /// End of the part of `buffer` that was searched for a line feed without success.
    scanned: usize,
}

/// A line exceeded the maximum length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("line longer than {0} bytes")]
pub struct LineTooLong(pub usize);

impl Lines {
    /// Creates a buffer with bytes that have been read already.
    pub fn starting_with(read: BytesMut) -> Self {
        Self { buffer: read, start: 0, scanned: 0 }
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.forget_handed_out();
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole line without its line end (`\n` or `\r\n`); `None` when more bytes are needed.
    ///
    /// # Errors
    /// The line, whole or not, is longer than `bytes_max`.
    pub fn next(&mut self, bytes_max: usize) -> Result<Option<&[u8]>, LineTooLong> {
        let from = self.scanned.max(self.start);
        let found = memchr::memchr(b'\n', &self.buffer[from..]);
        let Some(offset) = found else {
            self.scanned = self.buffer.len();
            if self.scanned - self.start > bytes_max {
                return Err(LineTooLong(bytes_max));
            }
            self.forget_handed_out();
            return Ok(None);
        };
        let end = from + offset;
        let line = &self.buffer[self.start..end];
        self.start = end + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > bytes_max { Err(LineTooLong(bytes_max)) } else { Ok(Some(line)) }
    }

    /// Returns the bytes after the last line end, at the end of the stream: a last line without line end.
    pub fn rest(&mut self) -> Option<&[u8]> {
        let from = std::mem::replace(&mut self.start, self.buffer.len());
        Some(&self.buffer[from..]).filter(|rest| !rest.is_empty())
    }

    /// Shrinks the buffer, so that an idle connection holds next to no memory.
    fn forget_handed_out(&mut self) {
        if self.start == self.buffer.len() {
            if self.buffer.capacity() > KEPT_BYTES_MAX {
                self.buffer = BytesMut::new();
            }
            self.buffer.clear();
        } else if self.start > 0 {
            let rest = self.buffer.len() - self.start;
            self.buffer.copy_within(self.start.., 0);
            self.buffer.truncate(rest);
        }
        self.scanned = self.scanned.saturating_sub(self.start);
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines_of(chunks: &[&[u8]], bytes_max: usize) -> Vec<Result<String, LineTooLong>> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for chunk in chunks {
            lines.extend(chunk);
            loop {
                match lines.next(bytes_max) {
                    Ok(Some(line)) => found.push(Ok(String::from_utf8_lossy(line).into_owned())),
                    Ok(None) => break,
                    Err(error) => {
                        found.push(Err(error));
                        return found;
                    }
                }
            }
        }
        found
    }

    #[test]
    fn several_lines_in_one_segment_and_one_line_in_several() {
        assert_eq!(
            lines_of(&[b"one\r\ntwo\nth", b"r", b"ee\n\nfour"], 100),
            ["one", "two", "three", ""].map(|line| Ok(line.to_owned()))
        );
    }

    #[test]
    fn what_is_left_without_a_line_end_is_had_once() {
        let mut lines = Lines::default();
        lines.extend(b"one\ntwo");
        assert_eq!(lines.next(100), Ok(Some(&b"one"[..])));
        assert_eq!(lines.next(100), Ok(None));
        assert_eq!(lines.rest(), Some(&b"two"[..]));
        assert_eq!(lines.rest(), None);
        assert_eq!(lines.next(100), Ok(None));
    }

    #[test]
    fn a_line_without_end_is_refused_as_soon_as_it_is_too_long() {
        assert_eq!(lines_of(&[b"12345", b"6"], 5), [Err(LineTooLong(5))]);
        assert_eq!(lines_of(&[b"123456\n"], 5), [Err(LineTooLong(5))]);
        assert_eq!(lines_of(&[b"12345\n"], 5), [Ok("12345".to_owned())]);
    }

    proptest! {
        #[test]
        fn how_the_bytes_were_cut_into_segments_makes_no_difference(
            text in "[a-c\r\n]{0,60}", cuts in proptest::collection::vec(0usize..60, 0..6)
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(lines_of(&chunks, 100), lines_of(&[bytes], 100));
        }
    }
}
