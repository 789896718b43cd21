//! Answers of merged chains' daemons as arbitrary JSON: each becomes a block to mine, or an error with a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2pool::merged::Answer;
use serde_json::{Value, json};
use sharechain::merged::MergedTarget;
use sharechain::merkle::Digest;
use stratum::printable::is_printable;

/// A hash as daemons write it.
fn hex_of(digest: &Digest) -> String {
    digest.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}

fuzz_target!(|input: &[u8]| {
    let Ok(json) = serde_json::from_slice::<Value>(input) else { return };
    match Answer::read(&json) {
        Ok(answer) => {
            let target = match answer.target {
                MergedTarget::Share => "p2pool".to_owned(),
                MergedTarget::Own(target) => {
                    assert!(target.to_le_bytes() != [0; 32]);
                    target.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
                }
            };
            let written = json!({
                "chainid": answer.chain_id, "hash": hex_of(&answer.hash), "target": target, "height": answer.height,
                "previousblockhash": answer.previous_block.as_ref().map(hex_of), "coinbasevalue": answer.value,
            });
            assert_eq!(Answer::read(&written), Ok(answer));
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && text.chars().all(is_printable) && text.chars().count() < 200);
        }
    }
});
