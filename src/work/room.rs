//! Room that a pool's coinbase needs in a block.

use sharechain::share;

use crate::template::Room;

/// Maximum size of one output to a payee, such as one more for the finder.
const OUTPUT_BYTES_MAX: usize = OUTPUT_HEAD_BYTES + share::SCRIPT_BYTES_MAX;

/// Size of an output's value and of the length of its script.
const OUTPUT_HEAD_BYTES: usize = 8 + 1;

/// Size of a coinbase after the payouts: ref hash, nonces, lock time.
const END_BYTES: usize = 32 + 8 + 4;

/// Maximum size of a coinbase before its payees' outputs: version, one input with a script of at most 100 bytes, and
/// the number of outputs.
const HEAD_BYTES_MAX: usize = 4 + 1 + 36 + 1 + 100 + 4 + 3;

/// Size of the output that commits to the witnesses.
const COMMITMENT_BYTES: usize = OUTPUT_HEAD_BYTES + 38;

/// Size of a coinbase's witness, and its weight: marker, flag, one item of 32 bytes.
const WITNESS_BYTES: usize = 2 + 2 + 32;

/// Signature operation cost that a payee's script may have.
const OUTPUT_SIGOPS: u64 = 4;

/// Returns the room for any finder's coinbase, given the size of one finder's up to its ref hash, and the number of
/// payees beside finder and donation.
pub(super) fn of_coinbase(prefix_bytes: usize, payees: usize) -> Room {
    Room {
        weight: 4 * (prefix_bytes + OUTPUT_BYTES_MAX + END_BYTES) as u64 + WITNESS_BYTES as u64,
        // Finder and donation have a script each.
        sigops: OUTPUT_SIGOPS * (payees as u64 + 2),
    }
}

/// Returns the maximum room for a coinbase that pays `scripts`, each given by its size in bytes, and the donation.
pub fn expected(scripts: impl IntoIterator<Item = usize>) -> Room {
    let donation = OUTPUT_HEAD_BYTES + share::DONATION_SCRIPT.len();
    // An output without value before the ref hash.
    let own = HEAD_BYTES_MAX + COMMITMENT_BYTES + donation + OUTPUT_HEAD_BYTES + 2;
    let add = |(bytes, payees), script: usize| (bytes + OUTPUT_HEAD_BYTES + script, payees + 1);
    let (bytes, payees) = scripts.into_iter().fold((own, 0), add);
    of_coinbase(bytes, payees)
}

/// Returns the number of payees with scripts of `script` bytes for which `room` is enough.
pub fn payees_within(room: Room, script: usize) -> u64 {
    let left = room.without(expected([]));
    let output = 4 * (OUTPUT_HEAD_BYTES + script) as u64;
    if expected([]).fits(room) { (left.weight / output).min(left.sigops / OUTPUT_SIGOPS) } else { 0 }
}

/// Returns the least and the largest room that the finder of a block can have left for its coinbase of this many bytes,
/// witness included: the room is for any finder's.
pub fn of_found(coinbase_bytes: usize) -> [Room; 2] {
    let prefix = coinbase_bytes.saturating_sub(WITNESS_BYTES + END_BYTES);
    [prefix.saturating_sub(OUTPUT_BYTES_MAX), prefix + OUTPUT_BYTES_MAX].map(|bytes| of_coinbase(bytes, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_payees_fit_as_the_room_for_them_allows() {
        for payees in [0, 1, 47, 252, 253, 500, 4000] {
            let room = expected(std::iter::repeat_n(25, payees));
            assert_eq!(payees_within(room, 25), payees as u64);
            let less = Room { weight: room.weight - 1, ..room };
            assert_eq!(payees_within(less, 25), (payees as u64).saturating_sub(1));
        }
        assert_eq!(payees_within(Room { weight: 1 << 40, sigops: 48 }, 25), 10, "each may cost four");
        assert_eq!(payees_within(Room::default(), 25), 0);
    }

    #[test]
    fn the_room_that_a_finder_left_is_between_those_that_its_coinbase_shows() {
        // The finder's own output may come on top, and takes the place of a shorter or longer one.
        for (for_any, of_finder) in [(1000, 1000), (1000, 1034), (1034, 1000)] {
            let left = of_coinbase(for_any, 0);
            let [least, largest] = of_found(of_finder + END_BYTES + WITNESS_BYTES);
            assert!(least.fits(left) && left.fits(largest));
            assert!(largest.weight - least.weight < 1000);
        }
    }
}
