//! Payees: an address as text, and the script that P2Pool derives from it, quirks included (protocol section 4.7).
//!
//! Not to be confused with `address.rs`, which decides what we accept from our miners: this module follows the
//! reference for any text in a share.

use bech32::Bech32;
use bech32::primitives::decode::CheckedHrpstring;
use bitcoin::base58;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use thiserror::Error;

use super::{Payout, ShareRules, ShareVersion};
use crate::rules::{PayeeForm, Programs};

/// Maximum script length of a payee: a witness program of 40 bytes with its opcode and length.
pub const SCRIPT_BYTES_MAX: usize = 42;

/// Longest bech32 address (BIP 173), in characters. A base58 address is shorter.
const BECH32_CHARACTERS_MAX: usize = 90;

/// Reasons why a text in a share has no payee, which makes the share invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PayeeError {
    /// Neither base58check nor bech32; includes bech32m (taproot, trap 28).
    #[error("{0:?} is no address")]
    NotAnAddress(String),
    /// A valid base58 address whose version this network does not use.
    #[error("{text:?} has address version {version}, which this network does not have")]
    OtherVersion {
        /// Address as given.
        text: String,
        /// Version byte of the address.
        version: u8,
    },
    /// A witness program whose leading zero breaks the reference: its share can never be valid.
    #[error("{text:?} has a witness program with a leading zero, which cannot be paid in share version {version}")]
    LeadingZero {
        /// Address as given.
        text: String,
        /// Version of the share.
        version: ShareVersion,
    },
    /// Shares before version 34 hold a bare pubkey hash.
    #[error("`{text}` is no pubkey hash's address, the only kind that share version {version} can hold")]
    NotPubkeyHash {
        /// Address as given.
        text: String,
        /// Version of the share.
        version: ShareVersion,
    },
}

/// Payee of the sharechain. Identified by its text: two spellings of one script are two payees (section 4.7), ordered
/// by their bytes. Cheap to clone; holds its scripts, so that a coinbase of hundreds of payees decodes no address.
#[derive(Clone)]
pub struct Payee(Arc<Scripts>);

struct Scripts {
    text: Box<str>,
    /// Script from share version 35 on, then the one before; `None` where the reference fails.
    padded: Option<Script>,
    unpadded: Option<Script>,
}

/// Short script, stored inline.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Script {
    length: u8,
    bytes: [u8; SCRIPT_BYTES_MAX],
}

impl Script {
    fn new(parts: &[&[u8]]) -> Script {
        let mut script = Script { length: 0, bytes: [0; SCRIPT_BYTES_MAX] };
        for byte in parts.iter().copied().flatten() {
            script.bytes[usize::from(script.length)] = *byte;
            script.length += 1;
        }
        script
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl Serialize for Payee {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Serialises a payee with its scripts, for readers without a network's rules: use it with `serde(with)`. `Payee`
/// itself serialises as its address alone.
pub mod whole {
    use super::{
        BECH32_CHARACTERS_MAX, Deserialize, Deserializer, Payee, SCRIPT_BYTES_MAX, Script, Scripts, Serializer,
    };
    use serde::Serialize;
    use serde::de::Error;
    use std::borrow::Cow;
    use std::sync::Arc;

    #[derive(Serialize, serde::Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        address: Cow<'a, str>,
        padded: Option<String>,
        unpadded: Option<String>,
    }

    /// Writes the address, and the scripts in hex.
    ///
    /// # Errors
    /// Errors of the serializer.
    pub fn serialize<S: Serializer>(payee: &Payee, serializer: S) -> Result<S::Ok, S::Error> {
        let digits = |script: &Option<Script>| script.as_ref().map(|script| hex::encode(script.as_bytes()));
        let Scripts { text, padded, unpadded } = &*payee.0;
        let whole = Whole { address: Cow::Borrowed(text), padded: digits(padded), unpadded: digits(unpadded) };
        whole.serialize(serializer)
    }

    /// Reads the output of [`serialize`].
    ///
    /// # Errors
    /// Malformed input, or an address or script longer than any payee's.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Payee, D::Error> {
        let whole = Whole::deserialize(deserializer)?;
        if whole.address.len() > BECH32_CHARACTERS_MAX {
            return Err(D::Error::custom("address too long"));
        }
        let script = |digits: Option<String>| -> Result<Option<Script>, D::Error> {
            let Some(digits) = digits else { return Ok(None) };
            let bytes = hex::decode(digits).map_err(D::Error::custom)?;
            if bytes.len() > SCRIPT_BYTES_MAX {
                return Err(D::Error::custom("payee script too long"));
            }
            Ok(Some(Script::new(&[&bytes])))
        };
        let (padded, unpadded) = (script(whole.padded)?, script(whole.unpadded)?);
        Ok(Payee(Arc::new(Scripts { text: whole.address.into(), padded, unpadded })))
    }
}

impl Payee {
    /// Memory use in bytes, as if this were the only clone.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Scripts>() + self.0.text.len()
    }

    /// Parses the payee of the address `text`, which is untrusted.
    ///
    /// # Errors
    /// [`PayeeError::NotAnAddress`], [`PayeeError::OtherVersion`]. Whether the payee can be paid depends on the share's
    /// version: see [`Payee::script`].
    pub fn from_address(text: &str, rules: &ShareRules) -> Result<Payee, PayeeError> {
        if let Some((version, hash)) = decode_base58(text) {
            // The order matters if a coin uses one version byte for both kinds.
            let script = if version == rules.address_p2sh_version {
                Script::new(&[&[0xa9, 0x14], &hash, &[0x87]])
            } else if version == rules.address_version {
                p2pkh(&hash)
            } else {
                return Err(PayeeError::OtherVersion { text: text.into(), version });
            };
            return Ok(Payee(Arc::new(Scripts { text: text.into(), padded: Some(script), unpadded: Some(script) })));
        }
        let Some(program) = decode_bech32(text, &rules.human_readable_part) else {
            return Err(PayeeError::NotAnAddress(text.chars().take(BECH32_CHARACTERS_MAX).collect()));
        };
        let padded = witness_script(&program, 20);
        let unpadded = witness_script(&program, 0);
        Ok(Payee(Arc::new(Scripts { text: text.into(), padded, unpadded })))
    }

    /// Creates the payee of a bare pubkey hash, as in shares below version 34: its P2PKH address.
    pub fn from_pubkey_hash(hash: &[u8; 20], rules: &ShareRules) -> Payee {
        Payee::from_versioned_hash(hash, rules.address_version)
    }

    /// Creates the payee of a pubkey hash on a network whose P2PKH addresses have the version byte `address_version`.
    pub fn from_versioned_hash(hash: &[u8; 20], address_version: u8) -> Payee {
        let mut payload = [address_version; 21];
        payload[1..].copy_from_slice(hash);
        let text = base58::encode_check(&payload).into();
        let script = Some(p2pkh(hash));
        Payee(Arc::new(Scripts { text, padded: script, unpadded: script }))
    }

    /// Address as encoded in shares.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Returns the script paid by a share of the newest version.
    ///
    /// # Errors
    /// [`PayeeError::LeadingZero`].
    pub fn newest_script(&self) -> Result<&[u8], PayeeError> {
        self.script(ShareVersion::NEWEST)
    }

    /// Returns the payee's encoding in a share of `version`.
    ///
    /// # Errors
    /// If that version cannot encode it.
    pub fn payout(&self, version: ShareVersion) -> Result<Payout, PayeeError> {
        let script = self.script(version)?;
        match (version.rules().payee, script) {
            (PayeeForm::Address, _) => Ok(Payout::Address(self.as_str().into())),
            (PayeeForm::PubkeyHash, [0x76, 0xa9, 0x14, hash @ .., 0x88, 0xac]) if hash.len() == 20 => {
                Ok(Payout::PubkeyHash(hash.try_into().expect("twenty bytes")))
            }
            (PayeeForm::PubkeyHash, _) => Err(PayeeError::NotPubkeyHash { text: self.as_str().into(), version }),
        }
    }

    /// Returns the script paid by a share of `version`.
    ///
    /// # Errors
    /// [`PayeeError::LeadingZero`].
    pub fn script(&self, version: ShareVersion) -> Result<&[u8], PayeeError> {
        let script = match version.rules().programs {
            Programs::Padded => &self.0.padded,
            Programs::Unpadded => &self.0.unpadded,
        };
        match script {
            Some(script) => Ok(script.as_bytes()),
            None => Err(PayeeError::LeadingZero { text: self.as_str().into(), version }),
        }
    }
}

fn p2pkh(hash: &[u8; 20]) -> Script {
    Script::new(&[&[0x76, 0xa9, 0x14], hash, &[0x88, 0xac]])
}

/// Decodes a base58check address of exactly 20 bytes to version byte and hash; anything else is left to bech32.
fn decode_base58(text: &str) -> Option<(u8, [u8; 20])> {
    // 25 bytes take at most 35 digits; leading zero bytes take one each. Longer texts would cost quadratic time.
    if text.len() > 36 {
        return None;
    }
    let payload = base58::decode_check(text).ok()?;
    let (version, hash) = payload.split_first()?;
    Some((*version, <[u8; 20]>::try_from(hash).ok()?))
}

/// Decodes the witness program of a BIP 173 address. Any witness version is accepted and ignored: the script is version
/// 0's in every case (trap 27).
fn decode_bech32(text: &str, human_readable_part: &str) -> Option<Vec<u8>> {
    if text.len() > BECH32_CHARACTERS_MAX {
        return None;
    }
    let mut checked = CheckedHrpstring::new::<Bech32>(text).ok()?;
    if !checked.hrp().as_str().eq_ignore_ascii_case(human_readable_part) {
        return None;
    }
    let version = checked.remove_witness_version()?.to_u8();
    checked.validate_segwit_padding().ok()?;
    let program: Vec<u8> = checked.byte_iter().collect();
    let fits = match version {
        0 => matches!(program.len(), 20 | 32),
        1..=16 => (2..=40).contains(&program.len()),
        _ => false,
    };
    fits.then_some(program)
}

/// Builds `OP_0` and the program, after the reference's conversion to an integer and back to hex digits, at least two
/// for each of `bytes_min`: leading zero bytes are lost, and an odd number of digits fails (`None`).
fn witness_script(program: &[u8], bytes_min: usize) -> Option<Script> {
    let zeroes = program.iter().take_while(|byte| **byte == 0).count();
    let significant = &program[zeroes..];
    let digits = match significant.first() {
        Some(first) => 2 * significant.len() - usize::from(*first < 0x10),
        // The integer 0 is written as one digit.
        None => 1,
    };
    let digits = digits.max(2 * bytes_min);
    if digits % 2 == 1 {
        return None;
    }
    let length = digits / 2;
    let padding = vec![0; length - significant.len()];
    let length = u8::try_from(length).expect("a witness program has at most 40 bytes");
    Some(Script::new(&[&[0, length], &padding, significant]))
}

impl PartialEq for Payee {
    fn eq(&self, other: &Payee) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.text == other.0.text
    }
}

impl Eq for Payee {}

impl Hash for Payee {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl Ord for Payee {
    fn cmp(&self, other: &Payee) -> Ordering {
        self.0.text.as_bytes().cmp(other.0.text.as_bytes())
    }
}

impl PartialOrd for Payee {
    fn partial_cmp(&self, other: &Payee) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Borrow<str> for Payee {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Payee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Payee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
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
}
