//! Script of a coinbase's only input: the block's height and the miner's additions (protocol section 4.9).

use thiserror::Error;

/// Maximum script length in bytes, Bitcoin's own rule.
const SCRIPT_BYTES_MAX: usize = 100;

/// Maximum bytes pushed by one opcode; the reference fails above this, so it never makes longer pushes.
const PUSH_BYTES_MAX: usize = 75;

/// Error of [`coinbase_script`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScriptError {
    /// An item that needs more than one push opcode.
    #[error("coinbase item of {0} bytes is longer than 75")]
    ItemTooLong(usize),
}

/// Builds the script: the height, then `items`, each pushed, then `flags` unchanged, cut at 100 bytes.
///
/// # Errors
/// [`ScriptError`].
pub fn coinbase_script(height: u32, items: &[&[u8]], flags: &[u8]) -> Result<Box<[u8]>, ScriptError> {
    let mut script = push_number(i64::from(height));
    for item in items {
        script.extend(push_bytes(item)?);
    }
    script.extend_from_slice(flags);
    script.truncate(SCRIPT_BYTES_MAX);
    Ok(script.into())
}

/// Pushes `number` as BIP 34 encodes heights: small numbers as opcodes, others as little-endian magnitude and sign bit
/// (section 18.1).
pub fn push_number(number: i64) -> Vec<u8> {
    if number == 0 {
        return vec![0];
    }
    if number == -1 || (1..=16).contains(&number) {
        let opcode = u8::try_from(0x50 + number).expect("0x4f to 0x60");
        return vec![opcode];
    }
    let magnitude = number.unsigned_abs().to_le_bytes();
    let length = magnitude.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut bytes = magnitude[..length].to_vec();
    if bytes.last().is_some_and(|byte| *byte >= 0x80) {
        bytes.push(0);
    }
    if let Some(last) = bytes.last_mut().filter(|_| number < 0) {
        *last |= 0x80;
    }
    let count = u8::try_from(bytes.len()).expect("at most nine bytes");
    bytes.insert(0, count);
    bytes
}

/// Pushes `item`.
///
/// # Errors
/// [`ScriptError::ItemTooLong`].
pub fn push_bytes(item: &[u8]) -> Result<Vec<u8>, ScriptError> {
    match u8::try_from(item.len()) {
        Ok(length) if item.len() <= PUSH_BYTES_MAX => Ok([&[length], item].concat()),
        _ => Err(ScriptError::ItemTooLong(item.len())),
    }
}

/// Returns the height at the start of a coinbase script (BIP 34).
pub fn height_of(script: &[u8]) -> Option<u32> {
    let (first, rest) = script.split_first()?;
    match usize::from(*first) {
        0 => Some(0),
        length @ 1..=4 => {
            let bytes = rest.get(..length)?;
            let number = bytes.iter().rev().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
            // The topmost bit is the sign, and no height is negative.
            (bytes.last()? & 0x80 == 0).then_some(number)
        }
        small @ 0x51..=0x60 => u32::try_from(small - 0x50).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_cut_at_100_bytes() {
        let script = coinbase_script(840_000, &[&[7; 44], &[8; 40]], b"flags at the end").unwrap();
        assert_eq!(script.len(), 100);
        assert_eq!(&script[..4], [3, 0x40, 0xd1, 0x0c]);
        assert_eq!(coinbase_script(1, &[&[0; 76]], b""), Err(ScriptError::ItemTooLong(76)));
    }

    #[test]
    fn a_height_is_read_from_any_push_that_a_coinbase_may_begin_with() {
        assert_eq!(height_of(&[2, 0xf6, 0]), Some(246));
        assert_eq!(height_of(&[3, 0x01, 0x02, 0x0d, 9, 9]), Some(0x0d_0201));
        assert_eq!(height_of(&[0x51, 0]), Some(1));
        assert_eq!(height_of(&[0]), Some(0));
        for odd in [&[][..], &[3, 1, 2], &[5, 1, 1, 1, 1, 1], &[1, 0x80], &[0x61]] {
            assert_eq!(height_of(odd), None, "{odd:?}");
        }
    }
}
