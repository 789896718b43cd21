//! Any user name: it is parsed or refused with a reason, and an address in it is the only payee.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2pool::work::Payout;
use p2pool::work::username::parse;
use sharechain::coin::BITCOIN;
use sharechain::coin::address::script_of;
use stratum::Printable;

fuzz_target!(|name: &str| {
    let script = bitcoin::ScriptBuf::from_bytes(vec![0x51]);
    let default =
        Payout { script: script.clone(), address: "the node's own".into(), share_difficulty: None, merged: None };
    match parse(name, &BITCOIN, &default) {
        Ok(worker) => {
            assert_eq!(worker.name, Printable::new(&worker.name), "escaping again changes nothing");
            assert!(!worker.name.contains(['<', '>', '&', '"', '\'', '\u{1b}', '\n']), "{}", worker.name);
            let first = name.trim().split(['.', '_', '/', '+']).next().unwrap_or_default();
            if let Ok(meant) = script_of(first, &BITCOIN.parent) {
                assert_eq!(worker.payout.script, meant, "{name}");
            }
        }
        Err(refusal) => assert!(!refusal.0.is_empty()),
    }
});
