//! Targets, attempts, hashes, merkle trees, hash links and script pushes.

use super::support::{bytes_of, digest_of, digests_of, json, list_of, number_of, ran, str_of};
use bitcoin::hashes::{Hash, hash160, sha256, sha256d};
use ruint::aliases::U320;
use serde_json::Value;
use sharechain::merkle;
use sharechain::share::{
    Bits, DONATION_PUBKEY_HASH, DONATION_SCRIPT, HashLink, ShareVersion, Target, constant_ending, push_bytes,
    push_number, witness_commitment_script,
};

fn bits_of(value: &Value) -> Bits {
    Bits(u32::from_str_radix(str_of(value), 16).unwrap())
}

#[test]
fn compact_targets_expand_and_compress_as_recorded() {
    let file = json("floating_integer.json");
    let cases = list_of(&file["bits_to_target"]);
    for case in cases {
        let target = bits_of(&case["bits"]).target();
        match U320::from_str_radix(str_of(&case["target"]), 16) {
            Ok(expected) if expected.bit_len() <= 256 => assert_eq!(target.0, expected, "{case}"),
            _ => assert_eq!(target, Target::BEYOND, "{case}"),
        }
    }
    ran("floating_integer.json", "bits_to_target", cases.len());

    let cases = list_of(&file["from_target_upper_bound"]);
    for case in cases {
        let target = Target::from_be_bytes(&bytes_of(&case["target"]).try_into().unwrap());
        let bits = Bits::from_target(target);
        assert_eq!(bits, bits_of(&case["bits"]), "{case}");
        assert_eq!(bits.target().to_hex(), case["back"], "{case}");
    }
    ran("floating_integer.json", "from_target_upper_bound", cases.len());
}

#[test]
fn attempts_follow_from_targets_as_recorded() {
    let file = json("difficulty.json");
    let cases = list_of(&file["target"]);
    for case in cases {
        let target = Target::from_be_bytes(&bytes_of(&case["target"]).try_into().unwrap());
        assert_eq!(target.attempts().0, number_of(&case["average_attempts"]), "{case}");
    }
    ran("difficulty.json", "target", cases.len());
}

#[test]
fn midstates_are_those_recorded() {
    let file = json("sha256.json");
    let cases = list_of(&file);
    for case in cases {
        let data = bytes_of(&case["data"]);
        let link = HashLink::of_bytes(&data);
        assert_eq!(hex::encode(link.state), case["state"], "{case}");
        assert_eq!(link.length * 8, case["length_bits"].as_u64().unwrap(), "{case}");
        let tail = bytes_of(&case["buf"]);
        let digest = sha256::Hash::hash(&bytes_of(&case["digest"])).to_byte_array();
        assert_eq!(link.double_hash(&tail, &[]), digest, "{case}");
    }
    ran("sha256.json", "cases", cases.len());
}

#[test]
fn hash_links_are_those_recorded() {
    let file = json("hash_link.json");
    let constant = constant_ending(ShareVersion::V35);
    assert_eq!(hex::encode(constant), file["gentx_before_refhash"]);
    let cases = list_of(&file["cases"]);
    for case in cases {
        let (prefix, ending) = (bytes_of(&case["prefix"]), bytes_of(&case["const_ending"]));
        let link = HashLink::of_bytes(&prefix);
        assert_eq!(hex::encode(link.state), case["state"]);
        assert_eq!(link.length, case["length"].as_u64().unwrap());
        // Unknown to the verifier: empty with the ending that shares have.
        let tail = &prefix[prefix.len() - prefix.len() % 64..];
        let extra = &tail[..tail.len() - tail.len().min(ending.len())];
        assert_eq!(hex::encode(extra), case["extra_data"]);
        assert!(ending != constant || extra.is_empty());
        let data = bytes_of(&case["data"]);
        let hash = link.double_hash(&[extra, &ending].concat(), &data);
        assert_eq!(hash, digest_of(&case["check"]));
        assert_eq!(hash, sha256d::Hash::hash(&[prefix, data].concat()).to_byte_array());
    }
    ran("hash_link.json", "cases", cases.len());
}

#[test]
fn merkle_roots_and_branches_are_those_recorded() {
    let file = json("merkle.json");
    assert_eq!(merkle::root(&[]), [0; 32]);
    assert_eq!(file["empty"], 0);
    let cases = list_of(&file["cases"]);
    for case in cases {
        let leaves = digests_of(&case["hashes"]);
        let root = digest_of(&case["merkle_hash"]);
        assert_eq!(merkle::root(&leaves), root);
        let branch = merkle::branch_of_first(&leaves[1..]);
        assert_eq!(branch, digests_of(&case["none_tip_branch"]));
        // Shares only link first leaves.
        let first = &case["links"][0];
        assert_eq!(branch, digests_of(&first["branch"]));
        assert_eq!(merkle::fold(leaves[0], &branch), digest_of(&first["root"]));
    }
    ran("merkle.json", "cases", cases.len());
}

#[test]
fn coinbase_pushes_are_those_recorded() {
    let file = json("scripts.json");
    let push = |item: &Value| match str_of(item).strip_prefix("hex:") {
        Some(bytes) => push_bytes(&hex::decode(bytes).unwrap()),
        None => Ok(push_number(str_of(item).parse().unwrap())),
    };
    let cases = list_of(&file["push"]);
    for case in cases {
        let pushes: Result<Vec<_>, _> = list_of(&case["items"]).iter().map(push).collect();
        assert_eq!(pushes.ok().map(|pushes| hex::encode(pushes.concat())), result_of(case), "{case}");
    }
    ran("scripts.json", "push", cases.len());

    // In reverse: heights at the start of a coinbase. The opcodes of 1 to 16 fail there, but not here.
    let cases = list_of(&file["bip34"]);
    for case in cases {
        if let Some(height) = case["height"]["ok"].as_str() {
            assert_eq!(hex::encode(push_number(height.parse().unwrap())), case["coinbase"], "{case}");
        }
    }
    ran("scripts.json", "bip34", cases.len());
}

fn result_of(case: &Value) -> Option<String> {
    case["result"]["ok"].as_str().map(str::to_owned)
}

#[test]
fn witness_commitments_and_the_donation_hash_are_those_recorded() {
    let file = json("misc.json");
    let cases = list_of(&file["witness_commitment"]);
    for case in cases {
        let script = witness_commitment_script(&digest_of(&case["root"]));
        assert_eq!(script[..6], [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed]);
        assert_eq!(script[6..], digest_of(&case["commitment"]), "{case}");
    }
    ran("misc.json", "witness_commitment", cases.len());

    let cases = list_of(&file["hash160"]);
    for case in cases {
        let mut hash = hash160::Hash::hash(&bytes_of(&case["data"])).to_byte_array();
        hash.reverse();
        assert_eq!(hex::encode(hash), case["hash160"]);
    }
    ran("misc.json", "hash160", cases.len());
    assert_eq!(hash160::Hash::hash(&DONATION_SCRIPT[1..66]).to_byte_array(), DONATION_PUBKEY_HASH);
}
