//! Scripts of addresses, and the other way round.

use super::*;
use crate::share::test_rules;
use bech32::{Fe32, Hrp, segwit};
use proptest::prelude::*;

fn script_hex(text: &str, version: ShareVersion) -> Option<String> {
    let payee = Payee::from_address(text, &test_rules()).unwrap();
    payee.script(version).ok().map(hex::encode)
}

fn bech32_of(version: u8, program: &[u8]) -> String {
    let mut data = vec![Fe32::try_from(version).unwrap()];
    data.extend(bech32::primitives::iter::ByteIterExt::bytes_to_fes(program.iter().copied()));
    let hrp = Hrp::parse("tb").unwrap();
    bech32::primitives::iter::Fe32IterExt::with_checksum::<Bech32>(data.into_iter(), &hrp).chars().collect()
}

#[test]
fn leading_zeroes_of_a_program_are_padded_to_20_bytes_from_version_35_only() {
    for (zeroes, unpadded_length) in [(1, Some(19)), (2, Some(18))] {
        let mut program = [0xab; 20];
        program[..zeroes].fill(0);
        let text = bech32_of(0, &program);
        assert_eq!(script_hex(&text, ShareVersion::V35), Some(format!("0014{}", hex::encode(program))));
        let short = hex::encode(&program[zeroes..]);
        let expected = unpadded_length.map(|length: u8| format!("00{length:02x}{short}"));
        assert_eq!(script_hex(&text, ShareVersion::V34), expected);
    }
    let nibble = bech32_of(0, &[&[0x0b][..], &[0xab; 19]].concat());
    assert_eq!(script_hex(&nibble, ShareVersion::V34), None);
    assert_eq!(script_hex(&nibble, ShareVersion::V35), Some(format!("00140b{}", "ab".repeat(19))));
}

#[test]
fn a_32_byte_program_with_a_leading_zero_nibble_is_never_payable() {
    let text = bech32_of(0, &[&[0x0b][..], &[0xab; 31]].concat());
    let payee = Payee::from_address(&text, &test_rules()).unwrap();
    let error = payee.script(ShareVersion::V35).unwrap_err();
    assert!(error.to_string().ends_with("cannot be paid in share version 35"), "{error}");
    // A zero byte is dropped instead.
    let text = bech32_of(0, &[&[0][..], &[0xab; 31]].concat());
    assert_eq!(script_hex(&text, ShareVersion::V35), Some(format!("001f{}", "ab".repeat(31))));
}

#[test]
fn taproot_in_bech32m_is_no_address() {
    let text = segwit::encode(Hrp::parse("tb").unwrap(), segwit::VERSION_1, &[7; 32]).unwrap();
    assert_eq!(Payee::from_address(&text, &test_rules()), Err(PayeeError::NotAnAddress(text)));
}

#[test]
fn two_spellings_of_one_script_are_two_payees() {
    let lower = bech32_of(0, &[0xab; 20]);
    let upper = lower.to_ascii_uppercase();
    assert_eq!(script_hex(&lower, ShareVersion::V35), script_hex(&upper, ShareVersion::V35));
    let [lower, upper] = [lower, upper].map(|text| Payee::from_address(&text, &test_rules()).unwrap());
    assert_ne!(lower, upper);
    assert!(upper < lower, "upper case sorts first");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,100}") {
        let _ = Payee::from_address(&text, &test_rules());
    }

    #[test]
    fn every_program_that_the_reference_can_pay_is_within_the_longest_script(
        version in 0u8..=16, program in prop::collection::vec(any::<u8>(), 2..=40), zeroes in 0usize..4,
    ) {
        let mut program = program;
        let zeroes = zeroes.min(program.len());
        program[..zeroes].fill(0);
        let text = bech32_of(version, &program);
        if let Ok(payee) = Payee::from_address(&text, &test_rules()) {
            for version in ShareVersion::ALL.iter().copied() {
                if let Ok(script) = payee.script(version) {
                    prop_assert_eq!(usize::from(script[1]), script.len() - 2);
                }
            }
        } else {
            prop_assert!(version == 0 && !matches!(program.len(), 20 | 32));
        }
    }
}
