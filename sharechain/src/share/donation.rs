//! Donation output of each version, and the constant bytes of every coinbase that follow from it (protocol section 4.5).

use super::{Payee, ShareRules, ShareVersion};
use crate::rules::Donation;

/// Donation output before version 36: pubkey of the reference's author and `OP_CHECKSIG`.
pub const DONATION_SCRIPT: [u8; 67] = [
    0x41, 0x04, 0xff, 0xd0, 0x3d, 0xe4, 0x4a, 0x6e, 0x11, 0xb9, 0x91, 0x7f, 0x3a, 0x29, 0xf9, 0x44, 0x32, 0x83, 0xd9,
    0x87, 0x1c, 0x9d, 0x74, 0x3e, 0xf3, 0x0d, 0x5e, 0xdd, 0xcd, 0x37, 0x09, 0x4b, 0x64, 0xd1, 0xb3, 0xd8, 0x09, 0x04,
    0x96, 0xb5, 0x32, 0x56, 0x78, 0x6b, 0xf5, 0xc8, 0x29, 0x32, 0xec, 0x23, 0xc3, 0xb7, 0x4d, 0x9f, 0x05, 0xa6, 0xf9,
    0x5a, 0x8b, 0x55, 0x29, 0x35, 0x26, 0x56, 0x66, 0x4b, 0xac,
];

/// Hash of that pubkey; its P2PKH address represents the donation among the payees.
pub const DONATION_PUBKEY_HASH: [u8; 20] = [
    0xd0, 0x3d, 0xa6, 0xfc, 0xa3, 0x90, 0x16, 0x6d, 0x02, 0x0b, 0xe0, 0xe7, 0xc2, 0x8a, 0xc8, 0xcc, 0x70, 0xf5, 0x84,
    0x03,
];

/// Hash of the script of two keys, of the reference's author and of the maintainer of version 36, that the donation of
/// version 36 pays.
const MARKER_HASH: [u8; 20] = [
    0x8c, 0x62, 0x72, 0x62, 0x1d, 0x89, 0xe8, 0xfa, 0x52, 0x6d, 0xd8, 0x6a, 0xcf, 0xf6, 0x0c, 0x71, 0x36, 0xbe, 0x8e,
    0x85,
];

/// Donation output from version 36 on: P2SH of that script.
pub const MARKER_SCRIPT: [u8; 23] = {
    let mut script = [0; 23];
    (script[0], script[1], script[22]) = (0xa9, 0x14, 0x87);
    let mut at = 0;
    while at < 20 {
        script[2 + at] = MARKER_HASH[at];
        at += 1;
    }
    script
};

/// First bytes of every coinbase's last output: a value of 0, and a script of `OP_RETURN` with a push of 40 bytes.
pub(super) const RETURN_HEAD: [u8; 11] = [0, 0, 0, 0, 0, 0, 0, 0, 0x2a, 0x6a, 0x28];

/// A script with its length, then the head of the last output.
const fn ending<const N: usize>(script: &[u8]) -> [u8; N] {
    let mut ending = [0; N];
    // No script of this file has 253 bytes.
    #[allow(clippy::cast_possible_truncation)]
    {
        ending[0] = script.len() as u8;
    }
    let mut at = 0;
    while at < script.len() {
        ending[1 + at] = script[at];
        at += 1;
    }
    let mut at = 0;
    while at < RETURN_HEAD.len() {
        ending[1 + script.len() + at] = RETURN_HEAD[at];
        at += 1;
    }
    ending
}

static PUBKEY_ENDING: [u8; 79] = ending(&DONATION_SCRIPT);
static MARKER_ENDING: [u8; 35] = ending(&MARKER_SCRIPT);

/// Constant bytes before the ref hash in a coinbase of `version`: the donation's script and the last output's first
/// bytes.
pub fn constant_ending(version: ShareVersion) -> &'static [u8] {
    match version.rules().donation {
        Donation::Pubkey => &PUBKEY_ENDING,
        Donation::Marker => &MARKER_ENDING,
    }
}

/// Script of the donation output in a coinbase of `version`.
pub fn donation_script(version: ShareVersion) -> &'static [u8] {
    match version.rules().donation {
        Donation::Pubkey => &DONATION_SCRIPT,
        Donation::Marker => &MARKER_SCRIPT,
    }
}

/// Payee that represents the donation of `version`. Before version 36 it is only a key, since its output has a script
/// of its own.
pub fn donation_payee(version: ShareVersion, rules: &ShareRules) -> Payee {
    match version.rules().donation {
        Donation::Pubkey => Payee::from_pubkey_hash(&DONATION_PUBKEY_HASH, rules),
        Donation::Marker => Payee::from_script_hash(&MARKER_HASH, rules),
    }
}
