//! Made-up merged blocks against the check.

use super::*;
use crate::merged::{COMMITMENT_BYTES, MergedKey};
use proptest::prelude::*;
use ruint::aliases::U320;

fn weights_of(miners: &[(&[u8], u64)], donation: u64) -> MergedWeights {
    let by_key = miners.iter().map(|(script, weight)| (MergedKey::Merged((*script).into()), U320::from(*weight)));
    let total = miners.iter().map(|(_, weight)| *weight).sum::<u64>() + donation;
    MergedWeights { by_key: by_key.collect(), total: U320::from(total), donation: U320::from(donation) }
}

/// Two miners and a donation.
fn usual() -> MergedWeights {
    weights_of(&[(b"one", 7), (b"two", 13)], 2)
}

/// Entry for a block with this coinbase.
fn entry(coinbase: &[u8], value: u64, height: u64, script: &[u8]) -> MergedCoinbase {
    let branch: Box<[Digest]> = [[3; 32], [4; 32]].into();
    let mut header = [9; 80];
    header[36..68].copy_from_slice(&merkle::fold(sha256d::Hash::hash(coinbase).to_byte_array(), &branch));
    MergedCoinbase { chain_id: DOGECOIN, value, height, header, branch, script: script.into() }
}

fn canonical(weights: &MergedWeights, value: u64, height: u64, script: &[u8]) -> MergedCoinbase {
    let outputs = MergedOutputs::new(weights, value).unwrap();
    let own = if script.is_empty() { canonical_script(height) } else { script.to_vec() };
    entry(&outputs.coinbase(&own), value, height, script)
}

/// Coinbase script that commits to the block of `info`, in a tree of `size`.
fn committing_to(info: &MergedCoinbase, size: u32) -> Vec<u8> {
    let mut root = sha256d::Hash::hash(&info.header).to_byte_array();
    root.reverse();
    let script = [&[3, 1, 2, 3, 44][..], &COMMITMENT_HEAD, &root, &size.to_le_bytes(), &[0; 4]].concat();
    assert_eq!(script.len(), 5 + COMMITMENT_BYTES);
    script
}

fn check(script: &[u8], infos: &[MergedCoinbase]) -> Result<(), MergedCoinbaseError> {
    verify(script, infos, |_| usual())
}

#[test]
fn a_canonical_coinbase_passes_with_either_script() {
    for script in [&b""[..], b"custom", &canonical_script(500)] {
        let info = canonical(&usual(), 1_000, 500, script);
        assert_eq!(check(&committing_to(&info, 1), &[info]), Ok(()));
    }
    // With a script in the share, nothing depends on the height.
    let info = MergedCoinbase { height: 1, ..canonical(&usual(), 1_000, 500, &canonical_script(500)) };
    assert_eq!(check(&committing_to(&info, 1), &[info]), Ok(()));
}

#[test]
fn each_fault_is_named() {
    let good = canonical(&usual(), 1_000, 500, b"");
    let script = committing_to(&good, 1);
    let reason = |script: &[u8], info: MergedCoinbase| check(script, &[info]).unwrap_err().reason();
    assert_eq!(reason(b"no commitment", good.clone()), "no_commitment");
    assert_eq!(reason(&script[..script.len() - 1], good.clone()), "short_commitment");
    for size in [0, 2, 1 << 8, u32::MAX] {
        assert_eq!(reason(&committing_to(&good, size), good.clone()), "tree_size");
    }
    for (value, height, own) in [(1_001, 500, &b""[..]), (1_000, 501, b""), (1_000, 500, b"other")] {
        let changed = MergedCoinbase { value, height, script: own.into(), ..good.clone() };
        assert_eq!(reason(&script, changed), "merkle_root");
    }
    assert_eq!(reason(&script, MergedCoinbase { branch: [[3; 32]].into(), ..good.clone() }), "merkle_root");
    for at in 0..80 {
        let mut header = good.header;
        header[at] ^= 1;
        assert_eq!(reason(&script, MergedCoinbase { header, ..good.clone() }), "block_hash");
    }
    let error = check(&script, &[MergedCoinbase { value: 1_001, ..good }]).unwrap_err().to_string();
    assert!(error.contains("for a coinbase of 1001 at height 500"), "{error}");
}

#[test]
fn the_first_head_counts_even_one_without_a_commitment() {
    let good = canonical(&usual(), 1_000, 500, b"");
    let script = committing_to(&good, 1);
    assert_eq!(check(&[&script[..], &COMMITMENT_HEAD].concat(), std::slice::from_ref(&good)), Ok(()));
    let error = check(&[&COMMITMENT_HEAD[..], &script].concat(), &[good]).unwrap_err();
    assert_eq!(error.reason(), "tree_size");
}

#[test]
fn other_chains_and_empty_weights_are_skipped_but_not_the_commitment() {
    let wrong = MergedCoinbase { value: 1, ..canonical(&usual(), 1_000, 500, b"") };
    let script = committing_to(&wrong, 7);
    let other = MergedCoinbase { chain_id: 63, ..wrong.clone() };
    let never = |_| -> MergedWeights { unreachable!("no weights are needed") };
    assert_eq!(verify(&script, std::slice::from_ref(&other), never), Ok(()));
    assert_eq!(verify(&script, &[other, wrong.clone()], |_| weights_of(&[], 5)), Ok(()));
    let error = verify(b"nothing", &[wrong], |_| MergedWeights::default()).unwrap_err();
    assert_eq!(error, MergedCoinbaseError::NoCommitment(7));
    assert_eq!(verify(b"nothing", &[], never), Ok(()));
}

#[test]
fn every_entry_counts_and_costs_a_comparison() {
    let good = canonical(&usual(), 1_000, 500, b"");
    let script = committing_to(&good, 1);
    let explicit = MergedCoinbase { height: 9, script: canonical_script(500).into(), ..good.clone() };
    let other_chain = MergedCoinbase { chain_id: 7, value: 5, ..good.clone() };
    let mut infos = vec![good.clone(); 20_000];
    infos.extend([other_chain, explicit]);
    assert_eq!(check(&script, &infos), Ok(()));
    let mut header = good.header;
    header[0] ^= 1;
    for wrong in [
        MergedCoinbase { value: 1_001, ..good.clone() },
        MergedCoinbase { height: 501, ..good.clone() },
        MergedCoinbase { script: b"other"[..].into(), ..good.clone() },
        MergedCoinbase { branch: [[3; 32]].into(), ..good.clone() },
        MergedCoinbase { header, ..good.clone() },
    ] {
        infos.push(wrong);
        assert_eq!(check(&script, &infos), Err(MergedCoinbaseError::SecondBlock(20_002)));
        infos.pop();
    }
}

#[test]
fn each_choice_of_a_tie_is_accepted_and_nothing_else() {
    let weights = weights_of(&[(b"one", 5), (b"two", 5), (b"small", 2)], 0);
    let outputs = MergedOutputs::new(&weights, 1_200).unwrap();
    let coinbases: Vec<_> = outputs.candidates(b"tie").collect();
    assert_eq!(coinbases.len(), 2);
    for coinbase in &coinbases {
        let info = entry(coinbase, 1_200, 5, b"tie");
        assert_eq!(verify(&committing_to(&info, 1), &[info], |_| &weights), Ok(()));
    }
    let info = entry(&MergedOutputs::new(&weights, 1_201).unwrap().coinbase(b"tie"), 1_200, 5, b"tie");
    assert!(verify(&committing_to(&info, 1), &[info], |_| &weights).is_err());
}

prop_compose! {
    fn any_entry()(
        chain_id in prop_oneof![Just(DOGECOIN), any::<u32>()], value: u64, height: u64, header: [u8; 40],
        branch in prop::collection::vec(any::<Digest>(), 0..4), script in prop::collection::vec(any::<u8>(), 0..20),
    ) -> MergedCoinbase {
        let mut whole = [0; 80];
        whole[..40].copy_from_slice(&header);
        MergedCoinbase { chain_id, value, height, header: whole, branch: branch.into(), script: script.into() }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        before in prop::collection::vec(any::<u8>(), 0..40), after in prop::collection::vec(any::<u8>(), 0..60),
        infos in prop::collection::vec(any_entry(), 0..4), weight: u64, commits: bool,
    ) {
        let mut script = [&before[..], &COMMITMENT_HEAD, &after].concat();
        if let Some(first) = infos.iter().find(|info| info.chain_id == DOGECOIN).filter(|_| commits) {
            script = committing_to(first, 1);
        }
        let _ = verify(&script, &infos, |_| weights_of(&[(b"miner", weight / 2)], weight / 3));
        let _ = verify(&after, &infos, |_| MergedWeights { total: U320::from(weight), ..weights_of(&[(b"miner", 9)], 9) });
    }

    #[test]
    fn whatever_is_built_passes_and_one_unit_more_does_not(
        value in 1u64.., height: u64, script in prop::collection::vec(any::<u8>(), 0..20), donation in 0u64..1 << 40,
        miners in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..30), 1u64..1 << 40, 1..8),
    ) {
        let miners: Vec<(&[u8], u64)> = miners.iter().map(|(script, weight)| (&script[..], *weight)).collect();
        let weights = weights_of(&miners, donation);
        let info = canonical(&weights, value, height, &script);
        let committing = committing_to(&info, 1);
        prop_assert_eq!(verify(&committing, std::slice::from_ref(&info), |_| &weights), Ok(()));
        let greedy = MergedCoinbase { value: value - 1, ..info };
        prop_assert!(verify(&committing, &[greedy], |_| &weights).is_err());
    }
}
