//! Any file as the configuration of a node: it is read, or refused with errors of one printable line each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2pool::config::{Config, Environment, Refused};
use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use stratum::printable::is_printable;
use tempfile::TempDir;

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

fuzz_target!(|input: &[u8]| {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder for the file"));
        let path = folder.path().join("node.toml");
        fs::write(&path, input).expect("the file can be written");
        let words: [OsString; 3] = ["p2pool".into(), "--config".into(), path.into()];
        match Config::read(words, &Environment::default()) {
            Ok(config) => assert!(matches!(config, Config::Node(_))),
            Err(Refused::Values(errors)) => {
                assert!(!errors.is_empty());
                for error in errors {
                    let text = error.to_string();
                    assert!(text.chars().all(is_printable), "{text:?}");
                }
            }
            Err(Refused::Arguments(_) | Refused::Check(_)) => panic!("a file is not the command line"),
        }
    });
});
