//! Kinds of parent scripts that a merged chain can pay.

use bitcoin::Script as ScriptBytes;

/// Kind of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    P2pkh,
    P2sh,
    /// With its program: a chain without witnesses pays the same pubkey hash by P2PKH.
    P2wpkh(&'a [u8; 20]),
}

/// Returns the kind of `script`; `None` for all others.
pub(super) fn of(script: &[u8]) -> Option<Kind<'_>> {
    let form = ScriptBytes::from_bytes(script);
    if form.is_p2pkh() {
        Some(Kind::P2pkh)
    } else if form.is_p2sh() {
        Some(Kind::P2sh)
    } else if form.is_p2wpkh() {
        script.last_chunk().map(Kind::P2wpkh)
    } else {
        None
    }
}

/// Returns the P2PKH script of `hash`.
pub(super) fn p2pkh(hash: &[u8; 20]) -> [u8; 25] {
    let mut script = [0; 25];
    script[..3].copy_from_slice(&[0x76, 0xa9, 20]);
    script[3..23].copy_from_slice(hash);
    script[23..].copy_from_slice(&[0x88, 0xac]);
    script
}
