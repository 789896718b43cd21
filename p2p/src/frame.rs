//! Framing: prefix, command, length, checksum (protocol section 3.1), with a size limit per command, beyond which a
//! frame is skipped.
//!
//! The buffer holds at most one frame, and grows with received bytes rather than announced ones. A connection reports it
//! to the [`Budget`](crate::budget::Budget) shared by all connections, unless the frame is a small one.

use bitcoin::hashes::{Hash, sha256d as double};
use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use sharechain::merkle::Digest;
use sharechain::pack::Writer;
use thiserror::Error;

use super::command::{Command, PAYLOAD_BYTES_MAX};

/// Size of prefix, command, length and checksum.
pub const HEADER_BYTES: usize = 28;

/// Maximum payload of a small frame, in bytes: it is always received, and not counted in any budget.
pub const SMALL_FRAME_BYTES_MAX: usize = 64 * 1024;

const PREFIX_BYTES: usize = 8;
const COMMAND_BYTES: usize = 12;

/// Command as encoded on the wire, with its padding.
type RawCommand = [u8; COMMAND_BYTES];

/// Reasons why the bytes of a connection cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Damaged or forged frame.
    #[error("message `{}` has a wrong checksum", word_of(command))]
    Checksum {
        /// Command as received.
        command: [u8; 12],
    },
}

/// Treatment of a frame whose header has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Accept it if its payload is at most this long, otherwise skip it: length alone is no misbehaviour.
    Take(usize),
    /// Verify its checksum without keeping it.
    Skip,
}

/// Complete frame with a valid checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Command of the frame.
    pub command: Command,
    /// Its payload.
    pub payload: Bytes,
}

/// Completed frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Frame to handle.
    Frame(Frame),
    /// Frame that was skipped: of an unknown command (`None`), too long, or not wanted.
    Skipped(Option<Command>),
}

#[derive(Debug)]
enum State {
    /// Searching for the prefix; `last` are the last bytes, of which the first `missing` have not arrived yet.
    Seeking {
        last: [u8; PREFIX_BYTES],
        missing: usize,
    },
    Header {
        bytes: [u8; HEADER_BYTES - PREFIX_BYTES],
        have: usize,
    },
    Payload {
        command: Command,
        left: usize,
        checksum: [u8; 4],
        input: BytesMut,
    },
    Skipping {
        command: RawCommand,
        known: Option<Command>,
        left: usize,
        checksum: [u8; 4],
        hasher: Sha256,
    },
}

const SEEKING: State = State::Seeking { last: [0; PREFIX_BYTES], missing: PREFIX_BYTES };

/// Splits a byte stream into frames.
#[derive(Debug)]
pub struct Frames {
    prefix: [u8; PREFIX_BYTES],
    state: State,
}

impl Frames {
    /// Creates a decoder at the start of a stream.
    pub fn new(prefix: [u8; 8]) -> Frames {
        Frames { prefix, state: SEEKING }
    }

    /// True if a frame is incomplete.
    pub fn is_under_way(&self) -> bool {
        !matches!(self.state, State::Seeking { .. })
    }

    /// Missing bytes of the current frame, as far as known, and its received bytes.
    pub fn progress(&self) -> (usize, usize) {
        match &self.state {
            State::Seeking { .. } => (0, 0),
            State::Header { have, .. } => (HEADER_BYTES - PREFIX_BYTES - have, *have),
            State::Payload { left, input, .. } => (*left, input.len()),
            State::Skipping { left, .. } => (*left, 0),
        }
    }

    /// Bytes kept of an incomplete frame; none of a small one ([`SMALL_FRAME_BYTES_MAX`]).
    pub fn held(&self) -> usize {
        match &self.state {
            State::Payload { left, input, .. } if left + input.len() > SMALL_FRAME_BYTES_MAX => input.len(),
            _ => 0,
        }
    }

    /// Consumes bytes of `input` up to the end of a frame; returns `None` if all are consumed before that. `judge`
    /// decides about frames of known commands once their length is known; all others are skipped.
    ///
    /// # Errors
    /// [`FrameError`]: the connection is to be closed.
    pub fn take(&mut self, input: &mut &[u8], judge: impl Fn(Command) -> Verdict) -> Result<Option<Event>, FrameError> {
        loop {
            match &mut self.state {
                State::Seeking { last, missing } => {
                    let Some((first, rest)) = input.split_first() else { return Ok(None) };
                    *input = rest;
                    last.rotate_left(1);
                    last[PREFIX_BYTES - 1] = *first;
                    *missing = missing.saturating_sub(1);
                    if *missing == 0 && *last == self.prefix {
                        self.state = State::Header { bytes: [0; HEADER_BYTES - PREFIX_BYTES], have: 0 };
                    }
                }
                State::Header { bytes, have } => {
                    // The checksum is not consumed until the length proves valid: after an invalid length, the search
                    // for the prefix continues directly behind it.
                    let wanted = if *have < 16 { 16 } else { bytes.len() };
                    *have += move_bytes(input, &mut bytes[*have..wanted]);
                    if *have < wanted {
                        return Ok(None);
                    }
                    let length = length_of(bytes);
                    if length > PAYLOAD_BYTES_MAX {
                        self.state = SEEKING;
                    } else if *have == bytes.len() {
                        let header = *bytes;
                        self.begin(&header, length, &judge);
                    }
                }
                State::Payload { command, left, checksum, input: payload } => {
                    let count = input.len().min(*left);
                    payload.extend_from_slice(&input[..count]);
                    *input = &input[count..];
                    *left -= count;
                    if *left > 0 {
                        return Ok(None);
                    }
                    let (command, checksum, payload) = (*command, *checksum, std::mem::take(payload).freeze());
                    self.state = SEEKING;
                    return if sha256d(&payload)[..4] == checksum {
                        Ok(Some(Event::Frame(Frame { command, payload })))
                    } else {
                        Err(FrameError::Checksum { command: padded(command.word()) })
                    };
                }
                State::Skipping { command, known, left, checksum, hasher } => {
                    let count = input.len().min(*left);
                    hasher.update(&input[..count]);
                    *input = &input[count..];
                    *left -= count;
                    if *left > 0 {
                        return Ok(None);
                    }
                    let (command, known, checksum) = (*command, *known, *checksum);
                    let found = Sha256::digest(std::mem::take(hasher).finalize());
                    self.state = SEEKING;
                    return if found[..4] == checksum {
                        Ok(Some(Event::Skipped(known)))
                    } else {
                        Err(FrameError::Checksum { command })
                    };
                }
            }
        }
    }

    fn begin(&mut self, header: &[u8; HEADER_BYTES - PREFIX_BYTES], length: usize, judge: impl Fn(Command) -> Verdict) {
        let mut raw = [0; COMMAND_BYTES];
        raw.copy_from_slice(&header[..COMMAND_BYTES]);
        let checksum = [header[16], header[17], header[18], header[19]];
        let known = Command::from_word(&word_of(&raw));
        self.state = match known.map(|command| (command, judge(command))) {
            Some((command, Verdict::Take(limit))) if length <= limit => {
                State::Payload { command, left: length, checksum, input: BytesMut::new() }
            }
            _ => State::Skipping { command: raw, known, left: length, checksum, hasher: Sha256::new() },
        };
    }
}

/// Encodes a frame; the payload must not be longer than [`PAYLOAD_BYTES_MAX`].
pub fn encode(prefix: [u8; 8], command: &str, payload: &[u8]) -> Bytes {
    encode_with(prefix, command, payload.len(), |writer| writer.bytes(payload))
}

/// Encodes a frame whose payload of about `capacity` bytes is produced by `write`, without a second copy.
pub(super) fn encode_with(prefix: [u8; 8], command: &str, capacity: usize, write: impl FnOnce(&mut Writer)) -> Bytes {
    let mut writer = Writer::with_capacity(HEADER_BYTES + capacity);
    writer.bytes(&prefix);
    writer.bytes(&padded(command));
    // Length and checksum, filled in later.
    writer.bytes(&[0; 8]);
    write(&mut writer);
    let mut frame = writer.into_bytes();
    let (header, payload) = frame.split_at_mut(HEADER_BYTES);
    let length = u32::try_from(payload.len()).expect("payloads are shorter than PAYLOAD_BYTES_MAX");
    header[20..24].copy_from_slice(&length.to_le_bytes());
    header[24..].copy_from_slice(&sha256d(payload)[..4]);
    frame.into()
}

fn padded(word: &str) -> RawCommand {
    let mut raw = [0; COMMAND_BYTES];
    let count = word.len().min(COMMAND_BYTES);
    raw[..count].copy_from_slice(&word.as_bytes()[..count]);
    raw
}

/// Name of a command: the bytes before its zero padding.
fn word_of(raw: &RawCommand) -> String {
    let end = raw.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    raw[..end].escape_ascii().to_string()
}

fn length_of(header: &[u8; HEADER_BYTES - PREFIX_BYTES]) -> usize {
    usize::try_from(u32::from_le_bytes([header[12], header[13], header[14], header[15]])).unwrap_or(usize::MAX)
}

fn move_bytes(from: &mut &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    to[..count].copy_from_slice(&from[..count]);
    *from = &from[count..];
    count
}

/// Hash of a block header or a transaction: SHA-256 twice.
pub(super) fn sha256d(bytes: &[u8]) -> Digest {
    double::Hash::hash(bytes).to_byte_array()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: [u8; 8] = *b"sinetpre";

    fn frames() -> Frames {
        Frames::new(PREFIX)
    }

    fn take_all(frames: &mut Frames, mut input: &[u8]) -> Result<Vec<Event>, FrameError> {
        let judge = |command| if command == Command::ShareReply { Verdict::Skip } else { Verdict::Take(500) };
        let mut events = Vec::new();
        while let Some(event) = frames.take(&mut input, judge)? {
            events.push(event);
        }
        Ok(events)
    }

    fn is_ping(event: &Event) -> bool {
        matches!(event, Event::Frame(Frame { command: Command::Ping, .. }))
    }

    #[test]
    fn a_frame_is_found_after_anything_even_half_a_prefix() {
        let ping = encode(PREFIX, "ping", b"");
        for before in [&b""[..], b"sinet", b"sinetprsinetpsinetpr", &[0; 40]] {
            let input = [before, &ping].concat();
            for cut in 0..input.len() {
                let mut frames = frames();
                let mut events = take_all(&mut frames, &input[..cut]).unwrap();
                assert!(events.is_empty());
                events.extend(take_all(&mut frames, &input[cut..]).unwrap());
                assert!(matches!(&events[..], [one] if is_ping(one)), "cut at {cut}: {events:?}");
                assert!(!frames.is_under_way());
            }
        }
    }

    #[test]
    fn behind_a_length_that_cannot_be_the_next_prefix_is_found_at_once() {
        let mut frames = frames();
        let mut broken = encode(PREFIX, "shares", b"").to_vec();
        broken[20..24].copy_from_slice(&32_000_001_u32.to_le_bytes());
        // Not even the checksum's bytes are skipped (section 3.1).
        let input = [&broken[..24], &encode(PREFIX, "ping", b"")].concat();
        assert!(matches!(&take_all(&mut frames, &input).unwrap()[..], [one] if is_ping(one)));
    }

    #[test]
    fn what_is_not_ours_or_not_wanted_is_checked_but_never_kept() {
        let long = vec![7; 100_000];
        for command in ["foobar", "sharereply", "\u{1}"] {
            let mut frames = frames();
            let input = [&encode(PREFIX, command, &long)[..], &encode(PREFIX, "ping", b"")].concat();
            let events = take_all(&mut frames, &input).unwrap();
            assert!(matches!(&events[..], [Event::Skipped(_), ping] if is_ping(ping)), "{command}: {events:?}");
            let mut damaged = encode(PREFIX, command, &long).to_vec();
            damaged[50_000] ^= 1;
            assert!(matches!(take_all(&mut frames, &damaged), Err(FrameError::Checksum { .. })));
        }
    }

    #[test]
    fn a_frame_longer_than_its_command_may_take_is_checked_but_never_kept() {
        let mut frames = frames();
        let input = encode(PREFIX, "addrs", &[0; 501]);
        assert_eq!(take_all(&mut frames, &input[..500]), Ok(Vec::new()));
        assert_eq!((frames.held(), frames.progress()), (0, (29, 0)));
        let rest = [&input[500..], &encode(PREFIX, "ping", b"")].concat();
        assert!(matches!(&take_all(&mut frames, &rest).unwrap()[..], [Event::Skipped(_), ping] if is_ping(ping)));
        let mut damaged = input.to_vec();
        damaged[300] ^= 1;
        assert!(matches!(take_all(&mut frames, &damaged), Err(FrameError::Checksum { .. })));
    }

    #[test]
    fn a_long_frame_holds_what_came_of_it_and_a_small_one_holds_nothing() {
        let take = |frames: &mut Frames, mut input: &[u8]| {
            frames.take(&mut input, |_| Verdict::Take(SMALL_FRAME_BYTES_MAX + 1)).unwrap()
        };
        let (mut small, mut long) = (frames(), frames());
        let sent = encode(PREFIX, "shares", &[0; SMALL_FRAME_BYTES_MAX]);
        take(&mut small, &sent[..sent.len() - 1]);
        assert_eq!((small.held(), small.progress()), (0, (1, SMALL_FRAME_BYTES_MAX - 1)));
        let sent = encode(PREFIX, "shares", &[0; SMALL_FRAME_BYTES_MAX + 1]);
        // Announced but not received: costs nothing.
        take(&mut long, &sent[..HEADER_BYTES]);
        assert_eq!(long.held(), 0);
        take(&mut long, &sent[HEADER_BYTES..HEADER_BYTES + 300]);
        assert_eq!(long.held(), 300);
        assert!(take(&mut long, &sent[HEADER_BYTES + 300..]).is_some());
        assert_eq!(long.held(), 0);
    }
}
