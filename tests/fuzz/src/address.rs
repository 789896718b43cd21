//! Any text as an address, on every coin: only an address has a script, and never one that shares cannot pay.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharechain::chain::share_rules;
use sharechain::coin::ALL;
use sharechain::coin::address::script_of;
use sharechain::share::Payee;

fuzz_target!(|text: &str| {
    for network in ALL {
        match script_of(text, &network.parent) {
            Ok(script) => assert!(script.len() >= 22 && script.len() <= 34, "{script}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        let _ = Payee::from_address(text, &share_rules(network));
    }
});
