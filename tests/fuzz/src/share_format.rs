//! Untrusted bytes as a share of several networks: all shares read are written back as the same bytes, except for the
//! part cut off by the bounded form, which changes no hash; checking never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharechain::chain::share_rules;
use sharechain::coin::{BITCOIN, BITCOIN_REGTEST, LITECOIN};
use sharechain::share::{Contents, Share, ShareRules, Target, inspect, pack, unpack};
use std::sync::LazyLock;

/// Segwit from version 33 on, always and never, so that every layout of every version is covered.
static RULES: LazyLock<Vec<ShareRules>> = LazyLock::new(|| {
    let with_segwit_from = |mut rules: ShareRules, version| {
        rules.segwit_activation_version = version;
        // A fuzzer finds no proof of work, so every target is allowed and met.
        rules.max_target = Target::MAX_256;
        rules.pow = |_| [0; 32];
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
        let packed = pack(&contents);
        assert_eq!(unpack(&packed, rules).as_ref(), Ok(&contents), "the bounded form is read as itself");
        let committed = contents.share_info.segwit_data.as_ref().map(|segwit| segwit.txid_merkle_branch.len());
        match committed {
            Some(committed) if packed != bytes => {
                assert!(packed.len() < bytes.len());
                assert_eq!(contents.merkle_branch.len(), committed, "only what is too long is cut");
            }
            Some(committed) => assert!(contents.merkle_branch.len() <= committed),
            None => assert_eq!(packed, bytes),
        }
        let _ = inspect(bytes, rules);
        if let Ok(share) = Share::check(contents.clone(), rules) {
            assert_eq!(share.to_bytes(), packed);
            if let Some(committed) = committed {
                // A copy that any peer can make without work.
                let merkle_branch = vec![[7; 32]; committed + 40].into();
                let inflated = Contents { merkle_branch, ..contents };
                let read = Share::from_bytes(&pack(&inflated), rules).expect("it is the same share");
                assert_eq!(read.hash(), share.hash());
                assert_eq!(read.contents().merkle_branch.len(), committed);
            }
        }
    }
});
