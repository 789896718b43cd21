//! Format of a record in a segment, and the search for records around a damaged spot.
//!
//! ```text
//!  marker 4 │ length 4 │ crc32 4 │ kind 1 │ payload …
//! ```
//!
//! `length` counts kind and payload. The checksum covers the segment's salt, the length, the kind and the payload. The
//! salt is secret: a share whose bytes look like a record, on a disk that damages just that share, must not be read as
//! one.

use sharechain::pack::{Reader, UnpackError, Writer};
use sharechain::share::{SHARE_BYTES_MAX, ShareHash};
use std::ops::Range;

/// Starts every record, so that a reader finds the next one after damage.
const MARKER: [u8; 4] = [0xf7, b'S', b'h', 0x9d];

/// Size of a record's head, before its kind.
const HEAD_BYTES: usize = 12;

/// Size of a share record without the share's own bytes.
const SHARE_EXTRA_BYTES: usize = HEAD_BYTES + 1 + 1 + 32 + 8 + 4;

/// Maximum size of a record.
pub(super) const RECORD_BYTES_MAX: usize = SHARE_EXTRA_BYTES + SHARE_BYTES_MAX;

/// After damage, records up to this size are tried at every marker...
const SHORT_BYTES: usize = 4096;

/// ...and longer ones while their total length is at most this many times the segment. A share can be mined whose bytes
/// are markers and lengths throughout, each of which would cost a checksum over everything after it.
const LONG_PASSES_MAX: usize = 16;

const KIND_SHARE: u8 = 1;
const KIND_VERIFIED: u8 = 2;

/// Record of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// A share. `verified` is set if the record was copied after its mark came.
    Share { hash: ShareHash, sequence: u64, time_seen: u32, verified: bool, bytes: &'a [u8] },
    /// The share with this hash passed all checks.
    Verified(ShareHash),
}

impl Record<'_> {
    /// Size of the framed record in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Record::Share { bytes, .. } => SHARE_EXTRA_BYTES + bytes.len(),
            Record::Verified(_) => HEAD_BYTES + 1 + 32,
        }
    }

    /// Appends the record, framed, to `out`.
    pub(super) fn write(&self, salt: u32, out: &mut Vec<u8>) {
        let mut body = Writer::with_capacity(self.bytes() - HEAD_BYTES);
        match self {
            Record::Share { hash, sequence, time_seen, verified, bytes } => {
                body.u8(KIND_SHARE);
                body.u8(u8::from(*verified));
                body.bytes(&hash.0);
                body.u64(*sequence);
                body.u32(*time_seen);
                body.bytes(bytes);
            }
            Record::Verified(hash) => {
                body.u8(KIND_VERIFIED);
                body.bytes(&hash.0);
            }
        }
        let body = body.into_bytes();
        let length = u32::try_from(body.len()).expect("shares longer than SHARE_BYTES_MAX are refused");
        out.reserve(HEAD_BYTES + body.len());
        out.extend_from_slice(&MARKER);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&checksum(salt, length, &body).to_le_bytes());
        out.extend_from_slice(&body);
    }
}

/// A piece of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A whole record and its range.
    Record(Range<usize>, Record<'a>),
    /// Bytes that are no record.
    Damage(Range<usize>),
}

/// Splits a segment's bytes into records, from `at` on.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    bytes: &'a [u8],
    at: usize,
    salt: u32,
    /// Remaining bytes of long candidates that may be checked.
    long_left: usize,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize, salt: u32) -> Self {
        Self { bytes, at, salt, long_left: LONG_PASSES_MAX * bytes.len() }
    }

    /// True if a record starts `at` this marker; false also when checking it would cost too much.
    fn is_record(&mut self, at: usize) -> bool {
        let bytes = &self.bytes[at..];
        let Some(length) = length_of(bytes) else { return false };
        if length > SHORT_BYTES {
            let Some(left) = self.long_left.checked_sub(length) else { return false };
            self.long_left = left;
        }
        read(bytes, self.salt).is_some()
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let start = self.at;
        if start >= self.bytes.len() {
            return None;
        }
        if let Some((length, record)) = read(&self.bytes[start..], self.salt) {
            self.at += length;
            return Some(Piece::Record(start..self.at, record));
        }
        let bytes = self.bytes;
        let marks = bytes[start + 1..].windows(MARKER.len()).enumerate();
        let mut candidates = marks.filter(|(_, window)| *window == MARKER).map(|(offset, _)| start + 1 + offset);
        let end = candidates.find(|at| self.is_record(*at));
        self.at = end.unwrap_or(bytes.len());
        Some(Piece::Damage(start..self.at))
    }
}

/// Returns the body length announced by the head at the start of `bytes`; `None` if they are shorter than that.
fn length_of(bytes: &[u8]) -> Option<usize> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    (length <= rest.len()).then_some(length)
}

/// Parses the record at the start of `bytes`; returns its length too, or `None` if there is no record.
fn read(bytes: &[u8], salt: u32) -> Option<(usize, Record<'_>)> {
    let length = length_of(bytes)?;
    let body = &bytes[HEAD_BYTES..HEAD_BYTES + length];
    let sum = checksum(salt, u32::try_from(length).ok()?, body).to_le_bytes();
    if bytes[..4] != MARKER || bytes[8..HEAD_BYTES] != sum {
        return None;
    }
    let record = read_body(body).ok()?;
    Some((HEAD_BYTES + body.len(), record))
}

/// True if `bytes` are the start of a record that was never finished, and so worthless.
pub(super) fn is_torn(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return bytes.iter().zip(&MARKER).all(|(byte, wanted)| byte == wanted);
    };
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    head[..4] == MARKER && length > rest.len() && length <= RECORD_BYTES_MAX
}

fn read_body(body: &[u8]) -> Result<Record<'_>, UnpackError> {
    let mut reader = Reader::new(body);
    let impossible = |field, value: u8| UnpackError::Impossible { field, at: 0, value: value.into() };
    let record = match reader.u8("kind")? {
        KIND_SHARE => {
            let verified = match reader.u8("verified")? {
                0 => false,
                1 => true,
                other => return Err(impossible("verified", other)),
            };
            let hash = ShareHash(reader.array("hash")?);
            let sequence = reader.u64("sequence")?;
            let time_seen = reader.u32("time_seen")?;
            let bytes = reader.bytes("bytes", reader.left())?;
            Record::Share { hash, sequence, time_seen, verified, bytes }
        }
        KIND_VERIFIED => Record::Verified(ShareHash(reader.array("hash")?)),
        other => return Err(impossible("kind", other)),
    };
    reader.finish("record")?;
    Ok(record)
}

fn checksum(salt: u32, length: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(byte: u8, bytes: &[u8]) -> Record<'_> {
        Record::Share { hash: ShareHash([byte; 32]), sequence: 1, time_seen: 2, verified: false, bytes }
    }

    fn records(bytes: &[u8]) -> Vec<Record<'_>> {
        let pieces = Pieces::new(bytes, 0, 7);
        pieces.filter_map(|piece| if let Piece::Record(_, record) = piece { Some(record) } else { None }).collect()
    }

    #[test]
    fn a_flipped_byte_costs_the_record_that_it_is_in() {
        let all = [share(1, b"first"), Record::Verified(ShareHash([1; 32])), share(2, b"second")];
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for record in all {
            record.write(7, &mut bytes);
            ends.push(bytes.len());
        }
        assert_eq!(records(&bytes), all);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            let lost = ends.iter().filter(|end| **end <= at).count();
            let left: Vec<_> = (0..3).filter(|index| *index != lost).map(|index| all[index]).collect();
            assert_eq!(records(&bad), left, "byte {at}");
        }
    }

    #[test]
    fn a_record_is_as_long_as_it_says() {
        for record in [share(1, b"first"), share(1, b""), Record::Verified(ShareHash([1; 32]))] {
            let mut bytes = Vec::new();
            record.write(7, &mut bytes);
            assert_eq!(bytes.len(), record.bytes());
        }
    }

    #[test]
    fn a_damaged_share_full_of_markers_takes_a_bounded_search_and_costs_no_usual_record_behind_it() {
        // Each head announces all that follows it.
        let length = 3_000_000;
        let mut markers = Vec::with_capacity(length);
        while markers.len() < length {
            markers.extend_from_slice(&MARKER);
            markers.extend_from_slice(&u32::try_from(length - markers.len() - 8).unwrap().to_le_bytes());
            markers.extend_from_slice(&[0; 4]);
        }
        let usual = [7; SHORT_BYTES - 100];
        let mut bytes = Vec::new();
        share(1, &markers).write(7, &mut bytes);
        let end = bytes.len();
        share(2, &usual).write(7, &mut bytes);
        bytes[20] ^= 1;
        let mut pieces = Pieces::new(&bytes, 0, 7);
        assert_eq!(pieces.next(), Some(Piece::Damage(0..end)));
        assert_eq!(pieces.next(), Some(Piece::Record(end..bytes.len(), share(2, &usual))));
        assert!(pieces.long_left < length, "it is spent, and not exceeded");
    }

    #[test]
    fn a_record_inside_a_damaged_share_is_not_read_as_one() {
        let mut forged = Vec::new();
        Record::Verified(ShareHash([9; 32])).write(0, &mut forged);
        let mut bytes = Vec::new();
        share(1, &forged).write(7, &mut bytes);
        bytes[5] ^= 1;
        assert_eq!(records(&bytes), []);
    }
}
