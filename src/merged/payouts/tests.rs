//! Coinbases that fit and that do not, and what shares say of them.

use super::*;
use crate::merged::template::TemplateAnswer;
use bitcoin::Transaction;
use serde_json::json;
use sharechain::merged::DOGECOIN;
use sharechain::share::Bits;

const VALUE: u64 = 1_000_000_000_000;

/// A template with this many transactions of 400 kB, each with a fee of 5.
fn template(transactions: u8) -> Arc<MergedTemplate> {
    let transaction = |seed: u8| {
        let raw = vec![seed; 400_000];
        let mut txid = bitcoin::hashes::Hash::to_byte_array(<bitcoin::Txid as bitcoin::hashes::Hash>::hash(&raw));
        txid.reverse();
        json!({"data": hex::encode(raw), "txid": hex::encode(txid), "fee": 5, "sigops": 1})
    };
    let answer = json!({
        "version": 0x0062_0004,
        "previousblockhash": "11".repeat(32),
        "transactions": (0..transactions).map(transaction).collect::<Vec<_>>(),
        "coinbasevalue": VALUE,
        "target": "00".repeat(4) + "ffff" + &"00".repeat(26),
        "curtime": 1_700_000_000,
        "bits": "1d00ffff",
        "height": 6_135_703,
    });
    serde_json::from_value::<TemplateAnswer>(answer).unwrap().check().unwrap().into()
}

fn weights_of<'a>(scripts: impl IntoIterator<Item = &'a [u8]>, donation: u16) -> MergedWeights {
    let mut weights = MergedWeights::default();
    for script in scripts {
        weights.count(MergedKey::Merged(script.into()), Bits(0x1d00_ffff).target().attempts(), donation);
    }
    weights
}

fn outputs(block: &TemplateBlock) -> Vec<(u64, Vec<u8>)> {
    let bytes = block.bytes(&[]);
    // After the header and the number of transactions.
    let coinbase: Transaction = bitcoin::consensus::deserialize_partial(&bytes[81..]).unwrap().0;
    coinbase.output.iter().map(|output| (output.value.to_sat(), output.script_pubkey.to_bytes())).collect()
}

#[test]
fn the_window_is_paid_and_the_share_says_so() {
    let template = template(1);
    let (one, two) = ([1; 25], [2; 23]);
    let paid = pay(&template, &weights_of([&one[..], &two, &two], 655)).unwrap();
    assert_eq!((paid.value, paid.miners), (VALUE, 2));
    let outputs = outputs(&paid.block);
    assert_eq!(outputs.iter().map(|(value, _)| value).sum::<u64>(), VALUE);
    assert_eq!((outputs.len(), &outputs[0].1[..], &outputs[1].1[..]), (4, &one[..], &two[..]));
    assert!(outputs[1].0.abs_diff(2 * outputs[0].0) <= 2 && outputs[3].0 >= VALUE / 101);
    let entry = paid.entry.unwrap();
    assert_eq!((entry.chain_id, entry.value, entry.height), (DOGECOIN, VALUE, 6_135_703));
    assert_eq!((&entry.header, &*entry.branch), (paid.block.header(), paid.block.branch()));
    assert_eq!(*entry.script, *canonical_script(6_135_703));
    assert_eq!(entry.branch.len(), 1);
}

#[test]
fn a_tie_that_other_nodes_may_decide_otherwise_is_mined_and_not_claimed() {
    let even = weights_of([&[1; 25][..], &[2; 25]], 0);
    let paid = pay(&template(0), &even).unwrap();
    assert_eq!((paid.miners, paid.entry), (2, None));
    assert_eq!(outputs(&paid.block).iter().map(|(value, _)| value).sum::<u64>(), VALUE);
}

#[test]
fn without_anyone_to_pay_there_is_no_block() {
    assert_eq!(pay(&template(0), &MergedWeights::default()), Err(NotPaid::NoMiner));
    assert_eq!(pay(&template(0), &weights_of([&[1; 25][..]], u16::MAX)), Err(NotPaid::NoMiner));
}

#[test]
fn transactions_make_room_and_their_fees_are_not_paid_out() {
    // 855 kB beside the proof: two transactions of 400 kB, with a coinbase below 55 kB.
    let few = weights_of([&[1; 25][..]], 100);
    let scripts: Vec<Vec<u8>> = (0..2000_u16).map(|number| number.to_le_bytes().repeat(12)).collect();
    let many = weights_of(scripts.iter().map(|script| &script[..]), 100);
    assert_eq!(pay(&template(2), &few).unwrap().value, VALUE);
    let paid = pay(&template(2), &many).unwrap();
    assert_eq!((paid.value, paid.miners), (VALUE - 5, 2000));
    let entry = paid.entry.unwrap();
    assert_eq!((entry.value, entry.branch.len()), (VALUE - 5, 1));
    assert_eq!(outputs(&paid.block).iter().map(|(value, _)| value).sum::<u64>(), VALUE - 5);
}

#[test]
fn scripts_that_no_block_can_hold_cost_their_own_miners_alone() {
    let usual = [1; 25];
    let (long, heavy) = (vec![0; 900_000], vec![0xae; 1001]);
    for odd in [long, heavy] {
        let paid = pay(&template(0), &weights_of([&usual[..], &odd], 100)).unwrap();
        assert_eq!((paid.miners, paid.value, paid.entry), (1, VALUE, None));
        let outputs = outputs(&paid.block);
        assert_eq!((outputs.len(), &outputs[0].1[..]), (3, &usual[..]));
        assert!(outputs[0].0 > VALUE * 9 / 10, "the others' part is shared");
        assert_eq!(pay(&template(0), &weights_of([&odd[..]], 100)), Err(NotPaid::NoMiner));
    }
    let odd = vec![0xae; 900];
    let paid = pay(&template(0), &weights_of([&usual[..], &odd], 100)).unwrap();
    assert_eq!(paid.miners, 2, "what fits is paid as everywhere");
    assert!(paid.entry.is_some());
}
