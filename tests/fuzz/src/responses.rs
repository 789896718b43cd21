//! Responses of a daemon as arbitrary JSON: each becomes a template or an error with a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2pool::bitcoind::responses::{BlockHeaderInfo, BlockTemplate, ChainInfo, NetworkInfo};

fuzz_target!(|input: &[u8]| {
    if let Ok(template) = serde_json::from_slice::<BlockTemplate>(input)
        && let Err(error) = template.into_template(&["csv", "segwit", "taproot", "signet", "mweb"])
    {
        assert!(!error.to_string().is_empty());
    }
    let _ = serde_json::from_slice::<ChainInfo>(input);
    let _ = serde_json::from_slice::<NetworkInfo>(input);
    let _ = serde_json::from_slice::<BlockHeaderInfo>(input);
});
