//! Payout addresses: parses text to a script, and separates worker names from addresses that cannot be paid.

use bitcoin::base58;
use bitcoin::{Script, ScriptBuf};
use thiserror::Error;

use crate::coin::Parent;

/// Longest text that is parsed: bech32 addresses have at most 90 characters (BIP 173).
const ADDRESS_CHARACTERS_MAX: usize = 90;

/// Longest text that is recognised as an address of Litecoin's extension block; such addresses have 121 or 119
/// characters.
const MWEB_CHARACTERS_MAX: usize = 128;

/// Human-readable parts of addresses of Litecoin's extension block, with the separator: main and test chains.
const MWEB_PREFIXES: [&str; 2] = ["ltcmweb1", "tmweb1"];

/// Digits of base58, in ascending order.
const BASE58_DIGITS: &str = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Reasons why a text is not an address that we can pay.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// The text does not look like an address: it is a worker name.
    #[error("`{0}` is not an address")]
    NotAnAddress(String),
    /// Looks like an address, but the checksum fails or a character is impossible: a typo.
    #[error("`{0}` looks like an address but is mistyped: {1}")]
    Mistyped(String, String),
    /// An address of another coin or network.
    #[error("`{given}` is an address of another network; this one's look like {expected}")]
    OtherNetwork {
        /// The text as entered.
        given: String,
        /// Prefixes of this network's addresses.
        expected: String,
    },
    /// A P2SH address in a spelling that the coin's daemon still accepts and that is void in shares: peers would refuse
    /// them (protocol section 4.7). Other coins may have the same addresses, so that it is not simply respelled.
    #[error(
        "`{given}` is an address of another coin, or this coin's old spelling of `{new}`: P2Pool's shares only know the \
         new one; use `{new}` if it is yours"
    )]
    OldSpelling {
        /// The text as entered.
        given: String,
        /// The same script in the spelling of today.
        new: String,
    },
    /// An address of Litecoin's extension block: a coinbase has no outputs there.
    #[error("`{0}` is an MWEB address, which no coinbase can pay; use a {1}1q… address")]
    Mweb(String, &'static str),
    /// A valid address of a kind that P2Pool cannot pay.
    #[error("`{0}` has witness version {1} (taproot or later), which P2Pool's shares cannot pay; use a {2}1q… address")]
    Unpayable(String, u8, &'static str),
}

/// Beginnings of a chain's addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefixes {
    /// Version byte of P2PKH addresses.
    pub(super) address_version: u8,
    /// Version byte of P2SH addresses.
    pub(super) address_p2sh_version: u8,
    /// Version byte of an older spelling of P2SH addresses.
    pub(super) address_p2sh_version_old: Option<u8>,
    /// Human-readable part of segwit addresses; `None` on a chain without them.
    pub(super) human_readable_part: Option<&'static str>,
}

impl From<&Parent> for Prefixes {
    fn from(parent: &Parent) -> Self {
        Self {
            address_version: parent.address_version,
            address_p2sh_version: parent.address_p2sh_version,
            address_p2sh_version_old: parent.address_p2sh_version_old,
            human_readable_part: Some(parent.human_readable_part),
        }
    }
}

/// Returns the script that pays `text` on the coin `parent`.
///
/// # Errors
/// [`AddressError::NotAnAddress`] for a plain name; every other error is for a text that was most likely meant as an
/// address, so that paying a different one would be wrong.
pub fn script_of(text: &str, parent: &Parent) -> Result<ScriptBuf, AddressError> {
    parse(text, &parent.into())
}

/// Returns the script that pays `text` on a chain with these prefixes.
///
/// # Errors
/// As [`script_of`].
pub(super) fn parse(text: &str, prefixes: &Prefixes) -> Result<ScriptBuf, AddressError> {
    if looks_like_mweb(text) {
        return Err(match prefixes.human_readable_part {
            Some(part) => AddressError::Mweb(text.into(), part),
            None => other_network(text, prefixes),
        });
    }
    if !text.is_ascii() || text.is_empty() || text.len() > ADDRESS_CHARACTERS_MAX {
        return Err(AddressError::NotAnAddress(text.chars().take(ADDRESS_CHARACTERS_MAX).collect()));
    }
    match base58::decode_check(text) {
        Ok(payload) => return base58_script(text, &payload, prefixes),
        Err(error) if looks_like_base58(text, prefixes) => {
            return Err(AddressError::Mistyped(text.into(), error.to_string()));
        }
        Err(_) => {}
    }
    match bech32::segwit::decode(text) {
        Ok((hrp, version, program)) => segwit_script(text, &hrp, version.to_u8(), &program, prefixes),
        Err(error) if looks_like_bech32(text, prefixes) => Err(AddressError::Mistyped(text.into(), error.to_string())),
        Err(_) if looks_foreign(text) => Err(other_network(text, prefixes)),
        Err(_) => Err(AddressError::NotAnAddress(text.into())),
    }
}

/// Returns the address of `script` on the coin `parent`, if it is of a kind that [`script_of`] reads.
pub fn of_script(script: &Script, parent: &Parent) -> Option<String> {
    text_of(script, &parent.into())
}

/// Returns the address of `script` on a chain with these prefixes, if it is of a kind that [`parse`] reads.
pub(super) fn text_of(script: &Script, prefixes: &Prefixes) -> Option<String> {
    if script.is_p2pkh() {
        // OP_DUP OP_HASH160 <20 bytes> OP_EQUALVERIFY OP_CHECKSIG.
        return Some(base58_text(prefixes.address_version, &script.as_bytes()[3..23]));
    }
    if script.is_p2sh() {
        // OP_HASH160 <20 bytes> OP_EQUAL.
        return Some(base58_text(prefixes.address_p2sh_version, &script.as_bytes()[2..22]));
    }
    if script.is_p2wpkh() || script.is_p2wsh() {
        let hrp = bech32::Hrp::parse(prefixes.human_readable_part?).ok()?;
        return bech32::segwit::encode_v0(hrp, &script.as_bytes()[2..]).ok();
    }
    None
}

fn base58_text(version: u8, hash: &[u8]) -> String {
    base58::encode_check(&[&[version], hash].concat())
}

fn base58_script(text: &str, payload: &[u8], prefixes: &Prefixes) -> Result<ScriptBuf, AddressError> {
    let (Some(version), Ok(hash)) = (payload.first(), <[u8; 20]>::try_from(&payload[1.min(payload.len())..])) else {
        return Err(other_network(text, prefixes));
    };
    let script = if *version == prefixes.address_version {
        [&[0x76, 0xa9, 0x14], &hash[..], &[0x88, 0xac]].concat()
    } else if *version == prefixes.address_p2sh_version {
        [&[0xa9, 0x14], &hash[..], &[0x87]].concat()
    } else if Some(*version) == prefixes.address_p2sh_version_old {
        let new = base58_text(prefixes.address_p2sh_version, &hash);
        return Err(AddressError::OldSpelling { given: text.into(), new });
    } else {
        return Err(other_network(text, prefixes));
    };
    Ok(script.into())
}

fn segwit_script(
    text: &str,
    hrp: &bech32::Hrp,
    version: u8,
    program: &[u8],
    prefixes: &Prefixes,
) -> Result<ScriptBuf, AddressError> {
    let Some(part) = prefixes.human_readable_part.filter(|part| hrp.as_str().eq_ignore_ascii_case(part)) else {
        return Err(other_network(text, prefixes));
    };
    // P2Pool's shares turn every witness program into one of version 0 (protocol section 4.7): a payout to a taproot
    // address would go to a script that no key can spend.
    if version != 0 {
        return Err(AddressError::Unpayable(text.into(), version, part));
    }
    let length = u8::try_from(program.len()).expect("a witness program has at most 40 bytes");
    Ok([&[0, length], program].concat().into())
}

fn other_network(text: &str, prefixes: &Prefixes) -> AddressError {
    let firsts = [prefixes.address_version, prefixes.address_p2sh_version].map(first_characters).concat();
    let of_segwit = prefixes.human_readable_part.map(|part| format!("{part}1q…"));
    let mut examples: Vec<String> = firsts.chars().map(|first| format!("{first}…")).chain(of_segwit).collect();
    let last = examples.pop().unwrap_or_default();
    AddressError::OtherNetwork { given: text.into(), expected: format!("{} or {last}", examples.join(", ")) }
}

/// Characters that base58 addresses of this version byte begin with.
fn first_characters(version: u8) -> String {
    let first = |fill: u8| base58_text(version, &[fill; 20]).chars().next().and_then(|digit| BASE58_DIGITS.find(digit));
    match (first(0), first(0xff)) {
        (Some(low), Some(high)) if low <= high => BASE58_DIGITS[low..=high].to_owned(),
        // Longer texts begin with small digits again.
        (Some(low), Some(high)) => [&BASE58_DIGITS[..=high], &BASE58_DIGITS[low..]].concat(),
        _ => String::new(),
    }
}

/// True if a text that is not valid base58 was most likely meant as an address: by its length, its first character and
/// its random mix of letters and digits. `0`, `O`, `I` and `l`, which base58 avoids, are typical typos.
fn looks_like_base58(text: &str, prefixes: &Prefixes) -> bool {
    (25..=36).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().any(|byte| byte.is_ascii_uppercase())
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
        && (text.starts_with(['1', '2', '3', 'm', 'n', 'L', 'M'])
            || [prefixes.address_version, prefixes.address_p2sh_version]
                .iter()
                .any(|version| first_characters(*version).contains(&text[..1])))
}

/// True if a text that is not a valid segwit address was most likely meant as one.
fn looks_like_bech32(text: &str, prefixes: &Prefixes) -> bool {
    const PARTS: [&str; 6] = ["bc", "tb", "bcrt", "ltc", "tltc", "rltc"];
    let lower = text.to_ascii_lowercase();
    let is_of = |part: &str| {
        lower.strip_prefix(part).and_then(|rest| rest.strip_prefix('1')).is_some_and(|rest| rest.len() >= 11)
    };
    PARTS.into_iter().chain(prefixes.human_readable_part).any(is_of)
        && lower.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// True if a text was most likely meant as an address of Litecoin's extension block, which is longer than other
/// bech32: without this it would be taken for a name, and its work would pay the node.
fn looks_like_mweb(text: &str) -> bool {
    text.len() <= MWEB_CHARACTERS_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && MWEB_PREFIXES.iter().any(|prefix| {
            let (start, rest) = text.split_at_checked(prefix.len()).unwrap_or_default();
            start.eq_ignore_ascii_case(prefix) && rest.len() >= 11
        })
}

/// True if a text has the form of another coin's addresses: Bitcoin Cash, Ethereum.
fn looks_foreign(text: &str) -> bool {
    let cash = text.split_once(':').map_or(text, |(_, rest)| rest);
    let is_cash = cash.len() == 42
        && cash.starts_with(['q', 'p'])
        && cash.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_ethereum = text
        .strip_prefix("0x")
        .is_some_and(|rest| rest.len() == 40 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    is_cash || is_ethereum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::{BITCOIN, BITCOIN_REGTEST, BITCOIN_TESTNET};
    use proptest::prelude::*;

    fn hex_of(text: &str, network: &crate::coin::Network) -> String {
        script_of(text, &network.parent).unwrap().to_hex_string()
    }

    #[test]
    fn the_kinds_that_can_be_paid() {
        assert_eq!(
            hex_of("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", &BITCOIN),
            "76a91477bff20c60e522dfaa3350c39b030a5d004e839a88ac"
        );
        assert_eq!(
            hex_of("3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", &BITCOIN),
            "a914b472a266d0bd89c13706a4132ccfb16f7c3b9fcb87"
        );
        assert_eq!(
            hex_of("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", &BITCOIN),
            "0014751e76e8199196d454941c45d1b3a323f1433bd6"
        );
        assert_eq!(
            hex_of("BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", &BITCOIN),
            "0014751e76e8199196d454941c45d1b3a323f1433bd6"
        );
        assert_eq!(
            hex_of("tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7", &BITCOIN_TESTNET),
            "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262"
        );
        assert_eq!(
            hex_of("mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", &BITCOIN_REGTEST),
            "76a914243f1394f44554f4ce3fd68649c19adc483ce92488ac"
        );
    }

    #[test]
    fn a_typo_is_told_from_a_name() {
        for typo in [
            "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3",
            "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVNO",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3tb",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t",
        ] {
            assert!(matches!(script_of(typo, &BITCOIN.parent), Err(AddressError::Mistyped(..))), "{typo}");
        }
    }

    #[test]
    fn an_address_of_another_network_is_named_as_such() {
        for foreign in [
            "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn",
            "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
            "LM2WMpR1Rp6j3Sa59cMXMs1SPzj9eXpGc1",
            "bitcoincash:qpm2qsznhks23z7629mms6s4cwef74vcwvy22gdx6a",
            "0x52908400098527886E0F7030069857D2E4169EE7",
        ] {
            let error = script_of(foreign, &BITCOIN.parent).unwrap_err();
            assert!(matches!(error, AddressError::OtherNetwork { .. }), "{foreign}: {error}");
        }
    }

    #[test]
    fn taproot_is_refused_with_the_reason() {
        let error =
            script_of("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0", &BITCOIN.parent).unwrap_err();
        assert!(error.to_string().contains("witness version 1 (taproot or later)"), "{error}");
    }

    #[test]
    fn names_are_no_addresses() {
        for name in ["", "worker1", "miner", "x", "garage-rig-3", "antminers19garagenumber12345", "bc1", "größe"] {
            assert!(matches!(script_of(name, &BITCOIN.parent), Err(AddressError::NotAnAddress(_))), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,100}") {
            let _ = script_of(&text, &BITCOIN.parent);
        }

        #[test]
        fn one_changed_character_never_pays_anyone_nor_becomes_a_name(
            at in 3usize..34, with in "[0-9A-Za-z]"
        ) {
            let good = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2";
            let mut text = good.to_owned();
            text.replace_range(at..=at, &with);
            prop_assume!(text != good);
            prop_assert!(matches!(script_of(&text, &BITCOIN.parent), Err(AddressError::Mistyped(..))));
        }
    }
}
