//! Strangers' bytes as a share of several networks: whatever is read is written back as the same bytes, and checking,
//! whatever it finds, does not panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2pool::network::{BITCOIN, BITCOIN_REGTEST, LITECOIN};
use p2pool::share::{Share, ShareRules, inspect, pack, unpack};
use p2pool::sharechain::share_rules;
use std::sync::LazyLock;

/// Segwit from version 33 on, always and never, so that every layout of every version is reached.
static RULES: LazyLock<Vec<ShareRules>> = LazyLock::new(|| {
    let with_segwit_from = |mut rules: ShareRules, version| {
        rules.segwit_activation_version = version;
        // Scrypt would take a hundred times as long as all else together.
        rules.pow = p2pool::share::pow_sha256d;
        rules
    };
    [(&BITCOIN, 33), (&BITCOIN_REGTEST, 15), (&LITECOIN, 0)]
        .map(|(network, version)| with_segwit_from(share_rules(network), version))
        .into()
});

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let rules = &RULES[usize::from(*choice) % RULES.len()];
    if let Ok(contents) = unpack(bytes, rules) {
        assert_eq!(pack(&contents), bytes);
        let _ = inspect(bytes, rules);
        if let Ok(share) = Share::check(contents, rules) {
            assert_eq!(share.to_bytes(), bytes);
        }
    }
});
