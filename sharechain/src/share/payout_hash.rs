//! `merged_payout_hash`: a share's commitment to the undecayed weights of its window (protocol-v36 section 6.3).

use std::fmt::Write;

use bitcoin::hashes::{Hash, sha256d};
use ruint::aliases::U320;

use super::{SCRIPT_BYTES_MAX, Weights};
use crate::merkle::Digest;

/// Usual length of an entry in bytes: a script of 25 bytes in hex, a weight below 2^94, and two separators.
const ENTRY_BYTES: usize = 50 + 29 + 2;

/// Hashes the undecayed weights of the shares that vote for version 36, whose payees are named by output script (see
/// [`Payee::by_script`](super::Payee::by_script)). `None` if no payee has any weight.
pub fn payout_hash(weights: &Weights) -> Option<Digest> {
    let payees = weights.by_payee.iter().filter(|(_, weight)| !weight.is_zero());
    // A payee without a script has no valid share.
    let mut entries: Vec<(&[u8], U320)> =
        payees.map(|(payee, weight)| (payee.newest_script().unwrap_or_default(), *weight)).collect();
    if entries.is_empty() {
        return None;
    }
    entries.sort_unstable_by_key(|(script, _)| *script);
    let mut text = String::with_capacity((entries.len() + 2) * ENTRY_BYTES);
    for (script, weight) in entries {
        push_hex(&mut text, script);
        push_weight(&mut text, weight);
        text.push('|');
    }
    text.push('T');
    push_weight(&mut text, weights.total);
    text.push_str("|D");
    push_weight(&mut text, weights.donation);
    Some(sha256d::Hash::hash(text.as_bytes()).to_byte_array())
}

/// Appends a script in lower-case hex.
fn push_hex(text: &mut String, script: &[u8]) {
    let mut digits = [0; 2 * SCRIPT_BYTES_MAX];
    let digits = &mut digits[..2 * script.len()];
    hex::encode_to_slice(script, digits).expect("two digits for each byte");
    text.push_str(std::str::from_utf8(digits).expect("digits are ASCII"));
}

/// Appends a colon and a decimal number.
fn push_weight(text: &mut String, weight: U320) {
    // A conversion from 320 bits takes many times as long. Writing to a string cannot fail.
    let _ = match u128::try_from(weight) {
        Ok(weight) => write!(text, ":{weight}"),
        Err(_) => write!(text, ":{weight}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::{Payee, display_hex, test_rules};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn pubkey_hash(of: u8) -> Payee {
        Payee::from_hash(0, &[of; 20], &test_rules())
    }

    fn witness(of: u8) -> Payee {
        Payee::from_hash(1, &[of; 20], &test_rules())
    }

    fn script_hash(of: u8) -> Payee {
        Payee::from_hash(2, &[of; 20], &test_rules())
    }

    fn weights(of: &[(Payee, U320)], donation: U320) -> Weights {
        let total = of.iter().fold(donation, |sum, (_, weight)| sum + weight);
        Weights { by_payee: of.iter().cloned().collect(), total, donation }
    }

    #[test]
    fn the_hash_is_that_of_the_worked_example() {
        let of = [
            (script_hash(0x0c), U320::from(17_179_607_040_u64)),
            (pubkey_hash(0x0a), U320::from(4_294_901_760_u64)),
            (witness(0x0b), U320::from(8_503_951_360_u64)),
        ];
        let weights = weights(&of, U320::from(85_852_160));
        assert_eq!(weights.total, U320::from(30_064_312_320_u64));
        let hash = payout_hash(&weights).unwrap();
        assert_eq!(display_hex(&hash), "ed77baae996af094d18bc293306fb7a3a0a1fc712ba33e6f63fb4faeb0ce6dbc");
    }

    #[test]
    fn without_weights_there_is_no_hash_and_a_weight_of_zero_is_no_entry() {
        assert_eq!(payout_hash(&Weights::default()), None);
        let zero = (pubkey_hash(1), U320::ZERO);
        assert_eq!(payout_hash(&weights(std::slice::from_ref(&zero), U320::from(7))), None);
        let one = (pubkey_hash(2), U320::from(7));
        let (both, alone) = (weights(&[zero, one.clone()], U320::ZERO), weights(&[one], U320::ZERO));
        assert_eq!(payout_hash(&both), payout_hash(&alone));
    }

    proptest! {
        #[test]
        fn the_hash_is_of_the_text_of_section_6_3(
            of in prop::collection::btree_map((0u8..3, any::<u8>()), (any::<u64>(), 0usize..220), 1..40),
            donation: u128,
        ) {
            let of: Vec<(Payee, U320)> = of
                .into_iter()
                .map(|((kind, number), (weight, shift))| {
                    let payee = [pubkey_hash, witness, script_hash][usize::from(kind)](number);
                    (payee, (U320::from(weight) + U320::from(1)) << shift)
                })
                .collect();
            let weights = weights(&of, U320::from(donation));
            let mut by_script: BTreeMap<String, U320> = BTreeMap::new();
            for (payee, weight) in &of {
                by_script.insert(hex::encode(payee.newest_script().unwrap()), *weight);
            }
            let entries: Vec<String> = by_script.iter().map(|(script, weight)| format!("{script}:{weight}")).collect();
            let text = format!("{}|T:{}|D:{donation}", entries.join("|"), weights.total);
            let wanted = sha256d::Hash::hash(text.as_bytes()).to_byte_array();
            prop_assert_eq!(payout_hash(&weights), Some(wanted));
        }
    }
}
