//! How one record stands in a segment, and how the records around a damaged spot are found again.
//!
//! ```text
//!  marker 4 │ length 4 │ crc32 4 │ kind 1 │ payload …
//! ```
//!
//! `length` counts kind and payload. The checksum covers the segment's salt, the length, the kind and the payload. The
//! salt is what nobody outside knows: a share whose bytes look like a record, on a disk that damages just that share,
//! must not be read as one.

use std::ops::Range;

use crate::pack::{Reader, UnpackError, Writer};
use crate::share::ShareHash;

/// Starts every record, so that a reader who lost his place finds the next.
const MARKER: [u8; 4] = [0xf7, b'S', b'h', 0x9d];

/// Bytes of a record before its kind.
const HEAD_BYTES: usize = 12;

/// Bytes of a share record beside the share's own.
const SHARE_EXTRA_BYTES: usize = HEAD_BYTES + 1 + 1 + 32 + 8 + 4;

/// Longest share that is kept: the largest real ones list some thousand transactions, 32 bytes each.
pub const SHARE_BYTES_MAX: usize = 1 << 20;

const KIND_SHARE: u8 = 1;
const KIND_VERIFIED: u8 = 2;

/// What a segment holds one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// A share. `verified` is set where a record was copied after its mark came.
    Share { hash: ShareHash, sequence: u64, time_seen: u32, verified: bool, bytes: &'a [u8] },
    /// The share with this hash passed all checks.
    Verified(ShareHash),
}

impl Record<'_> {
    /// Appends the record, framed, to `out`.
    pub(super) fn write(&self, salt: u32, out: &mut Vec<u8>) {
        let mut body = Writer::with_capacity(SHARE_EXTRA_BYTES);
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
        out.extend_from_slice(&MARKER);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&checksum(salt, length, &body).to_le_bytes());
        out.extend_from_slice(&body);
    }
}

/// A stretch of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A whole record, and where it stands.
    Record(Range<usize>, Record<'a>),
    /// Bytes that are none.
    Damage(Range<usize>),
}

/// Cuts a segment's bytes into records, from `at` on.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    bytes: &'a [u8],
    at: usize,
    salt: u32,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize, salt: u32) -> Self {
        Self { bytes, at, salt }
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
        let marks = self.bytes[start + 1..].windows(MARKER.len()).enumerate();
        let mut candidates = marks.filter(|(_, window)| *window == MARKER).map(|(offset, _)| start + 1 + offset);
        let end = candidates.find(|at| read(&self.bytes[*at..], self.salt).is_some());
        self.at = end.unwrap_or(self.bytes.len());
        Some(Piece::Damage(start..self.at))
    }
}

/// The record that `bytes` begin with, and its length; none if they begin with anything else.
fn read(bytes: &[u8], salt: u32) -> Option<(usize, Record<'_>)> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let (marker, numbers) = head.split_first_chunk::<4>()?;
    let (length, sum) = numbers.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    let body = rest.get(..usize::try_from(length).ok()?)?;
    if *marker != MARKER || checksum(salt, length, body).to_le_bytes() != sum {
        return None;
    }
    let record = read_body(body).ok()?;
    Some((HEAD_BYTES + body.len(), record))
}

/// Whether `bytes` are the beginning of a record whose end was never written, and so worth nothing to anybody.
pub(super) fn is_torn(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return bytes.iter().zip(&MARKER).all(|(byte, wanted)| byte == wanted);
    };
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    head[..4] == MARKER && length > rest.len() && length <= SHARE_EXTRA_BYTES + SHARE_BYTES_MAX
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
    fn a_record_inside_a_damaged_share_is_not_read_as_one() {
        let mut forged = Vec::new();
        Record::Verified(ShareHash([9; 32])).write(0, &mut forged);
        let mut bytes = Vec::new();
        share(1, &forged).write(7, &mut bytes);
        bytes[5] ^= 1;
        assert_eq!(records(&bytes), []);
    }
}
