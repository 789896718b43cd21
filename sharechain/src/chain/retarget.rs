//! Target and times of the next share (protocol section 6, and protocol-v36 section 5).

use ruint::Uint;
use ruint::aliases::U320;
use serde::{Deserialize, Serialize};

use super::view::View;
use crate::coin::Network;
use crate::rules::Clamp;
use crate::share::{Attempts, Bits, Share, ShareHash, ShareVersion, Target};

type U512 = Uint<512, 8>;

/// Maximum ratio between a share's difficulty and the easiest allowed.
const HARDER_MAX: u32 = 30;
/// `far_share_hash` leads this many shares back from the parent: to the hundredth ancestor (trap 29).
const FAR: u32 = 99;
/// Time since the parent from which the clamp is eased, in share periods (protocol-v36 section 5).
const EASING_AFTER: u64 = 20;
/// Time in which the eased center doubles, in share periods.
const EASING_DOUBLES_IN: u64 = 10;

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

    /// Easiest target of the next share, `gap` seconds after its parent.
    pub fn max_target(&self, network: &Network, clamp: Clamp, gap: u32) -> Target {
        let limits = Limits::of(network);
        self.retarget(limits).max_target(limits, clamp, gap)
    }

    fn retarget(&self, limits: Limits) -> Retarget {
        let rate = wide(self.attempts_per_second());
        let wanted = if rate.is_zero() {
            Target::MAX_256
        } else {
            // Above 2^256 hashes per period P2Pool reaches -1 (trap 17), which the lower bound replaces like 0.
            let quotient: U512 = (U512::from(1) << 256) / (U512::from(limits.share_period) * rate);
            Target(quotient.saturating_sub(U512::from(1)).to())
        };
        Retarget { wanted, previous: self.previous }
    }
}

/// A network's constants of the retarget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Limits {
    min_target: Target,
    max_target: Target,
    /// In seconds.
    share_period: u32,
}

impl Limits {
    fn of(network: &Network) -> Limits {
        Limits {
            min_target: network.min_target.into(),
            max_target: network.max_target.into(),
            share_period: network.share_period,
        }
    }
}

/// The retarget before the clamp, which depends on the share's version and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Retarget {
    /// Target at which the pool finds one share per period; below 2^256.
    wanted: Target,
    /// The parent's `max_target`.
    previous: Target,
}

impl Retarget {
    /// Easiest target of a share, `gap` seconds after its parent.
    fn max_target(self, limits: Limits, clamp: Clamp, gap: u32) -> Target {
        let center = match clamp {
            Clamp::Steady => wide(self.previous.0),
            Clamp::Eased => eased(self.previous, limits, gap),
        };
        let low = center * U512::from(9) / U512::from(10);
        let high = center * U512::from(11) / U512::from(10);
        let next = clip(wide(self.wanted.0), low, high);
        let next = clip(next, wide(limits.min_target.0), wide(limits.max_target.0));
        Target(next.to())
    }
}

/// The parent's `max_target`, doubled for every ten share periods of `gap` beyond twenty; in between it grows linearly
/// (protocol-v36 section 5).
fn eased(previous: Target, limits: Limits, gap: u32) -> U512 {
    let period = u64::from(limits.share_period.max(1));
    let (previous, max) = (wide(previous.0), wide(limits.max_target.0));
    let beyond = match u64::from(gap).checked_sub(EASING_AFTER * period) {
        Some(beyond) if beyond > 0 => beyond,
        _ => return previous,
    };
    let unit = EASING_DOUBLES_IN * period;
    // May be far too many to shift by.
    let doublings = usize::try_from(beyond / unit).unwrap_or(usize::MAX);
    if !previous.is_zero() && doublings.saturating_add(previous.bit_len()) > 256 {
        // 2^256 or more, which no network's maximum reaches.
        return max;
    }
    let doubled = if previous.is_zero() { previous } else { previous << doublings };
    (doubled * U512::from(unit + beyond % unit) / U512::from(unit)).min(max)
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

/// Required fields of a share with a given parent, or with none: the same for our shares and all others. Some depend on
/// the share's version and time as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirements {
    previous: Option<ParentFields>,
    /// Length of the chain from the parent down.
    pub height: u32,
    /// `None` on a chain shorter than `TARGET_LOOKBEHIND`: its shares may be as easy as the network allows.
    retarget: Option<Retarget>,
    limits: Limits,
    /// Hundredth ancestor, if any.
    pub far_share_hash: Option<ShareHash>,
    /// Height above the genesis, modulo 2^32.
    pub absheight: u32,
}

/// Fields of a share that those of its children depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentFields {
    /// Length of the chain from the share down.
    pub height: u32,
    /// Height above the genesis, modulo 2^32.
    pub absheight: u32,
    /// Timestamp in seconds since 1970.
    pub timestamp: u32,
    /// Work from the genesis, modulo 2^128.
    pub abswork: u128,
}

impl Requirements {
    /// Computes the requirements after `previous`, or of a chain's first share. `pace` is `None` for a chain shorter
    /// than the network's `TARGET_LOOKBEHIND`.
    pub fn new(
        network: &Network,
        previous: Option<ParentFields>,
        pace: Option<&Pace>,
        far_share_hash: Option<ShareHash>,
    ) -> Requirements {
        let limits = Limits::of(network);
        Requirements {
            previous,
            height: previous.map_or(0, |previous| previous.height),
            retarget: pace.map(|pace| pace.retarget(limits)),
            limits,
            far_share_hash,
            absheight: previous.map_or(0, |previous| previous.absheight).wrapping_add(1),
        }
    }

    /// Computes the requirements after `previous`; `None` if too little of the chain is known.
    pub(super) fn after(view: &View<'_>, previous: Option<&Share>) -> Option<Requirements> {
        let network = view.network;
        let Some(previous) = previous else {
            return Some(Requirements::new(network, None, None, None));
        };
        let (height, last) = view.all.height_and_last(previous.hash());
        if height < network.real_chain_length && last.is_some() {
            return None;
        }
        let pace = if height < network.target_lookbehind {
            None
        } else {
            let far = view.all.ancestor(previous.hash(), network.target_lookbehind - 1)?;
            Some(Pace {
                work: view.all.work_between(previous.hash(), far).min,
                near: previous.timestamp(),
                far: view.share(far)?.timestamp(),
                previous: previous.max_target(),
            })
        };
        let far_share_hash = view.all.ancestor(previous.hash(), FAR);
        let previous = ParentFields {
            height,
            absheight: previous.absheight(),
            timestamp: previous.timestamp(),
            abswork: previous.abswork(),
        };
        Some(Requirements::new(network, Some(previous), pace.as_ref(), far_share_hash))
    }

    /// Easiest target of a share of `version`. `desired` is its wanted time, or its timestamp, in seconds since 1970:
    /// both give the same.
    pub fn max_target(&self, version: ShareVersion, desired: u32) -> Target {
        let before = self.previous.map_or(desired, |previous| previous.timestamp);
        match self.retarget {
            None => self.limits.max_target,
            Some(retarget) => retarget.max_target(self.limits, version.rules().clamp, desired.saturating_sub(before)),
        }
    }

    /// Returns `max_bits` and `bits` of a share of `version` with the wanted time `desired` (see
    /// [`max_target`](Self::max_target)) and the wanted target `target`.
    pub fn targets(&self, version: ShareVersion, desired: u32, target: Target) -> (Bits, Bits) {
        let easiest = self.max_target(version, desired);
        let hardest = Target(easiest.0 / U320::from(HARDER_MAX));
        (Bits::from_target(easiest), Bits::from_target(clip(target, hardest, easiest)))
    }

    /// Returns the timestamp for the wanted time `desired`, in seconds; `None` if no share can follow any more.
    pub fn timestamp(&self, version: ShareVersion, desired: u32) -> Option<u32> {
        let previous = self.previous.as_ref().map(|previous| previous.timestamp);
        u32::try_from(version.timestamp(desired, previous, self.limits.share_period)).ok()
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
    use crate::coin::{BITCOIN, LITECOIN};

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
        assert_eq!(fast.max_target(&BITCOIN, Clamp::Steady, 0).0, odd.0 * U320::from(9) / U320::from(10));
        let slow = Pace { previous: odd, ..pace(0, 1000, 0) };
        assert_eq!(slow.max_target(&BITCOIN, Clamp::Steady, 0).0, odd.0 * U320::from(11) / U320::from(10));
    }

    #[test]
    fn between_the_bounds_a_target_is_one_less_than_the_quotient() {
        // 30 s at 2^40 hashes per second.
        let wanted = (U320::from(1) << 256) / (U320::from(30) * (U320::from(1) << 40)) - U320::from(1);
        let steady = Pace { previous: Target(wanted), ..pace(1, 1, 0) };
        assert_eq!(steady.max_target(&BITCOIN, Clamp::Steady, 0), Target(wanted));
    }

    #[test]
    fn a_rate_beyond_every_target_meets_the_lower_bound_even_if_that_is_zero() {
        let work = Attempts(U320::from(1) << 260);
        let beyond = Pace { work, previous: Target(U320::from(1)), ..pace(1, 1, 0) };
        assert_eq!(beyond.max_target(&BITCOIN, Clamp::Steady, 0), Target(U320::ZERO));
        let above = Pace { work, previous: Target(U320::from(20)), ..pace(1, 1, 0) };
        assert_eq!(above.max_target(&BITCOIN, Clamp::Steady, 0), Target(U320::from(18)));
    }

    #[test]
    fn a_parent_with_an_absurd_target_leads_back_to_the_networks_easiest() {
        let beyond = Pace { previous: Target::BEYOND, ..pace(1, 1, 0) };
        assert_eq!(beyond.max_target(&BITCOIN, Clamp::Steady, 0), BITCOIN.max_target.into());
    }

    #[test]
    fn a_share_is_at_most_thirty_times_harder_than_it_must_be() {
        let next = Requirements::new(&BITCOIN, None, None, None);
        assert_eq!((next.height, next.absheight), (0, 1));
        let (max_bits, bits) = next.targets(ShareVersion::V35, 0, Target(U320::ZERO));
        assert_eq!(max_bits, Bits(0x1d00_ffff));
        assert_eq!(bits, Bits::from_target(Target(U320::from(BITCOIN.max_target) / U320::from(30))));
        assert_eq!(next.targets(ShareVersion::V35, 0, Target::MAX_256).1, max_bits);
    }

    /// The figures of protocol-v36 section 5: a share period of 15 seconds.
    #[test]
    fn the_clamp_is_eased_from_twenty_periods_on_and_doubles_every_ten() {
        let limits = Limits::of(&LITECOIN);
        let previous = U320::from(3) << 200;
        for (gap, thousandths) in
            [(0, 1000), (299, 1000), (300, 1000), (375, 1500), (450, 2000), (525, 3000), (600, 4000), (675, 6000)]
        {
            let wanted = wide(previous * U320::from(thousandths) / U320::from(1000));
            assert_eq!(eased(Target(previous), limits, gap), wanted, "{gap}");
        }
        assert_eq!(eased(Target(previous), limits, 301), wide(previous * U320::from(151) / U320::from(150)));
    }

    #[test]
    fn an_eased_center_never_passes_the_networks_easiest_target() {
        let limits = Limits::of(&LITECOIN);
        let max = wide(limits.max_target.0);
        for previous in [Target(U320::from(1)), limits.max_target, Target::MAX_256, Target::BEYOND] {
            for gap in [301 + 240 * 150, 10_000_000, u32::MAX] {
                assert_eq!(eased(previous, limits, gap), max, "{previous} {gap}");
            }
        }
        // Zero stays zero after any time.
        assert_eq!(eased(Target(U320::ZERO), limits, u32::MAX), U512::ZERO);
        let period_of_one = Limits { share_period: 1, ..limits };
        assert_eq!(eased(Target(U320::from(1)), period_of_one, u32::MAX), max);
    }

    #[test]
    fn only_an_easing_version_depends_on_the_time_and_only_once_the_chain_is_measured() {
        let previous = ParentFields { height: 300, absheight: 300, timestamp: 1_000_000, abswork: 0 };
        let pace = Pace { previous: Target(U320::from(1) << 200), ..pace(0, 1000, 0) };
        let measured = Requirements::new(&LITECOIN, Some(previous), Some(&pace), None);
        let tenth_more = Target((U320::from(11) << 200) / U320::from(10));
        for desired in [0, 1_000_000, 1_000_300, 1_000_450, u32::MAX] {
            assert_eq!(measured.max_target(ShareVersion::V35, desired), tenth_more, "{desired}");
        }
        for desired in [0, 1_000_000, 1_000_300] {
            assert_eq!(measured.max_target(ShareVersion::Toy, desired), tenth_more, "{desired}");
        }
        let twice = Target((U320::from(22) << 200) / U320::from(10));
        assert_eq!(measured.max_target(ShareVersion::Toy, 1_000_450), twice);
        let easiest = Target::from(LITECOIN.max_target);
        assert_eq!(measured.max_target(ShareVersion::Toy, u32::MAX), easiest);
        let short = Requirements::new(&LITECOIN, Some(previous), None, None);
        for version in [ShareVersion::V35, ShareVersion::Toy] {
            assert_eq!(short.max_target(version, 0), easiest);
        }
    }
}
