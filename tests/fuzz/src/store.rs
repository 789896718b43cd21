//! Two share store segments with arbitrary contents: they are read, damage is set aside, and the next start finds the
//! same shares without errors.
//!
//! Input: segment bytes, in which the three bytes `fa 0d c5` stand for a record's marker, length and right checksum, since a
//! fuzzer never finds a checksum; the record goes on up to the next such mark. `fe ed` splits the two segments.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2pool::chain::store::{Store, StoreError};
use std::cell::RefCell;
use std::fs;
use tempfile::TempDir;

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

const RECORD: [u8; 3] = [0xfa, 0x0d, 0xc5];
const SPLIT: [u8; 2] = [0xfe, 0xed];

fuzz_target!(|input: &[u8]| {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder for the files"));
        let segments = folder.path().join("shares");
        fs::create_dir_all(&segments).expect("the folder can be made");
        for (index, part) in parts(input, &SPLIT).into_iter().take(2).enumerate() {
            let path = segments.join(format!("{index:06}-00000000.log"));
            fs::write(path, segment(part)).expect("the file can be written");
        }
        match Store::open(folder.path()) {
            Ok((mut store, first)) => {
                assert_eq!(store.shares(), first.shares.len());
                let hashes: Vec<_> = first.shares.iter().map(|share| share.hash).collect();
                drop(store);
                let again = Store::open(folder.path()).expect("what was opened opens again");
                store = again.0;
                assert_eq!((again.1.shares, again.1.verified), (first.shares, first.verified));
                assert_eq!(again.1.problems, [""; 0]);
                store.forget(&hashes).expect("the files can be deleted");
                assert_eq!(store.shares(), 0);
            }
            Err(error) => assert!(matches!(error, StoreError::Version { .. }), "{error}"),
        }
        fs::remove_dir_all(segments).expect("the folder can be deleted");
    });
});

/// Frames the records in these bytes, as a segment file.
fn segment(bytes: &[u8]) -> Vec<u8> {
    let mut pieces = parts(bytes, &RECORD).into_iter();
    let mut segment = pieces.next().unwrap_or_default().to_vec();
    for body in pieces {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        let mut sum = crc32fast::Hasher::new();
        [&[0; 4][..], &length, body].into_iter().for_each(|part| sum.update(part));
        segment.extend_from_slice(&[0xf7, b'S', b'h', 0x9d]);
        segment.extend_from_slice(&length);
        segment.extend_from_slice(&sum.finalize().to_le_bytes());
        segment.extend_from_slice(body);
    }
    segment
}

fn parts<'a>(mut bytes: &'a [u8], mark: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = bytes.windows(mark.len()).position(|window| window == mark) {
        parts.push(&bytes[..at]);
        bytes = &bytes[at + mark.len()..];
    }
    parts.push(bytes);
    parts
}
