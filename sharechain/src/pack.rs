//! Byte primitives of the share protocol: the multi-byte rules of protocol section 2, read strictly.
//!
//! Input is untrusted, so reading never allocates for bytes that are missing, accepts only one encoding of each value,
//! and names the field at which it failed.

use thiserror::Error;

/// Parse error. `field` names the field, `at` is the byte offset from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UnpackError {
    /// The bytes end inside a field. The reference tolerates some cases (section 2, "truncation"); no node sends them.
    #[error("{field} at byte {at} needs {wanted} bytes, but {left} are left")]
    Short {
        /// Name of the field.
        field: &'static str,
        /// Offset of the field.
        at: usize,
        /// Bytes that the field needs.
        wanted: u64,
        /// Remaining bytes.
        left: usize,
    },
    /// A varint longer than its value needs, which would give one share several encodings.
    #[error("{field} at byte {at} writes {value} in a form longer than needed")]
    NotCanonical {
        /// Name of the field.
        field: &'static str,
        /// Offset of the field.
        at: usize,
        /// Encoded value.
        value: u64,
    },
    /// A list that claims more elements than the remaining bytes can hold.
    #[error("{field} at byte {at} claims {count} elements, but {left} bytes are left")]
    TooMany {
        /// Name of the field.
        field: &'static str,
        /// Offset of the count.
        at: usize,
        /// Claimed number of elements.
        count: u64,
        /// Remaining bytes.
        left: usize,
    },
    /// A value outside the field's type.
    #[error("{field} at byte {at} has the impossible value {value}")]
    Impossible {
        /// Name of the field.
        field: &'static str,
        /// Offset of the field.
        at: usize,
        /// The value read (for text, its first byte).
        value: u64,
    },
    /// Trailing bytes.
    #[error("{left} bytes follow the end of {field} at byte {at}")]
    Trailing {
        /// Name of the last field.
        field: &'static str,
        /// Offset of its end.
        at: usize,
        /// Number of trailing bytes.
        left: usize,
    },
}

/// Reads values from the front of a byte string.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Creates a reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// Number of bytes read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Number of bytes left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Returns the bytes from `from` (an earlier [`Reader::at`]) to the current position.
    pub fn since(&self, from: usize) -> &'a [u8] {
        &self.bytes[from.min(self.at)..self.at]
    }

    /// Reads `count` bytes.
    ///
    /// # Errors
    /// [`UnpackError::Short`].
    pub fn bytes(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], UnpackError> {
        match self.bytes[self.at..].get(..count) {
            Some(taken) => {
                self.at += count;
                Ok(taken)
            }
            None => Err(self.short(field, count as u64)),
        }
    }

    /// Reads `N` bytes as an array.
    ///
    /// # Errors
    /// [`UnpackError::Short`].
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], UnpackError> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(taken) => {
                self.at += N;
                Ok(*taken)
            }
            None => Err(self.short(field, N as u64)),
        }
    }

    /// Reads an unsigned byte.
    ///
    /// # Errors
    /// [`UnpackError::Short`].
    pub fn u8(&mut self, field: &'static str) -> Result<u8, UnpackError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    /// Reads a little-endian u16.
    ///
    /// # Errors
    /// [`UnpackError::Short`].
    pub fn u16(&mut self, field: &'static str) -> Result<u16, UnpackError> {
        self.array(field).map(u16::from_le_bytes)
    }

    /// Reads a big-endian u16: the port of an address record, the only one in the protocol (trap 4).
    ///
    /// # Errors
    /// [`UnpackError::Short`].
    pub fn u16_big_endian(&mut self, field: &'static str) -> Result<u16, UnpackError> {
        self.array(field).map(u16::from_be_bytes)
    }

    /// Reads a little-endian u32.
    ///
    /// # Errors
    /// [`UnpackError::Short`].
    pub fn u32(&mut self, field: &'static str) -> Result<u32, UnpackError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// Reads a little-endian u64.
    ///
    /// # Errors
    /// [`UnpackError::Short`].
    pub fn u64(&mut self, field: &'static str) -> Result<u64, UnpackError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// Reads a little-endian u128.
    ///
    /// # Errors
    /// [`UnpackError::Short`].
    pub fn u128(&mut self, field: &'static str) -> Result<u128, UnpackError> {
        self.array(field).map(u128::from_le_bytes)
    }

    /// Reads a 256-bit value; `None` if it is zero (`PossiblyNone`).
    ///
    /// # Errors
    /// [`UnpackError::Short`].
    pub fn hash_or_none(&mut self, field: &'static str) -> Result<Option<[u8; 32]>, UnpackError> {
        self.array(field).map(|hash| (hash != [0; 32]).then_some(hash))
    }

    /// Reads a varint (Bitcoin's CompactSize) in its shortest form.
    ///
    /// # Errors
    /// [`UnpackError::Short`], [`UnpackError::NotCanonical`].
    pub fn varint(&mut self, field: &'static str) -> Result<u64, UnpackError> {
        let at = self.at;
        let (value, least) = match self.u8(field)? {
            0xfd => (u64::from(self.u16(field)?), 0xfd),
            0xfe => (u64::from(self.u32(field)?), 0x1_0000),
            0xff => (self.u64(field)?, 0x1_0000_0000),
            small => (u64::from(small), 0),
        };
        if value < least { Err(UnpackError::NotCanonical { field, at, value }) } else { Ok(value) }
    }

    /// Reads a varint byte count, then the bytes.
    ///
    /// # Errors
    /// [`UnpackError::Short`], [`UnpackError::NotCanonical`].
    pub fn varstr(&mut self, field: &'static str) -> Result<&'a [u8], UnpackError> {
        let wanted = self.varint(field)?;
        match usize::try_from(wanted) {
            Ok(count) if count <= self.left() => self.bytes(field, count),
            _ => Err(self.short(field, wanted)),
        }
    }

    /// Reads the count of a list whose elements take `element_bytes_min` bytes or more (at least one). Never more than
    /// the remaining bytes can hold, so it is safe to allocate for.
    ///
    /// # Errors
    /// [`UnpackError::Short`], [`UnpackError::NotCanonical`], [`UnpackError::TooMany`].
    pub fn count(&mut self, field: &'static str, element_bytes_min: usize) -> Result<usize, UnpackError> {
        let at = self.at;
        let count = self.varint(field)?;
        match usize::try_from(count) {
            Ok(fits) if fits <= self.left() / element_bytes_min.max(1) => Ok(fits),
            _ => Err(UnpackError::TooMany { field, at, count, left: self.left() }),
        }
    }

    /// Reads a list of 256-bit hashes.
    ///
    /// # Errors
    /// [`UnpackError::Short`], [`UnpackError::NotCanonical`], [`UnpackError::TooMany`].
    pub fn hashes(&mut self, field: &'static str) -> Result<Box<[[u8; 32]]>, UnpackError> {
        self.first_hashes(field, usize::MAX)
    }

    /// Reads a list of 256-bit hashes, and returns only the first `kept`; the others are skipped.
    ///
    /// # Errors
    /// [`UnpackError::Short`], [`UnpackError::NotCanonical`], [`UnpackError::TooMany`].
    pub fn first_hashes(&mut self, field: &'static str, kept: usize) -> Result<Box<[[u8; 32]]>, UnpackError> {
        let count = self.count(field, 32)?;
        let (hashes, _) = self.bytes(field, 32 * count)?.as_chunks::<32>();
        Ok(hashes[..count.min(kept)].into())
    }

    /// Checks that no bytes are left: trailing bytes are an error everywhere in the share protocol.
    ///
    /// # Errors
    /// [`UnpackError::Trailing`].
    pub fn finish(self, field: &'static str) -> Result<(), UnpackError> {
        match self.left() {
            0 => Ok(()),
            left => Err(UnpackError::Trailing { field, at: self.at, left }),
        }
    }

    fn short(&self, field: &'static str, wanted: u64) -> UnpackError {
        UnpackError::Short { field, at: self.at, wanted, left: self.left() }
    }
}

/// Appends values to a byte string in the encodings that [`Reader`] reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Bytes counted instead of kept; `None` for a writer that keeps them.
    counted: Option<usize>,
}

impl Writer {
    /// Creates an empty writer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Writer {
        Writer { bytes: Vec::with_capacity(capacity), counted: None }
    }

    /// Creates a writer that only counts bytes: read the size from [`Writer::at`].
    pub fn counting() -> Writer {
        Writer { bytes: Vec::new(), counted: Some(0) }
    }

    /// Returns the bytes written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Number of bytes written so far.
    pub fn at(&self) -> usize {
        self.counted.unwrap_or(self.bytes.len())
    }

    /// Bytes written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        match &mut self.counted {
            Some(counted) => *counted += bytes.len(),
            None => self.bytes.extend_from_slice(bytes),
        }
    }

    /// Writes an unsigned byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Writes a little-endian u16.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    /// Writes a big-endian u16 (see [`Reader::u16_big_endian`]).
    pub fn u16_big_endian(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    /// Writes a little-endian u32.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Writes a little-endian u64.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Writes a little-endian u128.
    pub fn u128(&mut self, value: u128) {
        self.bytes(&value.to_le_bytes());
    }

    /// Writes a hash, or zeroes for `None`. A zero hash reads back as `None`; no real hash is zero.
    pub fn hash_or_none(&mut self, hash: Option<&[u8; 32]>) {
        self.bytes(hash.unwrap_or(&[0; 32]));
    }

    /// Writes a varint in its shortest form.
    pub fn varint(&mut self, value: u64) {
        if value < 0xfd {
            self.u8(value.to_le_bytes()[0]);
        } else if let Ok(value) = u16::try_from(value) {
            self.u8(0xfd);
            self.u16(value);
        } else if let Ok(value) = u32::try_from(value) {
            self.u8(0xfe);
            self.u32(value);
        } else {
            self.u8(0xff);
            self.u64(value);
        }
    }

    /// Writes a count as a varint.
    pub fn count(&mut self, count: usize) {
        self.varint(count as u64);
    }

    /// Writes a byte count, then the bytes.
    pub fn varstr(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes(bytes);
    }

    /// Writes a count of hashes, then the hashes.
    pub fn hashes(&mut self, hashes: &[[u8; 32]]) {
        self.count(hashes.len());
        self.bytes(hashes.as_flattened());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_longer_than_its_bytes_is_refused_before_it_is_allocated() {
        let bytes = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3];
        let error = Reader::new(&bytes).hashes("branch").unwrap_err();
        assert_eq!(error, UnpackError::TooMany { field: "branch", at: 0, count: u64::MAX >> 1, left: 3 });
        assert_eq!(error.to_string(), "branch at byte 0 claims 9223372036854775807 elements, but 3 bytes are left");
        assert!(matches!(Reader::new(&bytes).varstr("text"), Err(UnpackError::Short { left: 3, .. })));
    }

    #[test]
    fn only_the_shortest_form_of_a_varint_is_read() {
        for bytes in [&[0xfd, 0xfc, 0][..], &[0xfe, 0xff, 0xff, 0, 0], &[0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]] {
            assert!(matches!(Reader::new(bytes).varint("count"), Err(UnpackError::NotCanonical { at: 0, .. })));
        }
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        let mut reader = Reader::new(&[1, 2, 3]);
        reader.u8("first").unwrap();
        assert_eq!(reader.finish("message").unwrap_err().to_string(), "2 bytes follow the end of message at byte 1");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            small: u8, short: u16, word: u32, long: u64, huge: u128,
            text in prop::collection::vec(any::<u8>(), 0..600),
            hashes in prop::collection::vec(any::<[u8; 32]>(), 0..5),
        ) {
            let mut writer = Writer::default();
            writer.u8(small);
            writer.u16(short);
            writer.u16_big_endian(short);
            writer.u32(word);
            writer.u64(long);
            writer.u128(huge);
            for value in [u64::from(small), u64::from(short), u64::from(word), long] {
                writer.varint(value);
            }
            writer.varstr(&text);
            writer.hashes(&hashes);
            writer.hash_or_none(None);
            let mut counting = Writer::counting();
            counting.varstr(writer.as_bytes());
            counting.hashes(&hashes);
            prop_assert_eq!(counting.at(), writer.at() + hashes.len() * 32 + 1 + if writer.at() < 0xfd { 1 } else { 3 });
            prop_assert!(counting.into_bytes().is_empty());
            let bytes = writer.into_bytes();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.u8("")?, small);
            prop_assert_eq!(reader.u16("")?, short);
            prop_assert_eq!(reader.u16_big_endian("")?, short);
            prop_assert_eq!(reader.u32("")?, word);
            prop_assert_eq!(reader.u64("")?, long);
            prop_assert_eq!(reader.u128("")?, huge);
            for value in [u64::from(small), u64::from(short), u64::from(word), long] {
                prop_assert_eq!(reader.varint("")?, value);
            }
            prop_assert_eq!(reader.varstr("")?, &text[..]);
            prop_assert_eq!(&*reader.hashes("")?, &hashes[..]);
            prop_assert_eq!(reader.hash_or_none("")?, None);
            reader.finish("")?;
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut reader = Reader::new(&bytes);
            let _ = reader.varint("");
            let _ = reader.clone().varstr("");
            let _ = reader.clone().hashes("");
            let _ = reader.clone().count("", 0);
            let _ = reader.u128("");
            let _ = reader.finish("");
        }
    }
}
