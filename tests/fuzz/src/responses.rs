//! Responses of a daemon as arbitrary JSON: each becomes a template or an error with a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2pool::bitcoind::responses::{BlockHeaderInfo, BlockTemplate, ChainInfo, NetworkInfo};
use stratum::printable::is_printable;

fuzz_target!(|input: &[u8]| {
    if let Ok(template) = serde_json::from_slice::<BlockTemplate>(input)
        && let Err(error) = template.into_template(&["csv", "segwit", "taproot", "signet", "mweb"], 4_000_000)
    {
        assert!(!error.to_string().is_empty());
    }
    let is_printable = |text: &str| text.chars().all(is_printable);
    if let Ok(chain) = serde_json::from_slice::<ChainInfo>(input) {
        assert!(is_printable(&chain.chain));
    }
    if let Ok(node) = serde_json::from_slice::<NetworkInfo>(input) {
        assert!(is_printable(&node.user_agent) && node.warnings.texts().iter().all(|text| is_printable(text)));
    }
    let _ = serde_json::from_slice::<BlockHeaderInfo>(input);
});
