//! Properties of complete shares.

use proptest::prelude::*;
use ruint::Uint;
use ruint::aliases::U320;
use std::collections::BTreeMap;

use super::*;
use crate::map::Map;
use crate::rules::PayeeForm;

/// Section 4.8, steps 1 to 5, literally.
fn naive_outputs(weights: &Weights, subsidy: u64, finder: &Payee) -> Vec<(String, u64)> {
    type Big = Uint<512, 8>;
    let donation = donation_payee(ShareVersion::V35, &test_rules()).to_string();
    let mut amounts: BTreeMap<String, u64> = BTreeMap::new();
    for (payee, weight) in &weights.by_payee {
        let amount =
            Big::from(subsidy) * Big::from(199) * Big::from(*weight) / (Big::from(200) * Big::from(weights.total));
        amounts.insert(payee.to_string(), amount.to());
    }
    *amounts.entry(finder.to_string()).or_default() += subsidy / 200;
    let others: u64 = amounts.iter().filter(|(text, _)| **text != donation).map(|(_, amount)| amount).sum();
    amounts.insert(donation.clone(), subsidy - others);
    let mut sorted: Vec<_> = amounts.into_iter().collect();
    sorted.sort_by_key(|(text, amount)| (*text == donation, *amount, text.clone()));
    let cut = sorted.len().saturating_sub(4000);
    sorted.into_iter().skip(cut).filter(|(text, amount)| *text == donation || *amount > 0).collect()
}

/// Literally as in protocol-v36 sections 4.2 and 4.3.
fn naive_outputs_of_36(weights: &Weights, subsidy: u64) -> Vec<(Vec<u8>, u64)> {
    type Big = Uint<512, 8>;
    let mut amounts: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for (payee, weight) in &weights.by_payee {
        let amount = Big::from(subsidy) * Big::from(*weight) / Big::from(weights.total);
        amounts.insert(payee.script(ShareVersion::V36).unwrap().to_vec(), amount.to());
    }
    let mut rest = subsidy - amounts.values().sum::<u64>();
    if rest < 1 && subsidy > 0 {
        let (script, _) = amounts.iter().max_by_key(|(script, amount)| (**amount, (*script).clone())).unwrap();
        let largest = script.clone();
        *amounts.get_mut(&largest).unwrap() -= 1;
        rest = 1;
    }
    *amounts.entry(MARKER_SCRIPT.to_vec()).or_default() += rest;
    let donation = amounts.remove(&MARKER_SCRIPT[..]).unwrap();
    let mut sorted: Vec<_> = amounts.into_iter().filter(|(_, amount)| *amount > 0).collect();
    sorted.sort_by_key(|(script, amount)| (*amount, script.clone()));
    let cut = sorted.len().saturating_sub(4000);
    sorted.into_iter().skip(cut).chain([(MARKER_SCRIPT.to_vec(), donation)]).collect()
}

/// Up to 40 payees, some with equal weights, some huge, perhaps including the donation address.
fn any_weights() -> impl Strategy<Value = Weights> {
    let weight = prop_oneof![1u128..20, 1u128..u128::from(u64::MAX), any::<u128>().prop_map(|weight| weight | 1)];
    (prop::collection::btree_map(0u16..60, weight, 1..40), 0u32..120, any::<u64>()).prop_map(
        |(map, shift, donation)| {
            let payee_of =
                |index| if index == 59 { donation_payee(ShareVersion::V35, &test_rules()) } else { payee(index) };
            let by_payee: Map<_, _> = map
                .into_iter()
                .map(|(index, weight)| (payee_of(index), U320::from(weight) << shift as usize))
                .collect();
            let donation = U320::from(donation);
            let total = by_payee.values().fold(donation, |sum, weight| sum + weight);
            Weights { by_payee, total, donation }
        },
    )
}

fn any_hashes() -> impl Strategy<Value = Box<[Digest]>> {
    prop::collection::vec(any::<Digest>(), 0..4).prop_map(Vec::into_boxed_slice)
}

fn any_bytes() -> impl Strategy<Value = Box<[u8]>> {
    prop::collection::vec(any::<u8>(), 0..80).prop_map(Vec::into_boxed_slice)
}

prop_compose! {
    fn any_additions()(
        addresses in prop::collection::vec((any::<u32>(), any_bytes()), 0..3),
        coinbases in prop::collection::vec(
            (any::<u32>(), any::<(u64, u64)>(), any::<([u8; 32], [u8; 32], [u8; 16])>(), any_hashes(), any_bytes()), 0..3,
        ),
        merged_payout_hash in prop::option::of(any::<Digest>()),
        message_data in any_bytes(),
    ) -> Additions {
        let coinbase = |(chain_id, (value, height), header, branch, script): (_, _, ([u8; 32], [u8; 32], [u8; 16]), _, _)| {
            let header = [&header.0[..], &header.1, &header.2].concat().try_into().unwrap();
            MergedCoinbase { chain_id, value, height, header, branch, script }
        };
        Additions {
            merged_addresses: addresses.into_iter().map(|(chain_id, script)| MergedAddress { chain_id, script }).collect(),
            merged_coinbase_info: coinbases.into_iter().map(coinbase).collect(),
            merged_payout_hash,
            message_data,
        }
    }
}

prop_compose! {
    fn any_contents()(
        version in prop::sample::select(ShareVersion::ALL),
        header in (any::<u32>(), any::<Digest>(), any::<[u32; 3]>()),
        (previous, far) in (prop::option::of(any::<Digest>()), prop::option::of(any::<Digest>())),
        coinbase in prop::collection::vec(any::<u8>(), 0..120),
        text in "[ -~]{0,95}",
        (hash, subsidy, donation, stale_info) in (any::<[u8; 20]>(), any::<u64>(), any::<u16>(), any::<u8>()),
        (desired_version, nonce, numbers, abswork) in (any::<u64>(), any::<u64>(), any::<[u32; 5]>(), any::<u128>()),
        branches in (any_hashes(), any_hashes(), any_hashes(), any_hashes()),
        refs in prop::collection::vec(any::<(u64, u64)>(), 0..4),
        (root, state, length) in (any::<Digest>(), any::<[u8; 32]>(), 0u64..1 << 60),
        (additions, extra_data) in (any_additions(), prop::collection::vec(any::<u8>(), 0..40)),
    ) -> Contents {
        let mut made = contents(version);
        made.min_header = MinHeader {
            version: header.0, previous_block: Some(header.1), timestamp: header.2[0], bits: Bits(header.2[1]), nonce: header.2[2],
        };
        let info = &mut made.share_info;
        info.share_data = ShareData {
            previous: previous.map(ShareHash), coinbase: coinbase.into(), nonce: numbers[0],
            payout: match version.rules().payee {
                PayeeForm::Address => Payout::Address(text.into()),
                PayeeForm::PubkeyHash => Payout::PubkeyHash(hash),
                PayeeForm::Script => Payout::Hash { hash, kind: stale_info },
            },
            subsidy, donation, stale_info: StaleInfo(stale_info), desired_version,
        };
        if let Some(segwit) = &mut info.segwit_data {
            *segwit = SegwitData { txid_merkle_branch: branches.0, wtxid_merkle_root: root };
        }
        if let Some(transactions) = &mut info.transactions {
            *transactions = TransactionRefs { new_hashes: branches.1, refs: refs.into() };
        }
        info.far_share_hash = far.map(ShareHash);
        (info.max_bits, info.bits, info.timestamp, info.absheight) =
            (Bits(numbers[1]), Bits(numbers[2]), numbers[3], numbers[4]);
        info.abswork = abswork;
        made.hash_link = HashLink { state, extra_data: Box::default(), length };
        if let Some(filled) = &mut info.additions {
            info.abswork = abswork >> 64;
            **filled = additions;
            made.hash_link.extra_data = extra_data.into();
        }
        made.ref_merkle_branch = branches.2;
        made.last_txout_nonce = nonce;
        made.merkle_branch = branches.3;
        made
    }
}

proptest! {
    #[test]
    fn what_is_packed_unpacks_to_the_same_in_the_bounded_form(contents in any_contents()) {
        let bytes = pack(&contents);
        let read = unpack(&bytes, &test_rules()).unwrap();
        let mut bounded = contents.clone();
        if let Some(segwit) = &bounded.share_info.segwit_data {
            let kept = bounded.merkle_branch.len().min(segwit.txid_merkle_branch.len());
            bounded.merkle_branch = bounded.merkle_branch[..kept].into();
        }
        prop_assert_eq!(&read, &bounded);
        let bytes_of_bounded = pack(&read);
        prop_assert_eq!(bytes_of_bounded == bytes, bounded == contents, "only what is too long is touched");
        prop_assert_eq!(unpack(&bytes_of_bounded, &test_rules()).unwrap(), read);
    }

    #[test]
    fn outputs_are_those_of_the_rule_written_down_naively(
        weights in any_weights(), subsidy in prop_oneof![0u64..1000, any::<u64>()], finder in 0u16..62,
    ) {
        let finder = if finder == 59 { donation_payee(ShareVersion::V35, &test_rules()) } else { payee(finder) };
        prop_assert_eq!(paid(&weights, subsidy, &finder), naive_outputs(&weights, subsidy, &finder));
    }

    #[test]
    fn outputs_of_version_36_are_those_of_the_rule_written_down_naively(
        weights in any_weights(), subsidy in prop_oneof![0u64..1000, any::<u64>()], marker in prop::option::of(1u64..2000),
    ) {
        let (version, rules) = (ShareVersion::V36, test_rules());
        let mut weights = weights;
        if let Some(weight) = marker {
            // A miner may have chosen the donation's address.
            weights.by_payee.insert(donation_payee(version, &rules), U320::from(weight));
            weights.total += U320::from(weight);
        }
        let payouts = Payouts::new(version, subsidy, &weights, &rules).unwrap();
        let paid: Vec<_> = payouts
            .with_finder(&payee(3))
            .map(|(payee, amount)| (payee.script(version).unwrap().to_vec(), amount))
            .collect();
        prop_assert_eq!(paid, naive_outputs_of_36(&weights, subsidy));
    }

    #[test]
    fn a_coinbase_is_the_transaction_that_its_parts_say(
        weights in any_weights(), subsidy: u64, script in prop::collection::vec(any::<u8>(), 2..=100),
        (ref_hash, nonce, has_segwit, is_36) in (any::<Digest>(), any::<u64>(), any::<bool>(), any::<bool>()),
    ) {
        let version = if is_36 { ShareVersion::V36 } else { ShareVersion::V35 };
        let payouts = Payouts::new(version, subsidy, &weights, &test_rules()).unwrap();
        let segwit = SegwitData { txid_merkle_branch: Box::default(), wtxid_merkle_root: [5; 32] };
        let coinbase = payouts.coinbase(&script, has_segwit.then_some(&segwit), &payee(3)).unwrap();
        prop_assert!(coinbase.prefix().ends_with(constant_ending(version)));

        let stripped: bitcoin::Transaction =
            bitcoin::consensus::deserialize(&coinbase.stripped(&ref_hash, nonce)).unwrap();
        let whole: bitcoin::Transaction =
            bitcoin::consensus::deserialize(&coinbase.with_witness(&ref_hash, nonce)).unwrap();
        prop_assert!(whole.is_coinbase());
        prop_assert_eq!(whole.input[0].witness.to_vec(), [WITNESS_RESERVED_VALUE]);
        prop_assert_eq!(whole.compute_txid(), stripped.compute_txid());
        prop_assert_eq!(stripped.input[0].script_sig.as_bytes(), &script[..]);
        let commitments = usize::from(has_segwit);
        let outputs = payouts.with_finder(&payee(3)).count();
        prop_assert_eq!(stripped.output.len(), commitments + outputs + 1);
        prop_assert_eq!(
            coinbase.hash_link().gentx_hash(version, &ref_hash, nonce),
            stripped.compute_txid().to_raw_hash().to_byte_array()
        );
    }
}
