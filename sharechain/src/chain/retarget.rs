//! Target and times of the next share (protocol section 6).

use ruint::Uint;
use ruint::aliases::U320;
use serde::{Deserialize, Serialize};

use super::view::View;
use crate::coin::Network;
use crate::share::{Attempts, Bits, Share, ShareHash, ShareVersion, Target};

type U512 = Uint<512, 8>;

/// Maximum ratio between a share's difficulty and the easiest allowed.
const HARDER_MAX: u32 = 30;
/// `far_share_hash` leads this many shares back from the parent: to the hundredth ancestor (trap 29).
const FAR: u32 = 99;

/// Input of the retarget: the pool's rate at the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Minimum hashes for the measured shares: the attempts of their `max_target`s (trap 18).
    pub work: Attempts,
    /// Timestamp of the parent, in seconds.
    pub near: u32,
    /// Timestamp of the oldest share, whose own work is not counted (trap 19).
    pub far: u32,
    /// The parent's `max_target`, expanded from its compact form (trap 20).
    pub previous: Target,
}

impl Pace {
    /// The pool's hashes per second, rounded down; a time of 0 or less counts as one second (trap 19).
    pub fn attempts_per_second(&self) -> U320 {
        let seconds = self.near.checked_sub(self.far).filter(|seconds| *seconds > 0).unwrap_or(1);
        self.work.0 / U320::from(seconds)
    }

    /// Easiest target of the next share.
    pub fn max_target(&self, network: &Network) -> Target {
        let rate = wide(self.attempts_per_second());
        let previous = wide(self.previous.0);
        let low = previous * U512::from(9) / U512::from(10);
        let high = previous * U512::from(11) / U512::from(10);
        let next = if rate.is_zero() {
            clip(wide(Target::MAX_256.0), low, high)
        } else {
            // Above 2^256 hashes per period P2Pool reaches -1 (trap 17), which is below any bound.
            let quotient: U512 = (U512::from(1) << 256) / (U512::from(network.share_period) * rate);
            quotient.checked_sub(U512::from(1)).map_or(low, |wanted| clip(wanted, low, high))
        };
        let next = clip(next, U512::from(network.min_target), U512::from(network.max_target));
        Target(next.to())
    }
}

fn wide(number: U320) -> U512 {
    U512::from(number)
}

/// P2Pool's clip, which tests the lower bound first.
fn clip<T: PartialOrd>(number: T, low: T, high: T) -> T {
    if number < low {
        low
    } else if number > high {
        high
    } else {
        number
    }
}

/// Required fields of a share with a given parent, or with none: the same for our shares and all others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirements {
    previous: Option<Previous>,
    /// Length of the chain from the parent down.
    pub height: u32,
    /// Easiest target of the share.
    pub max_target: Target,
    /// Hundredth ancestor, if any.
    pub far_share_hash: Option<ShareHash>,
    /// Height above the genesis, modulo 2^32.
    pub absheight: u32,
    share_period: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Previous {
    timestamp: u32,
    abswork: u128,
}

impl Requirements {
    /// Computes the requirements after `previous`; `None` if too little of the chain is known.
    pub(super) fn after(view: &View<'_>, previous: Option<&Share>) -> Option<Requirements> {
        let network = view.network;
        let Some(previous) = previous else {
            return Some(Requirements {
                previous: None,
                height: 0,
                max_target: network.max_target.into(),
                far_share_hash: None,
                absheight: 1,
                share_period: network.share_period,
            });
        };
        let (height, last) = view.all.height_and_last(previous.hash());
        if height < network.real_chain_length && last.is_some() {
            return None;
        }
        let max_target = if height < network.target_lookbehind {
            network.max_target.into()
        } else {
            let far = view.all.ancestor(previous.hash(), network.target_lookbehind - 1)?;
            let pace = Pace {
                work: view.all.work_between(previous.hash(), far).min,
                near: previous.timestamp(),
                far: view.share(far)?.timestamp(),
                previous: previous.max_target(),
            };
            pace.max_target(network)
        };
        Some(Requirements {
            previous: Some(Previous { timestamp: previous.timestamp(), abswork: previous.abswork() }),
            height,
            max_target,
            far_share_hash: view.all.ancestor(previous.hash(), FAR),
            absheight: previous.absheight().wrapping_add(1),
            share_period: network.share_period,
        })
    }

    /// Returns `max_bits` and `bits` of a share with the wanted target `desired`.
    pub fn targets(&self, desired: Target) -> (Bits, Bits) {
        let hardest = Target(self.max_target.0 / U320::from(HARDER_MAX));
        (Bits::from_target(self.max_target), Bits::from_target(clip(desired, hardest, self.max_target)))
    }

    /// Returns the timestamp for the wanted time `desired`, in seconds; `None` if no share can follow any more.
    pub fn timestamp(&self, version: ShareVersion, desired: u32) -> Option<u32> {
        let previous = self.previous.as_ref().map(|previous| previous.timestamp);
        u32::try_from(version.timestamp(desired, previous, self.share_period)).ok()
    }

    /// Work from the genesis to a share of this target, modulo 2^128.
    pub fn abswork(&self, bits: Bits) -> u128 {
        let before = self.previous.as_ref().map_or(0, |previous| previous.abswork);
        before.wrapping_add(bits.target().attempts().low_u128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::BITCOIN;

    fn pace(work: u64, seconds: i64, previous: u64) -> Pace {
        let near = u32::try_from(1_000_000 + seconds).unwrap();
        let work = Attempts(U320::from(work) << 40);
        Pace { work, near, far: 1_000_000, previous: Target(U320::from(previous) << 160) }
    }

    #[test]
    fn no_time_and_time_that_runs_backwards_count_as_one_second() {
        for seconds in [1, 0, -1, -500] {
            assert_eq!(pace(7, seconds, 1).attempts_per_second(), U320::from(7u64) << 40);
        }
        assert_eq!(pace(7, 2, 1).attempts_per_second(), (U320::from(7u64) << 40) >> 1);
    }

    #[test]
    fn a_target_moves_by_a_tenth_at_most_and_each_bound_multiplies_first() {
        let odd = Target(U320::from(0x1_0000_0000_0001_u64) << 120 | U320::from(7));
        let fast = Pace { previous: odd, ..pace(u64::MAX, 1, 0) };
        assert_eq!(fast.max_target(&BITCOIN).0, odd.0 * U320::from(9) / U320::from(10));
        let slow = Pace { previous: odd, ..pace(0, 1000, 0) };
        assert_eq!(slow.max_target(&BITCOIN).0, odd.0 * U320::from(11) / U320::from(10));
    }

    #[test]
    fn between_the_bounds_a_target_is_one_less_than_the_quotient() {
        // 30 s at 2^40 hashes per second.
        let wanted = (U320::from(1) << 256) / (U320::from(30) * (U320::from(1) << 40)) - U320::from(1);
        let steady = Pace { previous: Target(wanted), ..pace(1, 1, 0) };
        assert_eq!(steady.max_target(&BITCOIN), Target(wanted));
    }

    #[test]
    fn a_rate_beyond_every_target_meets_the_lower_bound_even_if_that_is_zero() {
        let work = Attempts(U320::from(1) << 260);
        let beyond = Pace { work, previous: Target(U320::from(1)), ..pace(1, 1, 0) };
        assert_eq!(beyond.max_target(&BITCOIN), Target(U320::ZERO));
        let above = Pace { work, previous: Target(U320::from(20)), ..pace(1, 1, 0) };
        assert_eq!(above.max_target(&BITCOIN), Target(U320::from(18)));
    }

    #[test]
    fn a_parent_with_an_absurd_target_leads_back_to_the_networks_easiest() {
        let beyond = Pace { previous: Target::BEYOND, ..pace(1, 1, 0) };
        assert_eq!(beyond.max_target(&BITCOIN), BITCOIN.max_target.into());
    }

    #[test]
    fn a_share_is_at_most_thirty_times_harder_than_it_must_be() {
        let next = Requirements {
            previous: None,
            height: 0,
            max_target: BITCOIN.max_target.into(),
            far_share_hash: None,
            absheight: 1,
            share_period: 30,
        };
        let (max_bits, bits) = next.targets(Target(U320::ZERO));
        assert_eq!(max_bits, Bits(0x1d00_ffff));
        assert_eq!(bits, Bits::from_target(Target(next.max_target.0 / U320::from(30))));
        assert_eq!(next.targets(Target::MAX_256).1, max_bits);
    }
}
