//! Payees: an address as text, and the script that P2Pool derives from it, quirks included (protocol section 4.7).
//!
//! Not to be confused with `address.rs`, which decides what we accept from our miners: this module follows the
//! reference for any text in a share.

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp, segwit};
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

/// Kinds of a payee's hash in version 36.
const HASH_P2PKH: u8 = 0;
const HASH_P2WPKH: u8 = 1;
const HASH_P2SH: u8 = 2;

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
    /// Shares of version 36 hold a hash of 20 bytes: no P2WSH, no taproot (protocol-v36 trap 6).
    #[error("`{text}` is no P2PKH, P2SH or P2WPKH address, the only kinds that share version {version} can hold")]
    NotHash {
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
    /// Payees named by those scripts, where that is another text.
    of_padded: Option<Payee>,
    of_unpadded: Option<Payee>,
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
        let Scripts { text, padded, unpadded, .. } = &*payee.0;
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
        // A listed payee is one of a window, in the form that its version counts by.
        Ok(Payee::new(whole.address, script(whole.padded)?, script(whole.unpadded)?))
    }
}

impl Payee {
    fn new(text: impl Into<Box<str>>, padded: Option<Script>, unpadded: Option<Script>) -> Payee {
        Payee(Arc::new(Scripts { text: text.into(), padded, unpadded, of_padded: None, of_unpadded: None }))
    }

    /// Memory use in bytes, as if this were the only clone.
    pub(super) fn memory_bytes(&self) -> usize {
        let other = |payee: &Option<Payee>| payee.as_ref().map_or(0, Payee::memory_bytes);
        size_of::<Scripts>() + self.0.text.len() + other(&self.0.of_padded) + other(&self.0.of_unpadded)
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
            return Ok(Payee::new(text, Some(script), Some(script)));
        }
        let Some(program) = decode_bech32(text, &rules.human_readable_part) else {
            return Err(PayeeError::NotAnAddress(text.chars().take(BECH32_CHARACTERS_MAX).collect()));
        };
        let padded = witness_script(&program, 20);
        let unpadded = witness_script(&program, 0);
        let named_by = |script: &Option<Script>| {
            let payee = Payee::from_witness_script((*script)?, rules);
            (payee.as_str() != text).then_some(payee)
        };
        let (of_padded, of_unpadded) = (named_by(&padded), named_by(&unpadded));
        Ok(Payee(Arc::new(Scripts { text: text.into(), padded, unpadded, of_padded, of_unpadded })))
    }

    /// Payee of a share of version 36: a hash of 20 bytes and the kind of its script. Kinds other than 1 and 2 act as 0
    /// (protocol-v36 section 3.3, protocol-v36 trap 1).
    pub fn from_hash(kind: u8, hash: &[u8; 20], rules: &ShareRules) -> Payee {
        match kind {
            HASH_P2WPKH => Payee::from_witness_script(Script::new(&[&[0, 20], hash]), rules),
            HASH_P2SH => Payee::from_script_hash(hash, rules),
            _ => Payee::from_pubkey_hash(hash, rules),
        }
    }

    /// Payee of a script's hash: its P2SH address.
    pub(super) fn from_script_hash(hash: &[u8; 20], rules: &ShareRules) -> Payee {
        let mut payload = [rules.address_p2sh_version; 21];
        payload[1..].copy_from_slice(hash);
        let script = Some(Script::new(&[&[0xa9, 0x14], hash, &[0x87]]));
        Payee::new(base58::encode_check(&payload), script, script)
    }

    /// Payee named by a script of `OP_0` and a program. A program that is none of version 0 has no address: its script
    /// in hex stands for one.
    fn from_witness_script(script: Script, rules: &ShareRules) -> Payee {
        let program = script.as_bytes().get(2..).unwrap_or_default();
        let text = Hrp::parse(&rules.human_readable_part)
            .ok()
            .filter(|_| matches!(program.len(), 20 | 32))
            .and_then(|hrp| segwit::encode_v0(hrp, program).ok())
            .unwrap_or_else(|| hex::encode(script.as_bytes()));
        Payee::new(text, Some(script), Some(script))
    }

    /// The payee as versions that count by output script name it: the same for all texts of one script. `version` is
    /// that of the share.
    pub fn by_script(&self, version: ShareVersion) -> &Payee {
        let named = match version.rules().programs {
            Programs::Padded => &self.0.of_padded,
            Programs::Unpadded => &self.0.of_unpadded,
        };
        named.as_ref().unwrap_or(self)
    }

    /// Creates the payee of a bare pubkey hash, as in shares below version 34: its P2PKH address.
    pub fn from_pubkey_hash(hash: &[u8; 20], rules: &ShareRules) -> Payee {
        Payee::from_versioned_hash(hash, rules.address_version)
    }

    /// Creates the payee of a pubkey hash on a network whose P2PKH addresses have the version byte `address_version`.
    pub fn from_versioned_hash(hash: &[u8; 20], address_version: u8) -> Payee {
        let mut payload = [address_version; 21];
        payload[1..].copy_from_slice(hash);
        let text = base58::encode_check(&payload);
        let script = Some(p2pkh(hash));
        Payee::new(text, script, script)
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
            (PayeeForm::Script, script) => match hash_of(script) {
                Some((kind, hash)) => Ok(Payout::Hash { hash, kind }),
                None => Err(PayeeError::NotHash { text: self.as_str().into(), version }),
            },
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

/// Kind and hash of a script that a share of version 36 can hold.
fn hash_of(script: &[u8]) -> Option<(u8, [u8; 20])> {
    let (kind, hash) = match script {
        [0x76, 0xa9, 0x14, hash @ .., 0x88, 0xac] => (HASH_P2PKH, hash),
        [0xa9, 0x14, hash @ .., 0x87] => (HASH_P2SH, hash),
        [0, 0x14, hash @ ..] => (HASH_P2WPKH, hash),
        _ => return None,
    };
    Some((kind, hash.try_into().ok()?))
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
mod tests;
