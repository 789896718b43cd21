//! Numbers for comparing chains (protocol section 8.3), as the reference computes them.

use std::cmp::Ordering;

use ruint::Uint;
use ruint::aliases::U320;

use super::forest::Forest;
use super::view::View;
use crate::merkle::Digest;
use crate::share::{Attempts, ShareHash};

/// Score of a tail's best chain: by length while it is short, then by hash rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TailScore {
    /// Number of verified shares, at most `CHAIN_LENGTH`.
    pub height: u32,
    /// Minimum hash rate by the parent chain's clock, which shares cannot fake; from `CHAIN_LENGTH` on. An IEEE double,
    /// as in the reference.
    pub rate: Option<f64>,
}

impl TailScore {
    /// `None` sorts below every number.
    pub(super) fn order(&self, other: &TailScore) -> Ordering {
        let rate = |score: &TailScore| score.rate.unwrap_or(f64::NEG_INFINITY);
        self.height.cmp(&other.height).then_with(|| rate(self).total_cmp(&rate(other)))
    }
}

/// Scores the chain below `head`. Blocks whose height is missing are added to `wanted`.
pub(super) fn score(view: &View<'_>, verified: &Forest, head: ShareHash, wanted: &mut Vec<Digest>) -> TailScore {
    let length = view.network.chain_length;
    let height = verified.height(head);
    if height < length {
        return TailScore { height, rate: None };
    }
    let Some(end) = view.all.ancestor(head, length * 15 / 16) else { return TailScore { height: length, rate: None } };
    let mut newest: Option<i64> = None;
    for share in view.chain(end, length / 16) {
        let block = share.contents().min_header.previous_block;
        wanted.extend(block.filter(|block| !view.facts.heights.contains_key(block)));
        newest = newest.max(Some(view.facts.relative_height(block.as_ref())));
    }
    let blocks = 1 - newest.unwrap_or(0);
    let seconds = u64::try_from(blocks).unwrap_or(1).max(1) * u64::from(view.network.parent.block_period);
    let work = verified.work_between(head, end).own;
    TailScore { height: length, rate: Some(true_division(work, seconds)) }
}

/// Python's true division of integers: the nearest double, ties to even.
pub fn true_division(dividend: Attempts, divisor: u64) -> f64 {
    ratio(dividend.0, U320::from(divisor))
}

/// The same for wider integers; 0 if either is 0.
pub fn ratio(dividend: U320, divisor: U320) -> f64 {
    type Wide = Uint<512, 8>;
    if dividend.is_zero() || divisor.is_zero() {
        return 0.0;
    }
    // At least 64 bits of quotient, so that one extra bit can represent everything cut off.
    let (dividend, divisor) = (Wide::from(dividend), Wide::from(divisor));
    let shift = (128 + divisor.bit_len()).saturating_sub(dividend.bit_len());
    let dividend = dividend << shift;
    let (mut quotient, rest) = dividend.div_rem(divisor);
    let cut = quotient.bit_len().saturating_sub(127);
    let kept = quotient >> cut;
    let exact = rest.is_zero() && (kept << cut) == quotient;
    quotient = if exact { kept } else { kept | Wide::from(1) };
    let nearest: u128 = quotient.to();
    // `as` rounds to nearest, ties to even. Powers of two this small are exact, and so is multiplying by them.
    #[allow(clippy::cast_precision_loss)]
    let nearest = nearest as f64;
    let exponent = i32::try_from(cut).unwrap_or(i32::MAX) - i32::try_from(shift).unwrap_or(i32::MAX);
    nearest * 2_f64.powi(exponent)
}

/// Work for comparing heads, with an offset so that it can be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdjustedWork(U320);

/// 2^310: above every sum of work.
const ZERO: U320 = U320::from_limbs([0, 0, 0, 0, 1 << 54]);

impl AdjustedWork {
    /// Returns `work` minus the head's own `attempts` if it is punished, plus them if it solves its block.
    pub(super) fn new(work: Attempts, attempts: Attempts, punishment: i32) -> AdjustedWork {
        AdjustedWork(match punishment {
            ..0 => ZERO + work.0 + attempts.0,
            0 => ZERO + work.0,
            1.. => ZERO + work.0 - attempts.0,
        })
    }

    /// Formats the number in decimal.
    pub fn to_decimal(self) -> String {
        if self.0 >= ZERO { (self.0 - ZERO).to_string() } else { format!("-{}", ZERO - self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn division_rounds_as_python_does() {
        let divide = |dividend: u128, divisor| true_division(Attempts(U320::from(dividend)), divisor);
        assert_eq!(divide(8_027_971, 1600), 5_017.481_875);
        assert_eq!(divide(1, 3), 1.0 / 3.0);
        assert_eq!(divide(0, 5), 0.0);
        // A tie between two doubles goes to the even one, and one more to the other.
        assert_eq!(divide((1 << 53) + 1, 1), 9_007_199_254_740_992.0);
        assert_eq!(divide((1 << 54) + 3, 2), 9_007_199_254_740_994.0);
        assert_eq!(divide((1 << 53) + 3, 1), 9_007_199_254_740_996.0);
        assert_eq!(true_division(Attempts(U320::from(1) << 290), 1), 2_f64.powi(290));
    }

    proptest! {
        #[test]
        fn small_numbers_divide_as_doubles_do(dividend in 0u64..1 << 53, divisor in 1u64..1 << 53) {
            #[allow(clippy::cast_precision_loss)]
            let wanted = dividend as f64 / divisor as f64;
            prop_assert_eq!(true_division(Attempts(U320::from(dividend)), divisor), wanted);
        }
    }

    #[test]
    fn great_numbers_divide_as_small_ones_do() {
        let power = |exponent: usize| U320::from(1) << exponent;
        assert_eq!(ratio(power(300), power(290)), 1024.0);
        assert_eq!(ratio(power(10), power(310)), 2_f64.powi(-300));
        assert_eq!(ratio(U320::from(3) * power(200), U320::from(7) * power(200)), 3.0 / 7.0);
    }

    #[test]
    fn adjusted_work_may_be_less_than_none() {
        let attempts = |number: u64| Attempts(U320::from(number));
        let of = |punishment| AdjustedWork::new(attempts(5), attempts(9), punishment);
        assert!(of(3) < of(0) && of(0) < of(-1));
        assert_eq!([of(2).to_decimal(), of(0).to_decimal(), of(-1).to_decimal()], ["-4", "5", "14"]);
    }
}
