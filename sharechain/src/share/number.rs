//! Numbers of the consensus: hashes in P2Pool's order, compact targets without Bitcoin's sign bit, and attempts.

use ruint::aliases::{U256, U320};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;
use std::ops::Add;

use crate::merkle::Digest;

/// Hash of a share, which is also the hash of its block header (sha256d on every coin, protocol section 4.10).
///
/// Stored in the hash function's byte order; ordered and displayed as in P2Pool, as a little-endian integer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShareHash(pub Digest);

impl Ord for ShareHash {
    fn cmp(&self, other: &ShareHash) -> Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}

impl PartialOrd for ShareHash {
    fn partial_cmp(&self, other: &ShareHash) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ShareHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&display_hex(&self.0))
    }
}

impl fmt::Debug for ShareHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ShareHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ShareHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut digest = Digest::default();
        let digits = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        hex::decode_to_slice(digits.as_bytes(), &mut digest).map_err(serde::de::Error::custom)?;
        digest.reverse();
        Ok(ShareHash(digest))
    }
}

/// Formats a digest for display and JSON: 64 hex digits of the integer, most significant first.
pub fn display_hex(digest: &Digest) -> String {
    let mut reversed = *digest;
    reversed.reverse();
    hex::encode(reversed)
}

/// Compact form of a target (the reference's `FloatingInteger`), compared by its 32 bits only (section 4.6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bits(pub u32);

impl Bits {
    /// Expands the target: no sign bit and no overflow check, unlike Bitcoin's (trap 16).
    pub fn target(self) -> Target {
        let mantissa = U320::from(self.0 & 0x00ff_ffff);
        let exponent = (self.0 >> 24) as usize;
        if exponent < 3 {
            return Target(mantissa >> (8 * (3 - exponent)));
        }
        let shift = 8 * (exponent - 3);
        if mantissa.is_zero() || mantissa.bit_len() + shift <= 256 {
            // A zero mantissa stays zero for any shift.
            Target(if mantissa.is_zero() { mantissa } else { mantissa << shift })
        } else {
            Target::BEYOND
        }
    }

    /// Compresses `target`, rounded down to 15 or more bits (the reference's `from_target_upper_bound`, named for the
    /// opposite). Exact to the bit for targets below 2^256, the only ones that any rule compresses.
    pub fn from_target(target: Target) -> Bits {
        let bytes = target.0.to_be_bytes::<40>();
        let significant = bytes.iter().position(|byte| *byte != 0).map_or(&[][..], |first| &bytes[first..]);
        // A leading byte of 0x80 or more would read as a sign in Bitcoin, so a zero byte is prepended.
        let pad = usize::from(significant.first().is_some_and(|byte| *byte >= 0x80));
        let mut mantissa = [0; 4];
        for (to, from) in mantissa[1 + pad..].iter_mut().zip(significant) {
            *to = *from;
        }
        let length = u32::try_from(significant.len() + pad).expect("at most 41 bytes");
        Bits(length << 24 | u32::from_be_bytes(mantissa))
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Upper bound for a hash read as a little-endian integer.
///
/// Exact below 2^256. Compact forms reach about 2^2040; all those are held as [`Target::BEYOND`], because no rule
/// distinguishes them: every hash meets them, their attempts are 0, they exceed every network's maximum, and nine or
/// eleven tenths of them are still clipped to that maximum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target(pub U320);

impl Target {
    /// 2^256 − 1, which every hash meets.
    pub const MAX_256: Target = Target(U320::from_limbs([u64::MAX, u64::MAX, u64::MAX, u64::MAX, 0]));
    /// Represents every target from 2^256 up. 2^300, so that eleven times its value still fits.
    pub const BEYOND: Target = Target(U320::from_limbs([0, 0, 0, 0, 1 << 44]));

    /// `ATT(t)` = 2^256 // (t + 1): average number of hashes to meet the target (section 0).
    pub fn attempts(self) -> Attempts {
        let two_256 = U320::from_limbs([0, 0, 0, 0, 1]);
        Attempts(two_256 / (self.0 + U320::from(1)))
    }

    /// True if `hash`, a raw digest, meets the target.
    pub fn is_met_by(self, hash: &Digest) -> bool {
        Target::from_le_bytes(hash) <= self
    }

    /// Reads the target from 32 big-endian bytes.
    pub fn from_be_bytes(bytes: &[u8; 32]) -> Target {
        Target(U320::from_be_slice(bytes))
    }

    /// Reads the target from 32 little-endian bytes, the order of a hash.
    pub fn from_le_bytes(bytes: &[u8; 32]) -> Target {
        Target(U320::from_le_slice(bytes))
    }

    /// Returns the integer, capped at 2^256 − 1: the same hashes meet both.
    pub fn to_u256(self) -> U256 {
        self.min(Target::MAX_256).0.to()
    }

    /// Returns 32 little-endian bytes, capped at 2^256 − 1: the same hashes meet both.
    pub fn to_le_bytes(self) -> [u8; 32] {
        self.to_u256().to_le_bytes()
    }

    /// Formats 64 hex digits, most significant first; more only for [`Target::BEYOND`].
    pub fn to_hex(self) -> String {
        format!("{:064x}", self.0)
    }
}

impl From<U256> for Target {
    fn from(number: U256) -> Target {
        Target(number.to())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Work: a number of hashes. At most 2^256 for one share (target 0, trap 22), less than 2^290 for a window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Attempts(pub U320);

impl Attempts {
    /// Work modulo 2^128, as `abswork` counts.
    pub fn low_u128(self) -> u128 {
        let limbs = self.0.as_limbs();
        u128::from(limbs[0]) | u128::from(limbs[1]) << 64
    }
}

impl Add for Attempts {
    type Output = Attempts;

    fn add(self, other: Attempts) -> Attempts {
        Attempts(self.0 + other.0)
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn compact_targets_know_no_sign_and_no_overflow() {
        for (bits, target) in [
            (0x0100_3456, U320::ZERO),
            (0x0492_3456, U320::from(0x9234_5600u64)),
            (0x0080_0000, U320::from(0)),
            (0x0300_0000, U320::ZERO),
            (0xff00_0000, U320::ZERO),
            (0xffff_ffff, Target::BEYOND.0),
            (0x2100_ffff, U320::from(0xffff) << 240),
            (0x2101_0000, Target::BEYOND.0),
        ] {
            assert_eq!(Bits(bits).target(), Target(target), "{bits:08x}");
        }
    }

    #[test]
    fn the_easiest_and_the_hardest_target_have_the_attempts_of_the_rule() {
        assert_eq!(Target(U320::ZERO).attempts().0, U320::from(1) << 256);
        assert_eq!(Target::MAX_256.attempts().0, U320::from(1));
        assert_eq!(Target::BEYOND.attempts().0, U320::ZERO);
    }

    #[test]
    fn what_is_beyond_256_bits_is_met_by_the_same_hashes_as_the_greatest_number_below() {
        assert_eq!(Target::BEYOND.to_le_bytes(), [0xff; 32]);
        assert_eq!(Target::BEYOND.to_u256(), U256::MAX);
        assert!(Target::BEYOND.is_met_by(&[0xff; 32]) && Target::MAX_256.is_met_by(&[0xff; 32]));
    }

    #[test]
    fn hashes_are_ordered_as_little_endian_integers() {
        let mut low = [0xff; 32];
        low[31] = 0;
        let mut high = [0; 32];
        high[31] = 1;
        assert!(ShareHash(low) < ShareHash(high));
        assert!(ShareHash(high).to_string().starts_with("01"));
    }

    proptest! {
        #[test]
        fn compressing_rounds_down_and_is_stable(bytes: [u8; 32], zeroes in 0usize..32) {
            let mut bytes = bytes;
            bytes[..zeroes].fill(0);
            let target = Target::from_be_bytes(&bytes);
            let bits = Bits::from_target(target);
            let back = bits.target();
            prop_assert!(back <= target);
            prop_assert_eq!(Bits::from_target(back), bits);
            // At least 15 bits survive.
            prop_assert!(target.0 - back.0 <= target.0 >> 15);
        }

        #[test]
        fn bytes_of_either_order_are_the_same_number(bytes: [u8; 32]) {
            let target = Target::from_le_bytes(&bytes);
            prop_assert_eq!(target.to_le_bytes(), bytes);
            prop_assert_eq!(Target::from(target.to_u256()), target);
            let mut reversed = bytes;
            reversed.reverse();
            prop_assert_eq!(Target::from_be_bytes(&reversed), target);
        }

        #[test]
        fn every_compact_form_expands(bits: u32) {
            let target = Bits(bits).target();
            prop_assert!(target <= Target::MAX_256 || target == Target::BEYOND);
            let _ = target.attempts();
        }
    }
}
