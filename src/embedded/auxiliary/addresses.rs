//! Addresses of a merged chain: text to script and back.

use bitcoin::hashes::Hash;
use bitcoin::{PubkeyHash, Script, ScriptBuf, ScriptHash, WitnessProgram, WitnessVersion, base58};

/// Longest text that is parsed (BIP 173).
const CHARACTERS_MAX: usize = 90;

/// Bytes of the hash in an address: HASH160.
const HASH_BYTES: usize = 20;

/// Prefixes of a chain's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Version byte of P2PKH.
    pub pubkey_hash: u8,
    /// Version byte of P2SH.
    pub script_hash: u8,
    /// Human-readable part, on chains with SegWit.
    pub human_readable_part: Option<&'static str>,
}

impl Addresses {
    /// Script that pays `text`; `None` if it is no address of this chain.
    pub fn script(&self, text: &str) -> Option<ScriptBuf> {
        if text.len() > CHARACTERS_MAX {
            return None;
        }
        let Ok(payload) = base58::decode_check(text) else { return self.witness_script(text) };
        let (version, hash) = payload.split_first()?;
        let hash: [u8; HASH_BYTES] = hash.try_into().ok()?;
        match *version {
            version if version == self.pubkey_hash => Some(ScriptBuf::new_p2pkh(&PubkeyHash::from_byte_array(hash))),
            version if version == self.script_hash => Some(ScriptBuf::new_p2sh(&ScriptHash::from_byte_array(hash))),
            _ => None,
        }
    }

    fn witness_script(&self, text: &str) -> Option<ScriptBuf> {
        let (prefix, version, program) = bech32::segwit::decode(text).ok()?;
        if !self.human_readable_part.is_some_and(|own| own.eq_ignore_ascii_case(prefix.as_str())) {
            return None;
        }
        let version = WitnessVersion::try_from(version.to_u8()).ok()?;
        Some(ScriptBuf::new_witness_program(&WitnessProgram::new(version, &program).ok()?))
    }

    /// Address that `script` pays, if there is one.
    pub fn text(&self, script: &Script) -> Option<String> {
        let bytes = script.as_bytes();
        let base58 = |version, hash: &[u8]| base58::encode_check(&[&[version], hash].concat());
        if script.is_p2pkh() {
            return Some(base58(self.pubkey_hash, &bytes[3..3 + HASH_BYTES]));
        }
        if script.is_p2sh() {
            return Some(base58(self.script_hash, &bytes[2..2 + HASH_BYTES]));
        }
        let prefix = bech32::Hrp::parse(self.human_readable_part?).ok()?;
        let version = bech32::Fe32::try_from(script.witness_version()?.to_num()).ok()?;
        bech32::segwit::encode(prefix, version, &bytes[2..]).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMECOIN: Addresses = Addresses { pubkey_hash: 52, script_hash: 13, human_readable_part: Some("nc") };

    #[test]
    fn addresses_of_every_kind_are_read_and_written() {
        let scripts = [
            ScriptBuf::new_p2pkh(&PubkeyHash::hash(b"a key")),
            ScriptBuf::new_p2sh(&ScriptHash::hash(b"a script")),
            ScriptBuf::new_witness_program(&WitnessProgram::new(WitnessVersion::V0, &[7; 20]).unwrap()),
            ScriptBuf::new_witness_program(&WitnessProgram::new(WitnessVersion::V1, &[7; 32]).unwrap()),
        ];
        for (script, start) in scripts.iter().zip(["M", "6", "nc1q", "nc1p"]) {
            let text = NAMECOIN.text(script).unwrap();
            assert!(text.starts_with(start) || start.len() == 1, "{text}");
            assert_eq!(NAMECOIN.script(&text).as_ref(), Some(script), "{text}");
        }
    }

    #[test]
    fn addresses_of_other_chains_and_other_texts_are_none() {
        let dogecoin = Addresses { pubkey_hash: 30, script_hash: 22, human_readable_part: None };
        let script = ScriptBuf::new_p2pkh(&PubkeyHash::hash(b"a key"));
        let text = dogecoin.text(&script).unwrap();
        assert!(text.starts_with('D'), "{text}");
        for other in [&text, &text[1..], "", "nc1q", "alice", &"1".repeat(1000)] {
            assert_eq!(NAMECOIN.script(other), None, "{other}");
        }
        let witness = ScriptBuf::new_witness_program(&WitnessProgram::new(WitnessVersion::V0, &[7; 20]).unwrap());
        assert_eq!(dogecoin.script(&NAMECOIN.text(&witness).unwrap()), None);
        assert_eq!(dogecoin.text(&witness), None);
        assert_eq!(NAMECOIN.text(Script::from_bytes(&[0x51])), None);
    }
}
