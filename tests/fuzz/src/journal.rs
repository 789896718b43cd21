//! File of a found block with arbitrary contents: it is read or set aside, and a damaged one is not found again.
#![no_main]

use bitcoin::hashes::{Hash, sha256d};
use libfuzzer_sys::fuzz_target;
use p2pool::blocks::journal::Journal;
use p2pool::runtime::data_dir::DataDir;
use p2pool::runtime::disk::DiskHealth;
use sharechain::coin::BITCOIN_REGTEST;
use std::cell::RefCell;
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

fuzz_target!(|input: &[u8]| {
    let Some((mode, content)) = input.split_first() else { return };
    let mut content = content.to_vec();
    if mode % 2 == 0 {
        // A fuzzer never finds the checksum itself.
        let sum = sha256d::Hash::hash(&content);
        content.extend_from_slice(sum.as_byte_array());
    }
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder for the files"));
        let data_dir = DataDir::open(folder.path(), &BITCOIN_REGTEST).expect("the folder can be made");
        let journal = Journal::open(Arc::default(), &data_dir, DiskHealth::new()).expect("the folder can be made");
        let blocks = folder.path().join("found_blocks");
        let hash = hash_named_in(&content);
        fs::write(blocks.join(format!("0000001-{hash}.block")), &content).expect("the file can be written");
        let found = journal.unfinished().expect("the folder can be listed");
        assert_eq!(found.blocks.len() + found.damaged.len(), 1);
        let again = journal.unfinished().expect("the folder can be listed");
        assert_eq!((again.blocks.len(), again.damaged.len()), (found.blocks.len(), 0));
        fs::remove_dir_all(blocks).expect("the folder can be deleted");
    });
});

/// Hash named in the header, if any: only a file of that name is read.
fn hash_named_in(content: &[u8]) -> String {
    let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let header: Option<serde_json::Value> = serde_json::from_slice(line).ok();
    let hash = header.and_then(|header| Some(header.get("hash")?.as_str()?.to_owned()));
    hash.filter(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())).unwrap_or("none".into())
}
