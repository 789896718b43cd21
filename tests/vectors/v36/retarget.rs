//! Targets, timestamp and work of the next share, with and without easing of the clamp (protocol-v36 section 5).

use ruint::aliases::U320;
use serde_json::Value;
use sharechain::chain::{Pace, ParentFields, Requirements};
use sharechain::coin::{LITECOIN, Network};
use sharechain::share::{Attempts, Bits, ShareVersion, Target};

use crate::vectors::support::{bytes_of, json, list_of, number_of, ran, str_of};

fn target_of(value: &Value) -> Target {
    Target::from_be_bytes(&bytes_of(value).try_into().unwrap())
}

fn u32_of(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

/// Litecoin with the constants of a recorded chain.
fn network_of(case: &Value) -> Network {
    Network {
        share_period: u32_of(&case["SHARE_PERIOD"]),
        target_lookbehind: u32_of(&case["TARGET_LOOKBEHIND"]),
        max_target: target_of(&case["MAX_TARGET"]).to_u256(),
        ..LITECOIN
    }
}

/// Rate of the chain at its last share; `None` if the chain is too short for one.
fn pace_of(case: &Value, network: &Network) -> Option<Pace> {
    let shares = list_of(&case["shares"]);
    let far = shares.len().checked_sub(network.target_lookbehind as usize)?;
    let max_target = |share: &Value| target_of(&share["max_target"]);
    let attempts = |share: &Value| max_target(share).attempts().0;
    let last = shares.last()?;
    Some(Pace {
        work: Attempts(shares[far + 1..].iter().map(attempts).fold(U320::ZERO, |sum, attempts| sum + attempts)),
        near: u32_of(&last["timestamp"]),
        far: u32_of(&shares[far]["timestamp"]),
        previous: max_target(last),
    })
}

#[test]
fn targets_of_versions_with_and_without_easing() {
    let file = json("retarget_v36.json");
    let cases = list_of(&file["cases"]);
    for case in cases {
        let network = network_of(case);
        let pace = pace_of(case, &network);
        let rate = pace.map(|pace| pace.attempts_per_second());
        assert_eq!(rate, (!case["attempts_per_second"].is_null()).then(|| number_of(&case["attempts_per_second"])));
        let shares = list_of(&case["shares"]);
        let height = u32::try_from(shares.len()).unwrap();
        let previous = ParentFields {
            height,
            absheight: height,
            timestamp: u32_of(&shares.last().unwrap()["timestamp"]),
            abswork: number_of(&case["parent_abswork"]).to(),
        };
        let next = Requirements::new(&network, Some(previous), pace.as_ref(), None);
        for row in list_of(&case["rows"]) {
            let version = ShareVersion::from_number(row[0].as_u64().unwrap()).unwrap();
            let desired = u32_of(&row[1]);
            let bits_of = |value| Bits(u32::from_str_radix(str_of(value), 16).unwrap());
            let (max_bits, bits) = next.targets(version, desired, target_of(&row[2]));
            assert_eq!((max_bits, bits), (bits_of(&row[3]), bits_of(&row[4])), "{row}");
            assert_eq!(next.timestamp(version, desired), Some(u32_of(&row[5])), "{row}");
            assert_eq!(next.abswork(bits), number_of(&row[6]).to::<u128>(), "{row}");
            // A check of the share starts from its own timestamp.
            assert_eq!(next.targets(version, u32_of(&row[5]), bits.target()), (max_bits, bits), "{row}");
        }
    }
    ran("retarget_v36.json", "cases", cases.len());
}
