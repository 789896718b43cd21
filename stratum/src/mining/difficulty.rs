//! `Difficulty` ↔ `Target` conversions and their rounding.
//!
//! Difficulty is *bdiff*: difficulty 1 is the target `0xffff · 2^208`, which is what mining hardware implements.

use ruint::aliases::U256;
use std::fmt;

type U512 = ruint::Uint<512, 8>;

/// Average number of hashes needed to meet difficulty 1: 2^256 / (0xffff · 2^208).
pub const HASHES_AT_DIFFICULTY_ONE: f64 = 4_294_967_296.0 * 65_536.0 / 65_535.0;

/// A 256-bit threshold: a hash, read as a little-endian number, meets it when it is not greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(U256);

impl Target {
    /// The target that every hash meets.
    pub const MAX: Self = Self(U256::MAX);

    /// Creates a target from the number, least significant byte first.
    pub fn from_le_bytes(bytes: [u8; 32]) -> Self {
        Self(U256::from_le_bytes(bytes))
    }

    /// Parses the number in hex, most significant digit first, as in `mining.suggest_target`.
    pub fn from_hex(digits: &str) -> Option<Self> {
        let digits = digits.strip_prefix("0x").unwrap_or(digits);
        let is_plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        (is_plain && (1..=64).contains(&digits.len()))
            .then(|| U256::from_str_radix(digits, 16).ok().map(Self))
            .flatten()
    }

    /// Returns the number, least significant byte first.
    pub fn to_le_bytes(self) -> [u8; 32] {
        self.0.to_le_bytes()
    }

    /// Returns the number, most significant byte first, for display.
    pub fn to_be_bytes(self) -> [u8; 32] {
        self.0.to_be_bytes()
    }

    /// True if `hash`, as the hash function produced it, is not above the target.
    pub fn is_met_by(&self, hash: &[u8; 32]) -> bool {
        Self::from_le_bytes(*hash) <= *self
    }

    /// The difficulty of this target; infinite for the target zero.
    pub fn difficulty(&self) -> f64 {
        f64::from(difficulty_one()) / f64::from(self.0)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({:064x})", self.0)
    }
}

/// Multiple of difficulty 1 (bdiff); positive and finite.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct Difficulty(f64);

impl Difficulty {
    /// `None` unless `value` is positive and finite.
    pub fn new(value: f64) -> Option<Self> {
        (value.is_finite() && value > 0.0).then_some(Self(value))
    }

    /// Returns the value as a number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Returns the greatest target that is at least this difficult: exact, rounded down.
    pub fn target(self) -> Target {
        // Below 2^-32 no 256-bit target is easy enough, above 2^224 none is hard enough.
        if self.0 < f64::powi(2.0, -33) {
            return Target::MAX;
        }
        if self.0 > f64::powi(2.0, 225) {
            return Target(U256::ZERO);
        }
        // A float is exactly mantissa · 2^exponent.
        let bits = self.0.to_bits();
        let mantissa = (bits & ((1 << 52) - 1)) | (1 << 52);
        let exponent = i64::try_from(bits >> 52).expect("twelve bits fit") - 1075;
        let shift = usize::try_from(exponent.unsigned_abs()).expect("at most 1075");
        let one = U512::from(difficulty_one());
        let quotient =
            if exponent < 0 { (one << shift) / U512::from(mantissa) } else { one / (U512::from(mantissa) << shift) };
        Target(if quotient > U512::from(U256::MAX) { U256::MAX } else { U256::from(quotient) })
    }

    /// Nearest power of two, handled exactly by every known device (Antminer S1 to S5 filter by `floor(log2)`).
    pub fn to_power_of_two(self) -> Self {
        Self(f64::exp2(self.0.log2().round().clamp(-1000.0, 1000.0)))
    }

    /// Greatest power of 2^(1/4) that is not harder: at most 16 % easier. Stands for a difficulty that a miner wishes
    /// for wherever each one costs memory, as there are only a thousand between the easiest and the hardest target.
    #[must_use]
    pub fn to_step_below(self) -> Self {
        let step = |quarters: f64| f64::exp2(quarters / 4.0);
        // The easiest target, which every hash meets, and the hardest, which none does.
        let bounded = self.0.clamp(f64::powi(2.0, -33), f64::powi(2.0, 225));
        let nearest = (bounded.log2() * 4.0).round();
        let quarters = if step(nearest) <= bounded { nearest } else { nearest - 1.0 };
        Self(step(quarters))
    }

    /// Average number of hashes needed to meet this difficulty.
    pub fn average_hashes(self) -> f64 {
        self.0 * HASHES_AT_DIFFICULTY_ONE
    }

    /// Returns the difficulty that is met on average after `hashes`; `None` unless positive and finite.
    pub fn from_average_hashes(hashes: f64) -> Option<Self> {
        Self::new(hashes / HASHES_AT_DIFFICULTY_ONE)
    }
}

impl fmt::Debug for Difficulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Difficulty({})", self.0)
    }
}

impl fmt::Display for Difficulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Factor between difficulties and the numbers that a coin's miners know them by: 1, or 65,536 by convention with scrypt,
/// where 2^16 hashes meet difficulty 1 (protocol trap 48).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale(u32);

impl Scale {
    /// Creates the scale with this factor; zero stands for 1.
    pub fn new(factor: u32) -> Self {
        Self(factor.max(1))
    }

    /// Returns the factor.
    pub fn factor(self) -> u32 {
        self.0
    }

    /// Returns the number by which miners know the difficulty `bdiff`.
    pub fn show(self, bdiff: f64) -> f64 {
        bdiff * f64::from(self.0)
    }

    /// Returns the difficulty that miners know by `number`; `None` unless positive and finite.
    pub fn read(self, number: f64) -> Option<Difficulty> {
        Difficulty::new(number / f64::from(self.0))
    }
}

impl Default for Scale {
    /// Difficulties as they are.
    fn default() -> Self {
        Self(1)
    }
}

fn difficulty_one() -> U256 {
    U256::from(0xffff_u32) << 208
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target_hex(difficulty: f64) -> String {
        format!("{:064x}", Difficulty::new(difficulty).unwrap().target().0)
    }

    #[test]
    fn difficulty_one_is_bdiff() {
        assert_eq!(target_hex(1.0), format!("00000000ffff{}", "0".repeat(52)));
        assert_eq!(target_hex(2.0), format!("000000007fff8{}", "0".repeat(51)));
        assert_eq!(target_hex(0.5), format!("00000001fffe{}", "0".repeat(52)));
    }

    #[test]
    fn the_extremes_saturate() {
        assert_eq!(Difficulty::new(1e-300).unwrap().target(), Target::MAX);
        assert_eq!(Difficulty::new(1e300).unwrap().target(), Target(U256::ZERO));
        assert_eq!(Difficulty::new(f64::powi(2.0, -32)).unwrap().target().0 >> 240, U256::from(0xffff_u32));
    }

    #[test]
    fn zero_negative_and_unreal_numbers_are_no_difficulty() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Difficulty::new(value), None, "{value}");
        }
    }

    #[test]
    fn regtest_has_the_difficulty_that_the_daemon_names() {
        let mut bytes = [0; 32];
        bytes[28..].copy_from_slice(&[0, 0, 0xff, 0x7f]);
        bytes[29] = 0xff;
        let difficulty = Target::from_le_bytes(bytes).difficulty();
        assert!((difficulty / 4.656_542_373_906_925e-10 - 1.0).abs() < 1e-12, "{difficulty}");
    }

    #[test]
    fn scrypt_miners_know_a_difficulty_by_a_number_65536_times_as_large() {
        let (bitcoin, scrypt) = (Scale::default(), Scale::new(65_536));
        assert_eq!((bitcoin.show(0.5), scrypt.show(0.5)), (0.5, 32_768.0));
        assert_eq!((bitcoin.read(0.5), scrypt.read(32_768.0)), (Difficulty::new(0.5), Difficulty::new(0.5)));
        assert_eq!([scrypt.read(0.0), scrypt.read(-1.0), scrypt.read(f64::NAN), scrypt.read(1e-323)], [None; 4]);
        assert_eq!(Scale::new(0), bitcoin);
        // One unit takes 2^16 hashes, and a little more since difficulty 1 is 0xffff and not 2^16.
        let hashes = scrypt.read(1.0).unwrap().average_hashes();
        assert!((hashes - 65_537.0).abs() < 1e-3, "{hashes}");
    }

    #[test]
    fn a_difficulty_is_rounded_down_to_a_quarter_of_an_octave() {
        let rounded = |value| Difficulty::new(value).unwrap().to_step_below().get();
        assert_eq!([1.0, 2.0, 0.25, 1024.0].map(rounded), [1.0, 2.0, 0.25, 1024.0]);
        assert_eq!([1.1, 1.999, 1000.0].map(rounded), [1.0, f64::exp2(0.75), f64::exp2(9.75)]);
        assert_eq!([1e-300, 5e-11].map(rounded), [f64::exp2(-33.0); 2], "every hash meets either");
        assert_eq!([1e100, 1e300].map(rounded), [f64::exp2(225.0); 2], "no hash meets either");
    }

    proptest! {
        #[test]
        fn a_rounded_difficulty_is_never_harder_hardly_easier_and_stays_where_it_is(exponent in -33.0..225.0_f64) {
            let asked = Difficulty::new(exponent.exp2()).unwrap();
            let rounded = asked.to_step_below();
            prop_assert!(rounded <= asked && rounded.get() > asked.get() * 0.84, "{asked} became {rounded}");
            prop_assert_eq!(rounded.to_step_below(), rounded);
            prop_assert!(rounded.target() >= asked.target());
        }

        #[test]
        fn target_and_difficulty_are_inverse(exponent in -30.0..90.0_f64) {
            let difficulty = Difficulty::new(exponent.exp2()).unwrap();
            let back = difficulty.target().difficulty();
            prop_assert!((back / difficulty.get() - 1.0).abs() < 1e-9, "{} became {back}", difficulty);
        }

        #[test]
        fn a_harder_difficulty_never_has_an_easier_target(a in -31.0..220.0_f64, b in -31.0..220.0_f64) {
            let (easy, hard) = if a < b { (a, b) } else { (b, a) };
            let target = |exponent: f64| Difficulty::new(exponent.exp2()).unwrap().target();
            prop_assert!(target(hard) <= target(easy));
        }
    }
}
